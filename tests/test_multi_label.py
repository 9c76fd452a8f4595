"""A network with several labels an image, from a folder and on both backends."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from inference_models import MultiLabelClassificationModel
from inference_models_resnet.network import ResNet

from .cards import resnet_card


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    torch.manual_seed(0)
    torch.save(dict(ResNet(18, 3, 8).state_dict()), folder / "several.pth")
    card = resnet_card(
        folder / "several.pth",
        task="multi-label-classification",
        labels=["ball", "cup", "dog"],
        config={"depth": 18, "width": 8, "preprocessing": {"size": [64, 64]}},
    )
    (folder / "card.json").write_text(json.dumps(card), "utf-8")
    return folder


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_every_class_that_reaches_the_threshold_is_named(backend, folder, photos):
    model = MultiLabelClassificationModel.from_pretrained(folder, backend=backend)
    images = list(photos.values())

    everything, nothing = model(images, confidence=0), model(images, confidence=1.0)

    assert [len(found) for found in everything] == [3] * len(images)
    assert [len(found) for found in nothing] == [0] * len(images)
    for found in everything:
        scores = found.confidence
        assert np.all((scores > 0) & (scores < 1))
        assert np.all(np.diff(np.asarray(scores)[found.class_ids]) <= 0)
        assert scores["cup"] == scores[1]


def test_both_backends_give_the_same_scores(folder, photos):
    torch_found, onnx_found = (
        MultiLabelClassificationModel.from_pretrained(folder, backend=backend)(
            photos["coffee"]
        )[0].confidence
        for backend in ("torch", "onnx")
    )

    np.testing.assert_allclose(torch_found, onnx_found, atol=0.01)
