"""Models that claim what is not so, or want what nobody has."""

from __future__ import annotations

import onnx.parser
import pytest
from onnx import TensorProto

from inference_models import InvalidWeights, Unavailable
from inference_models_onnx import OnnxBackend

HEAD = '<ir_version: 8, opset_import: ["": 17]>'
RELU = "graph (float[N, 4] input) => (float[N, 4] output) { output = Relu(input) }"
GATHER = """graph (int64[N] input) => (float[N] output)
    { output = Gather(weights, input) }"""


def parsed(text):
    return onnx.parser.parse_model(f"{HEAD} {text}")


def changed(**fields):
    model = parsed(RELU)
    for name, value in fields.items():
        setattr(model, name, value)
    return model


def with_opset(version):
    model = parsed(RELU)
    model.opset_import[0].version = version
    return model


def with_weights(dims, **content):
    model = parsed(GATHER)
    tensor = TensorProto(name="weights", data_type=1, dims=dims, **content)
    model.graph.initializer.append(tensor)
    return model


def of_another_domain(declared):
    model = parsed(RELU.replace("Relu", "com.evil.Run"))
    if declared:
        model.opset_import.add(domain="com.evil", version=1)
    return model


WRONG = {
    "an operator of a stranger": of_another_domain(declared=True),
    "an operator of nobody": of_another_domain(declared=False),
    "an unknown operator": parsed(RELU.replace("Relu", "Run")),
    "a format of the future": changed(ir_version=99),
    "no opset at all": with_opset(0),
    "an opset below none": with_opset(-1),
    "a claim of 2 GiB": with_weights([2**29], raw_data=b"\0" * 16),
    "2 GiB without data": with_weights([2**29]),
    "a shape that overflows": with_weights([2**62, 4], raw_data=b"\0" * 16),
    "a negative size": with_weights([-4], raw_data=b"\0" * 16),
    "a circle": parsed(RELU.replace("{", "{ a = Add(input, b) b = Relu(a)")),
    "a name given twice": parsed(RELU.replace("{", "{ output = Relu(input)")),
}


@pytest.mark.parametrize("model", WRONG.values(), ids=WRONG)
def test_a_model_that_cannot_be_is_named(save, start, model):
    path = save(model)

    with pytest.raises(InvalidWeights, match="fetch it again, or export it anew") as e:
        start(path)
    assert f"ONNX Runtime cannot open '{path}': " in str(e.value)


def test_an_opset_of_the_future_is_named(save, start):
    with pytest.raises((InvalidWeights, Unavailable), match=r"(?i)opset 99"):
        start(save(with_opset(99)))


@pytest.mark.parametrize("nodes", [True, False])
def test_a_model_without_outputs_is_refused_at_once(save, start, nodes):
    model = parsed(RELU)
    del model.graph.output[:]
    if not nodes:
        del model.graph.node[:]
    path = save(model)

    for read in (OnnxBackend().inspect, start):
        with pytest.raises(InvalidWeights, match="has no outputs to read; export it"):
            read(path)
