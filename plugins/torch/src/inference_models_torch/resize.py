"""Resizing of uint8 pixels, as the host's reference does it."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 - as everyone names it

from inference_models import Preprocessing, prepare
from inference_models_torch.arrays import as_tensor

# CUDA's antialiased kernel keeps its window in 48 KiB of shared memory, which is full
# when the bicubic window spans more than about 90 pixels to each pixel made.
_STEEPEST_ON_CUDA = 80


def resize(
    pixels: torch.Tensor, size: tuple[int, int], spec: Preprocessing
) -> torch.Tensor:
    """Resize uint8 (C, h, w) to `size`, (height, width)."""
    if spec.interpolation == "nearest":
        return _nearest(pixels, size)
    if pixels.device.type != "cpu":
        if _steepness(pixels, size) > _STEEPEST_ON_CUDA:
            return resize(pixels.cpu(), size, spec).to(pixels.device)
        return in_floats(pixels, size, spec)
    if spec.interpolation == "bicubic" and not spec.antialias:
        # The uint8 kernel clips overshoots between its two passes; the reference, which
        # sums sixteen neighbours at once, does not.
        return in_floats(pixels, size, spec)
    if 1 in (*pixels.shape[1:], *size):
        return _as_reference(pixels, size, spec)
    return _interpolated(pixels[None], size, spec)[0]


def _as_reference(
    pixels: torch.Tensor, size: tuple[int, int], spec: Preprocessing
) -> torch.Tensor:
    """Resize on the host, to three channels.

    torch takes an image of one row or column for one in another order of axes: pixels
    are wrong, or its assertions fail.
    """
    rows = pixels[:3].permute(1, 2, 0).expand(-1, -1, 3)
    resized = prepare.resize(np.ascontiguousarray(rows.numpy()), size, spec)
    return as_tensor(resized).permute(2, 0, 1)


def _interpolated(
    batch: torch.Tensor, size: tuple[int, int], spec: Preprocessing
) -> torch.Tensor:
    return F.interpolate(
        batch, size=size, mode=spec.interpolation, antialias=spec.antialias
    )


def in_floats(
    pixels: torch.Tensor, size: tuple[int, int], spec: Preprocessing
) -> torch.Tensor:
    """Resize (C, h, w) where there is no kernel for uint8."""
    steps = [size]
    if spec.antialias:  # Pillow rounds and clips between its two passes
        steps = [(pixels.shape[1], size[1]), size]
    batch = pixels[None].to(torch.float32)
    for step in steps:
        batch = _interpolated(batch, step, spec).round_().clamp_(0, 255)
    return batch[0].to(torch.uint8)


def _nearest(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    for axis, length in enumerate(size, start=1):
        index = torch.from_numpy(nearest_index(pixels.shape[axis], length))
        pixels = pixels.index_select(axis, index.to(pixels.device))
    return pixels


def nearest_index(length: int, target: int) -> np.ndarray:
    """Pillow's choice: it adds up steps, and its rounding errors with them."""
    step = length / target
    steps = np.full(target, step)
    steps[0] = step / 2
    return np.clip(np.cumsum(steps).astype(np.int64), 0, length - 1)


def _steepness(pixels: torch.Tensor, size: tuple[int, int]) -> float:
    height, width = pixels.shape[1:]
    return float(max(height / size[0], width / size[1]))
