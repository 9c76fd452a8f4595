"""Which class is which column of a checkpoint's scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inference_models import distinct_labels

COCO = {
    1: "person", 2: "bicycle", 3: "car", 4: "motorcycle", 5: "airplane", 6: "bus",
    7: "train", 8: "truck", 9: "boat", 10: "traffic light", 11: "fire hydrant",
    13: "stop sign", 14: "parking meter", 15: "bench", 16: "bird", 17: "cat", 18: "dog",
    19: "horse", 20: "sheep", 21: "cow", 22: "elephant", 23: "bear", 24: "zebra",
    25: "giraffe", 27: "backpack", 28: "umbrella", 31: "handbag", 32: "tie",
    33: "suitcase", 34: "frisbee", 35: "skis", 36: "snowboard", 37: "sports ball",
    38: "kite", 39: "baseball bat", 40: "baseball glove", 41: "skateboard",
    42: "surfboard", 43: "tennis racket", 44: "bottle", 46: "wine glass", 47: "cup",
    48: "fork", 49: "knife", 50: "spoon", 51: "bowl", 52: "banana", 53: "apple",
    54: "sandwich", 55: "orange", 56: "broccoli", 57: "carrot", 58: "hot dog",
    59: "pizza", 60: "donut", 61: "cake", 62: "chair", 63: "couch", 64: "potted plant",
    65: "bed", 67: "dining table", 70: "toilet", 72: "tv", 73: "laptop", 74: "mouse",
    75: "remote", 76: "keyboard", 77: "cell phone", 78: "microwave", 79: "oven",
    80: "toaster", 81: "sink", 82: "refrigerator", 84: "book", 85: "clock", 86: "vase",
    87: "scissors", 88: "teddy bear", 89: "hair drier", 90: "toothbrush",
}  # fmt: skip
"""Lin et al., "Microsoft COCO", arXiv:1405.0312: the category ids have gaps."""

COCO_LABELS = tuple(COCO.get(column) for column in range(91))


PERSON = (None, "person")
"""Of the published weights with key points: column 0 means no object."""

COCO_POINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder",
    "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
"""COCO's points of a person, in its order."""

COCO_SKELETON = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7),
    (6, 8), (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip
"""Which of them a line joins, counted from 0."""


def labels_of(
    classes: int, told: Mapping[str, Any], points: Sequence[int] = ()
) -> tuple[str | None, ...]:
    """A label for each of `classes` columns; None is a column never returned.

    The trainer keeps the names and not always the columns. Since version 1.5 the first
    name is column 0, and the last column means no object. Before, `num_classes` counted
    all columns, and category 0 of a dataset from Roboflow was none of the names.
    `points` says how many points each class has, if any.
    """
    if points:
        return _with_points(classes, told, points)
    return _in_order(classes, told, _names(told.get("class_names")))


def _in_order(
    classes: int, told: Mapping[str, Any], names: tuple[str | None, ...]
) -> tuple[str | None, ...]:
    """Labels of columns that stand in the order of the names."""
    if classes == len(COCO_LABELS) and len(names) in (0, len(COCO)):
        return COCO_LABELS
    if len(names) == classes:
        return names
    if len(names) == classes - 1:
        shifted = told.get("num_classes") == classes
        return (None, *names) if shifted else (*names, None)
    return tuple(f"class_{column}" for column in range(classes))


def _with_points(
    classes: int, told: Mapping[str, Any], points: Sequence[int]
) -> tuple[str | None, ...]:
    """Labels of things with points, of which old networks have "no object" first.

    That column has no points; names are those of the columns that have some. Where no
    names are told, 17 points are a person's.
    """
    names = _names(told.get("class_names"))
    if points[0] == 0:
        pointed = [column for column, count in enumerate(points) if count]
        given = dict(zip(pointed, names, strict=False))
        known = {
            column: given.get(column) or _guess(points, column) for column in pointed
        }
        return distinct_labels([known.get(column) for column in range(classes)])
    if names:
        return _in_order(classes, told, names)
    found = [_guess(points, column) for column in range(len(points))]
    return (*found, *[None] * (classes - len(found)))


def _guess(points: Sequence[int], column: int) -> str:
    alone = sum(points) == points[column]
    person = alone and points[column] == len(COCO_POINTS)
    return "person" if person else f"class_{column}"


def _names(value: Any) -> tuple[str | None, ...]:
    """Class names made distinct, so that each is one class."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, Sequence) or isinstance(value, str):
        return ()
    return distinct_labels(
        [
            name if isinstance(name, str) and name else f"class_{column}"
            for column, name in enumerate(value)
        ]
    )
