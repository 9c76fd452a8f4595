"""Pictures, and what is done to them before a network, for tests of that."""

from __future__ import annotations

import numpy as np
import pytest

from inference_models import Preprocessing

RANDOM = np.random.default_rng(0)
MODES = ["stretch", "letterbox", "letterbox-reflect", "center-crop", "fit-longer-edge"]
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

# What else may be asked of preprocessing, with a size where it says none.
STEPS = [
    {"grayscale": True},
    {"grayscale": True, "color": "bgr"},
    {"color": "bgr"},
    {"crop": (10, 20.5, 70, 99)},
    {"intermediate": 20, "resize": "center-crop", "size": (16, 16)},
    {"intermediate": (19, 40), "resize": "letterbox"},
    {"intermediate": (19, 40), "grayscale": True, "color": "bgr"},
    {"padding_place": "top-left", "resize": "letterbox", "padding_value": 7.5},
    {"size": None, "divisible": 32},
    {"size": None},
    {"dtype": "uint8", "resize": "letterbox", "padding_value": 3},
    {"dtype": "uint8", "layout": "NHWC"},
    {"dtype": "float16", "scale": 1.0},
    {"dtype": "float16", **IMAGENET},
    {"layout": "NHWC", **IMAGENET},
    {"resize": "letterbox-reflect", "size": (200, 90)},
]


def picture(height, width):
    """Noise over a ramp, with a hard edge: bicubic overshoots are clipped in it."""
    ramp = np.linspace(0, 180, width)[None, :, None]
    pixels = ramp + RANDOM.integers(0, 76, (height, width, 3))
    pixels[: height // 3] = 255
    return pixels.astype(np.uint8)


# Pillow 13 resizes the height first where it shrinks more; torch never does, and clips
# between the two. No image here shrinks more in its height.
IMAGES = [picture(37, 53), picture(21, 33), picture(64, 97), picture(17, 17)]


def in_every_mode(test):
    """Run a test for each way of resizing, with what it takes of `resized`."""
    for name, values in (
        ("antialias", [True, False]),
        ("interpolation", ["nearest", "bilinear", "bicubic"]),
        ("resize", MODES),
    ):
        test = pytest.mark.parametrize(name, values)(test)
    return test


def resized(size, resize, interpolation, antialias, **more):
    """Preprocessing that resizes so, with padding that shows."""
    return Preprocessing(
        size=size,
        resize=resize,
        interpolation=interpolation,
        antialias=antialias,
        padding_value=114,
        **more,
    )


def grey_levels(array, spec):
    """A batch on the host as (N, 3, H, W), before its normalisation."""
    levels = array.astype(np.float32)
    if spec.layout == "NHWC":
        levels = levels.transpose(0, 3, 1, 2)
    multiply, add = (values[:, None, None] for values in spec.affine)
    return (levels - add) / multiply


def levels_apart(spec):
    """How many grey levels a device may be off, and a little for float32.

    A half keeps eleven bits: of whole levels all, of normalised ones a few.
    """
    return 2.6 if spec.dtype == "float16" and spec.scale != 1 else 2.01
