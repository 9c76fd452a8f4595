"""The files of core stand in the order of a call: each imports only from its left."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import inference_models

FOLDER = Path(inference_models.__file__).parent
ORDER = [
    "errors",
    "card",
    "strict_json",
    "trust",
    "preprocess",
    "activations",
    "results",
    "images",
    "inputs",
    "prepare",
    "boxes",
    "generation",
    "progress",
    "interfaces",
    "hookspecs",
    "registry",
    "lending",
    "hardware",
    "sources",
    "disk",
    "locks",
    "limits",
    "deadline",
    "hops",
    "body",
    "transport",
    "checked",
    "partial",
    "pieces",
    "fetch",
    "store",
    "ask",
    "answers",
    "cache",
    "archive",
    "wishes",
    "routes",
    "options",
    "hints",
    "negotiate",
    "batching",
    "judging",
    "kept",
    "derive",
    "find",
    "explain",
    "search",
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
            names = [name] if name else [alias.name for alias in node.names]
            found.update(names if package == "inference_models" else ())
    return found


def test_every_file_has_its_place():
    files = {path.stem for path in FOLDER.glob("*.py")} - {"__init__", "__main__"}

    assert files == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_a_file_imports_only_from_its_left(name):
    assert imported(FOLDER / f"{name}.py") <= set(ORDER[: ORDER.index(name)])


@pytest.mark.parametrize("word", ["torch", "onnxruntime", "tensorrt", "transformers"])
def test_core_imports_no_runtime_anywhere(word):
    files = [p for p in FOLDER.rglob("*.py") if "testing" not in p.parts]
    for path in files:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names]
                modules = [getattr(node, "module", None) or "", *names]
                assert word not in [m.partition(".")[0] for m in modules], path
