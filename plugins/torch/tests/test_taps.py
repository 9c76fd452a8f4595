"""Tables of what is mixed give what the host's reference resizes."""

import itertools

import numpy as np
import pytest

from inference_models import Preprocessing, prepare
from inference_models.images import read_images
from inference_models.preprocess import place
from inference_models_torch.taps import PADDING, axes, plain_axes, table

from .pictures import IMAGES, in_every_mode, resized


def mixed(pixels, axis, made):
    """The first axis of (h, ...) as a table says, and which rows are padding."""
    first, weights = made[:, 0].astype(int), made[:, 1:]
    taps = np.clip(first[:, None] + np.arange(weights.shape[1]), 0, axis.source - 1)
    return np.einsum("ct,ct...->c...", weights, pixels[taps]), first == PADDING


def level(values):
    return np.clip(np.floor(values + 0.5), 0, 255)


def by_tables(pixels, rows, columns, spec):
    """What a kernel does with two tables: uint8 (h, w, 3) -> levels on the canvas."""
    wide, left_out = mixed(pixels.transpose(1, 0, 2), columns, table(columns))
    wide = level(wide) if spec.antialias else wide
    tall, above = mixed(wide.transpose(1, 0, 2), rows, table(rows))
    tall = level(tall)
    tall[above] = tall[:, left_out] = spec.padding_value
    return tall


@in_every_mode
@pytest.mark.parametrize("size", [(31, 23), (50, 77), (8, 8)])
def test_tables_give_what_the_reference_does(resize, interpolation, antialias, size):
    plain = {"color": "bgr", "dtype": "uint8", "layout": "NHWC"}
    spec = resized(size, resize, interpolation, antialias, **plain)
    for image in IMAGES:
        pair = axes(image.shape[:2], place(spec, *image.shape[:2]), spec)
        (expected,), _ = prepare.prepare(read_images(image), spec)
        found = by_tables(image, *pair, spec)
        assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_a_resize_alone_is_the_references(interpolation):
    spec = Preprocessing(interpolation=interpolation)
    for image, size in itertools.product(IMAGES, [(19, 40), (64, 20)]):
        expected = prepare.resize(image, size, spec).astype(int)
        found = by_tables(image, *plain_axes(image.shape[:2], size, spec), spec)
        assert np.abs(found - expected).max() <= 1


def test_padding_is_marked():
    spec = Preprocessing(size=(20, 10), resize="letterbox")
    rows, columns = axes((10, 10), place(spec, 10, 10), spec)

    assert [(made[:, 0] == PADDING).sum() for made in map(table, (rows, columns))] == [
        10,
        0,
    ]


def test_weights_add_up_to_one():
    for antialias, before in itertools.product([True, False], [5, 97, 1000]):
        spec = Preprocessing(interpolation="bicubic", antialias=antialias)
        for axis in plain_axes((before, before), (33, 128), spec):
            sums = table(axis)[:, 1:].sum(axis=1)
            np.testing.assert_allclose(sums, 1, atol=1e-5)
