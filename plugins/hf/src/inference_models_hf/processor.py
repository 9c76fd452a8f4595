"""transformers' `preprocessor_config.json` as `Preprocessing`, which we run ourselves.

What is expressed is what its processors do with Pillow, the library's reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from inference_models import Preprocessing
from inference_models.strict_json import Node

_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
_CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_SQUARE = {"height": 224, "width": 224}
_TO_SQUARE = {"default_to_square": True}  # what a size of one number means
_CROPPED = {"size": 224, "crop_size": _SQUARE, "do_center_crop": True, "resample": 3}
_DETECTION = {"size": {"shortest_edge": 800, "longest_edge": 1333}, **_IMAGENET}
_CENTER_CROP = {"resize": "center-crop", "centering": "floor"}

_DETECTORS = ("ConditionalDetr", "DeformableDetr", "Detr", "RfDetr", "Yolos")

DEFAULTS: dict[str, Mapping[str, Any]] = {
    "Beit": {
        **_TO_SQUARE,
        "size": _SQUARE,
        "crop_size": _SQUARE,
        "resample": 3,
        **_HALF,
    },
    "Bit": {**_CROPPED, **_CLIP},
    "CLIP": {**_CROPPED, **_CLIP},
    "ConditionalDetr": _DETECTION,
    "ConvNext": {"size": 384, "crop_pct": 224 / 256, "resample": 3, **_HALF},
    "DeformableDetr": _DETECTION,
    "DeiT": {
        **_CROPPED,
        **_TO_SQUARE,
        "size": {"height": 256, "width": 256},
        **_HALF,
    },
    "Detr": _DETECTION,
    "EfficientNet": {
        "size": {"height": 346, "width": 346},
        "crop_size": {"height": 289, "width": 289},
        "resample": 3,
        "include_top": True,
        **_TO_SQUARE,
        **_HALF,
    },
    "Levit": {**_CROPPED, **_IMAGENET},
    "MobileNetV1": {**_CROPPED, "size": 256, "resample": 2, **_HALF},
    "MobileNetV2": {**_CROPPED, "size": 256, "resample": 2, **_HALF},
    "MobileViT": {
        **_CROPPED,
        "crop_size": {"height": 256, "width": 256},
        "do_normalize": False,
        "do_flip_channel_order": True,
        **_HALF,
    },
    "PoolFormer": {**_CROPPED, "crop_pct": 0.9, **_IMAGENET},
    "Pvt": {**_TO_SQUARE, "size": _SQUARE, "resample": 3, **_IMAGENET},
    "RTDetr": {
        "size": {"height": 640, "width": 640},
        "do_normalize": False,
        **_IMAGENET,
    },
    "RfDetr": _DETECTION,
    "Segformer": {**_TO_SQUARE, "size": {"height": 512, "width": 512}, **_IMAGENET},
    "Siglip": {"size": _SQUARE, "resample": 3, **_HALF},
    "ViT": {**_TO_SQUARE, "size": _SQUARE, **_HALF},
    "Yolos": _DETECTION,
}
"""What each processor does where its file is silent, by its name without an ending."""

# Keys of which null is not the default: these switch a step, those are what it takes.
_FLAGS = (
    "do_center_crop",
    "do_flip_channel_order",
    "do_normalize",
    "do_rescale",
    "do_resize",
    "include_top",
    "rescale_offset",
)
_VALUES = (
    "crop_pct",
    "crop_size",
    "image_mean",
    "image_std",
    "rescale_factor",
    "resample",
    "size",
)
_KNOWN_TO = {
    "do_center_crop": {*DEFAULTS} - {*_DETECTORS, "RTDetr", "Segformer"},
    "do_flip_channel_order": {"MobileViT"},
    "include_top": {"EfficientNet"},
    "rescale_offset": {"EfficientNet"},
}
"""Flags that other processors pass over, whatever a file says."""

_ENDINGS = ("Fast", "Pil", "ImageProcessor", "FeatureExtractor")
_INTERPOLATIONS = {0: "nearest", 2: "bilinear", 3: "bicubic"}
_LONGEST = 1333
"""Of files that say a single number for detection, and no `max_size`."""


def preprocessing_of(config: Node) -> dict[str, Any]:
    """The fields of `Preprocessing`; `InvalidCard` says what cannot be expressed."""
    name = _name(config)
    node = Node({**DEFAULTS[name], **_given(config, name)}, config.place)
    resize = _RESIZES.get(name, _resize) if node.flag("do_resize", True) else _no_resize
    fields = {
        **resize(node),
        **_interpolation(node),
        **_color(node),
        **_values(node),
    }
    Preprocessing.from_config(fields)  # raises for values that are none
    return fields


def _given(config: Node, name: str) -> dict[str, Any]:
    """What the file says; a null means what it means to transformers.

    It switches a step off. A value that is null is none, so that the step that needs
    it is refused; of a detector's size, and of all other keys, it is the default.
    """
    known = {k: v for k, v in config.data.items() if name in _KNOWN_TO.get(k, (name,))}
    given = {k: v for k, v in known.items() if v is not None or k in _VALUES}
    if given.get("size", 0) is None and _RESIZES.get(name) in (_detection, _yolos):
        del given["size"]
    off = [key for key in _FLAGS if key in known and known[key] is None]
    return {**given, **dict.fromkeys(off, False)}


def _name(config: Node) -> str:
    for key in ("image_processor_type", "feature_extractor_type"):
        full = config.maybe_text(key)
        if full is not None:
            name = full
            for ending in _ENDINGS:
                name = name.removesuffix(ending)
            if name not in DEFAULTS:
                known = ", ".join(DEFAULTS)
                raise config.wrong(key, f"{full[:60]!r} is not one of {known}")
            return name
    raise config.wrong("image_processor_type", "is missing")


def _resize(node: Node) -> dict[str, Any]:
    """To a size, or by the shorter side; a centre is cut out of that if it says so."""
    sides = _sides(node, "size", node.flag("default_to_square"))
    if node.maybe_node("pad_size") is not None:
        raise node.wrong("pad_size", "is given, and no such padding is known here")
    if not node.flag("do_center_crop"):
        return sides
    first = sides.pop("size", None)
    return {**({"intermediate": first} if first else sides), **_crop(node)}


def _crop(node: Node) -> dict[str, Any]:
    size = _sides(node, "crop_size", square=True).get("size")
    if size is None:
        raise node.wrong("crop_size", "names no height and width")
    return {"size": size, **_CENTER_CROP}


def _sides(node: Node, key: str, square: bool) -> dict[str, Any]:
    """`size`, or `intermediate` for the shorter side and `longest` for the other.

    Releases of transformers wrote a size as one number, as two, or as a mapping.
    """
    value = node.data.get(key)
    if isinstance(value, list) and len(value) == 2:
        return {"size": [_side(node, key, side) for side in value]}
    if not isinstance(value, dict):
        side = _side(node, key, value)
        if square:
            return {"size": [side, side]}
        return _by_shorter(side, node.whole("max_size", 1, 100_000))
    inner = node.node(key)
    if "height" in value and "width" in value:
        return {"size": [_side(inner, k, value[k]) for k in ("height", "width")]}
    short = inner.whole("shortest_edge", 1, 100_000)
    if short is None:
        raise node.wrong(
            key, f"names {', '.join(value) or 'nothing'}, which is unknown"
        )
    return _by_shorter(short, inner.whole("longest_edge", 1, 100_000))


def _by_shorter(side: int, longest: int | None) -> dict[str, Any]:
    return {"intermediate": side, **({"longest": longest} if longest else {})}


def _side(node: Node, key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 100_000:
        raise node.wrong(key, f"{str(value)[:40]!r} is no number of pixels")
    return value


def _detection(node: Node) -> dict[str, Any]:
    sides = _sides(node, "size", square=False)
    if "intermediate" in sides:
        sides.setdefault("longest", _LONGEST)
    return sides


def _yolos(node: Node) -> dict[str, Any]:
    sides = _detection(node)
    return {**sides, "multiple": 16} if "intermediate" in sides else sides


def _convnext(node: Node) -> dict[str, Any]:
    """Below 384 pixels a centre is cut out of a larger resize; from there on, none."""
    if node.flag("do_center_crop"):
        raise node.wrong("do_center_crop", "is on, and ConvNeXt crops by itself")
    side = _shorter(node)
    if side >= 384:
        return {"size": [side, side]}
    share = node.number("crop_pct", 0.01, 1) or 1.0
    return {"intermediate": int(side / share), "size": [side, side], **_CENTER_CROP}


def _poolformer(node: Node) -> dict[str, Any]:
    share = node.number("crop_pct", 0.01, 1) or 1.0
    crop = _crop(node) if node.flag("do_center_crop") else {}
    return {"intermediate": int(_shorter(node) / share), **crop}


def _levit(node: Node) -> dict[str, Any]:
    if not node.flag("do_center_crop"):
        raise node.wrong("do_center_crop", "is off, and LeViT has one size alone")
    if "size" in _sides(node, "size", square=False):
        return _resize(node)  # a height and a width are not enlarged before the crop
    return {"intermediate": int(256 / 224 * _shorter(node)), **_crop(node)}


def _shorter(node: Node) -> int:
    sides = _sides(node, "size", square=False)
    height, width = sides.get("size", (sides.get("intermediate"),) * 2)
    if height != width:
        raise node.wrong("size", f"is {height}x{width}, and one number is meant")
    return int(height)


def _no_resize(node: Node) -> dict[str, Any]:
    return _crop(node) if node.flag("do_center_crop") else {}


_RESIZES: dict[str, Callable[[Node], dict[str, Any]]] = {
    **dict.fromkeys(_DETECTORS, _detection),
    "ConvNext": _convnext,
    "Levit": _levit,
    "PoolFormer": _poolformer,
    "Yolos": _yolos,
}


def _interpolation(node: Node) -> dict[str, Any]:
    number = node.whole("resample", 0, 5)
    if number is None and "resample" in node.data and node.flag("do_resize", True):
        raise node.wrong("resample", "is null, and images are to be resized")
    if number is None:
        number = 2
    if number not in _INTERPOLATIONS:
        known = ", ".join(f"{n} ({word})" for n, word in _INTERPOLATIONS.items())
        raise node.wrong("resample", f"{number} is not one of {known}")
    return {"interpolation": _INTERPOLATIONS[number]}


def _color(node: Node) -> dict[str, Any]:
    return {"color": "bgr"} if node.flag("do_flip_channel_order") else {}


def _values(node: Node) -> dict[str, Any]:
    """value = (pixel * rescale_factor - mean) / std."""
    factor = node.number("rescale_factor", 1e-6, 1e3) or 1 / 255
    rescaled = node.flag("do_rescale", True)
    if rescaled and node.data.get("rescale_factor", factor) is None:
        raise node.wrong("rescale_factor", "is null, and values are to be rescaled")
    mean, std = [0.0] * 3, [1.0] * 3
    if node.flag("do_normalize", True):
        mean, std = _statistics(node)
    if node.flag("include_top"):  # EfficientNet's divides by it once more
        std = [a * b for a, b in zip(std, _statistics(node)[1], strict=True)]
    if node.flag("rescale_offset") and rescaled:
        mean = [value + 1 for value in mean]
    return {"scale": factor if rescaled else 1.0, "mean": mean, "std": std}


def _statistics(node: Node) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the three channels."""
    return _per_channel(node, "image_mean"), _per_channel(node, "image_std")


def _per_channel(node: Node, key: str) -> list[float]:
    value = node.data[key]
    return node.numbers(key, value if isinstance(value, list) else [value] * 3, 3)
