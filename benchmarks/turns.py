"""Medians of calls that take turns, so that what the machine does meets all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

Call = Callable[[], Any]


def measure(
    calls: Sequence[Call],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """The median of each (seconds), once warm; in a round each has its turn."""
    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for own, call in zip(times, calls, strict=True):
            start = clock()
            call()
            own.append(clock() - start)
    return [statistics.median(own) for own in times]
