"""Which weights provider is asked for an id, and what becomes of those that fail."""

from __future__ import annotations

import logging

import pytest

from inference_models import (
    Access,
    Artifact,
    File,
    Forbidden,
    HashMismatch,
    InferenceModelsError,
    InvalidCard,
    InvalidOption,
    ModelCard,
    ModelNotFound,
    Unauthorized,
)
from inference_models.negotiation.find import find, known_ids, providers
from inference_models.registry import build

from .fakes import architecture, plugin, provider


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
    [("hub://net", None), ("net", "hub"), ("hub://net", "hub")],
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
    assert record.getMessage() == "weights provider 'broken' failed: KeyError: 'oops'"


def test_a_provider_that_breaks_alone_is_the_cause_of_an_error_of_ours():
    broken = provider("broken", order=1, **failing(KeyError("oops")))
    with pytest.raises(InferenceModelsError, match="'broken' failed: Key") as caught:
        found("broken://net", HUB, broken)

    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"find": lambda *_: {"id": "net"}}, "find() returned {'id': 'net'}, no Model"),
        ({"find": HUB.find, "origin": lambda *_: "me"}, "origin() returned 'me', whic"),
    ],
    ids=["card", "origin"],
)
def test_a_provider_that_says_something_else_is_passed_over(caplog, attributes, words):
    odd = provider("odd", order=1, **attributes)

    assert found("net", HUB, odd) == "hub"
    assert f"weights provider 'odd' failed: TypeError: {words}" in caplog.text


def test_what_broke_is_told_where_no_other_knows_the_id():
    broken = provider("broken", order=1, **failing(KeyError("oops")))

    with pytest.raises(
        ModelNotFound, match=r"\n  weights provider 'broken' failed: Ke"
    ):
        found("nothing", HUB, broken)


def test_an_error_in_words_ends_the_search():
    wrong = provider("wrong", order=1, **failing(InvalidCard("the card is wrong")))
    with pytest.raises(InvalidCard, match="the card is wrong"):
        found("net", HUB, wrong)


def test_a_provider_that_cannot_list_its_models_hides_no_others(caplog):
    broken = provider("broken", order=1, **failing(OSError("oops")))

    assert known_ids(providers(registry(broken, HUB, MIRROR))) == ["net", "other"]
    assert "weights provider 'broken' lists nothing: OSError: oops" in caplog.text


# Keys


SECRETS = Access(key="sesame", headers={"x-team": "sesame"}, query={"q": "sesame"})
GIVEN = ("sesame", {"x-team": "sesame"}, {"q": "sesame"})
NOTHING = (None, {}, {})


def told(model_id="net", named=None):
    """What each of two providers is told of an id that neither has."""
    keys = {}

    def noting(name, **attributes):
        def note(self, model_id, access):
            keys[name] = (access.key, access.headers, access.query)

        return provider(name, find=note, **attributes)

    both = registry(noting("taker", takes_key=True), noting("other"))
    with pytest.raises(ModelNotFound):
        find(model_id, both, SECRETS, named)
    return keys


def test_a_revision_is_for_providers_that_take_one():
    hub = provider("hub", takes_revision=True, **knowing("net"))
    shelf = provider("shelf", **knowing("bolt"))
    known, access = registry(hub, shelf), Access(revision="v1")

    assert find("net", known, access, None).provider.name == "hub"
    with pytest.raises(
        InvalidOption, match=r"'v1' means nothing to 'shelf'.*leave rev"
    ):
        find("bolt", known, access, None)


def test_a_key_is_for_providers_that_take_one():
    assert told() == {"taker": GIVEN, "other": NOTHING}


@pytest.mark.parametrize(
    ("model_id", "named"), [("other://net", None), ("net", "other")]
)
def test_a_key_is_for_the_provider_that_is_named(model_id, named):
    assert told(model_id, named) == {"other": GIVEN}


@pytest.mark.parametrize("kind", [Unauthorized, Forbidden])
def test_a_provider_that_refuses_for_lack_of_a_key_is_to_be_named(kind):
    refusing = registry(provider("shelf", **failing(kind("it wants a key"))), HUB)
    to_name = "it wants a key; api_key= is shown to .* so load 'shelf://acme/bolts'"
    with pytest.raises(kind, match=to_name):
        find("acme/bolts", refusing, Access(key="sesame"), None)

    for access, model_id in [
        (Access(), "acme/bolts"),
        (Access(key="sesame"), "shelf://acme/bolts"),
    ]:
        with pytest.raises(kind, match=r"^it wants a key$"):
            find(model_id, refusing, access, None)


def test_what_is_fetched_is_asked_for_with_the_providers_own_key():
    asked = []

    def request(self, source, access):
        asked.append(access.key)
        return source, {}

    methods = knowing("net") | {"request": request}
    hub, taker = provider("hub", **methods), provider("taker", takes_key=True, order=1)
    find("net", registry(hub, taker), SECRETS, None).request("a")
    find("hub://net", registry(hub, taker), SECRETS, None).request("a")

    assert asked == [None, "sesame"]


@pytest.mark.parametrize(
    ("url", "sha256", "words"),
    [
        ("https://h/a.onnx#sha256=" + "a" * 64, "b" * 64, "name different files"),
        ("https://h/a.onnx#sha512=1", None, "is not sha256=<64"),
    ],
)
def test_a_url_says_its_hash_once(url, sha256, words):
    with pytest.raises(InvalidOption, match=words):
        find(url, registry(), Access(sha256=sha256), None)


PACK = architecture("net", elsewhere={"acme-net": "hub://net", "acme-two": "hf://a/b"})


def test_a_public_id_is_asked_of_the_provider_that_has_it():
    answer = find("acme-net", registry(PACK, HUB, MIRROR), Access(), None)

    assert (answer.provider.name, answer.card.id, answer.name) == (
        "hub",
        "acme-net",
        "net",
    )


def test_a_card_of_this_machine_comes_before_a_public_id_of_elsewhere():
    own = provider("own", order=0, **knowing("acme-net"))

    assert found("acme-net", PACK, HUB, own) == "own"


def test_a_named_provider_is_asked_for_a_public_id_as_it_stands():
    with pytest.raises(ModelNotFound, match="no model 'acme-net'"):
        found("acme-net", PACK, HUB, alone="hub")


def test_a_public_id_of_a_provider_that_is_not_installed_says_what_to_type():
    with pytest.raises(ModelNotFound, match="pip install inference-models-hf"):
        found("acme-two", PACK, HUB)


@pytest.mark.parametrize("sha256", [None, "b" * 64, "a" * 8])
def test_a_file_that_a_provider_does_not_hold_to_the_users_hash_is_refused(sha256):
    file = File("a.onnx", ("https://h/a.onnx",), sha256=sha256, md5="c" * 32)
    held = Artifact("onnx", {"main": "a.onnx"}, [file])
    card = ModelCard("a.onnx", "net", "classification", [held])
    hub = provider("hub", find=lambda self, model_id, access: card)
    wanted = Access(sha256="a" * 64)
    with pytest.raises(HashMismatch, match=r"'a\.onnx' is not held to sha256='aaa"):
        find("hub://a.onnx", registry(hub), wanted, None)

    assert find("hub://a.onnx", registry(hub), Access(), None).card == card


def test_a_provider_is_told_whether_it_is_the_one_that_is_named():
    asked = []

    def knows(self, model_id, access):
        asked.append((model_id, access.alone))
        return ModelCard("net", "net", "classification", ())

    hub = provider("hub", find=knows)
    for model_id, named in [("7", None), ("7", "hub"), ("hub://7", None)]:
        find(model_id, registry(hub, provider("late", order=900)), Access(), named)

    assert asked == [("7", False), ("7", True), ("7", True)]


@pytest.mark.parametrize(
    ("model_id", "told"), [("org/name", True), ("project/3", False), ("a/b/c", False)]
)
def test_an_id_of_the_form_of_a_missing_provider_says_what_to_type(model_id, told):
    with pytest.raises(ModelNotFound) as caught:
        found(model_id, HUB, MIRROR)

    assert ("pip install inference-models-hf" in str(caught.value)) == told


@pytest.mark.parametrize("model_id", ["hub://", "https://"])
def test_a_prefix_alone_names_no_model(model_id):
    with pytest.raises(InvalidOption, match=f"'{model_id}' names no model; write its"):
        found(model_id, HUB, MIRROR)


def test_an_artifact_that_lacks_a_graphs_file_says_so():
    made = Artifact("acme", {"main": "a.bin", "rest": "b.bin"}, [File("a.bin")])
    known = ModelCard("net", "net", "classification", [made])
    lists = provider("hub", find=lambda self, model_id, access: known)
    (artifact,) = find("net", registry(lists), Access(), None).card.artifacts

    assert artifact.needs["unsupported"] == (
        "'b.bin', which has a graph, is not among the card's files"
    )


@pytest.mark.parametrize("model_id", ["hub://x", "https://a.example/w.onnx"])
def test_a_provider_beside_a_prefix_is_the_same_or_refused(model_id):
    known = registry(HUB, MIRROR, provider("url"))
    with pytest.raises(InvalidOption, match="weights_provider='mirror' names another"):
        find(model_id, known, Access(), "mirror")


def test_an_unknown_id_is_told_without_what_may_be_a_key():
    with pytest.raises(ModelNotFound, match="no model 'team/3' is known") as caught:
        found("team/3?api_key=secret", HUB)

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("model_id", "named"), [("hub://x", None), ("x", "hub")])
def test_of_a_provider_that_is_named_it_is_said_that_it_knows_no_such_model(
    model_id, named
):
    with pytest.raises(ModelNotFound) as caught:
        find(model_id, registry(HUB, MIRROR), Access(), named)

    assert str(caught.value) == (
        "no model 'x' is known to 'hub'; all providers are asked where 'hub' is not "
        "named"
    )
