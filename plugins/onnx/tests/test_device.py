from __future__ import annotations

import numpy as np
import pytest

from inference_models import Operations

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
