"""What surrounds a network on a device is its backend's own, or another's."""

from __future__ import annotations

import logging

import pytest

from inference_models import Backend, Operations, Unavailable
from inference_models.lending import operations_of
from inference_models.registry import Registry


class Own(Operations):
    """Somebody's operations."""


class Plain(Backend):
    name, formats = "plain", ("plain",)

    def devices(self):
        return ["cuda:0", "cpu"]

    def open(self, bundle, architecture, plan):
        raise NotImplementedError


class Lender(Plain):
    name, rank, lends = "lender", 5, ("cuda",)

    def operations(self, device):
        return Own()


class Broken(Lender):
    name, rank = "broken", 9

    def operations(self, device):
        raise Unavailable("the driver is gone; install it")


class Elsewhere(Broken):
    name = "elsewhere"

    def devices(self):
        raise Unavailable("no driver")


class Silent(Broken):
    name, lends = "silent", ()


def of(device, *classes, backend=Plain):
    registry = Registry({cls.name: cls for cls in classes}, {}, {}, (), ())
    return type(operations_of(backend(), device, registry))


def test_a_backend_without_its_own_has_those_that_another_lends():
    assert of("cuda:0", Lender) is Own


@pytest.mark.parametrize("device", ["cpu", "cuda:1", "mps"])
def test_nobody_lends_for_other_devices(device):
    assert of(device, Lender) is Operations


def test_a_backends_own_come_first():
    assert of("cuda:0", Broken, backend=Lender) is Own


def test_a_lender_that_fails_is_warned_of_and_the_next_is_asked(caplog):
    caplog.set_level(logging.WARNING, "inference_models")

    assert of("cuda:0", Lender, Broken) is Own
    assert caplog.messages == [
        "images are prepared on the CPU for cuda:0: the driver is gone; install it"
    ]


@pytest.mark.parametrize("cls", [Elsewhere, Silent])
def test_whoever_has_no_such_device_or_lends_nothing_is_left_alone(cls, caplog):
    assert of("cuda:0", cls) is Operations
    assert not caplog.records
