"""Box geometry for detectors' post-processing, in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inference_models.errors import InvalidInput, InvalidOption

__all__ = ["cxcywh_to_xyxy", "nms"]

# Boxes are compared 128 by 128: fewer make more NumPy calls, more gain little.
_BLOCK = 128

# float32 has the areas of boxes that reach so far, and not of infinite ones.
_FAR = 1e18


def cxcywh_to_xyxy(boxes: ArrayLike) -> NDArray[np.float32]:
    """Centre, width and height to corners, for any leading dimensions."""
    array = np.asarray(boxes, dtype=np.float32)
    centre, half = array[..., :2], array[..., 2:4] / 2
    return np.concatenate((centre - half, centre + half), axis=-1)


def nms(
    xyxy: ArrayLike,
    confidence: ArrayLike,
    class_id: ArrayLike | None = None,
    *,
    iou: float,
) -> NDArray[np.intp]:
    """Indices that greedy non-maximum suppression keeps, most confident first.

    A box is dropped if a box kept before it overlaps it by more than `iou`, which
    is between 0 and 1; of equally confident boxes the lower index comes first.
    With `class_id`, only boxes of one class are compared. A box without area
    overlaps nothing, so it is kept. Raises `InvalidInput` unless `xyxy` is (N, 4),
    for N confidences and classes, and `InvalidOption` for another `iou`.
    """
    if not isinstance(iou, (int, float, np.number)) or not 0 <= iou <= 1:
        raise InvalidOption(f"iou {iou!r} is not a number from 0 to 1")
    score = -np.asarray(confidence, dtype=np.float64).reshape(-1)
    corners = np.clip(np.asarray(xyxy, dtype=np.float32), -_FAR, _FAR)
    if corners.shape != (len(score), 4) and (corners.size or len(score)):
        raise InvalidInput(
            f"boxes of shape {corners.shape} are not ({len(score)}, 4), as "
            f"{len(score)} confidences have them"
        )
    corners = corners.reshape(-1, 4)
    group = np.zeros(len(score), dtype=np.intp)
    if class_id is not None:
        group = np.unique(np.asarray(class_id), return_inverse=True)[1].reshape(-1)
    if len(group) != len(score):
        raise InvalidInput(f"there are {len(group)} classes of {len(score)} boxes")
    order = np.lexsort((score, group))
    kept = np.sort(order[_greedy(_columns(corners, group).take(order, axis=1), iou)])
    return kept[np.argsort(score[kept], kind="stable")]


def _columns(
    corners: NDArray[np.float32], group: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Rows x1, y1, x2, y2, area and group: each is contiguous over the boxes."""
    x1, y1, x2, y2 = corners.T
    area = np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0)
    return np.stack((x1, y1, x2, y2, area, group.astype(np.float32)))


def _greedy(boxes: NDArray[np.float32], iou: float) -> NDArray[np.intp]:
    """Columns kept, of columns sorted by group and then by falling confidence.

    Within a block, boxes are decided one after another on bit masks; then all boxes
    behind the block are compared at once with what the block kept.
    """
    waiting = np.arange(boxes.shape[1])
    kept = [waiting[:0]]
    while waiting.size:
        block, rest = waiting[:_BLOCK], waiting[_BLOCK:]
        compared = boxes.take(block, axis=1)
        block = block[_survivors(_overlaps(compared, compared, iou))]
        kept.append(block)
        waiting = _without_overlap(boxes, block, rest, iou)
    return np.concatenate(kept)


def _survivors(overlaps: NDArray[np.bool_]) -> list[int]:
    """Rows that no earlier surviving row overlaps."""
    packed = np.packbits(overlaps, axis=1, bitorder="little")
    dropped = 0
    survivors = []
    for index, row in enumerate(packed):
        if not dropped >> index & 1:
            survivors.append(index)
            dropped |= int.from_bytes(row.tobytes(), "little")
    return survivors


def _without_overlap(
    boxes: NDArray[np.float32],
    kept: NDArray[np.intp],
    rest: NDArray[np.intp],
    iou: float,
) -> NDArray[np.intp]:
    """Those of `rest` that no box of `kept` overlaps."""
    winners = boxes.take(kept, axis=1)
    near = int(np.count_nonzero(boxes[5].take(rest) <= winners[5, -1]))
    free = np.ones(len(rest), dtype=np.bool_)
    for start in range(0, near, _BLOCK):
        part = slice(start, min(start + _BLOCK, near))
        compared = boxes.take(rest[part], axis=1)
        free[part] = ~_overlaps(winners, compared, iou).any(axis=0)
    return rest[free]


def _overlaps(
    a: NDArray[np.float32], b: NDArray[np.float32], iou: float
) -> NDArray[np.bool_]:
    """Pairs of one group whose intersection is more than `iou` of their union."""
    left, top, right, bottom, area, group = a[:, :, None]
    width = np.minimum(right, b[2]) - np.maximum(left, b[0])
    shared = np.minimum(bottom, b[3]) - np.maximum(top, b[1])
    shared *= width
    union = area + b[4]
    union -= shared
    union *= iou
    pairs: NDArray[np.bool_] = shared > union
    pairs &= width > 0  # or two negative sides make a positive area
    if a[5, 0] != b[5, -1]:
        pairs &= group == b[5]
    return pairs
