"""RF-DETR end to end beside the official package, transformers and the peer.

    python benchmarks/peers.py [--rounds 15] [--output benchmarks/results/rfdetr-cpu.md]

Makes two environments for the others (about 2 GB each) and one checkpoint a size, which
all of them load, and keeps both in `--folder` for the next time. Each contestant is a
process of its own, and they take turns: while one predicts, the others wait for input.
One that cannot be installed or run is listed with the reason. Run it from an
environment that has this library with both backends, the pack for RF-DETR, and
scikit-image. Without an NVIDIA GPU, set PIP_EXTRA_INDEX_URL to PyTorch's index of CPU
builds first.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scenes
from peer_contestants import CONTESTANTS, THRESHOLD, Job
from run import processor

HERE = Path(__file__).parent
TORCH = ("torch==2.13.0", "torchvision==0.28.0")
REQUIREMENTS = {
    "official": (*TORCH, "rfdetr==1.11.2", "transformers==5.23.0", "onnx>=1.16"),
    "peer": (*TORCH, "inference-models[onnx-cpu]==0.39.6"),
}
SIZES = ("nano", "small", "medium", "base", "large")
PHOTO = "640×427"
SETTLE = 0.1
"""Seconds between two contestants: the first one's threads may spin for a while."""


class Failed(Exception):
    """A contestant that could not be installed, loaded or run; says why."""


@dataclass
class Record:
    """What was measured of one contestant: one entry a round."""

    load: float
    versions: dict[str, str]
    calls: list[float] = field(default_factory=list)
    runs: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    peak: float = 0.0


class Worker:
    """One contestant in a process of its own, which sleeps until it is asked."""

    def __init__(self, job: Job, python: Path, folder: Path) -> None:
        self.job = job
        self._log = folder / "logs" / f"{job.size}-{job.batch}-{job.name}.txt"
        self._log.parent.mkdir(exist_ok=True)
        start = time.perf_counter()
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [python, HERE / "peer_worker.py", json.dumps(asdict(job))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment(folder),
            )
        versions = self._answer()
        self.record = Record(time.perf_counter() - start, versions)

    def turn(self, calls: int) -> None:
        """Let it predict, and note the medians of this turn."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{calls}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failed(last_line(self._log.read_text())) from None
        answer = self._answer()
        self.record.calls.append(statistics.median(answer["call"]))
        self.record.runs.append(statistics.median(answer["run"]))
        self.record.scores, self.record.peak = answer["scores"], answer["peak"]

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise Failed(last_line(self._log.read_text()))
        content: dict[str, Any] = json.loads(line)
        return content


def main() -> None:
    """Measure everything and write one page."""
    options = parse()
    options.folder.mkdir(parents=True, exist_ok=True)
    np.save(options.folder / "photo.npy", scenes.photo(scenes.SIZES[PHOTO]))
    pythons, failures = environments(options.folder, options.only)
    page, versions = header(), {}
    for size in options.sizes:
        files = make_files(size, pythons["official"], options.folder)
        for batch in options.batches:
            jobs = [
                Job(name, size, batch, str(options.folder / "photo.npy"), **files)
                for name in options.only
                if CONTESTANTS[name].environment in pythons
            ]
            records = compete(jobs, pythons, options, failures)
            page += table(size, batch, records, effort(options, batch))
            versions |= {name: record.versions for name, record in records.items()}
    page += [*version_table(versions), *failure_list(failures)]
    print("\n".join(page))
    if options.output:
        options.output.write_text("\n".join(page) + "\n", "utf-8")


def parse() -> argparse.Namespace:
    """What the user asks for."""
    cache = Path.home() / ".cache" / "inference-models-benchmarks"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["nano", "base"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=3, help="timed, a turn")
    parser.add_argument(
        "--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS)
    )
    parser.add_argument("--folder", type=Path, default=cache)
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def environments(
    folder: Path, names: Iterable[str]
) -> tuple[dict[str, Path], dict[tuple[str, str], str]]:
    """The interpreter of each environment, and why there is none for a contestant."""
    pythons, failures = {"ours": Path(sys.executable)}, {}
    needed = {CONTESTANTS[name].environment for name in names} | {"official"}
    for name in sorted(needed - {"ours"}):
        try:
            pythons[name] = install(folder / name, REQUIREMENTS[name])
        except Failed as failure:
            if name == "official":  # which makes the files that all load
                raise
            failures |= {
                (contestant, "all"): str(failure)
                for contestant in names
                if CONTESTANTS[contestant].environment == name
            }
    return pythons, failures


def install(folder: Path, requirements: tuple[str, ...]) -> Path:
    """A virtual environment with these packages, made again where they changed."""
    python, mark = folder / "bin" / "python", folder / "requirements.txt"
    wanted = "\n".join(requirements)
    if mark.is_file() and mark.read_text() == wanted:
        return python
    print(f"installing {', '.join(requirements)} into {folder}", file=sys.stderr)
    command(sys.executable, "-m", "venv", "--clear", folder)
    command(python, "-m", "pip", "install", "--quiet", *requirements)
    mark.write_text(wanted)
    return python


def make_files(size: str, python: Path, folder: Path) -> dict[str, str]:
    """The files of one size that contestants load, made where they are missing."""
    place = folder / "models" / size
    place.mkdir(parents=True, exist_ok=True)
    files = {
        "checkpoint": place / f"checkpoint_{size}.pth",
        "official_onnx": place / "official.onnx",
        "peer_onnx": place / "peer-onnx",
        "peer_torch": place / "peer-torch",
    }
    # It is written last.
    if not files["official_onnx"].is_file():
        photo = folder / "photo.npy"
        command(python, HERE / "peer_files.py", size, photo, place)
    return {name: str(path) for name, path in files.items()}


def command(*words: str | Path) -> None:
    """Run a command that must succeed."""
    try:
        subprocess.run(
            words, env=environment(), check=True, capture_output=True, text=True
        )
    except subprocess.CalledProcessError as error:
        raise Failed(last_line(error.stderr)) from error


def environment(folder: Path | None = None) -> dict[str, str]:
    """The variables of a child: nobody's caches but ours, nobody else's packages."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    if folder:
        kept["INFERENCE_MODELS_CACHE"] = str(folder / "ours")
        kept["INFERENCE_HOME"] = str(folder / "peer-home")
    return kept


def last_line(text: str) -> str:
    """The end of an error's text, which says what it was."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "ended without a word"


def compete(
    jobs: list[Job],
    pythons: dict[str, Path],
    options: argparse.Namespace,
    failures: dict[tuple[str, str], str],
) -> dict[str, Record]:
    """Load all, let them take turns, and say what was measured of those that did."""
    workers: list[Worker] = []
    for job in jobs:
        python = pythons[CONTESTANTS[job.name].environment]
        try:
            if job.batch == options.batches[0]:
                # Fills the caches: the disk's, and what a library derives and keeps.
                Worker(job, python, options.folder).close()
            workers.append(Worker(job, python, options.folder))
        except Failed as failure:
            failures[job.name, where(job)] = str(failure)
    if workers:
        take_turns(workers, *effort(options, workers[0].job.batch), failures)
    for worker in workers:
        worker.close()
    return {worker.job.name: worker.record for worker in workers}


def take_turns(
    workers: list[Worker],
    rounds: int,
    calls: int,
    failures: dict[tuple[str, str], str],
) -> None:
    """Each works once a round, another one first every time; those that fail leave."""
    for number in range(rounds):
        first = number % max(1, len(workers))
        for worker in [*workers[first:], *workers[:first]]:
            try:
                worker.turn(calls)
            except Failed as failure:
                failures[worker.job.name, where(worker.job)] = str(failure)
                workers.remove(worker)
            time.sleep(SETTLE)


def where(job: Job) -> str:
    """The table that a job belongs to."""
    return f"{job.size}, batch {job.batch}"


def effort(options: argparse.Namespace, batch: int) -> tuple[int, int]:
    """Rounds, and calls a turn: batches take longer and vary less."""
    if batch == 1:
        return options.rounds, options.calls
    return max(1, options.rounds // 3), 1


def header() -> list[str]:
    """Where and how this was measured."""
    cores = len(os.sched_getaffinity(0))
    conditions = (
        f"{processor()}, {cores} cores; Python {platform.python_version()}. A {PHOTO} "
        f"photo in memory, float32 on the CPU, confidence above {THRESHOLD}; one "
        "checkpoint with seeded random weights for all, or the official package's ONNX "
        "export of it. Threads and session options are each project's defaults. "
        "Medians of rounds in which the rows of a table take turns; a turn is a call "
        "to warm up, and the median of the timed ones after it."
    )
    columns = (
        "`call` is photos to detections in milliseconds, ± half the distance between "
        "its quartiles over the rounds, `ratio` the call to that of the faster one of "
        "ours in the same round, `run` the network alone in the same process on a "
        "prepared batch, `share` the call less the run. `found` counts the first "
        "photo's detections and `best` is their highest confidence; they differ where "
        "pixels do, since some resize with antialias and some without. `load` is the "
        "seconds from starting Python to the loaded model, with all files in the "
        "disk's cache, and `peak` the resident memory in MB, loading included."
    )
    return ["# RF-DETR beside its peers", "", conditions, "", columns]


def table(
    size: str, batch: int, records: dict[str, Record], effort: tuple[int, int]
) -> list[str]:
    """One table: a size and a batch."""
    medians = {name: statistics.median(r.calls) for name, r in records.items()}
    own = [name for name in medians if name.startswith("ours")]
    best = records[min(own, key=lambda name: medians[name])].calls if own else None
    names = ("call", "ratio", "run", "share", "found", "best", "load", "peak")
    lines = [f"| {' | '.join(row(name, r, best))} |" for name, r in records.items()]
    title = f"## RF-DETR {size}, batch {batch}"
    turns = f"{effort[0]} rounds, {effort[1]} timed calls a turn."
    columns = [f"| | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    return ["", title, "", turns, "", *columns, *lines]


def row(name: str, record: Record, best: list[float] | None) -> list[str]:
    """The cells of one contestant."""
    around = [c - r for c, r in zip(record.calls, record.runs, strict=True)]
    ratio = "–"
    if best:
        ratios = [c / b for c, b in zip(record.calls, best, strict=True)]
        ratio = f"{statistics.median(ratios):.2f}"
    alone = name == "bare-onnx"
    return [
        CONTESTANTS[name].title,
        f"{statistics.median(record.calls):.1f} ± {spread(record.calls):.1f}",
        ratio,
        "" if alone else f"{statistics.median(record.runs):.1f}",
        "" if alone else f"{statistics.median(around):.1f}",
        str(len(record.scores)),
        f"{max(record.scores, default=0):.3f}",
        f"{record.load:.1f}",
        f"{record.peak:.0f}",
    ]


def spread(values: list[float]) -> float:
    """Half the distance between the quartiles."""
    low, high = np.percentile(values, (25, 75))
    return float(high - low) / 2


def version_table(versions: dict[str, dict[str, str]]) -> list[str]:
    """What each contestant ran with."""
    lines = []
    for name, found in versions.items():
        packages = ", ".join(f"{package} {number}" for package, number in found.items())
        lines.append(f"| {CONTESTANTS[name].title} | {packages} |")
    return ["", "## Versions", "", "| | packages |", "| --- | --- |", *lines]


def failure_list(failures: dict[tuple[str, str], str]) -> list[str]:
    """Who was not measured, and why."""
    if not failures:
        return []
    lines = [
        f"| {CONTESTANTS[name].title} | {place} | {reason.replace('|', '/')} |"
        for (name, place), reason in failures.items()
    ]
    columns = ["| | where | reason |", "| --- | --- | --- |"]
    return ["", "## Not measured", "", *columns, *lines]


if __name__ == "__main__":
    main()
