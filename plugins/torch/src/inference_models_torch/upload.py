"""Pixels on their way from the host's memory to a GPU's."""

from __future__ import annotations

import torch

# Bytes that are copied to pinned memory while those before them cross the bus.
_PIECE = 2**22


def upload(pixels: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The same (C, h, w) on a GPU, by way of pinned memory, in its order of axes.

    The work of the current stream that follows sees it; the host does not wait for it.
    The caller's memory has been read when this returns.
    """
    if pixels.device == device:
        return pixels
    if pixels.device.type != "cpu":
        return pixels.to(device)
    order = sorted(range(3), key=lambda axis: -abs(pixels.stride(axis)))
    slow = pixels.permute(order)
    # torch keeps pinned memory for later, and knows when copies have left it.
    pinned = torch.empty(slow.shape, dtype=slow.dtype, device="cpu", pin_memory=True)
    there = torch.empty(slow.shape, dtype=slow.dtype, device=device)
    step = max(1, _PIECE * len(slow) // max(1, slow.nbytes))
    for start in range(0, len(slow), step):
        piece = slice(start, start + step)
        pinned[piece].copy_(slow[piece])
        there[piece].copy_(pinned[piece], non_blocking=True)
    return there.permute(sorted(range(3), key=order.__getitem__))
