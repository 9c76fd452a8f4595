"""Tensors of a network or of an engine, as core describes them."""

from __future__ import annotations

from collections.abc import Iterable

from inference_models import InvalidWeights, TensorSpec

_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}


def spec_of(name: str, dtype: str, shape: Iterable[int]) -> TensorSpec:
    """A tensor of one of TensorRT's types, such as "HALF"; a size of -1 is free."""
    if dtype not in _DTYPES:
        raise InvalidWeights(
            f"tensor {name!r} is {dtype}, and engines are run with "
            f"{', '.join(_DTYPES.values())}; export the model with one of these"
        )
    sizes = enumerate(shape)
    named = [_free(axis) if size < 0 else size for axis, size in sizes]
    return TensorSpec(_DTYPES[dtype], tuple(named))


def _free(axis: int) -> str:
    return "batch" if axis == 0 else f"?{axis}"
