"""What the network says of points, as pixels and shares; NumPy alone.

A point's values are `VALUES`; one that is not there, as its class has fewer points than
another, is all zeros.
"""

from __future__ import annotations

import numpy as np

from inference_models import Frame, sigmoid

VALUES = 8
"""Of each point: x and y as shares of the image; logits that it can be found, and that
it is seen; of its precision's Cholesky factor the logarithm of the first, the second,
and the logarithm of the third number; and what it adds to the logit of its class."""

_FINDABLE = 2
_FACTOR = slice(4, 7)
_SPREAD = 0.2  # how much a thing counts less for points that may be elsewhere
_TINY = 1e-12
_FAR = 1e6


def of_pairs(
    slots: np.ndarray, classes: int, query: np.ndarray, label: np.ndarray
) -> np.ndarray:
    """The points float64 (N, K, 8) of N pairs of query and class.

    `slots` (Q, classes * K, 8) has those of so many classes from column 0 on; the
    others have none. One with a value that is no number is none, either, and one that
    is a million images away.
    """
    grouped = slots.reshape(len(slots), classes, -1, VALUES)
    found = grouped[query, np.minimum(label, classes - 1)].astype(np.float64)
    known = np.isfinite(found).all(axis=-1) & (label < classes)[:, None]
    known &= (np.abs(found[..., :2]) < _FAR).all(axis=-1)
    return np.where(known[..., None], found, 0.0)


def fused(scores: np.ndarray, points: np.ndarray, pointed: np.ndarray) -> np.ndarray:
    """How sure things are, float32 (N,), by what is known of their points, too.

    s / (1 + s), where s is the score (N,) over a power of the points' mean variance,
    weighted by how sure each point is, as the trainer does it. Things whose class has
    no slots for points, by `pointed` bool (N,), keep their score.
    """
    first, between, last = np.moveaxis(points[..., _FACTOR], -1, 0)
    both = 2 * np.log(np.maximum(np.abs(between), _TINY)) - 2 * first - 2 * last
    variance = np.logaddexp(np.logaddexp(-2 * first, -2 * last), both)
    weight = np.log(np.maximum(confidences(points), _TINY))
    weight[~points.any(axis=-1)] = -np.inf
    mean = np.zeros(len(points))
    some = points.any(axis=(1, 2))
    total = np.logaddexp.reduce((variance + weight)[some], axis=-1)
    mean[some] = total - np.logaddexp.reduce(weight[some], axis=-1)
    with np.errstate(divide="ignore"):
        better = sigmoid(np.log(scores) - _SPREAD * mean)
    return np.where(pointed, better, scores).astype(np.float32)


def confidences(points: np.ndarray) -> np.ndarray:
    """How sure each point is, (N, K) in 0–1; 0 for one that is not there."""
    return np.where(points.any(axis=-1), sigmoid(points[..., _FINDABLE]), 0.0)


def located(points: np.ndarray, frame: Frame) -> np.ndarray:
    """Where points are, float32 (N, K, 2) in the original's pixels."""
    size = np.array([frame.input_width, frame.input_height])
    return frame.points_to_original(points[..., :2] * size)


def covariances(points: np.ndarray, frame: Frame) -> np.ndarray:
    """Where else points may be, float32 (N, K, 2, 2) in the original's pixels squared.

    NaN where numbers cannot hold it.
    """
    first, between, last = np.moveaxis(points[..., _FACTOR], -1, 0)
    with np.errstate(over="ignore", invalid="ignore"):
        upper, lower = np.exp(-first), np.exp(-last)
        across = -between * upper * lower
        rows = [[upper, across], [np.zeros_like(upper), lower]]
        factor = np.moveaxis(np.array(rows), (0, 1), (-2, -1))
        wide, high = frame.input_width, frame.input_height
        size = np.array([wide * frame.scale_x, high * frame.scale_y])
        scaled = size[:, None] * factor
        found = (scaled @ np.swapaxes(scaled, -1, -2)).astype(np.float32)
    known = np.isfinite(found).all(axis=(-2, -1))
    found[~known] = np.nan
    return np.asarray(found)
