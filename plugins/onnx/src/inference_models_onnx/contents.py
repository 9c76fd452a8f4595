"""What an ONNX file says of itself, read without ONNX Runtime or its weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from mmap import ACCESS_READ, mmap
from pathlib import Path

import attrs

from inference_models import InvalidWeights, TensorSpec
from inference_models_onnx.dtypes import name_of_number
from inference_models_onnx.protobuf import Malformed, Message

# The field numbers in this file are those of onnx.proto, in the ONNX specification.
# The messages that can hold a tensor, at any depth: message -> field -> message in it.
_NESTING: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"}
    | {22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external"},
}


@attrs.frozen
class Contents:
    """Tensors, versions and metadata of a model, and the other files that it reads."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    opset: int
    """Version of ONNX's own operators."""
    producer: str
    metadata: Mapping[str, str]
    external: frozenset[str]
    """Where external data lies, as the model puts it."""


def read_contents(path: Path) -> Contents:
    """Read an ONNX file; `InvalidWeights` if it is damaged or none."""
    try:
        with (
            path.open("rb") as file,
            mmap(file.fileno(), 0, access=ACCESS_READ) as data,
        ):
            return _model(Message(data, 0, len(data)))
    except OSError as error:
        raise InvalidWeights(f"'{path}' cannot be read: {error.strerror}") from error
    except (Malformed, ValueError) as error:  # mmap's word for an empty file
        raise InvalidWeights(
            f"'{path}' is damaged, cut off or no ONNX file; fetch it again"
        ) from error


def check_external(path: Path, locations: Iterable[str]) -> None:
    """Let a model read files in its own folder alone; `InvalidWeights` otherwise."""
    # ONNX Runtime before 1.24 opens whatever a model names, absolute paths included.
    folder = path.parent.resolve()
    for location in sorted(locations):
        if set(location) & set("\\:\0") or not _lies_in(folder, folder / location):
            raise InvalidWeights(
                f"'{path}' wants to read {location!r}, which is outside its folder; "
                "only files in that folder, not links out of it, may hold its weights"
            )
        if not (folder / location).is_file():
            raise InvalidWeights(
                f"'{path}' keeps weights in {location!r}, and there is no such file "
                "in its folder; put it there"
            )


def _lies_in(folder: Path, path: Path) -> bool:
    try:
        return path.resolve().is_relative_to(folder)
    except (OSError, RuntimeError):  # links in a circle
        return False


def _model(model: Message) -> Contents:
    opsets = {m.text(1): m.number(2) for m in model.messages(8)}
    opset = opsets.get("", opsets.get("ai.onnx"))
    graphs = list(model.messages(7))
    if opset is None or not graphs:
        raise Malformed
    weights = {t.text(8) for graph in graphs for t in graph.messages(5)}
    inputs = {n: t for g in graphs for n, t in _tensors(g, 11) if n not in weights}
    return Contents(
        inputs=inputs,
        outputs={name: tensor for g in graphs for name, tensor in _tensors(g, 12)},
        opset=opset,
        producer=f"{model.text(2)} {model.text(3)}".strip(),
        metadata={m.text(1): m.text(2) for m in model.messages(14)},
        external=frozenset(_external(model)),
    )


def _tensors(graph: Message, field: int) -> Iterator[tuple[str, TensorSpec]]:
    for value in graph.messages(field):
        tensor = value.message(2).message(1)
        dtype = name_of_number(tensor.number(1) or 0)
        sizes = enumerate(tensor.message(2).messages(1))
        yield value.text(1), TensorSpec(dtype, tuple(_size(*size) for size in sizes))


def _size(axis: int, size: Message) -> int | str:
    """One axis of a shape; some exporters write -1 for a free one."""
    number = size.number(1)
    if number is not None and number >= 0:
        return number
    return size.text(2) or f"?{axis}"


def _external(model: Message) -> Iterator[str]:
    pending = [("model", model)]
    while pending:
        kind, message = pending.pop()
        if kind == "external":
            if message.text(1) == "location":
                yield message.text(2)
            continue
        for number, value in message.fields():
            if number in _NESTING[kind] and isinstance(value, Message):
                pending.append((_NESTING[kind][number], value))
