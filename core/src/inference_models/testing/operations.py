"""Tests of what surrounds a network on a device, against the host's reference."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import PIL.Image
import pytest

from inference_models.frame import Frame
from inference_models.images import Image, read_images
from inference_models.interfaces import Operations
from inference_models.lending import operations_of
from inference_models.prepare import prepare
from inference_models.preprocess import Preprocessing
from inference_models.registry import installed
from inference_models.testing.negotiation import NegotiationTests
from inference_models.testing.pictures import (
    FORMS,
    DlpackArray,
    as_form,
    picture,
    torch_or_skip,
)

SIZES = ((37, 53), (64, 41), (20, 24), (5, 61))
"""Height and width of the pictures: odd, upright, smaller than the network, narrow."""

RESIZES = (
    "stretch",
    "letterbox",
    "letterbox-reflect",
    "center-crop",
    "fit-longer-edge",
)
SAMPLINGS = tuple(itertools.product(("nearest", "bilinear", "bicubic"), (True, False)))

SPECS: dict[str, dict[str, Any]] = {
    "bgr": {"color": "bgr"},
    "grayscale": {"grayscale": True},
    "grayscale bgr": {"grayscale": True, "color": "bgr"},
    "NHWC": {"layout": "NHWC"},
    "crop": {"crop": (10, 25, 70, 95)},
    "intermediate": {"intermediate": (48, 40), "resize": "center-crop"},
    "shorter side": {"intermediate": 40, "resize": "center-crop"},
    "own size": {"size": None},
    "divisible": {"size": None, "divisible": 16, "padding_value": 114},
    "top left": {
        "resize": "letterbox",
        "padding_place": "top-left",
        "padding_value": 114,
    },
    "float16": {"dtype": "float16"},
}
"""What else a card may ask for, as changes to a stretch to `SIZE`."""

SPECS_OF_FORMS: tuple[dict[str, Any], ...] = (
    {},
    {"antialias": False},
    {"grayscale": True},
    {"resize": "letterbox", "interpolation": "bicubic"},
    {"resize": "center-crop", "color": "bgr"},
)

SIZE = (32, 48)


def spec_of(**changes: Any) -> Preprocessing:
    """A stretch to `SIZE` with pixels in 0–1, changed."""
    return Preprocessing(**{"size": SIZE, **changes})


def bgr_pictures(sizes: Sequence[tuple[int, int]] = SIZES) -> list[Image]:
    """The pictures as OpenCV would give them."""
    return read_images([bgr(picture(*size)) for size in sizes])


def bgr(rgb: np.ndarray) -> np.ndarray:
    """The other order of the last axis, in memory of its own."""
    return np.ascontiguousarray(rgb[:, :, ::-1])


class OperationsTests(NegotiationTests):
    """A device prepares images as the host does, from any form of the same pixels."""

    def _operations(self, device: str) -> Operations:
        return operations_of(self.made(), device, installed())

    def _prepared(
        self, device: str, images: Sequence[Image], spec: Preprocessing
    ) -> tuple[np.ndarray, list[Frame]]:
        operations = self._operations(device)
        batch, frames = operations.prepare(images, spec)
        return operations.host(batch), list(frames)

    def _check_as_on_host(
        self, device: str, images: Sequence[Image], spec: Preprocessing
    ) -> None:
        batch, frames = self._prepared(device, images, spec)
        reference, places = prepare(images, spec)

        assert frames == places
        assert batch.shape == reference.shape
        levels = _grey_levels(batch, spec) - _grey_levels(reference, spec)
        assert np.abs(levels).max() <= (2.25 if spec.dtype == "float16" else 2.01)

    @pytest.mark.parametrize("resize", RESIZES)
    @pytest.mark.parametrize(("interpolation", "antialias"), SAMPLINGS)
    def test_resizes_as_the_host_does(
        self, device: str, resize: Any, interpolation: Any, antialias: bool
    ) -> None:
        """Weights are judged by numbers, and a resize of another kind changes them."""
        spec = spec_of(resize=resize, interpolation=interpolation, antialias=antialias)

        self._check_as_on_host(device, bgr_pictures(), spec)

    @pytest.mark.parametrize("changes", SPECS.values(), ids=SPECS)
    def test_prepares_as_the_host_does(
        self, device: str, changes: dict[str, Any]
    ) -> None:
        """Every field of a card's preprocessing means the same on every device."""
        self._check_as_on_host(device, bgr_pictures(), spec_of(**changes))

    @pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
    def test_several_arrays_come_to_the_host_as_each_alone(
        self, device: str, dtype: Any
    ) -> None:
        """A device may bring them in one copy, which changes none of them."""
        operations = self._operations(device)
        images = read_images([bgr(picture(*size)) for size in SIZES[:2]])
        batches = [operations.prepare([i], spec_of(dtype=dtype))[0] for i in images]
        expected = [np.array(operations.host(batch)) for batch in batches]
        found = operations.hosts(batches)

        for one, alone in zip(found, expected, strict=True):
            assert one.dtype == alone.dtype
            np.testing.assert_array_equal(one, alone)

    @pytest.mark.parametrize("color", ["rgb", "bgr"])
    def test_normalises_channels_in_the_networks_order(
        self, device: str, color: Any
    ) -> None:
        """Mean and std are given in the order of `color`."""
        spec = spec_of(
            color=color,
            resize="letterbox",
            padding_value=114,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        )

        self._check_as_on_host(device, bgr_pictures(), spec)

    @pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
    def test_leaves_uint8_batches_as_they_are(self, device: str, layout: Any) -> None:
        """A graph that takes uint8 normalises by itself."""
        spec = spec_of(
            dtype="uint8",
            layout=layout,
            resize="letterbox",
            padding_value=114,
            mean=(0.5, 0.5, 0.5),
        )
        batch, _ = self._prepared(device, bgr_pictures(), spec)

        assert batch.dtype == np.uint8
        self._check_as_on_host(device, bgr_pictures(), spec)

    @pytest.mark.parametrize(
        "contrast",
        ["adaptive-equalization", "contrast-stretching", "histogram-equalization"],
    )
    @pytest.mark.skipif(
        importlib.util.find_spec("skimage") is None,
        reason="scikit-image is not installed",
    )
    def test_equalizes_as_the_host_does(self, device: str, contrast: Any) -> None:
        """Contrast is changed after the crop and before any resize."""
        spec = spec_of(contrast=contrast, crop=(0, 0, 80, 100))

        self._check_as_on_host(device, bgr_pictures(SIZES[:2]), spec)

    @pytest.mark.parametrize("form", ["dlpack", "torch", "pillow", "reversed", "wide"])
    @pytest.mark.parametrize("changes", SPECS_OF_FORMS, ids=str)
    def test_the_same_pixels_in_any_form_give_the_same_batch(
        self, device: str, form: str, changes: dict[str, Any]
    ) -> None:
        """A result must not depend on the library that read the file."""
        spec = spec_of(**changes)
        for size in SIZES:
            rgb = picture(*size)
            expected, _ = self._prepared(device, read_images(bgr(rgb)), spec)
            found, _ = self._prepared(device, _in_form(rgb, form), spec)

            np.testing.assert_array_equal(found, expected)

    @pytest.mark.parametrize("form", FORMS)
    def test_floats_in_0_to_1_give_the_batch_of_their_pixels(
        self, device: str, form: str
    ) -> None:
        """255 as uint8 and 1.0 as a float are the same white."""
        rgb = picture(37, 53)
        floats = rgb.astype(np.float32) / 255
        planes = as_form(np.ascontiguousarray(floats.transpose(2, 0, 1)), form)
        images = read_images(floats, "rgb") if form == "numpy" else read_images(planes)
        expected, _ = self._prepared(device, read_images(bgr(rgb)), spec_of())
        found, _ = self._prepared(device, images, spec_of())

        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("shape", [(37, 53), (37, 53, 1), (37, 53, 4)], ids=str)
    def test_takes_gray_images_and_those_with_alpha(
        self, device: str, shape: tuple[int, ...]
    ) -> None:
        """One channel stands for three, and a fourth is left out."""
        pixels = np.resize(picture(37, 53), shape)

        self._check_as_on_host(device, read_images(pixels), spec_of())

    def test_reads_read_only_images(self, device: str) -> None:
        """Images are the caller's: nothing is written to them."""
        pixels = picture(37, 53)
        before = pixels.copy()
        pixels.flags.writeable = False
        self._check_as_on_host(device, read_images(pixels), spec_of(size=(37, 53)))

        np.testing.assert_array_equal(pixels, before)

    def test_a_later_batch_leaves_earlier_ones_alone(self, device: str) -> None:
        """A batch is its caller's, however the device comes by its memory."""
        operations = self._operations(device)
        first, _ = operations.prepare(bgr_pictures(), spec_of())
        before = np.array(operations.host(first))
        operations.prepare(bgr_pictures()[::-1], spec_of())

        np.testing.assert_array_equal(operations.host(first), before)

    def test_eight_threads_prepare_what_one_prepares(self, device: str) -> None:
        """A model is shared by threads, and so are its operations."""
        operations = self._operations(device)
        images = [read_images(picture(40, 56, seed=seed)) for seed in range(8)]
        batches = (operations.prepare(image, spec_of())[0] for image in images)
        alone = [np.array(operations.host(batch)) for batch in batches]

        def prepared(number: int) -> np.ndarray:
            batch, _ = operations.prepare(images[number % 8], spec_of())
            return np.array(operations.host(batch))

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(prepared, range(32)))
        for number, batch in enumerate(found):
            np.testing.assert_array_equal(batch, alone[number % 8])

    @pytest.mark.parametrize("resize", RESIZES)
    def test_maps_masks_as_the_host_does(self, device: str, resize: Any) -> None:
        """Only what lies between a mask and its surroundings may be rounded."""
        operations = self._operations(device)
        _, frames = operations.prepare(bgr_pictures(), spec_of(resize=resize))
        logits = np.random.default_rng(0).normal(size=(len(frames), 5, 8, 12))
        chosen = [np.array(some, np.intp) for some in ([3, 0, 3], [], [4], range(5))]
        found = operations.masks(logits.astype(np.float32), chosen, frames)

        assert len(found) == len(frames)
        for own, some, masks, frame in zip(logits, chosen, found, frames, strict=True):
            levels = frame.maps_to_original(own[some], outside=-1)
            is_clear = np.abs(levels) > 1e-3
            assert masks.dtype == np.bool_
            assert masks.shape == levels.shape
            np.testing.assert_array_equal(masks[is_clear], (levels > 0)[is_clear])

    @pytest.mark.parametrize("dtype", ["float16", "float32", "int64", "uint8"])
    def test_brings_numpy_arrays_to_the_host(self, device: str, dtype: str) -> None:
        """Halves arrive as float32, so that post-processing need not care."""
        values = np.arange(6).reshape(2, 3).astype(dtype)
        host = self._operations(device).host(values)

        assert isinstance(host, np.ndarray)
        assert host.dtype == ("float32" if dtype == "float16" else dtype)
        np.testing.assert_array_equal(host, values)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
    def test_brings_tensors_to_the_host(self, device: str, dtype: str) -> None:
        """numpy has no bfloat16, and some runtimes compute in it."""
        torch = torch_or_skip()
        tensor = torch.arange(6).reshape(2, 3).to(getattr(torch, dtype))
        host = self._operations(device).host(tensor)

        assert host.dtype == np.float32
        np.testing.assert_array_equal(host, np.arange(6).reshape(2, 3))


def _in_form(rgb: np.ndarray, form: str) -> list[Image]:
    """The picture as some library would hold it."""
    planes = np.ascontiguousarray(rgb.transpose(2, 0, 1))
    if form == "torch":
        return read_images(torch_or_skip().from_numpy(planes))
    if form == "dlpack":
        return read_images(DlpackArray(planes))
    if form == "pillow":
        return read_images(PIL.Image.fromarray(rgb))
    if form == "reversed":
        return read_images(rgb[:, :, ::-1])
    margin = np.zeros((rgb.shape[0], rgb.shape[1] + 7, 4), np.uint8)
    margin[:, 3:-4, :3] = bgr(rgb)
    return read_images(margin[:, 3:-4])


def _grey_levels(batch: np.ndarray, spec: Preprocessing) -> np.ndarray:
    """A batch before normalisation, in 0–255 and with channels last."""
    pixels = batch.astype(np.float64)
    if spec.layout == "NCHW":
        pixels = pixels.transpose(0, 2, 3, 1)
    if spec.dtype == "uint8":
        return pixels
    return np.asarray((pixels * spec.std + spec.mean) / spec.scale)
