"""An ONNX file that nothing recognises, of which the user says what it is like."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from inference_models import AutoModel, InvalidOption


@pytest.fixture
def finetuned(tmp_path):
    """A ResNet-18's input, and three classes: how red, green and blue an image is."""
    path, kind = tmp_path / "finetuned.onnx", TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node(
                "ReduceMean", ["input"], ["logits"], axes=[2, 3], keepdims=0
            )
        ],
        "means",
        [helper.make_tensor_value_info("input", kind, ["batch", 3, 224, 224])],
        [helper.make_tensor_value_info("logits", kind, ["batch", 3])],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


BLUE = np.full((50, 60, 3), (255, 0, 0), np.uint8)


@pytest.mark.parametrize(
    ("labels", "name"), [(None, "class_2"), (["r", "g", "b"], "b")]
)
def test_a_files_own_classes_stand_instead_of_the_known_models(finetuned, labels, name):
    model = AutoModel.from_pretrained(finetuned, model_type="resnet18", labels=labels)
    prediction = model(BLUE)

    assert len(model.class_names) == 3
    assert model.class_names[prediction.class_id[0]] == name


def test_labels_are_held_to_the_files_own_classes(finetuned):
    with pytest.raises(InvalidOption, match=r"has 2 names, and .* has 3 columns"):
        AutoModel.from_pretrained(finetuned, model_type="resnet18", labels=["r", "g"])
