"""Turns, medians and peaks of memory of what is compared on one device."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from turns import Call

Timed = Callable[[], float]
"""A turn: does its work, and returns its milliseconds."""

REPLAYS = 20
ENOUGH = 60.0
"""Milliseconds of replays in one turn, after which no more are added."""


@dataclass
class Bench:
    """Where is measured, how long, and whom rows are told."""

    device: str
    quick: bool
    deadline: float
    """In seconds of `time.monotonic`."""
    send: Callable[[str, dict[str, Any]], None]
    """Takes a table's name and one row of it."""
    rows_left: int = 1
    added: dict[tuple[Any, ...], float] = field(default_factory=dict)
    """By contestant: the most MiB that its calls took beyond what was there before."""

    @property
    def on_gpu(self) -> bool:
        """Whether there is a stream to wait for."""
        return self.device.startswith("cuda")

    def begin(self) -> None:
        """Make the device the one that streams and events are on."""
        if self.on_gpu:
            torch.cuda.set_device(self.device)

    def left(self) -> float:
        """Seconds that are left to this section."""
        return self.deadline - time.monotonic()

    def failed(self, what: str, error: BaseException) -> None:
        """Tell why something is not in the tables."""
        lines = f"{type(error).__name__}: {error}".strip().splitlines()
        self.send("failures", {"what": what, "why": lines[0][:300]})

    def attempt(self, what: str, make: Callable[[], Any]) -> Any:
        """What `make` returns; None where it fails, and the reason is told."""
        try:
            return make()
        except Exception as error:  # noqa: BLE001 - whatever it is, others go on
            self.failed(what, error)
            return None
        finally:
            self.clean()

    def clean(self) -> None:
        """Give the device back what nobody holds any more."""
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()

    def fresh(self) -> int:
        """Begin a new peak; the bytes that torch holds now."""
        if not self.on_gpu:
            return 0
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return int(torch.cuda.memory_allocated())

    def note(self, contestant: tuple[Any, ...], before: int) -> None:
        """Keep how far a contestant's peak is above what was held before it."""
        if self.on_gpu:
            peak = (torch.cuda.max_memory_allocated() - before) / 2**20
            self.added[contestant] = max(self.added.get(contestant, 0.0), peak)

    def share(self) -> float:
        """When the next row's time ends: all rows that are left have equal shares."""
        share = max(0.0, self.left()) / max(1, self.rows_left)
        self.rows_left -= 1
        return time.monotonic() + share


def wall(call: Call) -> Timed:
    """A turn of a call that ends with its results on the host."""

    def turn() -> float:
        start = time.perf_counter()
        call()
        return (time.perf_counter() - start) * 1e3

    return turn


def on_device(bench: Bench, run: Call) -> Timed:
    """A turn of a run that leaves its results on the device: the mean of several."""
    if not bench.on_gpu:
        return wall(run)
    times: list[int] = []

    def turn() -> float:
        if not times:
            _events(run, 3)
            once = _events(run, 1)
            times.append(max(3, min(REPLAYS, int(ENOUGH / max(once, 1e-3)))))
        return _events(run, times[0])

    return turn


def _events(run: Call, times: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(times):
        run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / times


def synchronised(bench: Bench, call: Call) -> Any:
    """What a call returns, when the device has done all of it."""
    returned = call()
    if bench.on_gpu:
        torch.cuda.synchronize()
    return returned


def measure(
    bench: Bench, turns: Mapping[str, Timed | None], row: tuple[Any, ...]
) -> dict[str, float]:
    """The median of each that works (milliseconds); in a round each has its turn.

    As many rounds as fit into the row's share of the time: 5 to 100.
    """
    until = bench.share()
    working = {name: turn for name, turn in turns.items() if turn is not None}
    for name, turn in list(working.items()):
        if not _warm(bench, name, turn, row):
            del working[name]
    least, most = (2, 3) if bench.quick else (5, 100)
    times: dict[str, list[float]] = {name: [] for name in working}
    done = 0
    while done < least or (done < most and time.monotonic() < until):
        for name, turn in list(working.items()):
            try:
                times[name].append(turn())
            except Exception as error:  # noqa: BLE001 - the others go on
                bench.failed(_titled(row, name), error)
                del working[name]
        done += 1
    medians = {name: statistics.median(times[name]) for name in working}
    return {**medians, "rounds": done}


def _titled(row: tuple[Any, ...], name: str) -> str:
    return ", ".join(map(str, (*row, name)))


def _warm(bench: Bench, name: str, turn: Timed, row: tuple[Any, ...]) -> bool:
    """Turns that are not counted, and what memory they took; whether they worked."""
    before, start = bench.fresh(), time.monotonic()
    try:
        for done in range(1 if bench.quick else 3):
            if done == 2 and time.monotonic() - start > 1:
                break
            turn()
    except Exception as error:  # noqa: BLE001 - whatever it is, others go on
        bench.failed(_titled(row, name), error)
        return False
    bench.note((*row[:2], name), before)
    return True


def used(bench: Bench) -> float:
    """MiB of the device that are taken, by whomever."""
    if not bench.on_gpu:
        return 0.0
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    return float(total - free) / 2**20
