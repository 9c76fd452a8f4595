"""Everything between uploaded pixels and a network's batch, in one kernel of Triton.

Triton reads annotations as code, and knows none of Python's types.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from inference_models.prepare import LUMA

_BLOCK = 128
_RED, _GREEN, _BLUE = (tl.constexpr(weight) for weight in LUMA["rgb"])


@triton.jit
def _level(value):
    """Rounded and clipped, as a grey level is."""
    return tl.minimum(tl.maximum(tl.floor(value + 0.5), 0.0), 255.0)


@triton.jit
def _luma(pixels, channel):
    """ITU-R 601 luma of RGB in Pillow's fixed point, for each channel."""
    first = tl.where(channel == 0, _RED, _GREEN)
    weights = tl.where(channel == 2, _BLUE, first)[None, :]
    luma = tl.sum(pixels.to(tl.int32) * weights, axis=1) + 0x8000
    return (luma >> 16)[:, None]


@triton.jit(do_not_specialize=["height", "width", "canvas", "row_taps", "column_taps"])
def _mix(
    source,
    height,
    width,
    source_row,
    source_column,
    source_channel,
    target,
    canvas,
    target_row,
    target_column,
    target_channel,
    rows,
    row_taps,
    columns,
    column_taps,
    affine,
    padding,
    turned: tl.constexpr,
    gray: tl.constexpr,
    stepwise: tl.constexpr,
    none: tl.constexpr,
    block: tl.constexpr,
) -> None:
    y = tl.program_id(1)
    x = tl.program_id(0) * block + tl.arange(0, block)
    channel = tl.arange(0, 4)  # Triton has powers of two alone
    on_canvas = x < canvas
    known = on_canvas[:, None] & (channel < 3)[None, :]
    taken = (2 - channel if turned else channel) * source_channel
    row, column = rows + y * (1 + row_taps), columns + x * (1 + column_taps)
    first_y = tl.load(row).to(tl.int32)
    first_x = tl.load(column, mask=on_canvas, other=none).to(tl.int32)
    total = tl.zeros([block, 4], tl.float32)
    for i in range(row_taps):
        from_y = tl.minimum(tl.maximum(first_y + i, 0), height - 1).to(tl.int64)
        line = source + from_y * source_row
        mixed = tl.zeros([block, 4], tl.float32)
        for j in range(column_taps):
            from_x = tl.minimum(tl.maximum(first_x + j, 0), width - 1)
            place = (from_x * source_column)[:, None] + taken[None, :]
            pixels = tl.load(line + place, mask=known, other=0)
            if gray:
                pixels = _luma(pixels, channel)
            weight = tl.load(column + 1 + j, mask=on_canvas, other=0.0)
            mixed += weight[:, None] * pixels.to(tl.float32)
        total += tl.load(row + 1 + i) * (_level(mixed) if stepwise else mixed)
    shown = (first_y > none) & (first_x > none)
    level = tl.where(shown[:, None], _level(total), padding)
    multiply = tl.load(affine + channel, mask=channel < 3, other=0.0)
    add = tl.load(affine + 3 + channel, mask=channel < 3, other=0.0)
    value = level * multiply[None, :] + add[None, :]
    place = (x * target_column)[:, None] + (channel * target_channel)[None, :]
    line = target + y.to(tl.int64) * target_row
    tl.store(line + place, value.to(target.dtype.element_ty), mask=known)


def mix(
    source: torch.Tensor,
    planes: torch.Tensor,
    tables: tuple[torch.Tensor, torch.Tensor],
    affine: torch.Tensor,
    padding: float,
    *,
    turned: bool,
    gray: bool,
    stepwise: bool,
    none: int,
) -> None:
    """Write uint8 pixels (C, h, w) of one or three channels to `planes` (3, H, W).

    `tables` are those of rows and columns, whose first pixel is `none` where there is
    `padding`. Levels are multiplied by the first three of `affine`, and the others are
    added. `turned` exchanges the first and the last channel; `gray` makes luma of RGB
    first; `stepwise` rounds and clips after each axis, as Pillow does.
    """
    rows, columns = tables
    channels, height, width = source.shape
    across, down, along = source.stride()
    _, tall, wide = planes.shape
    into_plane, into_row, into_column = planes.stride()
    _mix[(triton.cdiv(wide, _BLOCK), tall)](
        *(source, height, width, down, along, across if channels > 1 else 0),
        *(planes, wide, into_row, into_column, into_plane),
        *(rows, rows.shape[1] - 1, columns, columns.shape[1] - 1),
        *(affine, padding),
        turned=turned,
        gray=gray,
        stepwise=stepwise,
        none=none,
        block=_BLOCK,
    )
