"""What a call costs, layer by layer, in one command; medians and ratios of one run.

    python benchmarks/run.py [--rounds 30] [--output benchmarks/results/NAME.md]

Each backend is measured in a process of its own, since the thread pools of two runtimes
in one process fight for the cores. Within a process, what is compared takes turns.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import scenes
import suppression

HERE = Path(__file__).parent
K = TypeVar("K")


def main() -> None:
    """Measure everything and write one page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scenes.write(Path(folder))
        environment = {**os.environ, "INFERENCE_MODELS_CARDS": folder}
        environment["INFERENCE_MODELS_CACHE"] = str(Path(folder) / "cache")
        page = [*header(options.rounds), *imports(), *starts(folder, environment)]
        for backend in ("onnx", "torch"):
            page += calls(backend, folder, environment, options.rounds)
        page += suppression.table(options.rounds)
    print("\n".join(page))
    if options.output:
        options.output.write_text("\n".join(page) + "\n", "utf-8")


def header(rounds: int) -> list[str]:
    """Where and with what this was measured."""
    names = ("numpy", "pillow", "torch", "onnxruntime")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    where = f"{processor()}, {len(os.sched_getaffinity(0))} cores"
    conditions = (
        f"{where}; Python {platform.python_version()}, {versions}. Medians of {rounds} "
        "rounds in which the rows of a table take turns; milliseconds unless said."
    )
    columns = (
        "`call` is `model(image)` end to end, `run` the bare runtime on the prepared "
        "tensor (ONNX Runtime's own session; the eager torch module), `prepare` and "
        "`post` our parts around it, `share` the median of call - run - prepare: what "
        "the library adds beyond preparing pixels. It is below zero where our session "
        "is faster than the bare one (torch: channels last) by more than that. "
        "`resize` is the resize alone, by the fastest means of that installation; "
        "`decode` comes before all of it where the images are JPEG files."
    )
    return ["# What a call costs", "", conditions, "", columns]


def processor() -> str:
    """The processor's name, as Linux gives it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return models[0] if models else platform.machine()


def imports() -> list[str]:
    """Time to import, beyond starting Python and importing NumPy."""
    rows = {
        "numpy alone": "import numpy",
        "`import inference_models`": "import numpy, inference_models",
        "`from inference_models import AutoModel`": (
            "import numpy; from inference_models import AutoModel"
        ),
    }
    times = in_turns({n: [sys.executable, "-c", code] for n, code in rows.items()}, 15)
    base = times["numpy alone"]
    lines = [f"| {name} | {t:.0f} | {t - base:+.0f} |" for name, t in times.items()]
    columns = ["| | process | beyond numpy |", "| --- | --- | --- |"]
    return ["", "## Import", "", *columns, *lines]


def starts(folder: str, environment: dict[str, str]) -> list[str]:
    """A fresh process from start to its first prediction, weights in the cache."""
    script = [sys.executable, str(HERE / "first.py")]
    commands = {
        (backend, kind): [*script, backend, kind, folder]
        for backend in ("onnx", "torch")
        for kind in ("ours", "bare")
    }
    for command in commands.values():
        subprocess.run(command, env=environment, check=True, capture_output=True)
    times = in_turns(commands, 7, environment)
    peaks = {
        name: peak_memory(command, environment) for name, command in commands.items()
    }
    lines = []
    for backend in ("onnx", "torch"):
        ours, bare = (times[backend, kind] for kind in ("ours", "bare"))
        memory = [f"{peaks[backend, kind]:.0f}" for kind in ("ours", "bare")]
        cells = [f"{ours:.0f}", f"{bare:.0f}", f"{ours / bare:.2f}", *memory]
        lines.append(f"| {backend} | {' | '.join(cells)} |")
    title = "## Cold start to the first prediction, ResNet-18, 640×427"
    columns = "| backend | ours | bare script | ratio | peak MB ours | peak MB bare |"
    return ["", title, "", columns, "| --- |" + " --- |" * 5, *lines]


def in_turns(
    commands: dict[K, list[str]], rounds: int, env: dict[str, str] | None = None
) -> dict[K, float]:
    """Median milliseconds of each command as a process, run in turns."""
    found: dict[K, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            found[name].append(scenes.timed(lambda c=command: quiet(c, env)))
    return {name: statistics.median(times) for name, times in found.items()}


def quiet(command: Sequence[str], env: dict[str, str] | None) -> None:
    """Run a command that must succeed."""
    subprocess.run(command, env=env, check=True, capture_output=True)


def peak_memory(command: Sequence[str], env: dict[str, str]) -> float:
    """Peak resident megabytes, as the command itself reports them."""
    result = subprocess.run(
        command, env=env, check=True, capture_output=True, text=True
    )
    return float(result.stdout.split()[-1])


def calls(
    backend: str, folder: str, environment: dict[str, str], rounds: int
) -> list[str]:
    """The table of one backend, measured in a process of its own."""
    command = [sys.executable, str(HERE / "calls.py"), backend, folder, str(rounds)]
    result = subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    rows: list[dict[str, Any]] = json.loads(result.stdout)
    title = f"## `model(image)` on {backend}"
    names = list(rows[0])
    lines = [f"| {' | '.join(shown(row[name]) for name in names)} |" for row in rows]
    return [
        "",
        title,
        "",
        f"| {' | '.join(names)} |",
        "|" + " --- |" * len(names),
        *lines,
    ]


def shown(value: Any) -> str:
    """A cell: numbers with two digits after the point."""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
