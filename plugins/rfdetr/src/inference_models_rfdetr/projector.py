"""The encoder's features -> feature maps of one or several resolutions.

Chen et al., "LW-DETR", arXiv:2406.03459, section 3.1. Channels come last, as tokens
have them, so that norms and 1x1 convolutions need no transposition.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, silu

from inference_models_rfdetr.layout import Layout

_EPSILON = 1e-6
_BLOCKS = 3


class Projector(nn.Module):
    """For each level, the features of all depths: resized, concatenated and mixed."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.width = layout.width
        resized, stages = [], []
        for scale in layout.scales:
            each = [Resize(layout.width, scale) for _ in layout.features]
            norm = nn.LayerNorm(layout.hidden, eps=_EPSILON)
            inputs = sum(resize.channels for resize in each)
            resized.append(nn.ModuleList(each))
            stages.append(nn.Sequential(C2f(inputs, layout.hidden), norm))
        self.stages_sampling = nn.ModuleList(resized)
        self.stages = nn.ModuleList(stages)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """(B, h, w, width) of each depth -> (B, scale h, scale w, hidden) a level."""
        maps = []
        for resizes, stage in zip(self.stages_sampling, self.stages, strict=True):
            pairs = zip(resizes, features, strict=True)
            maps.append(stage(torch.cat([resize(x) for resize, x in pairs], dim=-1)))
        return maps


class Resize(nn.Sequential):
    """Features (B, h, w, width) at 2, 1 or 0.5 times their resolution."""

    def __init__(self, width: int, scale: float) -> None:
        self.channels = width
        if scale == 2:
            self.channels = width // 2
            super().__init__(Upsample(width, self.channels))
        elif scale == 0.5:
            super().__init__(ConvNormAct(width, width, kernel=3, stride=2, act=relu))
        else:
            super().__init__()


class Upsample(nn.ConvTranspose2d):
    """A transposed convolution that makes 2x2 cells of each."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, kernel_size=2, stride=2)

    def forward(self, cells: Tensor) -> Tensor:
        """(B, h, w, inputs) -> (B, 2h, 2w, outputs)."""
        return super().forward(cells.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class C2f(nn.Module):
    """The C2f block of YOLOv8.

    Half of the channels go through a chain of bottlenecks; both halves and what each
    bottleneck makes are concatenated and mixed by a 1x1 convolution.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.half = outputs // 2
        self.cv1 = ConvNormAct(inputs, outputs)
        self.cv2 = ConvNormAct((2 + _BLOCKS) * self.half, outputs)
        self.m = nn.ModuleList(Bottleneck(self.half) for _ in range(_BLOCKS))

    def forward(self, cells: Tensor) -> Tensor:
        """(B, h, w, inputs) -> (B, h, w, outputs)."""
        parts = list(self.cv1(cells).split(self.half, dim=-1))
        for bottleneck in self.m:
            parts.append(bottleneck(parts[-1]))
        return self.cv2(torch.cat(parts, dim=-1))


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, without a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1 = ConvNormAct(channels, channels, kernel=3)
        self.cv2 = ConvNormAct(channels, channels, kernel=3)

    def forward(self, cells: Tensor) -> Tensor:
        """(B, h, w, channels) -> the same shape."""
        return self.cv2(self.cv1(cells))


class ConvNormAct(nn.Module):
    """A convolution without bias, a LayerNorm over channels and an activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        act: Callable[[Tensor], Tensor] = silu,
    ) -> None:
        super().__init__()
        self.conv: nn.Module = nn.Linear(inputs, outputs, bias=False)
        if kernel > 1:
            self.conv = ChannelsLastConv2d(inputs, outputs, kernel, stride)
        self.bn = nn.LayerNorm(outputs, eps=_EPSILON)
        self.act = act

    def forward(self, cells: Tensor) -> Tensor:
        """(B, h, w, inputs) -> (B, h / stride, w / stride, outputs)."""
        return self.act(self.bn(self.conv(cells)))


class ChannelsLastConv2d(nn.Conv2d):
    """A convolution without bias that keeps the size, divided by its stride."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        padding = kernel // 2
        super().__init__(inputs, outputs, kernel, stride, padding, bias=False)

    def forward(self, cells: Tensor) -> Tensor:
        """(B, h, w, inputs) -> (B, h / stride, w / stride, outputs)."""
        return super().forward(cells.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
