"""The architecture under the kit, what it claims, its labels, and its results."""

from __future__ import annotations

from pathlib import Path

import attrs
import numpy as np
import pytest

from inference_models import (
    Bundle,
    Facts,
    Frame,
    InstanceDetections,
    InvalidCard,
    InvalidOption,
    KeyPoints,
    ModelCard,
    Operations,
    RunFailed,
    TensorSpec,
    sigmoid,
)
from inference_models.testing import ArchitectureTests
from inference_models_rfdetr import RfDetr
from inference_models_rfdetr.labels import COCO, COCO_LABELS, labels_of
from inference_models_rfdetr.layout import SIZES

from .official import tensors

CARDS = {card.id: card for card in RfDetr.cards()}
NANO, SMALL, BASE = (SIZES[name] for name in ("nano", "small", "base"))
SEG_NANO, POSE = SIZES["seg-nano"], SIZES["keypoint-preview"]
LOW = -20.0
"""A logit of what is not there."""

ABSURD = [10**9, "384", True, -1, 0, 384.0, float("nan"), [384], {"384": 384}, None]


def checkpoint(layout=NANO, prefix="", groups=13, keypoints=True, **metadata) -> Facts:
    named = tensors(layout, groups, keypoints)
    specs = {prefix + name: TensorSpec("float32", shape) for name, shape in named}
    return Facts("torch", specs, metadata)


def claimed(facts: Facts) -> ModelCard:
    card = RfDetr.claims(facts)
    assert card is not None
    return card


def made(card: ModelCard, **config) -> RfDetr:
    changed = attrs.evolve(card, config={**card.config, **config})
    return RfDetr(Bundle(changed, card.artifacts[0], Path()))


class TestRfDetr(ArchitectureTests):
    architecture = RfDetr

    @pytest.fixture
    def outputs(self) -> dict[str, np.ndarray]:
        chance = np.random.default_rng(0)
        found = {
            "logits": chance.normal(-6, 3, (2, BASE.queries, BASE.classes)),
            "boxes": chance.uniform(0, 1, (2, BASE.queries, 4)),
            "objectness": chance.normal(0, 1, (2, BASE.cells)),
        }
        return {name: array.astype(np.float32) for name, array in found.items()}

    @pytest.fixture
    def facts(self) -> Facts:
        return checkpoint(groups=1)


class TestSegmentation(TestRfDetr):
    @pytest.fixture
    def card(self) -> ModelCard:
        return CARDS["rfdetr-seg-nano"]

    @pytest.fixture
    def outputs(self) -> dict[str, np.ndarray]:
        chance = np.random.default_rng(0)
        shape = (2, SEG_NANO.queries)
        found = {
            "logits": chance.normal(-6, 3, (*shape, SEG_NANO.classes)),
            "boxes": chance.uniform(0, 1, (*shape, 4)),
            "objectness": chance.normal(0, 1, (2, SEG_NANO.cells)),
            "masks": chance.normal(0, 9, (*shape, *[SEG_NANO.mask_side] * 2)),
        }
        return {name: array.astype(np.float32) for name, array in found.items()}

    @pytest.fixture
    def facts(self) -> Facts:
        return checkpoint(SEG_NANO, groups=1)


class TestKeyPoints(TestRfDetr):
    @pytest.fixture
    def card(self) -> ModelCard:
        return CARDS["rfdetr-keypoint-preview"]

    @pytest.fixture
    def outputs(self) -> dict[str, np.ndarray]:
        chance = np.random.default_rng(0)
        shape = (2, POSE.queries)
        slots = chance.normal(1, 1, (*shape, POSE.slots, 8))
        slots[:, :, :17] = 0  # the first column means no object
        found = {
            "logits": chance.normal(-1, 3, (*shape, POSE.classes)),
            "boxes": chance.uniform(0, 1, (*shape, 4)),
            "objectness": chance.normal(0, 1, (2, POSE.cells)),
            "keypoints": slots,
        }
        return {name: array.astype(np.float32) for name, array in found.items()}

    @pytest.fixture
    def facts(self) -> Facts:
        return checkpoint(POSE, groups=1)


# What is claimed: checkpoints


@pytest.mark.parametrize("size", SIZES)
def test_shapes_alone_tell_a_published_size(size):
    card, public = claimed(checkpoint(SIZES[size])), CARDS[f"rfdetr-{size}"]

    assert card.config["size"] == size
    assert made(card).preprocessing == made(public).preprocessing
    assert made(card).layout == SIZES[size]


@pytest.mark.parametrize("size", [size for size in SIZES if not SIZES[size].keypoints])
def test_a_checkpoint_without_a_keypoint_mask_is_claimed_alike(size):
    expected = claimed(checkpoint(SIZES[size]))

    assert claimed(checkpoint(SIZES[size], keypoints=False)) == expected


@pytest.mark.parametrize("prefix", ["model.", "model._orig_mod."])
def test_names_with_the_trainers_prefix_are_claimed_alike(prefix):
    expected = claimed(checkpoint())

    assert claimed(checkpoint(prefix=prefix)) == expected


@pytest.mark.parametrize("part", ["args", "hyper_parameters", "model_config"])
@pytest.mark.parametrize("size", ["small", "base"])
def test_a_resolution_of_ones_own_is_told_beside_the_tensors(size, part):
    card = claimed(checkpoint(SIZES[size], **{part: {"resolution": 672}}))

    assert "size" not in card.config
    assert card.config["preprocessing"]["size"] == [672, 672]
    assert made(card).layout == attrs.evolve(SIZES[size], resolution=672)


def test_windows_and_depths_of_ones_own_are_told_beside_the_tensors():
    told = {"num_windows": 4, "out_feature_indexes": [2, 5, 8, 11]}
    card = claimed(checkpoint(SMALL, args=told))

    assert made(card).layout == attrs.evolve(SMALL, windows=4, features=(2, 5, 8, 11))


def test_a_checkpoint_of_other_classes_keeps_its_size():
    card = claimed(checkpoint(attrs.evolve(SMALL, classes=4)))

    assert card.config["size"] == "small"
    assert made(card).layout == attrs.evolve(SMALL, classes=4)


def test_classes_are_as_many_as_columns_whatever_is_told():
    other = attrs.evolve(SMALL, classes=4)
    card = claimed(checkpoint(other, args={"num_classes": 90}))

    assert made(card).layout.classes == len(card.labels) == 4


def test_names_that_the_trainer_wrote_are_labels():
    other = attrs.evolve(SMALL, classes=3)
    card = claimed(checkpoint(other, args={"class_names": ["ball", "cup"]}))

    assert card.labels == ("ball", "cup", None)


def test_one_group_of_queries_is_claimed_as_thirteen_are():
    assert claimed(checkpoint(groups=1)) == claimed(checkpoint(groups=13))


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("layout", [NANO, SEG_NANO], ids=["boxes", "masks"])
def test_a_relative_for_another_task_is_not_claimed(layout, prefix):
    facts = checkpoint(layout, prefix)
    more = {f"{prefix}keypoint_embed.weight": TensorSpec("float32", (256, 34))}

    assert RfDetr.claims(attrs.evolve(facts, tensors=facts.tensors | more)) is None


@pytest.mark.parametrize("prefix", ["", "model."])
def test_what_has_a_head_for_masks_segments(prefix):
    card = claimed(checkpoint(SEG_NANO, prefix))

    assert card.task == "instance-segmentation"
    assert card == claimed(checkpoint(SEG_NANO))


def test_a_segmenter_of_a_resolution_of_its_own_has_the_windows_that_are_told():
    args = {"resolution": 384, "num_windows": 1}
    card = claimed(checkpoint(SEG_NANO, args=args))

    assert made(card).layout == attrs.evolve(SEG_NANO, resolution=384)


def test_a_residual_network_is_not_claimed():
    shapes = {
        "conv1.weight": (64, 3, 7, 7),
        "layer1.0.bn1.bias": (64,),
        "fc.weight": (91, 512),
    }
    specs = {name: TensorSpec("float32", shape) for name, shape in shapes.items()}

    assert RfDetr.claims(Facts("torch", specs)) is None


@pytest.mark.parametrize("value", [*ABSURD, 385], ids=repr)
def test_an_absurd_resolution_is_not_heeded(value):
    expected = claimed(checkpoint(SMALL))

    assert claimed(checkpoint(SMALL, args={"resolution": value})) == expected


@pytest.mark.parametrize("value", [*ABSURD, 3], ids=repr)
def test_an_absurd_number_of_windows_is_not_heeded(value):
    expected = claimed(checkpoint(SMALL))

    assert claimed(checkpoint(SMALL, args={"num_windows": value})) == expected


@pytest.mark.parametrize(
    "value",
    [9, "9", True, [], [True], ["9"], [-1], [3, 6, 9.0], [3, 6, 9, 4000]],
    ids=repr,
)
def test_absurd_depths_of_features_are_not_heeded(value):
    expected = claimed(checkpoint(SMALL))

    assert claimed(checkpoint(SMALL, args={"out_feature_indexes": value})) == expected


@pytest.mark.parametrize("value", ["kjqx", 3, [], None], ids=repr)
def test_what_is_written_beside_the_tensors_may_be_anything(value):
    expected = claimed(checkpoint(SMALL))

    assert claimed(checkpoint(SMALL, args=value, model_config=value)) == expected


# What is claimed: ONNX files


def onnx(outputs=("dets", "labels"), batch="batch", **changes) -> Facts:
    shapes = {
        "input": (batch, 3, 384, 384),
        **dict.fromkeys(["dets", "boxes"], (batch, 300, 4)),
        **dict.fromkeys(["labels", "logits"], (batch, 300, 91)),
        "masks": (batch, 300, 96, 96),
        "keypoints": (batch, 300, 34, 8),
        "objectness": (batch, 576),
    }
    shapes = {name: shapes[name] for name in ("input", *outputs)} | changes
    specs = {name: TensorSpec("float32", shape) for name, shape in shapes.items()}
    return Facts("onnx", specs, {"outputs": list(outputs), "opset": 17})


def test_an_official_export_is_claimed_under_the_names_of_its_outputs():
    card = claimed(onnx())
    (artifact,) = card.artifacts

    assert artifact.rename == {"dets": "boxes", "labels": "logits"}
    assert artifact.needs == {"opset": 17}
    assert card.config["preprocessing"]["size"] == [384, 384]
    assert card.labels == COCO_LABELS


@pytest.mark.parametrize(
    ("size", "batch"), [("batch", None), (1, (1, 1, 1)), (4, (4, 4, 4))]
)
def test_an_export_says_which_batches_it_takes(size, batch):
    (artifact,) = claimed(onnx(batch=size)).artifacts

    assert artifact.batch == batch


@pytest.mark.parametrize("masks", [(), ("masks",)], ids=["boxes", "masks"])
@pytest.mark.parametrize(
    "outputs", [("logits", "boxes", "objectness"), ("boxes", "logits")]
)
def test_a_file_with_outputs_as_named_here_is_claimed(outputs, masks):
    card = claimed(onnx((*outputs, *masks)))

    assert card.artifacts[0].rename == {}
    assert (card.task == "instance-segmentation") == bool(masks)


def test_an_official_export_with_masks_segments():
    card = claimed(onnx(("dets", "labels", "masks")))

    assert card.task == "instance-segmentation"
    assert card.artifacts[0].rename == {"dets": "boxes", "labels": "logits"}


def export_of_points(columns, slots, values=8) -> Facts:
    """An official export whose head has so many columns, and slots of points."""
    shapes = {
        "labels": ("batch", 300, columns),
        "keypoints": ("batch", 300, slots, values),
    }
    return onnx(("dets", "labels", "keypoints"), **shapes)


@pytest.mark.parametrize(
    ("columns", "slots", "labels", "counts"),
    [
        (2, 34, (None, "person"), (0, 17)),
        (2, 17, ("person", None), (17,)),
        (3, 8, ("class_0", "class_1", None), (4, 4)),
    ],
)
def test_an_official_export_with_points_finds_them(columns, slots, labels, counts):
    card = claimed(export_of_points(columns, slots))

    assert card.task == "keypoint-detection"
    assert card.artifacts[0].rename == {"dets": "boxes", "labels": "logits"}
    assert (card.labels, card.config["layout"]) == (labels, {"keypoints": counts})
    told = [points["class_id"] for points in card.config.get("key_points", ())]
    assert told == [column for column, count in enumerate(counts) if count == 17]


@pytest.mark.parametrize(
    ("slots", "values"), [(17, 7), (17, "values"), ("slots", 8), (0, 8), (-3, 8)]
)
def test_an_export_with_points_of_other_values_is_not_claimed(slots, values):
    assert RfDetr.claims(export_of_points(2, slots, values)) is None


def test_an_exports_card_gives_detections():
    logits, boxes = scene((0, 1, 4.0))
    model = made(claimed(onnx()))
    (found,) = predict(model, logits, boxes)

    assert found.names == ["person"]


@pytest.mark.parametrize(
    "outputs", [("masks", "dets", "labels"), ("masks",), ("labels",), ("output",), ()]
)
def test_an_export_for_another_task_is_not_claimed(outputs):
    facts = onnx(("dets", "labels", "masks"))
    told = {"outputs": list(outputs), "opset": 17}

    assert RfDetr.claims(attrs.evolve(facts, metadata=told)) is None


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("input", ()),
        ("input", ("batch", 3)),
        ("input", ("batch", 3, "height", "width")),
        ("input", ("batch", 3, 384, "width")),
        ("dets", ()),
        ("dets", ("batch", 300, 6)),
        ("labels", ()),
        ("labels", (300, 91)),
        ("labels", ("batch", 300, "classes")),
        ("masks", ("batch", 300, 96)),
    ],
)
def test_an_onnx_file_of_other_shapes_is_not_claimed(name, shape):
    outputs = ("dets", "labels", "masks")

    assert RfDetr.claims(onnx(outputs, **{name: shape})) is None


# Labels


def test_categories_of_coco_have_their_published_ids():
    assert len(COCO_LABELS) == 91
    assert (COCO_LABELS[1], COCO_LABELS[90]) == ("person", "toothbrush")
    assert [n for n, label in enumerate(COCO_LABELS) if label is None] == [
        0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83
    ]  # fmt: skip


def test_columns_without_a_category_have_an_empty_name():
    class_names = CARDS["rfdetr-nano"].class_names

    assert (class_names[1], class_names[12]) == ("person", "")


ABC = ["a", "b", "c"]


@pytest.mark.parametrize(
    ("classes", "told", "expected"),
    [
        (91, {}, COCO_LABELS),
        (91, {"class_names": []}, COCO_LABELS),
        (91, {"class_names": list(COCO.values())}, COCO_LABELS),
        (4, {"class_names": ABC}, ("a", "b", "c", None)),
        (4, {"class_names": ABC, "num_classes": 3}, ("a", "b", "c", None)),
        (4, {"class_names": ABC, "num_classes": 4}, (None, "a", "b", "c")),
        (3, {"class_names": ABC}, ("a", "b", "c")),
        (3, {"class_names": ABC, "num_classes": 3}, ("a", "b", "c")),
        (3, {"class_names": {"0": "a", "1": "b", "2": "c"}}, ("a", "b", "c")),
        (2, {}, ("class_0", "class_1")),
        (2, {"class_names": ABC}, ("class_0", "class_1")),
        (3, {"class_names": "abc"}, ("class_0", "class_1", "class_2")),
        (3, {"class_names": 3}, ("class_0", "class_1", "class_2")),
        (3, {"class_names": [7, None, ""]}, ("class_0", "class_1", "class_2")),
        (3, {"class_names": ["a", "b", "a"]}, ("a", "b", "a (2)")),
    ],
)
def test_labels_follow_the_conventions_of_the_trainer(classes, told, expected):
    assert labels_of(classes, told) == expected


@pytest.mark.parametrize(
    "names", [["a", "a", "a"], ["a", "a (2)", "a"], ["class_1", 7], [7, "class_0"]]
)
def test_names_are_made_distinct(names):
    assert len(set(labels_of(len(names), {"class_names": names}))) == len(names)


# Public cards


@pytest.mark.parametrize("size", SIZES)
def test_a_public_card_is_of_its_size(size):
    card = CARDS[f"rfdetr-{size}"]

    assert card.license == "Apache-2.0"
    assert made(card).layout == SIZES[size]
    assert made(card).preprocessing.antialias is True


@pytest.mark.parametrize("size", SIZES)
def test_a_public_cards_file_is_fetched_encrypted_and_checked(size):
    (file,) = CARDS[f"rfdetr-{size}"].artifacts[0].files

    assert [source.partition("://")[0] for source in file.sources] == ["https"]
    assert file.md5 is not None


def test_there_is_a_card_for_each_size_and_no_other():
    assert sorted(CARDS) == sorted(f"rfdetr-{size}" for size in SIZES)


# The config


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"size": "huge"}, "size 'huge' is not one of nano, small"),
        ({"size": ["nano"]}, "size"),
        ({"preprocessing": {}}, "needs a square input, not None"),
        ({"preprocessing": {"size": [384, 512]}}, r"square input, not \(384, 512\)"),
        ({"preprocessing": {"size": [400, 400]}}, "400 is not a multiple of 32"),
        ({"layout": {"windows": 5}}, "384 is not a multiple of 80"),
        ({"layout": {"depth": 3}}, "depth"),
        ({"layout": {"classes": 3}}, "classes"),
        ({"layout": ["windows"]}, "layout"),
        ({"layout": {"windows": "2"}}, "layout"),
        ({"layout": {"windows": None}}, "layout"),
        ({"layout": {"patch": 0}}, "layout"),
        ({"layout": {"features": 3}}, "layout"),
        ({"layout": {"features": []}}, "layout"),
        ({"layout": {"features": [3, 0]}}, "layout"),
        ({"layout": {"width": "384"}}, "layout"),
        ({"layout": {"queries": 1.5}}, "layout"),
        ({"layout": {"feedforward": True}}, "layout"),
    ],
    ids=str,
)
def test_a_config_that_no_network_fits_is_refused(config, words):
    with pytest.raises(InvalidCard, match=words):
        made(CARDS["rfdetr-nano"], **config).layout  # noqa: B018 - the property checks


def test_a_layout_is_laid_over_the_size():
    layout = made(CARDS["rfdetr-nano"], layout={"decoder_layers": 5}).layout

    assert layout == attrs.evolve(NANO, decoder_layers=5)


# Results

FRAME = Frame(100, 200, 384, 384, scale_x=200 / 384, scale_y=100 / 384)
MIDDLE = (0.5, 0.5, 0.2, 0.4)
NAMED = [column for column, label in enumerate(COCO_LABELS) if label]
RANDOM = np.random.default_rng(0).normal(0, 3, (1, 300, 91)).astype(np.float32)


def scene(*found) -> tuple[np.ndarray, np.ndarray]:
    """One image's logits and boxes, with (query, class, logit) set."""
    logits = np.full((1, 300, 91), LOW, np.float32)
    for query, label, logit in found:
        logits[0, query, label] = logit
    return logits, np.tile(np.float32(MIDDLE), (1, 300, 1))


def predict(model, logits, boxes=None, frames=(FRAME,), **options):
    if boxes is None:
        boxes = np.tile(np.float32(MIDDLE), (len(logits), 300, 1))
    outputs = {"logits": logits, "boxes": boxes}
    return model.postprocess(outputs, frames, RfDetr.Options(**options), Operations())


@pytest.fixture
def nano() -> RfDetr:
    return made(CARDS["rfdetr-nano"])


def test_an_empty_scene_has_no_detections_of_the_usual_types(nano):
    (found,) = predict(nano, *scene())

    assert (found.xyxy.shape, found.xyxy.dtype) == ((0, 4), np.float32)
    assert (found.confidence.shape, found.confidence.dtype) == ((0,), np.float32)
    assert (found.class_id.shape, found.class_id.dtype) == ((0,), np.int64)


def test_detections_have_the_usual_types(nano):
    (found,) = predict(nano, *scene((7, 1, 3.0), (8, 2, 2.0)))

    assert (found.xyxy.shape, found.xyxy.dtype) == ((2, 4), np.float32)
    assert (found.confidence.shape, found.confidence.dtype) == ((2,), np.float32)
    assert (found.class_id.shape, found.class_id.dtype) == ((2,), np.int64)


def test_a_box_is_in_the_pixels_of_the_photo(nano):
    (found,) = predict(nano, *scene((7, 1, 3.0)))

    assert found.xyxy[0] == pytest.approx([80, 30, 120, 70], abs=1e-3)


def test_a_box_is_cut_off_at_the_photos_edges(nano):
    logits, boxes = scene((0, 1, 3.0), (1, 1, 2.0))
    boxes[0, :2] = [(0, 0, 0.5, 0.5), (1, 1, 9, 9)]
    (found,) = predict(nano, logits, boxes)

    assert found.xyxy == pytest.approx(
        np.array([[0, 0, 50, 25], [0, 0, 200, 100]]), abs=1e-3
    )


def test_confidence_is_the_sigmoid_of_a_logit(nano):
    (found,) = predict(nano, *scene((7, 1, 3.0)))

    assert found.confidence[0] == pytest.approx(1 / (1 + np.exp(-3.0)), abs=1e-6)


def test_a_query_may_be_of_two_classes(nano):
    (found,) = predict(nano, *scene((7, 1, 3.0), (7, 17, 2.0)))

    assert found.names == ["person", "cat"]


@pytest.mark.parametrize("confidence", [0, 0.0])
def test_without_a_threshold_the_best_are_as_many_as_queries(nano, confidence):
    (found,) = predict(nano, RANDOM, confidence=confidence)
    best = np.sort(RANDOM[..., NAMED].ravel())[::-1][:300]

    assert found.confidence == pytest.approx(1 / (1 + np.exp(-best)), abs=1e-6)


def test_without_a_threshold_the_faintest_are_kept_too(nano):
    (found,) = predict(nano, np.full((1, 300, 91), -1e4, np.float32), confidence=0)

    assert len(found) == 300


def test_of_equal_ones_the_lower_query_comes_first_and_then_the_lower_class(nano):
    boxes = np.tile(np.float32(MIDDLE), (1, 300, 1))
    boxes[0, :, 0] = np.arange(300) / 300
    (found,) = predict(nano, np.zeros((1, 300, 91), np.float32), boxes, confidence=0)
    pairs = [(query, label) for query in range(300) for label in NAMED][:300]
    right = [query / 300 * 200 + 20 for query, _ in pairs]

    assert found.class_id.tolist() == [label for _, label in pairs]
    assert found.xyxy[:, 2] == pytest.approx(right, abs=1e-3)


def test_a_column_without_a_category_is_never_returned(nano):
    logits, boxes = scene((0, 0, 30.0), (1, 12, 30.0), (2, 1, 3.0))
    (found,) = predict(nano, logits, boxes, confidence=0)

    assert found.names[0] == "person"
    assert set(found.class_id.tolist()) <= set(NAMED)


@pytest.mark.parametrize("confidence", [1, 1.0])
def test_at_confidence_one_only_the_certain_is_kept(nano, confidence):
    logits, boxes = scene((0, 1, 60.0), (1, 2, 9.0))
    (found,) = predict(nano, logits, boxes, confidence=confidence)

    assert found.names == ["person"]


@pytest.mark.parametrize("confidence", [1e-9, 1e-7, 1e-6, 1e-3, 0.3, 0.5, 1 - 1e-7, 1])
def test_what_reaches_the_threshold_is_kept_to_the_last_bit(nano, confidence):
    edge = np.log(confidence) - np.log1p(-min(confidence, 1 - 2**-25))
    logits, boxes = scene()
    near = np.linspace(edge - 2, edge + 2, 300)
    logits[0, :, 1] = np.where(np.arange(300) % 2, near, np.float32(edge))
    logits[0, ::7, 1] += np.linspace(-1e-5, 1e-5, 43)
    scores = 0.5 * (1 + np.tanh(0.5 * logits[0, :, 1]))
    (found,) = predict(nano, logits, boxes, confidence=confidence)

    kept = np.sort(scores[scores >= confidence])[::-1]
    assert 0 < len(kept) < 300
    assert found.confidence.tolist() == kept.tolist()


SURE = {"confidence": {"best": {"person": 0.9, "cat": 0.2}, "default": 0.6}}


@pytest.mark.parametrize(
    ("config", "confidence", "names"),
    [
        ({}, "default", ["person", "dog"]),
        ({}, "best", ["person", "dog"]),
        (SURE, "default", ["person"]),
        (SURE, "best", ["cat"]),
        ({"confidence": {"best": 0.25}}, "best", ["person", "dog", "cat"]),
        (SURE, 0.25, ["person", "dog", "cat"]),
    ],
)
def test_a_word_for_confidence_means_what_the_config_says(config, confidence, names):
    logits, boxes = scene((0, 1, 1.0), (1, 18, 0.1), (2, 17, -1.0))
    model = made(CARDS["rfdetr-nano"], **config)
    (found,) = predict(model, logits, boxes, confidence=confidence)

    assert found.names == names


@pytest.mark.parametrize("confidence", [0, "default"])
def test_what_is_no_number_is_never_returned(nano, confidence):
    logits, boxes = scene((5, 1, 3.0))
    logits[0, :5] = np.nan
    (found,) = predict(nano, logits, boxes, confidence=confidence)

    assert np.isfinite(found.confidence).all()
    assert found.names[0] == "person"


def test_half_precision_gives_the_usual_types(nano):
    logits, boxes = (array.astype(np.float16) for array in scene((0, 1, 3.0)))
    (found,) = predict(nano, logits, boxes)

    assert (found.xyxy.dtype, found.confidence.dtype) == (np.float32, np.float32)


def test_each_image_of_a_batch_has_its_own_detections(nano):
    scenes = [scene((0, 1, 3.0)), scene(), scene((9, 18, 3.0), (9, 17, 2.0))]
    logits, boxes = (np.concatenate(arrays) for arrays in zip(*scenes, strict=True))
    wide = attrs.evolve(FRAME, width=400, scale_x=400 / 384)
    found = predict(nano, logits, boxes, [FRAME, FRAME, wide])

    assert [each.names for each in found] == [["person"], [], ["dog", "cat"]]
    assert found[2].xyxy[0] == pytest.approx([160, 30, 240, 70], abs=1e-3)


# Masks

SEG_FRAME = Frame(100, 200, 312, 312, scale_x=200 / 312, scale_y=100 / 312)


def segment(*found, masks, frame=SEG_FRAME, **options):
    """What (query, class, logit) and masks (query, row, column) of an image give."""
    logits = np.full((1, 100, 91), LOW, np.float32)
    grids = np.full((1, 100, 78, 78), LOW, np.float32)
    for query, label, logit in found:
        logits[0, query, label] = logit
    for query, *cells in masks:
        grids[(0, query, *cells)] = -LOW
    boxes = np.tile(np.float32(MIDDLE), (1, 100, 1))
    outputs = {"logits": logits, "boxes": boxes, "masks": grids}
    model = made(CARDS["rfdetr-seg-nano"])
    (instances,) = model.postprocess(
        outputs, [frame], RfDetr.Options(**options), Operations()
    )
    return instances


def test_an_instance_has_the_mask_of_its_query_in_the_pixels_of_the_photo():
    upper, left = slice(0, 39), slice(0, 39)
    every = slice(None)
    found = segment(
        (7, 18, 1.0), (3, 1, 4.0), masks=[(3, upper, every), (7, every, left)]
    )
    half_down, half_across = np.zeros((2, 100, 200), bool)
    half_down[:50], half_across[:, :100] = True, True

    assert found.names == ["person", "dog"]
    assert np.array_equal(found.masks, [half_down, half_across])


def test_a_query_of_two_classes_has_its_mask_twice():
    found = segment((3, 1, 4.0), (3, 2, 3.0), masks=[(3, slice(20), slice(20))])

    assert found.class_id.tolist() == [1, 2]
    assert np.array_equal(*found.masks)


def test_an_empty_scene_has_no_masks_of_the_photos_size():
    found = segment(masks=[(0, 0, 0)])

    assert type(found) is InstanceDetections
    assert found.masks.shape == (0, 100, 200)
    assert found.masks.dtype == np.bool_


def test_a_model_for_another_task_is_refused():
    card = attrs.evolve(CARDS["rfdetr-nano"], task="depth-estimation")

    with pytest.raises(InvalidCard, match="-detection, instance-segmentation, key"):
        made(card)


# Points

POSE_FRAME = Frame(100, 200, 576, 576, scale_x=200 / 576, scale_y=100 / 576)
OFFICIAL = Path(__file__).parent / "official_key_points.npz"


def pose(*found, points=(), frame=POSE_FRAME, classes=2, counts=(0, 17), **options):
    """What (query, class, logit) and points give: (query, slot, x, y, logit, factor).

    The factor is the logarithm on both places of a precision's diagonal. Classes have
    as many points as `counts` says, from column 0 on.
    """
    logits = np.full((1, 100, classes), LOW, np.float32)
    for query, label, logit in found:
        logits[0, query, label] = logit
    slots = np.zeros((1, 100, len(counts) * max(counts), 8), np.float32)
    for query, slot, x, y, logit, factor in points:
        slots[0, query, slot] = [x, y, logit, 0, factor, 0, factor, 0.5]
    boxes = np.tile(np.float32(MIDDLE), (1, 100, 1))
    outputs = {"logits": logits, "boxes": boxes, "keypoints": slots}
    labels = [f"class {number}" for number in range(classes)]
    card = attrs.evolve(CARDS["rfdetr-keypoint-preview"], labels=labels)
    model = made(card, layout={"keypoints": list(counts)})
    (things,) = model.postprocess(
        outputs, [frame], RfDetr.Options(**options), Operations()
    )
    return things


def test_things_and_their_points_are_those_of_the_official_package():
    """`rfdetr` 1.11.2 made the file, with each step's results."""
    config = {"layout": {"keypoints": [3, 0, 4, 2]}}
    public = CARDS["rfdetr-keypoint-preview"]
    labels = [f"class {number}" for number in range(5)]
    model = made(attrs.evolve(public, labels=labels), **config)
    frame = Frame(480, 640, 288, 288, scale_x=640 / 288, scale_y=480 / 288)
    with np.load(OFFICIAL) as official:
        outputs = {name: official[name] for name in ("logits", "boxes")}
        outputs["keypoints"] = official["points"]
        order = np.argsort(-official["scores"], kind="stable")
        options = RfDetr.Options(confidence=0, key_points_threshold=0)
        (found,) = model.postprocess(outputs, [frame], options, Operations())
        names = ("labels", "scores", "xyxy", "xy", "covariance")
        expected = {name: official[name][order] for name in names}

    assert found.class_id.tolist() == expected["labels"].tolist()
    assert found.detection_confidence == pytest.approx(expected["scores"], abs=1e-6)
    assert found.xyxy == pytest.approx(expected["xyxy"], abs=1e-3)
    assert found.xy == pytest.approx(expected["xy"][..., :2], abs=1e-3)
    assert found.confidence == pytest.approx(expected["xy"][..., 2], abs=1e-6)
    np.testing.assert_allclose(found.covariance, expected["covariance"], rtol=1e-5)


def test_a_point_is_in_the_pixels_of_the_photo():
    found = pose((7, 1, 3.0), points=[(7, 17, 0.5, 0.25, 2.0, 3.0)])

    assert found.names == ["class 1"]
    assert found.xy[0, 0] == pytest.approx([100, 25], abs=1e-3)
    assert found.confidence[0, 0] == pytest.approx(1 / (1 + np.exp(-2.0)), abs=1e-6)


def test_a_point_may_lie_outside_the_photo():
    found = pose((7, 1, 3.0), points=[(7, 17, -0.5, 1.5, 2.0, 3.0)])

    assert found.xy[0, 0] == pytest.approx([-100, 150], abs=1e-3)


def test_where_a_point_may_be_is_in_the_pixels_of_the_photo():
    found = pose((7, 1, 3.0), points=[(7, 17, 0.5, 0.5, 2.0, np.log(10))])

    assert found.covariance[0, 0] == pytest.approx(
        np.array([[20**2, 0], [0, 10**2]]), rel=1e-4
    )


def test_a_point_below_the_threshold_is_returned_as_none():
    points = [(7, 17, 0.5, 0.5, 0.0, 3.0), (7, 18, 0.5, 0.5, -1.0, 3.0)]
    found = pose((7, 1, 3.0), points=points)
    every = pose((7, 1, 3.0), points=points, key_points_threshold=0)

    assert found.confidence[0].nonzero()[0].tolist() == [0]
    assert not found.xy[0, 1:].any()
    assert np.isnan(found.covariance[0, 1:]).all()
    assert every.confidence[0].nonzero()[0].tolist() == [0, 1]


def test_what_has_points_in_one_place_is_surer_than_what_has_not():
    points = [(3, 17, 0.5, 0.5, 2.0, 1.0), (7, 17, 0.5, 0.5, 2.0, 4.0)]
    found = pose((3, 1, 1.0), (7, 1, 1.0), points=points, confidence=0)
    odds = found.detection_confidence / (1 - found.detection_confidence)

    assert odds[0] / odds[1] == pytest.approx(np.exp(2 * (4 - 1) * 0.2), rel=1e-4)


def test_a_point_of_no_number_is_returned_as_none():
    points = [(7, 17, np.nan, 0.5, 2.0, 3.0), (7, 18, 0.5, 0.5, 2.0, 3.0)]
    found = pose((7, 1, 3.0), points=points)

    assert found.confidence[0].nonzero()[0].tolist() == [1]
    assert np.isfinite(found.xy).all()
    assert np.isfinite(found.detection_confidence).all()


def test_an_empty_scene_has_no_points_of_the_usual_types():
    found = pose()

    assert type(found) is KeyPoints
    assert (found.xy.shape, found.xy.dtype) == ((0, 17, 2), np.float32)
    assert (found.confidence.shape, found.confidence.dtype) == ((0, 17), np.float32)
    assert found.covariance.shape == (0, 17, 2, 2)


@pytest.mark.parametrize(
    ("classes", "counts", "slot", "label"),
    [
        (2, (17,), 0, 0),
        (3, (17,), 0, 0),
        (3, (4,), 0, 0),
        (2, (0, 17), 17, 1),
        (4, (0, 17), 17, 1),
        (3, (0, 21), 21, 1),
        (3, (0, 3), 3, 1),
    ],
)
def test_points_are_those_of_the_class_that_the_layout_says(
    classes, counts, slot, label
):
    points = [(query, slot, 0.5, 0.5, 2.0, 3.0) for query in range(classes)]
    things = [(query, query, 3.0) for query in range(classes)]
    found = pose(*things, points=points, classes=classes, counts=counts, confidence=0)
    pointed = found.confidence.any(axis=1)
    others = found.detection_confidence[found.class_id >= len(counts)]

    assert found.xy.shape[1] == max(counts)
    assert set(found.class_id[pointed]) == {label}
    assert found.confidence[pointed, 0].all()
    assert max(others, default=0) == pytest.approx(
        sigmoid(3.0) if classes > len(counts) else 0
    )


@pytest.mark.parametrize(
    "shape", [(1, 100, 17, 8), (1, 100, 34, 4), (1, 100, 34, 16), (1, 100, 34)]
)
def test_key_points_of_another_shape_than_the_layouts_are_told(shape):
    outputs = {
        "logits": np.zeros((1, 100, 2), np.float32),
        "boxes": np.zeros((1, 100, 4), np.float32),
        "keypoints": np.zeros(shape, np.float32),
    }
    model = made(CARDS["rfdetr-keypoint-preview"])
    said = r"points of shape \(1, 100, .*\(0, 17\) points need \(1, 100, 34, 8\)"
    with pytest.raises(RunFailed, match=said):
        model.postprocess(outputs, [POSE_FRAME], RfDetr.Options(), Operations())


def test_a_point_that_is_infinitely_far_is_returned_as_none():
    points = [(7, 17, 1e38, 0.5, 2.0, 3.0), (7, 18, 0.5, 0.5, 2.0, 3.0)]
    found = pose((7, 1, 3.0), points=points)

    assert found.confidence[0].nonzero()[0].tolist() == [1]
    assert np.isfinite(found.xy).all()


@pytest.mark.parametrize("value", [True, -0.1, 1.1, np.nan, "0.3", None, 10**400])
def test_a_threshold_of_points_is_a_number_from_0_to_1(value):
    with pytest.raises(InvalidOption, match=r"key_points_threshold .* from 0 to 1"):
        RfDetr.Options(key_points_threshold=value)


def test_a_card_of_points_says_what_a_person_has():
    (skeleton,) = CARDS["rfdetr-keypoint-preview"].config["key_points"]

    assert skeleton["class_id"] == 1
    assert len(skeleton["names"]) == 17
    assert [skeleton["names"][end] for end in skeleton["skeleton"][0]] == [
        "left_ankle",
        "left_knee",
    ]


@pytest.mark.parametrize(
    ("size", "task"),
    [
        ("keypoint-preview", "instance-segmentation"),
        ("keypoint-preview", "object-detection"),
    ],
)
def test_points_are_there_for_their_task_alone(size, task):
    card = attrs.evolve(CARDS[f"rfdetr-{size}"], task=task)
    with pytest.raises(InvalidCard, match=f", and not for {task}; correct one"):
        made(card).layout  # noqa: B018 - the property checks


@pytest.mark.parametrize("config", [{}, {"size": None}, {"layout": []}])
def test_a_card_for_points_says_how_many_there_are(config):
    card = attrs.evolve(CARDS["rfdetr-nano"], task="keypoint-detection")
    with pytest.raises(InvalidCard, match="does not say how many points"):
        made(card, **config)


@pytest.mark.parametrize(("size", "segments"), [("nano", True), ("seg-nano", False)])
def test_a_layout_for_another_task_is_refused(size, segments):
    model = made(CARDS[f"rfdetr-{size}"], layout={"segments": segments})
    with pytest.raises(InvalidCard, match=f"layout of 'rfdetr-{size}' are those of"):
        model.layout  # noqa: B018 - the property checks


ABSURD = [[0], [-1, 2], [True, 3], ["17"], [9999], 17, [0] * 4096 + [1]]


@pytest.mark.parametrize("value", ABSURD)
def test_absurd_points_are_refused(value):
    with pytest.raises(InvalidCard, match="cannot be read"):
        made(CARDS["rfdetr-keypoint-preview"], layout={"keypoints": value})


@pytest.mark.parametrize("value", ABSURD)
def test_absurd_points_of_a_network_are_refused(value):
    model = made(CARDS["rfdetr-nano"], layout={"keypoints": value})
    with pytest.raises(InvalidCard, match="cannot be read"):
        model.layout  # noqa: B018 - the property checks


def test_points_of_more_classes_than_there_are_labels_are_refused():
    model = made(CARDS["rfdetr-keypoint-preview"], layout={"keypoints": [1, 1, 1]})
    with pytest.raises(InvalidCard, match="2 classes, and points for 3 of them"):
        model.layout  # noqa: B018 - the property checks


# Claims of what has points


def test_a_checkpoint_with_points_is_claimed_with_a_persons_skeleton():
    card = claimed(checkpoint(POSE))

    assert card.task == "keypoint-detection"
    assert card.labels == (None, "person")
    assert (
        card.config["key_points"]
        == (CARDS["rfdetr-keypoint-preview"].config["key_points"])
    )


def of_points(counts, classes, **args) -> Facts:
    layout = attrs.evolve(POSE, classes=classes, keypoints=counts)
    return checkpoint(layout, groups=1, args=args)


@pytest.mark.parametrize(
    ("counts", "classes", "told", "labels"),
    [
        ((17,), 2, {}, ("person", None)),
        ((0, 17), 2, {"class_names": ["player"]}, (None, "player")),
        ((17,), 2, {"class_names": ["player"]}, ("player", None)),
        ((4,), 2, {}, ("class_0", None)),
        ((0, 4, 4), 3, {}, (None, "class_1", "class_2")),
        ((4, 4), 3, {"class_names": ["left", "right"]}, ("left", "right", None)),
        ((5, 0, 4), 4, {"num_keypoints_per_class": [5, 0, 4]}, None),
    ],
)
def test_points_of_ones_own_classes_are_claimed(counts, classes, told, labels):
    card = claimed(of_points(counts, classes, **told))

    assert made(card).layout.keypoints == counts
    assert card.labels == (labels or ("class_0", "class_1", "class_2", None))


@pytest.mark.parametrize(
    ("counts", "classes", "told"),
    [((17,), 2, [0, 17]), ((0, 17), 2, [17]), ((4, 4), 3, [4]), ((4, 4), 3, [4, 5])],
)
def test_points_as_the_weights_have_them_outweigh_what_the_trainer_wrote(
    counts, classes, told
):
    facts = of_points(counts, classes, num_keypoints_per_class=told)

    assert made(claimed(facts)).layout.keypoints == counts


def test_a_guessed_name_is_not_another_classs():
    card = claimed(of_points((0, 4, 4), 3, class_names=["class_2"]))

    assert len(set(card.labels)) == 3


@pytest.mark.parametrize("told", [None, "5,4", [4, 5], [9], [5.0, 4], [-1, 10]])
def test_unequal_points_that_nothing_tells_of_are_not_claimed(told):
    facts = of_points((5, 4), 3, num_keypoints_per_class=told)
    if told == [4, 5]:  # they fit as well, and the weights say that they are not
        assert made(claimed(facts)).layout.keypoints == (4, 5)
    else:
        assert RfDetr.claims(facts) is None


@pytest.mark.parametrize(
    "name",
    [
        "transformer.register_tokens",
        "transformer.decoder.layers.0.inst_in_proj.weight",
        "transformer.decoder.layers.0.memory_in_proj.weight",
        "transformer.decoder.layers.3.inter_inst_kp_attn.in_proj_weight",
    ],
)
def test_a_relative_whose_points_are_found_otherwise_is_not_claimed(name):
    facts = checkpoint(POSE, groups=1)
    strange = {**facts.tensors, name: TensorSpec("float32", (4, 4))}

    assert RfDetr.claims(attrs.evolve(facts, tensors=strange)) is None


@pytest.mark.parametrize(
    "name",
    [
        "_kp_active_mask",
        "backbone.0.cross_attn_projector.stages.0.1.weight",
        "transformer.decoder.layers.0.kp_cross_attn.value_proj.weight",
    ],
)
def test_a_relative_without_a_part_for_points_is_not_claimed(name):
    facts = checkpoint(POSE, groups=1)
    rest = {n: spec for n, spec in facts.tensors.items() if n != name}

    assert RfDetr.claims(attrs.evolve(facts, tensors=rest)) is None


# How far two runs are apart

CELLS = np.linspace(0, 1, 8, dtype=np.float32)


def run(images=2) -> dict[str, np.ndarray]:
    """Three queries of two classes, chosen from eight cells."""
    chance = np.random.default_rng(0)
    return {
        "logits": chance.uniform(-1, 1, (images, 3, 2)).astype(np.float32),
        "boxes": chance.uniform(0, 1, (images, 3, 4)).astype(np.float32),
        "objectness": np.tile(CELLS, (images, 1)),
        "masks": chance.uniform(-1, 1, (images, 3, 2, 2)).astype(np.float32),
    }


def exchanged(image: int) -> dict[str, np.ndarray]:
    """Another run, in which an image's best cell is barely not the best."""
    found = run()
    found["objectness"][image, -2] = 1 + 1e-5
    return found


def near(image: int) -> dict[str, np.ndarray]:
    """A run whose two best cells of an image are nearly equal."""
    expected = run()
    expected["objectness"][image, -2] = 1 - 1e-5
    return expected


def test_a_run_differs_from_itself_by_nothing(nano):
    assert nano.difference(run(), run()) == 0


@pytest.mark.parametrize("name", ["logits", "boxes", "objectness", "masks"])
@pytest.mark.parametrize("image", [0, 1])
def test_a_real_difference_is_seen(nano, name, image):
    found = run()
    found[name][image, 0] += 0.25

    assert nano.difference(run(), found) == pytest.approx(0.25)


@pytest.mark.parametrize("name", ["logits", "boxes", "masks"])
def test_where_cells_changed_places_queries_count_little(nano, name):
    found = exchanged(image=0)
    found[name][0] += 0.5

    assert nano.difference(near(image=0), found) == pytest.approx(0.025, rel=0.05)


@pytest.mark.parametrize("name", ["logits", "boxes", "masks"])
def test_where_cells_kept_their_places_queries_are_compared(nano, name):
    found = exchanged(image=0)
    found[name][1] += 0.5

    assert nano.difference(near(image=0), found) == pytest.approx(0.5)


def test_cells_that_no_query_takes_may_change_places(nano):
    found = run()
    found["objectness"][0, :2] = found["objectness"][0, 1::-1]
    found["logits"][0] += 0.5

    assert nano.difference(run(), found) == pytest.approx(0.5)


def test_a_cell_that_rose_for_a_reason_is_seen(nano):
    found = run()
    found["objectness"][0, 0] = 2

    assert nano.difference(run(), found) == pytest.approx(2)


@pytest.mark.parametrize("name", ["logits", "boxes", "objectness", "masks"])
@pytest.mark.parametrize("image", [0, 1])
def test_what_is_no_number_is_below_no_tolerance(nano, name, image):
    found = exchanged(image=0)
    found[name][image, 0] = np.nan

    assert not nano.difference(near(image=0), found) <= 1e9


# Packages and folders of other hands


def told(**fields):
    common = {"size": [384, 384], "antialias": False, "color": "bgr"}
    return {**common, "resize": "letterbox", "padding_value": 0.0} | fields


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"resize": "stretch", "scale": 1 / 255}),
        ({"scale": 1.0}, {"scale": 1.0}),
        ({"scale": 1.0, "mean": [0.5] * 3}, {"scale": 1 / 255, "mean": [0.5] * 3}),
        (
            {"canvas": [300, 400]},
            {"resize": "letterbox", "canvas": [300, 400]},
        ),
        ({"canvas": [300, 400], "resize": "stretch"}, {"resize": "stretch"}),
    ],
)
def test_it_was_trained_with_rgb_and_a_stretch_with_antialias(given, expected):
    found = RfDetr.trained_with(told(**given))

    assert (found["antialias"], found["color"]) == (True, "rgb")
    assert expected.items() <= found.items()
    assert ("canvas" in found) == ("canvas" in expected)


def test_a_resize_that_leaves_a_rest_becomes_a_stretch_with_a_warning(caplog):
    fields = told(resize="fit-longer-edge", canvas=[300, 400])
    found = RfDetr.trained_with(fields)

    assert found["resize"] == "stretch"
    assert "canvas" not in found
    assert "cannot fill a square" in caplog.text


def test_background_is_no_class():
    names = ["background_class83422", "cat", "background", "", "backgrounds"]

    assert RfDetr.named(names) == [None, "cat", None, None, "backgrounds"]


def folder_facts(name="RfDetrForObjectDetection", unsupported=None):
    return Facts(
        "hf",
        {},
        {
            "class": name,
            "config": {},
            "labels": ("ant", None, "bee"),
            "preprocessing": {"size": [384, 384]},
            "files": ["config.json", "model.safetensors"],
            "unsupported": unsupported,
        },
    )


def test_a_folder_of_transformers_is_claimed():
    card = RfDetr.claims(folder_facts())
    (artifact,) = card.artifacts

    assert (card.architecture, card.labels) == ("rfdetr", ("ant", None, "bee"))
    assert (artifact.format, artifact.graphs) == ("hf", {"main": "."})
    assert artifact.rename == {"pred_boxes": "boxes"}
    assert [f.name for f in artifact.files] == ["config.json", "model.safetensors"]


def test_a_folder_of_transformers_that_segments_is_claimed():
    card = RfDetr.claims(folder_facts("RfDetrForInstanceSegmentation"))

    assert card.task == "instance-segmentation"
    assert card.artifacts[0].rename == {"pred_boxes": "boxes", "pred_masks": "masks"}


def test_a_folder_of_another_model_is_not_claimed():
    assert RfDetr.claims(folder_facts("DetrForObjectDetection")) is None


def test_why_a_folder_cannot_be_run_is_kept():
    (artifact,) = RfDetr.claims(folder_facts(unsupported="too strange")).artifacts

    assert artifact.needs == {"unsupported": "too strange"}


def test_without_objectness_means_are_compared():
    bundle = Bundle(CARDS["rfdetr-nano"], CARDS["rfdetr-nano"].artifacts[0], Path())
    rng = np.random.default_rng(0)
    run = {"logits": rng.random((2, 8, 91)), "boxes": rng.random((2, 8, 4))}
    other = {name: array[:, ::-1] for name, array in run.items()}
    moved = {name: array + 0.5 for name, array in run.items()}

    assert RfDetr(bundle).difference(run, other) < 1e-6
    assert RfDetr(bundle).difference(run, moved) > 1e-3
