"""Florence-2's image encoder: DaViT, and the projection to what the text model reads.

Xiao et al., "Florence-2: Advancing a Unified Representation for a Variety of Vision
Tasks", arXiv:2311.06242; Ding et al., "DaViT: Dual Attention Vision Transformers",
arXiv:2204.03645. Parameters have transformers' names. Within, images are (B, H, W, C),
so that nothing is copied between convolutions and linear layers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

# Values in a strip of a picture; the feed-forward network makes four times as many.
_STRIP = 2**20


class Vision(nn.Module):
    """Pixels (B, 3, H, W) -> image features (B, 1 + H/32 * W/32, D)."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.vision_tower = Tower(config)
        self.multi_modal_projector = Projector(config)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Encode a batch of normalised images."""
        return self.multi_modal_projector(self.vision_tower(pixel_values))


class Tower(nn.Module):
    """DaViT: stages, each of a strided convolution and of blocks.

    The first has a quarter of the image's resolution, each other half of the last's.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        stages = range(len(config["embed_dim"]))
        self.convs = nn.ModuleList(PatchEmbedding(config, stage) for stage in stages)
        self.blocks = nn.ModuleList(
            nn.ModuleList(Block(config, stage) for _ in range(config["depths"][stage]))
            for stage in stages
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, H/32, W/32, C)."""
        x = pixel_values.permute(0, 2, 3, 1)
        for conv, blocks in zip(self.convs, self.blocks, strict=True):
            x = conv(x)
            for block in blocks:
                x = block(x)
        return x


class PatchEmbedding(nn.Module):
    """A strided convolution, with a LayerNorm before or after it."""

    def __init__(self, config: Mapping[str, Any], stage: int) -> None:
        super().__init__()
        channels = (config["in_channels"], *config["embed_dim"])[stage : stage + 2]
        self.conv = nn.Conv2d(
            *channels,
            kernel_size=config["patch_size"][stage],
            stride=config["patch_stride"][stage],
            padding=config["patch_padding"][stage],
        )
        self.norm_first = config["patch_prenorm"][stage]
        self.norm = nn.LayerNorm(channels[0] if self.norm_first else channels[1])

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H/stride, W/stride, D)."""
        if self.norm_first:
            return convolved(self.conv, self.norm(x))
        return self.norm(convolved(self.conv, x))


def convolved(conv: nn.Module, x: Tensor) -> Tensor:
    """A convolution of (B, H, W, C), which torch knows as channels-last."""
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Block(nn.Module):
    """DaViT's dual attention: within windows, then among channels."""

    def __init__(self, config: Mapping[str, Any], stage: int) -> None:
        super().__init__()
        self.spatial_block = SpatialBlock(config, stage)
        self.channel_block = ChannelBlock(config, stage)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        return self.channel_block(self.spatial_block(x))


class _Block(nn.Module):
    """What spatial and channel blocks have around their attention.

    A depthwise convolution, which encodes positions, before the attention and another
    before the feed-forward network; each step is residual.
    """

    def __init__(self, config: Mapping[str, Any], stage: int) -> None:
        super().__init__()
        width = config["embed_dim"][stage]
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm1 = nn.LayerNorm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm2 = nn.LayerNorm(width)
        self.ffn = mlp(width, int(width * config["mlp_ratio"]))
        self.side = config["window_size"]

    def feed_forward(self, x: Tensor) -> Tensor:
        """The second convolution and the feed-forward, each a residual step."""
        x = convolved(self.conv2, x).add_(x)
        for strip in strips(x, self.side):
            strip += self.ffn(self.norm2(strip))
        return x


class SpatialBlock(_Block):
    """A block whose attention is among the positions of each window."""

    def __init__(self, config: Mapping[str, Any], stage: int) -> None:
        super().__init__(config, stage)
        self.window_attn = WindowAttention(config, stage)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        x = convolved(self.conv1, x).add_(x)
        for strip in strips(x, self.side):
            strip += self.window_attn(self.norm1(strip))
        return self.feed_forward(x)


class ChannelBlock(_Block):
    """A block whose attention is among the channels of each group."""

    def __init__(self, config: Mapping[str, Any], stage: int) -> None:
        super().__init__(config, stage)
        self.channel_attn = ChannelAttention(config, stage)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        x = convolved(self.conv1, x).add_(x)
        parts = strips(x, self.side)
        mixed = self.channel_attn([self.norm1(strip) for strip in parts])
        for strip, own in zip(parts, mixed, strict=True):
            strip += own
        return self.feed_forward(x)


def strips(x: Tensor, side: int) -> list[Tensor]:
    """Views of (B, H, W, C), one below the other, each a multiple of `side` rows high.

    On a CPU, intermediate results of one strip stay in the caches, and memory that the
    process has is used again. On a GPU, and in an exported graph, there is one strip.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return [x]
    row = side * x[:, 0].numel()
    high = side * max(1, _STRIP // row)
    return [x[:, top : top + high] for top in range(0, x.shape[1], high)]


def mlp(width: int, hidden: int) -> nn.Sequential:
    """Two linear layers with a GELU between them, which a CPU multiplies as one."""
    layers = {
        "fc1": nn.Linear(width, hidden),
        "gelu": nn.GELU(),
        "fc2": nn.Linear(hidden, width),
    }
    return nn.Sequential(OrderedDict(layers))


class _Attention(nn.Module):
    """The projections to queries, keys and values, and of what is attended."""

    def __init__(self, config: Mapping[str, Any], stage: int) -> None:
        super().__init__()
        width = config["embed_dim"][stage]
        self.qkv = nn.Linear(width, 3 * width, bias=config["qkv_bias"])
        self.proj = nn.Linear(width, width)


class WindowAttention(_Attention):
    """Self-attention of the positions within each square window."""

    def __init__(self, config: Mapping[str, Any], stage: int) -> None:
        super().__init__(config, stage)
        self.heads = config["num_heads"][stage]
        self.side = config["window_size"]

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape; sides are padded to whole windows."""
        batch, height, width, channels = x.shape
        side, below, right = self.side, -height % self.side, -width % self.side
        if below or right:
            x = pad(x, (0, 0, 0, right, 0, below))
        rows, columns = (height + below) // side, (width + right) // side
        x = x.reshape(batch, rows, side, columns, side, channels).transpose(2, 3)
        x = self._attend(x.reshape(-1, side * side, channels))
        x = x.reshape(batch, rows, columns, side, side, channels).transpose(2, 3)
        x = x.reshape(batch, rows * side, columns * side, channels)
        return x[:, :height, :width]

    def _attend(self, x: Tensor) -> Tensor:
        windows, positions, channels = x.shape
        split = self.qkv(x).reshape(windows, positions, 3, self.heads, -1)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(windows, positions, channels))


class ChannelAttention(_Attention):
    """Self-attention of the channels within each group, over all positions."""

    def __init__(self, config: Mapping[str, Any], stage: int) -> None:
        super().__init__(config, stage)
        self.groups = config["num_groups"][stage]

    def forward(self, strips: Sequence[Tensor]) -> list[Tensor]:
        """The strips of a picture, each (B, h, W, C) -> the same shapes.

        Attention weights (C / groups)² are sums over all positions, and so over strips.
        """
        positions = sum(strip.shape[1] * strip.shape[2] for strip in strips)
        alike: list[Tensor] = []
        values: list[Tensor] = []
        for query, key, value in map(self._split, strips):
            # Not torch's own attention, which is slow where heads are as long as
            # pictures. Scaled first: sums over one are too large for half precision.
            alike.append((query * positions**-0.5).transpose(-1, -2) @ key)
            # A copy, or the queries and keys of all strips would stay in memory.
            values.append(value if len(strips) == 1 else value.contiguous())
        weights = reduce(torch.add, alike).softmax(dim=-1).transpose(-1, -2)
        mixed = [(value @ weights).transpose(1, 2) for value in values]
        return [
            self.proj(own.reshape(strip.shape))
            for own, strip in zip(mixed, strips, strict=True)
        ]

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, h, W, C) -> queries, keys and values (B, groups, h*W, C/groups)."""
        batch, height, width, _ = x.shape
        split = self.qkv(x).reshape(batch, height * width, 3, self.groups, -1)
        return tuple(split.permute(2, 0, 3, 1, 4))


class Projector(nn.Module):
    """Adds position embeddings, puts the mean first, projects to the text's width."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width = config["embed_dim"][-1]
        self.image_projection = nn.Linear(width, config["projection_dim"], bias=False)
        self.image_proj_norm = nn.LayerNorm(config["projection_dim"])
        self.image_position_embed = PositionEmbedding(
            config["max_position_embeddings"], width
        )
        self.visual_temporal_embed = TemporalEmbedding(
            config["max_temporal_embeddings"], width
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, 1 + H*W, D)."""
        x = x + self.image_position_embed(*x.shape[1:3])
        # A picture is a video of one frame.
        x = x.flatten(1, 2) + self.visual_temporal_embed.pos_idx_to_embed[0]
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1)
        return self.image_proj_norm(self.image_projection(x))


class PositionEmbedding(nn.Module):
    """Learned embeddings of column and row, half of the channels each."""

    def __init__(self, most: int, width: int) -> None:
        super().__init__()
        self.row_embeddings = nn.Embedding(most, width // 2)
        self.column_embeddings = nn.Embedding(most, width - width // 2)

    def forward(self, height: int, width: int) -> Tensor:
        """The embeddings of a grid of this size, (height, width, C)."""
        columns = self.column_embeddings.weight[None, :width].expand(height, -1, -1)
        rows = self.row_embeddings.weight[:height, None].expand(-1, width, -1)
        return torch.cat([columns, rows], dim=-1)


class TemporalEmbedding(nn.Module):
    """An embedding for each frame of a video, (most, width), as the file has them."""

    pos_idx_to_embed: Tensor

    def __init__(self, most: int, width: int) -> None:
        super().__init__()
        self.register_buffer("pos_idx_to_embed", torch.zeros(most, width))
