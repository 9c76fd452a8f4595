"""The names of ImageNet's classes."""

import json
from importlib.resources import files

LABELS = json.loads(
    files("inference_models_resnet").joinpath("imagenet_labels.json").read_text("utf-8")
)


def test_there_are_a_thousand_names_and_none_repeats():
    assert len(LABELS) == 1000
    assert len(set(LABELS)) == 1000


def test_names_stand_where_the_published_weights_have_them():
    assert LABELS[0] == "tench, Tinca tinca"
    assert LABELS[281] == "tabby, tabby cat"
    assert LABELS[967] == "espresso"
    assert LABELS[999] == "toilet tissue, toilet paper, bathroom tissue"


def test_both_cranes_can_be_told_apart():
    assert (LABELS[134], LABELS[517]) == ("crane (bird)", "crane (machine)")
