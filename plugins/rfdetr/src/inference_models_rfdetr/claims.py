"""Cards of bare files: trainers' checkpoints, ONNX exports and transformers folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from inference_models import Artifact, Facts, ModelCard
from inference_models_rfdetr.labels import (
    COCO_POINTS,
    COCO_SKELETON,
    PERSON,
    labels_of,
)
from inference_models_rfdetr.layout import Layout, recognise, size_of
from inference_models_rfdetr.points import VALUES

_Shape = Sequence[int | str]

_EXPORT = {"dets": "boxes", "labels": "logits"}
"""Outputs as the official ONNX export names them, and as they are named here."""

DETECTION = "object-detection"
SEGMENTATION = "instance-segmentation"
KEY_POINTS = "keypoint-detection"

FURTHER = {SEGMENTATION: "masks", KEY_POINTS: "keypoints"}
"""The output that a task has beside logits and boxes."""

_TASKS = {output: task for task, output in FURTHER.items()}

_CONVERTED = {
    "RfDetrForObjectDetection": DETECTION,
    "RfDetrForInstanceSegmentation": SEGMENTATION,
}
"""Classes of transformers."""

_NAMES = (
    ["dets", "labels"],
    ["boxes", "logits"],
    ["logits", "boxes", "objectness"],
)
"""What ONNX files call their outputs, and may have masks or key points behind."""

_MOST_CLASSES = 100_000  # a file that says more asks for memory

NORMALISED = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
"""ImageNet's statistics. Training resizes with antialias, which is the default here."""

PERSONS = {"names": list(COCO_POINTS), "skeleton": list(map(list, COCO_SKELETON))}
"""COCO's points of a person, as the config has them."""


def claimed(facts: Facts) -> ModelCard | None:
    """The card of a bare file or folder of RF-DETR; None if it is not of it."""
    if facts.format == "hf":
        return _converted(facts)
    if facts.format == "onnx":
        return _exported(facts)
    return _trained(facts) if facts.format == "torch" else None


def task_of(layout: Layout) -> str:
    """What a network of the layout finds."""
    if layout.keypoints:
        return KEY_POINTS
    return SEGMENTATION if layout.segments else DETECTION


def _trained(facts: Facts) -> ModelCard | None:
    """The card of a checkpoint."""
    shapes = {name: spec.shape for name, spec in facts.tensors.items()}
    told = _told(facts.metadata)
    layout = recognise(shapes, told)
    if layout is None:
        return None
    labels = labels_of(layout.classes, told, layout.keypoints)
    return _card(layout, labels, Artifact(facts.format, {"main": "weights"}))


def _told(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What the trainer wrote of the model; newer versions keep it apart from `args`."""
    told: dict[str, Any] = {}
    for part in ("args", "hyper_parameters", "model_config"):
        value = metadata.get(part)
        told |= value if isinstance(value, Mapping) else {}
    return told


def _card(
    layout: Layout, labels: Sequence[str | None], artifact: Artifact
) -> ModelCard:
    size = size_of(layout)
    fields = attrs.asdict(layout)
    sides = [fields.pop("resolution")] * 2
    for told in ("classes", "segments"):  # by the labels and the task
        fields.pop(told)
    return ModelCard(
        id=f"rfdetr-{size}" if size else "rfdetr",
        architecture="rfdetr",
        task=task_of(layout),
        artifacts=(artifact,),
        labels=tuple(labels),
        config={
            **({"size": size} if size else {}),
            "layout": fields,
            **_skeletons(layout.keypoints, labels),
            "preprocessing": {"size": sides, **NORMALISED},
        },
    )


def _skeletons(counts: Sequence[int], labels: Sequence[str | None]) -> dict[str, Any]:
    """Under the config's key for them, a person's points where they are COCO's."""
    found = [
        {"class_id": column, **PERSONS}
        for column, count in enumerate(counts)
        if (labels[column], count) == ("person", len(COCO_POINTS))
    ]
    return {"key_points": found} if found else {}


def _exported(facts: Facts) -> ModelCard | None:
    """The card of an ONNX file with an export's inputs and outputs."""
    names: list[str] = facts.metadata.get("outputs") or []
    further = names[-1] if names and names[-1] in _TASKS else None
    if "input" not in facts.tensors or (names[:-1] if further else names) not in _NAMES:
        return None
    image = facts.tensors["input"].shape
    shapes = {_EXPORT.get(name, name): facts.tensors[name].shape for name in names}
    classes = _classes(image, shapes["boxes"], shapes["logits"])
    if classes is None or (further and len(shapes[further]) != 4):
        return None
    counts = _counts(shapes["keypoints"], classes) if further == "keypoints" else ()
    if counts is None:
        return None
    artifact = Artifact(
        facts.format,
        {"main": "weights"},
        batch=(image[0],) * 3 if isinstance(image[0], int) else None,
        rename={name: ours for name, ours in _EXPORT.items() if name in names},
        needs={"opset": facts.metadata["opset"]},
    )
    labels = labels_of(classes, {}, counts)
    return ModelCard(
        id="rfdetr",
        architecture="rfdetr",
        task=_TASKS[further] if further else DETECTION,
        artifacts=(artifact,),
        labels=labels,
        config={
            **_skeletons(counts, labels),
            **({"layout": {"keypoints": counts}} if counts else {}),
            "preprocessing": {"size": list(image[2:]), **NORMALISED},
        },
    )


def _classes(image: _Shape, boxes: _Shape, logits: _Shape) -> int | None:
    """How many columns the head has; None where shapes are not those of an export."""
    if [len(shape) for shape in (image, boxes, logits)] != [4, 3, 3] or boxes[-1] != 4:
        return None
    classes = logits[-1]
    fixed = all(isinstance(size, int) for size in image[2:])
    if not fixed or not isinstance(classes, int):
        return None
    return classes if 0 < classes <= _MOST_CLASSES else None


def _counts(shape: _Shape, classes: int) -> tuple[int, ...] | None:
    """Points of each class, for slots (B, Q, S, 8) and so many columns; None: neither.

    Some may have fewer. Columns end with one that means no object; of old networks
    that begin with it the published one is known.
    """
    *_, slots, values = shape
    if values != VALUES or not isinstance(slots, int):
        return None
    if (classes, slots) == (len(PERSON), len(PERSON) * len(COCO_POINTS)):
        return 0, len(COCO_POINTS)
    for groups in (classes - 1, classes):
        if groups > 0 and slots > 0 and slots % groups == 0:
            return (slots // groups,) * groups
    return None


def _converted(facts: Facts) -> ModelCard | None:
    """The card of a folder that transformers wrote."""
    known = facts.metadata
    task = _CONVERTED.get(known.get("class", ""))
    if task is None:
        return None
    rename = {"pred_boxes": "boxes"}
    if task == SEGMENTATION:
        rename["pred_masks"] = "masks"
    artifact = Artifact(
        facts.format,
        {"main": "."},
        files=[{"name": name} for name in known["files"]],
        rename=rename,
    ).refused(known["unsupported"])
    return ModelCard(
        id="rfdetr",
        architecture="rfdetr",
        task=task,
        artifacts=(artifact,),
        labels=known["labels"],
        config={"preprocessing": known["preprocessing"] or {}},
    )
