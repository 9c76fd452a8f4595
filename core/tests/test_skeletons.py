"""What a card says of the points of its classes."""

from __future__ import annotations

import pytest

from inference_models import InvalidCard
from inference_models.skeletons import Skeleton, skeletons_of

FACE = {"class_id": 1, "names": ["eye", "eye", "nose"], "skeleton": [[0, 2], [1, 2]]}


def test_a_class_has_the_points_that_the_card_names():
    nothing, face = skeletons_of({"key_points": [FACE]}, 2)

    assert nothing == Skeleton()
    assert face == Skeleton(("eye", "eye", "nose"), ((0, 2), (1, 2)))


def test_a_card_needs_to_say_nothing():
    assert skeletons_of({}, 2) == [Skeleton(), Skeleton()]


def test_points_need_no_line_between_them():
    (only,) = skeletons_of({"key_points": [{"class_id": 0, "names": ["tip"]}]}, 1)

    assert only == Skeleton(("tip",))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"class_id": None}, "class_id is missing"),
        ({"class_id": 2}, "class_id 2 is not from 0 to 1"),
        ({"class_id": "1"}, "class_id must be a number"),
        ({"names": "nose"}, "names must be a list"),
        ({"names": [1]}, "names must hold texts"),
        ({"skeleton": [[0, 3]]}, r"skeleton has \[0, 3\], which is no pair .* 0 to 2"),
        ({"skeleton": [[-1, 0]]}, "skeleton has"),
        ({"skeleton": [[0]]}, "skeleton has"),
        ({"skeleton": [[True, 1]]}, "skeleton has"),
        ({"skeleton": ["01"]}, "skeleton has '01'"),
        ({"skeleton": {"0": 1}}, "skeleton must be a list"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(change, words):
    with pytest.raises(InvalidCard, match=rf"^config: key_points\[0\]: {words}"):
        skeletons_of({"key_points": [FACE | change]}, 2)


def test_a_class_with_two_lists_of_points_is_refused():
    with pytest.raises(InvalidCard, match="class_id 1 stands twice"):
        skeletons_of({"key_points": [FACE, FACE]}, 2)


def test_a_card_without_labels_has_as_many_classes_as_it_names_points_for():
    nothing, face = skeletons_of({"key_points": [FACE]}, 0)

    assert (nothing, face.names) == (Skeleton(), ("eye", "eye", "nose"))
    assert skeletons_of({}, 0) == []


@pytest.mark.parametrize("value", ["nose", {"0": []}, [None], [FACE] * 3])
def test_key_points_that_are_no_list_of_classes_are_refused(value):
    with pytest.raises(InvalidCard, match=r"^config: key_points"):
        skeletons_of({"key_points": value}, 2)
