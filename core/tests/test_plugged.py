"""Classes of a test as plugins."""

from __future__ import annotations

import pytest

from inference_models.registry import installed
from inference_models.testing import plugged

from .fakes import architecture, backend, provider

OWN = {"cards", "local", "roboflow", "url"}


def test_these_are_all_there_are_beside_cores_own():
    with plugged(backend("abacus"), architecture("net"), provider("shelf")):
        found = installed()

        assert {*found.backends} == {"abacus"}
        assert {*found.architectures} == {"net"}
        assert {*found.weights_providers} == OWN | {"shelf"}


def test_a_class_that_is_unsound_is_set_aside_as_a_plugins_is():
    with plugged(backend("ABACUS")):
        (aside,) = installed().set_aside

    assert "not a text in lower case" in aside.reason


def test_afterwards_all_is_as_before():
    before = installed()
    with pytest.raises(ZeroDivisionError), plugged(backend("abacus")):
        raise ZeroDivisionError

    assert installed() == before
