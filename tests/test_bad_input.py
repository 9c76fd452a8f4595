"""What is wrong with an input is said in a typed error, and the next call works."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from inference_models import (
    AutoModel,
    HashMismatch,
    InferenceModelsError,
    InvalidCard,
    InvalidInput,
    InvalidOption,
    InvalidWeights,
    ModelNotFound,
    NoBackend,
)
from inference_models_resnet.network import ResNet

from .cards import resnet_card

BAD_IMAGES = {
    "no pixels": (np.zeros((0, 5, 3), np.uint8), "no pixels"),
    "two channels": (np.zeros((5, 5, 2), np.uint8), r"\(H, W, 3\)"),
    "five channels": (np.zeros((5, 5, 5), np.uint8), r"\(H, W, 3\)"),
    "channels first": (np.zeros((3, 50, 60), np.uint8), "transpose"),
    "channels last": (torch.zeros(50, 60, 3, dtype=torch.uint8), "permute"),
    "wrong dtype": (np.zeros((5, 5, 3), np.int64), "uint8"),
    "floats above 1": (np.full((5, 5, 3), 200.0, np.float32), "255"),
    "NaN": (np.full((5, 5, 3), np.nan, np.float32), "NaN"),
    "empty list": ([], "no image"),
    "no picture": (b"certainly not a picture", "decoded"),
    "no file": ("missing/photo.jpg", "no image file"),
    "a camera": ("rtsp://admin:secret@10.0.0.2/stream", "cv2.VideoCapture"),
    "a URL": ("https://example.org/a.jpg?signature=secret", "fetch it"),
    "nothing": (None, "NoneType"),
}


@pytest.fixture(scope="module")
def detector():
    return AutoModel.from_pretrained("yolox-nano")


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_image_is_refused_and_the_next_call_works(name, detector, photos):
    image, advice = BAD_IMAGES[name]
    with pytest.raises(InvalidInput, match=advice) as caught:
        detector(image)

    assert "secret" not in str(caught.value)
    assert detector(photos["astronaut"])[0].names == ["person"]


def test_bad_image_in_a_list_is_named_by_its_number(detector, photos):
    with pytest.raises(InvalidInput, match="image 1: "):
        detector([photos["coffee"], np.zeros((5, 5, 2), np.uint8)])


def test_unknown_option_names_the_nearest(detector, photos):
    with pytest.raises(InvalidOption, match="did you mean 'confidence'"):
        detector(photos["coffee"], confidance=0.5)


@pytest.mark.parametrize("confidence", [-0.1, 1.1, "high", None, True])
def test_confidence_outside_its_range_is_refused(confidence, detector, photos):
    with pytest.raises(InvalidOption, match="confidence"):
        detector(photos["coffee"], confidence=confidence)


@pytest.mark.parametrize("confidence", [0, 1, 0.0, 1.0, "best", "default"])
def test_every_confidence_in_range_keeps_shapes_and_types(confidence, detector, photos):
    (found,) = detector(photos["coffee"], confidence=confidence)

    assert found.xyxy.shape == (len(found), 4)
    assert (found.xyxy.dtype, found.confidence.dtype) == (np.float32, np.float32)
    assert (found.class_id.dtype, len(found) <= 300) == (np.int64, True)
    assert np.all(np.diff(found.confidence) <= 0)
    assert len(found.to_supervision()) == len(found)


def test_unknown_id_names_the_nearest():
    with pytest.raises(ModelNotFound, match="did you mean 'yolox-nano'"):
        AutoModel.from_pretrained("yolox-nan")


def test_unknown_parameter_is_a_type_error_that_names_the_nearest():
    with pytest.raises(TypeError, match="did you mean 'device'"):
        AutoModel.from_pretrained("yolox-nano", devise="cpu")


def test_unknown_backend_and_device_are_refused():
    with pytest.raises(NoBackend, match="onnx"):
        AutoModel.from_pretrained("yolox-nano", backend="onyx")
    with pytest.raises(NoBackend, match="not cuda"):
        AutoModel.from_pretrained("yolox-nano", device="cuda")


def test_model_of_another_task_is_refused():
    with pytest.raises(InvalidOption, match="object-detection"):
        AutoModel.from_pretrained("yolox-nano", task="classification")


def test_folder_without_a_card_is_refused(tmp_path):
    with pytest.raises(InvalidCard, match=r"card\.json"):
        AutoModel.from_pretrained(tmp_path)


def card_in(folder: Path, classes: int = 10, **changes) -> Path:
    """A folder with a narrow ResNet of ten classes; `changes` replace its fields."""
    torch.save(dict(ResNet(18, 10, 8).state_dict()), folder / "weights.pth")
    narrow = {
        "labels": [f"class {number}" for number in range(classes)],
        "config": {"depth": 18, "width": 8, "preprocessing": {"size": [32, 32]}},
    }
    card = resnet_card(folder / "weights.pth", **{**narrow, **changes})
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def test_card_of_an_unknown_architecture_says_what_is_installed(tmp_path):
    folder = card_in(tmp_path, architecture="resnett")
    with pytest.raises(NoBackend, match="did you mean 'resnet'"):
        AutoModel.from_pretrained(folder)


def test_repeated_labels_are_refused(tmp_path):
    folder = card_in(tmp_path, labels=["crane", "crane"])
    with pytest.raises(InvalidCard, match="crane"):
        AutoModel.from_pretrained(folder)


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_checkpoint_of_another_size_is_refused(backend, tmp_path):
    folder = card_in(tmp_path, classes=7)
    with pytest.raises(InvalidWeights, match=r"fc\.weight"):
        AutoModel.from_pretrained(folder, backend=backend)


def test_wrong_hash_is_refused_and_the_right_one_works_after_it(tmp_path, photos):
    folder = card_in(tmp_path)
    good = (folder / "card.json").read_text()
    digest = json.loads(good)["artifacts"][0]["files"][0]["sha256"]
    (folder / "card.json").write_text(good.replace(digest, "0" * 64))
    with pytest.raises(HashMismatch, match="000"):
        AutoModel.from_pretrained(folder)
    (folder / "card.json").write_text(good)

    assert len(AutoModel.from_pretrained(folder)(photos["coffee"])) == 1


def test_truncated_checkpoint_is_refused(tmp_path):
    card_in(tmp_path)
    content = (tmp_path / "weights.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(InvalidWeights, match=r"half\.pth"):
        AutoModel.from_pretrained(tmp_path / "half.pth")


def test_checkpoint_loads_by_its_path_alone(tmp_path, photos):
    card_in(tmp_path)
    model = AutoModel.from_pretrained(
        tmp_path / "weights.pth", labels=list("abcdefghij")
    )

    assert model.card.config["depth"] == 18
    assert model.class_names[model(photos["coffee"]).class_id[0]] in "abcdefghij"


def test_onnx_file_loads_by_its_path_alone(tmp_path, photos, detector):
    source = detector._loaded.bundle.path("main")
    shutil.copyfile(source, tmp_path / "mine.onnx")
    model = AutoModel.from_pretrained(
        tmp_path / "mine.onnx", labels=detector.class_names
    )

    expected = detector(photos["astronaut"])[0]
    np.testing.assert_array_equal(model(photos["astronaut"])[0].xyxy, expected.xyxy)


def test_every_error_is_of_the_one_root():
    for error in (InvalidInput, InvalidOption, NoBackend, HashMismatch, ModelNotFound):
        assert issubclass(error, InferenceModelsError)
