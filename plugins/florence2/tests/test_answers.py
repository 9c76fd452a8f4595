"""Generated texts and what is read of them: well-formed, cut short, or nonsense."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_models import Detections, InstanceDetections, Preprocessing
from inference_models.preprocess import place
from inference_models_florence2.answers import banned_in, parts, plain, read
from inference_models_florence2.locations import dequantize
from inference_models_florence2.tasks import TASKS

from .reference import CONFIG

SIZE = (640, 480)
FRAME = place(Preprocessing(size=(768, 768)), 480, 640).frame
BANNED = banned_in({"post_processor_config": CONFIG})


def loc(*numbers):
    return "".join(f"<loc_{number}>" for number in numbers)


CAR = loc(54, 374, 906, 707)
WHEELS = loc(708, 589, 767, 691) + loc(147, 586, 206, 690)
DOOR = loc(444, 457, 502, 476)
QUADS = [(97, 169, 264, 169, 264, 190, 97, 190), (3, 50, 40, 55, 38, 70, 1, 65)]
OUTLINE = loc(282, 406, 327, 398, 372, 389, 417, 383, 460, 380, 300, 500)
HOLE = loc(100, 100, 200, 100, 200, 200, 100, 200)
TEXTS = {
    "<CAPTION>": ["</s><s>A green car parked in front of a yellow building.</s>"],
    "<DETAILED_CAPTION>": ["The image shows a car.", "<s></s>"],
    "<MORE_DETAILED_CAPTION>": ["A car.\nIt is green. It costs < $5 & is > 30."],
    "<OCR>": ["</s><s>CUDA FOR ENGINEERS\nby Storti</s>"],
    "<REGION_TO_CATEGORY>": [f"car{CAR}</s>"],
    "<REGION_TO_DESCRIPTION>": ["turquoise Volkswagen Beetle"],
    "<REGION_TO_OCR>": ["EXIT</s>"],
    "<OD>": [
        f"</s><s>car{CAR}door handle{DOOR}wheel{WHEELS}</s>",
        f"<s> car {CAR} wheel{WHEELS}</s><pad><pad>",
        "</s><s></s>",
    ],
    "<DENSE_REGION_CAPTION>": [f"<s>a green, old car{CAR}wheel on a car{WHEELS}</s>"],
    "<REGION_PROPOSAL>": [f"</s><s>{CAR}{WHEELS}{DOOR}</s>", "<s></s>"],
    "<CAPTION_TO_PHRASE_GROUNDING>": [
        f"<s>A green car{CAR} parked in front of a yellow building{DOOR}.</s>",
        f"<s>it{CAR}the image{CAR}wheels{WHEELS}</s>",
    ],
    "<OPEN_VOCABULARY_DETECTION>": [
        f"<s>a green car{CAR}</s>",
        f"<s>a green car<poly>{OUTLINE}<sep>{HOLE}</poly><poly>{HOLE}</poly></s>",
        f"<s>car<poly>{OUTLINE}</poly>wheel<poly>{HOLE}</poly></s>",
        "<s></s>",
    ],
    "<REFERRING_EXPRESSION_SEGMENTATION>": [
        f"</s><s>{OUTLINE}</s>",
        f"<s>{OUTLINE}<sep>{HOLE}</s>",
        f"<s>{OUTLINE}{loc(7)}</s>",
        f"<s><poly>{OUTLINE}<sep>{HOLE}</poly><poly>{HOLE}</poly></s>",
        "<s></s>",
    ],
    "<REGION_TO_SEGMENTATION>": [f"<s>{OUTLINE}</s>"],
    "<OCR_WITH_REGION>": [
        f"</s><s>CUDA{loc(*QUADS[0])}FOR < ENGINEERS >{loc(*QUADS[1])}</s>",
        "<s></s>",
    ],
}
CASES = [(token, text) for token, texts in TEXTS.items() for text in texts]


def found(token, text, **keywords):
    return read(text, TASKS[token], FRAME, **keywords)


# The reference


@pytest.fixture(scope="module")
def reference():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from .reference import processor

    return processor()


def in_its_form(text, answer):
    """What is read of a text, as transformers' processor says it."""
    if answer == "text":
        return plain(text)
    read = [part for part in parts(text, answer) if part.label not in BANNED]
    places = [
        [np.floor(dequantize(place, FRAME)).tolist() for place in part.places]
        for part in read
    ]
    labels = [part.label for part in read]
    single = [place[0] for place in places]
    if answer == "polygons":
        return {"polygons": places, "labels": labels}
    return {"quad_boxes" if answer == "quads" else "bboxes": single, "labels": labels}


@pytest.mark.parametrize(
    ("token", "text"), [case for case in CASES if "<OPEN_VOC" not in case[0]]
)
def test_a_text_says_what_transformers_reads_in_it(reference, token, text):
    expected = reference.post_process_generation(text, task=token, image_size=SIZE)

    assert in_its_form(text, TASKS[token].answer) == expected[token]


@pytest.mark.parametrize("text", TEXTS["<OPEN_VOCABULARY_DETECTION>"])
def test_objects_of_open_vocabulary_are_those_of_transformers(reference, text):
    token = "<OPEN_VOCABULARY_DETECTION>"
    expected = reference.post_process_generation(text, task=token, image_size=SIZE)
    boxes, polygons = (
        {key: expected[token][name] for key, name in names.items()}
        for names in (
            {"bboxes": "bboxes", "labels": "bboxes_labels"},
            {"polygons": "polygons", "labels": "polygons_labels"},
        )
    )
    drawn = "<poly>" in text
    places = parts(text, "boxes")

    assert [part.label for part in places] == (polygons if drawn else boxes)["labels"]
    assert [
        [np.floor(dequantize(place, FRAME)).tolist() for place in part.places]
        for part in places
    ] == (polygons["polygons"] if drawn else [[box] for box in boxes["bboxes"]])


LABELS = st.text("abc XYZ,.-'&;:()0189", min_size=1, max_size=12)


def located(count, most=1):
    """Location tokens of one to `most` things of `count` numbers each."""
    numbers = st.lists(st.integers(0, 999), min_size=count, max_size=count)
    return st.lists(numbers.map(lambda n: loc(*n)), min_size=1, max_size=most).map(
        "".join
    )


OUTLINES = st.lists(
    st.integers(3, 9).flatmap(lambda points: located(2 * points)),
    min_size=1,
    max_size=3,
).map("<sep>".join)
THINGS = {
    "<OD>": st.builds(str.__add__, LABELS, located(4, 3)),
    "<CAPTION_TO_PHRASE_GROUNDING>": st.builds(str.__add__, LABELS, located(4, 3)),
    "<REGION_PROPOSAL>": located(4),
    "<OCR_WITH_REGION>": st.builds(str.__add__, LABELS, located(8)),
    "<REFERRING_EXPRESSION_SEGMENTATION>": OUTLINES.map("<poly>{}</poly>".format),
}


@pytest.mark.parametrize("token", THINGS)
@settings(deadline=None)
@given(data=st.data())
def test_any_well_formed_text_says_what_transformers_reads(reference, token, data):
    text = "".join(["<s>", *data.draw(st.lists(THINGS[token], max_size=6)), "</s>"])
    expected = reference.post_process_generation(text, task=token, image_size=SIZE)

    assert in_its_form(text, TASKS[token].answer) == expected[token]


def test_every_task_has_a_text_here():
    assert set(TEXTS) == set(TASKS)


# Boxes


def test_objects_become_detections():
    objects = found("<OD>", TEXTS["<OD>"][0])

    assert type(objects) is Detections
    assert objects.names == ["car", "door handle", "wheel", "wheel"]
    assert objects.class_id.tolist() == [0, 1, 2, 2]
    assert objects.class_names == ("car", "door handle", "wheel")
    assert objects.confidence.tolist() == [1, 1, 1, 1]
    assert objects.xyxy[0] == pytest.approx([34.88, 179.76, 580.16, 339.6])


def test_classes_keep_their_numbers_and_others_follow():
    text = TEXTS["<OD>"][0]
    objects = found("<OD>", text, classes=["wheel", "dog", "car", "wheel"])

    assert objects.class_names == ("wheel", "dog", "car", "wheel", "door handle")
    assert objects.class_id.tolist() == [2, 4, 0, 0]


def test_classes_are_there_when_nothing_is_found():
    objects = found("<OD>", "", classes=["wheel", "dog"])

    assert len(objects) == 0
    assert objects.class_names == ("wheel", "dog")


def test_what_has_no_label_gets_the_callers_word():
    text = TEXTS["<REGION_PROPOSAL>"][0]

    assert found("<REGION_PROPOSAL>", text).names == ["region"] * 4
    assert found("<REGION_PROPOSAL>", text, unnamed="thing").names == ["thing"] * 4


def test_banned_phrases_ground_nothing():
    text = TEXTS["<CAPTION_TO_PHRASE_GROUNDING>"][1]

    assert found("<CAPTION_TO_PHRASE_GROUNDING>", text, banned=BANNED).names == [
        "wheels",
        "wheels",
    ]
    assert len(found("<CAPTION_TO_PHRASE_GROUNDING>", text)) == 4


def test_a_banned_phrase_may_be_a_label_of_other_tasks():
    assert found("<OD>", f"it{CAR}", banned=BANNED).names == ["it"]


def test_labels_keep_their_letters():
    assert found("<OD>", f"café{CAR}自動車{DOOR}").names == ["café", "自動車"]


def test_a_box_is_never_inside_out():
    (box,) = found("<OD>", f"car{loc(900, 800, 100, 200)}").xyxy

    assert box.tolist() == pytest.approx([64.32, 96.24, 576.32, 384.24])


def test_quads_become_the_boxes_around_them():
    words = found("<OCR_WITH_REGION>", TEXTS["<OCR_WITH_REGION>"][0])

    assert words.names == ["CUDA", "FOR < ENGINEERS >"]
    assert words.xyxy[1] == pytest.approx([0.96, 24.24, 25.92, 33.84])


def test_boxes_of_a_crop_lie_where_the_crop_was():
    crop = Preprocessing(size=(768, 768), crop=(25, 50, 75, 100))
    frame = place(crop, 400, 800).frame
    objects = read(f"car{loc(0, 0, 999, 999)}", TASKS["<OD>"], frame)

    assert objects.xyxy[0] == pytest.approx([200.2, 200.1, 599.8, 399.9])


# Polygons


def test_polygons_become_masks():
    square = loc(250, 250, 749, 250, 749, 749, 250, 749)
    things = found("<REFERRING_EXPRESSION_SEGMENTATION>", square, unnamed="a car")
    rows, columns = np.nonzero(things.masks[0])

    assert type(things) is InstanceDetections
    assert things.names == ["a car"]
    assert things.masks.shape == (1, 480, 640)
    assert things.masks.dtype == bool
    assert things.xyxy[0] == pytest.approx([160.32, 120.24, 479.68, 359.76])
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (
        160,
        479,
        120,
        359,
    )
    assert len(rows) == 320 * 240


def test_several_polygons_of_one_thing_are_one_mask():
    one = loc(0, 0, 99, 0, 99, 99, 0, 99)
    other = loc(900, 900, 999, 900, 999, 999, 900, 999)
    text = f"<poly>{one}<sep>{other}</poly><poly>{one}</poly>"
    things = found("<REFERRING_EXPRESSION_SEGMENTATION>", text)

    assert things.masks.shape == (2, 480, 640)
    assert np.array_equal(things.masks[0, :48, :64], things.masks[1, :48, :64])
    assert things.masks[0].sum() == pytest.approx(2 * 48 * 64, rel=0.02)
    assert things.masks[0, 479, 639]


@pytest.mark.parametrize(
    "text", ["", "</s>", "a car", loc(1, 2, 3, 4), "<poly></poly>", "<sep><sep><sep>"]
)
def test_no_polygons_are_no_masks(text):
    things = found("<REFERRING_EXPRESSION_SEGMENTATION>", text)

    assert isinstance(things, InstanceDetections)
    assert things.masks.shape == (0, 480, 640)
    assert things.xyxy.shape == (0, 4)


def test_objects_drawn_by_an_open_vocabulary_have_masks():
    text = TEXTS["<OPEN_VOCABULARY_DETECTION>"][2]
    things = found("<OPEN_VOCABULARY_DETECTION>", text, classes=["wheel", "car"])

    assert isinstance(things, InstanceDetections)
    assert things.class_id.tolist() == [1, 0]


def test_a_polygon_may_have_thousands_of_points():
    angles = np.linspace(0, 2 * np.pi, 5000)
    points = np.stack([500 + 300 * np.cos(angles), 500 + 300 * np.sin(angles)], axis=1)
    (mask,) = found("<REGION_TO_SEGMENTATION>", loc(*points.astype(int).ravel())).masks

    assert mask.sum() == pytest.approx(np.pi * 0.3**2 * 640 * 480, rel=0.01)


# Malformed


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("car", []),
        ("car<loc_1><loc_2><loc_3>", []),
        (f"car{CAR}wheel<loc_1><loc_2><loc_3>", ["car"]),
        (f"car{CAR}wheel<loc_1><loc_2", ["car"]),
        (f"car{CAR}<loc_5><loc_6>", ["car"]),
        (f"car<loc_1><loc_2>wheel{CAR}", ["wheel"]),
        (f"car{CAR} and some more words", ["car"]),
        (f"car{loc(1, 2, 1000, 123456789)}", ["car"]),
        (f"car{loc(1, 2)}<loc_-3><loc_4>{loc(1, 2)}", []),
        (f"{CAR}car", []),
        (f"<od>car{CAR}</od>", ["car"]),
        (f"<od><grounding>a car</grounding>{CAR}</od>", ["a car"]),
        (f"car<and>dog{CAR}", ["dog"]),
        (f"an <unknown> car{CAR}<loc_x>", ["car"]),
        (f"red\ncar{CAR}", ["red\ncar"]),
        ("<poly>", []),
    ],
)
def test_of_a_malformed_text_the_whole_boxes_are_kept(text, names):
    objects = found("<OD>", text)

    assert objects.names == names
    assert objects.xyxy.shape == (len(names), 4)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (f"word{loc(1, 2, 3, 4, 5, 6, 7)}", []),
        (f"word{loc(*range(15))}", ["word"]),
        (f"word{loc(*range(16))}", ["word"]),
        (f"word{loc(*range(7))}other{loc(*range(8))}", ["other"]),
        (f"{loc(*range(16))}", []),
        (f"word{loc(*range(8))}cut", ["word"]),
    ],
)
def test_of_a_malformed_text_the_whole_quads_are_kept(text, names):
    assert found("<OCR_WITH_REGION>", text).names == names


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (loc(1, 2), 0),
        (loc(1, 2, 3, 4, 5), 0),
        (loc(1, 2, 300, 4, 5, 600, 7), 1),
        (f"<poly>{OUTLINE}", 1),
        (f"{OUTLINE}</poly>", 1),
        (f"<poly>{OUTLINE}</poly><poly>{HOLE}", 2),
        (f"<poly><poly>{OUTLINE}</poly></poly>", 1),
        (f"<poly>{OUTLINE}<sep></poly><poly><sep></poly>", 1),
        (f"a car{OUTLINE}and{HOLE}more", 2),
        (loc(*[5] * 12), 1),
        (loc(*[2000] * 12), 1),
    ],
)
def test_of_a_malformed_text_the_whole_polygons_are_kept(text, count):
    things = found("<REFERRING_EXPRESSION_SEGMENTATION>", text)

    assert things.masks.shape == (count, 480, 640)
    assert things.masks.any(axis=(1, 2)).all()


SMALL = place(Preprocessing(size=(768, 768)), 9, 7).frame
PIECES = (
    st.integers(0, 2000).map(loc)
    | st.lists(st.integers(0, 999), min_size=4, max_size=12).map(lambda n: loc(*n))
    | st.sampled_from(["<poly>", "</poly>", "<sep>", "<s>", "</s>", "<od>", "<and>"])
    | st.sampled_from(["car", "<", ">", "<loc_", "<loc_12", "\n", " "])
    | st.text(max_size=5)
)


@settings(deadline=None)
@given(st.lists(PIECES, max_size=30), st.sampled_from(list(TASKS)))
def test_any_text_gives_a_typed_result(pieces, token):
    answer = read("".join(pieces), TASKS[token], SMALL)
    if isinstance(answer, str):
        assert TASKS[token].answer == "text"
        return
    low, high = answer.xyxy[:, :2], answer.xyxy[:, 2:]

    assert len(answer) == len(answer.class_id) == len(answer.names)
    assert ((low >= 0) & (low <= high) & (high <= [7, 9])).all()
    if TASKS[token].answer == "polygons":
        assert answer.masks.shape == (len(answer), 9, 7)


# Banned phrases


def test_banned_phrases_are_read_from_the_processors_config():
    assert {"it", "the image"} == BANNED


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"post_processor_config": None},
        {"post_processor_config": {"phrase_grounding": []}},
        {"post_processor_config": {"phrase_grounding": {}}},
        {
            "post_processor_config": {
                "phrase_grounding": {"banned_grounding_tokens": "the"}
            }
        },
        {
            "post_processor_config": {
                "phrase_grounding": {"banned_grounding_tokens": [3]}
            }
        },
    ],
    ids=str,
)
def test_a_config_without_banned_phrases_bans_none(config):
    assert banned_in(config) == frozenset()
