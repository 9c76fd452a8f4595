"""EfficientNet-Lite0 as a torch module that loads the published state dict.

EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, Tan and Le,
2019 (https://arxiv.org/abs/1905.11946). The Lite variants leave out squeeze-and-excite
and rectify with ReLU6. Attributes are underlined because the file's names are.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

STAGES = (  # blocks, kernel, stride of the first block, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, HEAD = 32, 1280


class EfficientNetLite0(nn.Module):
    """Logits of `classes` classes from RGB images scaled to about -1 to 1."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self._conv_stem = _conv(3, STEM, kernel=3, stride=2)
        self._bn0 = _norm(STEM)
        self._blocks = nn.ModuleList(_blocks())
        self._conv_head = _conv(STAGES[-1][-1], HEAD, kernel=1)
        self._bn1 = _norm(HEAD)
        self._fc = nn.Linear(HEAD, classes)
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """`(batch, 3, height, width)` to `(batch, classes)`."""
        x = F.relu6(self._bn0(self._conv_stem(images)))
        for block in self._blocks:
            x = block(x)
        x = F.relu6(self._bn1(self._conv_head(x)))
        return self._fc(x.mean(dim=(2, 3)))


class Block(nn.Module):
    """Inverted residual: widen, filter each channel, narrow."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        width = inputs * expansion
        self.expands = expansion > 1
        self.adds = stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = _conv(inputs, width, kernel=1)
            self._bn0 = _norm(width)
        self._depthwise_conv = _conv(
            width, width, kernel=kernel, stride=stride, groups=width
        )
        self._bn1 = _norm(width)
        self._project_conv = _conv(width, outputs, kernel=1)
        self._bn2 = _norm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block's input is added to its output where their shapes are equal."""
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class StridedConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "SAME" padding, which depends on the input.

    Where the padding is odd, the right and the bottom get the pixel more. Sizes are
    read from the tensor, so that an export sees constants and leaves the batch free.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pad, then convolve."""
        top, bottom = self._padding(x.shape[2])
        left, right = self._padding(x.shape[3])
        return super().forward(F.pad(x, (left, right, top, bottom)))

    def _padding(self, size: int) -> tuple[int, int]:
        """Pixels before and after, so that the output is `size / stride` rounded up."""
        total = self.kernel_size[0] - 1 - (size - 1) % self.stride[0]
        return total // 2, total - total // 2


def _blocks() -> Iterator[Block]:
    inputs = STEM
    for count, kernel, stride, expansion, outputs in STAGES:
        for step in (stride, *[1] * (count - 1)):
            yield Block(
                inputs, outputs, kernel=kernel, stride=step, expansion=expansion
            )
            inputs = outputs


def _conv(
    inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    """Without stride, "SAME" is the same padding on all sides, whatever the input."""
    options = {"groups": groups, "bias": False}
    if stride == 1:
        return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)
    return StridedConv2d(inputs, outputs, kernel, stride=stride, **options)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)
