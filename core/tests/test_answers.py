"""What a server said last of a model, where it cannot be asked."""

from __future__ import annotations

import pytest

from inference_models import Access, ModelCard, ModelNotFound, Offline, Unreachable
from inference_models.download.answers import Answers

CARD = ModelCard("net", "net", "classification", ())
OTHER = ModelCard("net", "other", "classification", ())


@pytest.fixture
def answers(tmp_path):
    return Answers("hub", "https://hub.example", None, tmp_path)


def says(card):
    return lambda anew: card


def fails(error):
    def ask(anew):
        raise error

    return ask


def latest(answers, ask, **said):
    return answers.latest("net", Access(**said), ask)


def test_what_a_server_says_is_remembered_for_when_it_is_down(answers):
    assert latest(answers, says(CARD)) == CARD
    assert latest(answers, fails(Unreachable("down"))) == CARD
    assert latest(answers, says(OTHER)) == OTHER
    assert latest(answers, fails(Unreachable("down"))) == OTHER


def test_a_server_is_asked_patiently_where_nothing_is_known(answers):
    patience = []
    for _ in range(2):
        latest(answers, lambda anew: patience.append(anew) or CARD)

    assert patience == [True, False]


def test_what_a_server_says_of_the_model_stands(answers):
    latest(answers, says(CARD))

    with pytest.raises(ModelNotFound):
        latest(answers, fails(ModelNotFound("gone")))


def test_offline_nobody_is_asked(answers, monkeypatch, caplog):
    latest(answers, says(CARD))
    monkeypatch.setenv("INFERENCE_MODELS_OFFLINE", "1")

    assert latest(answers, fails(AssertionError)) == CARD
    assert caplog.records == []
    with pytest.raises(Offline, match="'bolts' was not loaded here before"):
        answers.latest("bolts", Access(), fails(AssertionError))


def test_each_version_is_remembered_for_itself(answers, monkeypatch):
    latest(answers, says(CARD), revision="v1")
    latest(answers, says(OTHER), revision="v2")
    monkeypatch.setenv("INFERENCE_MODELS_OFFLINE", "1")

    assert latest(answers, fails(AssertionError), revision="v1") == CARD
    assert latest(answers, fails(AssertionError), revision="v2") == OTHER
    with pytest.raises(Offline):
        latest(answers, fails(AssertionError))


def test_what_a_file_is_said_to_be_is_remembered_for_that_alone(answers, monkeypatch):
    latest(answers, says(CARD))
    latest(answers, says(OTHER), model_type="other")
    monkeypatch.setenv("INFERENCE_MODELS_OFFLINE", "1")

    assert latest(answers, fails(AssertionError)) == CARD
    assert latest(answers, fails(AssertionError), model_type="other") == OTHER
    with pytest.raises(Offline):
        latest(answers, fails(AssertionError), model_type="third")
