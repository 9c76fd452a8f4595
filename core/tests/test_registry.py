"""Which plugins are used, which are set aside, and that order never matters."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_models import Architecture, Backend, WeightsProvider, hookimpl
from inference_models.registry import Plugin, build

from .fakes import architecture, backend, module, plugin, provider, returning


def hooked(hook, value):
    loaded = SimpleNamespace(**{hook: hookimpl(returning(value), specname=hook)})
    return Plugin("acme", "acme-plugin", "1.0", lambda: loaded)


def reasons(registry):
    return {aside.distribution: aside.reason for aside in registry.set_aside}


def test_classes_are_sorted_by_kind_and_name():
    found = [backend("b"), backend("a"), architecture("net"), provider("hub")]
    registry = build([plugin("acme", *found)])

    assert list(registry.backends) == ["a", "b"]
    assert list(registry.architectures) == ["net"]
    assert list(registry.weights_providers) == ["hub"]
    assert not registry.set_aside


def test_a_class_answers_to_its_aliases():
    found = [backend("onnx", aliases=("ort",)), architecture("net", aliases=("mesh",))]
    registry = build([plugin("acme", *found)])

    assert registry.backend("ort") is registry.backend("onnx") is found[0]
    assert registry.architecture("mesh") is found[1]
    assert registry.backend("or") is None


def test_a_name_comes_before_an_alias():
    one, other = backend("a", aliases=("b",)), backend("b")
    registry = build([plugin("acme", one, other)])

    assert registry.backend("b") is other


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (backend(""), "name is '', not a text"),
        (backend(None), "name is None, not a text"),
        (backend("a", formats="acme"), "formats is 'acme', not a tuple of texts"),
        (backend("a", formats=None), "formats is None, not a tuple of texts"),
        (backend("A"), "name is 'A', not a text in lower case"),
        (backend("a", formats=()), r"formats is \(\), not a tuple of texts"),
        (backend("a", lends="cuda"), "lends is 'cuda', not a tuple of texts"),
        (backend("a", own_precisions="q4"), "own_precisions is 'q4', not a tuple"),
        (backend("a", suffixes=".b"), "suffixes is '.b', not a tuple of texts such as"),
        (backend("a", suffixes=("b",)), r"suffixes is \('b',\), not a tuple of texts"),
        (backend("a", suffixes=(".B",)), "texts such as '.npz', in lower case"),
        (backend("a", aliases="b"), "aliases is 'b', not a tuple of texts"),
        (backend("a", rank="high"), "rank is 'high', not a whole number"),
        (backend("a", derives=("b",)), "derives is .*, not a mapping of formats"),
        (backend("a", open=Backend.open), "Backend_a does not implement open"),
        (architecture(None), "name is None, not a text"),
        (architecture("a", rank=None), "rank is None, not a whole number"),
        (architecture("a", Options=dict), "Options is .*, not an attrs class"),
        (architecture("a", elsewhere=None), "elsewhere is None, not a mapping of ids"),
        (architecture("a", reads="b.txt"), "reads is 'b.txt', not a tuple of texts"),
        (architecture("a", tasks="b"), "tasks is 'b', not a tuple of texts"),
        (architecture("a", outputs="b"), "outputs is 'b', not a tuple of texts"),
        (architecture("a", fp32_modules="b"), "fp32_modules is 'b', not a tuple"),
        (architecture("a", image_input="b"), "image_input is 'b', not a pair of texts"),
        (architecture("a", image_input=("b",)), "image_input is .*, not a pair"),
        (
            architecture("a", postprocess=Architecture.postprocess),
            "Architecture_a does not implement postprocess",
        ),
        (provider("a", order="first"), "order is 'first', not a whole number"),
        (provider("a", find=WeightsProvider.find), "does not implement find"),
    ],
    ids=str,
)
def test_a_class_of_the_wrong_shape_is_set_aside(cls, words):
    registry = build([plugin("acme", cls), plugin("sound", backend("sound"))])

    assert list(registry.backends) == ["sound"]
    assert not registry.architectures
    assert not registry.weights_providers
    assert re.search(words, reasons(registry)["acme-plugin"])


def unmakable(self, needed):
    """A constructor with an argument that has no default."""


@pytest.mark.parametrize("make", [backend, provider])
def test_a_class_that_cannot_be_made_without_arguments_is_set_aside(make):
    registry = build([plugin("acme", make("a", __init__=unmakable))])

    assert "missing 1 required positional argument" in reasons(registry)["acme-plugin"]


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ("acme", "returned 'acme', not a list of classes"),
        ({"a": Backend}, "not a list of classes"),
        ([backend("a")()], "no class of Backend"),
        ([dict], "returned <class 'dict'>, no class of Backend"),
        ([architecture("a")], "no class of Backend"),
        (["acme:Backend"], "returned 'acme:Backend', no class of Backend"),
    ],
    ids=["text", "mapping", "object", "builtin", "architecture", "path"],
)
def test_a_hook_that_returns_something_else_is_set_aside(returned, words):
    registry = build([hooked("backends", returned), plugin("sound", backend("sound"))])

    assert list(registry.backends) == ["sound"]
    assert words in reasons(registry)["acme-plugin"]


def test_a_tuple_of_classes_is_as_good_as_a_list():
    assert list(build([hooked("backends", (backend("a"),))]).backends) == ["a"]


def test_a_plugin_without_hooks_is_set_aside():
    registry = build([Plugin("acme", "acme-plugin", "1.0", SimpleNamespace)])

    assert reasons(registry) == {
        "acme-plugin": "TypeError: implements none of the hooks architectures, "
        "backends, weights_providers"
    }


def test_a_hook_that_is_not_marked_is_set_aside():
    loaded = module(backend("a"))
    loaded.architectures = returning([architecture("net")])
    registry = build([Plugin("acme", "acme-plugin", "1.0", lambda: loaded)])

    assert reasons(registry) == {
        "acme-plugin": "TypeError: architectures() is no hook yet; write "
        "@inference_models.hookimpl above it"
    }


def test_a_misspelt_hook_is_set_aside():
    loaded = SimpleNamespace(backend=hookimpl(returning([]), specname=None))
    registry = build([Plugin("acme", "acme-plugin", "1.0", lambda: loaded)])

    said = "TypeError: unknown hook 'backend'; did you mean 'backends'?"
    assert reasons(registry) == {"acme-plugin": said}


@pytest.mark.parametrize("stated", [0, 2, "1", None])
def test_a_plugin_for_another_api_is_set_aside(stated):
    registry = build([plugin("acme", backend("a"), inference_models_api=stated)])

    assert reasons(registry) == {
        "acme-plugin": f"TypeError: made for plugin API {stated!r}, and this is 1"
    }


def test_a_plugin_may_state_the_api():
    registry = build([plugin("acme", backend("a"), inference_models_api=1)])

    assert list(registry.backends) == ["a"]


class Outcome(BaseException):
    """Not an `Exception`, as test tools and event loops raise."""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ImportError("no library"), "ImportError: no library"),
        (SystemExit(3), "SystemExit: 3"),
        (Outcome("skipped"), "Outcome: skipped"),
        (RuntimeError("first\nsecond"), "RuntimeError: first; second"),
        (ValueError(), "ValueError"),
    ],
    ids=repr,
)
def test_whatever_loading_raises_is_the_reason(error, reason):
    def load():
        raise error

    bad = Plugin("acme", "acme-plugin", "1.0", load)
    registry = build([bad, plugin("sound", backend("sound"))])

    assert list(registry.backends) == ["sound"]
    assert reasons(registry) == {"acme-plugin": reason}


def test_an_interrupt_is_the_users_and_ends_the_search():
    def load():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build([Plugin("acme", "acme-plugin", "1.0", load)])


def test_of_two_plugins_of_one_name_the_first_party_wins():
    ours, theirs = backend("a"), backend("a")
    registry = build(
        [
            plugin("acme", theirs, distribution="aaa"),
            plugin("acme", ours, distribution="inference-models-acme"),
        ]
    )

    assert registry.backends["a"] is ours
    assert reasons(registry) == {
        "aaa": "the name 'acme' is taken by inference-models-acme; to use this one "
        "instead, set INFERENCE_MODELS_DISABLED_PLUGINS=inference-models-acme"
    }


def test_of_two_strangers_of_one_name_the_alphabetically_first_wins():
    first, second = backend("a"), backend("a")
    plugins = [
        plugin("acme", second, distribution="beta"),
        plugin("acme", first, distribution="alpha"),
    ]

    assert build(plugins).backends["a"] is first
    assert build(plugins, ["alpha"]).backends["a"] is second


def test_of_two_classes_of_one_name_the_first_party_plugins_wins():
    ours, theirs = backend("onnx"), backend("onnx")
    registry = build(
        [
            plugin("fast", theirs, distribution="aaa-fast"),
            plugin("onnx", ours, distribution="inference-models-onnx"),
        ]
    )

    assert registry.backends["onnx"] is ours
    assert "name 'onnx' of Backend_onnx is taken by" in reasons(registry)["aaa-fast"]


def test_of_two_classes_of_one_plugin_with_one_name_the_second_is_set_aside():
    first, second = backend("a"), backend("a")
    registry = build([plugin("acme", first, second)])

    assert registry.backends["a"] is first
    assert reasons(registry) == {
        "acme-plugin": "Backend_a has the name 'a' of Backend_a"
    }


def test_one_class_returned_twice_is_one_class():
    found = backend("a")

    assert not build([plugin("acme", found, found)]).set_aside


@pytest.mark.parametrize(
    "disabled", ["acme", "acme-plugin", "ACME_plugin", "Acme.Plugin"]
)
def test_a_plugin_is_disabled_by_its_name_or_distribution(disabled):
    registry = build([plugin("acme", backend("a"))], [disabled])

    assert not registry.backends
    assert reasons(registry) == {
        "acme-plugin": "disabled by INFERENCE_MODELS_DISABLED_PLUGINS"
    }


def test_one_warning_says_which_plugin_to_disable_is_misspelt(caplog):
    registry = build([plugin("acme", backend("a"))], ["acne", "elsewhere"])

    assert list(registry.backends) == ["a"]
    (record,) = caplog.records
    assert "names no plugin 'acne'; did you mean 'acme'" in record.getMessage()


SOME = [
    plugin("one", backend("a"), distribution="one"),
    plugin("one", backend("a"), distribution="inference-models-one"),
    plugin("two", backend("a"), backend("b", aliases=("z",)), distribution="two"),
    plugin(
        "three", backend("c", aliases=("z",)), distribution="inference-models-three"
    ),
    plugin("four", architecture("n"), distribution="four"),
    plugin("five", architecture("n"), provider("p"), distribution="five"),
]


@given(st.permutations(SOME))
def test_the_order_of_discovery_changes_nothing(plugins):
    expected, found = build(SOME), build(plugins)

    assert found.backends == expected.backends
    assert found.architectures == expected.architectures
    assert found.weights_providers == expected.weights_providers
    assert found.backend("z") is expected.backend("z")
    assert set(found.set_aside) == set(expected.set_aside)


def test_what_is_set_aside_reads_as_a_sentence():
    registry = build([plugin("acme", backend("a"))], ["acme"])

    assert str(registry.set_aside[0]) == (
        "acme (acme-plugin): disabled by INFERENCE_MODELS_DISABLED_PLUGINS"
    )
