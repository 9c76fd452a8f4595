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


def labels_of(classes: int, told: Mapping[str, Any]) -> tuple[str | None, ...]:
    """A label for each of `classes` columns; None is a column never returned.

    The trainer keeps the names and not always the columns. Since version 1.5 the first
    name is column 0, and the last column means no object. Before, `num_classes` counted
    all columns, and category 0 of a dataset from Roboflow was none of the names.
    """
    names = _names(told.get("class_names"))
    if classes == len(COCO_LABELS) and len(names) in (0, len(COCO)):
        return COCO_LABELS
    if len(names) == classes:
        return names
    if len(names) == classes - 1:
        shifted = told.get("num_classes") == classes
        return (None, *names) if shifted else (*names, None)
    return tuple(f"class_{column}" for column in range(classes))


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
