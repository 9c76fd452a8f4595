"""Fixtures: small ONNX files, what surrounds them, and machines with other GPUs."""

from __future__ import annotations

import itertools
from importlib.util import find_spec

import attrs
import numpy as np
import onnx.parser
import pytest
from onnx import numpy_helper

from inference_models import Artifact, hardware
from inference_models.testing import ToyArchitecture, toy_bundle

TOY = """<ir_version: 8, opset_import: ["": 17]>
    toy (float[{batch}, 3, 8, 8] input) => (float[{batch}, 3] output) {{
        mean = ReduceMean<axes = [2, 3], keepdims = 0>(input)
        scaled = Mul(mean, weight)
        output = Add(scaled, bias)
    }}"""


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Nobody's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INFERENCE_MODELS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def rtx():
    """TensorRT for RTX, which builds on any machine."""
    if find_spec("tensorrt_rtx") is None:
        pytest.skip("needs tensorrt-rtx, which is here for Linux x86-64 alone")


@pytest.fixture
def save(tmp_path):
    """Write a graph, as text or as a model, into a folder of its own."""

    def save(graph, name="model.onnx"):
        if isinstance(graph, str):
            head = '<ir_version: 8, opset_import: ["": 17]> '
            graph = onnx.parser.parse_model(head + graph)
        path = tmp_path / name
        path.write_bytes(graph.SerializeToString())
        return path

    return save


@pytest.fixture
def toy(onnx_toy):
    """The same; tests of engines have an engine by this name."""
    return onnx_toy


@pytest.fixture
def onnx_toy(save):
    """The toy of core's test kit as an ONNX file, for a batch of any size or of one."""

    def toy(batch="N", **fields):
        model = onnx.parser.parse_model(TOY.format(batch=batch))
        for name, array in ToyArchitecture.tensors().items():
            model.graph.initializer.append(numpy_helper.from_array(array, name))
        path = save(model, "toy.onnx")
        return toy_bundle(path.parent, Artifact("onnx", {"main": path.name}, **fields))

    return toy


@pytest.fixture
def long_build(save):
    """An ONNX file whose engine takes about a second: 200 convolutions, all unlike."""
    generator = np.random.default_rng(0)
    widths = [3, *(64 + number % 7 for number in range(200))]
    nodes, previous, model = [], "input", onnx.parser.parse_model(TOY.format(batch="N"))
    for number, (taken, given) in enumerate(itertools.pairwise(widths)):
        weight = generator.standard_normal((given, taken, 3, 3)).astype(np.float32) / 20
        model.graph.initializer.append(numpy_helper.from_array(weight, f"w{number}"))
        pads = {"pads": [1, 1, 1, 1]}
        nodes += [
            onnx.helper.make_node(
                "Conv", [previous, f"w{number}"], [f"c{number}"], **pads
            ),
            onnx.helper.make_node("Relu", [f"c{number}"], [f"r{number}"]),
        ]
        previous = f"r{number}"
    axes = {"axes": [2, 3], "keepdims": 0}
    nodes.append(onnx.helper.make_node("ReduceMean", [previous], ["output"], **axes))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = widths[-1]
    return save(model, "long.onnx")


@pytest.fixture
def machine(monkeypatch):
    """Say that this machine has GPUs of these compute capabilities, and a driver."""

    def machine(*capabilities, cuda=(13, 1), name="NVIDIA Test", **fields):
        gpus = tuple(hardware.Gpu(name, found, 2**34) for found in capabilities)
        facts = attrs.evolve(hardware.detect(), gpus=gpus, cuda=cuda, **fields)
        monkeypatch.setattr(hardware, "detect", lambda: facts)
        return facts

    return machine
