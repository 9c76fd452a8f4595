"""NumPy's names for ONNX's types of elements."""

from __future__ import annotations

import numpy as np

# TensorProto.DataType, from 0 on, as NumPy names it; NumPy holds texts as objects.
_BY_NUMBER = (
    *("undefined", "float32", "uint8", "int8", "uint16", "int16", "int32", "int64"),
    *("object", "bool", "float16", "float64", "uint32", "uint64", "complex64"),
    *("complex128", "bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2"),
    *("float8_e5m2fnuz", "uint4", "int4"),
)
_BY_WORD = {"float": "float32", "double": "float64", "string": "object"}
NUMPY_LACKS = frozenset(_BY_NUMBER[16:])


def name_of_number(number: int) -> str:
    """The name of a number of `TensorProto.DataType`."""
    return _BY_NUMBER[number] if 0 <= number < len(_BY_NUMBER) else f"#{number}"


def numpy_name(text: str) -> str:
    """The name of one of ONNX Runtime's types, such as "tensor(float)"."""
    word = text.removeprefix("tensor(").removesuffix(")")
    return _BY_WORD.get(word, word.replace("float8e", "float8_e"))


def itemsize(name: str) -> int:
    """Bytes of one element of a type that takes whole ones."""
    if name == "bfloat16":
        return 2
    return 1 if name in NUMPY_LACKS else np.dtype(name).itemsize
