"""Pixels on their way to another device."""

import torch
from torch.overrides import TorchFunctionMode

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
