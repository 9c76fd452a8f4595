"""A graph as its architecture sees it: its names, its batches, and what it takes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import numpy as np

from inference_models.card import Batch, TensorSpec
from inference_models.errors import (
    InvalidInput,
    InvalidWeights,
    ModelClosed,
    RunFailed,
    faults_of,
)
from inference_models.images import Array, to_host
from inference_models.inputs import check_names
from inference_models.interfaces import Architecture, Session
from inference_models.preprocess import Preprocessing

ToHost = Callable[[Array], np.ndarray]


class NamedSession(Session):
    """A session under the architecture's tensor names, for batches of any size.

    `rename` maps names of the file, or "#1" for the second output, to the
    architecture's. A graph with a fixed batch, or one in (min, best, max), gets what
    it takes: larger batches are split, smaller ones padded, and padding is dropped. The
    session is closed when no call is under way in another thread. `has_run` says
    whether it was ever called.
    """

    def __init__(
        self,
        session: Session,
        rename: Mapping[str, str],
        batch: Batch | None,
        host: ToHost,
    ) -> None:
        self._session: Session | None = session
        self._unclosed = [session]
        self._calls: set[object] = set()
        self._inputs = _names(session.inputs, rename)
        self._outputs = _names(session.outputs, _by_name(rename, session.outputs))
        self._host = host
        stateful = any(name.startswith("state.") for name in self._outputs.values())
        self._batch = None if stateful else batch or _fixed(session.inputs)
        self.has_run = False
        self.inputs = {self._inputs[n]: spec for n, spec in session.inputs.items()}
        self.outputs = {self._outputs[n]: spec for n, spec in session.outputs.items()}

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        """Run, in as many parts as the graph's batch asks for."""
        self._check_names(inputs)
        self.has_run = True
        if self._batch is None:
            return self._run(inputs)
        count = _count(inputs)
        if self._batch[0] <= count <= self._batch[2]:
            return self._run(inputs)
        return self._run_parts(inputs, count, self._batch)

    def close(self) -> None:
        """Close the session, once running calls are done; others are `ModelClosed`."""
        self._session = None
        self._close_unused()

    def _check_names(self, inputs: Mapping[str, Array]) -> None:
        check_names(self.inputs, inputs)
        for name, array in inputs.items():
            if not hasattr(array, "shape") and not name.startswith("state."):
                raise InvalidInput(
                    f"input {name!r} is of type {type(array).__name__}; give a NumPy "
                    "array or a tensor"
                )

    @contextlib.contextmanager
    def _used(self) -> Iterator[Session]:
        """The session, which is not closed meanwhile."""
        call = object()
        self._calls.add(call)  # before it is looked for: either side sees the other
        try:
            session = self._session
            if session is None:
                raise ModelClosed("the model is closed; load it again to use it")
            yield session
        finally:
            self._calls.discard(call)
            if self._session is None:
                self._close_unused()

    def _close_unused(self) -> None:
        if self._calls:
            return
        try:
            session = self._unclosed.pop()
        except IndexError:  # it is closed, perhaps by another thread just now
            return
        session.close()

    def _run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        given = {file: inputs[ours] for file, ours in self._inputs.items()}
        with self._used() as session, faults_of(type(session).__name__):
            outputs = session(**given)
        if not isinstance(outputs, dict) or not outputs.keys() <= self._outputs.keys():
            raise RunFailed(
                f"{type(session).__name__} returned {_listed(outputs)}; its outputs "
                f"are {_listed(self._outputs)}"
            )
        return {self._outputs[name]: array for name, array in outputs.items()}

    def _run_parts(
        self, inputs: Mapping[str, Array], count: int, batch: Batch
    ) -> dict[str, Array]:
        if count == 0:
            raise InvalidInput(
                f"the inputs hold no images; the graph takes {batch[0]} to {batch[2]}"
            )
        parts: list[dict[str, np.ndarray]] = []
        for start in range(0, count, batch[2]):
            part = {
                name: array[start : start + batch[2]] for name, array in inputs.items()
            }
            size = min(batch[2], count - start)
            outputs = self._run(_padded(part, size, batch[0]))
            _check_rows(outputs, max(size, batch[0]))
            parts.append({n: self._host(a)[:size] for n, a in outputs.items()})
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


class Sessions(dict[str, NamedSession]):
    """Sessions by graph; asked for one that the artifact has not, it says so."""

    def __missing__(self, graph: str) -> NamedSession:
        raise InvalidWeights(
            f"the artifact has no graph {graph!r}, which its architecture runs; it has "
            f"{', '.join(sorted(self))}"
        )


def _check_rows(outputs: Mapping[str, Array], count: int) -> None:
    """Raise `RunFailed` for outputs that cannot be told apart by image."""
    for name, array in outputs.items():
        if array.shape[:1] != (count,):
            raise RunFailed(
                f"output {name!r} is of shape {tuple(array.shape)} for a batch of "
                f"{count}, and a batch is split or padded only where each output has a "
                "row for each image; give as many images as the graph takes"
            )


def _count(inputs: Mapping[str, Array]) -> int:
    """How many images the inputs are of, by the first of them."""
    shape = next(iter(inputs.values())).shape if inputs else ()
    return shape[0] if shape else 0


def _fixed(specs: Mapping[str, TensorSpec]) -> Batch | None:
    """The batch that all inputs have, where a file has one and its card says none."""
    sizes = {spec.shape[0] if spec.shape else None for spec in specs.values()}
    size = sizes.pop() if len(sizes) == 1 else None
    return (size, size, size) if isinstance(size, int) else None


def _listed(outputs: Any) -> str:
    """Names of outputs, or what was given in their place."""
    if not isinstance(outputs, dict):
        return f"a {type(outputs).__name__}"
    return ", ".join(map(repr, outputs)) or "none"


def _padded(part: Mapping[str, Array], size: int, least: int) -> dict[str, Array]:
    if size >= least:
        return dict(part)
    return {name: _pad(to_host(array), least) for name, array in part.items()}


def _pad(array: np.ndarray, least: int) -> np.ndarray:
    padded = np.zeros((least, *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    return padded


def _names(
    specs: Mapping[str, TensorSpec], rename: Mapping[str, str]
) -> dict[str, str]:
    return {name: rename.get(name, name) for name in specs}


def _by_name(
    rename: Mapping[str, str], outputs: Mapping[str, TensorSpec]
) -> dict[str, str]:
    """`rename` with its "#1" replaced by the name of the second output."""
    names = list(outputs)
    plain = {}
    for file, ours in rename.items():
        if file.startswith("#"):
            number = int(file[1:]) if file[1:].isdigit() else -1
            if not 0 <= number < len(names):
                raise InvalidWeights(
                    f"rename has {file!r}, and the graph has outputs "
                    f"{', '.join(map(repr, names))}"
                )
            file = names[number]
        plain[file] = ours
    return plain


def wrapped(
    sessions: Mapping[str, Session],
    rename: Mapping[str, str],
    batch: Batch | None,
    host: ToHost,
) -> Sessions:
    """Every graph's session as its architecture sees it."""
    return Sessions(
        (graph, NamedSession(session, rename, batch, host))
        for graph, session in sessions.items()
    )


def fitted(
    architecture: Architecture[Any], sessions: Mapping[str, Session]
) -> Preprocessing:
    """The preprocessing, in the dtype of the graph's input.

    Raises `InvalidWeights` for a graph that takes no such batch.
    """
    spec = architecture.preprocessing
    graph, tensor = architecture.image_input
    if graph not in sessions:
        raise InvalidWeights(
            f"there is no graph {graph!r} for the image; the artifact has "
            f"{', '.join(sorted(sessions))}"
        )
    inputs = sessions[graph].inputs
    if tensor not in inputs:
        raise InvalidWeights(
            f"graph {graph!r} has no input {tensor!r}; it has "
            f"{', '.join(map(repr, inputs))}: add a rename to the card's artifact"
        )
    wanted = inputs[tensor]
    own = type(architecture).preprocess is not Architecture.preprocess
    if not own:
        _check_form(spec, wanted)
    _check_size(spec, wanted)
    if wanted.dtype in _BATCHES:
        return attrs.evolve(spec, dtype=wanted.dtype)
    return spec


_BATCHES = ("float32", "float16", "bfloat16", "uint8")
"""The dtypes in which images are prepared."""


def _check_form(spec: Preprocessing, wanted: TensorSpec) -> None:
    """Raise for an input of another dtype or rank, or of other channels."""
    if wanted.dtype not in _BATCHES:
        raise InvalidWeights(
            f"the graph takes images of {wanted.dtype}, and they are prepared in "
            f"{', '.join(_BATCHES)}; export it with one of these"
        )
    if not wanted.shape:  # as ONNX Runtime says of an unknown rank
        return
    shape = wanted.shape
    channels = shape[1 if spec.layout == "NCHW" else -1]
    if len(shape) != 4 or (isinstance(channels, int) and channels != 3):
        other = "NHWC" if spec.layout == "NCHW" else "NCHW"
        raise InvalidWeights(
            f"the graph takes images of shape ({', '.join(map(str, shape))}), and they "
            f"are prepared as {spec.layout} of three channels; if it is {other}, say "
            "so as preprocessing.layout in the card"
        )


def _check_size(spec: Preprocessing, wanted: TensorSpec) -> None:
    if len(wanted.shape) != 4 or spec.size is None or not spec.makes_one_size:
        return
    height, width = wanted.shape[2:] if spec.layout == "NCHW" else wanted.shape[1:3]
    for side, made in zip((height, width), spec.size, strict=True):
        if isinstance(side, int) and side != made:
            raise InvalidWeights(
                f"the graph takes images of {height}x{width}, and the card's "
                f"preprocessing makes {spec.size}; correct preprocessing.size"
            )
