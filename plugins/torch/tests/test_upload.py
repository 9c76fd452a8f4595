"""Pixels on their way to another device."""

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from inference_models_torch.operations import _at_once
from inference_models_torch.upload import upload


class WithoutPins(TorchFunctionMode):
    """Makes no pinned memory, which needs a GPU, and keeps where it was asked for."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        settings = dict(kwargs or {})
        if settings.pop("pin_memory", False):
            self.asked.append(str(settings.get("device")))
        return function(*args, **settings)


def test_pixels_are_pinned_on_the_host_whatever_torchs_default_is():
    pixels = torch.zeros((3, 4, 5), dtype=torch.uint8)
    with WithoutPins() as mode, torch.device("meta"):
        there = upload(pixels, torch.device("meta"))

    assert mode.asked == ["cpu"]
    assert there.shape == (3, 4, 5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_what_comes_at_once_is_what_comes_one_by_one(dtype):
    transposed = torch.randn(4, 3, 2).permute(2, 0, 1)
    tensors = [torch.randn(2, 5).to(dtype), transposed, torch.empty(2, 0)]
    expected = [tensor.float().numpy() for tensor in tensors]

    for one, alone in zip(_at_once(tensors), expected, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_array_equal(one, alone)
