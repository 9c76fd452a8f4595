"""The tests that every backend has to pass, for each kind of file."""

import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from inference_models import Artifact, Bundle
from inference_models.testing import BackendTests, ToyArchitecture, toy_bundle
from inference_models_onnx import OnnxBackend

TOY = """<ir_version: 8, opset_import: ["": 17]>
    toy (float[{batch}, 3, 8, 8] {input}) => (float[{batch}, 3] {output})
    {{
        mean = ReduceMean<axes = [2, 3], keepdims = 0>({input})
        scaled = Mul(mean, weight)
        {output} = Add(scaled, bias)
    }}"""


def toy_model(batch, **names):
    model = onnx.parser.parse_model(TOY.format(batch=batch, **names))
    for name, array in ToyArchitecture.tensors().items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


class TestFreeBatch(BackendTests):
    backend = OnnxBackend
    runtime = ("onnxruntime",)

    @pytest.fixture
    def toy(self, tmp_path) -> Bundle:
        model = toy_model("N", input="input", output="output")
        onnx.save_model(model, tmp_path / "toy.onnx")
        return toy_bundle(tmp_path, Artifact("onnx", {"main": "toy.onnx"}))


class TestFixedBatchAndOtherNames(BackendTests):
    backend = OnnxBackend
    runtime = ("onnxruntime",)

    @pytest.fixture
    def toy(self, tmp_path) -> Bundle:
        model = toy_model(2, input="images", output="scores")
        path = tmp_path / "toy.onnx"
        options = {"save_as_external_data": True, "location": "toy.bin"}
        onnx.save_model(model, path, size_threshold=0, **options)
        rename = {"images": "input", "scores": "output"}
        graphs = {"main": "toy.onnx"}
        artifact = Artifact("onnx", graphs, batch=(2, 2, 2), rename=rename)
        return toy_bundle(tmp_path, artifact)
