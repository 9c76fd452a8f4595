"""What models return: detections, and scores that answer to class names."""

from __future__ import annotations

import copy
import pickle

import attrs
import numpy as np
import pytest

from inference_models import (
    ClassificationPrediction,
    Detections,
    InstanceDetections,
    InvalidCard,
    InvalidOption,
    KeyPoints,
    MultiLabelClassificationPrediction,
    RunFailed,
    Scores,
)

from .distributions import output

NAMES = ("cat", "dog", "tabby, tabby cat")
BOXES = np.array([[0, 0, 4, 4], [1, 1, 5, 5], [2, 2, 6, 6]], np.float64)


@pytest.fixture
def detections():
    return Detections.sort(BOXES, [0.2, 0.9, 0.5], [0, 2, 1], NAMES)


@pytest.fixture
def instances():
    """Each mask covers as many pixels as its class has as a number."""
    masks = [np.arange(12).reshape(3, 4) < number for number in (0, 2, 1)]
    return InstanceDetections.sort(BOXES, [0.2, 0.9, 0.5], [0, 2, 1], NAMES, masks)


@pytest.fixture
def poses():
    """Of each thing as many points are there as its class has as a number."""
    sure = [[0.5, 0.5], [0, 0], [0.5, 0]]
    xy = np.arange(12).reshape(3, 2, 2) * (np.array(sure) > 0)[..., None]
    spread = np.arange(24, dtype=np.float64).reshape(3, 2, 2, 2)
    spread[np.array(sure) == 0] = np.nan
    scores, classes = [0.2, 0.9, 0.5], [2, 0, 1]
    return KeyPoints.sort(xy, sure, classes, scores, BOXES, NAMES, spread)


@pytest.fixture
def none():
    return Detections.sort(np.empty((0, 4)), [], [], NAMES)


@pytest.fixture
def scores():
    """Square, so that an axis cannot be told by its length."""
    values = [[0.1, 0.2, 0.7], [0.6, 0.3, 0.1], [0.2, 0.5, 0.3]]
    return Scores(np.array(values, np.float32), NAMES)


@pytest.fixture
def prediction(scores):
    return ClassificationPrediction.from_scores(scores, NAMES)


def f32(*values):
    return np.array(values, np.float32)


# Detections


def test_detections_are_sorted_by_confidence(detections):
    assert np.array_equal(detections.confidence, f32(0.9, 0.5, 0.2))
    assert detections.class_id.tolist() == [2, 1, 0]
    assert np.array_equal(detections.xyxy, BOXES[[1, 2, 0]])


def test_equal_confidences_keep_their_order():
    same = Detections.sort(BOXES, [0.5, 0.5, 0.5], [0, 1, 2])

    assert same.class_id.tolist() == [0, 1, 2]


@pytest.mark.parametrize("fixture", ["detections", "none"])
def test_detections_have_fixed_types(fixture, request):
    found = request.getfixturevalue(fixture)

    assert found.xyxy.dtype == found.confidence.dtype == np.float32
    assert found.class_id.dtype == np.int64
    assert found.xyxy.shape == (len(found), 4)
    assert found.confidence.shape == found.class_id.shape == (len(found),)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (0, [2]),
        (-1, [0]),
        (np.int64(1), [1]),
        (np.array(1), [1]),
        (slice(1, None), [1, 0]),
        (slice(None, None, -1), [0, 1, 2]),
        ([2, 0], [0, 2]),
        (np.array([1, 1]), [1, 1]),
        ([], []),
        (np.array([True, False, True]), [2, 0]),
        ([False, True, False], [1]),
        (np.zeros(3, bool), []),
    ],
)
def test_detections_are_chosen_by_number_slice_mask_or_list(detections, key, expected):
    chosen = detections[key]

    assert isinstance(chosen, Detections)
    assert chosen.class_id.tolist() == expected
    assert chosen.xyxy.shape == (len(expected), 4)
    assert chosen.class_names == NAMES


def test_detections_are_chosen_by_what_they_say(detections):
    assert detections[detections.confidence >= 0.5].class_id.tolist() == [2, 1]


@pytest.mark.parametrize(
    "key",
    [3, -4, [5], [1.0], np.array([True, False]), [[0], [1]], np.zeros((3, 4), bool)],
)
def test_what_is_not_there_is_an_index_error(detections, key):
    with pytest.raises(IndexError):
        detections[key]


@pytest.mark.parametrize("key", ["cat", True, None, 1.0])
def test_what_is_no_index_is_a_type_error(detections, key):
    with pytest.raises(TypeError):
        detections[key]


def test_detections_are_iterated_one_by_one(detections):
    assert [one.class_id.tolist() for one in detections] == [[2], [1], [0]]


def test_a_box_has_the_name_of_its_class(detections):
    assert detections.names == ["tabby, tabby cat", "dog", "cat"]


def test_a_class_without_a_name_is_called_by_its_number():
    found = Detections.sort(BOXES, [0.9, 0.8, 0.7], [0, 1, 90], ("", "dog"))
    background = Detections.sort(BOXES[:1], [0.9], [-1], ("", "dog"))

    assert found.names == ["class_0", "dog", "class_90"]
    assert background.names == ["class_-1"]


def test_detections_show_what_they_found(detections, none):
    assert repr(detections) == (
        "<Detections 3: tabby, tabby cat 0.90, dog 0.50, cat 0.20>"
    )
    assert repr(none) == "<Detections 0: nothing>"


def test_many_detections_are_shown_in_part():
    many = Detections.sort(np.zeros((7, 4)), np.full(7, 0.5), np.zeros(7), ["cat"])

    assert repr(many).endswith("cat 0.50, and 2 more>")


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))],
    ids=["copy", "deepcopy", "pickle"],
)
@pytest.mark.parametrize(
    "fixture", ["detections", "none", "instances", "prediction", "multi"]
)
def test_a_copy_is_equal(fixture, copied, request):
    result = request.getfixturevalue(fixture)

    assert copied(result) == result


def test_detections_differ_by_any_array(detections):
    assert detections != detections[:2]
    assert detections[[0]] != detections[[1]]


def test_equal_results_never_have_different_hashes(detections):
    with pytest.raises(TypeError, match="unhashable"):
        hash(detections)


# Instances


def covered(instances):
    return instances.masks.sum(axis=(1, 2)).tolist()


def test_instances_are_sorted_with_their_masks(instances):
    assert instances.class_id.tolist() == covered(instances) == [2, 1, 0]
    assert instances.masks.dtype == bool
    assert instances.masks.shape == (3, 3, 4)


@pytest.mark.parametrize(
    "key", [0, -1, slice(1, None), [2, 0], [], [False, True, True]]
)
def test_instances_are_chosen_with_their_masks(instances, key):
    chosen = instances[key]

    assert isinstance(chosen, InstanceDetections)
    assert chosen.class_id.tolist() == covered(chosen)
    assert chosen.masks.shape == (len(chosen), 3, 4)
    assert chosen.class_names == NAMES


def test_instances_are_iterated_one_by_one(instances):
    assert [covered(one) for one in instances] == [[2], [1], [0]]


def test_instances_differ_by_their_masks(instances):
    other = attrs.evolve(instances, masks=~instances.masks)

    assert other != instances
    assert instances != Detections.sort(BOXES, [0.2, 0.9, 0.5], [0, 2, 1], NAMES)


def test_instances_show_what_they_found(instances):
    assert repr(instances[:1]) == "<InstanceDetections 1: tabby, tabby cat 0.90>"


def test_instances_are_not_made_without_masks():
    with pytest.raises(InvalidOption, match="instances have masks; give masks="):
        InstanceDetections.sort(BOXES, [0.2, 0.9, 0.5], [0, 2, 1])


# Key points


def there(poses):
    """The class each thing must have, by its points."""
    return (poses.confidence > 0).sum(axis=1).tolist()


def test_things_are_sorted_with_their_points(poses):
    assert poses.detection_confidence.tolist() == f32(0.9, 0.5, 0.2).tolist()
    assert poses.class_id.tolist() == there(poses) == [0, 1, 2]
    assert poses.xyxy.tolist() == [[1, 1, 5, 5], [2, 2, 6, 6], [0, 0, 4, 4]]
    assert poses.xy[1, 0].tolist() == [8, 9]
    assert poses.covariance[1, 0].tolist() == [[16, 17], [18, 19]]


def test_points_have_the_usual_types(poses):
    found = {
        field.name: getattr(poses, field.name) for field in attrs.fields(KeyPoints)
    }
    types = {n: a.dtype.name for n, a in found.items() if n != "class_names"}

    assert types.pop("class_id") == "int64"
    assert set(types.values()) == {"float32"}


@pytest.mark.parametrize(
    "key", [0, -1, slice(1, None), [2, 0], [], [False, True, True]]
)
def test_things_are_chosen_with_their_points(poses, key):
    chosen = poses[key]

    assert isinstance(chosen, KeyPoints)
    assert chosen.class_id.tolist() == there(chosen)
    assert chosen.covariance.shape == (len(chosen), 2, 2, 2)
    assert chosen.detections == poses.detections[key]


def test_things_are_iterated_one_by_one(poses):
    assert [there(one) for one in poses] == [[0], [1], [2]]


def test_things_are_equal_where_their_points_are(poses):
    assert poses == attrs.evolve(poses, covariance=poses.covariance.copy())
    assert poses != attrs.evolve(poses, covariance=poses.covariance + 1)
    assert poses != attrs.evolve(poses, xy=poses.xy + 1)
    assert poses != attrs.evolve(poses, covariance=None)


def test_covariances_are_not_needed(poses):
    bare = attrs.evolve(poses, covariance=None)

    assert bare == attrs.evolve(bare)
    assert bare[1:].covariance is None


def test_key_points_show_what_they_found(poses):
    assert repr(poses[:2]) == "<KeyPoints 2: cat 0.90, dog 0.50>"
    assert repr(poses[:0]) == "<KeyPoints 0: nothing>"


POINTS = np.zeros((3, 2, 2))
SURE = np.zeros((3, 2))


@pytest.mark.parametrize(
    ("xy", "confidence", "covariance"),
    [
        (POINTS[:2], SURE, None),
        (POINTS, SURE[:2], None),
        (POINTS[:, :1], SURE, None),
        (POINTS[..., :1], SURE, None),
        (POINTS, SURE[:, 0], None),
        (POINTS, 0.5, None),
        (POINTS, SURE, np.zeros((3, 2, 2))),
        (POINTS, SURE, np.zeros((2, 2, 2, 2))),
    ],
)
def test_points_that_are_not_those_of_the_boxes_are_told(xy, confidence, covariance):
    with pytest.raises(InvalidOption, match=r"there are 3 boxes, .* give \(N, K, 2\)"):
        KeyPoints.sort(xy, confidence, [0, 1, 2], [0.5] * 3, BOXES, NAMES, covariance)


def test_no_things_have_no_points():
    nothing = KeyPoints.sort(
        np.zeros((0, 17, 2)), np.zeros((0, 17)), [], [], np.empty((0, 4)), NAMES
    )

    assert (len(nothing), nothing.names, list(nothing)) == (0, [], [])


# Scores


def test_a_score_is_found_by_name_as_by_number(scores):
    assert scores[0]["tabby, tabby cat"] == scores[0][2] == np.float32(0.7)
    assert f"{scores[1]['cat']:.2f}" == "0.60"


def test_a_score_is_a_number(scores):
    assert isinstance(scores[0]["cat"], np.float32)
    assert isinstance(scores[0, 1], np.float32)


def test_a_class_of_all_images_is_a_column(scores):
    assert np.array_equal(scores["dog"], f32(0.2, 0.3, 0.5))


def test_an_unknown_class_is_refused_with_the_nearest(scores):
    with pytest.raises(InvalidOption, match="no class 'dgo'; did you mean 'dog'"):
        scores[0]["dgo"]


def test_names_are_as_many_as_classes():
    with pytest.raises(
        InvalidCard, match=r"2 class names for scores of shape \(1, 3\)"
    ):
        Scores(np.zeros((1, 3)), ["a", "b"])


@pytest.mark.parametrize(
    ("key", "names"),
    [
        (0, NAMES),
        (slice(1), NAMES),
        ([2, 0], NAMES),
        (np.array([True, False, True]), NAMES),
        (np.array([[0, 1], [2, 0]]), NAMES),
        (..., NAMES),
        ((), NAMES),
        (None, NAMES),
        ((slice(None), slice(1, None)), NAMES[1:]),
        ((..., slice(None, None, -1)), NAMES[::-1]),
        ((0, slice(2)), NAMES[:2]),
        ((slice(None), [2, 0]), (NAMES[2], NAMES[0])),
        ((np.int64(1), [2, 0, 1]), (NAMES[2], NAMES[0], NAMES[1])),
        ((..., np.array([True, False, True])), (NAMES[0], NAMES[2])),
        (([0, 1], slice(1)), NAMES[:1]),
        ((slice(None), None), NAMES),
    ],
    ids=str,
)
def test_names_follow_the_classes_that_are_chosen(scores, key, names):
    chosen = scores[key]

    assert chosen.names == names
    for name in names:
        column = NAMES.index(name)
        plain = np.asarray(scores)[:, column]
        assert set(np.ravel(chosen[name])) <= set(plain)


def test_names_follow_the_classes_that_are_chosen_on_the_third_axis():
    scores = Scores(np.zeros((3, 3, 3)), NAMES)

    assert scores[:, 1:, [2, 0]].names == (NAMES[2], NAMES[0])


@pytest.mark.parametrize(
    "key",
    [
        (slice(None), 0),
        (..., 0),
        (..., None),
        (..., slice(1), None),
        (0, slice(1), None),
        ([0, 1, 2], [2, 1, 0]),
        ([0, 1, 2], [2, 1, 0], ...),
        np.eye(3, dtype=bool),
    ],
    ids=str,
)
def test_there_are_no_names_where_the_last_axis_is_not_classes(scores, key):
    assert scores[key].names == ()


@pytest.mark.parametrize(
    "change",
    [
        lambda scores: scores.T,
        np.sort,
        lambda scores: np.take(scores, [2, 1, 0], axis=1),
        lambda scores: scores.sum(axis=1),
        lambda scores: scores["dog"],
        lambda scores: scores @ np.eye(3, dtype=np.float32)[::-1],
    ],
    ids=["turned", "sorted", "taken", "summed", "column", "mixed"],
)
def test_names_are_lost_where_they_would_be_wrong(scores, change):
    assert change(scores).names == ()


def test_boxes_with_too_many_masks_are_told():
    with pytest.raises(InvalidOption, match="1 boxes and 3 masks; give one"):
        InstanceDetections.sort(BOXES[:1], [0.5], [0], NAMES, np.zeros((3, 4, 4)))


def test_boxes_with_too_few_confidences_are_told():
    counts = "3 boxes, 2 confidences and 3 class ids; give one of each"
    with pytest.raises(InvalidOption, match=counts):
        Detections.sort(BOXES, [0.5, 0.2], [0, 1, 2])


@pytest.mark.parametrize("shape", [(2, 3), (4, 2), (8,), (1, 2, 4)])
def test_boxes_that_are_no_boxes_are_told(shape):
    with pytest.raises(InvalidOption, match=r"boxes of shape .* are not xyxy"):
        Detections.sort(np.zeros(shape), [0.5, 0.2], [0, 1])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (([[0, 0, 1, 1], [2]], [0.5], [0]), "xyxy is no array of numbers"),
        (([[0, 0, 1, 1]], ["a"], [0]), "confidence is no array of numbers"),
        (([[0, 0, 1, 1]], [0.5], [0.9]), "class_id .* has other than whole numbers"),
        (([[0, 0, 1, 1]], [0.5], [np.nan]), "class_id .* has other than whole numbers"),
        (([[0, 0, 1, 1]], [0.5], [2**70]), "class_id is no array of numbers"),
        (([[0, 0, 1, 1]], [0.5], ["a"]), "class_id is no array of numbers"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_no_array_of_numbers_is_told_by_name(arrays, words):
    with pytest.raises(InvalidOption, match=words):
        Detections.sort(*arrays)


@pytest.mark.parametrize("shape", [(3,), (3, 4), (3, 2, 4, 4)])
def test_masks_that_are_none_are_told(shape):
    with pytest.raises(InvalidOption, match=r"masks of shape .* are not \(N, H, W\)"):
        InstanceDetections.sort(BOXES, [0.5] * 3, [0] * 3, NAMES, np.zeros(shape))


def test_sorting_in_place_loses_the_names(scores):
    scores.sort()

    assert scores.names == ()


def test_partitioning_loses_the_names(scores):
    assert np.partition(scores, 1).names == ()

    scores.partition(1)
    assert scores.names == ()


def test_rows_are_iterated_with_their_names(scores):
    assert [float(row["cat"]) for row in scores] == scores[:, 0].tolist()


@pytest.mark.parametrize(
    "change",
    [lambda scores: scores * 2, lambda scores: 1 - scores, np.exp, np.copy],
    ids=["scaled", "subtracted", "function", "np.copy"],
)
def test_arithmetic_is_numpys(scores, change):
    assert np.array_equal(change(scores), change(np.asarray(scores)))


def test_arithmetic_keeps_names(scores):
    doubled = scores * 2

    assert doubled.names == NAMES
    assert doubled[0]["dog"] == np.float32(0.4)
    assert (100 - scores).names == NAMES


@pytest.mark.parametrize("reduce", ["sum", "max", "min", "mean", "argmax", "std"])
def test_reductions_give_plain_numbers(scores, reduce):
    number = getattr(scores, reduce)()

    assert isinstance(number, np.generic)
    assert number == getattr(np.asarray(scores), reduce)()


@pytest.mark.parametrize(
    "copied",
    [
        copy.copy,
        copy.deepcopy,
        lambda one: one.copy(),
        lambda one: pickle.loads(pickle.dumps(one)),
        lambda one: one.astype(np.float64).astype(np.float32),
    ],
    ids=["copy", "deepcopy", "method", "pickle", "dtype"],
)
def test_a_copy_of_scores_keeps_values_and_names(scores, copied):
    twin = copied(scores)
    assert np.array_equal(twin, scores)
    twin[0, 0] = 9

    assert twin.names == NAMES
    assert scores[0, 0] == np.float32(0.1)


# Classification


def test_the_highest_class_is_predicted(prediction, scores):
    assert prediction.class_id.tolist() == [2, 0, 1]
    assert prediction.class_id.dtype == np.int64
    assert prediction.confidence.dtype == np.float32
    assert np.array_equal(prediction.confidence, scores)


def test_halves_of_many_classes_sum_to_one():
    logits = np.zeros((1, 100_000), np.float16)

    prediction = ClassificationPrediction.from_logits(logits, ())

    assert np.asarray(prediction.confidence).sum() == pytest.approx(1, abs=1e-4)


def test_scores_of_no_class_are_told():
    with pytest.raises(RunFailed, match="scores are of no class"):
        ClassificationPrediction.from_scores(np.zeros((2, 0)), ())


def test_logits_of_each_image_become_scores_that_sum_to_one():
    logits = np.array([[0, 1, 2], [900, 0, 900 - np.log(3)]])
    found = ClassificationPrediction.from_logits(logits, NAMES)

    assert found.class_id.tolist() == [2, 0]
    assert np.asarray(found.confidence) == pytest.approx(
        np.array([[0.0900306, 0.2447285, 0.6652410], [0.75, 0, 0.25]]), abs=1e-6
    )


@pytest.mark.parametrize("row", [[np.nan, 0, 0], [np.inf, 0, 0], [-np.inf] * 3])
def test_logits_that_are_no_numbers_are_told(row):
    with pytest.raises(RunFailed, match=r"are not numbers.*quantization='fp32'"):
        ClassificationPrediction.from_logits(np.array([[0, 1, 2], row]), NAMES)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 1)])
def test_scores_of_other_axes_than_images_and_classes_are_told(shape):
    with pytest.raises(RunFailed, match=r"have the shape \(.*not \(images, classes\)"):
        ClassificationPrediction.from_scores(np.ones(shape), NAMES)


def test_the_confidence_of_the_top_class_is_found_by_its_name(prediction):
    top_class = prediction.class_names[prediction.class_id[0]]

    assert prediction.confidence[0][top_class] == prediction.confidence[0].max()


def test_predictions_of_parts_are_joined_in_order(prediction):
    parts = [prediction[:1], prediction[1:]]

    assert ClassificationPrediction.join(parts) == prediction


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (0, [2]),
        (-1, [1]),
        (slice(1, 3), [0, 1]),
        ([2, 0], [1, 2]),
        (np.array([False, True, True]), [0, 1]),
        ([], []),
    ],
)
def test_the_prediction_of_some_images_is_chosen(prediction, key, expected):
    chosen = prediction[key]

    assert chosen.class_id.tolist() == expected
    assert chosen.confidence.shape == (len(expected), 3)
    assert chosen.confidence.names == NAMES


@pytest.mark.parametrize("key", [3, -4, [5]])
def test_an_image_that_is_not_there_is_an_index_error(prediction, key):
    with pytest.raises(IndexError):
        prediction[key]


def test_a_prediction_is_iterated_image_by_image(prediction):
    assert [one.class_id.tolist() for one in prediction] == [[2], [0], [1]]
    assert len(prediction) == 3


def test_a_prediction_shows_the_top_classes(prediction):
    assert repr(prediction) == (
        "<ClassificationPrediction 3: tabby, tabby cat 0.70; cat 0.60; dog 0.50>"
    )


def test_a_prediction_without_images_can_be_shown(prediction):
    assert repr(prediction[:0]) == "<ClassificationPrediction 0: >"


# Multi-label


@pytest.fixture
def multi():
    confidence = f32(0.55, 0.9, 0.1)
    return MultiLabelClassificationPrediction.from_scores(confidence, 0.5, NAMES)


def test_classes_that_reach_the_threshold_are_present(multi):
    assert multi.class_ids.tolist() == [1, 0]
    assert multi.class_ids.dtype == np.int64
    assert multi.confidence["tabby, tabby cat"] == np.float32(0.1)
    assert len(multi) == 2


def test_each_class_may_have_a_threshold_of_its_own():
    found = MultiLabelClassificationPrediction.from_scores(
        f32(0.55, 0.9, 0.1), f32(0.6, 0.9, 0.05), NAMES
    )

    assert found.class_ids.tolist() == [1, 2]


def test_scores_of_labels_that_are_no_numbers_are_told():
    with pytest.raises(RunFailed, match="scores are not numbers"):
        MultiLabelClassificationPrediction.from_scores(f32(0.5, np.nan, 0), 0.5, NAMES)


def test_scores_of_labels_for_several_images_are_told():
    with pytest.raises(RunFailed, match=r"have the shape \(2, 3\), and not \(classes"):
        MultiLabelClassificationPrediction.from_scores(np.ones((2, 3)), 0.5, NAMES)


def test_no_class_may_be_present():
    found = MultiLabelClassificationPrediction.from_scores(
        f32(0.1, 0.2, 0.3), 0.5, NAMES
    )

    assert found.class_ids.shape == (0,)
    assert repr(found) == "<MultiLabelClassificationPrediction 0: nothing>"


@pytest.mark.parametrize("threshold", [0, np.zeros(3, np.float32)], ids=["one", "each"])
def test_a_class_without_a_name_is_never_present(threshold):
    found = MultiLabelClassificationPrediction.from_scores(
        f32(0.3, 0, 0.7), threshold, ["cat", "", "dog"]
    )

    assert found.class_ids.tolist() == [2, 0]


def test_many_present_classes_are_shown_in_part():
    names = [f"tag {number}" for number in range(7)]
    found = MultiLabelClassificationPrediction.from_scores(np.ones(7), 0.5, names)

    assert repr(found).endswith("; tag 4 1.00; and 2 more>")


def test_the_present_classes_are_shown(multi):
    assert repr(multi) == ("<MultiLabelClassificationPrediction 2: dog 0.90; cat 0.55>")


# supervision


def test_detections_become_supervisions(detections):
    pytest.importorskip("supervision")
    found = detections.to_supervision()

    assert np.array_equal(found.xyxy, detections.xyxy)
    assert np.array_equal(found.confidence, detections.confidence)
    assert found.class_id.tolist() == [2, 1, 0]
    assert found.data["class_name"].tolist() == detections.names


def test_no_detections_become_supervisions_with_class_names(none):
    pytest.importorskip("supervision")
    found = none.to_supervision()

    assert len(found) == 0
    assert found.data["class_name"].shape == (0,)
    assert found.data["class_name"].dtype.kind == "U"


def test_instances_become_supervisions_with_masks(instances):
    pytest.importorskip("supervision")
    found = instances.to_supervision()

    assert np.array_equal(found.mask, instances.masks)
    assert found.area.tolist() == [2, 1, 0]
    assert found[1:].mask.shape == (2, 3, 4)
    assert len(instances[:0].to_supervision()) == 0


def test_key_points_become_those_of_supervision(poses):
    pytest.importorskip("supervision")
    found = poses.to_supervision()

    assert found.xy is poses.xy
    assert found.class_id.tolist() == [0, 1, 2]
    assert found.data["class_name"].tolist() == list(NAMES)
    assert found.data["xyxy"] is poses.xyxy
    assert found.data["covariance"] is poses.covariance
    if hasattr(found, "visible"):
        assert found.keypoint_confidence is poses.confidence
        assert found.detection_confidence is poses.detection_confidence
        assert found.visible.sum(axis=1).tolist() == [0, 1, 2]


def test_key_points_without_covariances_become_supervisions(poses):
    pytest.importorskip("supervision")
    bare = attrs.evolve(poses, covariance=None)

    assert set(bare.to_supervision().data) == {"class_name", "xyxy"}


def test_supervisions_of_several_images_can_be_merged(detections, none):
    supervision = pytest.importorskip("supervision")
    merged = supervision.Detections.merge(
        [
            detections.to_supervision(),
            none.to_supervision(),
            detections.to_supervision(),
        ]
    )

    assert len(merged) == 6
    assert merged.data["class_name"].tolist() == detections.names * 2


def test_classifications_become_supervisions(prediction, multi):
    pytest.importorskip("supervision")
    single = prediction.to_supervision()

    assert len(single) == 3
    assert single[0].class_id.tolist() == [0, 1, 2]
    assert np.array_equal(single[0].confidence, prediction.confidence[0])
    assert np.array_equal(multi.to_supervision().confidence, multi.confidence)


WITHOUT_SUPERVISION = """
    import sys
    sys.modules["supervision"] = None
    import numpy
    from inference_models import Detections, MissingDependency
    try:
        Detections.sort(numpy.zeros((1, 4)), [1], [0]).to_supervision()
    except MissingDependency as error:
        print(error)
"""


def test_without_supervision_it_says_what_to_install():
    assert output(WITHOUT_SUPERVISION) == (
        "to_supervision() needs supervision; pip install supervision"
    )
