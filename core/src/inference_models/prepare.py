"""The host's reference of `Preprocessing`, in NumPy and Pillow.

What a device does instead must mean the same: within 2/255 of this before
normalisation, in every mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from inference_models.errors import InvalidInput, MissingDependency
from inference_models.frame import Frame
from inference_models.images import Image
from inference_models.preprocess import Placement, Preprocessing, place_batch

LUMA = {"rgb": (19595, 38470, 7471), "bgr": (7471, 38470, 19595)}
"""ITU-R 601 luma in Pillow's fixed point; the three add up to 65536."""

# Pixels, of four bytes each in Pillow: an image worth resizing in bands, and a band.
_LARGE, _BAND = 2**22, 2**20


def prepare(
    images: Sequence[Image], spec: Preprocessing
) -> tuple[np.ndarray, list[Frame]]:
    """Images -> one batch (N, 3, H, W) or (N, H, W, 3) of `spec.dtype`, and frames."""
    places, canvas = place_batch(spec, [(i.height, i.width) for i in images])
    dtype = np.uint8 if spec.dtype == "uint8" else np.float32
    batch = np.empty((len(images), 3, *canvas), dtype)
    for planes, image, place in zip(batch, images, places, strict=True):
        _lay(planes, _resampled(image, spec, place), image.color, spec, place)
    return _finish(batch, spec), [place.frame for place in places]


def _finish(batch: np.ndarray, spec: Preprocessing) -> np.ndarray:
    if spec.dtype == "bfloat16":
        raise InvalidInput("numpy has no bfloat16; choose float16 or float32")
    if spec.layout == "NHWC":
        batch = np.ascontiguousarray(batch.transpose(0, 2, 3, 1))
    return batch.astype(spec.dtype, copy=False)


def _resampled(image: Image, spec: Preprocessing, place: Placement) -> np.ndarray:
    """The image's pixels after crop, contrast, grayscale and resizes, (h, w, 3)."""
    top, left, bottom, right = place.source
    pixels = image.host()[top:bottom, left:right]
    if spec.contrast is not None:
        pixels = equalize(pixels, spec.contrast)
    if spec.grayscale:
        pixels = _gray(pixels, image.color)
    for size in (place.intermediate, place.resized):
        if size is not None and size != pixels.shape[:2]:
            pixels = resize(pixels, size, spec)
    return pixels


def resize(
    pixels: np.ndarray, size: tuple[int, int], spec: Preprocessing
) -> np.ndarray:
    """Resize uint8 (H, W, 3) to (height, width) with the stated interpolation."""
    from PIL.Image import Resampling

    if spec.interpolation == "nearest":
        return np.asarray(_picture(pixels).resize(size[::-1], Resampling.NEAREST))
    if not spec.antialias:
        return _sampled(pixels, size, spec.interpolation == "bicubic")
    return _filtered(pixels, size, Resampling[spec.interpolation.upper()])


def _filtered(pixels: np.ndarray, size: tuple[int, int], kind: Any) -> np.ndarray:
    """Resize with a low-pass.

    Bicubic overshoots and is clipped after each axis, so their order matters: width
    first, as torch and older Pillows do; newer ones take the cheaper.
    """
    if kind == kind.BICUBIC or pixels.shape[0] * pixels.shape[1] > _LARGE:
        picture = _narrowed(pixels, size[1], kind)
    else:
        picture = _picture(pixels)
    return np.asarray(picture.resize(size[::-1], kind))


def _narrowed(pixels: np.ndarray, width: int, kind: Any) -> Any:
    """Resize the first axis, in bands of rows, which are independent of each other.

    Pillow would copy a large image as a whole, and fresh memory for it can cost as much
    as the resize.
    """
    import PIL.Image

    height = pixels.shape[0]
    rows = max(1, _BAND // pixels.shape[1])
    picture = PIL.Image.new("RGB", (width, height))
    for top in range(0, height, rows):
        band = _picture(pixels[top : top + rows])
        picture.paste(band.resize((width, band.height), kind), (0, top))
    return picture


def _picture(pixels: np.ndarray) -> Any:
    """The pixels as Pillow holds them; planes are joined there, and not in NumPy."""
    import PIL.Image

    if pixels.strides[2] == 1:
        return PIL.Image.fromarray(pixels)
    planes = pixels.transpose(2, 0, 1)
    return PIL.Image.merge("RGB", [PIL.Image.fromarray(plane) for plane in planes])


def _sampled(pixels: np.ndarray, size: tuple[int, int], cubic: bool) -> np.ndarray:
    """Resize without a low-pass: each output pixel reads its nearest neighbours."""
    mix = _mix_four if cubic else _mix_two
    mixed = mix(mix(pixels, 0, size[0]), 1, size[1])
    return np.asarray(np.clip(np.rint(mixed), 0, 255), np.uint8)


def _mix_two(pixels: np.ndarray, axis: int, target: int) -> np.ndarray:
    """Linear along one axis, float32."""
    length = pixels.shape[axis]
    centre = np.clip((np.arange(target) + 0.5) * (length / target) - 0.5, 0, None)
    first = np.floor(centre).astype(np.intp)
    low: np.ndarray = pixels.take(first, axis).astype(np.float32)
    high = pixels.take(np.minimum(first + 1, length - 1), axis).astype(np.float32)
    high -= low
    high *= _along(axis, centre - first)
    low += high
    return low


def _mix_four(pixels: np.ndarray, axis: int, target: int) -> np.ndarray:
    """Cubic along one axis, float32, with a = -0.75 as in OpenCV and torch."""
    length, a = pixels.shape[axis], -0.75
    centre = (np.arange(target) + 0.5) * (length / target) - 0.5
    first = np.floor(centre).astype(np.intp)
    t = centre - first
    outer = [((a * d - 5 * a) * d + 8 * a) * d - 4 * a for d in (t + 1, 2 - t)]
    inner = [((a + 2) * d - (a + 3)) * d * d + 1 for d in (t, 1 - t)]
    mixed = 0.0
    for step, weight in enumerate((outer[0], *inner, outer[1]), start=-1):
        neighbours = pixels.take(np.clip(first + step, 0, length - 1), axis)
        mixed = neighbours * _along(axis, weight) + mixed
    return np.asarray(mixed, np.float32)


def _along(axis: int, values: np.ndarray) -> np.ndarray:
    """Values for each row (axis 0) or column (axis 1) of (H, W, 3), float32."""
    return values.astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))


def _gray(pixels: np.ndarray, color: str) -> np.ndarray:
    """ITU-R 601 luma in Pillow's fixed point, as three equal channels."""
    weights = np.array(LUMA[color], np.uint32)
    luma = ((pixels.astype(np.uint32) @ weights + 0x8000) >> 16).astype(np.uint8)
    return np.broadcast_to(luma[:, :, None], pixels.shape)


def equalize(pixels: np.ndarray, contrast: str) -> np.ndarray:
    """Contrast of uint8 (H, W, 3), by scikit-image; `MissingDependency` without it."""
    try:
        import skimage.exposure
    except ImportError as error:
        raise MissingDependency(
            f"contrast {contrast!r} needs scikit-image; pip install scikit-image"
        ) from error
    exposure: Any = skimage.exposure
    if contrast == "contrast-stretching":
        low, high = np.percentile(pixels, (2, 98))
        stretched = exposure.rescale_intensity(pixels, in_range=(low, high))
        return np.asarray(stretched, np.uint8)
    unit = pixels.astype(np.float32) / 255
    if contrast == "histogram-equalization":
        # Flat, as one histogram of all channels; a colour image makes it warn.
        unit = exposure.equalize_hist(unit.reshape(len(unit), -1)).reshape(unit.shape)
    else:
        unit = exposure.equalize_adapthist(unit, clip_limit=0.03)
    return np.asarray(unit * 255, np.uint8)


def _lay(
    planes: np.ndarray,
    pixels: np.ndarray,
    color: str,
    spec: Preprocessing,
    place: Placement,
) -> None:
    """Write pixels (h, w, 3) onto `planes` (3, H, W), normalised and in order."""
    pixels, (top, left) = pixels[place.seen], place.corner
    multiply, add = spec.affine
    if pixels.shape[:2] != planes.shape[1:]:
        if spec.resize == "letterbox-reflect":
            pixels, top, left = _reflect(pixels, top, left, place.canvas), 0, 0
        else:
            planes[:] = (spec.padding_value * multiply + add)[:, None, None]
    rows, columns = pixels.shape[:2]
    order = (0, 1, 2) if color == spec.color else (2, 1, 0)
    for channel, plane in enumerate(planes[:, top : top + rows, left : left + columns]):
        source = pixels[:, :, order[channel]]
        if spec.dtype == "uint8":
            plane[:] = source
        else:
            np.multiply(source, multiply[channel], out=plane, dtype=np.float32)
            plane += add[channel]


def _reflect(
    pixels: np.ndarray, top: int, left: int, canvas: tuple[int, int]
) -> np.ndarray:
    bottom = canvas[0] - top - pixels.shape[0]
    right = canvas[1] - left - pixels.shape[1]
    return np.pad(pixels, ((top, bottom), (left, right), (0, 0)), mode="reflect")
