"""PyTorch's weights on OpenVINO, a third party's backend, where it is installed."""

from __future__ import annotations

import os

import numpy as np
import pytest

from inference_models import AutoModel

from .checkpoints import rfdetr_cards

pytest.importorskip("inference_models_openvino")


# Of RF-DETR what comes before the order of its cells, which rounding can turn.
@pytest.mark.parametrize(
    ("model_id", "output"), [("resnet18", "logits"), ("rfdetr-nano", "objectness")]
)
def test_what_is_exported_gives_what_pytorch_gives(
    model_id, output, resnet18_cards, photos, tmp_path, monkeypatch
):
    folder = rfdetr_cards(tmp_path, "nano", photos["astronaut"])
    cards = os.pathsep.join(map(str, (resnet18_cards, folder)))
    monkeypatch.setenv("INFERENCE_MODELS_CARDS", cards)
    original = AutoModel.from_pretrained(model_id, backend="torch")
    exported = AutoModel.from_pretrained(model_id, backend="openvino")
    inputs, _ = exported.pre_process([photos["coffee"], photos["chelsea"]])

    expected, found = original.forward(inputs), exported.forward(inputs)

    assert exported.backend == "openvino"
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(found[output], expected[output], rtol=0, atol=1e-4)


def test_florence2_writes_what_pytorch_writes(florence2_cards, photos, monkeypatch):
    monkeypatch.setenv("INFERENCE_MODELS_CARDS", str(florence2_cards))
    models = [
        AutoModel.from_pretrained("florence2-base", backend=backend)
        for backend in ("torch", "openvino")
    ]

    picture = photos["coffee"][:96, :96]  # no resize, in which backends may differ
    expected, found = (model.prompt(picture, "<CAPTION>") for model in models)

    assert found == expected


def test_it_runs_for_those_who_name_it(resnet18_cards, monkeypatch):
    monkeypatch.setenv("INFERENCE_MODELS_CARDS", str(resnet18_cards))

    backends = [c.backend for c in AutoModel.explain("resnet18").candidates]

    assert backends.index("openvino") > backends.index("onnx")
