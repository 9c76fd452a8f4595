"""Images are prepared as transformers' own processors prepare them, by Pillow."""

from __future__ import annotations

import json

import numpy as np
import pytest
import transformers
from PIL import Image

from inference_models import InvalidCard, Preprocessing
from inference_models.images import read_images
from inference_models.prepare import prepare
from inference_models.preprocess import place
from inference_models.strict_json import Node
from inference_models_hf.processor import DEFAULTS, preprocessing_of

NAMES = [name for name in DEFAULTS if name != "RfDetr"]  # it is torchvision's alone
SIZES = [(481, 640), (333, 777), (601, 401), (100, 99)]
NUMBERS = {"size": 96}  # as the oldest files have it
BY_NAME = [
    ("ViT", NUMBERS),
    ("Bit", NUMBERS),
    ("Levit", NUMBERS),
    ("ConvNext", NUMBERS),
    ("PoolFormer", NUMBERS),
    ("MobileNetV2", NUMBERS),
    ("MobileViT", {"size": {"shortest_edge": 64}}),  # a crop larger than the image
    ("ConvNext", {"size": {"shortest_edge": 384}}),
    ("CLIP", {"do_center_crop": False}),
    ("ViT", {"do_resize": False}),
    ("ViT", {"do_rescale": False, "do_normalize": False}),
    ("ViT", {"do_normalize": False}),
    ("ViT", {"resample": 0}),
    ("ViT", {"image_mean": 0.25, "image_std": 0.75}),
    ("EfficientNet", {"rescale_factor": 1 / 127.5, "rescale_offset": True}),
    ("EfficientNet", {"include_top": False}),
    ("EfficientNet", {"do_normalize": False}),
    ("EfficientNet", {"do_rescale": False, "rescale_offset": True}),
    ("PoolFormer", {"do_center_crop": False}),
    ("Levit", {"size": {"height": 128, "width": 96}}),
    ("DeiT", {"crop_size": 97}),
    ("Detr", {"size": {"shortest_edge": 100, "longest_edge": 120}}),
    ("Yolos", {"size": {"shortest_edge": 100, "longest_edge": 120}}),
    ("Detr", {"size": 100, "max_size": 150}),
    ("ViT", {"do_resize": None}),
    ("ViT", {"do_rescale": None, "do_normalize": None}),
    ("CLIP", {"do_center_crop": None}),
    ("MobileViT", {"do_flip_channel_order": None}),
    ("EfficientNet", {"include_top": None}),
    ("PoolFormer", {"crop_pct": None}),
    ("Detr", {"size": None}),
]
BY_NAME += [  # flags that these processors pass over
    (name, {flag: True})
    for flag in ("do_flip_channel_order", "include_top", "rescale_offset")
    for name in ("ViT", "ConvNext", "RTDetr", "Bit")
]
BY_NAME += [
    (name, {"do_center_crop": True, "crop_size": 32})
    for name in ("RTDetr", "Segformer", "Detr", "Yolos")
]


def image(height, width):
    """A soft picture: on noise, the order of axes in Pillow's bicubic would show."""
    small = np.random.default_rng(height).integers(0, 256, (12, 12, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def check_same(processor, config):
    spec = Preprocessing.from_config(preprocessing_of(Node(config, "a file")))
    for size in SIZES:
        picture = image(*size)
        (expected,) = processor(images=[picture], return_tensors="np")["pixel_values"]
        (found,), _ = prepare(read_images([picture]), spec)

        assert expected.shape == found.shape
        grey_levels = np.abs(expected - found) / spec.affine[0].max()
        assert grey_levels.max() <= (2.01 if spec.interpolation == "bicubic" else 0.01)
        assert grey_levels.mean() <= 0.05


@pytest.mark.parametrize("name", ["Detr", "Yolos"])
@pytest.mark.parametrize("longer", [1327, 1333, 1334, 1339])
@pytest.mark.parametrize("shorter", [96, 100, 640])
def test_what_is_nearly_as_long_as_allowed_is_resized_as_there(name, shorter, longer):
    processor = made(name)
    spec = Preprocessing.from_config(
        preprocessing_of(Node(json.loads(processor.to_json_string()), "a file"))
    )
    for size in ((shorter, longer), (longer, shorter)):
        picture = Image.new("RGB", size[::-1])
        expected = processor(images=[picture], return_tensors="np")["pixel_values"]

        assert place(spec, *size).canvas == expected.shape[2:]


@pytest.mark.parametrize("name", ["ConvNext", "PoolFormer"])
def test_two_sides_are_not_taken_for_one_number(name):
    config = {"image_processor_type": f"{name}ImageProcessor", "size": [64, 96]}
    with pytest.raises(InvalidCard, match="size is 64x96, and one number is meant"):
        preprocessing_of(Node(config, "a file"))


def made(name, **fields):
    return getattr(transformers, f"{name}ImageProcessorPil")(**fields)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_says_all(name):
    processor = made(name)
    check_same(processor, json.loads(processor.to_json_string()))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ending", ["ImageProcessor", "ImageProcessorFast"])
def test_a_file_that_names_its_processor_alone(name, ending):
    check_same(made(name), {"image_processor_type": f"{name}{ending}"})


@pytest.mark.parametrize(("name", "fields"), BY_NAME)
def test_a_file_that_differs_from_the_usual(name, fields):
    config = {"feature_extractor_type": f"{name}FeatureExtractor", **fields}
    check_same(made(name, **fields), config)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "image_processor_type is missing"),
        ({"image_processor_type": "SamImageProcessor"}, "'SamImageProcessor' is not"),
        ({"resample": 1}, r"resample 1 is not one of 0 \(nearest\)"),
        ({"resample": "bilinear"}, "must be a number"),
        ({"resample": None}, "resample is null, and images are to be resized"),
        ({"rescale_factor": None}, "rescale_factor is null, and values are to be"),
        ({"image_mean": None}, "image_mean must be a number, not null"),
        ({"size": None}, "size 'None' is no number of pixels"),
        ({"size": {"longest_edge": 5}}, "names longest_edge, which is unknown"),
        ({"size": {"height": 0, "width": 5}}, "'0' is no number of pixels"),
        ({"size": 1e9}, "is no number of pixels"),
        ({"size": "224"}, "'224' is no number of pixels"),
        ({"size": True}, "'True' is no number of pixels"),
        ({"image_mean": [1, 2]}, "must hold lists of 3 numbers"),
        ({"image_std": [0, 1, 1]}, "other than 0"),
        ({"rescale_factor": -1}, "is not from"),
        ({"do_resize": "yes"}, "must be true or false"),
        ({"do_center_crop": True, "crop_size": {"shortest_edge": 9}}, "no height and"),
        ({"pad_size": {"height": 9, "width": 9}}, "no such padding"),
        (
            {"image_processor_type": "ConvNextImageProcessor", "do_center_crop": True},
            "do_center_crop is on, and ConvNeXt crops by itself",
        ),
    ],
)
def test_what_cannot_be_expressed_is_refused(fields, words):
    kind = {} if not fields else {"image_processor_type": "ViTImageProcessor"}
    with pytest.raises(InvalidCard, match=words):
        preprocessing_of(Node(kind | fields, "a file"))
