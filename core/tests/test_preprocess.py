"""Preprocessing as data, and the map from the network's pixels to the image's."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
from hypothesis import assume, given, reject
from hypothesis import strategies as st

from inference_models import Frame, InvalidCard, InvalidInput, Preprocessing
from inference_models.preprocess import place, place_batch

RESIZES = ["stretch", "letterbox", "letterbox-reflect", "center-crop"]
ALL_RESIZES = [*RESIZES, "fit-longer-edge"]

lengths = st.integers(1, 90)
sizes = st.tuples(lengths, lengths)
crops = st.tuples(*[st.integers(0, 40)] * 2, *[st.integers(60, 100)] * 2)
specs = st.builds(
    Preprocessing,
    size=st.none() | sizes,
    resize=st.sampled_from(ALL_RESIZES),
    crop=st.none() | crops,
    intermediate=st.none() | lengths | sizes,
    canvas=st.none() | sizes,
    divisible=st.none() | st.integers(1, 32),
    padding_place=st.sampled_from(["center", "top-left"]),
)


def network_pixel(frame, x, y):
    """Where a point of the original lies on the network's canvas."""
    return (x - frame.offset_x) / frame.scale_x, (y - frame.offset_y) / frame.scale_y


def where_it_fits(work, *args):
    """What `work` gives, but where a small crop blows a small image out of bounds."""
    try:
        return work(*args)
    except InvalidInput:
        reject()


@given(spec=specs, size=sizes, points=st.tuples(*[st.floats(0, 1)] * 4))
def test_what_was_shown_of_a_box_comes_back_from_the_network(spec, size, points):
    height, width = size
    frame = where_it_fits(place, spec, *size).frame
    x1, x2 = sorted(points[:2])
    y1, y2 = sorted(points[2:])
    box = [x1 * width, y1 * height, x2 * width, y2 * height]
    there = [*network_pixel(frame, *box[:2]), *network_pixel(frame, *box[2:])]

    back = frame.to_original(np.array([there]))

    assert back.dtype == np.float32
    top, left, bottom, right = frame.shown
    inside = np.clip(box, (left, top) * 2, (right, bottom) * 2)
    assert back[0] == pytest.approx(inside, abs=0.05)


@given(spec=specs, size=sizes, boxes=st.lists(st.floats(-500, 500), min_size=4))
def test_no_box_leaves_what_was_shown_of_the_original(spec, size, boxes):
    frame = where_it_fits(place, spec, *size).frame
    boxes = np.array(boxes[: len(boxes) // 4 * 4]).reshape(-1, 4)

    moved = frame.to_original(boxes)

    top, left, bottom, right = frame.shown
    assert 0 <= left <= moved[:, 0::2].min()
    assert 0 <= top <= moved[:, 1::2].min()
    assert moved[:, 0::2].max() <= right <= size[1]
    assert moved[:, 1::2].max() <= bottom <= size[0]


@given(spec=specs, size=sizes)
def test_what_is_laid_touches_the_canvas(spec, size):
    placed = where_it_fits(place, spec, *size)
    for axis in (0, 1):
        start, length = placed.offset[axis], placed.resized[axis]

        assert start < placed.canvas[axis]
        assert start + length > 0


@given(spec=specs, size=sizes)
def test_the_read_rectangle_has_pixels_and_lies_in_the_image(spec, size):
    top, left, bottom, right = where_it_fits(place, spec, *size).source

    assert 0 <= top < bottom <= size[0]
    assert 0 <= left < right <= size[1]


@given(spec=specs, many=st.lists(sizes, min_size=1, max_size=4))
def test_images_of_a_batch_share_one_canvas(spec, many):
    places, canvas = where_it_fits(place_batch, spec, many)

    frames = [placed.frame for placed in places]
    assert {placed.canvas for placed in places} == {canvas}
    assert {(f.input_height, f.input_width) for f in frames} == {canvas}


@given(spec=specs, size=sizes)
def test_a_given_size_is_the_canvas_unless_the_longer_edge_is_fitted(spec, size):
    assume(spec.size is not None)
    assume(spec.resize != "fit-longer-edge")

    placed = where_it_fits(place, spec, *size)
    assert placed.canvas == spec.size
    assert (placed.frame.input_height, placed.frame.input_width) == placed.canvas


def test_normalized_boxes_are_shares_of_the_input():
    frame = place(Preprocessing(size=(100, 100), resize="letterbox"), 25, 50).frame

    assert frame.from_normalized(np.array([[0.5, 0.5, 1, 0.7]])).tolist() == [
        pytest.approx([25, 12.5, 50, 22.5])
    ]


def test_no_boxes_keep_their_shape():
    frame = Frame(10, 10, 5, 5)

    assert frame.to_original(np.empty((0, 4))).shape == (0, 4)


def test_a_frame_of_sizes_alone_moves_nothing():
    box = np.array([[1, 2, 3, 4]], np.float32)

    assert np.array_equal(Frame(10, 10, 10, 10).to_original(box), box)


def test_a_box_that_is_infinitely_far_is_clipped_without_a_warning():
    frame = place(Preprocessing(size=(100, 100)), 50, 200).frame
    far = frame.from_normalized(np.array([[-1e38, 0.5, 1e38, 1]]))

    assert far.tolist() == [[0, 25, 200, 50]]


def test_points_go_where_boxes_go_and_are_not_clipped():
    frame = place(Preprocessing(size=(100, 100), resize="letterbox"), 25, 50).frame
    points = np.array([[[50, 50], [0, 20]], [[100, 75], [10, 0]]])

    found = frame.points_to_original(points)

    assert found.dtype == np.float32
    assert found.tolist() == [[[25, 12.5], [0, -2.5]], [[50, 25], [5, -12.5]]]
    assert frame.points_to_original(np.empty((0, 17, 2))).shape == (0, 17, 2)


def centres(count, length):
    """Where the centres of so many cells lie on a side of this length."""
    return (np.arange(count) + 0.5) * length / count


@given(spec=specs, size=sizes, cells=st.tuples(*[st.integers(1, 30)] * 2))
def test_a_map_of_the_networks_pixels_says_where_each_pixel_was(spec, size, cells):
    frame = where_it_fits(place, spec, *size).frame
    sides = [(cells[1], frame.input_width), (cells[0], frame.input_height)]
    x, y = (centres(*side) for side in sides)
    there = network_pixel(frame, centres(size[1], size[1]), centres(size[0], size[0]))

    across, down = frame.maps_to_original(np.stack(np.meshgrid(x, y)), outside=np.nan)

    assert across.dtype == np.float32
    assert across.shape == size
    for found, was, ours in (
        (across[size[0] // 2], there[0], x),
        (down[:, size[1] // 2], there[1], y),
    ):
        seen = ~np.isnan(found)
        wanted = np.clip(was, ours[0], ours[-1])[seen]
        assert found[seen] == pytest.approx(wanted, abs=0.02)


def test_what_the_network_did_not_see_is_outside_of_its_maps_and_masks():
    frame = place(Preprocessing(size=(4, 4), resize="center-crop"), 4, 6).frame

    maps = frame.maps_to_original(np.full((2, 2, 2), 5), outside=-3)
    masks = frame.masks_to_original(np.full((2, 2, 2), 5))

    assert maps[1].tolist() == [[-3, 5, 5, 5, 5, -3]] * 4
    assert masks.dtype == bool
    assert np.array_equal(masks, maps > 0)
    assert frame.masks_to_original(np.empty((0, 2, 2))).shape == (0, 4, 6)


@pytest.mark.parametrize("resize", ["letterbox", "letterbox-reflect", "center-crop"])
def test_what_a_crop_left_out_was_not_seen(resize):
    spec = Preprocessing(size=(80, 80), resize=resize, crop=(25, 40, 75, 60))
    frame = place(spec, 200, 200).frame
    wanted = np.zeros((200, 200), bool)
    wanted[80:120, 50:150] = True
    if resize == "center-crop":
        wanted[:, :60] = wanted[:, 140:] = False

    (mask,) = frame.masks_to_original(np.ones((1, 20, 20)))
    (box,) = frame.to_original(np.array([[-99, -99, 199, 199]]))

    assert np.array_equal(mask, wanted)
    left, right = (60, 140) if resize == "center-crop" else (50, 150)
    assert box.tolist() == [left, 80, right, 120]


@pytest.mark.parametrize("image", [(100, 300), (300, 100), (80, 90), (101, 57)])
def test_what_a_centre_crop_left_out_is_not_shown(image):
    spec = Preprocessing(size=(64, 96), resize="center-crop", intermediate=80)
    frame = place(spec, *image).frame

    (levels,) = frame.maps_to_original(np.ones((1, 8, 8)), outside=-1)
    top, left, bottom, right = frame.shown

    assert (levels[top:bottom, left:right] >= 0).mean() > 0.9
    levels[top:bottom, left:right] = -1
    assert (levels == -1).all()


@pytest.mark.parametrize(
    "spec",
    [
        Preprocessing(size=(64, 96), resize="letterbox"),
        Preprocessing(size=(64, 96), resize="center-crop", intermediate=80),
        Preprocessing(size=(32, 48), crop=(10, 10, 80, 90)),
        Preprocessing(divisible=32),
    ],
    ids=lambda spec: spec.resize,
)
def test_the_class_of_a_pixel_is_that_of_the_highest_mapped_score(spec):
    frame = place(spec, 77, 123).frame
    cells = (7, frame.input_height // 2, frame.input_width // 4)
    scores = np.random.default_rng(0).standard_normal(cells).astype(np.float32)
    maps = frame.maps_to_original(scores, outside=np.nan)

    found = frame.class_ids_to_original(scores, outside=9)

    unseen = np.isnan(maps[0])
    assert found.dtype == np.int32
    assert np.array_equal(found, np.where(unseen, 9, maps.argmax(axis=0)))


def test_a_class_that_is_ruled_out_is_that_of_no_pixel():
    frame = place(Preprocessing(size=(8, 8)), 40, 30).frame
    scores = np.random.default_rng(0).standard_normal((3, 8, 8)).astype(np.float32)
    scores[1] = -np.inf

    assert set(np.unique(frame.class_ids_to_original(scores))) == {0, 2}


def test_a_mask_ends_half_way_between_the_cells_that_it_ends_between():
    frame = Frame(1, 8, 1, 8)

    found = frame.masks_to_original(np.array([[[1, -1]]], np.float16))

    assert found.tolist() == [[[True] * 4 + [False] * 4]]


def test_stretching_ignores_the_ratio():
    placed = place(Preprocessing(size=(30, 40)), 60, 20)

    assert (placed.resized, placed.canvas, placed.offset) == (
        (30, 40),
        (30, 40),
        (0, 0),
    )


@pytest.mark.parametrize("resize", ["letterbox", "letterbox-reflect"])
def test_a_letterbox_keeps_the_ratio_and_centers(resize):
    placed = place(Preprocessing(size=(64, 64), resize=resize), 20, 41)

    assert placed.resized == (31, 64)
    assert placed.offset == (16, 0)


def test_a_letterbox_may_lie_top_left():
    spec = Preprocessing(size=(64, 64), resize="letterbox", padding_place="top-left")

    assert place(spec, 20, 41).offset == (0, 0)


def test_a_thin_image_keeps_at_least_one_pixel():
    spec = Preprocessing(size=(16, 16), resize="letterbox")

    assert place(spec, 1, 1000).resized == (1, 16)


def test_the_longer_edge_fits_without_padding():
    spec = Preprocessing(size=(64, 64), resize="fit-longer-edge")
    placed = place(spec, 20, 40)

    assert placed.resized == placed.canvas == (32, 64)


def torchvision_center(length, target):
    """Where `torchvision.transforms.functional.center_crop` starts to read."""
    if target > length:
        return -((target - length) // 2)
    return round((length - target) / 2.0)


@pytest.mark.parametrize("target", [4, 5, 8])
@pytest.mark.parametrize("length", range(1, 16))
def test_a_center_crop_starts_where_torchvisions_does(length, target):
    spec = Preprocessing(size=(target, target), resize="center-crop")
    placed = place(spec, length, length)

    assert placed.resized == (length, length)
    assert placed.offset == (-torchvision_center(length, target),) * 2


@pytest.mark.parametrize(
    ("size", "expected"),
    [((427, 640), (256, 383)), ((640, 427), (383, 256)), ((256, 256), (256, 256))],
)
def test_the_shorter_side_comes_first_as_in_torchvision(size, expected):
    spec = Preprocessing(size=(224, 224), resize="center-crop", intermediate=256)
    placed = place(spec, *size)

    assert placed.resized == expected
    assert placed.canvas == (224, 224)


def test_an_intermediate_size_is_kept_where_another_follows():
    placed = place(Preprocessing(size=(10, 10), intermediate=(50, 70)), 99, 99)

    assert (placed.intermediate, placed.resized) == ((50, 70), (10, 10))


@pytest.mark.parametrize(
    ("size", "canvas"), [((33, 64), (64, 64)), ((1, 1), (32, 32)), ((96, 65), (96, 96))]
)
def test_without_a_size_the_image_is_padded_to_multiples(size, canvas):
    placed = place(Preprocessing(divisible=32), *size)

    assert (placed.canvas, placed.offset) == (canvas, (0, 0))


def test_without_size_and_multiple_the_image_stays():
    assert place(Preprocessing(), 33, 65).canvas == (33, 65)


def test_a_static_crop_is_in_percent_of_the_image():
    placed = place(Preprocessing(crop=(10, 20, 90, 80)), 100, 200)

    assert placed.source == (20, 20, 80, 180)
    assert placed.frame.offset_x == 20


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"size": 224}, "size 224 must be \\(height, width\\)"),
        ({"size": [224]}, "size \\(224,\\) must be"),
        ({"size": [0, 224]}, "size .* above 0"),
        ({"size": [224.0, 224]}, "size .* whole pixels"),
        ({"divisible": [32, 32]}, "divisible .* must be a number"),
        ({"divisible": True}, "divisible True"),
        ({"intermediate": [1, 2, 3]}, "intermediate .* shorter side"),
        ({"resize": "squash"}, "resize 'squash' is not one of stretch, letterbox"),
        ({"resize": None}, "resize None is not one of"),
        ({"interpolation": "lanczos"}, "interpolation 'lanczos'"),
        ({"contrast": "more"}, "contrast 'more'"),
        ({"color": "rgba"}, "color 'rgba'"),
        ({"layout": "CHW"}, "layout 'CHW'"),
        ({"dtype": "float64"}, "dtype 'float64'"),
        ({"padding_place": "left"}, "padding_place 'left'"),
        ({"padding_value": 256}, "padding_value 256 is out of range"),
        ({"padding_value": "grey"}, "padding_value 'grey' must be a number"),
        ({"antialias": "false"}, "antialias 'false' must be true or false"),
        ({"grayscale": 1}, "grayscale 1 must be true or false"),
        ({"scale": float("nan")}, "scale nan is out of range"),
        ({"scale": -1}, "scale -1 is out of range"),
        ({"crop": [0, 0, 100]}, "crop .* percent"),
        ({"crop": [50, 0, 50, 100]}, "crop .* percent"),
        ({"crop": [0, 0, 101, 100]}, "crop .* percent"),
        ({"crop": ["a", 0, 1, 1]}, "crop .* percent"),
        ({"crop": 50}, "crop 50 .* percent"),
        ({"crop": "0011"}, "crop '0011' .* percent"),
        ({"crop": [float("nan"), 0, 1, 1]}, "crop .* percent"),
        ({"mean": [0.5, 0.5]}, "mean .* three finite numbers"),
        ({"mean": "abc"}, "mean .* three finite numbers"),
        ({"mean": "123"}, "mean .* three finite numbers"),
        ({"mean": ["0.5", "0.5", "0.5"]}, "mean .* three finite numbers"),
        ({"mean": [0.5, None, 0.5]}, "mean .* three finite numbers"),
        ({"mean": [[0.5, 0.5, 0.5]]}, "mean .* three finite numbers"),
        ({"mean": {"r": 1}}, "mean .* three finite numbers"),
        ({"mean": True}, "mean .* three finite numbers"),
        ({"mean": None}, "mean .* three finite numbers"),
        ({"mean": float("nan")}, "mean .* three finite numbers"),
        ({"mean": [1e300, 0, 0]}, "mean .* three finite numbers"),
        ({"mean": [10**400, 0, 0]}, "mean .* three finite numbers"),
        ({"mean": []}, "mean .* three finite numbers"),
        ({"std": [1, 0, 1]}, "std .* other than 0"),
        ({"std": [1, float("inf"), 1]}, "std .* three finite"),
        ({"std": 0}, "std .* other than 0"),
        ({"std": [1, 1e-300, 1]}, "std .* other than 0"),
        ({"std": [1, float("nan"), 1]}, "std .* three finite"),
        ({"std": [1, 1, 1, 1]}, "std .* three finite"),
        ({"scale": 10**400}, "scale 1000.* is out of range"),
        ({"padding_value": 10**400}, "padding_value 1000.* is out of range"),
        ({"size": [-1, 224]}, "size .* above 0"),
        ({"size": "224"}, "size '224' must be \\(height, width\\)"),
        ({"size": ["224", "224"]}, "size .* whole pixels"),
        ({"size": [True, True]}, "size .* whole pixels"),
        ({"size": [[224, 224]]}, "size .* must be"),
        ({"size": 10**9}, "size 1000000000 must be \\(height, width\\)"),
        ({"size": [10**9, 10**9]}, "size .* more than 67108864 pixels.*; correct"),
        ({"size": [1, 10**400]}, "size .* more than 67108864 pixels"),
        ({"canvas": [8192, 8193]}, "canvas .* more than 67108864 pixels"),
        ({"intermediate": [10**9, 1]}, "intermediate .* more than 67108864 pixels"),
        ({"intermediate": 8193}, "intermediate 8193 .* more than 67108864 pixels"),
        ({"divisible": 10**9}, "divisible 1000000000 .* more than 67108864 pixels"),
        ({"multiple": 10**9}, "multiple 1000000000 .* more than 67108864 pixels"),
        ({"auto_map": {"AutoModel": "m.Evil"}}, "has no field 'auto_map'"),
        ({5: 1}, "has no field 5"),
    ],
)
def test_an_impossible_value_is_refused(config, words):
    with pytest.raises(InvalidCard, match=words):
        Preprocessing.from_config(config)


def test_an_unknown_field_is_refused_with_the_nearest():
    with pytest.raises(InvalidCard, match="no field 'resise'; did you mean 'resize'"):
        Preprocessing.from_config({"resise": "stretch"})


@pytest.mark.parametrize("std", [1e-18, -0.5, 1e18])
def test_what_float32_can_divide_by_is_no_reason_to_refuse(std):
    spec = Preprocessing(scale=1, mean=1e18, std=std)

    assert np.isfinite(spec.affine).all()


@pytest.mark.parametrize(
    ("config", "size", "made"),
    [
        ({"intermediate": 256}, (1, 10**6), "256x256000000"),
        ({"intermediate": 256}, (10**6, 1), "256000000x256"),
        ({"size": [224, 224]}, (10**6, 1), "1000000x224"),  # between the two resizes
        ({"intermediate": [9, 99], "size": [9, 9]}, (10**6, 1), "1000000x99"),
        (
            {"canvas": [1, 1], "size": [8, 9000], "resize": "center-crop"},
            (99, 99),
            "792x",
        ),
        ({"divisible": 8192}, (1, 8193), "8192x16384"),
    ],
)
def test_an_image_that_would_outgrow_the_memory_is_refused(config, size, made):
    spec = Preprocessing.from_config(config)

    with pytest.raises(InvalidInput, match=f"would be made one of {made}.*; crop it"):
        place(spec, *size)


def test_images_that_would_outgrow_the_memory_together_are_refused():
    sizes = [(20_000, 1), (1, 20_000)]

    with pytest.raises(InvalidInput, match=r"20000x20000, more than .* alone"):
        place_batch(Preprocessing(), sizes)


@pytest.mark.parametrize("config", [{}, {"divisible": 32}, {"size": (9, 9)}])
def test_an_image_that_is_large_itself_is_no_reason_to_refuse(config):
    assert place(Preprocessing(**config, resize="center-crop"), 12_000, 9_001)


def test_the_largest_network_is_placed():
    assert place(Preprocessing(size=(8192, 8192)), 10, 10).canvas == (8192, 8192)


@pytest.mark.parametrize("config", [None, "stretch", ["size"], 3])
def test_what_is_no_mapping_is_refused(config):
    with pytest.raises(InvalidCard, match="preprocessing must be a mapping"):
        Preprocessing.from_config(config)


def test_one_number_stands_for_three_channels():
    spec = Preprocessing.from_config({"mean": 0.5, "std": 0.25})

    assert spec.mean == (0.5, 0.5, 0.5)
    assert spec.std == (0.25, 0.25, 0.25)


def test_normalisation_is_one_multiplication_and_one_addition():
    spec = Preprocessing(scale=1 / 255, mean=(0.5, 0, 0), std=(0.5, 1, 2))
    multiply, add = spec.affine

    pixel = np.float32(51)
    assert pixel * multiply + add == pytest.approx([-0.6, 0.2, 0.1], abs=1e-6)


# A dataset's own size, before the network's


@pytest.mark.parametrize(
    ("canvas", "resized", "offset", "seen"),
    [
        ((100, 200), (100, 50), (0, 25), [25, 0, 75, 100]),
        ((200, 100), (50, 100), (25, 0), [0, 25, 100, 75]),
    ],
)
def test_a_canvas_is_filled_as_its_mode_says_and_then_stretched(
    canvas, resized, offset, seen
):
    spec = Preprocessing(size=(100, 100), resize="letterbox", canvas=canvas)
    placed = place(spec, 100, 100)

    assert (placed.resized, placed.canvas) == (resized, (100, 100))
    assert placed.offset == offset
    assert placed.frame.to_original(np.array([seen])).tolist() == [[0, 0, 100, 100]]


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "center-crop"])
def test_a_canvas_of_the_networks_size_changes_nothing(resize):
    spec = Preprocessing(size=(48, 64), resize=resize)

    assert place(attrs.evolve(spec, canvas=(48, 64)), 90, 70) == place(spec, 90, 70)


@pytest.mark.parametrize(
    ("size", "resized"),
    [
        ((480, 640), (800, 1066)),
        ((480, 1000), (640, 1333)),  # the longer side's limit comes first
        ((1000, 480), (1333, 640)),
        ((1, 1000), (1, 1000)),  # the shorter side is as it should be
        ((100, 1334), (100, 1334)),
        ((1, 100_000), (1, 1333)),
        ((1333, 800), (1333, 800)),
    ],
)
def test_the_longer_sides_limit_comes_before_the_shorter_side(size, resized):
    placed = place(Preprocessing(intermediate=800, longest=1333), *size)

    assert (placed.intermediate, placed.resized) == (None, resized)
    assert placed.canvas == resized


@pytest.mark.parametrize(
    ("size", "resized"),
    [((480, 640), (800, 1056)), ((9, 900), (16, 1328)), ((640, 480), (1056, 800))],
)
def test_sides_are_cut_down_to_multiples(size, resized):
    spec = Preprocessing(intermediate=800, longest=1333, multiple=16)

    assert place(spec, *size).resized == resized


@pytest.mark.parametrize(
    ("centering", "length", "offset"),
    [
        ("round", 13, -2),
        ("floor", 13, -1),
        ("round", 15, -2),
        ("floor", 15, -2),
        ("round", 7, 1),
        ("floor", 7, 2),
        ("floor", 10, 0),
    ],
)
def test_an_odd_rest_is_cut_as_it_is_said(centering, length, offset):
    spec = Preprocessing(size=(10, 10), resize="center-crop", centering=centering)

    assert place(spec, length, 10).offset == (offset, 0)
