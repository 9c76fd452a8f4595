"""What can be done in a checkout; `python3 dev.py NAME` runs any of it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests"]

ROOT = Path(__file__).parent
# Plain torch brings gigabytes of CUDA packages on Linux. On a machine without a GPU,
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu makes pip take the CPU build.
TORCH = "torch==2.13.0"
TENSORRT_STUBS = "tensorrt-stubs==10.13.0.35.1"
FOOLBOX = "foolbox==3.3.4"  # for its labelled photos alone
# Tests run on up to four cores at once, on one each: threads that have to wait for a
# core wait by spinning. CI makes hypothesis try the same examples each time.
XDIST = "pytest-xdist>=3.6"
PARALLEL = ("--numprocesses", "auto", "--maxprocesses", "4")
SETTINGS = {"OMP_NUM_THREADS": "1", "CI": "1"}


def _folders(pattern: str) -> list[str]:
    found = ROOT.glob(f"{pattern}/pyproject.toml")
    return sorted(path.parent.relative_to(ROOT).as_posix() for path in found)


PARTS = ["core", *_folders("plugins/*")]
# Where others are taken away to see what is left, one more backend would run the model,
# and one more weights provider would look for it abroad.
APART = ["examples/openvino", "examples/zenodo"]
EXAMPLES = [folder for folder in _folders("examples/*") if folder not in APART]


def _project(folder: str) -> dict[str, Any]:
    return nox.project.load_toml(ROOT / folder / "pyproject.toml")


def _group(folder: str, name: str) -> tuple[str, ...]:
    return nox.project.dependency_groups(_project(folder), name)


def _editable(folders: Iterable[str]) -> Iterator[str]:
    for folder in folders:
        yield from ("--editable", folder)


def _install_all(session: nox.Session, *more: str) -> None:
    """Install every distribution of the checkout, in one call: they need each other."""
    local = _editable([*PARTS, *EXAMPLES, ".[all]"])
    session.install(*local, TORCH, *_group(".", "photos"), *more)


def _pytest(session: nox.Session, *selected: str, **settings: str) -> None:
    session.install(XDIST)
    arguments = (*PARALLEL, *selected, *session.posargs)
    session.run("pytest", *arguments, env={**SETTINGS, **settings})


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests with everything installed; the slow ones with `-- -m slow`."""
    groups = [_group(folder, "test") for folder in [*PARTS, *EXAMPLES, "."]]
    _install_all(session, *sorted({name for group in groups for name in group}))
    session.install("--no-deps", FOOLBOX)
    _pytest(session, "-m", "not slow")


def _part(folder: str) -> str:
    """A distribution as pip takes it, with a runtime where it leaves the choice."""
    extras = _project(folder)["project"].get("optional-dependencies", {})
    return f"{folder}[cpu]" if "cpu" in extras else folder


def _needs_torch(folder: str) -> bool:
    names = _project(folder)["project"]["dependencies"]
    return any(name.startswith("torch") for name in names)


def _python_3_10() -> str | None:
    """The oldest Python that is supported, if this machine has it."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [*pyenv.glob("versions/3.10.*/bin/python"), shutil.which("python3.10")]
    return next((str(path) for path in found if path), None)


def _lowest(folder: str) -> Iterator[str]:
    """The oldest versions that a distribution says it works with, as constraints."""
    project = _project(folder)["project"]
    runtimes = project.get("optional-dependencies", {}).get("cpu", [])
    for name in [*project["dependencies"], *runtimes, *_group(folder, "test")]:
        if found := re.match(r"([\w-]+)(?:\[.*\])?>=([\w.]+)", name):
            yield "==".join(found.groups())


_OLDEST = _python_3_10()


@nox.session
@nox.parametrize(
    "python, folder",
    [
        nox.param(None if _needs_torch(f) else _OLDEST, f, id=Path(f).name)
        for f in PARTS + EXAMPLES + APART
    ],
)
def parts(session: nox.Session, folder: str) -> None:
    """Run each distribution's own tests with core and that one alone."""
    # Python 3.10, where it is, has them with the oldest packages they are said to need.
    oldest = Path(session.create_tmp()) / "oldest.txt"
    names = [*_lowest("core"), *_lowest(folder)] if session.python else []
    oldest.write_text("\n".join(names), "utf-8")
    session.install(
        *("--constraint", str(oldest)),
        *_editable(dict.fromkeys(["core", _part(folder)])),
        *_group(folder, "test"),
        *([TORCH] if _needs_torch(folder) else []),
    )
    _pytest(session, f"{folder}/tests")


@nox.session
def kernels(session: nox.Session) -> None:
    """Run the GPU's kernels in Triton's interpreter, and compile them; on Linux."""
    folder = "plugins/torch"
    session.install(*_editable(["core", folder]), *_group(folder, "kernels"), TORCH)
    settings = {"TRITON_INTERPRET": "1", "TRITON_CACHE_DIR": session.create_tmp()}
    _pytest(session, f"{folder}/tests/test_fused.py", **settings)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting with ruff."""
    session.install(*_group(".", "lint"))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of all sources with mypy, in strict mode."""
    session.install(*_group(".", "types"), *_editable(["core[cli,testing]"]))
    stubs = _tensorrt_stubs(session)
    session.run("mypy", *session.posargs, env={"MYPYPATH": str(stubs)})


def _tensorrt_stubs(session: nox.Session) -> Path:
    """TensorRT's stubs, in a folder of their own: they want all of it installed.

    As they are published Python cannot read them: parameters are called `in`, and one
    without a default follows others with one.
    """
    folder = Path(session.virtualenv.location) / "stubs"
    shutil.rmtree(folder, ignore_errors=True)
    session.install("--quiet", "--no-deps", "--target", str(folder), TENSORRT_STUBS)
    path = folder / "tensorrt_bindings" / "tensorrt.pyi"
    text = path.read_text("utf-8").replace(" in: list", " in_: list")
    text = text.replace("channel_axis: int) ->", "channel_axis: int = ...) ->")
    path.write_text(text, "utf-8")
    return folder


@nox.session(reuse_venv=False)
def wheels(session: nox.Session) -> None:
    """Build all wheels, install them in a clean environment, and run the demo there."""
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    sources = [f"./{folder}" for folder in [*PARTS, *EXAMPLES, *APART, "."]]
    pip = ("python", "-m", "pip", "--quiet")
    session.run(*pip, "wheel", "--no-deps", "--wheel-dir", str(dist), *sources)
    # The batteries by path: on the public index their name is another project's.
    (batteries,) = dist.glob("inference_models-*.whl")
    examples = [_project(folder)["project"]["name"] for folder in EXAMPLES]
    found = ("--find-links", str(dist), f"{batteries}[all]", *examples)
    session.install(*found, TORCH, *_group(".", "photos"))
    session.chdir(session.create_tmp())
    session.run("python", str(ROOT / "examples/demo.py"), "--output", "out")


@nox.session
def demo(session: nox.Session) -> None:
    """Run real models on real photos, and draw what they see into out/."""
    _install_all(session)
    session.run("python", "examples/demo.py", "--output", "out", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure what a call costs, layer by layer."""
    _install_all(session)
    session.run("python", "benchmarks/run.py", *session.posargs)


@nox.session(venv_backend="none")
def gpu(session: nox.Session) -> None:
    """Run tests and benchmark on an NVIDIA GPU, with this machine's own packages."""
    session.run("python3", "benchmarks/gpu.py", *session.posargs)
