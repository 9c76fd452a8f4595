"""The host's preparation: what every mode does to real pixels."""

from __future__ import annotations

import importlib.util

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_models import InvalidInput, MissingDependency, Preprocessing
from inference_models.images import read_images
from inference_models.prepare import prepare, resize

RESIZES = ["stretch", "letterbox", "letterbox-reflect", "center-crop"]
ODD_SIZES = [(1, 1), (1, 37), (37, 1), (13, 29), (50, 31), (64, 64), (3, 200)]


def picture(height, width, seed=0):
    """A ramp with grain, so that no two pixels of a neighbourhood are alike."""
    rows, columns = np.mgrid[0:height, 0:width]
    ramp = np.stack([rows * 3, columns * 2, (rows + columns) * 5], axis=-1) % 200
    grain = np.random.default_rng(seed).integers(0, 56, (height, width, 3))
    return (ramp + grain).astype(np.uint8)


def prepared(spec, *pixels):
    batch, _ = prepare(read_images(list(pixels)), spec)
    return batch


def raw(**fields):
    """Preprocessing that changes no value: BGR pixels come out as they went in."""
    return Preprocessing(color="bgr", scale=1, **fields)


def hwc(batch, index=0):
    return batch[index].transpose(1, 2, 0)


def naive_linear(pixels, size):
    """Bilinear point sampling, one output pixel at a time."""
    height, width = pixels.shape[:2]
    out = np.empty((*size, 3))
    for row, column in np.ndindex(*size):
        y = max((row + 0.5) * height / size[0] - 0.5, 0)
        x = max((column + 0.5) * width / size[1] - 0.5, 0)
        top, left = int(y), int(x)
        bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
        dy, dx = y - top, x - left
        upper = pixels[top, left] * (1 - dx) + pixels[top, right] * dx
        lower = pixels[bottom, left] * (1 - dx) + pixels[bottom, right] * dx
        out[row, column] = upper * (1 - dy) + lower * dy
    return out


@pytest.mark.parametrize("size", ODD_SIZES)
@pytest.mark.parametrize("mode", RESIZES)
def test_every_mode_fills_the_whole_canvas(mode, size):
    batch = prepared(raw(size=(24, 17), resize=mode, padding_value=7), picture(*size))

    assert batch.shape == (1, 3, 24, 17)
    assert batch.dtype == np.float32
    assert np.isfinite(batch).all()
    assert 0 <= batch.min() <= batch.max() <= 255


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", ODD_SIZES)
def test_a_flat_image_stays_flat(size, interpolation, antialias):
    pixels = np.full((*size, 3), (10, 100, 250), np.uint8)
    spec = raw(size=(24, 17), interpolation=interpolation, antialias=antialias)

    assert np.unique(hwc(prepared(spec, pixels)).reshape(-1, 3), axis=0).tolist() == [
        [10, 100, 250]
    ]


@pytest.mark.parametrize("size", ODD_SIZES)
@pytest.mark.parametrize("name", ["nearest", "bilinear"])
def test_antialiased_resizes_are_pillows(size, name):
    pixels = picture(*size)
    filter_ = PIL.Image.Resampling[name.upper()]
    expected = np.asarray(PIL.Image.fromarray(pixels).resize((17, 24), filter_))

    found = hwc(prepared(raw(size=(24, 17), interpolation=name), pixels))

    assert np.array_equal(found, expected)


@pytest.mark.parametrize("size", ODD_SIZES)
def test_an_antialiased_bicubic_resize_is_pillows_width_first(size):
    pixels = picture(*size)
    cubic = PIL.Image.Resampling.BICUBIC
    wide = PIL.Image.fromarray(pixels).resize((17, size[0]), cubic)
    expected = np.asarray(wide.resize((17, 24), cubic))

    found = hwc(prepared(raw(size=(24, 17), interpolation="bicubic"), pixels))

    assert np.array_equal(found, expected)


@given(
    source=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    target=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_point_sampling_is_the_plain_definition(source, target):
    pixels = picture(*source)

    found = resize(pixels, target, Preprocessing(antialias=False))

    assert np.abs(found - naive_linear(pixels, target)).max() <= 0.51


@pytest.mark.parametrize("target", [(24, 17), (150, 90), (64, 64)])
@pytest.mark.parametrize("size", ODD_SIZES)
@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_point_sampling_is_opencvs(size, target, name):
    cv2 = pytest.importorskip("cv2")
    flag = cv2.INTER_LINEAR if name == "bilinear" else cv2.INTER_CUBIC
    pixels = picture(*size)
    expected = cv2.resize(pixels, target[::-1], interpolation=flag)

    spec = Preprocessing(interpolation=name, antialias=False)
    found = resize(pixels, target, spec)

    assert np.abs(found.astype(int) - expected).max() <= 1


def test_point_sampling_differs_from_antialias():
    pixels = picture(90, 90)
    smooth, sampled = (
        resize(pixels, (9, 9), Preprocessing(antialias=antialias)).astype(int)
        for antialias in (True, False)
    )

    assert np.abs(smooth - sampled).max() > 10


def test_a_letterbox_pads_around_the_image_in_grey():
    pixels = picture(8, 16)
    out = hwc(
        prepared(raw(size=(16, 16), resize="letterbox", padding_value=114), pixels)
    )

    assert np.array_equal(out[4:12], pixels)
    assert np.unique(np.concatenate([out[:4], out[12:]])).tolist() == [114]


def test_a_top_left_letterbox_pads_below_and_to_the_right():
    spec = raw(size=(16, 16), resize="letterbox", padding_place="top-left")
    pixels = picture(16, 8)
    out = hwc(prepared(spec, pixels))

    assert np.array_equal(out[:, :8], pixels)
    assert not out[:, 8:].any()


def test_padding_is_normalised_as_a_pixel_is():
    spec = Preprocessing(size=(4, 4), resize="letterbox", padding_value=255, mean=0.5)
    batch = prepared(spec, np.full((2, 4, 3), 255, np.uint8))

    assert np.unique(batch).tolist() == [0.5]


def test_a_reflecting_letterbox_mirrors_the_image():
    pixels = picture(8, 16)
    out = hwc(prepared(raw(size=(16, 16), resize="letterbox-reflect"), pixels))

    assert np.array_equal(out, np.pad(pixels, ((4, 4), (0, 0), (0, 0)), "reflect"))


def test_a_reflecting_letterbox_lies_as_any_letterbox():
    modes = ["letterbox", "letterbox-reflect"]
    image = read_images(picture(9, 21))
    frames = [prepare(image, raw(size=(32, 32), resize=mode))[1] for mode in modes]

    assert frames[0] == frames[1]


def test_a_center_crop_cuts_without_scaling():
    pixels = picture(20, 30)
    out = hwc(prepared(raw(size=(10, 10), resize="center-crop"), pixels))

    assert np.array_equal(out, pixels[5:15, 10:20])


def test_a_center_crop_pads_what_is_too_small():
    pixels = picture(4, 30)
    out = hwc(prepared(raw(size=(10, 10), resize="center-crop"), pixels))

    assert np.array_equal(out[3:7], pixels[:, 10:20])
    assert not out[:3].any()
    assert not out[7:].any()


def test_a_fitted_image_is_laid_top_left_where_another_is_larger():
    spec = raw(size=(16, 16), resize="fit-longer-edge", padding_value=9)
    wide, tall = picture(8, 16), picture(16, 8)
    batch = prepared(spec, wide, tall)

    assert batch.shape == (2, 3, 16, 16)
    assert np.array_equal(hwc(batch)[:8], wide)
    assert np.unique(hwc(batch)[8:]).tolist() == [9]
    assert np.array_equal(hwc(batch, 1)[:, :8], tall)


def test_images_without_a_size_are_padded_to_the_largest_multiple():
    small, large = picture(5, 9), picture(17, 3)
    batch = prepared(raw(divisible=8), small, large)

    assert batch.shape == (2, 3, 24, 16)
    assert np.array_equal(hwc(batch)[:5, :9], small)
    assert np.array_equal(hwc(batch, 1)[:17, :3], large)


def test_a_static_crop_reads_its_rectangle():
    pixels = picture(10, 20)
    batch = prepared(raw(crop=(25, 50, 75, 100)), pixels)

    assert np.array_equal(hwc(batch), pixels[5:10, 5:15])


def test_the_shorter_side_is_resized_before_the_crop():
    pixels = picture(40, 60)
    spec = raw(size=(16, 16), resize="center-crop", intermediate=20)
    bilinear = PIL.Image.Resampling.BILINEAR
    smaller = np.asarray(PIL.Image.fromarray(pixels).resize((30, 20), bilinear))

    assert np.array_equal(hwc(prepared(spec, pixels)), smaller[2:18, 7:23])


def test_an_intermediate_size_loses_what_it_must():
    pixels = picture(40, 60)
    bilinear = PIL.Image.Resampling.BILINEAR
    twice = (
        PIL.Image.fromarray(pixels).resize((5, 5), bilinear).resize((9, 9), bilinear)
    )

    found = hwc(prepared(raw(size=(9, 9), intermediate=(5, 5)), pixels))

    assert np.array_equal(found, np.asarray(twice))


def test_channels_come_in_the_networks_order():
    pixels = picture(5, 7)

    assert np.array_equal(
        hwc(prepared(Preprocessing(color="rgb", scale=1), pixels)), pixels[:, :, ::-1]
    )


def test_values_are_scaled_shifted_and_divided_by_channel():
    pixels = picture(5, 7)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    batch = prepared(Preprocessing(mean=mean, std=std), pixels)

    expected = (pixels[:, :, ::-1] / 255 - mean) / std
    assert np.allclose(hwc(batch), expected, atol=1e-6)


def test_a_uint8_network_gets_pixels_as_they_are():
    spec = raw(
        dtype="uint8", mean=0.5, size=(6, 8), resize="letterbox", padding_value=114.5
    )
    pixels = picture(6, 4)
    batch = prepared(spec, pixels)

    assert batch.dtype == np.uint8
    assert np.array_equal(hwc(batch)[:, 2:6], pixels)
    assert np.unique(hwc(batch)[:, :2]).tolist() == [114]


def test_half_precision_is_rounded_once_at_the_end():
    pixels = picture(6, 4)
    half = prepared(raw(dtype="float16", mean=0.3), pixels)

    assert half.dtype == np.float16
    assert np.array_equal(half, prepared(raw(mean=0.3), pixels).astype(np.float16))


def test_bfloat16_is_left_to_devices():
    with pytest.raises(InvalidInput, match="numpy has no bfloat16; choose float16"):
        prepared(raw(dtype="bfloat16"), picture(2, 2))


def test_channels_last_is_the_same_batch_turned():
    pixels = picture(6, 4), picture(6, 4, seed=1)
    last = prepared(raw(layout="NHWC"), *pixels)

    assert last.flags.c_contiguous
    assert np.array_equal(last.transpose(0, 3, 1, 2), prepared(raw(), *pixels))


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_grey_is_pillows_luma_in_three_channels(color):
    pixels = picture(9, 11)
    as_rgb = pixels if color == "rgb" else pixels[:, :, ::-1]
    luma = np.asarray(PIL.Image.fromarray(np.ascontiguousarray(as_rgb)).convert("L"))

    images = read_images(pixels, color)
    batch, _ = prepare(images, raw(grayscale=True))

    assert np.array_equal(batch[0], np.stack([luma] * 3))


@pytest.mark.parametrize(
    "contrast",
    ["adaptive-equalization", "contrast-stretching", "histogram-equalization"],
)
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (40, 31)])
def test_contrast_is_kept_within_bytes(contrast, size):
    pytest.importorskip("skimage")
    batch = prepared(raw(contrast=contrast), picture(*size))

    assert batch.shape == (1, 3, *size)
    assert 0 <= batch.min() <= batch.max() <= 255


def test_stretched_contrast_reaches_from_black_to_white():
    pytest.importorskip("skimage")
    pixels = picture(40, 31) // 4 + 60
    batch = prepared(raw(contrast="contrast-stretching"), pixels)

    assert (batch.min(), batch.max()) == (0, 255)


@pytest.mark.skipif(
    importlib.util.find_spec("skimage") is not None, reason="scikit-image is here"
)
def test_contrast_says_what_it_needs():
    with pytest.raises(MissingDependency, match="pip install scikit-image"):
        prepared(raw(contrast="contrast-stretching"), picture(4, 4))


@pytest.mark.parametrize("mode", [*RESIZES, "fit-longer-edge"])
def test_inputs_are_never_written_to(mode):
    pixels = picture(13, 29)
    before = pixels.copy()
    pixels.flags.writeable = False

    prepared(Preprocessing(size=(8, 8), resize=mode, grayscale=True, mean=0.5), pixels)

    assert np.array_equal(pixels, before)


@pytest.mark.parametrize("mode", RESIZES)
def test_a_batch_is_its_images_side_by_side(mode):
    spec = raw(size=(16, 16), resize=mode)
    pixels = [picture(13, 29), picture(30, 8), picture(16, 16)]

    together = prepared(spec, *pixels)

    assert np.array_equal(together, np.concatenate([prepared(spec, p) for p in pixels]))


@pytest.mark.parametrize(
    "mode", ["stretch", "letterbox", "center-crop", "fit-longer-edge"]
)
@pytest.mark.parametrize("size", [(40, 90), (90, 40), (33, 33)])
def test_a_bright_patch_is_found_again_where_it_was(mode, size):
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[16:24, 14:26] = 255
    spec = Preprocessing(size=(64, 64), resize=mode)
    batch, (frame,) = prepare(read_images(pixels), spec)
    placed = np.argwhere(batch[0, 0] > 0.5)
    corners = np.array([[*placed.min(0)[::-1], *(placed.max(0) + 1)[::-1]]])

    found = frame.to_original(corners)[0]

    assert found == pytest.approx([14, 16, 26, 24], abs=1.5)
