"""Arrays of any library as tensors, in the same memory wherever that is possible."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from inference_models import Array
from inference_models.images import to_host
from inference_models.inputs import dtype_name


class _Window:
    """A read-only array, presented by `__array_interface__` as a writeable one.

    torch has no read-only tensors and warns of such arrays; nothing here writes to it.
    """

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        interface: dict[str, Any] = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface


def _typed(tensor: torch.Tensor, array: Array) -> torch.Tensor:
    """The tensor of an array; some libraries give booleans to DLPack as bytes."""
    is_bool = tensor.dtype == torch.uint8 and dtype_name(array) == "bool"
    return tensor.view(torch.bool) if is_bool else tensor


def as_tensor(array: Array) -> torch.Tensor:
    """A tensor over the memory of `array`; a copy if torch cannot address it."""
    if isinstance(array, torch.Tensor):
        return array.detach()
    if not isinstance(array, np.ndarray):
        try:
            return _typed(torch.from_dlpack(array), array)
        except (BufferError, RuntimeError, TypeError, AttributeError):
            array = to_host(array)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if any(step < 0 or step % array.itemsize for step in array.strides):
        array = np.ascontiguousarray(array)
    if not array.flags.writeable:
        array = np.asarray(_Window(array))
    return torch.from_numpy(array)
