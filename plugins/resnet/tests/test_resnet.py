"""The architecture under the kit, single- and multi-label, and what it claims."""

from __future__ import annotations

import attrs
import numpy as np
import pytest

from inference_models import (
    Bundle,
    Facts,
    InvalidWeights,
    ModelCard,
    Operations,
    TensorSpec,
)
from inference_models.testing import ArchitectureTests
from inference_models_resnet import IMAGENET, ResNet
from inference_models_resnet.layout import Layout, tensors

LOGITS = np.array([[4, 1, -3], [-2, -1, 0.5]], np.float32)


def state_dict(layout: Layout) -> Facts:
    specs = {name: TensorSpec("float32", shape) for name, shape in tensors(layout)}
    return Facts("torch", specs)


def narrow(task: str, labels=("ball", "cup", "dog")) -> ModelCard:
    return ModelCard(
        id="narrow",
        architecture="resnet",
        task=task,
        artifacts=({"format": "torch", "graphs": {"main": "weights.pth"}},),
        labels=labels,
        config={"depth": 18, "width": 8, "preprocessing": IMAGENET},
    )


class TestSingleLabel(ArchitectureTests):
    architecture = ResNet

    @pytest.fixture
    def outputs(self) -> dict[str, np.ndarray]:
        logits = np.random.default_rng(0).normal(0, 3, (2, 1000))
        return {"logits": logits.astype(np.float32)}

    @pytest.fixture
    def facts(self) -> Facts:
        return state_dict(Layout(50, 7))


class TestMultiLabel(ArchitectureTests):
    architecture = ResNet

    @pytest.fixture
    def card(self) -> ModelCard:
        return narrow("multi-label-classification")

    @pytest.fixture
    def outputs(self) -> dict[str, np.ndarray]:
        return {"logits": LOGITS}


def predict(card: ModelCard, tmp_path, logits=LOGITS, **options):
    model = ResNet(Bundle(card, card.artifacts[0], tmp_path))
    chosen = ResNet.Options(**options)
    return model.postprocess({"logits": logits}, [], chosen, Operations())


def test_multi_label_names_every_class_that_reaches_the_threshold(tmp_path):
    card = narrow("multi-label-classification")

    first, second = predict(card, tmp_path)
    (strict, _) = predict(card, tmp_path, confidence=0.9)

    assert first.class_ids.tolist() == [0, 1]
    assert first.confidence["ball"] == pytest.approx(1 / (1 + np.exp(-4)), abs=1e-6)
    assert second.class_ids.tolist() == [2]
    assert strict.class_ids.tolist() == [0]


def test_best_confidence_is_the_cards_for_each_class(tmp_path):
    card = attrs.evolve(
        narrow("multi-label-classification"),
        config={"depth": 18, "confidence": {"best": {"cup": 0.99}, "default": 0.5}},
    )

    assert predict(card, tmp_path, confidence="best")[0].class_ids.tolist() == [0]


def test_a_column_without_a_label_is_never_returned(tmp_path):
    card = narrow("classification", labels=(None, "cup", "dog"))

    (prediction,) = predict(card, tmp_path)

    assert prediction.class_id.tolist() == [1, 2]
    assert prediction.confidence[:, 0].tolist() == [0, 0]
    np.testing.assert_allclose(prediction.confidence.sum(axis=1), 1, rtol=1e-6)


def test_labels_of_another_number_are_refused(tmp_path):
    with pytest.raises(InvalidWeights, match="has 3 classes, and its card names 2"):
        predict(narrow("classification", labels=("cup", "dog")), tmp_path)


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_claims_a_state_dict_with_its_depth_and_classes(depth):
    card = ResNet.claims(state_dict(Layout(depth, 7)))

    assert card is not None
    assert card.config["depth"] == depth
    assert card.labels == tuple(f"class_{number}" for number in range(7))


def test_a_thousand_classes_are_taken_for_imagenets():
    card = ResNet.claims(state_dict(Layout(18, 1000)))

    assert card is not None
    assert card.labels[281] == "tabby, tabby cat"


def test_public_cards_name_imagenets_classes_and_their_depth():
    depths = {card.id: card.config["depth"] for card in ResNet.cards()}

    assert depths["resnet18"] == 18
    assert depths["resnet152-v2"] == 152
    assert all(len(card.labels) == 1000 for card in ResNet.cards())
