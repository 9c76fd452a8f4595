"""A training checkpoint's tensors, as the network for inference takes them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from torch import Tensor, cat
from torch.nn.functional import interpolate

from inference_models import InvalidWeights
from inference_models_rfdetr.layout import (
    POINT_SLOTS,
    POSITIONS,
    QUERIES,
    Layout,
    without_prefix,
)

_OF_QUERIES = (QUERIES, "refpoint_embed.weight")

# What training needs and inference does not.
_DROPPED = re.compile(
    r"_kp_active_mask|transformer\.decoder\.keypoint_class_mask"  # said by the layout
    r"|.*\.embeddings\.mask_token"  # stands for patches that pretraining hides
    r"|transformer\.enc_out\w+\.[1-9]\d*\..*"  # Group DETR: all groups but the first
    r"|transformer\.(enc_out_keypoint_embed|keypoint_query_initializer_enc)\..*"
    r"|keypoint_head\..*"  # of an earlier design, still in the published file
)
_ENCODER_LAYER = re.compile(r"backbone\.0\.encoder\.encoder\.encoder\.layer\.(\d+)\.")
# Convolutions that the network computes as linear layers.
_POINTWISE = re.compile(
    r"backbone\.0\.(cross_attn_)?projector\.stages\.\d+\.0\.cv\d\.conv\.weight"
    r"|segmentation_head\.spatial_features_proj\.weight"
)


def for_inference(tensors: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """The tensors that inference uses, under their own names, shaped for `layout`."""
    named = without_prefix(tensors)
    _check_points(named.get(POINT_SLOTS), layout)
    kept = {name: named[name] for name in named if not _is_dropped(name, layout)}
    for name in _OF_QUERIES:
        if name in kept:
            kept[name] = kept[name][: layout.queries]  # those of the first group
    for name in filter(_POINTWISE.fullmatch, kept):
        kept[name] = kept[name].flatten(1)
    if POSITIONS in kept:
        kept[POSITIONS] = _resized(kept[POSITIONS], layout.side)
    return kept


def _check_points(slots: Tensor | None, layout: Layout) -> None:
    """Raise `InvalidWeights` where classes have other numbers of points, (C, most)."""
    if slots is None or slots.is_meta:
        return
    if slots.ndim != 2:
        raise InvalidWeights(
            f"{POINT_SLOTS!r} has the shape {tuple(slots.shape)}, and not that of "
            "classes and their points; is it of another model?"
        )
    counts = tuple(slots.float().sum(dim=1).tolist())
    if counts != layout.keypoints:
        raise InvalidWeights(
            f"the classes of these weights have {_whole(counts)} points, and those of "
            f"the model {layout.keypoints!r:.60}; correct `keypoints` in its layout"
        )


def _whole(counts: tuple[float, ...]) -> str:
    return f"({', '.join(f'{count:.0f}' for count in counts)})"[:60]


def _is_dropped(name: str, layout: Layout) -> bool:
    layer = _ENCODER_LAYER.match(name)
    behind = layer is not None and int(layer[1]) >= max(layout.features)
    return behind or _DROPPED.fullmatch(name) is not None


def _resized(positions: Tensor, side: int) -> Tensor:
    """A table (1, 1 + n x n, C) for side x side patches; the class token's row stays.

    Bicubic with antialias, as DINOv2 and RF-DETR resize theirs.
    """
    known = math.isqrt(max(positions.shape[1] - 1, 0))
    if known == side:
        return positions
    if not known or known * known != positions.shape[1] - 1:
        raise InvalidWeights(
            f"'{POSITIONS}' has {positions.shape[1]} rows, which is not one and a "
            "square; is it of another model?"
        )
    grid = positions[:, 1:].float().unflatten(1, (known, known)).permute(0, 3, 1, 2)
    grid = interpolate(grid, (side, side), mode="bicubic", antialias=True)
    patches = grid.flatten(2).transpose(1, 2).to(positions.dtype)
    return cat([positions[:, :1], patches], dim=1)
