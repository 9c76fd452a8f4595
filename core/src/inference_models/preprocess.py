"""Preprocessing as data, and where it puts an image's pixels.

`Preprocessing` says what a network wants. `place` works out, for one image, which
rectangle is read, how it is resized and where it lands; host and devices share that
answer, so they can differ only in how they resample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import attrs
import numpy as np

from inference_models.errors import InvalidCard, InvalidInput, did_you_mean
from inference_models.frame import Frame

ResizeMode = Literal[
    "stretch", "letterbox", "letterbox-reflect", "center-crop", "fit-longer-edge"
]
Interpolation = Literal["nearest", "bilinear", "bicubic"]
Contrast = Literal[
    "adaptive-equalization", "contrast-stretching", "histogram-equalization"
]

# 8192x8192, of which a batch of one takes 0.8 GB.
_MOST_PIXELS = 2**26

# What can be multiplied, and divided by, in float32.
_LARGEST = 1e18

_CHOICES: dict[str, tuple[str, ...]] = {
    "resize": get_args(ResizeMode),
    "interpolation": get_args(Interpolation),
    "contrast": get_args(Contrast),
    "color": ("rgb", "bgr"),
    "padding_place": ("center", "top-left"),
    "centering": ("round", "floor"),
    "layout": ("NCHW", "NHWC"),
    "dtype": ("float32", "float16", "bfloat16", "uint8"),
}


def _choice(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    known = _CHOICES[attribute.name]
    if value not in known and not (value is None and attribute.default is None):
        raise InvalidCard(
            f"preprocessing {attribute.name} {value!r} is not one of {', '.join(known)}"
        )


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_size(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(_is_length, value))


def _pixels(wanted: str, *kinds: Callable[[Any], bool]) -> Callable[..., None]:
    """A validator of pixels: None or any of these kinds, `wanted` in words."""

    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is None:
            return
        if not any(is_kind(value) for is_kind in kinds):
            raise InvalidCard(
                f"preprocessing {attribute.name} {value!r} must be {wanted}, in whole "
                "pixels above 0"
            )
        height, width = value if _is_size(value) else (value, value)
        if height * width > _MOST_PIXELS and attribute.name != "longest":
            raise InvalidCard(
                f"preprocessing {attribute.name} {value!r} makes images of more than "
                f"{_MOST_PIXELS} pixels, which would take gigabytes of memory; correct "
                "it"
            )

    return check


_size = _pixels("(height, width)", _is_size)
_length = _pixels("a number", _is_length)
_size_or_length = _pixels("(height, width) or the shorter side", _is_size, _is_length)


def _flag(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, bool):
        raise InvalidCard(
            f"preprocessing {attribute.name} {value!r} must be true or false"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _finite(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    limit = 255 if attribute.name == "padding_value" else _LARGEST
    if not _is_number(value):
        raise InvalidCard(f"preprocessing {attribute.name} {value!r} must be a number")
    if not 0 <= value <= limit:
        raise InvalidCard(
            f"preprocessing {attribute.name} {value!r} is out of range; "
            f"it must be {'0 to 255' if limit == 255 else 'finite and not negative'}"
        )


def _percent(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is None:
        return
    four = isinstance(value, tuple) and len(value) == 4 and all(map(_is_number, value))
    if not four or not (
        0 <= value[0] < value[2] <= 100 and 0 <= value[1] < value[3] <= 100
    ):
        raise InvalidCard(
            f"preprocessing crop {value!r} is not (x_min, y_min, x_max, y_max) in "
            "percent, 0 to 100"
        )


def _per_channel(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    finite = all(_is_number(v) and -_LARGEST <= v <= _LARGEST for v in value)
    least = 1 / _LARGEST if attribute.name == "std" else 0
    if len(value) != 3 or not finite or any(abs(v) < least for v in value):
        raise InvalidCard(
            f"preprocessing {attribute.name} {value!r} must be three finite numbers"
            + ("" if attribute.name == "mean" else " other than 0")
        )


def _three(value: Any) -> tuple[Any, ...]:
    """One number three times, or several as they are."""
    if isinstance(value, (Sequence, np.ndarray)):
        return tuple(map(_float, value))
    return (_float(value),) * 3


def _float(value: Any) -> Any:
    number = isinstance(value, np.number) or _is_number(value)
    return float(value) if number and abs(value) <= _LARGEST else value


def _pair(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@attrs.frozen
class Preprocessing:
    """What is done to an image before the network, in this order.

    crop            static crop in percent of the image: (x_min, y_min, x_max, y_max)
    contrast        equalization of the cropped image (needs scikit-image)
    grayscale       three equal channels of ITU-R 601 luma
    intermediate    a first resize: (height, width), or the length of the shorter side
    longest         of that first resize: the longer side's limit, before the shorter's
    multiple        of that first resize: sides are cut down to multiples of this
    size            the network's (height, width); None keeps the image's
    divisible       with `size=None`: pad to multiples of this many pixels
    resize          how `size` is reached. "stretch" ignores the aspect ratio;
                    "letterbox" keeps it and pads with `padding_value`,
                    "letterbox-reflect" pads by reflection; "center-crop" cuts or pads
                    without scaling; "fit-longer-edge" keeps the ratio and does not pad
    canvas          (height, width) for which `resize` is worked out, and which is then
                    stretched to `size`: a dataset's size, before the network's
    interpolation   "nearest", "bilinear" or "bicubic"
    antialias       low-pass when shrinking, as Pillow does; False samples points, as
                    OpenCV's and torch's plain resizes do. They are different functions
    padding_value   grey level, 0 to 255
    padding_place   "center", or "top-left": the image's place on the padded canvas
    centering       where "center-crop" cuts if the rest is odd: "round" as torchvision
                    does, half to even, or "floor" as transformers does
    color           order of the network's channels
    scale, mean, std
                    value = (pixel * scale - mean) / std, per channel in `color` order
    dtype           of the batch; "uint8" batches are not normalised. The session's
                    input decides over what stands here
    layout          "NCHW" or "NHWC"

    Raises `InvalidCard` for a value outside these.
    """

    size: tuple[int, int] | None = attrs.field(
        default=None, converter=_pair, validator=_size
    )
    resize: ResizeMode = attrs.field(default="stretch", validator=_choice)
    canvas: tuple[int, int] | None = attrs.field(
        default=None, converter=_pair, validator=_size
    )
    interpolation: Interpolation = attrs.field(default="bilinear", validator=_choice)
    antialias: bool = attrs.field(default=True, validator=_flag)
    crop: tuple[float, float, float, float] | None = attrs.field(
        default=None, converter=_pair, validator=_percent
    )
    contrast: Contrast | None = attrs.field(default=None, validator=_choice)
    grayscale: bool = attrs.field(default=False, validator=_flag)
    intermediate: tuple[int, int] | int | None = attrs.field(
        default=None, converter=_pair, validator=_size_or_length
    )
    longest: int | None = attrs.field(default=None, validator=_length)
    multiple: int | None = attrs.field(default=None, validator=_length)
    divisible: int | None = attrs.field(default=None, validator=_length)
    padding_value: float = attrs.field(default=0.0, validator=_finite)
    padding_place: Literal["center", "top-left"] = attrs.field(
        default="center", validator=_choice
    )
    centering: Literal["round", "floor"] = attrs.field(
        default="round", validator=_choice
    )
    color: Literal["rgb", "bgr"] = attrs.field(default="rgb", validator=_choice)
    scale: float = attrs.field(default=1 / 255, validator=_finite)
    mean: tuple[float, ...] = attrs.field(
        default=(0.0, 0.0, 0.0), converter=_three, validator=_per_channel
    )
    std: tuple[float, ...] = attrs.field(
        default=(1.0, 1.0, 1.0), converter=_three, validator=_per_channel
    )
    dtype: str = attrs.field(default="float32", validator=_choice)
    layout: Literal["NCHW", "NHWC"] = attrs.field(default="NCHW", validator=_choice)

    @property
    def makes_one_size(self) -> bool:
        """Whether what it makes of an image has one size, whatever the image's."""
        return self.size is not None and (
            self.canvas is not None or self.resize != "fit-longer-edge"
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Preprocessing:
        """Read a card's "preprocessing"; `InvalidCard` names an unknown field."""
        if not isinstance(config, Mapping):
            raise InvalidCard(f"preprocessing must be a mapping, not {config!r}")
        for key in config:
            if key not in attrs.fields_dict(cls):
                raise InvalidCard(
                    f"preprocessing has no field {key!r}"
                    f"{did_you_mean(str(key), attrs.fields_dict(cls))}"
                )
        try:
            return cls(**config)
        except (TypeError, ValueError) as error:
            raise InvalidCard(f"preprocessing cannot be read: {error}") from error

    @property
    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """Per channel (multiply, add), float32 (3,): value = pixel * multiply + add.

        One and zero for "uint8", whose batches are not normalised.
        """
        if self.dtype == "uint8":
            return np.ones(3, np.float32), np.zeros(3, np.float32)
        mean, std = np.asarray(self.mean), np.asarray(self.std)
        return (self.scale / std).astype(np.float32), (-mean / std).astype(np.float32)


@attrs.frozen
class Placement:
    """Where one image's pixels go.

    The rectangle `source` (top, left, bottom, right) is resized to `intermediate`, if
    any, then to `resized`, and laid with its top left corner at `offset` on a canvas of
    `canvas`; negative offsets and what sticks out are cut off.
    """

    source: tuple[int, int, int, int]
    intermediate: tuple[int, int] | None
    resized: tuple[int, int]
    canvas: tuple[int, int]
    offset: tuple[int, int]
    frame: Frame

    @property
    def corner(self) -> tuple[int, int]:
        """Row and column of the canvas where what is seen of the image begins."""
        return max(0, self.offset[0]), max(0, self.offset[1])

    @property
    def seen(self) -> tuple[slice, slice]:
        """Rows and columns of the resized image that lie on the canvas."""
        rows, columns = (
            slice(max(0, -start), max(0, -start) + canvas - max(0, start))
            for start, canvas in zip(self.offset, self.canvas, strict=True)
        )
        return rows, columns


def place(spec: Preprocessing, height: int, width: int) -> Placement:
    """Work out where the pixels of an image of this size go.

    Raises `InvalidInput` for an image that would outgrow the memory.
    """
    source = _static_crop(spec.crop, height, width)
    rows, columns = source[2] - source[0], source[3] - source[1]
    intermediate = _intermediate(spec, rows, columns)
    before = intermediate or (rows, columns)
    resized, canvas, offset = _laid(spec, *before)
    # Width is resized before height: what lies between is as high as it was.
    between = (rows, before[1]), (before[0], resized[1])
    _check_growth((height, width), before, resized, canvas, *between)
    if resized == before and intermediate is not None:
        intermediate = None
    scale_y, scale_x = rows / resized[0], columns / resized[1]
    frame = Frame(
        height=height,
        width=width,
        input_height=canvas[0],
        input_width=canvas[1],
        scale_x=scale_x,
        scale_y=scale_y,
        offset_x=source[1] - offset[1] * scale_x,
        offset_y=source[0] - offset[0] * scale_y,
        seen=_seen(source, resized, canvas, offset) if _hides(spec) else None,
    )
    return Placement(source, intermediate, resized, canvas, offset, frame)


def _hides(spec: Preprocessing) -> bool:
    """Whether a part of an image may not be shown to the network."""
    return spec.crop is not None or spec.resize == "center-crop"


def _seen(
    source: tuple[int, int, int, int],
    resized: tuple[int, int],
    canvas: tuple[int, int],
    offset: tuple[int, int],
) -> tuple[int, int, int, int]:
    """The part of a source, in whole pixels, that is on the canvas once resized."""
    top, bottom = _on_side(source[0], source[2], resized[0], canvas[0], offset[0])
    left, right = _on_side(source[1], source[3], resized[1], canvas[1], offset[1])
    return top, left, bottom, right


def _on_side(
    start: int, stop: int, resized: int, canvas: int, offset: int
) -> tuple[int, int]:
    scale = (stop - start) / resized
    first, last = max(0, -offset), min(resized, canvas - offset)
    end = start + math.ceil(last * scale)
    return start + math.floor(first * scale), min(end, stop)


def place_batch(
    spec: Preprocessing, sizes: Sequence[tuple[int, int]]
) -> tuple[list[Placement], tuple[int, int]]:
    """Place images of these (height, width) on one canvas, large enough for all.

    A call of a model gives only images that are made one size together.
    """
    places = [place(spec, *size) for size in sizes]
    canvas = (max(p.canvas[0] for p in places), max(p.canvas[1] for p in places))
    _check_growth(max(sizes, key=lambda size: size[0] * size[1]), canvas)
    return [_on_canvas(place, canvas) for place in places], canvas


def _check_growth(image: tuple[int, int], *made: tuple[int, int]) -> None:
    """Raise `InvalidInput` where an image becomes much larger than it is.

    One that is large itself may stay so, and be padded.
    """
    allowed = max(_MOST_PIXELS, 2 * image[0] * image[1])
    for height, width in made:
        if height * width > allowed:
            raise InvalidInput(
                f"an image of {image[0]}x{image[1]} would be made one of {height}x"
                f"{width}, more than {allowed} pixels; crop it, call the model with it "
                "alone, or correct the card's preprocessing"
            )


def _on_canvas(place: Placement, canvas: tuple[int, int]) -> Placement:
    frame = attrs.evolve(place.frame, input_height=canvas[0], input_width=canvas[1])
    return attrs.evolve(place, canvas=canvas, frame=frame)


def _static_crop(
    crop: tuple[float, float, float, float] | None, height: int, width: int
) -> tuple[int, int, int, int]:
    if crop is None:
        return 0, 0, height, width
    left, right = int(crop[0] / 100 * width), int(crop[2] / 100 * width)
    top, bottom = int(crop[1] / 100 * height), int(crop[3] / 100 * height)
    return top, left, max(bottom, top + 1), max(right, left + 1)


def _intermediate(
    spec: Preprocessing, height: int, width: int
) -> tuple[int, int] | None:
    short = spec.intermediate
    if not isinstance(short, int):
        return short
    least, most = sorted((height, width))
    exact: float = short
    if spec.longest is not None and most / least * short > spec.longest:
        exact = spec.longest * least / most
        short = round(exact)
    long = max(1, int(exact * most / least))
    if short == least and not (spec.multiple and height > width):
        long = most  # transformers leaves it as it is, except for an upright multiple
    short = max(1, short)
    short, long = _cut_down(short, spec.multiple), _cut_down(long, spec.multiple)
    return (short, long) if height <= width else (long, short)


def _cut_down(length: int, multiple: int | None) -> int:
    return length if multiple is None else max(multiple, length - length % multiple)


def _laid(
    spec: Preprocessing, height: int, width: int
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Size of the resized image and of the canvas, and its place on the canvas."""
    if spec.canvas is None or spec.size is None:
        resized, canvas = _sizes(spec, height, width)
        return resized, canvas, _offset(spec, resized, canvas)
    first = attrs.evolve(spec, size=spec.canvas, canvas=None)
    resized, canvas, offset = _laid(first, height, width)
    vertical, horizontal = spec.size[0] / canvas[0], spec.size[1] / canvas[1]
    stretched = round(resized[0] * vertical), round(resized[1] * horizontal)
    return (
        (max(1, stretched[0]), max(1, stretched[1])),
        spec.size,
        (round(offset[0] * vertical), round(offset[1] * horizontal)),
    )


def _sizes(
    spec: Preprocessing, height: int, width: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The size an image is resized to, and the size of the canvas it is laid on."""
    if spec.size is None:
        step = spec.divisible or 1
        canvas = (-(-height // step) * step, -(-width // step) * step)
        return (height, width), canvas
    if spec.resize == "stretch":
        return spec.size, spec.size
    if spec.resize == "center-crop":
        return (height, width), spec.size
    ratio = min(spec.size[0] / height, spec.size[1] / width)
    fitted = (max(1, round(height * ratio)), max(1, round(width * ratio)))
    return fitted, fitted if spec.resize == "fit-longer-edge" else spec.size


def _offset(
    spec: Preprocessing, resized: tuple[int, int], canvas: tuple[int, int]
) -> tuple[int, int]:
    if spec.padding_place == "top-left" or spec.size is None:
        return 0, 0
    top, left = (
        _centered(r, c, spec.centering) for r, c in zip(resized, canvas, strict=True)
    )
    return top, left


def _centered(length: int, canvas: int, centering: str) -> int:
    if centering == "floor":
        return -((length - canvas) // 2)
    if length <= canvas:
        return (canvas - length) // 2
    # torchvision's CenterCrop rounds half to even; published ImageNet numbers use it.
    return -round((length - canvas) / 2)
