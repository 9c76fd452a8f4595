"""What an ONNX file says of itself, read without ONNX Runtime, onnx or its weights."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from mmap import ACCESS_READ, mmap
from pathlib import Path
from stat import S_ISREG

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
}

# Where readers of protocol buffers give up.
_DEEPEST = 100

# What a tensor may say of bytes elsewhere; "prepacked…" is ONNX Runtime's own.
_ENTRIES = ("location", "offset", "length", "checksum")

Entries = tuple[tuple[str, str], ...]


@attrs.frozen
class Contents:
    """Tensors, versions and metadata of a model, and the other files that it reads."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    opset: int
    """Version of ONNX's own operators."""
    producer: str
    metadata: Mapping[str, str]
    external: frozenset[Entries]
    """Names and values by which tensors say where their bytes lie in other files."""


def read_contents(path: Path) -> Contents:
    """Read an ONNX file; `InvalidWeights` if it is damaged, of no use or none."""
    try:
        with (
            path.open("rb") as file,
            mmap(file.fileno(), 0, access=ACCESS_READ) as data,
        ):
            contents = _model(Message(data, 0, len(data)))
    except OSError as error:
        raise InvalidWeights(f"'{path}' cannot be read: {error.strerror}") from error
    except (Malformed, ValueError) as error:  # mmap's word for an empty file
        told = str(error) if isinstance(error, Malformed) else ""
        reason = told or "is damaged, cut off or no ONNX file"
        raise InvalidWeights(f"'{path}' {reason}; fetch it again") from error
    if not contents.outputs:
        raise InvalidWeights(f"'{path}' has no outputs to read; export it again")
    return contents


def check_external(path: Path, external: Iterable[Entries]) -> None:
    """Let a model read files in its own folder alone; `InvalidWeights` otherwise."""
    # ONNX Runtime before 1.24 opens whatever a model names, absolute paths included.
    sizes: dict[str, int] = {}
    for entries in sorted(external):
        _check_names(path, (name for name, _ in entries))
        told = dict(entries)
        location = told.get("location", "")
        if location not in sizes:
            sizes[location] = _size_of(path, location)
        offset = _bytes(path, "offset", told)
        end = offset + _bytes(path, "length", told)
        if end > sizes[location]:
            raise InvalidWeights(
                f"'{path}' wants the bytes {offset} to {end} of {location!r}, which "
                f"has {sizes[location]}; fetch both again"
            )


def _check_names(path: Path, names: Iterable[str]) -> None:
    for name, count in Counter(names).items():
        known = name in _ENTRIES or name.startswith("prepacked")
        if not known or count > 1:
            raise InvalidWeights(
                f"'{path}' gives {name!r:.80} of weights in another file, where "
                f"{', '.join(_ENTRIES)} are known, once each; export it again"
            )


def _size_of(path: Path, location: str) -> int:
    """Bytes of a file that a model may read."""
    folder = path.parent.resolve()
    if set(location) & set("\\:\0") or not _lies_in(folder, folder / location):
        raise InvalidWeights(
            f"'{path}' wants to read {location!r:.200}, which is outside its folder; "
            "only files in that folder, not links out of it, may hold its weights"
        )
    try:
        found = (folder / location).stat()
    except OSError:  # missing, or longer than a name can be
        found = None
    if found is None or not S_ISREG(found.st_mode):
        raise InvalidWeights(
            f"'{path}' keeps weights in {location!r:.200}, and there is no such file "
            "in its folder; put it there"
        )
    return found.st_size


def _bytes(path: Path, name: str, told: Mapping[str, str]) -> int:
    text = told.get(name, "0")
    if re.fullmatch("[0-9]{1,19}", text) is None:
        raise InvalidWeights(
            f"'{path}' has {name} {text!r:.80} of weights in another file, which is no "
            "number of bytes; export it again"
        )
    return int(text)


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


def _external(model: Message) -> Iterator[Entries]:
    for tensor in _stored("model", model, 0):
        entries = tuple((e.text(1), e.text(2)) for e in tensor.messages(13))
        if entries:
            yield entries


def _stored(kind: str, message: Message, depth: int) -> Iterator[Message]:
    """Every tensor that a message holds, at any depth."""
    if depth > _DEEPEST:
        raise Malformed(f"nests messages over {_DEEPEST} deep, as no reader allows")
    for number, value in message.fields():
        within = _NESTING[kind].get(number)
        if within == "tensor" and isinstance(value, Message):
            yield value
        elif within is not None and isinstance(value, Message):
            yield from _stored(within, value, depth + 1)
