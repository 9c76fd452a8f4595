from __future__ import annotations

import logging
from pathlib import Path

import attrs
import onnxruntime
import pytest

from inference_models_onnx.placement import RECORD, report_placement

PATH = Path("model.onnx")
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@attrs.frozen
class Node:
    op_type: str


@attrs.frozen
class Part:
    ep_name: str
    operators: list[str]

    def get_nodes(self):
        return [Node(operator) for operator in self.operators]


@attrs.frozen
class Placed:
    """A session, as far as it tells where its nodes are."""

    parts: list[Part]

    def get_provider_graph_assignment_info(self):
        return self.parts


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.INFO, "inference_models")

    def told(session):
        report_placement(session, PATH)
        return [(r.levelname, r.getMessage()) for r in caplog.records]

    return told


def test_operators_that_the_gpu_lacks_are_warned_of(told):
    session = Placed([Part(CUDA, ["Conv"]), Part(CPU, ["Det", "Shape", "Det"])])

    ((level, sentence),) = told(session)
    assert level == "WARNING"
    assert sentence == (
        "ONNX Runtime's record of where nodes run has 3 of 4 of 'model.onnx' on the "
        "CPU: 2 Det, 1 Shape"
    )


def test_what_only_computes_sizes_is_no_reason_to_warn(told):
    session = Placed([Part(CUDA, ["Conv"]), Part(CPU, ["Shape", "Gather"])])

    assert [level for level, _ in told(session)] == ["INFO"]


def test_nothing_is_told_of_a_graph_that_is_all_on_the_gpu(told):
    assert told(Placed([Part(CUDA, ["Conv"])])) == []


def test_a_runtime_that_keeps_no_record_is_let_be(told):
    assert told(object()) == []


def test_the_record_is_one_that_the_runtime_keeps(save, told):
    graph = "graph (float[N] x) => (float[N] y) { z = Add(x, x)  y = Sqrt(z) }"
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(RECORD, "1")
    session = onnxruntime.InferenceSession(save(graph), options, providers=[CPU])
    if not hasattr(session, "get_provider_graph_assignment_info"):
        pytest.skip(f"ONNX Runtime {onnxruntime.__version__} keeps no record")

    assert told(session)[0][1].endswith(
        "has 2 of 2 of 'model.onnx' on the CPU: 1 Add, 1 Sqrt"
    )
