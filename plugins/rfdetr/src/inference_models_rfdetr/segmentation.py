"""Queries and a feature map -> a mask for each query.

A mask is where pixels look like its query, as in Cheng et al., "Per-Pixel
Classification is Not All You Need for Semantic Segmentation", arXiv:2107.06278; pixels
pass blocks like those of Liu et al., "A ConvNet for the 2020s", arXiv:2201.03545.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate

from inference_models_rfdetr.layout import Layout


class SegmentationHead(nn.Module):
    """Mask logits of all queries, on a grid of a quarter of the input's side."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        hidden = layout.hidden
        self.side = layout.mask_side
        self.blocks = nn.ModuleList(Block(hidden) for _ in range(layout.decoder_layers))
        self.spatial_features_proj = nn.Linear(hidden, hidden)
        self.query_features_block = QueryBlock(hidden)
        self.query_features_proj = nn.Linear(hidden, hidden)
        self.bias = nn.Parameter(torch.empty(1))

    def forward(self, features: Tensor, queries: Tensor) -> Tensor:
        """Map (B, h, w, C) and queries (B, Q, C) -> logits (B, Q, side, side)."""
        pixels = features.permute(0, 3, 1, 2)
        pixels = interpolate(pixels, (self.side, self.side), mode="bilinear")
        for block in self.blocks:
            pixels = block(pixels)
        queries = self.query_features_proj(self.query_features_block(queries))
        # Pixels are far more than queries, whose products with projected pixels are
        # those of queries that are projected back.
        projection = self.spatial_features_proj
        offsets = (queries @ projection.bias)[..., None] + self.bias
        logits = (queries @ projection.weight) @ pixels.flatten(2) + offsets
        return logits.unflatten(2, (self.side, self.side))


class Block(nn.Module):
    """A convolution of each channel and a linear layer, added to the pixels."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.norm = nn.LayerNorm(hidden, eps=1e-6)
        self.pwconv1 = nn.Linear(hidden, hidden)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (B, C, H, W) -> (B, C, H, W)."""
        mixed = self.norm(self.dwconv(pixels).permute(0, 2, 3, 1))
        return pixels + gelu(self.pwconv1(mixed)).permute(0, 3, 1, 2)


class QueryBlock(nn.Module):
    """An MLP of four times the channels, added to the queries."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(hidden)
        widen, narrow = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)
        self.layers = nn.Sequential(widen, nn.GELU(), narrow)

    def forward(self, queries: Tensor) -> Tensor:
        """Queries (B, Q, C) -> (B, Q, C)."""
        return queries + self.layers(self.norm_in(queries))
