"""Writes `docs/reference.md`: every public name, as the sources declare it."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import inference_models

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"

HEAD = """# Reference

Every public name of the core, with its signature and docstring, as the sources have
them. Where a section names no other module, names are imported from `inference_models`.
`python3 -m tests.reference` writes this page.
"""

GROUPS = {
    "Models": """AutoModel Model ObjectDetectionModel InstanceSegmentationModel
        KeyPointsDetectionModel ClassificationModel MultiLabelClassificationModel
        VisionLanguageModel Encoding Explanation Candidate""",
    "Results": """Detections InstanceDetections KeyPoints ClassificationPrediction
        MultiLabelClassificationPrediction Scores""",
    "Cards": "ModelCard Artifact File Preprocessing Bundle Plan",
    "Contracts of plugins": """hookimpl Architecture ConfidenceOptions NoOptions Backend
        Session Operations WeightsProvider Access""",
    "What plugins are given": "Image Array Frame Facts TensorSpec",
    "What plugins can use": """check_inputs check_share host_array sigmoid softmax
        cxcywh_to_xyxy nms highest distinct_labels""",
}

MODULES = {
    "card": "Batch",
    "images": "Color",
    "hookspecs": "backends architectures weights_providers",
    "hardware": "detect Hardware Gpu",
    "negotiation.options": "Verdict",
    "trust": "Origin Consent",
    "progress": "Report",
    "generation": "generate Decoding Rules Step OnToken",
    "download.ask": "ask Question Terms Reply refusal headers_of address",
    "download.answers": "Answers",
    "providers.claims": "is_weights",
    "providers.published": "Published",
    "strict_json": "parse Node",
    "testing.architectures": "ArchitectureTests",
    "testing.backends": "BackendTests",
    "testing.providers": "WeightsProviderTests",
    "testing.plugged": "plugged",
    "testing.toy": "ToyArchitecture toy_bundle toy_card",
}

SPECIAL = ("__call__", "__getitem__")


def page() -> str:
    """The whole page."""
    sections = [HEAD]
    for title, names in GROUPS.items():
        sections.append(f"## {title}\n")
        sections += [entry(home(name), name) for name in names.split()]
    sections += ["## Errors\n", errors()]
    for module, names in MODULES.items():
        sections.append(f"## `inference_models.{module}`\n")
        sections += [entry(module, name) for name in names.split()]
    return "\n".join(sections)


def home(name: str) -> str:
    """The module of a name of `inference_models` itself."""
    return inference_models._HOMES[name]


def error_names() -> list[str]:
    """The public errors, the root first."""
    names = [name for name in inference_models.__all__ if home(name) == "errors"]
    return sorted(names, key=lambda name: (name != "InferenceModelsError", name))


def errors() -> str:
    """A table of the errors."""
    rows = ["| error | is a | when |", "| --- | --- | --- |"]
    for name in error_names():
        error = getattr(inference_models, name)
        bases = ", ".join(f"`{base.__name__}`" for base in error.__bases__)
        rows.append(f"| `{name}` | {bases} | {inspect.getdoc(error)} |")
    return "\n".join(rows) + "\n"


def entry(module: str, name: str) -> str:
    """A name's declaration in a block of code."""
    found = importlib.import_module(f"inference_models.{module}")
    source = inspect.getsource(found)
    lines, body = source.splitlines(), ast.parse(source).body
    (place,) = [at for at, node in enumerate(body) if name in declared(node)]
    code = "\n".join([*stub(body[place], lines), *behind(body[place:], lines)])
    return f"### `{name}`\n\n```python\n{code}\n```\n"


def declared(node: ast.stmt) -> list[str]:
    """What a statement gives a name to."""
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def behind(body: list[ast.stmt], lines: list[str]) -> list[str]:
    """The text that stands behind an assignment."""
    node, *after = body
    if isinstance(node, ast.Assign) and after and isinstance(after[0], ast.Expr):
        return lines[after[0].lineno - 1 : after[0].end_lineno]
    return []


def stub(node: ast.stmt, lines: list[str]) -> Iterator[str]:
    """A declaration without what it does: signature, docstring, fields and methods."""
    if not isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        yield from lines[node.lineno - 1 : node.end_lineno]
        return
    for decorator in node.decorator_list:
        yield from lines[decorator.lineno - 1 : decorator.end_lineno]
    yield from signature(node, lines)
    if isinstance(node, ast.ClassDef):
        yield from members(node, lines)


def signature(node: ast.ClassDef | ast.FunctionDef, lines: list[str]) -> list[str]:
    """From the name to the end of the docstring."""
    first, *_ = node.body
    last = first.end_lineno if ast.get_docstring(node) else first.lineno - 1
    return lines[node.lineno - 1 : last]


def members(node: ast.ClassDef, lines: list[str]) -> Iterator[str]:
    """Public fields with what is said of them, then documented methods."""
    fields = list(public_fields(node, lines))
    yield from ["", *fields] if fields else []
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and is_shown(member):
            yield ""
            yield from stub(member, lines)


def public_fields(node: ast.ClassDef, lines: list[str]) -> Iterator[str]:
    above: ast.stmt = node
    for member in node.body:
        if isinstance(member, ast.AnnAssign) and is_public(ast.unparse(member.target)):
            yield f"    {field(member, lines)}"
        is_text = isinstance(member, ast.Expr) and isinstance(above, ast.AnnAssign)
        if is_text and is_public(ast.unparse(above.target)):
            yield from lines[member.lineno - 1 : member.end_lineno]
        above = member


def field(member: ast.AnnAssign, lines: list[str]) -> str:
    """A field with its type and its default."""
    head = f"{written(member.target, lines)}: {written(member.annotation, lines)}"
    default = default_of(member, lines)
    return head if default is None else f"{head} = {default}"


def default_of(member: ast.AnnAssign, lines: list[str]) -> str | None:
    value = member.value
    if not isinstance(value, ast.Call) or ast.unparse(value.func) != "attrs.field":
        return value and written(value, lines)
    given = {each.arg: written(each.value, lines) for each in value.keywords}
    return f"{given['factory']}()" if "factory" in given else given.get("default")


def written(node: ast.expr, lines: list[str]) -> str:
    """An expression as the source has it."""
    return ast.get_source_segment("\n".join(lines), node) or ""


def is_public(name: str) -> bool:
    return not name.startswith("_") or name in SPECIAL


def is_shown(node: ast.FunctionDef) -> bool:
    return is_public(node.name) and ast.get_docstring(node) is not None


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
