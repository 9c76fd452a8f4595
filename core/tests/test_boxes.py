"""Box geometry: the fast suppression against the plain one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_models import InvalidInput, InvalidOption
from inference_models.boxes import cxcywh_to_xyxy, nms


def area(box):
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def overlaps(a, b, iou):
    corners = (max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    shared = area(corners)
    return shared > iou * (area(a) + area(b) - shared)


def plain_nms(xyxy, confidence, class_id, iou):
    """Greedy suppression as its definition reads, one pair at a time."""
    boxes = np.asarray(xyxy, dtype=np.float32).tolist()
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: (-confidence[i], i)):
        rivals = [j for j in kept if class_id is None or class_id[i] == class_id[j]]
        if not any(overlaps(boxes[i], boxes[j], iou) for j in rivals):
            kept.append(i)
    return kept


def grid_boxes(rng, count, side):
    """Integer boxes: many ties and identical boxes, some empty or turned over."""
    corner = rng.integers(0, side, (count, 2))
    return np.hstack((corner, corner + rng.integers(-1, side // 2, (count, 2))))


def clustered_boxes(rng, count, objects=20):
    """Detections as a network makes them: noisy copies of a few boxes."""
    sizes = rng.uniform(30, 200, (objects, 2))
    boxes = np.hstack((rng.uniform(0, 640, (objects, 2)), sizes))
    noisy = boxes[rng.integers(0, objects, count)] + rng.normal(0, 4, (count, 4))
    return cxcywh_to_xyxy(noisy)


def disjoint_boxes(count):
    corner = np.stack(np.divmod(np.arange(count), 40), axis=1) * 10
    return np.hstack((corner, corner + 9)).astype(np.float32)


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 60),
    side=st.sampled_from([4, 10, 40]),
    classes=st.sampled_from([None, 1, 3, 50]),
    iou=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
)
@settings(max_examples=300, deadline=None)
def test_boxes_with_ties_and_without_area_are_kept_as_by_the_plain_loop(
    seed, count, side, classes, iou
):
    rng = np.random.default_rng(seed)
    xyxy = grid_boxes(rng, count, side)
    confidence = rng.integers(0, 5, count) / 4
    class_id = None if classes is None else rng.integers(-1, classes, count)
    expected = plain_nms(xyxy, confidence, class_id, iou)
    assert nms(xyxy, confidence, class_id, iou=iou).tolist() == expected


@pytest.mark.parametrize("classes", [None, 2, 80])
@pytest.mark.parametrize("count", [127, 128, 129, 257, 600])
def test_more_boxes_than_one_block_are_kept_as_by_the_plain_loop(count, classes):
    rng = np.random.default_rng(count)
    for xyxy in (clustered_boxes(rng, count), grid_boxes(rng, count, 60)):
        confidence = rng.integers(0, 200, count) / 200
        class_id = None if classes is None else rng.integers(0, classes, count)
        expected = plain_nms(xyxy, confidence, class_id, 0.5)
        assert nms(xyxy, confidence, class_id, iou=0.5).tolist() == expected


def test_no_boxes_give_no_indices():
    kept = nms(np.empty((0, 4), np.float32), np.empty(0, np.float32), iou=0.5)
    assert kept.shape == (0,)
    assert np.issubdtype(kept.dtype, np.integer)
    assert nms(np.empty((0, 4)), [], [], iou=0.5).shape == (0,)


def test_indices_come_by_falling_confidence_and_then_by_index():
    kept = nms(disjoint_boxes(5), [0.5, 0.9, 0.5, 0.1, 0.9], iou=0.5)
    assert kept.tolist() == [1, 4, 0, 2, 3]


def test_indices_come_by_falling_confidence_across_classes():
    kept = nms(disjoint_boxes(4), [0.2, 0.4, 0.3, 0.4], [0, 7, 0, 3], iou=0.5)
    assert kept.tolist() == [1, 3, 2, 0]


def test_of_equally_confident_boxes_the_lower_index_is_kept():
    assert nms([[0, 0, 9, 9]] * 3, [0.5, 0.5, 0.5], iou=0.5).tolist() == [0]


def test_an_overlap_of_exactly_the_threshold_keeps_both():
    assert nms([[0, 0, 2, 1], [0, 0, 1, 1]], [0.9, 0.8], iou=0.5).tolist() == [0, 1]


def test_a_dropped_box_drops_no_other():
    chain = [[0, 0, 10, 1], [4, 0, 14, 1], [8, 0, 18, 1]]
    assert nms(chain, [0.9, 0.8, 0.7], iou=0.3).tolist() == [0, 2]


def test_boxes_of_another_class_stay():
    same = [[0, 0, 9, 9]] * 4
    assert nms(same, [0.9, 0.8, 0.7, 0.6], [2, 1, 2, 1], iou=0.5).tolist() == [0, 1]


def test_boxes_without_area_stay():
    assert nms([[3, 3, 3, 3]] * 2, [0.9, 0.8], iou=0.0).tolist() == [0, 1]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("far", [1e20, np.inf])
def test_boxes_without_an_end_overlap(far):
    assert nms([[0, 0, far, 9], [0, 0, far, 9]], [0.9, 0.5], iou=0.5).tolist() == [0]


def test_a_box_that_is_not_a_number_drops_no_other():
    xyxy = [[np.nan] * 4, [0, 0, 9, 9], [0, 0, 9, 9]]
    assert nms(xyxy, [0.9, 0.8, 0.7], iou=0.5).tolist() == [0, 1]


def test_inputs_are_not_written_to():
    rng = np.random.default_rng(0)
    inputs = clustered_boxes(rng, 300), rng.random(300), rng.integers(0, 3, 300)
    for array in inputs:
        array.flags.writeable = False
    nms(*inputs, iou=0.5)


def test_classes_of_other_boxes_are_refused():
    with pytest.raises(InvalidInput, match="there are 2 classes of 3 boxes"):
        nms(disjoint_boxes(3), [0.5, 0.5, 0.5], [1, 2], iou=0.5)


def test_centres_and_sizes_become_corners():
    corners = cxcywh_to_xyxy([[5, 6, 4, 2], [0, 0, 0, 0]])
    assert corners.dtype == np.float32
    assert corners.tolist() == [[3, 5, 7, 7], [0, 0, 0, 0]]


@pytest.mark.parametrize("shape", [(4,), (0, 4), (2, 3, 4)])
def test_corners_have_the_shape_of_the_boxes(shape):
    assert cxcywh_to_xyxy(np.zeros(shape)).shape == shape


@pytest.mark.parametrize("shape", [(4, 3), (3, 5), (2, 4), (12,)])
def test_boxes_that_are_not_four_numbers_a_confidence_are_refused(shape):
    with pytest.raises(InvalidInput, match=r"are not \(3, 4\), as 3 confidences"):
        nms(np.ones(shape), [0.1, 0.2, 0.3], iou=0.5)


@pytest.mark.parametrize("iou", [50, -0.1, float("nan"), "0.5", None, [0.5]])
def test_an_overlap_that_is_no_share_is_refused(iou):
    with pytest.raises(InvalidOption, match="is not a number from 0 to 1"):
        nms([[0, 0, 1, 1]], [0.5], iou=iou)
