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


@pytest.mark.parametrize(
    ("classes", "expected", "where"),
    [((Broken,), Operations, "on the CPU"), ((Lender, Broken), Own, "by lender")],
)
def test_a_lender_that_fails_is_warned_of_with_who_prepares_instead(
    classes, expected, where, caplog
):
    caplog.set_level(logging.WARNING, "inference_models")

    assert expected is of("cuda:0", *classes)
    assert caplog.messages == [
        f"images are prepared {where} for cuda:0: the driver is gone; install it"
    ]


def test_a_lender_of_a_higher_rank_is_asked_first(caplog):
    class Weaker(Broken):
        name, rank = "weaker", 1

    assert of("cuda:0", Weaker, Lender) is Own
    assert not caplog.records


@pytest.mark.parametrize("cls", [Elsewhere, Silent])
def test_whoever_has_no_such_device_or_lends_nothing_is_left_alone(cls, caplog):
    assert of("cuda:0", cls) is Operations
    assert not caplog.records
