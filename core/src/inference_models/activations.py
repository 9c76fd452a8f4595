"""Logits to probabilities, in NumPy, without overflow."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["sigmoid", "softmax"]


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """The logistic function of each logit: 0 to 1, in their shape and dtype."""
    half: Any = np.tanh(0.5 * logits)  # unlike exp, it has no overflow
    return np.asarray(0.5 * (1 + half))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Shares (..., C) of the last axis, which add up to 1, in the logits' dtype.

    They are NaN where a logit is NaN or inf, and where all are -inf.
    """
    with np.errstate(invalid="ignore"):
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
