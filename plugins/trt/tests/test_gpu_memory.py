"""What is known of an array that somebody shares, without a GPU."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from inference_models_trt import gpu
from inference_models_trt.gpu import Gpu, view_of

pytest.importorskip("cuda.core")


def test_an_array_is_read_where_it_lies():
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)[:, ::2]
    view = view_of(array, -1)

    assert view.ptr == array.ctypes.data
    assert view.shape == (2, 2, 4)
    assert view.strides == (12, 8, 1)


def test_torchs_tensors_are_asked_by_dlpack_alone(monkeypatch):
    torch = pytest.importorskip("torch")
    asked = []
    shared = torch.Tensor.__dlpack__
    monkeypatch.setattr(
        torch.Tensor, "__dlpack__", lambda *a, **k: asked.append(1) or shared(*a, **k)
    )
    tensor = torch.zeros(2, 3)
    view = view_of(tensor, -1)

    assert asked
    assert view.ptr == tensor.data_ptr()


class Device:
    """cuda-core's, as far as it makes and awaits work; `told` are the GPUs awaited."""

    told: list[int]

    def __init__(self, number):
        self.number = number

    def create_stream(self):
        return None

    def sync(self):
        self.told.append(self.number)


def test_what_one_engine_lent_is_waited_for_by_all_of_its_gpu(monkeypatch):
    Device.told = []
    monkeypatch.setattr("cuda.core.Device", Device)
    monkeypatch.setattr(Gpu, "current", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(gpu, "_LENT", set())
    first, second, other = Gpu(0), Gpu(0), Gpu(1)
    second.follow_readers()
    assert Device.told == []

    first.lend()
    for each in (second, other):
        each.follow_readers()
    assert Device.told == [0]
