"""Real weights on real photos give the right answers, on every backend."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from inference_models import AutoModel

from .cards import resnet_card

REFERENCE = json.loads((Path(__file__).parent / "yolox_reference.json").read_text())


@pytest.fixture(scope="module")
def detector():
    return AutoModel.from_pretrained("yolox-nano", task="object-detection")


def overlap(one, other) -> float:
    left, top = np.maximum(one[:2], other[:2])
    right, bottom = np.minimum(one[2:], other[2:])
    shared = max(0, right - left) * max(0, bottom - top)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_yolox_finds_the_boxes_of_the_reference_table(name, detector, photos):
    (found,) = detector(photos[name])

    expected = REFERENCE[name]
    assert found.names == [row["name"] for row in expected]
    for box, score, row in zip(found.xyxy, found.confidence, expected, strict=True):
        assert overlap(box, row["xyxy"]) >= 0.9
        assert score == pytest.approx(row["confidence"], abs=0.02)


def test_yolox_is_sure_of_the_person_and_of_the_cup(detector, photos):
    astronaut, coffee = detector([photos["astronaut"], photos["coffee"]])

    assert (astronaut.names[0], coffee.names[0]) == ("person", "cup")
    assert astronaut.confidence[0] >= 0.9
    assert coffee.confidence[0] >= 0.85


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_efficientnet_knows_17_of_20_labelled_photos(backend, imagenet_photos):
    model = AutoModel.from_pretrained(
        "efficientnet-lite0", backend=backend, task="classification"
    )

    prediction = model([path for path, _ in imagenet_photos])

    expected = [class_id for _, class_id in imagenet_photos]
    assert len(expected) == 20
    assert np.sum(prediction.class_id == expected) >= 17


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A small ResNet trained here on scikit-learn's digits, as a folder with a card."""
    import torch
    from sklearn.datasets import load_digits

    from inference_models_resnet.network import ResNet

    data = load_digits()
    grey = np.round(data.images / 16 * 255).astype(np.uint8)
    images = np.repeat(grey.repeat(4, 1).repeat(4, 2)[..., None], 3, axis=3)
    torch.manual_seed(0)
    network = ResNet(18, 10, 8).train()
    # The set is ordered by writer: mixed, both parts have all of them.
    order = np.random.default_rng(0).permutation(len(images))
    learn, ask = order[:1400], order[1400:]
    inputs = torch.from_numpy(images[learn]).permute(0, 3, 1, 2).float() / 255
    targets = torch.from_numpy(data.target[learn])
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=220)
    for _ in range(10):
        for part in torch.randperm(len(inputs)).split(64):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(
                network(inputs[part]), targets[part]
            )
            loss.backward()
            optimizer.step()
            schedule.step()
    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder, network.eval().state_dict())
    return folder, images[ask], data.target[ask]


def write_digits(folder: Path, weights) -> None:
    from safetensors.torch import save_file

    save_file(dict(weights), folder / "digits.safetensors")
    card = resnet_card(
        folder / "digits.safetensors",
        labels=[f"digit {number}" for number in range(10)],
        config={"depth": 18, "width": 8, "preprocessing": {"size": [32, 32]}},
    )
    (folder / "card.json").write_text(json.dumps(card))


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_resnet_trained_on_digits_reads_95_percent(backend, digits):
    folder, images, targets = digits
    model = AutoModel.from_pretrained(folder, backend=backend)

    prediction = model(images)

    assert model.backend == backend
    assert np.mean(prediction.class_id == targets) >= 0.95
