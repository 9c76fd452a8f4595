"""From an id or a path to predictions, by a plugin that is really installed."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import inspect
import json
import logging
import os
import pickle
import re
import shutil
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import numpy as np
import pytest

from inference_models import (
    Access,
    AutoModel,
    Bundle,
    ClassificationModel,
    ClassificationPrediction,
    ConfidenceOptions,
    Detections,
    DownloadFailed,
    Facts,
    File,
    HashMismatch,
    InvalidCard,
    InvalidInput,
    InvalidOption,
    InvalidWeights,
    KeyPoints,
    LicenseNotAllowed,
    Model,
    ModelClosed,
    ModelNotFound,
    MultiLabelClassificationModel,
    NoBackend,
    ObjectDetectionModel,
    Preprocessing,
    RunFailed,
    TensorSpec,
    Unavailable,
    hardware,
    registry,
)
from inference_models.errors import InferenceModelsError
from inference_models.negotiation import find
from inference_models.providers.cards import CardsProvider

from .distributions import install
from .server import Server

SECRET = "sesame-open"
load = AutoModel.from_pretrained


def flat(*bgr, size=(9, 12)):
    """A picture of one colour."""
    return np.full((*size, 3), bgr, np.uint8)


RED, GREEN, BLUE = flat(0, 0, 255), flat(0, 255, 0), flat(255, 0, 0)


@pytest.fixture
def cards(acme, tmp_path, monkeypatch):
    """Writes cards into a folder that the environment names."""
    folder = tmp_path / "cards"
    monkeypatch.setenv("INFERENCE_MODELS_CARDS", str(folder))

    def write(name="mine", needs=(), **changes):
        placed = folder / name
        placed.mkdir(parents=True)
        shutil.copy(acme.WEIGHTS, placed / "weights.json")
        fields = {
            "format": "acme",
            "graphs": {"main": "weights.json"},
            "needs": dict(needs),
        }
        changes.setdefault("artifacts", [fields])
        facts = acme.card().to_json() | {"id": name, "aliases": []} | changes
        (placed / "card.json").write_text(json.dumps(facts), "utf-8")
        return placed

    return write


def artifact(**changes):
    return {"format": "acme", "graphs": {"main": "weights.json"}} | changes


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


# From an id


@pytest.mark.parametrize("model_id", ["acme-colors", "acme-hues-small"])
def test_a_packs_model_is_known_by_id_and_alias(acme, model_id):
    model = load(model_id)

    assert isinstance(model, ClassificationModel)
    assert (model.card.id, model.task) == ("acme-colors", "classification")
    assert (model.backend, model.device, model.precision) == ("acme", "cpu", "fp32")
    assert model.class_names == ["red", "green", "blue"]
    assert repr(model) == "<ClassificationModel 'acme-colors' on acme, cpu, fp32>"


def test_the_models_are_listed(acme, cards):
    cards("mine")

    assert AutoModel.models() == [
        "acme-bright",
        "acme-colors",
        "acme-hues-small",
        "mine",
    ]


def test_an_id_in_other_cases_is_told_the_right_one(acme):
    with pytest.raises(ModelNotFound, match="did you mean 'acme-colors'"):
        load("ACME-Colors")


def test_an_unknown_id_is_refused_with_the_nearest(acme):
    with pytest.raises(
        ModelNotFound, match="'acme-color' is known; did you mean 'acme-c"
    ):
        load("acme-color")


@pytest.mark.parametrize(
    ("model_id", "pack"),
    [
        ("resnet18", "resnet"),
        ("rfdetr-base", "rfdetr"),
        ("florence2-base", "florence2"),
    ],
)
def test_a_first_party_family_that_is_not_installed_is_named(model_id, pack, acme):
    hint = f"for models of this family: pip install inference-models-{pack}"
    with pytest.raises(ModelNotFound, match=f"no model '{model_id}' is known; {hint}"):
        load(model_id)


@pytest.mark.parametrize("model_id", [None, 3, "", ["acme-colors"]])
def test_what_is_no_id_is_refused(acme, model_id):
    with pytest.raises(InvalidOption, match="is neither a name nor a path"):
        load(model_id)


@pytest.mark.parametrize(
    "model_id", ["x" * 5000, "no\0name", "~nobody-here/x", "a/" * 900]
)
def test_a_strange_id_is_unknown_like_any_other(acme, model_id):
    with pytest.raises(ModelNotFound):
        load(model_id)


def test_one_provider_may_be_asked_alone(acme):
    assert load("cards://acme-colors").card.id == "acme-colors"
    assert load("acme-colors", weights_provider="cards").card.id == "acme-colors"
    with pytest.raises(ModelNotFound):
        load("acme-colors", weights_provider="local")


def test_an_unknown_provider_is_refused_with_the_nearest(acme):
    with pytest.raises(
        InvalidOption, match="no weights provider 'card'; did you mean 'cards'"
    ):
        load("card://acme-colors")


@pytest.mark.parametrize("named", [{}, {"weights_provider": "hf"}])
def test_a_first_party_provider_that_is_not_installed_is_named(acme, named):
    hint = "no weights provider 'hf'; pip install inference-models-hf"
    with pytest.raises(InvalidOption, match=hint):
        load("acme/colors" if named else "hf://acme/colors", **named)


# Parameters


@pytest.mark.parametrize("call", [AutoModel.from_pretrained, AutoModel.explain])
def test_an_unknown_parameter_is_a_type_error_with_the_nearest(acme, call):
    with pytest.raises(
        TypeError, match="no parameter 'bakend'; did you mean 'backend'"
    ):
        call("acme-colors", bakend="onnx")


@pytest.mark.parametrize(
    ("call", "unknown", "words"),
    [
        (AutoModel.explain, "calibration", r"^explain\(\) has no parameter 'calib"),
        (AutoModel.compile, "calibrate", "^compile.* did you mean 'calibration'"),
        (AutoModel.compile, "derive", r"^compile.*; did you mean 'device'\?"),
    ],
)
def test_an_unknown_parameter_is_compared_with_those_of_what_was_called(
    call, unknown, words
):
    backend = {"backend": "acme"}
    with pytest.raises(InvalidOption, match=words):
        call("acme-colors", **backend, **{unknown: True})


@pytest.mark.parametrize(
    "name", ["allow_licenses", "model_type", "revision", "task", "weights_provider"]
)
def test_a_number_for_a_text_is_refused_by_its_name(acme, name):
    with pytest.raises(InvalidOption, match=rf"^{name} .*(no list|not a text)"):
        load("acme-colors", **{name: 5})


@pytest.mark.parametrize("name", ["labels", "allow_licenses"])
def test_an_array_without_an_axis_is_no_list(acme, name):
    with pytest.raises(InvalidOption, match=rf"^{name} .* is no list"):
        load("acme-colors", **{name: np.array("red")})


def test_explain_takes_what_from_pretrained_takes():
    taken, explained = (
        inspect.signature(call).parameters
        for call in (AutoModel.from_pretrained, AutoModel.explain)
    )

    assert explained == taken


def test_a_model_of_another_task_is_refused(acme):
    with pytest.raises(
        InvalidOption, match="model for classification, not for object-det"
    ):
        load("acme-colors", task="object-detection")


def test_labels_may_be_replaced(acme):
    model = load("acme-colors", labels=["rot", "grün", "blau"])

    assert model(BLUE).confidence[0]["blau"] > 0.9


@pytest.mark.parametrize(
    ("labels", "error"),
    [
        (["a", "b", "a"], InvalidOption),
        ([1, 2, 3], InvalidOption),
        ("abc", InvalidOption),
        ({"a", "b", "c"}, InvalidOption),
        ({"a": 0, "b": 1, "c": 2}, InvalidOption),
        (iter("abc"), InvalidOption),
        ([None, None, None], InvalidOption),
        (3, InvalidOption),
    ],
)
def test_labels_that_name_nothing_are_refused(acme, labels, error):
    with pytest.raises(error, match="label"):
        load("acme-colors", labels=labels)


def test_labels_of_another_number_than_the_cards_are_refused(acme):
    with pytest.raises(InvalidOption, match="has 2 names, and 'acme-colors' has 3"):
        load("acme-colors", labels=["one", "two"])


@pytest.mark.parametrize("derive", ["never", "always", 1])
def test_derive_is_true_or_false(acme, derive):
    with pytest.raises(InvalidOption, match=r"derive .* is neither True nor False"):
        load("acme-colors", derive=derive)


@pytest.mark.parametrize("trusted", ["no", "True", 1, None])
def test_trust_is_true_or_false(acme, trusted):
    with pytest.raises(InvalidOption, match=r"packages .* is neither True nor False"):
        load("acme-colors", allow_untrusted_packages=trusted)


def test_the_class_of_a_task_takes_that_task_and_no_other(acme):
    model = ClassificationModel.from_pretrained("acme-colors", task="classification")

    assert model.task == "classification"
    with pytest.raises(InvalidOption, match="is for classification, not for 'box'"):
        ClassificationModel.from_pretrained("acme-colors", task="box")


def test_an_option_for_another_task_is_none(acme, monkeypatch):
    @attrs.frozen
    class Options(ConfidenceOptions):
        sides: int = attrs.field(default=3, metadata={"tasks": ("shapes",)})
        colors: int = attrs.field(default=3, metadata={"tasks": ("classification",)})

    monkeypatch.setattr(acme.Colors, "Options", Options)
    model = load("acme-colors")

    assert len(model(RED, colors=2)) == 1
    with pytest.raises(InvalidOption, match="no option 'sides'; this model"):
        model(RED, sides=4)


def test_an_unknown_option_is_refused_with_the_nearest(acme):
    model = load("acme-colors")
    with pytest.raises(
        InvalidOption, match="no option 'confidance'; did you mean 'confi"
    ):
        model(RED, confidance=0.5)


@pytest.mark.parametrize("level", ["high", [2]])
def test_what_a_packs_own_option_cannot_take_is_told(acme, monkeypatch, level):
    @attrs.frozen
    class Leveled:
        level: int = attrs.field(default=1, converter=int)

    monkeypatch.setattr(acme.Bright, "Options", Leveled)
    with pytest.raises(InvalidOption, match=r"options {'level': .*} do not fit: "):
        load("acme-bright")(RED, level=level)


class Undecided:
    """Compares with nothing, as a tensor of several numbers."""

    def __ge__(self, other):
        raise RuntimeError("the truth is ambiguous")


@pytest.mark.parametrize(
    ("level", "reason"),
    [
        ("high", "'level' must be <class 'int'> (got 'high' that is a <class 'str'>)."),
        (0, "'level' must be >= 1: 0"),
    ],
)
def test_why_attrs_does_not_take_an_option_is_told_in_words(
    acme, monkeypatch, level, reason
):
    @attrs.frozen
    class Leveled:
        level: int = attrs.field(
            default=1,
            validator=[attrs.validators.instance_of(int), attrs.validators.ge(1)],
        )

    monkeypatch.setattr(acme.Bright, "Options", Leveled)
    with pytest.raises(InvalidOption, match=f"do not fit: {re.escape(reason)}") as told:
        load("acme-bright")(RED, level=level)

    assert "Attribute(" not in str(told.value)


def test_an_option_that_cannot_be_compared_is_told(acme, monkeypatch):
    @attrs.frozen
    class Leveled:
        level: int = attrs.field(default=1, validator=attrs.validators.ge(1))

    monkeypatch.setattr(acme.Bright, "Options", Leveled)
    with pytest.raises(InvalidOption, match="do not fit: the truth is ambiguous"):
        load("acme-bright")(RED, level=Undecided())


@pytest.mark.parametrize(("device", "fails"), [("cuda:0", True), ("cpu", False)])
def test_a_model_on_cuda_is_told_that_it_does_not_survive_a_fork(
    acme, monkeypatch, device, fails
):
    monkeypatch.setattr(acme.AcmeBackend, "devices", lambda self: [device])
    model = load("acme-colors")
    assert len(model(RED)) == 1

    monkeypatch.setattr(os, "getpid", lambda: -1)
    error = pytest.raises(InferenceModelsError, match=r"does not survive fork\(\)")
    with error if fails else contextlib.nullcontext():
        model(RED)


@pytest.mark.parametrize("device", [None, "cuda"])
def test_a_process_forked_from_one_that_looked_for_gpus_is_told_that_it_has_none(
    acme, monkeypatch, caplog, device
):
    hardware.detect()
    monkeypatch.setattr(acme.AcmeBackend, "devices", lambda self: ["cuda:0", "cpu"])
    monkeypatch.setattr(os, "getpid", lambda: -1)

    if device is None:
        assert load("acme-colors").device == "cpu"
        assert "looked for GPUs; start the process with" in caplog.text
    else:
        with pytest.raises(Unavailable, match="looked for GPUs; start the process wi"):
            load("acme-colors", device=device)


def test_a_model_without_options_says_so(acme):
    with pytest.raises(InvalidOption, match="this model takes no options"):
        load("acme-bright")(RED, confidence=0.5)


@pytest.mark.parametrize(
    "value",
    [
        *(-0.1, 1.1, "high", None, True, float("nan"), 10**400),
        *(np.array([0.1, 0.2]), np.timedelta64(1, "s"), np.complex64(0.5)),
    ],
    ids=lambda value: f"{value!r:.20}",
)
def test_an_impossible_confidence_is_refused(acme, value):
    model = load("acme-colors")
    with pytest.raises(
        InvalidOption, match=r"confidence .* is neither a number from 0 to 1"
    ):
        model(RED, confidence=value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "value", [0, 1, 0.5, np.float32(0.5), np.float16(0.5), "best", "default"]
)
def test_a_confidence_is_a_number_or_a_word(acme, value):
    assert len(load("acme-colors")(RED, confidence=value)) == 1


# Calls


def test_a_classification_is_one_prediction_for_all_images(acme):
    prediction = load("acme-colors")([RED, GREEN, BLUE])

    assert isinstance(prediction, ClassificationPrediction)
    assert prediction.class_id.tolist() == [0, 1, 2]
    assert prediction.confidence[1]["green"] > 0.9


def test_multiple_labels_are_one_prediction_an_image(acme, cards):
    cards(
        task="multi-label-classification", config={"confidence": {"best": {"red": 8}}}
    )
    model = load("mine")
    both = flat(0, 255, 255)

    assert isinstance(model, MultiLabelClassificationModel)
    assert [sorted(found.class_ids) for found in model([both, BLUE])] == [[0, 1], [2]]
    assert model(both, confidence=0)[0].class_ids.tolist() == [0, 1, 2]


def test_what_the_card_recommends_is_meant_by_class(acme, cards):
    recommended = {"confidence": {"best": {"red": 9.5}, "default": 4}}
    cards(task="multi-label-classification", config=recommended)
    model = load("mine")
    both = flat(0, 255, 255)

    assert sorted(model(both)[0].class_ids) == [0, 1]
    assert model(both, confidence="best")[0].class_ids.tolist() == [1]


def test_what_is_recommended_for_a_class_follows_it_to_its_new_name(acme, cards):
    recommended = {"confidence": {"best": {"red": 9.5, "blue": 1}, "default": 4}}
    cards(task="multi-label-classification", config=recommended)
    model = load("mine", labels=["rot", "grün", None])

    assert model(flat(0, 255, 255), confidence="best")[0].class_ids.tolist() == [1]
    assert model.card.config["confidence"]["best"] == {"rot": 9.5}


def test_labels_may_be_an_array(acme):
    model = load("acme-colors", labels=np.array(["rot", "grün", "blau"]))

    assert model.class_names == ["rot", "grün", "blau"]


def test_detections_are_in_the_pixels_of_the_original(acme):
    picture = np.zeros((60, 120, 3), np.uint8)
    picture[15:30, 60:90] = 255
    (found,) = load("acme-bright")(picture)

    assert isinstance(found, Detections)
    assert found.xyxy[0] == pytest.approx([60, 15, 90, 30], abs=8)
    assert found.names == ["bright"]


def test_detections_come_in_a_list_for_one_image_too(acme):
    (nothing,) = load("acme-bright")(np.zeros((9, 9, 3), np.uint8))

    assert nothing.xyxy.shape == (0, 4)


def test_the_order_of_channels_may_be_named(acme):
    model = load("acme-colors")

    assert model(RED, input_color_format="rgb").class_id.tolist() == [2]


def test_a_call_is_its_three_steps(acme):
    model = load("acme-bright")
    picture = np.zeros((30, 40, 3), np.uint8)
    picture[10:20, 10:20] = 255
    inputs, frames = model.pre_process(picture)

    assert inputs["pixels"].shape == (1, 3, 16, 16)
    assert model.post_process(model.forward(inputs), frames) == model(picture)


def test_a_bad_image_leaves_the_model_usable(acme):
    model = load("acme-colors")
    with pytest.raises(InvalidInput, match="image 1: NoneType is no image"):
        model([RED, None])

    assert model(RED).class_id.tolist() == [0]


@pytest.mark.parametrize(
    ("results", "words"), [(None, "NoneType"), ([1], "1"), ([1, 2, 3], "3")], ids=str
)
def test_results_of_another_number_than_the_images_are_told(
    acme, monkeypatch, results, words
):
    monkeypatch.setattr(acme.Bright, "postprocess", lambda *_: results)
    with pytest.raises(RunFailed, match=f"returned {words}, and not a list of 2 res"):
        load("acme-bright")([RED, GREEN])


def test_steps_that_are_given_what_another_gives_say_so(acme):
    model = load("acme-colors")
    prepared = model.pre_process(RED)
    with pytest.raises(
        InvalidInput, match=r"the first of the two .*pre_process.* not a tuple"
    ):
        model.forward(prepared)
    with pytest.raises(InvalidInput, match=r"takes arrays by name"):
        model.forward({1: np.zeros((1, 3, 4, 4), np.float32)})
    with pytest.raises(InvalidInput, match="was given a tuple and a list"):
        model.post_process(prepared, prepared[1])
    with pytest.raises(InvalidInput, match="was given a dict and a NoneType"):
        model.post_process(model.forward(prepared[0]), None)


@pytest.mark.parametrize("count", [1, 3])
def test_predictions_of_another_number_of_images_are_told(acme, monkeypatch, count):
    scores = np.full((count, 3), 1 / 3)
    predicted = ClassificationPrediction.from_scores(scores, acme.COLORS)
    monkeypatch.setattr(acme.Colors, "postprocess", lambda *_: [predicted])
    with pytest.raises(RunFailed, match=f"predictions of {count} images, and not of 2"):
        load("acme-colors")([RED, GREEN])


@pytest.mark.parametrize("named", [1, 2, 3])
def test_a_card_that_names_more_points_than_there_are_is_told(
    acme, cards, monkeypatch, named
):
    """The network finds two points of one thing."""
    points = [{"class_id": 0, "names": [f"point {n}" for n in range(named)]}]
    found = KeyPoints.sort(np.zeros((1, 2, 2)), [[1, 1]], [0], [1], [[0, 0, 9, 9]])
    monkeypatch.setattr(acme.Colors, "postprocess", lambda *_: [found])
    config = {**acme.card().config, "key_points": points}
    cards("posed", task="keypoint-detection", config=config)
    model = load("posed")
    told = pytest.raises(InvalidCard, match="names 3 points of a class, and the netwo")

    with told if named == 3 else contextlib.nullcontext():
        model(RED)


def test_what_is_no_prediction_is_told(acme, monkeypatch):
    monkeypatch.setattr(acme.Colors, "postprocess", lambda *_: [{"red": 1}])
    with pytest.raises(RunFailed, match="predictions of 0 images, and not of 1"):
        load("acme-colors")(RED)


@pytest.mark.parametrize("step", ["preprocess", "postprocess"])
def test_a_fault_of_an_architecture_is_told_with_its_name(acme, monkeypatch, step):
    def stumble(*_):
        return {}["logits"]

    monkeypatch.setattr(acme.Bright, step, stumble)
    said = rf"{step}\(\) of architecture 'acme-bright' failed: KeyError: 'logits'"
    with pytest.raises(RunFailed, match=said):
        load("acme-bright")([RED, GREEN])


def test_what_is_no_pair_of_inputs_and_frames_is_told(acme, monkeypatch):
    monkeypatch.setattr(acme.Bright, "preprocess", lambda *_: None)
    with pytest.raises(
        RunFailed, match=r"preprocess\(\) of architecture 'acme-bright'"
    ):
        load("acme-bright")(RED)


def test_an_output_that_is_not_there_is_told_beside_those_that_are(acme, monkeypatch):
    def seek(pack, outputs, *_):
        return outputs["logits"]

    monkeypatch.setattr(acme.Bright, "postprocess", seek)
    with pytest.raises(RunFailed, match="'logits'; the outputs are 'means', 'scaled'"):
        load("acme-bright")(RED)


def test_eight_threads_get_what_one_gets(acme):
    model = load("acme-colors", batch_size=3)
    chance = np.random.default_rng(0)
    calls = [
        [chance.integers(0, 256, (n + 5, 20, 3)).astype(np.uint8) for n in range(7)]
        for _ in range(24)
    ]
    expected = [model(images) for images in calls]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(model, calls))

    assert found == expected


# Batches


def test_at_most_so_many_images_are_run_at_a_time(acme):
    load("acme-colors", batch_size=3)([RED] * 8)

    assert acme.batches == [3, 3, 2]


def test_a_part_ends_on_the_host_once_the_next_is_on_its_way(acme, monkeypatch):
    begun = []
    finish = acme.Colors.postprocess

    def watched(*arguments):
        begun.append(len(acme.batches))
        return finish(*arguments)

    monkeypatch.setattr(acme.Colors, "postprocess", watched)
    load("acme-colors", batch_size=3)([RED] * 8)

    assert begun == [2, 3, 3]


OF_THEIR_SIZE = {"preprocessing": {"divisible": 4}}
OF_TWO_SIZES = [RED[:8, :8], GREEN[:4, :4], BLUE[:8, :8], RED[:8, :8]]


def test_no_image_is_padded_for_another_of_its_batch(acme, cards):
    cards(config=OF_THEIR_SIZE)
    model = load("mine")
    alone = [model(image).confidence[0].tolist() for image in OF_TWO_SIZES]
    acme.batches.clear()

    assert model(OF_TWO_SIZES).confidence.tolist() == alone
    assert acme.batches == [1, 1, 2]


def test_images_of_one_size_run_together_and_keep_their_places(acme, cards):
    bright = {"architecture": "acme-bright", "task": "object-detection"}
    cards(config=OF_THEIR_SIZE, labels=["bright"], **bright)
    model = load("mine")
    alone = [model(image)[0] for image in OF_TWO_SIZES]
    acme.batches.clear()

    assert model(OF_TWO_SIZES) == alone
    assert acme.batches == [1, 3]


def test_by_default_sixteen_images_are_run_at_a_time(acme):
    load("acme-colors")([RED] * 17)

    assert acme.batches == [16, 1]


@pytest.mark.parametrize(
    ("side", "device", "size"),
    [(224, "cpu", 16), (448, "cpu", 4), (900, "cpu", 1), (900, "cuda:0", 16)],
)
def test_a_cpu_is_given_fewer_large_images_at_a_time(
    acme, cards, monkeypatch, side, device, size
):
    monkeypatch.setattr(acme.AcmeBackend, "devices", lambda self: [device])
    cards(config={"preprocessing": {"size": [side, side]}})

    assert load("mine").batch_size == size


@pytest.mark.parametrize(
    ("batch", "count", "ran"),
    [
        ((4, 4, 4), 1, [4]),
        ((4, 4, 4), 4, [4]),
        ((4, 4, 4), 6, [4, 4]),
        ((2, 4, 8), 1, [2]),
        ((2, 4, 8), 11, [4, 4, 3]),
        ((1, 1, 1), 3, [1, 1, 1]),
    ],
)
def test_a_fixed_batch_is_split_and_padded(acme, cards, batch, count, ran):
    cards(artifacts=[artifact(batch=batch)])
    images = [[RED, GREEN, BLUE][number % 3] for number in range(count)]

    prediction = load("mine")(images)

    assert prediction.class_id.tolist() == [number % 3 for number in range(count)]
    assert acme.batches == ran


def test_a_fixed_batch_is_split_within_the_users(acme, cards):
    cards(artifacts=[artifact(batch=(2, 2, 2))])

    prediction = load("mine", batch_size=5)([RED] * 5 + [BLUE] * 2)

    assert prediction.class_id.tolist() == [0] * 5 + [2] * 2
    assert acme.batches == [2, 2, 2, 2]


def test_padding_changes_no_result(acme, cards):
    cards("any")
    cards("fixed", artifacts=[artifact(batch=(5, 5, 5))])
    images = list(
        np.random.default_rng(0).integers(0, 256, (7, 9, 9, 3)).astype(np.uint8)
    )

    assert load("fixed")(images) == load("any")(images)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_the_graphs_input_decides_the_type_of_the_batch(acme, cards, dtype):
    cards(artifacts=[artifact(config={"dtype": dtype})])
    inputs, _ = load("mine").pre_process(RED)

    assert inputs["pixels"].dtype == dtype


# Names of tensors


def test_outputs_are_renamed_by_name_or_number(acme, cards):
    cards("plain")
    cards("renamed", artifacts=[artifact(rename={"scaled": "s", "#0": "m"})])
    inputs, _ = load("plain").pre_process(RED)

    assert list(load("plain").forward(inputs)) == ["means", "scaled"]
    assert list(load("renamed").forward(inputs)) == ["m", "s"]


def test_an_input_is_renamed(acme, cards):
    cards(artifacts=[artifact(rename={"pixels": "image"})])

    with pytest.raises(
        InvalidWeights, match="no input 'pixels'; it has 'image': add a re"
    ):
        load("mine")


@pytest.mark.parametrize("number", ["#2", "#x", "#-1"])
def test_an_output_that_is_not_there_cannot_be_renamed(acme, cards, number):
    cards(artifacts=[artifact(rename={number: "m"})])

    with pytest.raises(InvalidWeights, match=f"{number}.*outputs 'means', 'scaled'"):
        load("mine")


def test_a_wrong_input_is_named(acme):
    with pytest.raises(InvalidInput, match=r"'pixels': float32 .* was given 'image'"):
        load("acme-colors").forward({"image": np.zeros((1, 3, 4, 4), np.float32)})


# Closing


def test_a_closed_model_says_so(acme):
    with load("acme-colors") as model:
        model(RED)
        inputs, _ = model.pre_process(RED)
    model.close()

    with pytest.raises(ModelClosed, match="load it again to use it"):
        model(RED)
    with pytest.raises(ModelClosed):
        model.pre_process(RED)
    with pytest.raises(ModelClosed):
        model.forward(inputs)


def test_closing_closes_the_session(acme):
    mine = acme.AcmeBackend()
    load("acme-colors", backend=mine).close()

    assert [session.closed for session in mine.sessions] == [True]


def test_what_was_opened_is_closed_where_it_does_not_fit(acme, cards):
    cards(artifacts=[artifact(rename={"pixels": "image"})])
    mine = acme.AcmeBackend()
    with pytest.raises(InvalidWeights):
        load("mine", backend=mine)

    assert [session.closed for session in mine.sessions] == [True]


# Paths


def test_a_folder_with_a_card_is_a_model(cards):
    folder = cards()

    assert load(folder).backend == load(f"{folder}").backend == "acme"


def test_a_card_file_is_a_model(cards):
    assert load(cards() / "card.json").card.id == "mine"


def test_a_folder_without_a_card_says_what_to_add(acme, tmp_path):
    (tmp_path / "weights.onnx").write_bytes(b"")

    with pytest.raises(
        InvalidCard, match=r"no card.json; add one, or name the file: .*onnx"
    ):
        load(tmp_path)


def test_a_folder_that_a_backend_reads_is_claimed_by_its_family(
    acme, tmp_path, monkeypatch
):
    (tmp_path / "gains.txt").write_text(acme.WEIGHTS.read_text("utf-8"), "utf-8")
    gains = {"gain": TensorSpec("float32", (3,))}

    def inspect(self, path):
        return Facts("acme", gains) if (path / "gains.txt").is_file() else None

    def claims(cls, facts):
        (ready,) = acme.card().artifacts
        ready = attrs.evolve(
            ready, graphs={"main": "."}, files=[File("gains.txt")], config={}
        )
        return attrs.evolve(acme.card(), artifacts=[ready])

    def path(self, graph="main"):
        return self.folder / "gains.txt"

    monkeypatch.setattr(acme.AcmeBackend, "inspect", inspect)
    monkeypatch.setattr(acme.Colors, "claims", classmethod(claims))
    monkeypatch.setattr(Bundle, "path", path)
    model = load(tmp_path)

    assert model.card.id == str(tmp_path)
    assert model.card.artifacts[0].files[0].sources == (
        (tmp_path / "gains.txt").as_uri(),
    )
    assert model(GREEN).class_id.tolist() == [1]


def test_a_folder_that_is_read_and_that_no_family_claims_says_so(
    acme, tmp_path, monkeypatch
):
    facts = Facts("acme", {}, {"about": "whose config names 'StrangeNet'"})
    monkeypatch.setattr(acme.AcmeBackend, "inspect", lambda self, path: facts)
    monkeypatch.setattr(acme.Colors, "claims", classmethod(lambda cls, facts: None))

    with pytest.raises(InvalidWeights, match=r"claims '.*', whose config names 'Stra"):
        load(tmp_path)


def test_a_file_of_weights_is_claimed_by_its_family(acme, tmp_path):
    path = tmp_path / "trained.json"
    shutil.copy(acme.WEIGHTS, path)
    model = load(path)

    assert model.card.id == str(path)
    assert model(GREEN).class_id.tolist() == [1]


def test_a_file_that_no_family_claims_says_what_to_do(acme, tmp_path, monkeypatch):
    path = tmp_path / "strange.json"
    shutil.copy(acme.WEIGHTS, path)
    monkeypatch.setattr(acme.Colors, "claims", classmethod(lambda cls, facts: None))

    with pytest.raises(
        InvalidWeights, match=r"claims .*gain; put a card.json beside it"
    ):
        load(path)


ASIDE = r"(?s:.*)\n  plugin set aside: broken \(acme-broken\): ModuleNotFoundError"


@pytest.fixture
def broken(acme, tmp_path, monkeypatch):
    """Beside acme-vision, a plugin that cannot be imported."""
    install(tmp_path / "site", "acme-broken", {"broken": "acme_broken"})
    monkeypatch.syspath_prepend(tmp_path / "site")
    registry.refresh()


def test_a_file_that_nothing_claims_may_be_of_a_plugin_set_aside(
    acme, broken, tmp_path, monkeypatch
):
    path = tmp_path / "strange.json"
    shutil.copy(acme.WEIGHTS, path)
    monkeypatch.setattr(acme.Colors, "claims", classmethod(lambda cls, facts: None))

    with pytest.raises(InvalidWeights, match=f"known model it is like{ASIDE}"):
        load(path)


def test_a_file_that_nothing_reads_may_be_of_a_plugin_set_aside(broken, tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"?")

    with pytest.raises(InvalidWeights, match=f"reads '.*'{ASIDE}"):
        load(tmp_path / "weights.bin")


def test_a_weights_provider_that_is_missing_may_be_set_aside(broken):
    with pytest.raises(InvalidOption, match=f"no weights provider{ASIDE}"):
        load("shelf://acme-colors")


def test_two_families_that_claim_a_file_alike_are_told_in_one_warning(
    acme, tmp_path, monkeypatch, caplog
):
    path = tmp_path / "trained.json"
    shutil.copy(acme.WEIGHTS, path)
    bright = next(iter(acme.Bright.cards()))
    monkeypatch.setattr(acme.Bright, "claims", classmethod(lambda cls, facts: bright))
    model = load(path)

    (record,) = caplog.records
    assert model.card.architecture == "acme-colors"
    assert record.getMessage() == (
        "architectures 'acme-bright', 'acme-colors' claim this file alike, and "
        "'acme-colors' serves it; model_type= names another"
    )


def test_a_claim_that_is_no_card_hides_no_others(acme, tmp_path, monkeypatch, caplog):
    path = tmp_path / "trained.json"
    shutil.copy(acme.WEIGHTS, path)
    monkeypatch.setattr(acme.Bright, "claims", classmethod(lambda cls, facts: {"a": 1}))
    model = load(path)

    assert model.card.architecture == "acme-colors"
    assert "claims() returned {'a': 1}, no ModelCard" in caplog.text


def test_an_inspection_that_gives_no_facts_is_shown_to_no_architecture(
    acme, tmp_path, monkeypatch, caplog
):
    path = tmp_path / "trained.json"
    shutil.copy(acme.WEIGHTS, path)
    monkeypatch.setattr(acme.AcmeSpare, "inspect", lambda self, path: True)

    assert load(path).card.architecture == "acme-colors"
    assert caplog.text == ""


def test_an_architecture_in_a_single_file_has_no_cards(
    acme, tmp_path, monkeypatch, caplog
):
    source = """
    from inference_models import Architecture, hookimpl

    class Single(Architecture):
        name = "acme-single"

        def postprocess(self, outputs, frames, options, ops):
            return []

    @hookimpl
    def architectures():
        return [Single]
    """
    site = tmp_path / "site"
    install(site, "acme-single", {"single": "acme_single"}, acme_single=source)
    (site / "cards").mkdir()
    (site / "cards" / "strange.json").write_text("[]")
    monkeypatch.syspath_prepend(site)
    registry.refresh()

    assert AutoModel.models() == ["acme-bright", "acme-colors", "acme-hues-small"]
    assert "acme-single" in registry.installed().architectures
    assert caplog.text == ""


def test_cards_that_are_none_hide_no_others(acme, monkeypatch, caplog):
    monkeypatch.setattr(acme.Bright, "cards", classmethod(lambda cls: [{"id": "a"}]))

    assert "acme-colors" in AutoModel.models()
    assert load("acme-colors").card.id == "acme-colors"
    assert "cards() returned {'id': 'a'}, no ModelCard" in caplog.text


def test_a_file_that_no_backend_reads_says_so(acme, tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"?")

    with pytest.raises(
        InvalidWeights, match=r"no installed backend \(acme, acme-spare\) r"
    ):
        load(tmp_path / "weights.bin")


@pytest.mark.parametrize(
    ("name", "plugin"), [("model.ONNX", r"onnx\[cpu\]"), ("model.pth", "torch")]
)
def test_a_file_that_a_backend_would_read_says_what_to_type(
    acme, tmp_path, name, plugin
):
    (tmp_path / name).write_bytes(b"?")
    with pytest.raises(
        InvalidWeights, match=f'; pip install "?inference-models-{plugin}'
    ):
        load(tmp_path / name)


def test_a_file_that_an_installed_backend_is_for_says_nothing_to_type(
    acme, tmp_path, monkeypatch
):
    monkeypatch.setattr(acme.AcmeBackend, "formats", ("acme", "onnx"))
    (tmp_path / "model.onnx").write_bytes(b"?")
    with pytest.raises(InvalidWeights, match=r"reads '.*model\.onnx'($|\n)"):
        load(tmp_path / "model.onnx")


def test_a_file_that_cannot_be_read_says_why(acme, tmp_path):
    (tmp_path / "weights.json").write_bytes(b"\xff\xff")

    with pytest.raises(
        InvalidWeights,
        match=r"weights.json' cannot be read: UnicodeDecodeError: 'utf-8'",
    ):
        load(tmp_path / "weights.json")


@pytest.mark.parametrize("path", ["./gone", "/gone/for/good", Path("gone"), "~/gone"])
def test_a_path_that_is_not_there_is_named(acme, path):
    with pytest.raises(ModelNotFound, match=r"there is no file or folder '.*gone"):
        load(path)


def test_a_bare_name_never_means_a_folder(cards, monkeypatch):
    folder = cards("acme-colors", labels=["c", "m", "y"])
    monkeypatch.delenv("INFERENCE_MODELS_CARDS")
    monkeypatch.chdir(folder.parent)

    assert load("acme-colors").class_names == ["red", "green", "blue"]
    assert load("./acme-colors").class_names == ["c", "m", "y"]
    assert load(Path("acme-colors")).class_names == ["c", "m", "y"]


def test_a_bare_name_of_a_folder_says_how_to_write_it(cards, monkeypatch):
    monkeypatch.chdir(cards("mine").parent)
    monkeypatch.delenv("INFERENCE_MODELS_CARDS")

    with pytest.raises(ModelNotFound, match=r"the folder here is written '\./mine'"):
        load("mine")


def test_a_name_with_a_suffix_is_told_as_a_file_that_is_not_there(acme):
    with pytest.raises(ModelNotFound, match=r"'weights.onnx' .*there is no such file;"):
        load("weights.onnx")


def test_the_working_directory_is_a_folder(cards, monkeypatch):
    monkeypatch.chdir(cards("mine", labels=["c", "m", "y"]))
    monkeypatch.delenv("INFERENCE_MODELS_CARDS")

    assert load(".").class_names == ["c", "m", "y"]


def test_a_name_with_a_suffix_may_mean_a_file(acme, tmp_path, monkeypatch):
    shutil.copy(acme.WEIGHTS, tmp_path / "trained.json")
    monkeypatch.chdir(tmp_path)

    assert load("trained.json").card.id == str(tmp_path / "trained.json")


# Cards of folders


def test_a_folders_card_comes_before_a_packs(cards):
    cards("acme-colors", labels=["c", "m", "y"])

    assert load("acme-colors").class_names == ["c", "m", "y"]


def test_the_first_folder_comes_first(cards, tmp_path, monkeypatch):
    folder = cards("mine", labels=["c", "m", "y"]).parent
    later = tmp_path / "later"
    shutil.copytree(folder, later)
    text = (later / "mine" / "card.json").read_text()
    (later / "mine" / "card.json").write_text(text.replace('"c"', '"x"'))
    paths = [tmp_path / "absent", folder, later]
    monkeypatch.setenv("INFERENCE_MODELS_CARDS", os.pathsep.join(map(str, paths)))

    assert load("mine").class_names == ["c", "m", "y"]


def test_a_folder_of_cards_that_cannot_be_read_is_told(cards, monkeypatch, caplog):
    folder = cards("mine").parent
    paths = ["~nobody-here/x", f"{folder / 'mine/card.json'}", "", " ", f" {folder} "]
    monkeypatch.setenv("INFERENCE_MODELS_CARDS", os.pathsep.join(paths))
    load("mine")

    words = "INFERENCE_MODELS_CARDS names {!r}, which is no folder that can be read"
    assert caplog.messages == [words.format(path) for path in paths[:2]]


def test_a_wrong_card_says_where_it_lies_and_what_is_wrong(cards):
    cards(lables=["a"])

    with pytest.raises(
        InvalidCard, match=r"mine.card.json': ModelCard has no field 'labl"
    ):
        load("mine")


def test_a_card_may_begin_with_a_byte_order_mark(cards):
    path = cards("mine") / "card.json"
    path.write_text(path.read_text("utf-8"), "utf-8-sig")

    assert load("mine").card.id == load(path.parent).card.id == "mine"


def test_a_card_that_says_something_twice_is_refused(cards):
    path = cards("mine") / "card.json"
    path.write_text(path.read_text("utf-8").replace("{", '{"labels": ["a"],', 1))

    with pytest.raises(InvalidCard, match="key 'labels' is there more than once"):
        load(path)


def test_a_wrong_card_is_left_out_of_the_list(cards, caplog):
    folder = cards("bad", lables=["a"])
    (folder.parent / "worse.json").write_text("{")
    cards("good")

    assert "good" in AutoModel.models()
    assert len(warnings_of(caplog)) == 2


def test_a_card_with_repeated_labels_is_refused(cards):
    cards(labels=["cat", "cat", "dog"])

    with pytest.raises(InvalidCard, match="labels repeat 'cat'"):
        load("mine")


def test_a_card_whose_file_is_missing_says_so(cards):
    (cards() / "weights.json").unlink()

    with pytest.raises(
        InferenceModelsError, match=r"there is no file '.*weights.json'"
    ):
        load("mine")


def test_a_card_of_an_unknown_family_is_refused_with_the_nearest(cards):
    cards(architecture="acme-color")

    with pytest.raises(
        NoBackend, match=r"architecture 'acme-color', .* did you mean 'acme-c"
    ):
        load("mine")


def test_a_card_of_a_first_party_family_says_how_to_install_it(cards):
    cards(architecture="resnet")

    with pytest.raises(
        NoBackend, match=r"'resnet', .*; pip install inference-models-resnet"
    ):
        load("mine")


def test_a_card_of_another_size_than_its_graph_is_refused(cards, acme, monkeypatch):
    def fixed(self, bundle, architecture, plan):
        session = acme.AcmeSession(bundle.path(), "float32", None)
        spec = session.inputs["pixels"]
        session.inputs = {"pixels": type(spec)(spec.dtype, (1, 3, 32, 32))}
        return {"main": session}

    cards()
    monkeypatch.setattr(acme.AcmeBackend, "open", fixed)
    with pytest.raises(
        InvalidWeights, match=r"takes images of 32x32, .* makes .16, 16."
    ):
        load("mine", backend="acme")


# Falling back


def test_what_fails_falls_back_with_one_warning(cards, caplog):
    cards(needs={"fails": ["acme"]})
    model = load("mine")

    assert model.backend == "acme-spare"
    (warning,) = warnings_of(caplog)
    assert warning == (
        "mine runs on acme-spare, cpu, because the better choice failed: "
        "acme on cpu: acme cannot open mine"
    )


def test_what_works_at_once_warns_of_nothing(cards, caplog):
    cards()
    load("mine")

    assert warnings_of(caplog) == []


def test_a_fallback_is_explained(cards):
    cards(needs={"fails": ["acme"]})
    explanation = load("mine").explanation

    assert explanation.best.backend == "acme-spare"
    assert "->  acme-spare" in str(explanation)
    assert "failed: acme on cpu: acme cannot open mine" in str(explanation)


def test_a_named_backend_raises_its_own_error(cards, caplog):
    cards(needs={"fails": ["acme"]})

    with pytest.raises(InvalidWeights, match=r"^acme cannot open mine$"):
        load("mine", backend="acme")
    assert warnings_of(caplog) == []


def test_a_strangers_error_is_the_cause_of_ours(cards):
    cards(needs={"crashes": ["acme"]})

    with pytest.raises(
        NoBackend, match="acme on cpu: ZeroDivisionError: a stranger's fault"
    ) as caught:
        load("mine", backend="acme")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_card_for_a_task_that_its_architecture_lacks_is_refused(
    cards, acme, monkeypatch
):
    monkeypatch.setattr(acme.Colors, "tasks", ("classification", "counting"))
    cards(task="object-detection")
    said = "'mine' is for 'object-detection', and architecture 'acme-colors' is for cla"
    for asked in (load, AutoModel.explain):
        with pytest.raises(InvalidCard, match=said):
            asked("mine")


def test_what_failed_holds_nothing_while_the_next_is_tried(cards, acme):
    cards(needs={"crashes": ["acme"]})
    acme.crashed.clear()
    gc.disable()
    try:
        model = load("mine")
        (weights,) = acme.crashed
        assert (model.backend, weights()) == ("acme-spare", None)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("patched", "words"),
    [
        (
            ("Colors", "preprocessing", property(lambda _: {}["x"])),
            "architecture 'acme-colors' failed: KeyError: 'x'",
        ),
        (
            ("Colors", "__init__", lambda self, bundle: {}["y"]),
            "architecture 'acme-colors' failed: KeyError: 'y'",
        ),
        (
            ("AcmeBackend", "open", lambda *_: None),
            "acme on cpu: TypeError: open() returned None, and not sessions by graph",
        ),
        (
            ("AcmeBackend", "open", lambda *_: {"main": "session"}),
            "and not sessions by graph",
        ),
    ],
    ids=["preprocessing", "architecture", "no sessions", "other sessions"],
)
def test_what_fails_to_load_is_told_with_whose_fault_it_is(
    acme, monkeypatch, patched, words
):
    owner, name, replaced = patched
    monkeypatch.setattr(getattr(acme, owner), name, replaced)
    with pytest.raises(InferenceModelsError, match=re.escape(words)):
        load("acme-colors", backend="acme")


@pytest.mark.parametrize(
    ("step", "returned", "words"),
    [
        (
            "preprocess",
            {},
            "preprocess() of architecture 'acme-colors' returned {}, an",
        ),
        (
            "preprocess",
            ({}, []),
            "returned ({}, []), and not arrays by name with 1 fra",
        ),
        (
            "forward",
            np.zeros(3),
            "forward() of architecture 'acme-colors' returned a n",
        ),
    ],
)
def test_what_an_architecture_returns_is_checked_where_it_arises(
    acme, monkeypatch, step, returned, words
):
    model = load("acme-colors")
    monkeypatch.setattr(acme.Colors, step, lambda *_: returned)
    with pytest.raises(RunFailed, match=re.escape(words)):
        model(RED)


def test_what_a_function_of_the_users_raises_ends_the_call(acme, monkeypatch):
    class Enough(Exception):
        pass

    def call_back(*_):
        raise Enough

    model = load("acme-colors")
    monkeypatch.setattr(acme.Colors, "forward", call_back)
    with pytest.raises(Enough):
        model(RED)


def test_a_file_url_is_a_path(acme, tmp_path):
    shutil.copy(acme.WEIGHTS, tmp_path / "weights 1.json")
    url = (tmp_path / "weights 1.json").as_uri()

    assert load(url, model_type="acme-colors").card.id.endswith("weights 1.json")


def test_a_wrong_field_of_preprocessing_is_told_with_its_card(cards):
    cards(config={"preprocessing": {"resise": "stretch"}})

    with pytest.raises(InvalidCard, match=r"the card of 'mine': .*'resise'; did"):
        load("mine")


def test_a_class_loads_no_model_of_another_class(acme):
    class Mine(ClassificationModel):
        pass

    words = "'acme-colors' is a ClassificationModel, not a Mine; load it with AutoModel"
    with pytest.raises(InvalidOption, match=words):
        Mine.from_pretrained("acme-colors")


@pytest.mark.parametrize(
    ("resize", "size"), [("stretch", (8, 9)), ("fit-longer-edge", ("height", "width"))]
)
def test_a_signature_has_the_size_that_preprocessing_makes(
    acme, monkeypatch, tmp_path, resize, size
):
    spec = Preprocessing(size=(8, 9), resize=resize)
    monkeypatch.setattr(acme.Colors, "preprocessing", spec)
    made = acme.Colors(Bundle(acme.card(), acme.card().artifacts[0], tmp_path))

    ((pixels,), _) = [each.values() for each in made.signature("main")]
    assert pixels.shape == ("batch", 3, *size)


@pytest.mark.parametrize("asked", ["devices", "precisions", "open"])
def test_a_backend_that_ends_the_program_is_refused(acme, monkeypatch, caplog, asked):
    def end(*_):
        raise SystemExit("no luck")

    monkeypatch.setattr(acme.AcmeBackend, asked, end)
    monkeypatch.setattr(acme.AcmeSpare, "devices", lambda self: ["cpu"])
    monkeypatch.setattr(acme.AcmeSpare, "precisions", lambda *_: ("fp32",))
    monkeypatch.setattr(acme.AcmeSpare, "open", lambda *_: {"main": made(acme)})

    assert load("acme-colors").backend == "acme-spare"
    assert "SystemExit: no luck" in str(AutoModel.explain("acme-colors")) + caplog.text


def made(acme):
    return acme.AcmeSession(acme.WEIGHTS, "float32", None)


def test_a_provider_that_completes_nothing_is_told_by_name(acme, monkeypatch):
    monkeypatch.setattr(CardsProvider, "complete", lambda *_: None)
    with pytest.raises(
        RunFailed, match=r"complete\(\) of weights provider 'cards' fai"
    ):
        load("acme-colors")


def test_where_everything_fails_each_reason_is_given(cards):
    cards(needs={"fails": ["acme"], "crashes": ["acme-spare"]})

    with pytest.raises(NoBackend) as caught:
        load("mine")
    assert str(caught.value).splitlines()[:3] == [
        "nothing here can run 'mine':",
        "  acme on cpu: acme cannot open mine",
        "  acme-spare on cpu: ZeroDivisionError: a stranger's fault",
    ]


def test_where_everything_fails_alike_the_error_keeps_its_type(cards):
    cards(needs={"fails": ["acme", "acme-spare"]})

    with pytest.raises(InvalidWeights, match="acme cannot open mine"):
        load("mine")


def test_what_cannot_be_fetched_for_one_plan_is_not_asked_for_again(cards):
    with Server() as server:
        url = server.gives("/gain.json", b"", status=404)
        file = {"name": "gain.json", "sources": [url], "sha256": "0" * 64}
        cards(artifacts=[artifact(graphs={"main": "gain.json"}, files=[file])])
        with pytest.raises(DownloadFailed, match="404"):
            load("mine")

    assert [path for path, _ in server.requests] == ["/gain.json"]


def test_where_nothing_fits_each_line_says_what_to_type(cards):
    cards(artifacts=[artifact(format="onnx")])

    with pytest.raises(NoBackend) as caught:
        load("mine")
    message = str(caught.value)
    assert "  acme: needs acme; the card has onnx" in message
    assert "format 'onnx'; pip install \"inference-models-onnx[cpu]\"" in message


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"device": "cuda"}, "acme: offers cpu here, not cuda"),
        ({"quantization": "fp16"}, "acme on cpu: offers fp32 for acme, not fp16"),
        ({"backend": "onnx"}, "no installed plugin offers backend 'onnx'; pip install"),
    ],
)
def test_what_is_named_is_not_replaced(acme, named, words):
    with pytest.raises(NoBackend, match=words):
        load("acme-colors", **named)


def test_after_a_failure_the_next_call_works(cards):
    cards("bad", needs={"fails": ["acme", "acme-spare"]})
    with pytest.raises(InvalidWeights):
        load("bad")

    assert load("acme-colors")(RED).class_id.tolist() == [0]


# Explaining


def test_an_explanation_opens_and_fetches_nothing(cards, tmp_path):
    cards(needs={"fails": ["acme", "acme-spare"]})
    explanation = AutoModel.explain("mine")

    assert explanation.best.backend == "acme"
    assert not (tmp_path / "cache").exists()


def test_an_explanation_heeds_what_is_named(acme):
    assert AutoModel.explain("acme-colors", backend="acme-spare").best.backend == (
        "acme-spare"
    )


# Pickling


def test_a_model_pickles_as_the_way_it_was_loaded(acme):
    model = load(
        "acme-colors",
        backend=acme.AcmeSpare(threads=7),
        device="cpu",
        quantization="fp32",
        batch_size=2,
        labels=["a", "b", "c"],
    )
    again = pickle.loads(pickle.dumps(model))

    assert type(again) is type(model)
    assert (again.backend, again.batch_size) == ("acme-spare", 2)
    assert again.class_names == ["a", "b", "c"]
    assert again(RED) == model(RED)


def test_a_pickle_holds_no_secret(acme):
    data = pickle.dumps(load("acme-colors", api_key=SECRET))

    assert SECRET.encode() not in data
    assert pickle.loads(data).card.id == "acme-colors"


@pytest.mark.parametrize("path", [Path("mine"), "./mine", "mine/card.json"], ids=repr)
def test_a_model_of_a_relative_path_pickles_from_anywhere(
    cards, monkeypatch, tmp_path, path
):
    folder = cards()
    monkeypatch.delenv("INFERENCE_MODELS_CARDS")
    monkeypatch.chdir(folder.parent)
    data = pickle.dumps(load(path))
    monkeypatch.chdir(tmp_path)

    assert pickle.loads(data).card.id == "mine"


def test_access_keeps_its_secrets_to_itself():
    access = Access(SECRET, "main", {"Authorization": SECRET})

    assert SECRET not in repr(access)
    assert pickle.loads(pickle.dumps(access)) == Access(None, "main")


@pytest.mark.parametrize("show", [repr, str, lambda model: str(model.explanation)])
def test_a_key_is_not_shown(acme, show):
    assert SECRET not in show(load("acme-colors", api_key=SECRET))


# Types


def test_a_task_has_an_entry_point_of_its_own(acme):
    assert isinstance(
        ObjectDetectionModel.from_pretrained("acme-bright"), ObjectDetectionModel
    )
    assert isinstance(
        ClassificationModel.from_pretrained("acme-colors"), ClassificationModel
    )
    with pytest.raises(
        InvalidOption, match="model for classification, not for object-det"
    ):
        ObjectDetectionModel.from_pretrained("acme-colors")


def test_a_task_of_no_class_gives_a_list(cards):
    cards(task="colour-naming")
    model = load("mine")

    assert (type(model), model.task) == (Model, "colour-naming")
    assert [type(result) for result in model(RED)] == [ClassificationPrediction]
    with pytest.raises(RunFailed, match="returned 1, and not a list of 2 results"):
        model([RED, BLUE])


# What the user allows, and holds files to


def test_a_licence_that_is_not_allowed_is_refused(acme, cards):
    cards(license="AGPL-3.0")
    with pytest.raises(LicenseNotAllowed, match=r"'mine' has the licence 'AGPL-3\.0'"):
        load("mine", allow_licenses=["MIT"])

    assert load("mine", allow_licenses=["agpl-3.0"]).card.license == "AGPL-3.0"


def test_the_licence_of_what_is_adapted_counts_too(acme, cards):
    cards("below", license="AGPL-3.0")
    cards("above", license="MIT", artifacts=[artifact(base="below")])
    with pytest.raises(LicenseNotAllowed, match=r"'below' has the licence 'AGPL-3\.0'"):
        load("above", allow_licenses=["MIT"])


@pytest.mark.parametrize("base", ["above", "below"])
def test_a_model_that_adapts_itself_is_not_looked_for_without_end(acme, cards, base):
    cards("above", artifacts=[artifact(base=base)])
    cards("below", artifacts=[artifact(base="above")])
    with pytest.raises(InvalidCard, match="does one of them adapt itself"):
        load("above")


def test_a_program_is_run_with_consent_alone(acme, cards):
    digest = hashlib.sha256(acme.WEIGHTS.read_bytes()).hexdigest()
    source = {"sources": [acme.WEIGHTS.as_uri()], "sha256": digest}
    files = [{"name": "weights.plan"} | source]
    program = artifact(graphs={"main": "weights.plan"}, files=files)
    cards(artifacts=[program])
    with pytest.raises(NoBackend, match=r"'weights.plan' is an engine.*allow_untrust"):
        load("mine")

    assert "allow_untrusted_packages=True" in str(AutoModel.explain("mine"))
    assert load("mine", allow_untrusted_packages=True).backend == "acme"


def test_a_file_is_held_to_the_hash_that_is_given(acme, tmp_path):
    path = tmp_path / "trained.json"
    shutil.copy(acme.WEIGHTS, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(HashMismatch, match=f"instead of {digest[::-1]}"):
        load(path, sha256=digest[::-1])

    assert load(path, sha256=digest.upper())(GREEN).class_id.tolist() == [1]


@pytest.mark.parametrize("given", ["12", 7, "x" * 64])
def test_what_is_no_sha256_is_refused(acme, given):
    with pytest.raises(InvalidOption, match="is not 64 hexadecimal digits"):
        load("acme-colors", sha256=given)


def test_a_sha256_of_more_than_one_file_is_refused(acme):
    with pytest.raises(InvalidOption, match=r"sha256='a+' .* 'acme-colors' is no file"):
        load("acme-colors", sha256="a" * 64)


# Secrets

GIVEN = {
    "api_key": SECRET,
    "weights_provider_extra_headers": {"x-team": SECRET},
    "weights_provider_extra_query_params": {"team": SECRET},
}


def test_what_is_for_a_named_provider_is_not_for_who_has_the_base(cards, monkeypatch):
    cards("below")
    cards("above", artifacts=[artifact(base="below")])
    asked, finding = [], find.find

    def watched(model_id, registry, access, provider):
        asked.append((access.key, access.headers, access.query))
        return finding(model_id, registry, access, provider)

    monkeypatch.setattr(find, "find", watched)
    load("above", weights_provider="cards", **GIVEN)

    assert asked == [(SECRET, {"x-team": SECRET}, {"team": SECRET}), (None, {}, {})]


@pytest.mark.parametrize("ask", [AutoModel.from_pretrained, AutoModel.explain])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"api_key": f"{SECRET} {SECRET}"},
        {"api_key": [SECRET]},
        {"wieghts": SECRET},
        {"sha256": "12"},
        {"device": "no device"},
        {"batch_size": 0},
        {"allow_licenses": [1]},
        {"weights_provider": "nobody"},
        {"weights_provider_extra_headers": [SECRET]},
        {"weights_provider_extra_query_params": {SECRET: 1}},
    ],
    ids=repr,
)
def test_no_secret_is_among_the_locals_of_a_traceback(acme, ask, parameters):
    with pytest.raises(InferenceModelsError) as caught:
        ask("gone/3", **GIVEN | parameters)
    told = traceback.TracebackException(
        type(caught.value), caught.value, caught.tb.tb_next, capture_locals=True
    )

    assert "find" in "".join(told.format()) or parameters
    assert SECRET not in "".join(told.format())
