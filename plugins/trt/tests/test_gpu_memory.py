"""What is known of an array that somebody shares, without a GPU."""

from __future__ import annotations

import numpy as np
import pytest

from inference_models_trt.gpu import view_of

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
