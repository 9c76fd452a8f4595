"""Images in every form a user holds them, and what is none."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from inference_models import InvalidInput, Operations, Preprocessing
from inference_models.images import read_batches, read_images, to_host
from inference_models.prepare import prepare

EXIF_ORIENTATION = 0x0112


class Tensor:
    """An array of some other library, of which only DLPack is known."""

    def __init__(self, array):
        self.array = array
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __dlpack__(self, **keywords):
        return self.array.__dlpack__(**keywords)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __len__(self):
        return len(self.array)

    def __getitem__(self, key):
        return Tensor(self.array[key])


@pytest.fixture
def rgb():
    """A picture of odd size, HWC and RGB."""
    return np.random.default_rng(0).integers(0, 256, (13, 21, 3)).astype(np.uint8)


@pytest.fixture
def bgr(rgb):
    return np.ascontiguousarray(rgb[:, :, ::-1])


def chw(rgb):
    return np.ascontiguousarray(rgb.transpose(2, 0, 1))


def encoded(picture, form="PNG", **options):
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def png(rgb, **options):
    return encoded(PIL.Image.fromarray(rgb), **options)


def network_input(source, color=None):
    spec = Preprocessing(size=(16, 16), resize="letterbox", mean=0.4, std=0.3)
    return prepare(read_images(source, color), spec)[0]


def frozen(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def unit(pixels, dtype=np.float32):
    return pixels.astype(dtype) / dtype(255)


def within(pixels):
    """The same pixels as a part of a larger array."""
    return np.pad(pixels, ((2, 3), (4, 5), (0, 0)))[2:-3, 4:-5]


def saved(rgb, path):
    path.write_bytes(png(rgb))
    return path


def doubled(data):
    return bytes(byte for byte in data for _ in range(2))


def entry(folder):
    """The one file of a folder, a path of whatever type the folder's is."""
    with os.scandir(folder) as entries:
        return next(entries)


SAME = {
    "array in RGB": lambda rgb, bgr, path: (rgb, "rgb"),
    "floats": lambda rgb, bgr, path: unit(bgr),
    "half precision": lambda rgb, bgr, path: unit(bgr, np.float16),
    "double precision": lambda rgb, bgr, path: unit(bgr, np.float64),
    "big-endian floats": lambda rgb, bgr, path: unit(bgr).astype(">f4"),
    "4-D array": lambda rgb, bgr, path: bgr[None],
    "list": lambda rgb, bgr, path: [bgr],
    "tuple": lambda rgb, bgr, path: (bgr,),
    "generator": lambda rgb, bgr, path: (image for image in [bgr]),
    "read-only array": lambda rgb, bgr, path: frozen(bgr),
    "negative strides": lambda rgb, bgr, path: rgb[:, :, ::-1],
    "upside down twice": lambda rgb, bgr, path: bgr[::-1].copy()[::-1],
    "Fortran order": lambda rgb, bgr, path: np.asfortranarray(bgr),
    "part of an array": lambda rgb, bgr, path: within(bgr),
    "BGRA": lambda rgb, bgr, path: np.dstack([bgr, bgr[:, :, :1]]),
    "tensor": lambda rgb, bgr, path: Tensor(chw(rgb)),
    "tensor in BGR": lambda rgb, bgr, path: (Tensor(chw(bgr)), "bgr"),
    "tensor with alpha": lambda rgb, bgr, path: Tensor(chw(np.dstack([rgb, rgb]))[:4]),
    "tensor of floats": lambda rgb, bgr, path: Tensor(chw(unit(rgb))),
    "tensor with strides": lambda rgb, bgr, path: Tensor(rgb.transpose(2, 0, 1)),
    "4-D tensor": lambda rgb, bgr, path: Tensor(chw(rgb)[None]),
    "list of tensors": lambda rgb, bgr, path: [Tensor(chw(rgb))],
    "PIL image": lambda rgb, bgr, path: PIL.Image.fromarray(rgb),
    "PIL knows its order": lambda rgb, bgr, path: (PIL.Image.fromarray(rgb), "bgr"),
    "PIL image with alpha": lambda rgb, bgr, path: PIL.Image.fromarray(
        np.dstack([rgb, rgb[:, :, 0]])
    ),
    "Path": lambda rgb, bgr, path: saved(rgb, path),
    "str": lambda rgb, bgr, path: str(saved(rgb, path)),
    "bytes": lambda rgb, bgr, path: png(rgb),
    "bytearray": lambda rgb, bgr, path: bytearray(png(rgb)),
    "memoryview": lambda rgb, bgr, path: memoryview(png(rgb)),
    "every other byte of some": lambda rgb, bgr, path: memoryview(doubled(png(rgb)))[
        ::2
    ],
    "path in bytes": lambda rgb, bgr, path: entry(os.fsencode(saved(rgb, path).parent)),
    "lossless WebP": lambda rgb, bgr, path: encoded(
        PIL.Image.fromarray(rgb), "WEBP", lossless=True
    ),
}


@pytest.mark.parametrize("form", SAME)
def test_the_same_pixels_in_any_form_give_identical_input(form, rgb, bgr, tmp_path):
    given = SAME[form](rgb, bgr, tmp_path / "picture.png")
    source, color = (
        given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    )

    assert np.array_equal(network_input(source, color), network_input(bgr))


@pytest.mark.parametrize(
    "dtype", ["uint8", "float32", "float64", "float16", "bfloat16"]
)
def test_a_torch_tensor_gives_identical_input(dtype, rgb, bgr):
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(chw(rgb))
    if dtype != "uint8":
        tensor = (tensor / 255).to(getattr(torch, dtype))
    expected = network_input(bgr)
    if dtype == "bfloat16":  # has fewer digits than a byte
        expected = network_input(bgr_of(tensor.float().numpy()))

    assert np.array_equal(network_input(tensor), expected)


def bgr_of(planes):
    return np.rint(planes * 255).astype(np.uint8).transpose(1, 2, 0)[:, :, ::-1]


def test_a_torch_tensor_may_require_a_gradient(rgb, bgr):
    torch = pytest.importorskip("torch")
    tensor = (torch.from_numpy(chw(rgb)) / 255).requires_grad_()

    assert np.array_equal(network_input([tensor]), network_input(bgr))


def test_a_torch_tensor_in_channels_last_memory_is_still_chw(rgb, bgr):
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(rgb).permute(2, 0, 1)[None]

    assert np.array_equal(network_input(tensor), network_input(bgr))


def test_a_list_may_mix_forms_and_sizes(rgb, bgr, tmp_path):
    other = np.ascontiguousarray(bgr[:7, :11])
    mixed = [bgr, Tensor(chw(rgb[:7, :11])), PIL.Image.fromarray(rgb), png(rgb)]

    expected = [network_input(image) for image in (bgr, other, bgr, bgr)]
    assert np.array_equal(network_input(mixed), np.concatenate(expected))


def test_a_4_d_array_is_a_list_of_images(bgr):
    many = np.stack([bgr, bgr[::-1]])

    assert np.array_equal(network_input(many), network_input(list(many)))


def test_a_column_of_pictures_is_a_list_of_images(bgr):
    column = np.empty(2, object)
    column[:] = [bgr, bgr[:7]]
    first, second = read_images(column)

    assert (first.height, second.height) == (len(bgr), 7)


def test_a_column_of_paths_is_a_list_of_images(bgr, tmp_path):
    path = tmp_path / "one.png"
    PIL.Image.fromarray(bgr).save(path)

    assert len(read_images(np.array([str(path)] * 2))) == 2


@pytest.mark.parametrize("shape", [(13, 21), (13, 21, 1)])
def test_a_grey_array_is_three_equal_channels(shape):
    grey = np.arange(13 * 21, dtype=np.uint32).astype(np.uint8)

    assert np.array_equal(
        network_input(grey.reshape(shape)),
        network_input(np.dstack([grey.reshape(13, 21)] * 3)),
    )


@pytest.mark.parametrize("shape", [(13, 21), (1, 13, 21)])
def test_a_grey_tensor_is_three_equal_channels(shape):
    grey = np.arange(13 * 21, dtype=np.uint32).astype(np.uint8)

    assert np.array_equal(
        network_input(Tensor(grey.reshape(shape))),
        network_input(np.dstack([grey.reshape(13, 21)] * 3)),
    )


@pytest.mark.parametrize("mode", ["L", "LA", "P", "PA", "1", "CMYK", "YCbCr", "HSV"])
def test_a_pil_image_of_any_eight_bit_mode_becomes_rgb(mode, rgb):
    base = PIL.Image.fromarray(rgb).convert("L" if mode in ("LA", "PA") else "RGB")
    picture = base.convert("P").convert(mode) if mode == "PA" else base.convert(mode)
    expected = np.asarray(picture.convert("RGB"))

    assert np.array_equal(network_input(picture), network_input(expected, "rgb"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("transparency", [0, bytes(range(16))])
def test_a_palette_file_with_transparency_is_read(rgb, transparency):
    picture = PIL.Image.fromarray(rgb).quantize(16)
    data = encoded(picture, "PNG", transparency=transparency)
    expected = np.asarray(picture.convert("RGB"))

    assert np.array_equal(network_input(data), network_input(expected, "rgb"))


def test_nothing_is_copied_or_written_when_an_array_is_read(bgr):
    (image,) = read_images(bgr)

    assert np.shares_memory(image.host(), bgr)


@pytest.mark.parametrize("form", ["meta", "sparse"])
def test_a_tensor_of_no_values_is_refused(form):
    torch = pytest.importorskip("torch")
    tensor = torch.zeros(3, 4, 5)
    tensor = tensor.to_sparse() if form == "sparse" else tensor.to("meta")
    with pytest.raises(InvalidInput, match="values cannot be read: "):
        read_images(tensor)


def test_a_tensor_is_read_where_it_lies(rgb):
    planes = chw(rgb)
    (image,) = read_images(Tensor(planes))

    assert np.shares_memory(image.host(), planes)


class OnDevice:
    """An array of a GPU, which is told when others want its memory."""

    def __init__(self, array, dtype=None):
        self.array, self.dtype = array, dtype or array.dtype

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, **wanted):
        raise AssertionError("its memory was lent")

    def cpu(self):
        return self.array

    def float(self):
        return self.array.astype(np.float32)


def test_a_devices_array_is_copied_and_not_lent():
    values = np.arange(6, dtype=np.int64)

    assert to_host(OnDevice(values)).tolist() == values.tolist()
    assert to_host(OnDevice(values, "bfloat16")).dtype == np.float32


class BytesForBooleans:
    """An array of a library that gives booleans to DLPack as bytes."""

    def __init__(self, array):
        self.dtype, self._shared = "bool", array.view(np.uint8)

    def __dlpack_device__(self):
        return self._shared.__dlpack_device__()

    def __dlpack__(self, **wanted):
        return self._shared.__dlpack__(**wanted)


def test_booleans_that_are_given_as_bytes_are_booleans_in_the_same_memory():
    array = np.array([True, False])
    host = to_host(BytesForBooleans(array))

    assert host.dtype == bool
    assert host.tolist() == [True, False]
    assert np.shares_memory(host, array)


def test_devices_arrays_are_joined_on_the_host():
    joined = Operations().join([OnDevice(np.zeros(2)), np.ones(1)])

    assert joined.tolist() == [0, 0, 1]


def test_an_array_on_the_host_is_itself(bgr):
    assert to_host(bgr) is bgr


def turned(picture, orientation):
    """The stored pixels of a picture that a viewer turns upright again."""
    stored = {
        1: None,
        2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
        3: PIL.Image.Transpose.ROTATE_180,
        4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
        5: PIL.Image.Transpose.TRANSPOSE,
        6: PIL.Image.Transpose.ROTATE_90,
        7: PIL.Image.Transpose.TRANSVERSE,
        8: PIL.Image.Transpose.ROTATE_270,
    }[orientation]
    exif = PIL.Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    return (picture if stored is None else picture.transpose(stored)), exif


@pytest.mark.parametrize("form", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_several_pictures_in_a_file_the_first_is_read(form, rgb):
    first = PIL.Image.fromarray(rgb).quantize(16).convert("RGB")
    others = {"save_all": True, "append_images": [first.rotate(180)]}
    exact = {"lossless": True} if form == "WEBP" else {}
    (image,) = read_images(encoded(first, form, **others, **exact))

    assert np.array_equal(image.host(), np.asarray(first))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "YCbCr"])
@pytest.mark.parametrize("progressive", [True, False])
def test_a_jpeg_of_any_kind_is_read(mode, progressive):
    flat = PIL.Image.new("RGB", (16, 8), (200, 100, 50)).convert(mode)
    (image,) = read_images(encoded(flat, "JPEG", progressive=progressive))

    assert image.host() == pytest.approx(np.asarray(flat.convert("RGB")), abs=3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("as_path", [True, False])
def test_files_and_bytes_are_turned_upright(orientation, as_path, rgb, bgr, tmp_path):
    picture, exif = turned(PIL.Image.fromarray(rgb), orientation)
    data = encoded(picture, "PNG", exif=exif)
    path = tmp_path / "picture.png"
    path.write_bytes(data)

    assert np.array_equal(network_input(path if as_path else data), network_input(bgr))


def exif_bytes(*tags):
    """EXIF as a camera writes it: tags of (number, type, count, four bytes)."""
    packed = b"".join(struct.pack("<HHI4s", *tag) for tag in tags)
    head = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(tags))
    return head + packed + bytes(4)


def test_a_picture_is_turned_upright_whatever_its_other_tags_are(rgb, bgr):
    stored, _ = turned(PIL.Image.fromarray(rgb), 6)
    maker = (0x010F, 11, 1, struct.pack("<f", 1.5))  # a float, where text belongs
    tags = exif_bytes(maker, (EXIF_ORIENTATION, 3, 1, b"\6\0\0\0"))
    data = encoded(stored, "PNG", exif=tags)

    assert np.array_equal(network_input(data), network_input(bgr))


def test_a_picture_whose_exif_cannot_be_read_is_taken_as_it_lies(rgb, bgr):
    data = encoded(PIL.Image.fromarray(rgb), "PNG", exif=b"Exif\0\0MM")

    assert np.array_equal(network_input(data), network_input(bgr))


def test_a_pil_image_is_taken_as_its_owner_sees_it(rgb):
    picture, exif = turned(PIL.Image.fromarray(rgb), 6)
    opened = PIL.Image.open(io.BytesIO(encoded(picture, "PNG", exif=exif)))
    (image,) = read_images(opened)

    assert (image.height, image.width) == (opened.height, opened.width)
    assert np.array_equal(image.host(), np.asarray(opened))


def png_header(width, height):
    """The beginning of a PNG that claims to be this large."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(data))
        + kind
        + data
        + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def sixteen_bits():
    return PIL.Image.fromarray(np.full((4, 4), 999, np.uint16))


CUT = encoded(PIL.Image.effect_noise((99, 99), 90))[:500]

PROGRAM = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF"
FITS = (
    b"".join(
        f"{name:8}= {value}".ljust(80).encode()
        for name, value in {"BITPIX": 8, "NAXIS": 2, "NAXIS1": 1, "NAXIS2": 1}.items()
    )
    + b"END".ljust(2480)
    + bytes(2880)
)


def iptc(inner):
    """A file of IPTC that holds another."""
    size = struct.pack(">I", 9)
    fields = {(3, 60): b"\1\0", (3, 20): size, (3, 30): size, (3, 120): b"\5"}
    return b"".join(
        bytes([0x1C, *tag]) + struct.pack(">H", len(data)) + data
        for tag, data in {**fields, (8, 10): inner}.items()
    )


def scans(count):
    """A JPEG with so many scans more than it needs, of which each is like the last."""
    data = encoded(PIL.Image.new("RGB", (9, 9)), "JPEG", progressive=True)
    tables = data.rfind(b"\xff\xc4")
    return data[:-2] + data[tables:-2] * count + data[-2:]


BAD = {
    "no pixels": (np.empty((0, 4, 3), np.uint8), "no pixels"),
    "two channels": (np.zeros((4, 4, 2), np.uint8), r"numpy images are \(H, W, 3\)"),
    "five channels": (np.zeros((4, 4, 5), np.uint8), r"numpy images are \(H, W, 3\)"),
    "one dimension": (np.zeros(4, np.uint8), r"numpy images are \(H, W, 3\)"),
    "no dimension": (np.array(4), r"numpy images are \(H, W, 3\)"),
    "CHW array": (np.zeros((3, 9, 9), np.uint8), r"array.transpose\(1, 2, 0\)"),
    "one dimension of a tensor": (Tensor(np.zeros(4)), r"tensors are \(3, H, W\)$"),
    "HWC tensor": (Tensor(np.zeros((9, 9, 3), np.uint8)), r"tensor.permute\(2, 0, 1\)"),
    "int64": (np.zeros((4, 4, 3), np.int64), "give uint8 in 0–255, or floats in 0–1"),
    "uint16": (np.zeros((4, 4, 3), np.uint16), "give uint8"),
    "bool": (np.zeros((4, 4, 3), bool), "give uint8"),
    "object": (np.zeros((4, 4, 3), object), "give uint8"),
    "int tensor": (Tensor(np.zeros((3, 4, 4), np.int32)), "dtype int32 .* give uint8"),
    "above 1": (np.full((4, 4, 3), 200.0), r"from 200 to 200; .* \(divide by 255\?\)"),
    "tensor above 1": (Tensor(np.full((3, 4, 4), 2.0)), "divide by 255"),
    "negative": (np.full((4, 4, 3), -0.1), "-0.1 to -0.1; floats must lie in 0–1"),
    "NaN": (np.full((4, 4, 3), np.nan), "NaN values; floats must lie in 0–1"),
    "overshot": (np.full((4, 4, 3), np.float32(1) + np.float32(1e-6)), "1.00000.*clip"),
    "infinite": (np.full((4, 4, 3), np.inf), "divide by 255"),
    "empty list": ([], "there is no image in .*; give a numpy array"),
    "empty 4-D array": (np.empty((0, 4, 4, 3), np.uint8), "there is no image"),
    "5-D array": (np.zeros((1, 1, 4, 4, 3), np.uint8), r"numpy images are \(H, W, 3\)"),
    "None": (None, "NoneType is no image; give a numpy array"),
    "number": (3, "int is no image"),
    "file object": (io.BytesIO(CUT), "^BytesIO is no image; .* encoded bytes"),
    "mapping": ({"bytes": CUT}, "^dict is no image"),
    "nested list": ([[np.zeros((4, 4, 3), np.uint8)]], "list is no image"),
    "empty PIL image": (PIL.Image.new("RGB", (0, 4)), "no pixels"),
    "16-bit PIL image": (sixteen_bits(), "more than 8 bits a pixel; scale it to 0–255"),
    "float PIL image": (PIL.Image.new("F", (4, 4)), "scale it to 0–255"),
    "cut PIL image": (PIL.Image.open(io.BytesIO(CUT)), "cannot be read as RGB"),
    "16-bit file": (encoded(sixteen_bits()), "bytes: .* scale it to 0–255"),
    "text": (
        b"<svg/>",
        "data of 6 bytes cannot be decoded as an image: its format is not known$",
    ),
    "no bytes": (b"", "data of 0 bytes cannot be decoded as an image"),
    "missing path": (Path("no-such-image.png"), "no image file 'no-such-image.png'"),
    "missing str": ("no-such-image.png", "no image file 'no-such-image.png'"),
    "empty str": ("", "no image file ''"),
    "base64": ("iVBORw0KGgo" * 900, "cannot be read: File name too long"),
    "folder": (os.curdir, "is a folder; give the paths of the images in it"),
    "program": (
        PROGRAM,
        "bytes: it is PostScript, a program, .* make a PNG of it first",
    ),
    "program opened": (PIL.Image.open(io.BytesIO(PROGRAM)), "^it is PostScript, a pro"),
    "program within": (iptc(PROGRAM), "it is IPTC, in which any other format"),
    "program within opened": (PIL.Image.open(io.BytesIO(iptc(PROGRAM))), "^it is IPTC"),
    "fits": (
        b"SIMPLE  = T".ljust(80) + FITS,
        "it is FITS, which Pillow unpacks in Pyt",
    ),
    "scans": (scans(101), "it is a JPEG of 111 scans, which take as long as"),
    "bomb": (
        png_header(60_000, 60_000),
        "refused: .* raise PIL.Image.MAX_IMAGE_PIXELS",
    ),
    "smaller bomb": (png_header(10_000, 10_000), "refused: .*MAX_IMAGE_PIXELS"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_image_is_an_error_that_says_what_to_do(kind):
    source, words = BAD[kind]
    with pytest.raises(InvalidInput, match=words):
        read_images(source)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_truncated_file_is_refused(form, share, rgb):
    data = encoded(PIL.Image.fromarray(np.tile(rgb, (9, 9, 1))), form)
    with pytest.raises(InvalidInput, match="cannot be decoded as an image"):
        read_images(data[: int(len(data) * share)])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP"])
def test_a_damaged_file_is_read_or_refused(form, rgb):
    exif = PIL.Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    whole = encoded(PIL.Image.fromarray(rgb), form, exif=exif)
    chance = random.Random(0)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(min(len(data), 200))] = chance.randrange(256)
        try:
            (image,) = read_images(bytes(data))
        except InvalidInput:
            continue
        assert image.host().dtype == np.uint8


def test_a_damaged_file_that_pillow_opened_is_read_or_refused(rgb):
    # It holds PNGs, which are not looked at before their pixels are wanted.
    data = encoded(PIL.Image.fromarray(rgb), "ICNS").replace(b"IDAT", b"ID-T")
    with pytest.raises(InvalidInput, match="cannot be read as RGB: broken PNG file"):
        read_images(PIL.Image.open(io.BytesIO(data)))


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/a.jpg",
        "https://example.com/a.jpg?token=secret",
        "HTTPS://example.com/a.jpg?token=secret",
        "s3://bucket/a.jpg?token=secret",
        "data:image/png;base64,iVBORw0KGgo" + 99 * "secret",
    ],
)
def test_a_url_is_not_downloaded(url):
    with pytest.raises(
        InvalidInput, match=r"images are not downloaded.* give the bytes"
    ) as e:
        read_images(url)

    assert "token" not in str(e.value)
    assert len(str(e.value)) < 300


def test_an_image_of_a_list_is_named_by_its_number(bgr):
    with pytest.raises(InvalidInput, match=r"^image 2: .*missing.png"):
        read_images([bgr, bgr, "missing.png"])


def test_an_image_of_a_batch_is_named_by_its_number(bgr):
    batch = np.stack([bgr / 255, bgr.astype(float) + 1])
    with pytest.raises(InvalidInput, match=r"^image 1: .*divide by 255"):
        read_images(batch)


@pytest.mark.parametrize("order", ["brg", np.array(["rgb", "bgr"]), 3])
def test_an_unknown_order_of_channels_is_refused(bgr, order):
    with pytest.raises(InvalidInput, match=" is neither 'rgb' nor 'bgr'"):
        read_images(bgr, order)


def test_a_bad_image_leaves_the_next_call_alone(bgr):
    with pytest.raises(InvalidInput):
        read_images([bgr, None])

    assert len(read_images([bgr, bgr])) == 2


def test_the_limit_of_pixels_is_the_users_to_raise(rgb, monkeypatch):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 13 * 21)

    assert read_images(png(rgb))[0].height == 13


def test_a_file_is_decoded_when_its_batch_has_its_turn(tmp_path, bgr):
    path = tmp_path / "late.png"
    batches = read_batches([bgr, path], None, 1)
    next(batches)
    PIL.Image.fromarray(bgr[..., ::-1].copy()).save(path)

    assert np.array_equal(next(batches)[0].host()[..., ::-1], bgr)


def test_a_jpeg_of_as_many_scans_as_cameras_write_is_read(rgb):
    data = encoded(PIL.Image.fromarray(rgb), "JPEG", progressive=True, quality=95)
    (image,) = read_images(data)

    assert image.host().shape == rgb.shape
