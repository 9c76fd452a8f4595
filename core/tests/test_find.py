"""Which weights provider is asked for an id, and what becomes of those that fail."""

from __future__ import annotations

import logging

import pytest

from inference_models import Access, InvalidCard, ModelCard, ModelNotFound
from inference_models.find import find, known_ids, providers
from inference_models.registry import build

from .fakes import plugin, provider


def knowing(*ids):
    """A provider's methods: it has cards of these ids."""
    cards = {name: ModelCard(name, "net", "classification", ()) for name in ids}
    return {
        "find": lambda self, model_id, access: cards.get(model_id),
        "models": lambda self: cards.values(),
    }


def failing(error):
    """A provider's methods, which fail."""

    def method(self, *_):
        raise error

    return {"find": method, "models": method}


def registry(*classes):
    return build([plugin("acme", *classes)])


def found(model_id, *classes, alone=None):
    return find(model_id, registry(*classes), Access(), alone).provider.name


HUB = provider("hub", order=20, **knowing("net"))
MIRROR = provider("mirror", order=5, **knowing("net", "other"))


def test_providers_are_asked_in_their_order_and_then_by_name():
    late = provider("a", order=200)
    asked = providers(registry(late, HUB, MIRROR, provider("b", order=20)))

    assert [one.name for one in asked] == ["mirror", "b", "hub", "a"]


def test_the_first_provider_that_knows_an_id_answers_for_it():
    assert found("net", HUB, MIRROR) == "mirror"


@pytest.mark.parametrize(
    ("model_id", "alone"),
    [("hub://net", None), ("net", "hub"), ("hub://net", "mirror")],
)
def test_a_provider_that_is_named_is_asked_alone(model_id, alone):
    assert found(model_id, HUB, MIRROR, alone=alone) == "hub"


def test_a_provider_that_is_named_is_not_replaced():
    with pytest.raises(ModelNotFound):
        found("hub://other", HUB, MIRROR)


def test_a_provider_that_breaks_is_passed_over_with_a_warning(caplog):
    broken = provider("broken", order=1, **failing(KeyError("oops")))

    assert found("net", HUB, broken) == "hub"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "weights provider 'broken' failed: 'oops'"


def test_a_provider_that_breaks_alone_raises_its_own_error():
    broken = provider("broken", order=1, **failing(KeyError("oops")))
    with pytest.raises(KeyError, match="oops"):
        found("broken://net", HUB, broken)


def test_an_error_in_words_ends_the_search():
    wrong = provider("wrong", order=1, **failing(InvalidCard("the card is wrong")))
    with pytest.raises(InvalidCard, match="the card is wrong"):
        found("net", HUB, wrong)


def test_a_provider_that_cannot_list_its_models_hides_no_others(caplog):
    broken = provider("broken", order=1, **failing(OSError("oops")))

    assert known_ids(providers(registry(broken, HUB, MIRROR))) == ["net", "other"]
    assert "weights provider 'broken' lists nothing: oops" in caplog.text
