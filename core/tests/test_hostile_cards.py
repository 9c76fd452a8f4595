"""Cards that say what cannot be, or that would have something run."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest

from inference_models import (
    Artifact,
    AutoModel,
    Bundle,
    InvalidCard,
    InvalidWeights,
    Model,
    ModelCard,
    NoBackend,
    RunFailed,
)

from .fakes import architecture

PICTURE = np.full((4, 4, 3), 128, np.uint8)


def made(tmp_path, labels=("a", "b", "c"), **config):
    """An architecture of three classes, with this in its card."""
    artifact = Artifact("acme", {"main": "weights.json"})
    task = "classification"
    card = ModelCard("net", "net", task, (artifact,), labels=labels, config=config)
    return architecture("net")(Bundle(card, artifact, tmp_path))


@pytest.fixture
def folder(acme, tmp_path):
    """Writes a model's folder, with a card of these fields."""

    def folder(**changes):
        place = tmp_path / "model"
        place.mkdir()
        shutil.copy(acme.WEIGHTS, place / "weights.json")
        artifact = {"format": "acme", "graphs": {"main": "weights.json"}}
        facts = acme.card().to_json() | {"id": "net", "artifacts": [artifact]} | changes
        (place / "card.json").write_text(json.dumps(facts), "utf-8")
        return place

    return folder


# Names of classes


@pytest.mark.parametrize("count", [0, 2, 4])
def test_labels_of_another_number_than_the_networks_are_told(tmp_path, count):
    net = made(tmp_path, labels=[f"class {n}" for n in range(count)])

    words = f"of 'net' has 3 classes, and its card names {count}; give labels="
    with pytest.raises(InvalidWeights, match=words):
        net.columns(np.zeros((2, 3), np.float32))


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 5, 3)])
def test_scores_that_are_no_numbers_are_told(tmp_path, shape):
    with pytest.raises(RunFailed, match="scores are not numbers"):
        made(tmp_path).columns(np.full(shape, np.nan, np.float32))


def test_one_image_without_a_number_is_enough_to_be_told(tmp_path):
    scores = np.ones((2, 5, 3), np.float32)
    scores[1] = np.nan
    with pytest.raises(RunFailed, match="scores are not numbers"):
        made(tmp_path).columns(scores)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3)])
def test_no_scores_at_all_are_no_fault(tmp_path, shape):
    assert made(tmp_path).columns(np.ones(shape, np.float32)).shape == shape


def test_labels_of_the_networks_number_are_no_reason_to_refuse(tmp_path):
    scores = np.ones((2, 3), np.float32)

    assert np.shares_memory(made(tmp_path).columns(scores), scores)


def test_a_name_without_letters_is_a_column_that_is_never_returned(tmp_path):
    architecture = made(tmp_path, labels=["a", "", ""])

    found = architecture.columns(np.ones((1, 3), np.float32))

    assert found.tolist() == [[1, 0, 0]]
    assert architecture.card.labels == ("a", None, None)


def test_columns_lie_along_any_axis(tmp_path):
    maps = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    architecture = made(tmp_path, labels=["a", None, "c"])

    found = architecture.columns(maps, hidden=-1, axis=0)

    assert np.array_equal(found[[0, 2]], maps[[0, 2]])
    assert (found[1] == -1).all()


@pytest.mark.parametrize(
    "labels", [["a", "b", "a"], ["a", 1, "c"], ["a", True, "c"], ["a", ["b"], "c"]]
)
def test_labels_that_repeat_or_are_no_text_are_refused_by_name(folder, labels):
    with pytest.raises(InvalidCard, match=r"card\.json': label"):
        AutoModel.from_pretrained(folder(labels=labels))


# What core reads of a configuration


PREPROCESSING = {
    "no deviation": {"std": [1, 0, 1]},
    "no number for a deviation": {"std": [1, None, 1]},
    "two means": {"mean": [0.5, 0.5]},
    "no pixels": {"size": [0, 224]},
    "fewer pixels than none": {"size": [-224, 224]},
    "more pixels than memory": {"size": [10**9, 10**9]},
    "a text for a size": {"size": "224x224"},
    "an unknown mode": {"resize": "squash"},
    "a class to load": {"auto_map": {"AutoImageProcessor": "evil.Processor"}},
    "a text": "letterbox",
}


@pytest.mark.parametrize("told", PREPROCESSING.values(), ids=PREPROCESSING)
def test_preprocessing_that_cannot_be_is_told_when_the_model_loads(folder, told):
    with pytest.raises(InvalidCard, match=r"^the card of 'net': preprocessing "):
        AutoModel.from_pretrained(folder(config={"preprocessing": told}))


CONFIDENCE = [
    5,
    "high",
    [0.5],
    {"best": "high"},
    {"best": [0.5]},
    {"best": float("nan")},
    {"best": True},
    {"best": 10**400},
    {"best": {"a": "high"}},
    {"best": {"a": None}},
    {"best": {"a": 0.5}, "default": "high"},
]


@pytest.mark.parametrize("told", CONFIDENCE)
def test_a_confidence_that_is_no_number_is_told(tmp_path, told):
    with pytest.raises(InvalidCard, match=r"of 'net' has the confidence .*; correct"):
        made(tmp_path, confidence=told).threshold("best", 0.5)


def test_a_task_that_is_no_text_is_told(folder):
    with pytest.raises(InvalidCard, match=r"ModelCard\.task must be a text, not 5"):
        AutoModel.from_pretrained(folder(task=5))


def test_a_task_that_nobody_knows_gives_what_the_architecture_gives(folder):
    model = AutoModel.from_pretrained(folder(task="fortune-telling"))

    assert type(model) is Model
    assert model.task == "fortune-telling"


def test_a_licence_may_be_missing(folder):
    path = folder()
    card = json.loads((path / "card.json").read_text("utf-8"))
    card.pop("license", None)
    (path / "card.json").write_text(json.dumps(card), "utf-8")

    assert AutoModel.from_pretrained(path).card.license is None


# What would be run


NAMES = [
    "__init__.py",
    "conftest.py",
    "evil.py",
    "evil.pth",
    "inference_models_evil.py",
    "modeling_evil.py",
    "numpy.py",
    "setup.py",
    "sitecustomize.py",
]
AUTO_MAP = {
    "auto_map": {"AutoModel": "evil.Model", "AutoConfig": "evil--modeling_evil.Config"},
    "custom_pipelines": {"fortune-telling": {"impl": "evil.Pipeline"}},
    "trust_remote_code": True,
    "_target_": "evil.Model",
    "py/object": "evil.Model",
    "__class__": "evil.Model",
}


@pytest.fixture
def canary(tmp_path):
    """Puts code into a folder; that it was not run is checked."""
    path = tmp_path / "canary"

    def put(folder):
        for name in NAMES:
            code = f"import pathlib; pathlib.Path({str(path)!r}).touch()\n"
            (folder / name).write_text(code, "utf-8")
        return folder

    yield put
    assert not path.exists()
    assert "evil" not in sys.modules


def test_the_canary_would_be_written(tmp_path, canary):
    name = canary(tmp_path) / "evil.py"
    exec(name.read_text("utf-8"))

    assert (tmp_path / "canary").exists()
    (tmp_path / "canary").unlink()


def test_code_beside_a_model_is_not_run(folder, canary, monkeypatch):
    path = canary(folder())
    monkeypatch.chdir(path)

    assert AutoModel.from_pretrained(path)(PICTURE).class_id.shape == (1,)


@pytest.mark.parametrize("name", ["evil.py", "sub/evil.pyc", "evil.so"])
def test_code_among_a_models_files_is_refused(folder, canary, name):
    artifact = {
        "format": "acme",
        "graphs": {"main": "weights.json"},
        "files": [{"name": "weights.json"}, {"name": name}],
    }
    path = canary(folder(artifacts=[artifact]))

    with pytest.raises(NoBackend, match=f"'{name}' is code, and no code of a model's"):
        AutoModel.from_pretrained(path)


def test_a_configuration_names_nothing_to_load(folder, canary, monkeypatch):
    path = canary(folder(config=AUTO_MAP))
    monkeypatch.chdir(path)

    assert AutoModel.from_pretrained(path)(PICTURE).class_id.shape == (1,)


@pytest.mark.parametrize("name", AUTO_MAP)
def test_a_card_has_no_field_that_names_something_to_load(folder, canary, name):
    with pytest.raises(InvalidCard, match=f"ModelCard has no field '{name}'"):
        AutoModel.from_pretrained(canary(folder(**{name: AUTO_MAP[name]})))
