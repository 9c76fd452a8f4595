"""YOLOX as a third-party pack: one architecture, and the card of YOLOX-Nano."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

from inference_models import (
    Architecture,
    ConfidenceOptions,
    Detections,
    Facts,
    Frame,
    ModelCard,
    Operations,
    cxcywh_to_xyxy,
    hookimpl,
    nms,
)

STRIDES = (8, 16, 32)


@attrs.frozen
class YoloxOptions(ConfidenceOptions):
    """Options of a call: the least confidence, and how much boxes may overlap."""

    iou: float = attrs.field(
        default=0.45, validator=[attrs.validators.ge(0), attrs.validators.le(1)]
    )
    max_detections: int = attrs.field(
        default=300, converter=operator.index, validator=attrs.validators.ge(1)
    )


class Yolox(Architecture[YoloxOptions]):
    """Ge et al., "YOLOX: Exceeding YOLO Series in 2021", arXiv:2107.08430.

    The graph's output (B, cells, 5 + C) holds, for each cell of three grids, the box
    relative to the cell, the objectness and the classes' scores, both in 0–1.
    """

    name = "yolox"
    tasks = ("object-detection",)
    Options = YoloxOptions

    @classmethod
    def claims(cls, facts: Facts) -> ModelCard | None:
        """An ONNX export of any size and number of classes, by its cells."""
        image, output = (facts.tensors.get(name) for name in ("images", "output"))
        if image is None or output is None or len(output.shape) != 3:
            return None
        size, (cells, columns) = image.shape[2:], output.shape[1:]
        sides = [side for side in (*size, columns) if isinstance(side, int)]
        if len(sides) < 3 or cells != sum(
            sides[0] // s * (sides[1] // s) for s in STRIDES
        ):
            return None
        card = next(iter(cls.cards()))
        preprocessing = {**card.config["preprocessing"], "size": size}
        labels = [f"class_{number}" for number in range(sides[2] - 5)]
        return attrs.evolve(
            card, labels=labels, config={"preprocessing": preprocessing}
        )

    def postprocess(
        self,
        outputs: dict[str, Any],
        frames: Sequence[Frame],
        options: YoloxOptions,
        ops: Operations,
    ) -> list[Detections]:
        """Boxes above the threshold, after class-wise suppression of overlaps."""
        threshold = self.threshold(options.confidence, default=0.35)
        cells = ops.host(outputs["output"])
        return [
            self._detections(*pair, threshold, options)
            for pair in zip(cells, frames, strict=True)
        ]

    def _detections(
        self, cells: np.ndarray, frame: Frame, threshold: Any, options: YoloxOptions
    ) -> Detections:
        classes = self.columns(cells[:, 5:])
        likely = np.flatnonzero(cells[:, 4] >= np.min(threshold))
        likely = likely[np.isfinite(cells[likely, :4]).all(axis=1)]
        scores = classes[likely] * cells[likely, 4:5]
        scores[scores < threshold] = -1
        reached = scores.max(axis=1) >= 0
        confident, scores = likely[reached], scores[reached]
        class_id, confidence = scores.argmax(axis=1), scores.max(axis=1)
        xyxy = cxcywh_to_xyxy(_decoded(cells, confident, frame))
        kept = nms(xyxy, confidence, class_id, iou=options.iou)
        kept = kept[: options.max_detections]
        return Detections.sort(
            frame.to_original(xyxy[kept]),
            confidence[kept],
            class_id[kept],
            self.class_names,
        )


def _decoded(cells: np.ndarray, chosen: np.ndarray, frame: Frame) -> np.ndarray:
    """Boxes (N, 4), centre and size in the network's pixels, of the chosen cells."""
    grids = []
    for stride in STRIDES:
        rows, columns = frame.input_height // stride, frame.input_width // stride
        y, x = np.divmod(np.arange(rows * columns), columns)
        grids.append(np.stack([x, y, np.full_like(x, stride)], axis=1))
    grid = np.concatenate(grids)[chosen].astype(np.float32)
    centre = (cells[chosen, :2] + grid[:, :2]) * grid[:, 2:]
    return np.concatenate([centre, np.exp(cells[chosen, 2:4]) * grid[:, 2:]], axis=1)


@hookimpl
def architectures() -> list[type[Architecture[Any]]]:
    """What this pack adds."""
    return [Yolox]
