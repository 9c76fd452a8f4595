"""The files of core stand in the order of a call: each imports only from its left."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import inference_models

FOLDER = Path(inference_models.__file__).parent
ORDER = [
    "errors",
    "hardware",
    "card",
    "strict_json",
    "card_files",
    "trust",
    "frame",
    "preprocess",
    "activations",
    "scores",
    "results",
    "skeletons",
    "images",
    "inputs",
    "prepare",
    "boxes",
    "ranking",
    "generation",
    "progress",
    "disk",
    "interfaces",
    "hookspecs",
    "registry",
    "lending",
    "batching",
    "download.sources",
    "download.locks",
    "download.limits",
    "download.deadline",
    "download.redirects",
    "download.body",
    "download.transport",
    "download.hashing",
    "download.partial",
    "download.ranges",
    "download.fetch",
    "download.store",
    "download.ask",
    "download.answers",
    "download.cache",
    "download.archive",
    "negotiation.constraints",
    "negotiation.routes",
    "negotiation.options",
    "negotiation.hints",
    "negotiation.negotiate",
    "negotiation.judging",
    "negotiation.derived_cache",
    "negotiation.derive",
    "negotiation.find",
    "negotiation.explain",
    "negotiation.search",
    "model",
    "vision_language",
    "tasks",
    "load",
    "call",
    "auto",
]


def imported(path: Path) -> set[str]:
    """Core's files that a file imports at its top."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            package, _, name = node.module.partition(".")
            if package == "inference_models":
                found.update([name] if name in ORDER else within(name, node.names))
    return found


def within(folder: str, names: list[ast.alias]) -> list[str]:
    """Files of a folder that are imported by their names."""
    return [f"{folder}.{alias.name}".lstrip(".") for alias in names]


def test_every_file_has_its_place():
    folders = [FOLDER, FOLDER / "download", FOLDER / "negotiation"]
    paths = [path for folder in folders for path in folder.glob("*.py")]
    files = {path for path in paths if not path.stem.startswith("__")}

    assert files == set(map(file_of, ORDER))


def file_of(name: str) -> Path:
    return FOLDER / f"{name.replace('.', '/')}.py"


@pytest.mark.parametrize("name", ORDER)
def test_a_file_imports_only_from_its_left(name):
    assert imported(file_of(name)) <= set(ORDER[: ORDER.index(name)])


@pytest.mark.parametrize("word", ["torch", "onnxruntime", "tensorrt", "transformers"])
def test_core_imports_no_runtime_anywhere(word):
    files = [p for p in FOLDER.rglob("*.py") if "testing" not in p.parts]
    for path in files:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names]
                modules = [getattr(node, "module", None) or "", *names]
                assert word not in [m.partition(".")[0] for m in modules], path
