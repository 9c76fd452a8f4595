"""Places and location tokens: there, back, and for any text."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_models import Frame, InvalidInput, Preprocessing
from inference_models.preprocess import place
from inference_models_florence2.locations import (
    BINS,
    bins_of,
    dequantize,
    groups,
    quantize,
    region,
    to_text,
    tokens_of,
)

SIDES = st.integers(1, 8192)
SHARES = st.floats(0, 1, width=32)
SQUARE = Preprocessing(size=(768, 768))


def from_text(text, frame, count):
    return dequantize(groups(bins_of(text), count), frame)


def stretched(width, height):
    return place(SQUARE, height, width).frame


@st.composite
def frames(draw):
    """A picture of any size, stretched, letterboxed or cropped."""
    height, width = draw(SIDES), draw(SIDES)
    resize = draw(st.sampled_from(["stretch", "letterbox", "center-crop"]))
    crop = draw(st.sampled_from([None, (10, 20, 90, 70)]))
    return place(
        Preprocessing(size=(768, 768), resize=resize, crop=crop), height, width
    ).frame


# There and back


@settings(deadline=None)
@given(SIDES, SIDES, st.lists(st.tuples(SHARES, SHARES), min_size=1, max_size=50))
def test_a_place_returns_within_half_a_bin(width, height, shares):
    size = np.array([width, height], np.float32)
    points = np.array(shares, np.float32) * size
    frame = stretched(width, height)
    back = dequantize(quantize(points, frame), frame)

    assert (abs(back - points) <= size / BINS * 0.5001 + 1e-3).all()


@settings(deadline=None)
@given(SIDES, SIDES, st.lists(st.integers(0, BINS - 1), min_size=2, max_size=2))
def test_bins_return_exactly(width, height, bins):
    frame = stretched(width, height)

    assert quantize(dequantize(np.array(bins), frame), frame).tolist() == bins


@settings(deadline=None)
@given(frames(), st.lists(st.integers(0, BINS - 1), max_size=60))
def test_a_bin_is_always_inside_the_picture(frame, bins):
    points = dequantize(groups(np.array(bins, np.int64), 2), frame)

    assert points.dtype == np.float32
    assert (points >= 0).all()
    assert (points <= [frame.width, frame.height]).all()


@settings(deadline=None)
@given(frames(), st.lists(st.floats(-1e9, 1e9, width=32), min_size=4, max_size=4))
def test_a_box_is_always_written_in_tokens_that_exist(frame, box):
    bins = bins_of(to_text(np.array(box), frame))

    assert len(bins) == 4
    assert ((bins >= 0) & (bins < BINS)).all()


@pytest.mark.parametrize("count", [4, 8, 2, 6000])
def test_boxes_quads_and_polygons_are_written_and_read(count):
    frame = stretched(640, 480)
    bins = np.arange(2 * count).reshape(2, count) % BINS
    text = to_text(dequantize(bins, frame), frame)

    assert text == tokens_of(bins)
    assert np.array_equal(from_text(text, frame, count), dequantize(bins, frame))


def test_a_box_is_written_as_four_tokens():
    box = np.array([0, 24.0, 320.3, 480], np.float32)

    assert to_text(box, stretched(640, 480)) == "<loc_0><loc_50><loc_500><loc_999>"


# Any text


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 10**6).map(lambda n: f"<loc_{n}>") | st.text(max_size=9))
)
def test_any_text_of_location_tokens_is_read(pieces):
    text = "".join(pieces)
    bins = bins_of(text)
    boxes = from_text(text, stretched(640, 480), 4)

    assert len(bins) >= sum(bool(re.fullmatch(r"<loc_\d+>", p, re.A)) for p in pieces)
    assert boxes.shape == (len(bins) // 4, 4)
    assert ((boxes >= 0) & (boxes <= [640, 480, 640, 480])).all()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("a cat", []),
        ("<loc_>", []),
        ("<loc_-1>", []),
        ("<loc_5", []),
        ("<loc_٣>", []),
        ("<loc_0><loc_999>", [0, 999]),
        ("<loc_1000>", [999]),
        (f"<loc_{'9' * 9000}>", [999]),
        (f"<loc_{'0' * 9000}7>", [7]),
        ("<loc_007>", [7]),
        ("<loc_1>a<loc_2>", [1, 2]),
    ],
    ids=lambda value: str(value)[:20],
)
def test_only_location_tokens_are_read(text, expected):
    assert bins_of(text).tolist() == expected


# What the network saw


def test_a_crop_is_undone():
    frame = place(
        Preprocessing(size=(768, 768), crop=(25, 50, 75, 100)), 400, 800
    ).frame

    found = from_text("<loc_0><loc_0><loc_999><loc_999>", frame, 4)
    assert found == pytest.approx(np.array([[200.2, 200.1, 599.8, 399.9]]))
    assert to_text(found, frame) == "<loc_0><loc_0><loc_999><loc_999>"


def test_what_lies_in_the_padding_is_at_the_edge_of_the_picture():
    frame = place(Preprocessing(size=(768, 768), resize="letterbox"), 400, 800).frame

    found = from_text("<loc_0><loc_0><loc_999><loc_999>", frame, 4)
    assert found == pytest.approx(np.array([[0.4, 0, 799.6, 400]]))


def test_what_was_cut_off_is_at_the_edge_of_the_crop():
    frame = place(
        Preprocessing(size=(768, 768), crop=(25, 50, 75, 100)), 400, 800
    ).frame

    assert to_text(np.array([0, 0, 800, 400]), frame) == (
        "<loc_0><loc_0><loc_999><loc_999>"
    )


# The reference


@pytest.fixture(scope="module")
def reference():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from .reference import processor

    return processor().post_processor


@pytest.mark.parametrize("count", [2, 4])
def test_bins_are_those_of_transformers(reference, count):
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(5)
    for width, height in random.integers(1, 5000, (200, 2)).tolist():
        size = np.array([width, height] * (count // 2))
        places = (random.random((20, count)) * size).astype(np.float32)
        expected = reference.quantize(torch.from_numpy(places), (width, height))

        assert np.array_equal(quantize(places, stretched(width, height)), expected)


@pytest.mark.parametrize("count", [2, 4])
def test_pixels_are_those_of_transformers_which_cuts_them_to_whole_ones(
    reference, count
):
    torch = pytest.importorskip("torch")
    bins = np.arange(BINS).repeat(count).reshape(-1, count)
    sizes = np.random.default_rng(6).integers(1, 5000, (300, 2)).tolist()
    for width, height in [*sizes, (1000, 1000), (2000, 2000), (1168, 4336)]:
        expected = reference.dequantize(torch.from_numpy(bins), (width, height))
        found = dequantize(bins, stretched(width, height))

        assert np.array_equal(np.floor(found), expected)


# Regions


@pytest.mark.parametrize(
    "box",
    [
        (64, 48, 320, 240),
        [64.0, 48, 320, 240],
        np.array([64, 48, 320, 240], np.int32),
        (0.1, 0.1, 0.5, 0.5),
    ],
    ids=["tuple", "list", "array", "shares"],
)
def test_a_region_is_in_pixels(box):
    found = region(box, 640, 480)

    assert found.dtype == np.float32
    assert found.tolist() == [64, 48, 320, 240]


def test_a_region_may_be_a_tensor():
    torch = pytest.importorskip("torch")
    box = torch.tensor([0.1, 0.1, 0.5, 0.5], dtype=torch.float64, requires_grad=True)

    assert region(box, 640, 480).tolist() == [64, 48, 320, 240]


@pytest.mark.parametrize("box", [(0, 0, 640, 480), (0, 0, 1, 1)])
def test_a_region_may_be_the_whole_picture(box):
    assert region(box, 640, 480).tolist() == [0, 0, 640, 480]


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ((1, 2, 3), "is not a box; give four finite numbers"),
        ([[1, 2, 3, 4]], "is not a box"),
        ([[1, 2], [3]], "is not a box"),
        (None, "is not a box"),
        ("abcd", "is not a box"),
        (["1", "2", "3", "4"], "is not a box"),
        ((True, False, True, True), "is not a box"),
        ((1, 2, 3, float("nan")), "is not a box"),
        ((1, 2, float("inf"), 4), "is not a box"),
        ((1, 2, 10**400, 4), "is not a box"),
        ((9, 2, 3, 4), "is empty"),
        ((3, 4, 3, 9), "is empty"),
        ((0, 0, 0, 0), "is empty"),
        ((0.5, 0, 0.2, 1), "is empty"),
        ((-1, 2, 3, 4), r"not inside the picture of 640x480"),
        ((1, -2, 3, 4), "not inside"),
        ((1, 2, 641, 4), "not inside"),
        ((1, 2, 3, 480.5), "not inside"),
        ((900, 900, 950, 950), "not inside"),
    ],
    ids=str,
)
def test_what_is_no_region_of_the_picture_is_refused(box, said):
    with pytest.raises(InvalidInput, match=said):
        region(box, 640, 480)


def test_a_frame_without_a_change_has_the_networks_pixels():
    frame = Frame(1000, 1000, 1000, 1000)

    assert from_text("<loc_0><loc_1>", frame, 2).tolist() == [[0.5, 1.5]]
