"""Resize, crop, padding and reflection of one axis, as a table of filter taps.

A pixel of the canvas is a weighted sum of neighbouring pixels of the source. Its row of
the table holds the index of the first of them, or `PADDING`, and the weight of each.
Whatever applies such tables needs to know no interpolation, crop or padding.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import numpy as np

from inference_models import Preprocessing
from inference_models.preprocess import Placement
from inference_models_torch.resize import nearest_index

PADDING = -16
"""In place of the first pixel's index: the canvas shows nothing of the image there. It
is below all indices, as cubic interpolation can begin two pixels before the source."""


@attrs.frozen
class Axis:
    """One axis of a resize from `source` to `resized` pixels, and of the canvas.

    Lengths are in pixels; `interpolation` and `antialias` are those of `Preprocessing`.
    """

    source: int
    resized: int
    offset: int
    """Of the first resized pixel on the canvas; below zero where some are cut off."""
    canvas: int
    interpolation: str
    antialias: bool
    reflects: bool
    """Whether the image is mirrored at its edges, rather than padded."""


def axes(
    source: tuple[int, int], place: Placement, spec: Preprocessing
) -> tuple[Axis, Axis]:
    """Rows and columns of a source (height, width) on their way to the canvas."""
    reflects = spec.resize == "letterbox-reflect"
    rows, columns = (
        Axis(*sizes, spec.interpolation, spec.antialias, reflects)
        for sizes in zip(source, place.resized, place.offset, place.canvas, strict=True)
    )
    return rows, columns


def plain_axes(
    source: tuple[int, int], size: tuple[int, int], spec: Preprocessing
) -> tuple[Axis, Axis]:
    """Rows and columns of a source (height, width) that is resized, and no more."""
    rows, columns = (
        Axis(before, after, 0, after, spec.interpolation, spec.antialias, False)
        for before, after in zip(source, size, strict=True)
    )
    return rows, columns


def table(axis: Axis) -> np.ndarray:
    """float32 (canvas, 1 + taps): the first pixel's index or `PADDING`, and weights."""
    first, weights = _mixed(axis)
    shown, inside = _shown(axis)
    filled = np.concatenate([first[:, None], weights], axis=1)[shown]
    filled[~inside, 0] = PADDING
    return np.asarray(filled, np.float32)


def _shown(axis: Axis) -> tuple[np.ndarray, np.ndarray]:
    """Which resized pixel each pixel of the canvas shows, and whether it shows any."""
    place = np.arange(axis.canvas) - axis.offset
    inside = (place >= 0) & (place < axis.resized)
    if not axis.reflects:
        return np.where(inside, place, 0), inside
    seen = place[inside]
    before = int(np.argmax(inside))
    after = axis.canvas - before - len(seen)
    return np.pad(seen, (before, after), mode="reflect"), np.ones_like(inside)


def _mixed(axis: Axis) -> tuple[np.ndarray, np.ndarray]:
    """First pixel (resized,) and weights (resized, taps) of the resize alone.

    Taps may lie outside the source, and are then clamped to its outermost pixels.
    """
    if axis.source == axis.resized:
        return np.arange(axis.source), np.ones((axis.source, 1))
    if axis.interpolation == "nearest":
        index = nearest_index(axis.source, axis.resized)
        return index, np.ones((axis.resized, 1))
    cubic = axis.interpolation == "bicubic"
    if axis.antialias:
        return _filtered(axis, _cubic if cubic else _triangle, 2 if cubic else 1)
    return _sampled(axis, cubic)


def _filtered(
    axis: Axis, kernel: Callable[[np.ndarray], np.ndarray], support: int
) -> tuple[np.ndarray, np.ndarray]:
    """Antialiased: the kernel is as wide as the step between samples, as in Pillow."""
    step = axis.source / axis.resized
    width = max(step, 1.0)
    reach = support * width
    centre = (np.arange(axis.resized) + 0.5) * step
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + reach + 0.5).astype(np.int64), axis.source)
    taps = first[:, None] + np.arange((last - first).max())
    weights = kernel((taps - centre[:, None] + 0.5) / width)
    weights[taps >= last[:, None]] = 0
    return first, weights / weights.sum(axis=1, keepdims=True)


def _sampled(axis: Axis, cubic: bool) -> tuple[np.ndarray, np.ndarray]:
    """Not antialiased: the two or four nearest pixels, however large the step is."""
    centre = (np.arange(axis.resized) + 0.5) * (axis.source / axis.resized) - 0.5
    if not cubic:
        centre = np.maximum(centre, 0)
    first = np.floor(centre).astype(np.int64)
    rest = (centre - first)[:, None]
    if not cubic:
        return first, np.concatenate([1 - rest, rest], axis=1)
    # -0.75 as in OpenCV and torch; Pillow's filter has -0.5.
    return first - 1, _cubic(np.arange(-1, 3) - rest, -0.75)


def _triangle(distance: np.ndarray) -> np.ndarray:
    """The kernel of linear interpolation."""
    return np.asarray(np.maximum(1 - np.abs(distance), 0))


def _cubic(distance: np.ndarray, a: float = -0.5) -> np.ndarray:
    """Keys, "Cubic convolution interpolation for digital image processing", 1981."""
    x = np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))
