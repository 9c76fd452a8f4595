"""Each guard of downloads, files and keys, switched off in turn: a test notices.

The guards stand in `guards.json`: what each is, its file and lines, what takes their
place to switch it off, and the test that fails then. `docs/guards.md` is for people.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUARDS = json.loads((ROOT / "tests" / "guards.json").read_text("utf-8"))
PAGE = ROOT / "docs" / "guards.md"


# Where CI is set, pytest says at length how two values differ, which takes hours for
# two files that have nothing in common.
PYTEST = ("-q", "-x", "-p", "no:cacheprovider", "--assert=plain")

# What is not ours is imported once, where processes that are forked from can have it.
PROCESSES = get_context("forkserver" if sys.platform == "linux" else "spawn")
PROCESSES.set_forkserver_preload(["httpx", "numpy", "pytest", "torch"])


def without(guard, folder):
    """A copy of the sources that the guard stands in, without it."""
    path = Path(guard["file"])
    part = path.parts.index("src") + 1
    source = Path(*path.parts[:part])
    copy = shutil.copytree(ROOT / source, folder / "src")
    file = copy / Path(*path.parts[part:])
    text = file.read_text("utf-8")
    assert text.count(guard["lines"]) == 1, f"{guard['file']} has changed"
    file.write_text(text.replace(guard["lines"], guard["off"]), "utf-8")
    return copy


def outcome(guard, folder):
    """How pytest ends without the guard, and what it says; for a process of its own."""
    assert "inference_models" not in sys.modules
    source = str(without(guard, folder))
    sys.path.insert(0, source)
    os.environ["PYTHONPATH"] = source
    os.chdir(ROOT)
    said = folder / "said.txt"
    with said.open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    code = pytest.main([*PYTEST, guard["test"]])
    return int(code), said.read_text("utf-8", "replace")


@pytest.mark.slow
@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard["guard"])
def test_a_guard_that_is_switched_off_is_noticed(guard, tmp_path):
    with PROCESSES.Pool(1) as pool:
        code, said = pool.apply_async(outcome, (guard, tmp_path)).get(600)

    assert code == 1, said[-2000:]
    assert "1 failed" in said


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard["guard"])
def test_a_guard_stands_where_the_list_says(guard):
    text = (ROOT / guard["file"]).read_text("utf-8")
    file, _, name = guard["test"].partition("::")

    assert text.count(guard["lines"]) == 1
    assert f"def {name.partition('[')[0]}(" in (ROOT / file).read_text("utf-8")


def page():
    """The list for people."""
    lines = [
        "# Guards, and the tests that notice when they are gone",
        "",
        "`python3 dev.py tests -- -m slow -k guard` switches off each in turn, runs",
        "the named test without it, and expects that to fail.",
        "",
        "| guard | where | the test that notices |",
        "| --- | --- | --- |",
    ]
    for guard in GUARDS:
        test = guard["test"].partition("::")[2].partition("[")[0]
        lines.append(f"| {guard['guard']} | `{guard['file']}` | `{test}` |")
    return "\n".join(lines) + "\n"


def test_the_page_lists_each_guard():
    assert page() == PAGE.read_text("utf-8")
