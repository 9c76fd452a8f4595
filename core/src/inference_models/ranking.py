"""The best of many scores, without sorting them all."""

from __future__ import annotations

import numpy as np

__all__ = ["highest"]

_GROUP = 64


def highest(values: np.ndarray, count: int) -> np.ndarray:
    """Indices (K,) of the `count` highest values (N,), highest first, K ≤ `count`.

    Of equal values the first comes first, as a stable sort has them. None may be NaN.
    """
    count = min(count, len(values))
    if count < 1:
        return np.empty(0, np.intp)
    found = np.arange(len(values))
    size = min(_GROUP, len(values) // count)
    if size > 1:
        # The values are cut into at least `count` groups. The `count` highest of the
        # groups' own maxima are candidates, so no value below the least of these can
        # be among the highest, and few are left to sort.
        tops = values[: len(values) // size * size].reshape(size, -1).max(axis=0)
        found = np.flatnonzero(values >= np.partition(tops, -count)[-count])
    # Backwards twice, so that of equal values the first comes first.
    found = found[::-1]
    order = np.argsort(values[found], kind="stable")[::-1]
    return np.asarray(found[order[:count]])
