"""Queries that carry a token for each point -> points.

A query's tokens attend to it and to each other, then look at maps of their own, as in
Liu et al., "Group Pose: A Simple Baseline for End-to-End Multi-Person Pose Estimation",
arXiv:2308.07313. They start from the learned query by a modulated norm: Peebles and
Xie, "Scalable Diffusion Models with Transformers", arXiv:2212.09748.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, pad, relu

from inference_models_rfdetr.decoder import (
    MLP,
    Attention,
    Decoder,
    DeformableAttention,
    Layer,
    Transformer,
)
from inference_models_rfdetr.layout import Layout
from inference_models_rfdetr.points import VALUES


class KeyPointTransformer(Transformer):
    """The two-stage decoder of queries with tokens; the second half of maps is theirs.

    Queries come out as (B, Q, 1 + K, C): each, and its tokens behind it.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout, KeyPointDecoder)
        self.keypoint_query_initializer = Tokens(layout)

    def forward(
        self, maps: list[Tensor], queries: Tensor, deltas: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As the plain decoder, from the same learned queries (Q, C) and deltas."""
        tokens = self.keypoint_query_initializer(queries)
        carried = torch.cat([queries[:, None], tokens], dim=1)
        return super().forward(maps, carried, deltas)


class Tokens(nn.Module):
    """Learned tokens of all points, normalised and modulated by each query."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        hidden = layout.hidden
        self.queries = nn.Parameter(torch.empty(sum(layout.keypoints), hidden))
        first, second = nn.Linear(hidden, hidden), nn.Linear(hidden, 3 * hidden)
        self.adaLN_modulation = nn.Sequential(first, nn.GELU(), second)
        self.out_proj = nn.Linear(hidden, hidden)

    def forward(self, queries: Tensor) -> Tensor:
        """Queries (Q, C) -> tokens (Q, K, C)."""
        scale, shift, gate = self.adaLN_modulation(queries[:, None]).chunk(3, dim=-1)
        plain = layer_norm(self.queries, self.queries.shape[-1:])
        return self.queries + self.out_proj(plain * (1 + scale) + shift) * gate


class KeyPointDecoder(Decoder):
    """The decoder's layers, of queries (B, Q, 1 + K, C) that carry tokens."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout, KeyPointLayer)
        points = sum(layout.keypoints)
        self.keypoint_pos_embed = nn.Parameter(torch.empty(points, layout.hidden))

    def positions(self, boxes: Tensor) -> Tensor:
        """Of each query by its box, and of its tokens as learned: (B, Q, 1 + K, C)."""
        placed = super().positions(boxes)[:, :, None]
        learned = self.keypoint_pos_embed.expand(*placed.shape[:2], -1, -1)
        return torch.cat([placed, learned], dim=2)

    def normalised(self, queries: Tensor) -> Tensor:
        """Queries with a norm of their own, and tokens as they are."""
        return torch.cat([self.norm(queries[:, :, :1]), queries[:, :, 1:]], dim=2)


class KeyPointLayer(Layer):
    """A layer of the plain decoder, and behind it the same for the tokens.

    Only those of one class attend to each other.
    """

    mask: Tensor | None

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        hidden = layout.hidden
        self.kp_inst_self_attn = Attention(hidden)
        self.instance_kp_layer_scale = nn.Parameter(torch.empty(1))
        self.kp_inst_norm, self.kp_norm = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.kp_cross_attn = DeformableAttention(layout)
        self.kp_cross_attn_norm = nn.LayerNorm(hidden)
        self.kp_linear1 = nn.Linear(hidden, 4 * hidden)
        self.kp_linear3 = nn.Linear(4 * hidden, hidden)
        self.kp_norm5 = nn.LayerNorm(hidden)
        several = sum(count > 0 for count in layout.keypoints) > 1
        mask = attending(layout.keypoints) if several else None
        self.register_buffer("mask", mask, persistent=False)

    def forward(
        self, queries: Tensor, positions: Tensor, boxes: Tensor, maps: list[Tensor]
    ) -> Tensor:
        """Queries (B, Q, 1 + K, C), positions alike, boxes (B, Q, 4) -> queries."""
        half = len(maps) // 2
        query = super().forward(
            queries[:, :, 0], positions[:, :, 0], boxes, maps[:half]
        )
        query, tokens = self._attended(query, queries[:, :, 1:], positions[:, :, 1:])
        tokens = self._seen(tokens, positions[:, :, :1], boxes, maps[half:])
        inner = self.kp_linear3(relu(self.kp_linear1(tokens)))
        return torch.cat([query[:, :, None], self.kp_norm5(tokens + inner)], dim=2)

    def _attended(
        self, query: Tensor, tokens: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Each query (B, Q, C) and its tokens (B, Q, K, C), after self-attention."""
        carried = torch.cat([query[:, :, None], tokens], dim=2).flatten(0, 1)
        placed = pad(positions, (0, 0, 1, 0)).flatten(0, 1)  # a query has none here
        found = self.kp_inst_self_attn(carried, placed, self.mask)
        found = found.unflatten(0, query.shape[:2])
        moved = found[:, :, 0] * self.instance_kp_layer_scale
        return self.kp_inst_norm(query + moved), self.kp_norm(tokens + found[:, :, 1:])

    def _seen(
        self, tokens: Tensor, positions: Tensor, boxes: Tensor, maps: list[Tensor]
    ) -> Tensor:
        """Tokens (B, Q, K, C), after a look at the maps around their query's box."""
        points = tokens.shape[2]
        around = boxes[:, :, None].expand(-1, -1, points, -1).flatten(1, 2)
        seen = self.kp_cross_attn((tokens + positions).flatten(1, 2), around, maps)
        return self.kp_cross_attn_norm(tokens + seen.unflatten(1, (-1, points)))


def attending(counts: tuple[int, ...]) -> Tensor:
    """Which of a query and its tokens may attend to which, bool (1 + K, 1 + K)."""
    classes = [number for number, count in enumerate(counts) for _ in range(count)]
    of = torch.tensor([-1, *classes])
    return (of[:, None] == of) | (of[:, None] < 0) | (of < 0)


class KeyPointHead(MLP):
    """Tokens -> points, and what these say of the classes."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout.hidden, layout.hidden, VALUES, 3)
        self.classes = layout.classes
        counts = layout.keypoints
        self.groups, most = len(counts), max(counts)
        numbers, none = iter(range(sum(counts))), sum(counts)  # where zeros are put
        slots = [
            next(numbers) if place < count else none
            for count in counts
            for place in range(most)
        ]
        self.register_buffer("slots", torch.tensor(slots), persistent=False)

    def points(self, tokens: Tensor, boxes: Tensor) -> Tensor:
        """Tokens (B, Q, K, C), boxes cxcywh (B, Q, 4) -> (B, Q, slots, `VALUES`).

        Each class has as many slots as the one with most points; where it has fewer
        they are zeros.
        """
        values, boxes = self(tokens), boxes[:, :, None]
        xy = values[..., :2] * boxes[..., 2:] + boxes[..., :2]
        points = torch.cat([xy, values[..., 2:]], dim=-1)
        return pad(points, (0, 0, 0, 1))[:, :, self.slots]

    def logits(self, points: Tensor) -> Tensor:
        """What points (B, Q, slots, `VALUES`) add to the classes' logits, (B, Q, C)."""
        added = points[..., -1].unflatten(-1, (self.groups, -1)).sum(dim=-1)
        return pad(added, (0, self.classes - self.groups))
