"""What a call gives to a graph: checked against what the graph takes, never cast."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from inference_models.card import TensorSpec
from inference_models.errors import InvalidInput
from inference_models.images import Array, to_host


def check_inputs(specs: Mapping[str, TensorSpec], inputs: Mapping[str, Array]) -> None:
    """Raise `InvalidInput`, with what is wanted, for a wrong name, dtype or shape."""
    check_names(specs, inputs)
    for name, spec in specs.items():
        array = inputs[name]
        if not hasattr(array, "shape") or not hasattr(array, "dtype"):
            raise InvalidInput(
                f"input {name!r} is of type {type(array).__name__}; give a NumPy array "
                f"or a tensor, {_described(spec)}"
            )
        given = TensorSpec(dtype_name(array), array.shape)
        if given.dtype != spec.dtype or not _fits(given.shape, spec.shape):
            raise InvalidInput(
                f"input {name!r} is {_described(given)}; the graph takes "
                f"{_described(spec)}"
            )


def check_names(specs: Mapping[str, TensorSpec], inputs: Mapping[str, Array]) -> None:
    """Raise `InvalidInput`, with what is wanted, for a name too many or too few."""
    if inputs.keys() != specs.keys():
        raise InvalidInput(
            f"the graph takes {listed(specs)}; it was given "
            f"{', '.join(map(repr, inputs)) or 'nothing'}"
        )


def host_array(array: Array) -> np.ndarray:
    """An array as native code reads it: in host memory, in order, and in its bytes.

    It is copied only if its memory is scattered, of other byte order or a device's.
    """
    host = to_host(array)
    return np.asarray(host, host.dtype.newbyteorder("="), order="C")


def dtype_name(array: Array) -> str:
    """NumPy's name of an array's dtype, also of a tensor's."""
    return getattr(array.dtype, "name", None) or str(array.dtype).rpartition(".")[2]


def _fits(shape: tuple[int | str, ...], wanted: tuple[int | str, ...]) -> bool:
    # ONNX Runtime gives an input of unknown rank the shape of a scalar.
    return not wanted or (
        len(shape) == len(wanted)
        and all(
            isinstance(b, str) or a == b for a, b in zip(shape, wanted, strict=True)
        )
    )


def listed(specs: Mapping[str, TensorSpec]) -> str:
    """Tensors by name, with what each is, for messages."""
    return ", ".join(f"{name!r}: {_described(spec)}" for name, spec in specs.items())


def _described(spec: TensorSpec) -> str:
    return f"{spec.dtype} ({', '.join(map(str, spec.shape))})"
