"""From the pixels of a network's input back to those of the original image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import attrs
import numpy as np

_AT_A_TIME = 16384  # pixels whose scores are mapped together


@attrs.frozen
class Frame:
    """One affine map from the network's pixels to the original's.

    `x_original = x * scale_x + offset_x`, with pixel edges at whole numbers; `height`
    and `width` are the original's, `input_height` and `input_width` the network's.
    `seen` is the part of the original that the network was shown: top, left, bottom and
    right; None is all of it.
    """

    height: int
    width: int
    input_height: int
    input_width: int
    scale_x: float = 1.0
    scale_y: float = 1.0
    offset_x: float = 0.0
    offset_y: float = 0.0
    seen: tuple[int, int, int, int] | None = None

    @property
    def shown(self) -> tuple[int, int, int, int]:
        """What was shown, in numbers."""
        return self.seen or (0, 0, self.height, self.width)

    def to_original(self, xyxy: np.ndarray) -> np.ndarray:
        """Boxes (N, 4) in the network's pixels -> the original's, float32.

        They are clipped to what the network was shown.
        """
        boxes = np.asarray(xyxy, np.float32)
        corners = self.points_to_original(boxes.reshape(*boxes.shape[:-1], 2, 2))
        top, left, bottom, right = map(np.float32, self.shown)
        inside = np.minimum(np.maximum(corners, [left, top]), [right, bottom])
        return np.asarray(inside.reshape(boxes.shape))

    def from_normalized(self, xyxy: np.ndarray) -> np.ndarray:
        """Boxes (N, 4) in 0–1 of the network's input -> the original's pixels.

        float32, clipped as by `to_original`.
        """
        size = np.array([self.input_width, self.input_height] * 2, np.float32)
        with np.errstate(over="ignore"):  # what is infinitely far is clipped
            return self.to_original(np.asarray(xyxy, np.float32) * size)

    def points_to_original(self, xy: np.ndarray) -> np.ndarray:
        """Points (..., 2) in the network's pixels -> the original's, float32.

        They are not clipped: a point may lie outside the image.
        """
        scale = np.array([self.scale_x, self.scale_y], np.float32)
        offset = np.array([self.offset_x, self.offset_y], np.float32)
        with np.errstate(over="ignore"):
            return np.asarray(np.asarray(xy, np.float32) * scale + offset)

    def maps_to_original(self, maps: np.ndarray, outside: float = 0.0) -> np.ndarray:
        """Maps (N, h, w) of the network's input -> float32 (N, H, W) of the original.

        A map of any size covers the whole input. Between the centres of its cells
        values are linear, which takes finite ones; `outside` is for pixels that the
        network did not see.
        """
        whole = slice(0, self.height), slice(0, self.width)
        found = [self._seen(cells, outside, *whole) for cells in maps]
        return np.array(found, np.float32).reshape(-1, self.height, self.width)

    def masks_to_original(self, logits: np.ndarray) -> np.ndarray:
        """Logits (N, h, w) of the network's input -> bool (N, H, W) of the original.

        They are mapped as by `maps_to_original`, and true above 0.
        """
        found = np.zeros((len(logits), self.height, self.width), np.bool_)
        for mask, cells in zip(found, logits, strict=True):
            # Between cells that are not above 0 nothing is, so the rest stays False.
            rows, columns = self._around(cells > 0)
            mask[rows, columns] = self._seen(cells, -1, rows, columns) > 0
        return found

    def class_ids_to_original(
        self, scores: np.ndarray, outside: int = -1
    ) -> np.ndarray:
        """Scores (C, h, w) of the network's input -> int32 (H, W) of the original.

        Of each pixel, the class whose score is highest, the first of equal ones, if all
        scores were mapped as by `maps_to_original`; -inf is a class that is never it.
        `outside` is for pixels that the network did not see.
        """
        finite = np.clip(np.asarray(scores, np.float32), -1e30, 1e30)
        cells = np.ascontiguousarray(finite.transpose(1, 2, 0))
        best = cells.argmax(axis=2).astype(np.int32)
        down, across = self._sides(best.shape)
        upper, lower, low_share, seen_rows = down.between(slice(0, self.height))
        left, right, right_share, seen_columns = across.between(slice(0, self.width))
        over, under = best[upper], best[lower]
        found: np.ndarray = over[:, left]
        # Where the four cells around a pixel agree, so does all between them.
        mixed = found != over[:, right]
        mixed |= found != under[:, left]
        mixed |= found != under[:, right]
        for y, x in _in_parts(*np.nonzero(mixed)):
            share = right_share[x, None]
            above = _mixed(cells[upper[y], left[x]], cells[upper[y], right[x]], share)
            below = _mixed(cells[lower[y], left[x]], cells[lower[y], right[x]], share)
            found[y, x] = _mixed(above, below, low_share[y, None]).argmax(axis=1)
        found[~seen_rows] = outside
        found[:, ~seen_columns] = outside
        return found

    def _around(self, cells: np.ndarray) -> tuple[slice, slice]:
        """Rows and columns of the original that any True of (h, w) reaches."""
        down, across = self._sides(cells.shape)
        rows, columns = (np.asarray(cells.any(axis=axis)) for axis in (1, 0))
        return down.reached(rows), across.reached(columns)

    def _seen(
        self, cells: np.ndarray, outside: float, rows: slice, columns: slice
    ) -> np.ndarray:
        """A part of the original, float32, of a map (h, w) of the network's input."""
        down, across = self._sides(cells.shape)
        values = np.asarray(cells, np.float32)
        left, right, share, seen = across.between(columns)
        values = _mixed(values[:, left], values[:, right], share)
        values[:, ~seen] = outside
        upper, lower, share, seen = down.between(rows)
        values = _mixed(values[upper], values[lower], share[:, None])
        values[~seen] = outside
        return values

    def _sides(self, cells: Sequence[int]) -> tuple[_Side, _Side]:
        rows, columns = cells
        high = self.input_height * self.scale_y / rows
        wide = self.input_width * self.scale_x / columns
        top, left, bottom, right = self.shown
        return (
            _Side(rows, high, self.offset_y, top, bottom),
            _Side(columns, wide, self.offset_x, left, right),
        )


@attrs.frozen
class _Side:
    """One side of a map: so many cells, where they lie, and the pixels that were shown.

    A cell is `step` pixels wide, and the first begins at `offset`.
    """

    cells: int
    step: float
    offset: float
    start: int
    stop: int

    def reached(self, cells: np.ndarray) -> slice:
        """The pixels between the centres of the neighbours of cells that are True."""
        numbers = np.flatnonzero(cells)
        if not len(numbers):
            return slice(0, 0)
        first = math.floor((numbers[0] - 0.5) * self.step + self.offset - 0.5)
        last = math.ceil((numbers[-1] + 1.5) * self.step + self.offset - 0.5)
        start = min(max(first, self.start), self.stop)
        return slice(start, min(max(last + 1, start), self.stop))

    def between(
        self, part: slice
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of each pixel: two cells beside it, the second's share, and if it is seen.

        Beyond the outermost cells' centres values stay as they are there.
        """
        pixels = np.arange(part.start, part.stop)
        place = (pixels + 0.5 - self.offset) / self.step
        centred = np.clip(place - 0.5, 0, self.cells - 1)
        first = centred.astype(np.intp)
        second = np.minimum(first + 1, self.cells - 1)
        share = (centred - first).astype(np.float32)
        seen = (place >= 0) & (place < self.cells)
        seen &= (pixels >= self.start) & (pixels < self.stop)
        return first, second, share, seen


def _in_parts(
    rows: np.ndarray, columns: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pixels, so many at a time that the scores of all classes fit into caches."""
    for start in range(0, len(rows), _AT_A_TIME):
        part = slice(start, start + _AT_A_TIME)
        yield rows[part], columns[part]


def _mixed(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Values between two, at `share` of the way; `second` is overwritten."""
    with np.errstate(invalid="ignore"):  # a network may give NaN or inf
        second -= first
        second *= share
        second += first
    return second
