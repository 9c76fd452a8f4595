"""The standard tests, and what is OpenVINO's own, on ONNX files made here."""

from __future__ import annotations

import sys

import numpy as np
import pytest

pytest.importorskip("inference_models_openvino")

import onnx
from onnx import TensorProto, helper, numpy_helper

from inference_models import (
    Artifact,
    Bundle,
    InvalidOption,
    InvalidWeights,
    Plan,
    RunFailed,
    Unavailable,
)
from inference_models.testing import (
    BackendTests,
    ToyArchitecture,
    toy_bundle,
    toy_card,
)
from inference_models_openvino import OpenVinoBackend

node = helper.make_node


def tensor(name, *shape, dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def written(folder, nodes, inputs, outputs, **constants):
    """A bundle of one ONNX file, of this graph."""
    tensors = [numpy_helper.from_array(v, k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.save(model, folder / "model.onnx")
    return toy_bundle(folder, Artifact("onnx", {"main": "model.onnx"}))


def opened(bundle, **settings):
    backend, plan = OpenVinoBackend(**settings), Plan("cpu", "fp32")
    return backend.open(bundle, ToyArchitecture(bundle), plan)["main"]


def refusal(precision):
    artifact = Artifact("onnx", {"main": "model.onnx"}, precision=precision)
    plan = Plan("cpu", "fp32")
    return OpenVinoBackend().refuse(toy_card(artifact), artifact, plan)


class TestOpenVino(BackendTests):
    backend = OpenVinoBackend
    runtime = ("openvino",)

    @pytest.fixture
    def toy(self, tmp_path) -> Bundle:
        nodes = [
            node("ReduceMean", ["input"], ["mean"], axes=[2, 3], keepdims=0),
            node("Mul", ["mean", "weight"], ["scaled"]),
            node("Add", ["scaled", "bias"], ["output"]),
        ]
        inputs, outputs = [tensor("input", "n", 3, 8, 8)], [tensor("output", "n", 3)]
        return written(tmp_path, nodes, inputs, outputs, **ToyArchitecture.tensors())


def test_an_output_keeps_its_name_where_another_is_optimised_away(tmp_path):
    nodes = [node("Relu", ["x"], ["a"]), node("Identity", ["a"], ["z"])]
    session = opened(written(tmp_path, nodes, [tensor("x", 2)], [tensor("z", 2)]))

    found = session(x=np.array([-1, 1], np.float32))

    assert {name: array.tolist() for name, array in found.items()} == {"z": [0, 1]}


def test_a_call_that_fails_is_told_and_the_next_one_works(tmp_path):
    inputs, outputs = [tensor("x", "n")], [tensor("z", 2, 1)]
    nodes = [node("Reshape", ["x", "shape"], ["z"])]
    shape = np.array([2, 1])
    session = opened(written(tmp_path, nodes, inputs, outputs, shape=shape))

    with pytest.raises(RunFailed, match=r"failed to run '.*model\.onnx': .*reshape"):
        session(x=np.zeros(3, np.float32))
    assert session(x=np.zeros(2, np.float32))["z"].shape == (2, 1)


def test_an_operator_that_is_not_known_is_named(tmp_path):
    nodes = [node("Fold", ["x"], ["z"], domain="acme")]
    bundle = written(tmp_path, nodes, [tensor("x", 2)], [tensor("z", 2)])

    with pytest.raises(InvalidWeights, match=r"acme\.Fold; fetch it again, or name"):
        opened(bundle)


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_tensor_that_numpy_does_not_have_is_refused(side, tmp_path):
    cast = TensorProto.FLOAT if side == "input" else TensorProto.BFLOAT16
    given = TensorProto.BFLOAT16 if side == "input" else TensorProto.FLOAT
    nodes = [node("Cast", ["input"], ["output"], to=cast)]
    inputs, outputs = (
        [tensor("input", 2, dtype=given)],
        [tensor("output", 2, dtype=cast)],
    )

    with pytest.raises(InvalidWeights, match=f"tensor '{side}' is bfloat16"):
        opened(written(tmp_path, nodes, inputs, outputs))


def test_weights_in_half_precision_are_computed_with_in_single(tmp_path):
    half = TensorProto.FLOAT16
    nodes = [node("Mul", ["x", "large"], ["y"]), node("Mul", ["y", "small"], ["z"])]
    inputs, outputs = [tensor("x", "n", dtype=half)], [tensor("z", "n", dtype=half)]
    large, small = np.array([250], np.float16), np.array([0.5], np.float16)
    bundle = written(tmp_path, nodes, inputs, outputs, large=large, small=small)

    found = opened(bundle)(x=np.array([300], np.float16))["z"]

    assert refusal("fp16") is None
    assert found.dtype == np.float16
    assert found.tolist() == [37504]  # 75000 between is more than float16 holds


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_other_weights_are_refused(precision):
    assert refusal(precision) == (
        f"the weights are in {precision}, and this backend runs fp32 and fp16; name "
        "another backend"
    )


def test_a_session_has_as_many_threads_as_are_named(tmp_path):
    nodes = [node("Relu", ["x"], ["z"])]
    bundle = written(tmp_path, nodes, [tensor("x", 2)], [tensor("z", 2)])

    assert (
        opened(bundle, threads=1)._compiled.get_property("INFERENCE_NUM_THREADS") == 1
    )
    with pytest.raises(InvalidOption, match="threads 0"):
        OpenVinoBackend(threads=0)


def test_without_openvino_it_says_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)

    with pytest.raises(Unavailable, match="type: pip install openvino"):
        OpenVinoBackend().devices()
