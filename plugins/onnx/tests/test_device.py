from __future__ import annotations

import ctypes
from contextlib import contextmanager

import numpy as np
import pytest

from inference_models import Operations
from inference_models_onnx.device import Device

GRAPH = """graph (float[N, 4] input, {state}[N, 2] state)
    => (float[N, 4] output, {state}[N, 2] next)
    {{ output = Add(input, input)  half = Cast<to = 1>(state)
       twice = Add(half, half)  next = Cast<to = {number}>(twice) }}"""

HALF = GRAPH.format(state="bfloat16", number=16)
BOOL = "graph (bool[N] x) => (bool[N] y) { y = Not(x) }"


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def test_bfloat16_goes_in_and_out_by_dlpack(start, torch):
    session = start(HALF)
    state = torch.tensor([[1.5, -2.0]], dtype=torch.bfloat16)
    array = np.arange(8, dtype=np.float32).reshape(1, 8)[:, ::2]
    first = session(input=array, state=state)
    second = session(input=first["output"], state=first["next"])

    assert session.inputs["state"].dtype == "bfloat16"
    assert first["next"].shape == (1, 2)
    assert torch.from_dlpack(second["next"]).tolist() == [[6.0, -8.0]]
    assert Operations().host(second["output"]).tolist() == [[0, 8, 16, 24]]


def test_scattered_tensors_and_those_with_a_gradient_are_read(start, torch):
    session = start(HALF)
    state = torch.zeros(1, 2, dtype=torch.bfloat16)
    scattered = torch.arange(8.0).reshape(4, 2)[:, :1].T.requires_grad_()
    output = session(input=scattered, state=state)["output"]

    assert output.cpu().tolist() == [[0, 4, 8, 12]]


def test_a_read_only_array_is_read(start, torch):
    array = np.ones((1, 4), np.float32)
    array.flags.writeable = False
    state = torch.zeros(1, 2, dtype=torch.bfloat16)

    assert start(HALF)(input=array, state=state)["output"].cpu().tolist() == [[2] * 4]


def test_booleans_go_in_by_dlpack(start, torch):
    graph = """graph (bool[N] x, bfloat16[N] state) => (bool[N] y, bfloat16[N] next)
        { y = Not(x)  next = Identity(state) }"""
    state = torch.zeros(2, dtype=torch.bfloat16)
    output = start(graph)(x=torch.tensor([True, False]), state=state)["y"]

    assert output.cpu().tolist() == [False, True]


class Gpu:
    """A stream of a GPU whose memory is the host's; it knows whose the thread is."""

    handle = 77
    is_current = False

    @contextmanager
    def current(self):
        self.is_current = True
        yield
        self.is_current = False

    def follow_readers(self):
        """Nobody reads later."""

    def copy(self, to, source, size):
        ctypes.memmove(to, source, size)

    def wait(self):
        """All work is done at once."""


class Shared:
    """A tensor on a GPU, which is shared as torch does: on the thread's GPU alone."""

    def __init__(self, tensor, gpu, number=0):
        self.tensor, self.gpu, self.number = tensor, gpu, number
        self.shape, self.dtype = tensor.shape, tensor.dtype

    def __dlpack_device__(self):
        return 2, self.number

    def __dlpack__(self, *, stream=None):
        if self.number or not self.gpu.is_current:
            raise BufferError("Can't export tensors on a different CUDA device index")
        return self.tensor.__dlpack__()

    def cpu(self):
        return self.tensor


@pytest.fixture
def gpu():
    return Gpu()


@pytest.fixture
def on_gpu(start, gpu):
    """A session that takes the host's memory for that of its GPU."""
    session = start("graph (float[N] x) => (float[N] y) { y = Add(x, x) }")
    session._device = Device("cpu", 0)
    session._device._stream = gpu
    return session


def test_a_tensor_is_shared_and_run_on_the_gpu_of_the_session(on_gpu, gpu, torch):
    output = on_gpu(x=Shared(torch.ones(3), gpu))["y"]

    assert output._stream is gpu
    assert output.value.numpy().tolist() == [2] * 3
    assert not gpu.is_current


def test_a_tensor_of_another_gpu_comes_by_way_of_the_host(on_gpu, gpu, torch):
    output = on_gpu(x=Shared(torch.ones(3), gpu, number=1))["y"]

    assert output.value.numpy().tolist() == [2] * 3
