"""One contestant in a process of its own: `peer_worker.py JOB`, a JSON object.

Loads it, answers with one line of JSON, and then waits. Each line with a number makes
it predict once uncounted and that many times counted, and is answered by the times; the
end of the input ends it. While it waits for a line it takes no core from the others.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

from peer_contestants import CONTESTANTS, Contestant, Job


def main() -> None:
    """Load, then measure as often as asked."""
    # What libraries print goes where errors go: standard output belongs to the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    job = Job(**json.loads(sys.argv[1]))
    kind = CONTESTANTS[job.name]
    contestant = kind.load(job)
    answer(answers, {name: version(name) for name in kind.distributions})
    for line in sys.stdin:
        answer(answers, measure(contestant, int(line)))


def answer(answers: TextIO, content: dict[str, Any]) -> None:
    """Send one line."""
    answers.write(json.dumps(content) + "\n")
    answers.flush()


def measure(contestant: Contestant, calls: int) -> dict[str, Any]:
    """Times of whole calls and of the network alone, which take turns."""
    found = contestant.found(contestant.call())
    contestant.run()
    times: dict[str, list[float]] = {"call": [], "run": []}
    for _ in range(calls):
        times["call"].append(timed(contestant.call))
        times["run"].append(timed(contestant.run))
    scores = [float(score) for score in found]
    return {**times, "scores": scores, "peak": peak_megabytes()}


def timed(function: Callable[[], object]) -> float:
    """Milliseconds that a call takes."""
    start = time.perf_counter()
    function()
    return (time.perf_counter() - start) * 1000


def peak_megabytes() -> float:
    """Peak resident memory of this program alone; getrusage counts its parent's too."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
