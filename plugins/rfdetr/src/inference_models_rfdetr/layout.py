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
_MOST_SLOTS = 4096


def _to_ints(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(values)


def _to_floats(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(values)


def _check(name: str, value: Any) -> None:
    """Raise `TypeError` where a field is not what a network can be made of."""
    if name == "segments":
        if not isinstance(value, bool):
            raise TypeError(f"{name} {value!r} is neither true nor false")
        return
    if name == "keypoints":
        _check_points(value)
        return
    values = value if isinstance(value, tuple) else (value,)
    kinds = (int, float) if name == "scales" else (int,)
    if not values or any(
        not isinstance(v, kinds) or isinstance(v, bool) or v <= 0 for v in values
    ):
        raise TypeError(f"{name} {value!r} is no number above 0")


def _check_points(counts: tuple[int, ...]) -> None:
    if not all(type(count) is int and count >= 0 for count in counts):
        raise TypeError(f"keypoints {counts!r:.60} are no numbers from 0")
    slots = slots_of(counts)
    if counts and not 0 < slots <= _MOST_SLOTS:
        raise TypeError(f"keypoints {counts!r:.60} need {slots} of {_MOST_SLOTS} slots")


def slots_of(counts: Sequence[int]) -> int:
    """Places for points: of each class as many as of the one with most."""
    return len(counts) * max(counts, default=0)


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
    segments: bool = False
    """Whether it has a mask for each query."""
    keypoints: tuple[int, ...] = attrs.field(default=(), converter=_to_ints)
    """How many points each class has, from column 0 on; empty where it finds none."""

    def __attrs_post_init__(self) -> None:
        for field in attrs.fields(Layout):
            _check(field.name, getattr(self, field.name))
        if len(self.keypoints) > self.classes:
            raise InvalidCard(
                f"RF-DETR has {self.classes} classes, and points for "
                f"{len(self.keypoints)} of them; correct the labels or the layout"
            )
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

    @property
    def mask_side(self) -> int:
        """Cells along a side of a mask, which are of four pixels."""
        return self.resolution // 4

    @property
    def slots(self) -> int:
        """Places for points of each query."""
        return slots_of(self.keypoints)

    def side_of(self, scale: float) -> int:
        """Cells along a side of a feature map."""
        return int(self.side * scale)

    @property
    def cells(self) -> int:
        """Cells of all feature maps."""
        return sum(self.side_of(scale) ** 2 for scale in self.scales)


_PATCH_14 = Layout(560, patch=14, windows=4, features=(2, 5, 8, 11))
_SEGMENTS = Layout(432, patch=12, decoder_layers=4, queries=200, segments=True)

SIZES = {
    "nano": Layout(384, decoder_layers=2),
    "small": Layout(512),
    "medium": Layout(576, decoder_layers=4),
    "base": _PATCH_14,
    "large": Layout(704, decoder_layers=4),
    "large-legacy": attrs.evolve(
        _PATCH_14, width=768, hidden=384, points=4, scales=(2.0, 0.5)
    ),
    "seg-preview": _SEGMENTS,
    "seg-nano": attrs.evolve(_SEGMENTS, resolution=312, windows=1, queries=100),
    "seg-small": attrs.evolve(_SEGMENTS, resolution=384, queries=100),
    "seg-medium": attrs.evolve(_SEGMENTS, decoder_layers=5),
    "seg-large": attrs.evolve(_SEGMENTS, resolution=504, decoder_layers=5),
    "seg-xlarge": attrs.evolve(
        _SEGMENTS, resolution=624, decoder_layers=6, queries=300
    ),
    "seg-2xlarge": attrs.evolve(
        _SEGMENTS, resolution=768, decoder_layers=6, queries=300
    ),
    "keypoint-preview": Layout(
        576, patch=12, decoder_layers=4, queries=100, classes=2, keypoints=(0, 17)
    ),
}
"""The published models; those that segment begin with "seg-"."""

_EMBEDDINGS = "backbone.0.encoder.encoder.embeddings"
_PATCHES = f"{_EMBEDDINGS}.patch_embeddings.projection.weight"
POSITIONS = f"{_EMBEDDINGS}.position_embeddings"
_LAYER = "transformer.decoder.layers"
_POINTS = f"{_LAYER}.0.cross_attn.attention_weights.bias"
_FEEDFORWARD = f"{_LAYER}.0.linear1.bias"
_HEAD = "class_embed.weight"
_ENCODER_LAYER = "backbone.0.encoder.encoder.encoder.layer"
QUERIES = "query_feat.weight"
_GROUP = r"transformer\.enc_output\.(\d+)\."
_MASKS = "segmentation_head."
POINT_SLOTS = "_kp_active_mask"
_TOKENS = "transformer.keypoint_query_initializer.queries"
_NEEDED_POINTS = {
    POINT_SLOTS: 2,
    _TOKENS: 2,
    "keypoint_embed.layers.0.weight": 2,
    "backbone.0.cross_attn_projector.stages.0.1.weight": 1,
    f"{_LAYER}.0.kp_cross_attn.value_proj.weight": 2,
}
# Relatives whose tokens are narrower, or look at other queries', and more queries.
_OTHER = re.compile(
    r"transformer\.(register_|decoder\.layers\.\d+\.((inst|memory)_\w+|inter_inst_))"
)
_NEEDED = {
    _PATCHES: 4,
    POSITIONS: 3,
    _POINTS: 1,
    _FEEDFORWARD: 1,
    _HEAD: 2,
    QUERIES: 2,
}
"""Tensors that tell sizes, and how many axes each has."""

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
    """The layout of a checkpoint of RF-DETR, or None.

    Shapes cannot tell the resolution, the windows, the depths of features and, for
    several classes, how many points each has: `told` is what the trainer wrote beside
    the tensors, under its names. Where that is silent, they are those of a published
    model with the same patches, and as many points as fit.
    """
    names = without_prefix(shapes)
    if not all(_fits(names.get(name), rank) for name, rank in _NEEDED.items()):
        return None
    found = {name: tuple(map(int, names[name])) for name in _NEEDED}
    points = _points(names, told, found[_HEAD])
    patch, hidden = found[_PATCHES][-1], found[_HEAD][-1]
    similar = _similar(patch, found[POSITIONS][1])
    if hidden < 32 or points is None:
        return None
    scales = _scales(names)
    resolution, windows = _sides(told, similar, patch, found[POSITIONS][1])
    if resolution % (patch * windows):
        return None
    return attrs.evolve(
        similar,
        resolution=resolution,
        patch=patch,
        windows=windows,
        width=found[_PATCHES][0],
        features=_features(told, names) or similar.features,
        hidden=hidden,
        decoder_layers=_count(names, rf"{re.escape(_LAYER)}\.(\d+)\."),
        points=found[_POINTS][0] // (len(scales) * (hidden // 16)),
        scales=scales,
        queries=found[QUERIES][0] // _count(names, _GROUP),
        classes=found[_HEAD][0],
        feedforward=found[_FEEDFORWARD][0],
        segments=any(name.startswith(_MASKS) for name in names),
        keypoints=points,
    )


def _points(
    names: Mapping[str, Sequence[int | str]],
    told: Mapping[str, Any],
    head: tuple[int, ...],
) -> tuple[int, ...] | None:
    """How many points each class has, () for a network without; None for another."""
    if not any(name.startswith("keypoint") for name in names):
        return ()
    fit = all(_fits(names.get(name), rank) for name, rank in _NEEDED_POINTS.items())
    if not fit or any(map(_OTHER.match, names)):
        return None
    (groups, most), (total, width) = (
        tuple(map(int, names[name])) for name in (POINT_SLOTS, _TOKENS)
    )
    if width != head[1] or groups > head[0] or groups * most > _MOST_SLOTS:
        return None
    for counts in _told_counts(told), _counts(groups, most, total, head[0]):
        if (len(counts), max(counts, default=0), sum(counts)) == (groups, most, total):
            return tuple(counts)
    return None


def _told_counts(told: Mapping[str, Any]) -> list[int]:
    """How many points each class has, as the trainer wrote it."""
    known = told.get("num_keypoints_per_class")
    counts = known if isinstance(known, list) else []
    return counts if all(type(n) is int and n >= 0 for n in counts) else []


def _counts(groups: int, most: int, total: int, classes: int) -> list[int]:
    """As many points for each class, but for none of a first that is background.

    Old checkpoints have that, and so a group for each column of the head.
    """
    if groups == classes and total == most * (groups - 1):
        return [0] + [most] * (groups - 1)
    return [most] * groups


def _similar(patch: int, positions: int) -> Layout:
    """A published model with such patches, and as many of them if there is one."""
    alike = [size for size in SIZES.values() if size.patch == patch]
    same = [size for size in alike if size.side**2 + 1 == positions]
    return next(iter(same or alike), SIZES["small"])


def points_of(config: Mapping[str, Any]) -> tuple[int, ...]:
    """How many points each class has, as a card's config says in its layout or size.

    Raises `InvalidCard` for what cannot be read.
    """
    size = SIZES.get(str(config.get("size")))
    given = config.get("layout", {})
    told = given.get("keypoints") if isinstance(given, Mapping) else None
    if told is None:
        return size.keypoints if size else ()
    try:
        counts = _to_ints(told)
        _check_points(counts)
    except TypeError as error:
        raise InvalidCard(f"layout {given!r:.200} cannot be read: {error}") from error
    return counts


def size_of(layout: Layout) -> str | None:
    """The published model that this is, whatever its classes and points, or None."""
    for name, size in SIZES.items():
        points = layout.keypoints if size.keypoints else ()
        classes = layout.classes
        if classes >= len(points) and layout == attrs.evolve(
            size, classes=classes, keypoints=points
        ):
            return name
    return None


def _count(names: Iterable[str], pattern: str) -> int:
    found = (re.match(pattern, name) for name in names)
    return len({match[1] for match in found if match}) or 1


def _scales(names: Mapping[str, Any]) -> tuple[float, ...]:
    """Of the feature maps that the projector makes."""
    levels = _count(names, r"backbone\.0\.projector\.stages\.(\d+)\.")
    return tuple(_scale(names, level) for level in range(levels))


def _scale(names: Mapping[str, Any], level: int) -> float:
    """A transposed convolution doubles the resolution, a plain one halves it."""
    resize = f"backbone.0.projector.stages_sampling.{level}.0.0"
    if f"{resize}.weight" in names:
        return 2.0
    return 0.5 if f"{resize}.conv.weight" in names else 1.0


def _fits(shape: Sequence[int | str] | None, rank: int) -> bool:
    """Whether a tensor has so many axes, none of them free or empty."""
    sizes = shape or ()
    return len(sizes) == rank and all(isinstance(n, int) and n > 0 for n in sizes)


def _sides(
    told: Mapping[str, Any], similar: Layout, patch: int, positions: int
) -> tuple[int, int]:
    """Resolution and windows: as told where they fit each other, else as published."""
    seen = math.isqrt(positions - 1) * patch
    published = _PATCH_14.resolution if patch == _PATCH_14.patch else seen
    resolution = _whole(told.get("resolution")) or published
    windows = _whole(told.get("num_windows")) or similar.windows
    if resolution % (patch * windows):
        return published, similar.windows
    return resolution, windows


def _whole(value: Any) -> int | None:
    """A number between 1 and the largest side that makes sense; else None."""
    number = isinstance(value, int) and not isinstance(value, bool)
    return value if number and 0 < value <= _LARGEST else None


def _features(told: Mapping[str, Any], names: Iterable[str]) -> tuple[int, ...] | None:
    """The depths that the trainer wrote, if the encoder has as many layers."""
    value = told.get("out_feature_indexes")
    layers = _count(names, rf"{re.escape(_ENCODER_LAYER)}\.(\d+)\.")
    known = isinstance(value, list) and all(map(_whole, value))
    return tuple(value) if known and value and max(value) <= layers else None
