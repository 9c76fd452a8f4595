"""Feature maps -> proposals, and proposals -> objects by deformable attention.

Zhu et al., "Deformable DETR", arXiv:2010.04159; two stages and mixed query selection as
in Zhang et al., "DINO", arXiv:2203.03605; of the groups of Chen et al., "Group DETR",
arXiv:2207.13085, inference uses the first alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import (
    grid_sample,
    linear,
    relu,
    scaled_dot_product_attention,
)

from inference_models_rfdetr.layout import Layout

_TEMPERATURE = 10000
_ANCHOR = 0.05  # side of an anchor of the finest level, as a share of the image's
_NEVER = -1e4  # below any logit, and within float16
_BORDER = 0.01  # anchors whose centre is nearer to the border are no proposals


class Transformer(nn.Module):
    """The two-stage decoder: the best cells become proposals, which queries refine."""

    def __init__(self, layout: Layout, decoder: type[Decoder] | None = None) -> None:
        super().__init__()
        hidden, self.queries = layout.hidden, layout.queries
        self.levels = len(layout.scales)
        self.enc_output = nn.ModuleList([nn.Linear(hidden, hidden)])
        self.enc_output_norm = nn.ModuleList([nn.LayerNorm(hidden)])
        head = nn.Linear(hidden, layout.classes)
        self.enc_out_class_embed = nn.ModuleList([head])
        self.enc_out_bbox_embed = nn.ModuleList([MLP(hidden, hidden, 4, 3)])
        self.decoder = (decoder or Decoder)(layout)
        boxes, inside = anchors([layout.side_of(scale) for scale in layout.scales])
        self.register_buffer("anchors", boxes, persistent=False)
        self.register_buffer("inside", inside, persistent=False)

    def forward(
        self, maps: list[Tensor], queries: Tensor, deltas: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, Q, C), their boxes (B, Q, 4) and all cells' objectness (B, n).

        From maps (B, h, w, C), one for each level, the learned queries (Q, C) and the
        learned deltas (Q, 4) of their boxes. Boxes are cxcywh in 0–1. The proposals
        are cells of the first map of each level.
        """
        firsts = maps[: self.levels]
        cells = torch.cat([level.flatten(1, 2) for level in firsts], dim=1)
        proposals, objectness = self._propose(cells)
        boxes = refine(proposals, deltas)
        learned = queries.expand(cells.shape[0], *queries.shape)
        return self.decoder(learned, boxes, maps), boxes, objectness

    def _propose(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Cells (B, n, C) -> boxes cxcywh (B, Q, 4) of the best, and objectness (B, n).

        A cell's objectness is its highest class logit.
        """
        inside = self.inside[:, None]
        cells = self.enc_output_norm[0](self.enc_output[0](cells * inside))
        objectness = self.enc_out_class_embed[0](cells).amax(dim=-1)
        objectness = objectness.masked_fill(~self.inside, _NEVER)
        best = objectness.topk(self.queries, dim=1).indices
        chosen = cells.gather(1, best[..., None].expand(-1, -1, cells.shape[-1]))
        boxes = refine(self.anchors[best], self.enc_out_bbox_embed[0](chosen))
        return boxes, objectness


def anchors(sides: Sequence[int]) -> tuple[Tensor, Tensor]:
    """A box cxcywh in 0–1 at each cell, (n, 4), and which may be proposals, bool (n,).

    `sides` are those of the maps, in cells; boxes at the border are no proposals.
    """
    levels = []
    for level, side in enumerate(sides):
        centres = (torch.arange(side) + 0.5) / side
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        size = torch.full_like(x, _ANCHOR * 2**level)
        levels.append(torch.stack([x, y, size, size], dim=-1).flatten(0, 1))
    boxes = torch.cat(levels)
    inside = ((boxes > _BORDER) & (boxes < 1 - _BORDER)).all(dim=-1)
    return boxes * inside[:, None], inside


def refine(boxes: Tensor, deltas: Tensor) -> Tensor:
    """Boxes cxcywh, moved by deltas that are relative to their size."""
    size = boxes[..., 2:]
    centre = boxes[..., :2] + deltas[..., :2] * size
    return torch.cat([centre, deltas[..., 2:].exp() * size], dim=-1)


class Decoder(nn.Module):
    """The decoder's layers; they all look around the proposals' boxes, as those are."""

    def __init__(self, layout: Layout, layer: type[Layer] | None = None) -> None:
        super().__init__()
        hidden = layout.hidden
        layers = [(layer or Layer)(layout) for _ in range(layout.decoder_layers)]
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(hidden)
        self.ref_point_head = MLP(2 * hidden, hidden, hidden, 2)
        steps = torch.arange(hidden // 4) * 4 / hidden
        frequencies = 2 * math.pi / _TEMPERATURE**steps
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, queries: Tensor, boxes: Tensor, maps: list[Tensor]) -> Tensor:
        """Queries (B, Q, C) and boxes (B, Q, 4) -> queries (B, Q, C)."""
        positions = self.positions(boxes)
        for layer in self.layers:
            queries = layer(queries, positions, boxes, maps)
        return self.normalised(queries)

    def positions(self, boxes: Tensor) -> Tensor:
        """An embedding (B, Q, C) of where each box (B, Q, 4) is."""
        return self.ref_point_head(self._sines(boxes))

    def normalised(self, queries: Tensor) -> Tensor:
        """Queries as the heads take them."""
        return self.norm(queries)

    def _sines(self, boxes: Tensor) -> Tensor:
        """Sinusoidal embedding of y, x, w, h, each C / 2 channels: (B, Q, 2C)."""
        x, y, size = boxes.tensor_split((1, 2), dim=-1)
        angles = torch.cat([y, x, size], dim=-1)[..., None] * self.frequencies
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(2)


class Layer(nn.Module):
    """Self-attention, deformable cross-attention and an MLP, each normalised after."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        hidden = layout.hidden
        self.self_attn = Attention(hidden)
        self.norm1 = nn.LayerNorm(hidden)
        self.cross_attn = DeformableAttention(layout)
        self.norm2 = nn.LayerNorm(hidden)
        self.linear1 = nn.Linear(hidden, layout.feedforward)
        self.linear2 = nn.Linear(layout.feedforward, hidden)
        self.norm3 = nn.LayerNorm(hidden)

    def forward(
        self, queries: Tensor, positions: Tensor, boxes: Tensor, maps: list[Tensor]
    ) -> Tensor:
        """Queries (B, Q, C) with their position embeddings (B, Q, C) -> (B, Q, C)."""
        queries = self.norm1(queries + self.self_attn(queries, positions))
        seen = self.cross_attn(queries + positions, boxes, maps)
        queries = self.norm2(queries + seen)
        return self.norm3(queries + self.linear2(relu(self.linear1(queries))))


class Attention(nn.Module):
    """Self-attention with 32 channels a head.

    Position embeddings are added to queries and keys, and not to values.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * hidden, hidden))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * hidden))
        self.out_proj = nn.Linear(hidden, hidden)
        self.heads = hidden // 32

    def forward(
        self, queries: Tensor, positions: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Queries (B, Q, C) -> (B, Q, C); `mask` (Q, Q) is true for what is seen."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        placed = queries + positions
        query, key, value = (
            self._by_head(linear(*each))
            for each in zip((placed, placed, queries), weights, biases, strict=True)
        )
        attended = scaled_dot_product_attention(query, key, value, mask)
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def _by_head(self, queries: Tensor) -> Tensor:
        return queries.unflatten(-1, (self.heads, 32)).transpose(1, 2)


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention, with 16 channels a head.

    Each head of each query samples a few learned points of each map around its box.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        hidden = layout.hidden
        self.heads, self.points = hidden // 16, layout.points
        self.levels = len(layout.scales)
        count = self.heads * self.levels * self.points
        self.sampling_offsets = nn.Linear(hidden, 2 * count)
        self.attention_weights = nn.Linear(hidden, count)
        self.value_proj = nn.Linear(hidden, hidden)
        self.output_proj = nn.Linear(hidden, hidden)

    def forward(self, queries: Tensor, boxes: Tensor, maps: list[Tensor]) -> Tensor:
        """Queries (B, Q, C), boxes (B, Q, 4), maps (B, h, w, C) -> (B, Q, C)."""
        sizes = (self.heads, self.levels * self.points)
        offsets = self.sampling_offsets(queries).unflatten(-1, (*sizes, 2))
        weights = self.attention_weights(queries).unflatten(-1, sizes).softmax(dim=-1)
        centre, size = boxes[:, :, None, None, :2], boxes[:, :, None, None, 2:]
        points = centre + offsets * size * (0.5 / self.points)
        grid = (2 * points - 1).transpose(1, 2).flatten(0, 1)
        grids = grid.split(self.points, dim=2)
        pairs = zip(maps, grids, strict=True)
        seen = torch.cat([self._sample(*pair) for pair in pairs], dim=-1)
        weights = weights.transpose(1, 2).flatten(0, 1)[:, None]
        mixed = (seen * weights).sum(dim=-1)
        return self.output_proj(
            mixed.unflatten(0, (-1, self.heads)).flatten(1, 2).transpose(1, 2)
        )

    def _sample(self, level: Tensor, grid: Tensor) -> Tensor:
        """Map (B, h, w, C), grid (BH, Q, points, 2) -> (BH, C / heads, Q, points)."""
        values = self.value_proj(level).permute(0, 3, 1, 2)
        values = values.unflatten(1, (self.heads, -1)).flatten(0, 1)
        return grid_sample(values, grid, align_corners=False)


class MLP(nn.Module):
    """`depth` linear layers with ReLU between them."""

    def __init__(self, inputs: int, inner: int, outputs: int, depth: int) -> None:
        super().__init__()
        sizes = [inputs, *[inner] * (depth - 1), outputs]
        pairs = itertools.pairwise(sizes)
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairs)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        for layer in self.layers[:-1]:
            x = relu(layer(x))
        return self.layers[-1](x)
