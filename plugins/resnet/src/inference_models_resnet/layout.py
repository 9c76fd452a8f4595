"""How ResNet checkpoints name and shape their tensors, without torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Shape = tuple[int, ...]

BLOCKS = {  # residual blocks in each of the four stages, by depth
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}

STATISTICS = ("weight", "bias", "running_mean", "running_var")
"""Tensors of a normalisation, apart from its counter."""

COUNTER = "num_batches_tracked"


class Layout(NamedTuple):
    """What a checkpoint's shapes tell; also the arguments of `network.ResNet`."""

    depth: int
    classes: int
    width: int = 64

    @property
    def bottleneck(self) -> bool:
        """Whether blocks are 1x1, 3x3, 1x1 convolutions with four times the outputs."""
        return self.depth >= 50

    @property
    def expansion(self) -> int:
        """Outputs of a block, in widths of its stage."""
        return 4 if self.bottleneck else 1


def recognise(shapes: Mapping[str, Sequence[int | str]]) -> Layout | None:
    """The layout of a checkpoint named as torchvision's and timm's are, or None.

    Every name and shape has to fit, so that relatives which share most names (wide,
    grouped, deep-stemmed, squeeze-and-excite) are not taken for a ResNet. The counter
    `num_batches_tracked` may be there or not.
    """
    found = {name: tuple(shape) for name, shape in shapes.items()}
    stem, head = found.get("conv1.weight"), found.get("fc.weight")
    if not stem or not head:
        return None
    width, classes = stem[0], head[0]
    if not isinstance(width, int) or not isinstance(classes, int):
        return None
    weights = {name: found[name] for name in found if not _counts(name)}
    candidates = (Layout(depth, classes, width) for depth in BLOCKS)
    return next((x for x in candidates if dict(tensors(x)) == weights), None)


def of_config(config: Mapping[str, Any], classes: int) -> Layout | None:
    """The layout of a `config.json` of transformers, or None for a relative's."""
    widths, blocks = config.get("hidden_sizes"), config.get("depths")
    width = config.get("embedding_size")
    if not isinstance(width, int):
        return None
    plain = not (
        config.get("downsample_in_first_stage")
        or config.get("downsample_in_bottleneck")
        or config.get("num_channels", 3) != 3
        or config.get("hidden_act", "relu") != "relu"
    )
    for depth in BLOCKS if plain else ():
        layout = Layout(depth, classes, width)
        kind = "bottleneck" if layout.bottleneck else "basic"
        sizes = [width * layout.expansion << stage for stage in range(4)]
        told = (config.get("layer_type", "bottleneck"), blocks, widths)
        if told == (kind, list(BLOCKS[depth]), sizes):
            return layout
    return None


def _counts(name: str) -> bool:
    return name.endswith(f".{COUNTER}")


def tensors(layout: Layout) -> Iterator[tuple[str, Shape]]:
    """Name and shape of each tensor in torchvision's naming, counters left out."""
    for conv, norm, shape in convolutions(layout):
        yield f"{conv}.weight", shape
        for statistic in STATISTICS:
            yield f"{norm}.{statistic}", shape[:1]
    yield "fc.weight", (layout.classes, 8 * layout.width * layout.expansion)
    yield "fc.bias", (layout.classes,)


def convolutions(layout: Layout) -> Iterator[tuple[str, str, Shape]]:
    """Each convolution, the normalisation behind it, and its weight's shape."""
    yield "conv1", "bn1", (layout.width, 3, 7, 7)
    inputs = layout.width
    for stage, blocks in enumerate(BLOCKS[layout.depth]):
        width = layout.width << stage
        for block in range(blocks):
            yield from _block(f"layer{stage + 1}.{block}", layout, inputs, width)
            inputs = width * layout.expansion


def _block(
    name: str, layout: Layout, inputs: int, width: int
) -> Iterator[tuple[str, str, Shape]]:
    outputs = width * layout.expansion
    kernels = (1, 3, 1) if layout.bottleneck else (3, 3)
    channels = [inputs] + [width] * (len(kernels) - 1) + [outputs]
    for i, kernel in enumerate(kernels):
        shape = (channels[i + 1], channels[i], kernel, kernel)
        yield f"{name}.conv{i + 1}", f"{name}.bn{i + 1}", shape
    if inputs != outputs:
        shape = (outputs, inputs, 1, 1)
        yield f"{name}.downsample.0", f"{name}.downsample.1", shape


_SHORT = {"convolution": "conv", "normalization": "bn"}
_STEM = re.compile(r"resnet\.embedder\.embedder\.(convolution|normalization)\.")
_BRANCH = re.compile(
    r"resnet\.encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)"
    r"\.(convolution|normalization)\."
)
_SHORTCUT = re.compile(
    r"resnet\.encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut"
    r"\.(convolution|normalization)\."
)
_HEAD = re.compile(r"classifier\.1\.")


def from_transformers(name: str) -> str:
    """torchvision's name of a tensor of transformers' `ResNetForImageClassification`.

    Other names come back as they are. Names do not tell where a block strides: the
    configuration must have `downsample_in_bottleneck` and `downsample_in_first_stage`
    off, as those of `microsoft/resnet-*` do.
    """
    name = _STEM.sub(lambda m: f"{_SHORT[m[1]]}1.", name)
    name = _BRANCH.sub(_branch, name)
    name = _SHORTCUT.sub(_shortcut, name)
    return _HEAD.sub("fc.", name)


def _branch(match: re.Match[str]) -> str:
    stage, block, layer, kind = match.groups()
    return f"layer{int(stage) + 1}.{block}.{_SHORT[kind]}{int(layer) + 1}."


def _shortcut(match: re.Match[str]) -> str:
    stage, block, kind = match.groups()
    return f"layer{int(stage) + 1}.{block}.downsample.{int(kind == 'normalization')}."
