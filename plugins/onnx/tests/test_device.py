from __future__ import annotations

import numpy as np
import pytest

from inference_models import Operations
from inference_models_onnx import OnnxBackend

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


@pytest.fixture
def cuda():
    devices = OnnxBackend().devices()
    if "cuda:0" not in devices:
        pytest.skip(f"needs an NVIDIA GPU and onnxruntime-gpu; here is {devices}")
    return "cuda:0"


@pytest.mark.gpu
def test_a_tensor_on_the_gpu_stays_there(start, torch, cuda):
    session = start(GRAPH.format(state="float16", number=10), device=cuda)
    state = torch.ones(1, 2, dtype=torch.float16, device=cuda)
    first = session(input=torch.ones(1, 4, device=cuda), state=state)
    second = session(input=first["output"], state=first["next"])
    output = torch.from_dlpack(second["output"])

    assert str(output.device) == cuda
    assert output.tolist() == [[4] * 4]
    assert Operations().host(second["next"]).tolist() == [[4, 4]]


@pytest.mark.gpu
def test_work_of_another_stream_is_waited_for(start, torch, cuda):
    graph = "graph (float[N] x) => (float[N] y) { y = Add(x, x) }"
    session = start(graph, device=cuda)
    with torch.cuda.stream(torch.cuda.Stream(cuda)):
        x = torch.zeros(1 << 20, device=cuda)
        torch.cuda._sleep(200_000_000)
        x.add_(1)
        y = torch.from_dlpack(session(x=x)["y"])

    assert (y == 2).all()


@pytest.mark.gpu
def test_booleans_and_host_arrays_are_taken_by_the_gpu(start, torch, cuda):
    session = start(BOOL, device=cuda)
    x = torch.tensor([True, False], device=cuda)

    assert session(x=x)["y"].cpu().tolist() == [False, True]
    assert session(x=np.array([True, False]))["y"].cpu().tolist() == [False, True]
