"""Tensors of a network or of an engine, as core describes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inference_models import InvalidWeights, TensorSpec

if TYPE_CHECKING:
    import tensorrt as trt

_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}


def sizes_of(shape: trt.Dims) -> tuple[int, ...]:
    """A shape as numbers; -1 is free."""
    return tuple(shape[axis] for axis in range(len(shape)))


def spec_of(name: str, dtype: trt.DataType, shape: trt.Dims) -> TensorSpec:
    """A tensor of one of TensorRT's types; `InvalidWeights` if NumPy has none of it."""
    if dtype.name not in _DTYPES:
        raise InvalidWeights(
            f"tensor {name!r} is {dtype.name}, and engines are run with "
            f"{', '.join(_DTYPES.values())}; export the model with one of these"
        )
    sizes = enumerate(sizes_of(shape))
    named = [_free(axis) if size < 0 else size for axis, size in sizes]
    return TensorSpec(_DTYPES[dtype.name], tuple(named))


def _free(axis: int) -> str:
    return "batch" if axis == 0 else f"?{axis}"
