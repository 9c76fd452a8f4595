"""Pictures, and arrays of other libraries, to test with."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import Any

import numpy as np
import pytest

from inference_models.images import Array


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Ramps, edges and grain in uint8 RGB (H, W, 3); the same ones every time."""
    return np.array(_drawn(height, width, seed))


@functools.cache
def _drawn(height: int, width: int, seed: int) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    checks = (rows // 3 + columns // 5) % 2
    planes = [columns * 200 / width, rows * 200 / height, checks * 200]
    grain = np.random.default_rng(seed).integers(0, 56, (height, width, 3))
    return np.asarray(np.stack(planes, axis=-1) + grain).astype(np.uint8)


class DlpackArray:
    """A host array that is no numpy array, and of which only DLPack is known."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values
        self.shape = values.shape
        self.ndim = values.ndim
        self.dtype = values.dtype

    def __dlpack__(self, **arguments: Any) -> Any:
        return self._values.__dlpack__(**arguments)

    def __dlpack_device__(self) -> Any:
        return self._values.__dlpack_device__()

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, key: Any) -> DlpackArray:
        return DlpackArray(self._values[key])

    def min(self) -> Any:
        """The least value."""
        return self._values.min()

    def max(self) -> Any:
        """The largest value."""
        return self._values.max()


FORMS = ("numpy", "dlpack", "torch")


def as_form(values: np.ndarray, form: str) -> Array:
    """A numpy array as one of `FORMS`; skips the test where torch is not installed."""
    if form == "numpy":
        return values
    if form == "dlpack":
        return DlpackArray(values)
    return torch_or_skip().from_numpy(values)


def torch_or_skip() -> Any:
    """The module torch; skips the test where it is not installed."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    return importlib.import_module("torch")
