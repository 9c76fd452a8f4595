"""RF-DETR from checkpoints as its trainer writes them, on both backends.

Queries follow the order of the cells with the highest objectness, and two cells of
random weights can be nearer than rounding. What depends on that order is compared on
pictures where both found the same, and in half precision on weights whose queries are
all alike, so that their order changes nothing.
"""

from __future__ import annotations

import pickle
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from inference_models import AutoModel, InvalidOption, InvalidWeights, sigmoid
from inference_models.testing.pictures import picture
from inference_models_rfdetr.layout import SIZES

from .checkpoints import rfdetr_state, save_checkpoint

# The other segmenters are this one with more layers, on larger images.
SEGMENTER = "seg-nano"
LATER = [s for s in SIZES if s != "nano" and not s.startswith("seg-")]
SLOW_SIZES = [pytest.param(s, marks=pytest.mark.slow) for s in (*LATER, SEGMENTER)]
# What is between nano and large is rounded as those are.
BETWEEN = ("small", "medium", SEGMENTER)
SLOW_HALVES = [param for param in SLOW_SIZES if param.values[0] not in BETWEEN]
NAMES = ["bolt", "nut", "washer", "screw", "rivet", "pin", "nail"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Makes a size's checkpoint, once."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def make(size: str, alike: bool = False) -> Path:
        path = folder / f"{size}-{alike}.pth"
        if not path.exists():
            state = rfdetr_state(size)
            for name in ("query_feat.weight", "refpoint_embed.weight"):
                if alike:
                    state[name][:] = state[name][0].clone()
            save_checkpoint(path, state)
        return path

    return make


@pytest.fixture(scope="module")
def nano(checkpoint):
    return AutoModel.from_pretrained(checkpoint("nano"), backend="torch")


def scores(logits) -> np.ndarray:
    return sigmoid(np.asarray(logits))


def outputs(model, images) -> dict[str, np.ndarray]:
    inputs, _ = model.pre_process(images)
    host = model._loaded.operations.host
    return {name: host(array) for name, array in model.forward(inputs).items()}


def assert_equal_outputs(expected, found):
    """Scores before the order of cells, and what follows where it is the same."""
    before = scores(expected["objectness"]) - scores(found["objectness"])
    assert np.abs(before).max() <= 1e-4
    same = (order(expected) == order(found)).all(axis=1)
    same &= has_no_ties(expected) & has_no_ties(found)
    print(f"{same.sum()} of {len(same)} pictures in the same order")
    assert same.mean() >= 0.5
    after = scores(expected["logits"][same]) - scores(found["logits"][same])
    assert np.abs(after).max() <= 1e-4
    assert np.abs(expected["boxes"][same] - found["boxes"][same]).max() <= 1e-4
    if "keypoints" in expected:
        points = expected["keypoints"][same] - found["keypoints"][same]
        assert np.abs(points).max() <= 1e-3
    if "masks" in expected:  # their logits are far from 0 at most pixels
        masks = scores(expected["masks"][same]) - scores(found["masks"][same])
        assert np.abs(masks).max() <= 1e-3


def order(found) -> np.ndarray:
    queries = found["logits"].shape[1]
    return np.argsort(-found["objectness"], axis=1, kind="stable")[:, :queries]


def has_no_ties(found) -> np.ndarray:
    queries = found["logits"].shape[1]
    best = np.sort(-found["objectness"], axis=1)[:, : queries + 1]
    return (np.diff(best, axis=1) != 0).all(axis=1)


def check_backends(path, *batches):
    """What both backends give for the same inputs."""
    torch_model, onnx_model = (
        AutoModel.from_pretrained(path, backend=backend)
        for backend in ("torch", "onnx")
    )
    inputs = [onnx_model.pre_process(batch)[0] for batch in batches]

    assert_equal_outputs(forward(torch_model, inputs), forward(onnx_model, inputs))


def test_torch_and_onnx_agree_at_batches_of_1_3_and_8(checkpoint, photos):
    images = [*photos.values(), *(picture(240, 320, seed) for seed in range(8))]
    check_backends(checkpoint("nano"), images[:1], images[1:4], images[4:])


@pytest.mark.parametrize("size", SLOW_SIZES)
def test_torch_and_onnx_agree_at_every_size(size, checkpoint, photos):
    first, *others = photos.values()
    check_backends(checkpoint(size), [first], others)


def forward(model, inputs) -> dict[str, np.ndarray]:
    found = [model.forward(batch) for batch in inputs]
    return {n: np.concatenate([np.asarray(f[n]) for f in found]) for n in found[0]}


def check_half(size, path, **named):
    """What half precision gives, beside torch in full precision on the CPU."""
    images = [picture(240, 320, seed) for seed in range(3)]
    cpu = AutoModel.from_pretrained(
        path, backend="torch", device="cpu", quantization="fp32"
    )
    model = AutoModel.from_pretrained(path, quantization="fp16", **named)
    expected, found = outputs(cpu, images), outputs(model, images)

    assert model.precision == "fp16"
    objectness = scores(expected["objectness"]) - scores(found["objectness"])
    assert np.abs(objectness).max() <= 0.01
    left_out = [
        share_without_partner(*rows, side=SIZES[size].resolution)
        for rows in zip(*(rows_of(each) for each in (expected, found)), strict=True)
    ]
    print(f"{size}: without a partner {left_out}")
    assert max(left_out) <= 0.05


@pytest.mark.parametrize("size", ["nano", *SLOW_HALVES])
def test_half_precision_onnx_keeps_scores_and_boxes(size, checkpoint):
    check_half(size, checkpoint(size, alike=True), backend="onnx", device="cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU here")
@pytest.mark.parametrize("size", ["nano", "base"])
def test_half_precision_on_a_gpu_keeps_scores_and_boxes(size, checkpoint):
    check_half(size, checkpoint(size, alike=True), backend="torch", device="cuda:0")


def rows_of(found) -> list[np.ndarray]:
    return list(np.concatenate([scores(found["logits"]), found["boxes"]], axis=-1))


def share_without_partner(expected, found, side) -> float:
    """Queries for which no other has scores within 0.01 and a box within 0.5 pixels."""
    apart = np.abs(expected[:, None] - found[None])
    alike = (apart[..., :-4].max(-1) <= 0.01) & (apart[..., -4:].max(-1) * side <= 0.5)
    return float((~alike.any(axis=1)).mean())


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_a_batch_gives_what_single_pictures_give(backend, checkpoint):
    model = AutoModel.from_pretrained(checkpoint("nano"), backend=backend)
    images = [picture(240, 320, seed) for seed in range(4)]
    inputs, _ = model.pre_process(images)
    singles = [model.pre_process(image)[0] for image in images]

    assert_equal_outputs(forward(model, singles), forward(model, [inputs]))


def test_pictures_of_all_sizes_come_back_in_their_own_pixels(nano, photos):
    images = [*photos.values(), photos["coffee"][:37, :501], photos["chelsea"][:1, :1]]
    for image, found in zip(images, nano(images, confidence=0), strict=True):
        height, width = image.shape[:2]
        assert found.xyxy.shape == (300, 4)
        assert (found.xyxy >= 0).all()
        assert (found.xyxy <= [width, height, width, height]).all()


def test_a_segmenter_gives_masks_of_the_photos_own_sizes(checkpoint, photos):
    model = AutoModel.from_pretrained(checkpoint(SEGMENTER), backend="torch")
    images = [photos["coffee"][:37, :501], photos["chelsea"]]

    assert (model.task, model.card.config["size"]) == (
        "instance-segmentation",
        SEGMENTER,
    )
    for image, found in zip(images, model(images, confidence=0.3), strict=True):
        assert found.masks.shape == (len(found), *image.shape[:2])
        assert found.to_supervision().mask is found.masks


def test_a_model_of_people_gives_points_in_the_photos_pixels(checkpoint, photos):
    model = AutoModel.from_pretrained(checkpoint("keypoint-preview"), backend="torch")
    images = [photos["coffee"][:37, :501], photos["chelsea"]]
    named = {"confidence": 0, "key_points_threshold": 0}

    assert (model.task, model.class_names) == ("keypoint-detection", ["", "person"])
    assert model.key_points_classes[1][0] == "nose"
    assert model.skeletons[1][0] == (15, 13)
    for image, found in zip(images, model(images, **named), strict=True):
        height, width = image.shape[:2]
        assert (found.xyxy <= [width, height, width, height]).all()
        assert found.xy.shape == (100, 17, 2)
        # Each point is near its thing's box, wherever in the photo that is.
        centres = found.xyxy.reshape(-1, 2, 2).mean(axis=1)
        apart = np.abs(found.xy - centres[:, None]) / [width, height]
        assert np.median(apart) < 0.5
        assert found.to_supervision().xy is found.xy


def finetuned(folder: Path, classes: int, **beside) -> Path:
    path = folder / "checkpoint_best.pth"
    torch.save({"model": rfdetr_state("nano", classes), **beside}, path)
    return path


def test_a_trainers_checkpoint_loads_by_its_path_alone(tmp_path, photos):
    args = types.SimpleNamespace(num_classes=8, class_names=NAMES, resolution=384)
    path = finetuned(tmp_path, 8, args=args, epoch=3)
    model = AutoModel.from_pretrained(path)

    assert model.class_names == ["", *NAMES]
    assert set(model(photos["coffee"], confidence=0)[0].names) <= set(NAMES)


def test_a_newer_trainers_checkpoint_loads_by_its_path_alone(tmp_path, photos):
    told = {"num_classes": 7, "resolution": 320, "patch_size": 16, "num_windows": 2}
    args = {"class_names": NAMES, "batch_size": 4}
    path = finetuned(tmp_path, 8, args=args, model_config=told, model_name="RFDETRNano")
    model = AutoModel.from_pretrained(path)

    assert model.class_names == [*NAMES, ""]
    assert model.card.config["preprocessing"]["size"] == [320, 320]
    assert set(model(photos["coffee"], confidence=0)[0].names) <= set(NAMES)


def test_a_frameworks_checkpoint_loads_by_its_path_alone(tmp_path):
    state = {f"model.{k}": v for k, v in rfdetr_state("nano", 8).items()}
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": state, "args": {"class_names": NAMES}}, path)

    assert AutoModel.from_pretrained(path).class_names == [*NAMES, ""]


def test_labels_and_type_of_the_users_own_come_first(tmp_path):
    path = finetuned(tmp_path, 8, args={"class_names": NAMES})
    labels = ["one", *NAMES]
    model = AutoModel.from_pretrained(path, model_type="rfdetr-small", labels=labels)
    again = pickle.loads(pickle.dumps(model))

    assert model.class_names == again.class_names == labels
    assert again.card.config["preprocessing"]["size"] == [512, 512]


def test_labels_of_another_number_are_refused(tmp_path):
    path = finetuned(tmp_path, 8, args={"class_names": NAMES})
    with pytest.raises(InvalidOption, match=r"7 names, .* has 8 columns"):
        AutoModel.from_pretrained(path, labels=NAMES)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_a_truncated_checkpoint_is_refused(share, tmp_path):
    content = finetuned(tmp_path, 8).read_bytes()
    (tmp_path / "half.pth").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InvalidWeights, match=r"half\.pth' is .*fetch it again"):
        AutoModel.from_pretrained(tmp_path / "half.pth")


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    save_checkpoint(tmp_path / "other.pth", {"encoder.weight": torch.ones(2, 2)})
    with pytest.raises(InvalidWeights, match=r"no installed architecture .* claims"):
        AutoModel.from_pretrained(tmp_path / "other.pth")
    with pytest.raises(InvalidWeights, match=r"does not fit RfDetr: it lacks"):
        AutoModel.from_pretrained(tmp_path / "other.pth", model_type="rfdetr-nano")


def test_a_checkpoint_with_tensors_too_many_is_refused(tmp_path):
    state = {**rfdetr_state("nano"), "segmentation_bias": torch.zeros(1)}
    save_checkpoint(tmp_path / "more.pth", state)
    with pytest.raises(InvalidWeights, match="has unknown segmentation_bias"):
        AutoModel.from_pretrained(tmp_path / "more.pth")


class Canary:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("place", ["beside", "within", "args"])
def test_a_hostile_checkpoint_is_refused_and_runs_nothing(place, tmp_path):
    canary = tmp_path / "canary"
    state, hostile = rfdetr_state("nano"), Canary(canary)
    content = {
        "beside": {"model": state, "callback": hostile},
        "within": {"model": {**state, "hook": hostile}},
        "args": {"model": state, "args": types.SimpleNamespace(run=hostile)},
    }
    torch.save(content[place], tmp_path / "hostile.pth")
    for keywords in ({}, {"model_type": "rfdetr-nano"}):
        with pytest.raises(InvalidWeights, match=r"could run code.* is not loaded"):
            AutoModel.from_pretrained(tmp_path / "hostile.pth", **keywords)

    assert not canary.exists()
