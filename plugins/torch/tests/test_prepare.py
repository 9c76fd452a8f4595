"""Images on their way into a network: as the host's reference prepares them."""

import itertools
import warnings

import attrs
import numpy as np
import pytest
import torch

from inference_models import Preprocessing, prepare
from inference_models.images import read_images
from inference_models_torch import TorchBackend
from inference_models_torch.resize import in_floats, resize

from .pictures import (
    IMAGENET,
    IMAGES,
    RANDOM,
    STEPS,
    grey_levels,
    in_every_mode,
    levels_apart,
    resized,
)

OPS = TorchBackend().operations("cpu")


def tensor_of(image):
    return torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1)))


def check(images, spec):
    pictures = read_images(images)
    batch, frames = OPS.prepare(pictures, spec)
    expected, expected_frames = prepare.prepare(pictures, spec)

    assert expected_frames == frames
    assert expected.shape == tuple(batch.shape)
    assert batch.is_contiguous()
    assert str(expected.dtype) == str(batch.dtype).removeprefix("torch.")
    difference = grey_levels(OPS.host(batch), spec) - grey_levels(expected, spec)
    assert np.abs(difference).max() <= levels_apart(spec)


@in_every_mode
def test_agrees_with_the_reference(resize, interpolation, antialias):
    for size in ((31, 23), (50, 77), (8, 8)):
        check(IMAGES, resized(size, resize, interpolation, antialias, **IMAGENET))


CONTRASTS = [
    {"contrast": "contrast-stretching"},
    {"contrast": "histogram-equalization", "grayscale": True},
    {"contrast": "adaptive-equalization"},
]


@pytest.mark.parametrize("changes", [*STEPS, *CONTRASTS], ids=str)
def test_agrees_in_every_other_step(changes):
    if "contrast" in changes:
        pytest.importorskip("skimage")
    check(IMAGES, Preprocessing(**{"size": (24, 40), **changes}))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_agrees_where_one_row_or_column_is_left(interpolation, channels):
    picture = RANDOM.integers(0, 256, (142, 61, channels), dtype=np.uint8)
    images = [picture, picture[:, :1], picture[:1], picture[:1, :1]]
    images += [torch.from_numpy(each.transpose(2, 0, 1).copy()) for each in images]
    for size in ((23, 79), (1, 40), (40, 1), (1, 1)):
        spec = Preprocessing(size=size, interpolation=interpolation)
        check(images, spec)
        check(images, attrs.evolve(spec, intermediate=79, longest=20))


def test_nearest_picks_the_very_pixels_of_the_reference():
    spec = Preprocessing(interpolation="nearest")
    row = RANDOM.integers(0, 256, (1, 640, 3), np.uint8)

    for width in range(1, 700, 13):
        expected = prepare.resize(row, (1, width), spec)
        found = resize(torch.from_numpy(row).permute(2, 0, 1), (1, width), spec)
        assert np.array_equal(expected, found.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [True, False])
def test_floats_resize_like_bytes_where_only_they_can(interpolation, antialias):
    spec = Preprocessing(interpolation=interpolation, antialias=antialias)

    for image, size in itertools.product(IMAGES, [(9, 9), (40, 99)]):
        found = in_floats(torch.from_numpy(image).permute(2, 0, 1), size, spec)
        expected = torch.from_numpy(prepare.resize(image, size, spec).copy())
        difference = expected.permute(2, 0, 1).int() - found.int()
        assert difference.abs().max() <= 2


def test_makes_bfloat16_which_numpy_has_not():
    spec = Preprocessing(size=(8, 8), dtype="bfloat16")
    batch, _ = OPS.prepare(read_images(IMAGES), spec)
    exact, _ = OPS.prepare(read_images(IMAGES), attrs.evolve(spec, dtype="float32"))

    assert torch.equal(exact.to(torch.bfloat16), batch)
    assert np.float32 == OPS.host(batch).dtype


def forms(image):
    """The same pixels in every form that users hold."""
    frozen = image.copy()
    frozen.flags.writeable = False
    padded = np.zeros((image.shape[0] + 3, image.shape[1] + 5, 3), np.uint8)
    padded[1:-2, 2:-3] = image
    bgra = np.dstack([image, image[:, :, :1]])
    doubles = np.repeat(image, 2, axis=1)
    alpha_first = np.ascontiguousarray(bgra[:, :, ::-1])
    turned = torch.from_numpy(image[:, :, ::-1].copy())
    return {
        "read-only": frozen,
        "upside down": np.ascontiguousarray(image[::-1])[::-1],
        "mirrored": np.ascontiguousarray(image[:, ::-1])[:, ::-1],
        "channels turned": np.ascontiguousarray(image[:, :, ::-1])[:, :, ::-1],
        "part of another": padded[1:-2, 2:-3],
        "every second column": doubles[:, ::2],
        "four channels": bgra,
        "four channels turned": alpha_first[:, :, ::-1],
        "float": image.astype(np.float32) / 255,
        "double": image / 255,
        "tensor": tensor_of(image),
        "channels last tensor": turned.permute(2, 0, 1),
        "float tensor": tensor_of(image).double() / 255,
        "four channel tensor": torch.cat([tensor_of(image), tensor_of(image)[:1]]),
    }


@pytest.mark.parametrize("form", sorted(forms(IMAGES[0])))
@pytest.mark.parametrize("size", [(24, 40), (37, 53)])
def test_the_same_pixels_in_any_form_give_the_same_bits(form, size):
    for changes in ({}, {"crop": (10, 10, 90, 90)}, {"grayscale": True}):
        spec = Preprocessing(size=size, **IMAGENET, **changes)
        expected, _ = OPS.prepare(read_images([IMAGES[0]] * 2), spec)
        given = forms(IMAGES[0])[form]
        images = read_images([given, given])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            batch, _ = OPS.prepare(images, spec)

        assert torch.equal(expected, batch)


def test_reads_a_tensor_that_has_a_gradient():
    (image,) = read_images(tensor_of(IMAGES[0]) / 255)
    watched = attrs.evolve(image, pixels=image.pixels.clone().requires_grad_())
    spec = Preprocessing(size=(24, 40))
    expected, _ = OPS.prepare([image], spec)
    batch, _ = OPS.prepare([watched], spec)

    assert torch.equal(expected, batch)
    assert not batch.requires_grad


def test_reads_grey_images_and_tensors():
    grey = IMAGES[0][:, :, 0].copy()
    for spec in (Preprocessing(size=(24, 40)), Preprocessing(grayscale=True)):
        check([grey], spec)
        check([torch.from_numpy(grey)], spec)


def test_never_writes_to_an_image():
    specs = [{}, {"dtype": "uint8"}, {"size": (8, 9)}, {"size": (8, 9), "scale": 2.0}]
    originals = forms(IMAGES[0])

    for name, image in forms(IMAGES[0]).items():
        for spec in specs:
            batch, _ = OPS.prepare(read_images(image), Preprocessing(**spec))
            batch.zero_()
        assert np.array_equal(OPS.host(originals[name]), OPS.host(image))


def test_host_gives_numpy_of_whatever_it_gets():
    tensor = torch.ones(2, dtype=torch.float16, requires_grad=True)

    assert np.float32 == OPS.host(tensor).dtype
    assert np.int64 == OPS.host(torch.ones(2, dtype=torch.int64)).dtype
    assert np.float32 == OPS.host(np.ones(2, np.float16)).dtype
