"""Non-maximum suppression of 1,000 boxes, beside supervision's on the same boxes."""

from __future__ import annotations

import statistics
from functools import partial

import numpy as np
import scenes
from supervision.detection.utils.iou_and_nms import box_non_max_suppression

from inference_models import nms

COUNT, IOU = 1000, 0.45


def table(rounds: int) -> list[str]:
    """Medians of calls that take turns, and how many boxes each keeps."""
    lines = ["", f"## Suppression of {COUNT} boxes, IoU {IOU}", ""]
    lines += ["| boxes | ours | supervision | kept |", "| --- | --- | --- | --- |"]
    for name, (xyxy, class_id) in arrangements().items():
        confidence = np.random.default_rng(1).random(COUNT, np.float32)
        rows = np.column_stack([xyxy, confidence, class_id]).astype(np.float32)
        ours = partial(nms, xyxy, confidence, class_id, iou=IOU)
        theirs = partial(box_non_max_suppression, rows, IOU)
        times: dict[str, list[float]] = {"ours": [], "supervision": []}
        for _ in range(rounds):
            times["ours"].append(scenes.timed(ours))
            times["supervision"].append(scenes.timed(theirs))
        kept = ours()
        assert set(kept) == set(np.flatnonzero(theirs()))
        medians = [f"{statistics.median(found):.2f}" for found in times.values()]
        lines.append(f"| {name} | {' | '.join(medians)} | {len(kept)} |")
    return lines


def arrangements() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Boxes in clusters, as detectors give them, and boxes that all stay."""
    random = np.random.default_rng(0)
    centres = random.uniform(0, 640, (40, 2)).repeat(COUNT // 40, 0)
    corners = centres + random.normal(0, 4, (COUNT, 2))
    clusters = np.hstack([corners, corners + random.uniform(40, 60, (COUNT, 2))])
    y, x = np.divmod(np.arange(COUNT), 40)
    apart = np.stack([x * 16, y * 16, x * 16 + 12, y * 16 + 12], axis=1)
    one = np.zeros(COUNT, np.int64)
    return {
        "clusters, one class": (clusters.astype(np.float32), one),
        "clusters, 80 classes": (
            clusters.astype(np.float32),
            random.integers(0, 80, COUNT),
        ),
        "none overlap, one class": (apart.astype(np.float32), one),
    }
