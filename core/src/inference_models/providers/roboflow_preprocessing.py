"""What a package of Roboflow's says of its images, as fields of `Preprocessing`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from inference_models.errors import InvalidCard
from inference_models.preprocess import Preprocessing
from inference_models.strict_json import Node

CONFIG = "inference_config.json"
LARGEST_SIDE = 8192
"""Pixels."""

_RESIZES = {
    "stretch": "stretch",
    "letterbox": "letterbox",
    "letterbox-reflect-edges": "letterbox-reflect",
    "center-crop": "center-crop",
    "fit-longer-edge": "fit-longer-edge",
}
_CONTRASTS = {
    "Adaptive Equalization": "adaptive-equalization",
    "Contrast Stretching": "contrast-stretching",
    "Histogram Equalization": "histogram-equalization",
}
_PADDINGS = {"black": 0.0, "grey": 127.0, "gray": 127.0, "white": 255.0}


def preprocessing_of(
    config: Node, trained_with: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    """The fields of `Preprocessing`, as an architecture corrects them, and checked."""
    network = config.node("network_input")
    before = config.maybe_node("image_pre_processing") or Node({}, CONFIG)
    if network.whole("input_channels", 1, 100) not in (None, 3):
        raise network.wrong("input_channels", "is not 3, and only colour is read")
    told = {
        "size": _size(network.node("training_input_size")),
        "antialias": False,
        **_resize(network),
        **_crop(before),
        **_contrast(before),
        **_grayscale(before),
        **_color(network),
        **_values(network),
    }
    _enabled(before, "auto-orient")  # images come upright: EXIF is applied on reading
    fields = {"scale": 1.0, **trained_with(told)}
    try:
        Preprocessing.from_config(fields)
    except InvalidCard as error:
        raise InvalidCard(f"{network.place}: {error}") from error
    return fields


def _size(node: Node) -> list[int]:
    sides = [node.whole(key, 1, LARGEST_SIDE) for key in ("height", "width")]
    if None in sides:
        raise node.wrong("height", "or width is missing")
    return [side for side in sides if side is not None]


def _resize(network: Node) -> dict[str, Any]:
    """How the size is reached; a dataset's own size is where a mode is applied."""
    mode = network.choice("resize_mode", _RESIZES) or "stretch"
    dataset = network.maybe_node("dataset_version_resize_dimensions")
    canvas = None if dataset is None else _size(dataset)
    fields = {"resize": mode, "padding_value": _padding(network)}
    return (
        fields if mode == "stretch" or canvas is None else fields | {"canvas": canvas}
    )


def _padding(network: Node) -> float:
    value = network.data.get("padding_value")
    if isinstance(value, str):
        return network.choice("padding_value", _PADDINGS) or 0.0
    return network.number("padding_value", 0, 255) or 0.0


def _enabled(node: Node, key: str) -> Node | None:
    """A step of the dataset's own preprocessing, if it is switched on."""
    step = node.maybe_node(key)
    return step if step is not None and step.flag("enabled") else None


def _crop(before: Node) -> dict[str, Any]:
    step = _enabled(before, "static-crop")
    if step is None:
        return {}
    keys = ("x_min", "y_min", "x_max", "y_max")
    sides = [step.number(key, 0, 100) for key in keys]
    if None in sides:
        raise step.wrong("x_min", "to y_max are not all there")
    return {"crop": sides}


def _contrast(before: Node) -> dict[str, Any]:
    step = _enabled(before, "contrast")
    if step is None:
        return {}
    step.text("type")
    return {"contrast": step.choice("type", _CONTRASTS)}


def _grayscale(before: Node) -> dict[str, Any]:
    return {"grayscale": True} if _enabled(before, "grayscale") else {}


def _color(network: Node) -> dict[str, Any]:
    return {
        "color": network.choice("color_mode", {"rgb": "rgb", "bgr": "bgr"}) or "rgb"
    }


def _values(network: Node) -> dict[str, Any]:
    """value = (pixel / scaling_factor - mean) / std."""
    factor = network.number("scaling_factor", 1e-6, 1e6)
    given = network.values("normalization", 2)
    scale = {"scale": 1 / factor} if factor else {}
    if not given:
        return scale
    if len(given) != 2:
        raise network.wrong("normalization", "is not [[mean], [std]]")
    mean, std = (network.numbers("normalization", part, 3) for part in given)
    return {**scale, "mean": mean, "std": std}
