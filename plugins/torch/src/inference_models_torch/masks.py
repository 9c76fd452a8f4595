"""Masks of a network's input -> those of the original, on the device that has them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from inference_models import Frame

_AT_ONCE = 2**26
"""Pixels that are worked out at a time, in float32; 256 MB of them."""


def masks_to_original(logits: Tensor, frame: Frame) -> np.ndarray:
    """Logits (K, h, w) -> bool (K, H, W) on the host, as `Frame` maps them."""
    masks = np.empty((len(logits), frame.height, frame.width), np.bool_)
    if not len(logits):
        return masks
    grid, seen = _grid(frame, logits.device)
    count = max(1, _AT_ONCE // seen.numel())
    parts = zip(torch.from_numpy(masks).split(count), logits.split(count), strict=True)
    for mask, part in parts:
        values = grid_sample(
            part[None].float(), grid, padding_mode="border", align_corners=False
        )
        mask.copy_((values[0] > 0) & seen)
    return masks


def _grid(frame: Frame, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where in the input each pixel is, -1 to 1 (1, H, W, 2); which it saw (H, W)."""
    sides = (
        (frame.width, frame.offset_x, frame.scale_x * frame.input_width),
        (frame.height, frame.offset_y, frame.scale_y * frame.input_height),
    )
    x, y = (
        (torch.arange(pixels, device=device) + 0.5 - offset) / length
        for pixels, offset, length in sides
    )
    top, left, bottom, right = frame.shown
    seen = torch.zeros((frame.height, frame.width), dtype=torch.bool, device=device)
    rows, columns = (y >= 0) & (y < 1), (x >= 0) & (x < 1)
    part = slice(top, bottom), slice(left, right)
    seen[part] = rows[part[0], None] & columns[part[1]]
    columns, rows = torch.meshgrid(2 * x - 1, 2 * y - 1, indexing="xy")
    return torch.stack([columns, rows], dim=-1)[None], seen
