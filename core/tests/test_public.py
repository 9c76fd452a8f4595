"""Every public name says what it is for."""

from __future__ import annotations

import inspect
import typing

import pytest

import inference_models

CLASSES = [
    name
    for name in inference_models.__all__
    if inspect.isclass(getattr(inference_models, name))
]
PLAIN = {"Array", "hookimpl"}
"""An alias and a marker: they have no docstring of their own at run time."""


def members():
    """Public methods and properties that the library's own classes define."""
    for name in CLASSES:
        for member, value in vars(getattr(inference_models, name)).items():
            routine = inspect.isroutine(value) or isinstance(value, property)
            if routine and not member.startswith("_"):
                yield f"{name}.{member}", value


@pytest.mark.parametrize("name", sorted(set(inference_models.__all__) - PLAIN))
def test_every_public_name_has_a_docstring(name):
    assert inspect.getdoc(getattr(inference_models, name))


@pytest.mark.parametrize(
    ("name", "member"), [pytest.param(*m, id=m[0]) for m in members()]
)
def test_every_public_method_has_a_docstring(name, member):
    assert inspect.getdoc(member), name


@pytest.mark.parametrize("name", CLASSES)
def test_every_public_class_has_a_docstring_of_its_own(name):
    assert vars(getattr(inference_models, name)).get("__doc__")


def test_every_error_has_the_one_root():
    errors = [
        value
        for value in vars(inference_models.errors).values()
        if inspect.isclass(value) and issubclass(value, Exception)
    ]

    assert errors
    assert all(issubclass(e, inference_models.InferenceModelsError) for e in errors)


@pytest.mark.parametrize("hook", ["backends", "architectures", "weights_providers"])
def test_a_hook_is_one_sentence_and_one_type(hook):
    from inference_models import hookspecs

    function = getattr(hookspecs, hook)
    assert function.__doc__.count("\n") == 0
    assert typing.get_type_hints(function)["return"]
