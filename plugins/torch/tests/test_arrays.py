"""Arrays of other libraries as tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inference_models_torch.arrays import as_tensor
from inference_models_torch.operations import TorchOperations


class Foreign:
    """An array of a library that gives booleans to DLPack as bytes."""

    def __init__(self, array):
        self.shape, self.dtype = array.shape, array.dtype.name
        self._shared = array.view(np.uint8) if array.dtype == bool else array

    def __dlpack__(self, **wishes):
        return self._shared.__dlpack__(**wishes)

    def __dlpack_device__(self):
        return self._shared.__dlpack_device__()


@pytest.mark.parametrize("dtype", ["float32", "uint8", "bool"])
def test_foreign_arrays_keep_their_memory_and_their_type(dtype):
    array = np.array([[0, 1], [1, 1]], dtype)
    tensor = as_tensor(Foreign(array))

    assert tensor.dtype == getattr(torch, dtype)
    assert tensor.data_ptr() == array.ctypes.data
    assert tensor.tolist() == array.tolist()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_arrays_of_either_byte_order_are_read(order, dtype):
    array = np.array([[0, 0.5], [0.25, 1]], order + dtype)

    assert as_tensor(array).tolist() == array.tolist()


def test_foreign_arrays_are_joined_as_tensors():
    array = np.array([True, False])
    joined = TorchOperations("cpu").join([Foreign(array), torch.tensor([True])])

    assert joined.tolist() == [True, False, True]
    assert joined.dtype == torch.bool
