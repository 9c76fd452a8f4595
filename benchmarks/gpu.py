"""Run the tests that need an NVIDIA GPU, then measure what calls cost there.

    python benchmarks/gpu.py [--seconds 240] [--skip-tests] [--only resnet50 florence2]
    python benchmarks/gpu.py --append --only resnet18 official
    python benchmarks/gpu.py --device cpu --quick    (tries the script out)

Each section runs in a process of its own with its share of the time, so that one which
fails or hangs does not stop the others; the page is written anew after each row. What
the page is made of lies beside it as JSON, so that sections can be run one after the
other: with `--append` those that are not run now stay as they are.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import gpu_page
from gpu_sections import SECTIONS
from gpu_turns import Bench

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
PYTEST = ("-m", "gpu", "-v", "--continue-on-collection-errors")
GRACE = 10
"""Seconds that a section may take beyond its share before it is ended."""

Row = dict[str, Any]
Records = dict[str, list[tuple[str, Row]]]
"""Rows by the section that measured them, each with its table."""


def main() -> int:
    """Test, measure, and write one page; the exit code is that of the tests."""
    options = parsed()
    end = time.monotonic() + options.seconds
    records = earlier(options) if options.append else {}
    code = 0 if options.skip_tests else tests(records, options.seconds / 2)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["INFERENCE_MODELS_CACHE"] = str(Path(folder) / "cache")
        os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
        names = {"limits", *(options.only or SECTIONS)}
        wanted = {name: own for name, own in SECTIONS.items() if name in names}
        while wanted:
            share = (end - time.monotonic()) / sum(part for part, _ in wanted.values())
            name, (part, _) = next(iter(wanted.items()))
            del wanted[name]
            section(name, part * share, Path(folder), options, records)
    print(write(records, options))
    return code


def parsed() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--quick", action="store_true", help="few and small rounds")
    parser.add_argument("--skip-tests", action="store_true")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS))
    parser.add_argument("--append", action="store_true", help="to the page there is")
    parser.add_argument("--output", type=Path, help="instead of results/<gpu>.md")
    return parser.parse_args()


def tests(records: Records, seconds: float) -> int:
    """Run what is marked `gpu`, and keep pytest's last line."""
    start = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", *PYTEST],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            output = f"{process.communicate()[0]}\nended: its time was over"
    print(output, flush=True)
    last = output.strip().splitlines()[-1:] or ["nothing was said"]
    took = time.monotonic() - start
    records["tests"] = [("tests", {"line": last[0].strip("= "), "seconds": took})]
    return int(process.returncode)


def section(
    name: str,
    seconds: float,
    folder: Path,
    options: argparse.Namespace,
    records: Records,
) -> None:
    """Run one section in a process of its own, and keep its rows as they come."""
    if seconds < 1 and not options.quick:
        failure = ("failures", {"what": name, "why": "no time was left"})
        records.setdefault(name, []).append(failure)
        return
    records[name] = []
    # A fork has torch imported; CUDA is first touched in the child.
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    start = time.monotonic()
    deadline = start + (1e6 if options.quick else seconds)
    process = fork.Process(target=child, args=(name, deadline, folder, options, sender))
    process.start()
    sender.close()
    try:
        why = received(receiver, deadline + GRACE, keep(name, records, options))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(int(process.pid or 0), signal.SIGKILL)
        process.join()
    if why:
        records[name].append(("failures", {"what": name, "why": why}))
    print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    write(records, options)


def keep(
    name: str, records: Records, options: argparse.Namespace
) -> Callable[[tuple[str, Row]], None]:
    """Take a section's record, and write the page with it."""

    def kept(record: tuple[str, Row]) -> None:
        records[name].append(record)
        if record[0] == "failures":
            print(*record[1].values(), sep=": ", file=sys.stderr, flush=True)
        write(records, options)

    return kept


def received(
    receiver: Connection, until: float, kept: Callable[[Any], None]
) -> str | None:
    """Hand on what a child sends until it is done; else why it did not come so far."""
    while receiver.poll(max(0.0, until - time.monotonic())):
        try:
            record = receiver.recv()
        except EOFError:
            return "its process ended before it was done"
        if record is None:
            return None
        kept(record)
    return "ended: its time was over"


def child(
    name: str,
    deadline: float,
    folder: Path,
    options: argparse.Namespace,
    sender: Connection,
) -> None:
    """A section in its own process, and group of processes."""
    os.setsid()

    def send(table: str, row: dict[str, Any]) -> None:
        sender.send((table, row))

    bench = Bench(options.device, options.quick, deadline, send)
    try:
        bench.begin()
        SECTIONS[name][1](bench, folder)
    except Exception as error:  # noqa: BLE001 - told on the page
        bench.failed(name, error)
    sender.send(None)


def write(records: Records, options: argparse.Namespace) -> str:
    """The page so far, in its file; returns it."""
    order = [name for name in ("tests", *SECTIONS) if name in records]
    rows = [record for name in order for record in records[name]]
    page = gpu_page.page(rows, options)
    path = options.output or RESULTS / f"{slug(rows)}{'-quick' * options.quick}.md"
    path.write_text(page, "utf-8")
    path.with_suffix(".json").write_text(json.dumps(records, indent=1), "utf-8")
    return page


def slug(rows: list[tuple[str, Row]]) -> str:
    """The machine's name, as a file's."""
    machine = next((row["name"] for table, row in rows if table == "machine"), "gpu")
    return re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")


def earlier(options: argparse.Namespace) -> Records:
    """What was measured before, for the page that is asked for."""
    if options.output is None:
        raise SystemExit("--append needs --output, the page that is appended to")
    path = options.output.with_suffix(".json")
    if not path.is_file():
        return {}
    known = json.loads(path.read_text("utf-8"))
    return {name: [(table, row) for table, row in rows] for name, rows in known.items()}


if __name__ == "__main__":
    sys.exit(main())
