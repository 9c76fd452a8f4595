"""`model_type`: what a file of weights is, where it does not say so itself."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest

from inference_models import (
    AutoModel,
    Facts,
    InferenceModelsError,
    InvalidOption,
    InvalidWeights,
    ModelNotFound,
    ObjectDetectionModel,
    TensorSpec,
)

load = AutoModel.from_pretrained

RED = np.full((9, 12, 3), (0, 0, 255), np.uint8)
SMALL = {"preprocessing": {"size": [8, 8]}}


@pytest.fixture
def trained(acme, tmp_path):
    """A file of weights, which the family of colours claims."""
    path = tmp_path / "trained.json"
    shutil.copy(acme.WEIGHTS, path)
    return path


@pytest.fixture
def unclaimed(acme, trained, monkeypatch):
    """The same file, where no family knows its own."""
    monkeypatch.setattr(acme.Colors, "claims", classmethod(lambda cls, facts: None))
    return trained


@pytest.fixture
def known(acme, tmp_path, monkeypatch):
    """Writes the card of a known model, "mine", and gives its folder."""
    monkeypatch.setenv("INFERENCE_MODELS_CARDS", str(tmp_path / "cards"))

    def write(**changes):
        folder = tmp_path / "cards" / "mine"
        folder.mkdir(parents=True)
        artifact = {"format": "acme", "graphs": {"main": "weights.json"}}
        facts = {"id": "mine", "aliases": [], "artifacts": [artifact]} | changes
        text = json.dumps(acme.card().to_json() | facts)
        (folder / "card.json").write_text(text, "utf-8")
        shutil.copy(acme.WEIGHTS, folder / "weights.json")
        return folder

    return write


# What it names


@pytest.mark.parametrize("model_type", ["acme-colors", "acme-hues-small", "acme-hues"])
def test_it_is_an_id_an_alias_or_an_architecture(trained, model_type):
    model = load(trained, model_type=model_type)

    assert (model.card.id, model.card.architecture) == (f"{trained}", "acme-colors")
    assert model(RED).class_id.tolist() == [0]


def test_it_may_be_the_id_of_a_card_in_a_folder(known, unclaimed):
    known(labels=["c", "m", "y"])

    assert load(unclaimed, model_type="mine").class_names == ["c", "m", "y"]


@pytest.mark.parametrize("call", [AutoModel.from_pretrained, AutoModel.explain])
def test_an_unknown_name_is_refused_with_the_nearest(trained, call):
    with pytest.raises(
        InvalidOption, match=r"model_type 'acme-color' .* did you mean 'acme-colors'"
    ):
        call(trained, model_type="acme-color")


def test_a_refusal_lists_the_architectures(trained):
    with pytest.raises(InvalidOption, match="architectures are acme-bright, acme-col"):
        load(trained, model_type="kjqx")


# What it is given for


@pytest.mark.parametrize(
    "model_id", ["acme-colors", "gone", "./gone.json", "cards://acme-colors"]
)
def test_it_is_refused_for_an_id(acme, model_id):
    with pytest.raises(InvalidOption, match=r"model_type='acme-colors' .* is no file"):
        load(model_id, model_type="acme-colors")


@pytest.mark.parametrize("written", [lambda path: path, str])
def test_it_is_refused_for_a_folder(known, written):
    with pytest.raises(InvalidOption, match="leave model_type out for ids and folders"):
        load(written(known()), model_type="acme-colors")


@pytest.mark.parametrize(
    "url",
    [
        "https://b.example.com/w.onnx?X-Amz-Signature=hunter2",
        "https://me:hunter2@example.com/w",
        "hf://org/name?token=hunter2",
    ],
)
@pytest.mark.parametrize("given", [{"model_type": "acme-colors"}, {"sha256": "a" * 64}])
def test_no_secret_of_a_url_is_told(acme, url, given):
    with pytest.raises(InferenceModelsError) as caught:
        load(url, **given)

    assert "hunter2" not in str(caught.value)


def test_it_is_refused_for_a_card(known):
    with pytest.raises(InvalidOption, match="model_type"):
        load(known() / "card.json", model_type="acme-bright")


@pytest.mark.parametrize(
    "model_id", ["x" * 5000, "no\0name", "~nobody-here/x", "a/" * 900]
)
def test_a_strange_id_is_refused_like_any_other(acme, model_id):
    with pytest.raises((InvalidOption, ModelNotFound)):
        load(model_id, model_type="acme-colors")


def test_a_bare_name_never_means_a_file(acme, tmp_path, monkeypatch):
    shutil.copy(acme.WEIGHTS, tmp_path / "acme-colors")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InvalidOption, match="model_type"):
        load("acme-colors", model_type="acme-bright")


def test_a_file_may_be_asked_of_its_provider_by_name(unclaimed):
    model = load(f"local://{unclaimed}", model_type="acme-bright")

    assert isinstance(model, ObjectDetectionModel)


# A file that nothing claims


def test_it_loads_with_the_known_models_labels_and_config(unclaimed):
    model = load(unclaimed, model_type="acme-bright")

    assert isinstance(model, ObjectDetectionModel)
    assert model.class_names == ["bright"]
    assert model.card.config["preprocessing"]["size"] == [16, 16]


@pytest.mark.parametrize(
    ("model_type", "shape", "count"),
    [
        ("acme-colors", ("batch", 5), 5),
        ("acme-colors", ("batch", 7, 525), 3),
        ("acme-bright", ("batch", 525), 1),
    ],
)
def test_a_classifiers_scores_alone_tell_how_many_classes_it_has(
    acme, unclaimed, monkeypatch, model_type, shape, count
):
    outputs = {"scores": TensorSpec("float32", shape)}
    facts = Facts("acme", outputs, metadata={"outputs": ["scores"]})
    monkeypatch.setattr(acme.Bright, "claims", classmethod(lambda cls, facts: None))
    monkeypatch.setattr(acme.AcmeBackend, "inspect", lambda self, path: facts)

    assert len(load(unclaimed, model_type=model_type).class_names) == count


def test_it_has_a_name_of_its_own_and_no_licence(unclaimed):
    card = load(unclaimed, model_type="acme-colors").card

    assert (card.id, card.aliases, card.license) == (f"{unclaimed}", (), None)


def test_it_is_the_file_that_runs_and_not_the_known_models(unclaimed):
    unclaimed.write_text('{"gain": [0, 9, 0]}', "utf-8")
    white = np.full((9, 12, 3), 255, np.uint8)

    assert load(unclaimed, model_type="acme-colors")(white).class_id.tolist() == [1]


def test_what_the_known_artifact_says_of_its_format_holds(known, acme, unclaimed):
    artifact = {"format": "acme", "graphs": {"main": "weights.json"}}
    known(artifacts=[{**artifact, "batch": [2, 2, 2]}])
    load(unclaimed, model_type="mine")([RED] * 3)

    assert acme.batches == [2, 2]


def test_a_known_model_may_have_no_file_of_that_format(known, unclaimed):
    known(artifacts=[{"format": "onnx", "graphs": {"main": "weights.json"}}])

    assert load(unclaimed, model_type="mine")(RED).class_id.tolist() == [0]


def test_an_architecture_alone_does_not_say_enough(unclaimed):
    said = r"architecture \(acme-colors\) claims .*gain; put a card.json"
    with pytest.raises(InvalidWeights, match=said):
        load(unclaimed, model_type="acme-hues")


def test_a_file_that_no_backend_reads_stays_unread(acme, tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"?")

    with pytest.raises(InvalidWeights, match="no installed backend"):
        load(tmp_path / "weights.bin", model_type="acme-colors")


# A file that says what it is


def test_what_the_file_tells_stands(known, trained):
    known(labels=["c", "m", "y"])

    assert load(trained, model_type="mine").class_names == ["red", "green", "blue"]


def test_the_known_models_config_is_laid_over_the_files(known, trained):
    known(config=SMALL)
    model = load(trained, model_type="mine")
    inputs, _ = model.pre_process(RED)

    assert model.card.config == SMALL
    assert inputs["pixels"].shape == (1, 3, 8, 8)


def test_only_the_named_family_is_asked(acme, trained, monkeypatch):
    def claims(cls, facts):
        raise AssertionError("this family was not named")

    monkeypatch.setattr(acme.Colors, "claims", classmethod(claims))

    assert load(trained, model_type="acme-bright").class_names == ["bright"]


# With other parameters


def test_labels_may_be_replaced(unclaimed):
    model = load(unclaimed, model_type="acme-bright", labels=["hell"])

    assert model.class_names == ["hell"]


def test_labels_of_another_number_are_refused(unclaimed):
    with pytest.raises(InvalidOption, match=r"has 2 names, and .* has 1 columns"):
        load(unclaimed, model_type="acme-bright", labels=["one", "two"])


def test_a_model_of_another_task_is_refused(unclaimed):
    with pytest.raises(InvalidOption, match="is a model for object-detection"):
        load(unclaimed, model_type="acme-bright", task="classification")


def test_a_task_has_an_entry_point_of_its_own(unclaimed):
    model = ObjectDetectionModel.from_pretrained(unclaimed, model_type="acme-bright")

    assert isinstance(model, ObjectDetectionModel)


def test_an_explanation_takes_it(unclaimed):
    explanation = AutoModel.explain(unclaimed, model_type="acme-bright")

    assert explanation.best.backend == "acme"


def test_a_model_pickles_as_the_way_it_was_loaded(unclaimed):
    model = load(unclaimed, model_type="acme-bright")
    again = pickle.loads(pickle.dumps(model))

    assert type(again) is type(model)
    assert again.card == model.card


# On the command line


def test_explain_takes_it(unclaimed, capsys):
    pytest.importorskip("typer")
    from inference_models.cli import explain

    explain.command(str(unclaimed), model_type="acme-colors")

    assert "->  acme" in capsys.readouterr().out


def test_bench_takes_it_for_both_models_that_it_compares(unclaimed, capsys):
    pytest.importorskip("typer")
    from inference_models.cli import bench

    bench.command(str(unclaimed), model_type="acme-colors", rounds=1, verify=True)

    assert "agrees with" in capsys.readouterr().out


def test_compile_takes_it(unclaimed):
    pytest.importorskip("typer")
    from inference_models.cli import compile as command

    with pytest.raises(InvalidOption, match="needs nothing built for 'acme'"):
        command.command(str(unclaimed), "acme", model_type="acme-colors")
