"""Locations: 1000 bins along each axis of the network's input, written as tokens.

A place is x and y in turn: a box has 4 numbers, a quad 8, a polygon any even number. In
pixels it is float32, of the original image; a `Frame` says where the network saw that.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from inference_models import Frame, InvalidInput
from inference_models.images import to_host

BINS = 1000
_TOKEN = re.compile(r"<loc_([0-9]+)>")


def quantize(places: np.ndarray, frame: Frame) -> np.ndarray:
    """Pixels (..., 2n) -> bins, int64; the nearest of what the network sees."""
    steps, offsets = _steps(frame)
    points = np.asarray(places, np.float32).reshape(-1, 2)
    bins = np.clip(np.floor((points - offsets) / steps), 0, BINS - 1)
    return np.asarray(bins.astype(np.int64).reshape(np.shape(places)))


def dequantize(bins: np.ndarray, frame: Frame) -> np.ndarray:
    """Bins (..., 2n) -> the pixels in their middles, float32, inside the image."""
    steps, offsets = _steps(frame)
    points = np.asarray(bins, np.float32).reshape(-1, 2)
    limits = np.array([frame.width, frame.height], np.float32)
    pixels = np.clip((points + np.float32(0.5)) * steps + offsets, 0, limits)
    return np.asarray(pixels.reshape(np.shape(bins)))


def _steps(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """The size of a bin in the original's pixels, and where the first begins: x, y."""
    across = frame.input_width * frame.scale_x / BINS
    down = frame.input_height * frame.scale_y / BINS
    offsets = np.array([frame.offset_x, frame.offset_y], np.float32)
    return np.array([across, down], np.float32), offsets


def tokens_of(bins: np.ndarray) -> str:
    """Bins of any shape -> "<loc_1><loc_2>…"."""
    return "".join(f"<loc_{number}>" for number in np.ravel(bins))


def bins_of(text: str) -> np.ndarray:
    """All location tokens of a text -> int64 (N,); beyond the last bin, that one."""
    found = (number.lstrip("0")[:4] or "0" for number in _TOKEN.findall(text))
    return np.array([min(int(number), BINS - 1) for number in found], np.int64)


def groups(bins: np.ndarray, count: int) -> np.ndarray:
    """Bins (N,) -> (M, count), without what is left over."""
    return bins[: len(bins) // count * count].reshape(-1, count)


def to_text(places: np.ndarray, frame: Frame) -> str:
    """Pixels (..., 2n) -> location tokens."""
    return tokens_of(quantize(places, frame))


def region(xyxy: Any, width: int, height: int) -> np.ndarray:
    """A box that a user gives -> pixels, float32 (4,).

    Where all four numbers lie in 0–1 they are shares of the picture's width and height.
    Raises `InvalidInput` for what is no box inside the picture.
    """
    box = _four(xyxy)
    if np.all((box >= 0) & (box <= 1)):
        box = box * [width, height, width, height]
    left, top, right, bottom = box
    if not (left < right and top < bottom):
        raise InvalidInput(
            f"the region {box.tolist()} is empty; give (x1, y1, x2, y2) with x1 < x2 "
            "and y1 < y2"
        )
    if left < 0 or top < 0 or right > width or bottom > height:
        raise InvalidInput(
            f"the region {box.tolist()} is not inside the picture of {width}x{height} "
            "pixels; give pixels inside it, or shares of it in 0–1"
        )
    return np.asarray(box, np.float32)


def _four(xyxy: Any) -> np.ndarray:
    """Four finite numbers, in double precision."""
    try:
        box = np.asarray(to_host(xyxy) if hasattr(xyxy, "__dlpack__") else xyxy)
    except (TypeError, ValueError):
        box = np.empty(0)
    if box.shape != (4,) or box.dtype.kind not in "iuf" or not np.isfinite(box).all():
        raise InvalidInput(
            f"the region {xyxy!r:.100} is not a box; give four finite numbers, "
            "(x1, y1, x2, y2)"
        )
    return box.astype(np.float64)
