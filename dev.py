"""Run what this repository can do; only Python 3.10 or newer is needed.

    python3 dev.py demo             real models on real photos
    python3 dev.py tests            the tests, except for the slow ones
    python3 dev.py lint types       several, one after the other
    python3 dev.py tests -- -k nms  with arguments for the tool that runs

What can be run:
"""

import ast
import importlib.util
import os
import subprocess
import sys
import time
from itertools import takewhile
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036 - an older Python is told so
    found = f"{sys.version_info[0]}.{sys.version_info[1]}"
    sys.exit(f"this needs Python 3.10 or newer, and {sys.executable} is {found}")

ROOT = Path(__file__).resolve().parent
HOME = ROOT / ".nox" / "dev"
PYTHON = HOME / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def sessions() -> dict[str, str]:
    """Return what noxfile.py offers, with the sentence that says what it does."""
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    return {f.name: ast.get_docstring(f) or "" for f in functions if f.decorator_list}


def say(text: str) -> None:
    """Print at once, before what a child process prints next."""
    print(text, flush=True)


def usage() -> str:
    """Return how to call this, and what can be run."""
    rows = [f"    {name:<8}{what}" for name, what in sessions().items()]
    return "\n".join([__doc__ or "", *rows])


def run(*command: str | Path) -> int:
    """Run a command in the root of the repository, and return its exit code."""
    return subprocess.call([str(word) for word in command], cwd=ROOT)


def has_nox() -> bool:
    """Tell whether the environment is there, whole and usable."""
    return PYTHON.exists() and run(PYTHON, "-c", "import nox") == 0


def install_nox() -> None:
    """Make a virtual environment that holds nox."""
    if not all(map(importlib.util.find_spec, ("venv", "ensurepip"))):
        sys.exit(
            "this Python cannot make virtual environments: its module 'ensurepip' is "
            "missing; on Debian and Ubuntu: apt install python3-venv"
        )
    pip = (PYTHON, "-m", "pip", "-qq", "--disable-pip-version-check")
    if run(sys.executable, "-m", "venv", "--clear", HOME):
        sys.exit(f"the virtual environment {HOME} could not be made; see above")
    if run(*pip, "install", "nox>=2025.2.9"):
        sys.exit("nox could not be installed; is the package index within reach?")


def announce(names: list[str], known: dict[str, str]) -> None:
    """Say what will happen, before anything does."""
    for name in names:
        say(f"{name}: {known[name.split('(')[0]]}")
    where = HOME.parent.relative_to(ROOT)
    say(f"Packages go into environments of their own under {where}/, downloaded once.")


def main(arguments: list[str]) -> int:
    """Run the sessions named first among the arguments; nox reads the rest."""
    names = list(takewhile(lambda word: not word.startswith("-"), arguments))
    known = sessions()
    unknown = [name for name in names if name.split("(")[0] not in known]
    if unknown:
        sys.exit(f"{unknown[0]!r} is not known here; choose from {', '.join(known)}")
    if not names:
        say(usage())
        return 0 if {"-h", "--help"} & set(arguments) else 2
    announce(names, known)
    start = time.monotonic()
    if not has_nox():
        install_nox()
    code = run(PYTHON, "-m", "nox", "--session", *arguments)
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    outcome = "failed" if code else "passed"
    say(f"{', '.join(names)}: {outcome} after {minutes} min {seconds} s")
    return code


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
