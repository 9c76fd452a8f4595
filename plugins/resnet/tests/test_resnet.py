"""The architecture under the kit, single- and multi-label, and what it claims."""

from __future__ import annotations

import attrs
import numpy as np
import pytest

from inference_models import (
    Bundle,
    Facts,
    InvalidCard,
    InvalidWeights,
    ModelCard,
    Operations,
    TensorSpec,
    softmax,
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


@pytest.mark.parametrize("bias", [0, 2, 120])
def test_without_a_column_shares_of_a_softmax_are_those_of_the_rest(tmp_path, bias):
    card = narrow("classification", labels=(None, "cup", "dog"))
    config = {**card.config, "post_processing": {"fused": True}}
    logits = LOGITS + np.array([bias, 0, 0], np.float32)

    (expected,) = predict(card, tmp_path, logits)
    fused = attrs.evolve(card, config=config)
    (found,) = predict(fused, tmp_path, softmax(logits))

    assert 0 not in found.class_id
    np.testing.assert_allclose(found.confidence.sum(axis=1), 1, rtol=1e-6)
    if bias < 100:  # else nothing is left in float32 of what the rest had
        np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-6)


def test_labels_of_another_number_are_refused(tmp_path):
    with pytest.raises(InvalidWeights, match="has 3 classes, and its card names 2"):
        predict(narrow("classification", labels=("cup", "dog")), tmp_path)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({}, "depth None is not one of 18, 34, 50, 101, 152"),
        ({"depth": 20}, "depth 20 is not one of"),
        ({"depth": [18]}, r"depth \[18\] is not one of"),
        ({"depth": 18, "width": "8"}, "width '8' is not a number above 0"),
        ({"depth": 18, "width": 0}, "width 0 is not a number above 0"),
    ],
)
def test_a_config_of_no_network_is_told(config, told, tmp_path):
    card = attrs.evolve(narrow("classification"), config=config)

    with pytest.raises(InvalidCard, match=f"config.{told}"):
        _ = ResNet(Bundle(card, card.artifacts[0], tmp_path)).layout


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


# Folders of transformers


def folder_facts(**changes):
    config = {
        "embedding_size": 64,
        "hidden_sizes": [256, 512, 1024, 2048],
        "depths": [3, 4, 6, 3],
        "layer_type": "bottleneck",
    }
    known = {
        "class": "ResNetForImageClassification",
        "config": config | changes.pop("config", {}),
        "labels": ("ant", "bee"),
        "preprocessing": {"size": [96, 96]},
        "files": ["config.json", "model.safetensors"],
        "unsupported": None,
    }
    return Facts("hf", {}, known | changes)


def formats(card: ModelCard) -> list[str]:
    return [artifact.format for artifact in card.artifacts]


def test_a_folder_of_transformers_is_for_two_backends():
    card = ResNet.claims(folder_facts())
    torch, hf = card.artifacts

    assert (card.task, card.labels) == ("classification", ("ant", "bee"))
    assert card.config == {
        "depth": 50,
        "width": 64,
        "preprocessing": {"size": [96, 96]},
    }
    assert (torch.format, torch.graphs) == ("torch", {"main": "model.safetensors"})
    assert [file.name for file in torch.files] == ["model.safetensors"]
    assert (hf.format, hf.graphs) == ("hf", {"main": "."})
    assert [file.name for file in hf.files] == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("layer_type", "depths", "sizes", "depth"),
    [
        ("basic", [2, 2, 2, 2], [64, 128, 256, 512], 18),
        ("basic", [3, 4, 6, 3], [64, 128, 256, 512], 34),
        ("bottleneck", [3, 4, 23, 3], [256, 512, 1024, 2048], 101),
        ("bottleneck", [3, 8, 36, 3], [256, 512, 1024, 2048], 152),
    ],
)
def test_the_depth_of_a_folder_is_told_by_its_config(layer_type, depths, sizes, depth):
    config = {"layer_type": layer_type, "depths": depths, "hidden_sizes": sizes}

    assert ResNet.claims(folder_facts(config=config)).config["depth"] == depth


@pytest.mark.parametrize(
    "config",
    [
        {"downsample_in_first_stage": True},
        {"downsample_in_bottleneck": True},
        {"hidden_act": "gelu"},
        {"num_channels": 1},
        {"depths": [1, 1, 1, 1]},
        {"hidden_sizes": [1, 2, 3, 4]},
        {"embedding_size": None},
    ],
)
def test_a_relative_is_for_transformers_alone(config):
    assert formats(ResNet.claims(folder_facts(config=config))) == ["hf"]


def test_a_folder_with_shards_is_for_transformers_alone():
    files = ["config.json", "a.safetensors", "b.safetensors"]

    assert formats(ResNet.claims(folder_facts(files=files))) == ["hf"]


def test_a_folder_of_several_labels():
    config = {"problem_type": "multi_label_classification"}
    card = ResNet.claims(folder_facts(config=config))

    assert card.task == "multi-label-classification"


def test_why_a_folder_cannot_be_run_is_kept():
    card = ResNet.claims(folder_facts(unsupported="too strange"))

    assert [a.needs for a in card.artifacts] == [{"unsupported": "too strange"}] * 2


def test_another_class_is_not_claimed():
    assert (
        ResNet.claims(folder_facts(**{"class": "RegNetForImageClassification"})) is None
    )


def test_a_card_without_labels_is_told(tmp_path):
    card = narrow("classification", labels=())
    with pytest.raises(InvalidCard, match="'narrow' has no labels, which say how many"):
        _ = ResNet(Bundle(card, card.artifacts[0], tmp_path)).layout
