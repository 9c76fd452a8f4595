"""ResNet as a torch module whose parameters have torchvision's and timm's names.

Deep Residual Learning for Image Recognition, He et al., 2015
(https://arxiv.org/abs/1512.03385), in the variant called v1.5: a bottleneck strides
in its 3x3 convolution. For inference only: weights are not initialised for training.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from inference_models_resnet.layout import BLOCKS, Layout


class ResNet(nn.Module):
    """Logits of `classes` classes from RGB images, normalised by mean and deviation.

    Args:
        depth: 18, 34, 50, 101 or 152.
        classes: Outputs of the last layer.
        width: Channels of the first stage; 64 in all published weights.
    """

    def __init__(self, depth: int, classes: int, width: int = 64) -> None:
        super().__init__()
        layout = Layout(depth, classes, width)
        self.conv1 = _conv(3, width, kernel=7, stride=2)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = _stage(layout, 0)
        self.layer2 = _stage(layout, 1)
        self.layer3 = _stage(layout, 2)
        self.layer4 = _stage(layout, 3)
        self.fc = nn.Linear(8 * width * layout.expansion, classes)
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """`(batch, 3, height, width)` to `(batch, classes)`."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean(dim=(2, 3)))


class Residual(nn.Module):
    """A residual block: its branch, added to its input and rectified.

    Where the branch changes the shape, a 1x1 convolution projects the input to it.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.downsample = None
        if stride != 1 or inputs != outputs:
            projection = _conv(inputs, outputs, kernel=1, stride=stride)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(self.branch(x) + shortcut)

    def branch(self, x: torch.Tensor) -> torch.Tensor:
        """The convolutions of the block, before the shortcut is added."""
        raise NotImplementedError


class BasicBlock(Residual):
    """Two 3x3 convolutions."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__(inputs, width, stride)
        self.conv1 = _conv(inputs, width, kernel=3, stride=stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, kernel=3)
        self.bn2 = nn.BatchNorm2d(width)

    def branch(self, x: torch.Tensor) -> torch.Tensor:
        """The convolutions of the block."""
        x = F.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x))


class Bottleneck(Residual):
    """A 3x3 convolution between two 1x1 convolutions that reduce and restore."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__(inputs, 4 * width, stride)
        self.conv1 = _conv(inputs, width, kernel=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, kernel=3, stride=stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, 4 * width, kernel=1)
        self.bn3 = nn.BatchNorm2d(4 * width)

    def branch(self, x: torch.Tensor) -> torch.Tensor:
        """The convolutions of the block."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))


def _stage(layout: Layout, index: int) -> nn.Sequential:
    """Blocks of one resolution; the first one halves it, except in the first stage."""
    block = Bottleneck if layout.bottleneck else BasicBlock
    width = layout.width << index
    outputs = width * layout.expansion
    inputs = layout.width if index == 0 else outputs // 2
    first = block(inputs, width, stride=1 if index == 0 else 2)
    rest = BLOCKS[layout.depth][index] - 1
    return nn.Sequential(first, *(block(outputs, width, stride=1) for _ in range(rest)))


def _conv(inputs: int, outputs: int, *, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(
        inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False
    )
