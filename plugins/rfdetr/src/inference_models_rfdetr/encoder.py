"""DINOv2 with windowed attention: an image -> tokens of several depths.

Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision",
arXiv:2304.07193; windows as in Chen et al., "LW-DETR: A Transformer Replacement to YOLO
for Real-Time Detection", arXiv:2406.03459. Parameters are named as in RF-DETR's
checkpoints, which come from the `transformers` of their time.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from inference_models_rfdetr.layout import Layout

_EPSILON = 1e-6


class Encoder(nn.Module):
    """A vision transformer, most of whose layers attend within windows of the image.

    The patches are sorted by window, and each window carries a class token of its own.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.windows = layout.windows**2
        self.taken = layout.features
        self.embeddings = Embeddings(layout)
        layers = [Layer(layout.width) for _ in range(max(layout.features))]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})
        self.layernorm = nn.LayerNorm(layout.width, eps=_EPSILON)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) -> (B, h, w, width) of each depth, a cell a patch."""
        tokens = self.embeddings(pixels)
        features = []
        for index, layer in enumerate(self.encoder["layer"]):
            joined = self.windows if index in self.taken else 1
            tokens = layer(tokens, joined)
            if index + 1 in self.taken:
                patches = self.layernorm(tokens[:, 1:])
                features.append(self.embeddings.grid(patches))
        return features


class Embeddings(nn.Module):
    """Patch embeddings with positions, sorted by window, behind a class token each."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.windows, self.side = layout.windows, layout.side
        width, patch = layout.width, layout.patch
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        positions = torch.empty(1, self.side**2 + 1, width)
        self.position_embeddings = nn.Parameter(positions)
        projection = nn.Conv2d(3, width, kernel_size=patch, stride=patch)
        self.patch_embeddings = nn.ModuleDict({"projection": projection})

    def forward(self, pixels: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> tokens (B x windows, 1 + patches, width)."""
        patches = self.patch_embeddings["projection"](pixels).flatten(2).transpose(1, 2)
        first, rest = self.position_embeddings[:, :1], self.position_embeddings[:, 1:]
        patches = self._by_window(patches + rest)
        token = (self.cls_token + first).expand(patches.shape[0], -1, -1)
        return torch.cat([token, patches], dim=1)

    def _by_window(self, patches: Tensor) -> Tensor:
        windows, inner = self.windows, self.side // self.windows
        width = patches.shape[-1]
        cells = patches.reshape(-1, windows, inner, windows, inner, width)
        return cells.transpose(2, 3).reshape(-1, inner * inner, width)

    def grid(self, patches: Tensor) -> Tensor:
        """Windows put together again: (B x windows, n, width) -> (B, h, w, width)."""
        windows, inner = self.windows, self.side // self.windows
        width = patches.shape[-1]
        cells = patches.reshape(-1, windows, windows, inner, inner, width)
        return cells.transpose(2, 3).reshape(-1, self.side, self.side, width)


class Layer(nn.Module):
    """A pre-norm transformer layer: attention and an MLP, each scaled by LayerScale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_EPSILON)
        self.attention = Attention(width)
        self.layer_scale1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=_EPSILON)
        self.mlp = MLP(width)
        self.layer_scale2 = LayerScale(width)

    def forward(self, tokens: Tensor, joined: int) -> Tensor:
        """Tokens (B x windows, n, width) -> the same shape.

        Attention spans `joined` consecutive windows: 1, or all of an image.
        """
        _, count, width = tokens.shape
        normed = self.norm1(tokens).reshape(-1, joined * count, width)
        attended = self.attention(normed).reshape(-1, count, width)
        tokens = tokens + self.layer_scale1(attended)
        return tokens + self.layer_scale2(self.mlp(self.norm2(tokens)))


class Attention(nn.Module):
    """Self-attention with 64 channels a head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        names = ("query", "key", "value")
        self.attention = nn.ModuleDict(
            {name: nn.Linear(width, width) for name in names}
        )
        self.output = nn.ModuleDict({"dense": nn.Linear(width, width)})
        self.heads = width // 64

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, n, width) -> (B, n, width)."""
        query, key, value = (self._by_head(p(tokens)) for p in self.attention.values())
        attended = scaled_dot_product_attention(query, key, value)
        return self.output["dense"](attended.transpose(1, 2).flatten(2))

    def _by_head(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, 64)).transpose(1, 2)


class LayerScale(nn.Module):
    """A learned factor for each channel: Touvron et al., "CaiT", arXiv:2103.17239."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.empty(width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Scale the last axis: (..., width) -> the same shape."""
        return tokens * self.lambda1


class MLP(nn.Sequential):
    """Two linear layers, four times as wide within, with the exact GELU between."""

    def __init__(self, width: int) -> None:
        inner, outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        super().__init__(OrderedDict(fc1=inner, gelu=nn.GELU(), fc2=outer))
