"""Which RF-DETR a checkpoint holds, told from names and shapes, without torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import attrs

from inference_models import InvalidCard

T = TypeVar("T")

_LARGEST = 4096  # pixels; a file that asks for more asks for memory


def _to_ints(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(values)


def _to_floats(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(values)


@attrs.frozen
class Layout:
    """What distinguishes one RF-DETR from another; also what makes its network."""

    resolution: int
    """Side of the square input, in pixels."""
    patch: int = 16
    windows: int = 2
    """Windows along a side of the image."""
    width: int = 384
    """Channels of the encoder, 64 a head."""
    features: tuple[int, ...] = attrs.field(default=(3, 6, 9, 12), converter=_to_ints)
    """After how many layers of the encoder its tokens are taken."""
    hidden: int = 256
    """Channels of the decoder: 32 a head in self-attention, 16 in deformable."""
    decoder_layers: int = 3
    points: int = 2
    """Points on each feature map that a head looks at."""
    scales: tuple[float, ...] = attrs.field(default=(1.0,), converter=_to_floats)
    """Resolution of each feature map, in that of the patches."""
    queries: int = 300
    classes: int = 91
    feedforward: int = 2048

    def __attrs_post_init__(self) -> None:
        step = self.patch * self.windows
        if self.resolution % step:
            raise InvalidCard(
                f"RF-DETR's resolution {self.resolution} is not a multiple of {step}, "
                f"which {self.windows} windows of patches of {self.patch} pixels need"
            )

    @property
    def side(self) -> int:
        """Patches along a side of the image."""
        return self.resolution // self.patch

    def side_of(self, scale: float) -> int:
        """Cells along a side of a feature map."""
        return int(self.side * scale)

    @property
    def cells(self) -> int:
        """Cells of all feature maps."""
        return sum(self.side_of(scale) ** 2 for scale in self.scales)


_PATCH_14 = Layout(560, patch=14, windows=4, features=(2, 5, 8, 11))

SIZES = {
    "nano": Layout(384, decoder_layers=2),
    "small": Layout(512),
    "medium": Layout(576, decoder_layers=4),
    "base": _PATCH_14,
    "large": Layout(704, decoder_layers=4),
    "large-legacy": attrs.evolve(
        _PATCH_14, width=768, hidden=384, points=4, scales=(2.0, 0.5)
    ),
}
"""The published detection models."""

_EMBEDDINGS = "backbone.0.encoder.encoder.embeddings"
_PATCHES = f"{_EMBEDDINGS}.patch_embeddings.projection.weight"
_POSITIONS = f"{_EMBEDDINGS}.position_embeddings"
_LAYER = "transformer.decoder.layers"
_POINTS = f"{_LAYER}.0.cross_attn.attention_weights.bias"
_FEEDFORWARD = f"{_LAYER}.0.linear1.bias"
_HEAD = "class_embed.weight"
_QUERIES = "query_feat.weight"
_NEEDED = (_PATCHES, _POSITIONS, _POINTS, _FEEDFORWARD, _HEAD, _QUERIES)

# Put before every name by the trainer's framework; the second with torch.compile.
_PREFIXES = ("model.", "model._orig_mod.")


def without_prefix(tensors: Mapping[str, T]) -> dict[str, T]:
    """Tensors under RF-DETR's own names, which a training framework adds to."""
    for prefix in _PREFIXES:
        if prefix + _PATCHES in tensors:
            return {name[len(prefix) :]: value for name, value in tensors.items()}
    return dict(tensors)


def recognise(
    shapes: Mapping[str, Sequence[int | str]], told: Mapping[str, Any]
) -> Layout | None:
    """The layout of a detection checkpoint, or None.

    Shapes cannot tell the resolution, the windows and the depths of features: `told` is
    what the trainer wrote beside the tensors, under its names. Where that is silent,
    they are those of the published models with the same patch size.
    """
    names = without_prefix(shapes)
    other = any(name.startswith(("segmentation_head", "keypoint")) for name in names)
    if other or any(name not in names for name in _NEEDED):
        return None
    found = {name: tuple(map(int, names[name])) for name in _NEEDED}
    patch, hidden = found[_PATCHES][-1], found[_HEAD][-1]
    similar = _PATCH_14 if patch == 14 else SIZES["small"]
    levels = _count(names, r"backbone\.0\.projector\.stages\.(\d+)\.")
    return attrs.evolve(
        similar,
        resolution=_resolution(told, patch, found[_POSITIONS][1]),
        patch=patch,
        windows=_whole(told.get("num_windows")) or similar.windows,
        width=found[_PATCHES][0],
        features=_depths(told.get("out_feature_indexes")) or similar.features,
        hidden=hidden,
        decoder_layers=_count(names, rf"{re.escape(_LAYER)}\.(\d+)\."),
        points=found[_POINTS][0] // (levels * (hidden // 16)),
        scales=tuple(_scale(names, level) for level in range(levels)),
        queries=found[_QUERIES][0]
        // _count(names, r"transformer\.enc_output\.(\d+)\."),
        classes=found[_HEAD][0],
        feedforward=found[_FEEDFORWARD][0],
    )


def size_of(layout: Layout) -> str | None:
    """The published model that this is, whatever its classes; None if it is none."""
    for name, size in SIZES.items():
        if layout == attrs.evolve(size, classes=layout.classes):
            return name
    return None


def _count(names: Iterable[str], pattern: str) -> int:
    found = (re.match(pattern, name) for name in names)
    return len({match[1] for match in found if match}) or 1


def _scale(names: Mapping[str, Any], level: int) -> float:
    """A transposed convolution doubles the resolution, a plain one halves it."""
    resize = f"backbone.0.projector.stages_sampling.{level}.0.0"
    if f"{resize}.weight" in names:
        return 2.0
    return 0.5 if f"{resize}.conv.weight" in names else 1.0


def _resolution(told: Mapping[str, Any], patch: int, positions: int) -> int:
    published = _PATCH_14.resolution if patch == _PATCH_14.patch else None
    return (
        _whole(told.get("resolution")) or published or math.isqrt(positions - 1) * patch
    )


def _whole(value: Any) -> int | None:
    """A number between 1 and the largest side that makes sense; else None."""
    number = isinstance(value, int) and not isinstance(value, bool)
    return value if number and 0 < value <= _LARGEST else None


def _depths(value: Any) -> tuple[int, ...] | None:
    known = isinstance(value, list) and all(map(_whole, value))
    return tuple(value) if known and value else None
