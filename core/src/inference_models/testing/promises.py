"""What the results of each task promise, whatever network they come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from inference_models.frame import Frame
from inference_models.interfaces import Architecture
from inference_models.model import Model
from inference_models.results import (
    ClassificationPrediction,
    Detections,
    InstanceDetections,
    KeyPoints,
    MultiLabelClassificationPrediction,
)
from inference_models.scores import Scores
from inference_models.tasks import TASKS


def check_results(
    made: Architecture[Any], results: Any, frames: Sequence[Frame]
) -> None:
    """Assert what the task promises of the results of images with these frames."""
    assert isinstance(results, list), "postprocess returns a list"
    check = _PROMISES.get(made.card.task)
    if check is None and any(isinstance(each, Detections) for each in results):
        check = _check_detections
    if check is not None:
        check(results, frames, made.class_names)
    elif _join(made) is Model.join:
        assert len(results) == len(frames), "one result an image"


def joined(made: Architecture[Any], results: list[Any]) -> Any:
    """What a call of the model returns for the results of its images."""
    return _join(made)(None, results)


def _join(made: Architecture[Any]) -> Callable[..., Any]:
    return (made.Model or TASKS.get(made.card.task, Model)).join


def count_found(results: Sequence[Any]) -> int:
    """How many boxes or classes were found; whatever has no length counts as one."""
    return sum(len(r) if hasattr(r, "__len__") else 1 for r in results)


def equal(one: Any, other: Any) -> bool:
    """Whether two results are the same, but for rounding."""
    if isinstance(one, np.ndarray):
        alike = one.dtype == other.dtype and one.shape == other.shape
        return alike and _close(one, other)
    if isinstance(one, float):
        return _close(one, other)
    if type(one) is not type(other):
        return False
    if attrs.has(type(one)):
        names = [field.name for field in attrs.fields(type(one))]
        return all(equal(getattr(one, n), getattr(other, n)) for n in names)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(equal(*pair) for pair in pairs)
    return bool(one == other)


def _close(one: Any, other: Any) -> bool:
    if not np.issubdtype(np.asarray(one).dtype, np.floating):
        return np.array_equal(one, other)
    return np.allclose(one, other, rtol=1e-4, atol=1e-5, equal_nan=True)


def _check_detections(
    results: list[Any], frames: Sequence[Frame], class_names: Sequence[str]
) -> None:
    assert len(results) == len(frames), "one result an image"
    for found, frame in zip(results, frames, strict=True):
        assert isinstance(found, Detections)
        assert list(found.class_names) == list(class_names)
        assert found.xyxy.dtype == np.float32
        assert found.xyxy.shape == (len(found.confidence), 4)
        assert (found.xyxy >= 0).all(), "boxes lie in the image"
        assert (found.xyxy <= [frame.width, frame.height] * 2).all()
        assert (found.xyxy[:, :2] <= found.xyxy[:, 2:]).all()
        _check_confidence(found.confidence, (len(found.xyxy),))
        assert (np.diff(found.confidence) <= 0).all(), "the highest comes first"
        _check_class_ids(found.class_id, (len(found.xyxy),), class_names)
        _check_fields(found)
        if isinstance(found, InstanceDetections):
            assert found.masks.dtype == np.bool_
            size = (frame.height, frame.width)
            assert found.masks.shape[1:] == size, "masks have the image's size"


def _check_instances(
    results: list[Any], frames: Sequence[Frame], class_names: Sequence[str]
) -> None:
    assert all(isinstance(found, InstanceDetections) for found in results)
    _check_detections(results, frames, class_names)


def _check_key_points(
    results: list[Any], frames: Sequence[Frame], class_names: Sequence[str]
) -> None:
    assert all(isinstance(found, KeyPoints) for found in results)
    _check_detections([found.detections for found in results], frames, class_names)
    for found in results:
        shape, gone = found.confidence.shape, found.confidence == 0
        assert len(shape) == 2, "each thing has a row of points"
        _check_confidence(found.confidence, (len(found), shape[1]))
        assert found.xy.dtype == np.float32
        assert found.xy.shape == (*shape, 2)
        assert np.isfinite(found.xy).all(), "a point is somewhere"
        assert not found.xy[gone].any(), "what is not there is (0, 0)"
        if found.covariance is not None:
            assert found.covariance.dtype == np.float32
            assert found.covariance.shape == (*shape, 2, 2)
            assert np.isnan(found.covariance[gone]).all(), "what is not there is NaN"


def _check_fields(found: Detections) -> None:
    """What a pack's own class adds, such as the points of each box."""
    for field in attrs.fields(type(found)):
        value = getattr(found, field.name)
        if field.name != "class_names":
            assert len(value) == len(found), f"{field.name} has one row a box"


def _check_classification(
    results: list[Any], frames: Sequence[Frame], class_names: Sequence[str]
) -> None:
    prediction = ClassificationPrediction.join(results)
    classes = len(class_names) or np.shape(prediction.confidence)[-1]
    shape = (len(frames), classes)

    assert isinstance(prediction, ClassificationPrediction)
    assert list(prediction.class_names) == list(class_names)
    _check_scores(prediction.confidence, shape, class_names)
    plain = np.asarray(prediction.confidence)
    np.testing.assert_allclose(plain.sum(axis=1), 1, atol=1e-3)
    _check_class_ids(prediction.class_id, shape[:1], class_names)
    np.testing.assert_array_equal(prediction.class_id, plain.argmax(axis=1))


def _check_multi_label(
    results: list[Any], frames: Sequence[Frame], class_names: Sequence[str]
) -> None:
    assert len(results) == len(frames), "one result an image"
    for found in results:
        assert isinstance(found, MultiLabelClassificationPrediction)
        assert list(found.class_names) == list(class_names)
        classes = len(class_names) or found.confidence.shape[-1]
        _check_scores(found.confidence, (classes,), class_names)
        _check_class_ids(found.class_ids, found.class_ids.shape, class_names)
        kept = np.asarray(found.confidence)[found.class_ids]
        assert (np.diff(kept) <= 0).all(), "the highest comes first"


def _check_scores(
    scores: Any, shape: tuple[int, ...], class_names: Sequence[str]
) -> None:
    assert isinstance(scores, Scores)
    assert list(scores.names) == list(class_names)
    _check_confidence(scores, shape)


def _check_confidence(confidence: np.ndarray, shape: tuple[int, ...]) -> None:
    assert confidence.dtype == np.float32
    assert confidence.shape == shape
    plain = np.asarray(confidence)
    assert ((plain >= 0) & (plain <= 1)).all(), "confidence is in 0–1"


def _check_class_ids(
    class_ids: np.ndarray, shape: tuple[int, ...], class_names: Sequence[str]
) -> None:
    assert class_ids.dtype == np.int64
    assert class_ids.shape == shape
    if class_names:
        assert set(class_ids.tolist()) <= set(range(len(class_names)))
        unnamed = [i for i in class_ids.tolist() if not class_names[i]]
        assert unnamed == [], "a class whose label is None is never returned"


_PROMISES: Mapping[str, Callable[[list[Any], Sequence[Frame], Sequence[str]], None]] = {
    "object-detection": _check_detections,
    "instance-segmentation": _check_instances,
    "keypoint-detection": _check_key_points,
    "classification": _check_classification,
    "multi-label-classification": _check_multi_label,
}
