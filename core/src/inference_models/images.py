"""Images in every form that users hold them, read without copying a pixel.

numpy arrays are HWC and BGR, as OpenCV reads them; tensors (anything with DLPack) are
CHW and RGB, as torchvision reads them; PIL images, paths and encoded bytes become RGB,
the last two with their EXIF orientation applied. uint8 is 0–255, floats are 0–1.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import numpy as np

from inference_models.errors import InvalidInput, first_line, shown_url

Array = Any
"""A `numpy.ndarray`, or a device array that speaks DLPack."""

Color = Literal["rgb", "bgr"]
"""The order of an image's channels."""

_FORMS = (
    "a numpy array (H, W, 3), a torch tensor (3, H, W), a PIL image, a path, encoded "
    "bytes, or a list of these"
)

_URL = re.compile(r"[a-z][a-z0-9+.-]+:(//|image/)", re.IGNORECASE)

_REFUSED = {
    "EPS": "PostScript, a program, which Pillow has Ghostscript run without an end",
    "IPTC": "IPTC, in which any other format and size may be",
    "FITS": "FITS, which Pillow unpacks in Python",
}
"""Formats that Pillow opens and is not let decode, with what they are."""

_MOST_SCANS = 100  # a progressive JPEG has about 10

_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""How Pillow turns a picture upright, by EXIF's number of its orientation."""


@attrs.frozen(eq=False)
class Image:
    """One picture as the caller holds it: 8-bit or 0–1 float, three or more channels.

    `pixels` is (H, W, C), (H, W) or (C, H, W) by `layout`; C is 1, 3 or 4, and the
    fourth channel is ignored. Nothing has been copied or converted.
    """

    pixels: Array
    layout: Literal["HWC", "CHW"]
    color: Color
    height: int
    width: int

    def host(self) -> np.ndarray:
        """Pixels as uint8 (H, W, 3) in host memory; a view where that is possible."""
        pixels = to_host(self.pixels)
        if pixels.dtype != np.uint8:
            scaled = np.multiply(pixels, 255, dtype=np.float32)
            pixels = np.rint(scaled, out=scaled).astype(np.uint8)
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        elif self.layout == "CHW":
            pixels = pixels.transpose(1, 2, 0)
        if pixels.shape[2] == 1:
            return np.broadcast_to(pixels, (*pixels.shape[:2], 3))
        return pixels[:, :, :3]


# DLPack's numbers of ordinary memory, and of memory that CUDA has pinned.
_HOST_KINDS = (1, 3)


def to_host(array: Array) -> np.ndarray:
    """Any array as numpy in host memory, without a copy where it is there already.

    Half precisions that numpy has no name for (bfloat16) arrive as float32.
    """
    if isinstance(array, np.ndarray):
        return array
    if getattr(array, "requires_grad", False):
        array = array.detach()
    if "bfloat16" in str(array.dtype):
        array = array.float() if hasattr(array, "float") else array.astype("float32")
        if isinstance(array, np.ndarray):
            return array
    if hasattr(array, "cpu") and not _is_on_host(array):
        # To try DLPack would tell its owner that memory was lent.
        array = array.cpu()
    try:
        host = np.from_dlpack(array)
    except (BufferError, RuntimeError, TypeError, AttributeError):
        return np.asarray(array.cpu() if hasattr(array, "cpu") else array)
    # DLPack had no booleans at first, and some libraries still give bytes for them.
    is_bool = host.dtype == np.uint8 and "bool" in str(array.dtype)
    return host.view(np.bool_) if is_bool else host


def _is_on_host(array: Any) -> bool:
    try:
        kind, _ = array.__dlpack_device__()
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError):
        return True  # what it can do is found by trying
    return int(kind) in _HOST_KINDS


def read_images(source: Any, color: Color | None = None) -> list[Image]:
    """What this module's first lines name -> images; `InvalidInput` for anything else.

    `color` overrides the channel order of arrays and tensors; decoded files and PIL
    images know their own.
    """
    return [image for part in read_batches(source, color, 1) for image in part]


def read_batches(source: Any, color: Color | None, size: int) -> Iterator[list[Image]]:
    """The same in parts of `size` images, each decoded when its turn comes."""
    if not (color is None or (isinstance(color, str) and color in ("rgb", "bgr"))):
        raise InvalidInput(f"input_color_format {color!r} is neither 'rgb' nor 'bgr'")
    sources = _separate(source)
    if not sources:
        raise InvalidInput(f"there is no image in {source!r}; give {_FORMS}")
    numbered = len(sources) > 1
    for start in range(0, len(sources), size):
        part = enumerate(sources[start : start + size], start)
        yield [_read(each, color, i if numbered else None) for i, each in part]


def _separate(source: Any) -> list[Any]:
    if isinstance(source, Iterable) and not _is_single(source):
        return list(source)
    if getattr(source, "ndim", None) == 4:
        return [source[i] for i in range(len(source))]
    return list(source) if _is_column(source) else [source]


def _is_column(source: Any) -> bool:
    """Whether it holds paths, or pictures of several sizes, as dataframes do."""
    kind = getattr(getattr(source, "dtype", None), "kind", "")
    return kind in ("O", "U") and source.ndim == 1


def _is_single(source: Any) -> bool:
    # A file is lines to Python, and a mapping its keys: neither is a list of images.
    kinds = (str, bytes, bytearray, memoryview, os.PathLike, Mapping)
    alone = hasattr(source, "shape") or hasattr(source, "read")
    return isinstance(source, kinds) or alone or _is_pil(source)


def _is_pil(source: Any) -> bool:
    return hasattr(source, "getexif") and hasattr(source, "convert")


def _read(source: Any, color: Color | None, index: int | None) -> Image:
    try:
        return _read_one(source, color)
    except InvalidInput as error:
        if index is None:
            raise
        raise InvalidInput(f"image {index}: {error}") from error.__cause__


def _read_one(source: Any, color: Color | None) -> Image:
    if isinstance(source, (str, os.PathLike)):
        return _from_file(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
        return _decode(io.BytesIO(data), f"data of {len(data)} bytes")
    if _is_pil(source):
        return _from_pil(source)
    if isinstance(source, np.ndarray):
        return _from_numpy(source, color or "bgr")
    if hasattr(source, "__dlpack__") and hasattr(source, "shape"):
        return _from_tensor(source, color or "rgb")
    raise InvalidInput(f"{type(source).__name__} is no image; give {_FORMS}")


def _from_file(path: str | os.PathLike[Any]) -> Image:
    text = os.fsdecode(path)
    if _URL.match(text):
        raise InvalidInput(
            f"{shown_url(text)!r:.100} is a URL, and images are not downloaded; fetch "
            "it first, for example with httpx.get(url).content, and give the bytes, or "
            "read a stream with cv2.VideoCapture, and give the frames"
        )
    name = repr(text if len(text) <= 200 else f"{text[:200]}…")
    try:
        if text and Path(text).is_dir():
            raise InvalidInput(
                f"{name} is a folder; give the paths of the images in it, such as "
                "list(Path(folder).glob('*.jpg'))"
            )
        if not Path(text).is_file():
            raise InvalidInput(f"there is no image file {name}")
        with Path(text).open("rb") as file:
            return _decode(file, name)
    except OSError as error:
        reason = error.strerror or error
        raise InvalidInput(f"{name} cannot be read: {reason}") from error


def _decode(file: Any, name: str) -> Image:
    import PIL.Image

    try:
        picture = PIL.Image.open(file)
        limit = PIL.Image.MAX_IMAGE_PIXELS
        if limit is not None and picture.width * picture.height > limit:
            # Pillow itself only warns up to twice the limit.
            raise PIL.Image.DecompressionBombError(f"more than {limit} pixels")
        _check_decodable(picture)
        _check_scans(picture, file)
        picture = _upright(picture)  # so that the other one's memory is let go of
        return _from_pil(picture)
    except (
        PIL.Image.DecompressionBombError,
        PIL.Image.DecompressionBombWarning,
    ) as error:
        raise InvalidInput(
            f"{name} is refused: {error}; if you trust it, raise "
            "PIL.Image.MAX_IMAGE_PIXELS or decode it yourself and give the array"
        ) from error
    except InvalidInput as error:
        raise InvalidInput(f"{name}: {error}") from error.__cause__
    except PIL.UnidentifiedImageError as error:  # which names an object in memory
        raise InvalidInput(
            f"{name} cannot be decoded as an image: its format is not known"
        ) from error
    except Exception as error:  # decoders raise what they like
        raise InvalidInput(f"{name} cannot be decoded as an image: {error}") from error


def _check_decodable(picture: Any) -> None:
    """Raise `InvalidInput` for a format that Pillow is not let decode."""
    reason = _REFUSED.get(picture.format) if getattr(picture, "tile", None) else None
    if reason is not None:
        raise InvalidInput(f"it is {reason}; make a PNG of it first")


def _check_scans(picture: Any, file: Any) -> None:
    """Raise `InvalidInput` for a JPEG of so many scans that decoding has no end.

    Each takes as long as a whole picture, and may be of 149 bytes.
    """
    if "progression" not in picture.info:
        return
    place = file.tell()
    file.seek(0)
    scans = file.read().count(b"\xff\xda")
    file.seek(place)
    if scans > _MOST_SCANS:
        raise InvalidInput(
            f"it is a JPEG of {scans} scans, which take as long as {scans} pictures; "
            "save it as one that is not progressive first"
        )


def _upright(picture: Any) -> Any:
    """The picture, turned as its EXIF says; as it lies where that cannot be read.

    Pillow's own `exif_transpose` writes the other tags anew, and fails for odd ones.
    """
    from PIL.Image import Transpose

    picture.load()  # a TIFF is turned here, and a PNG may tell only at its end
    try:
        turn = _TURNS.get(picture.getexif().get(0x0112))
    except Exception:  # noqa: BLE001 - of whatever kind, other readers pass over it
        return picture
    return picture.transpose(Transpose[turn]) if turn else picture


def _from_pil(picture: Any) -> Image:
    _check_decodable(picture)  # a file that is only opened yet is decoded below
    if 0 in picture.size:
        raise InvalidInput(f"a PIL image of size {picture.size} has no pixels")
    if picture.mode.startswith(("I;16", "I", "F")):
        raise InvalidInput(
            f"a PIL image of mode {picture.mode!r} has more than 8 bits a pixel; scale "
            "it to 0–255 and convert it to 'L' or 'RGB'"
        )
    try:
        pixels = np.asarray(_in_rgb(picture))
    except Exception as error:  # files that Pillow opened are decoded only here
        raise InvalidInput(f"a PIL image cannot be read as RGB: {error}") from error
    return Image(pixels, "HWC", "rgb", *pixels.shape[:2])


def _in_rgb(picture: Any) -> Any:
    if picture.mode == "RGB":  # converting it would copy it
        return picture
    if isinstance(picture.info.get("transparency"), bytes):
        picture = picture.convert("RGBA")  # Pillow warns of other ways
    return picture.convert("RGB")


def _from_numpy(pixels: np.ndarray, color: Color) -> Image:
    shape = pixels.shape
    if pixels.ndim == 2:
        shape = (*shape, 1)
    if len(shape) != 3 or shape[2] not in (1, 3, 4):
        hint = ""
        if len(shape) == 3 and shape[0] in (1, 3, 4):
            hint = "; channels first? use array.transpose(1, 2, 0)"
        raise InvalidInput(
            f"an array of shape {pixels.shape} is no image: numpy images are (H, W, 3)"
            f"{hint}"
        )
    _check_values(pixels, pixels.dtype.name, shape)
    return Image(pixels, "HWC", color, shape[0], shape[1])


def _from_tensor(pixels: Array, color: Color) -> Image:
    shape = tuple(pixels.shape)
    if len(shape) == 2:
        shape = (1, *shape)
    if len(shape) != 3 or shape[0] not in (1, 3, 4):
        hint = ""
        if len(shape) == 3 and shape[2] in (1, 3, 4):
            hint = "; channels last? use tensor.permute(2, 0, 1)"
        raise InvalidInput(
            f"a tensor of shape {tuple(pixels.shape)} is no image: tensors are "
            f"(3, H, W){hint}"
        )
    _check_values(pixels, str(pixels.dtype).rpartition(".")[2], shape)
    return Image(pixels, "CHW", color, shape[1], shape[2])


def _check_values(pixels: Array, dtype: str, shape: Sequence[int]) -> None:
    if 0 in shape:
        raise InvalidInput(f"an image of shape {tuple(pixels.shape)} has no pixels")
    if dtype == "uint8":
        return
    if dtype not in ("float16", "bfloat16", "float32", "float64"):
        raise InvalidInput(
            f"an image of dtype {dtype} is ambiguous; give uint8 in 0–255, or floats "
            "in 0–1"
        )
    values: Array = pixels if hasattr(pixels, "min") else to_host(pixels)
    if getattr(values, "requires_grad", False):
        values = values.detach()
    try:
        low, high = float(values.min()), float(values.max())
    except (RuntimeError, TypeError) as error:  # of a sparse tensor, or one of no data
        reason = first_line(error)
        raise InvalidInput(f"an image's values cannot be read: {reason}") from error
    if not (low >= 0 and high <= 1):
        # What is hardly more than 1 is an interpolation that overshot.
        advice = "divide by 255?" if high >= 2 else "clip it, or mend its source"
        problem = "NaN values" if low != low else f"values from {low:.9g} to {high:.9g}"
        raise InvalidInput(
            f"a {dtype} image has {problem}; floats must lie in 0–1 ({advice})"
        )
