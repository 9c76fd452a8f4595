"""How far a build is, from phases that nest, repeat and end early."""

from __future__ import annotations

import pytest

from inference_models_trt.phases import Phases


@pytest.fixture
def told():
    return []


@pytest.fixture
def phases(told):
    return Phases(lambda what, share: told.append((what, share)))


def test_a_phase_counts_its_steps(phases, told):
    phases.start("Timing", None, 4)
    for step in range(4):
        phases.step("Timing", step)

    assert told == [("building the engine: timing", s) for s in (0.25, 0.5, 0.75, 1.0)]


def test_a_phase_within_a_step_is_a_share_of_it(phases, told):
    phases.start("outer", None, 2)
    phases.start("inner", "outer", 4)
    phases.step("inner", 1)

    assert [share for _, share in told] == [0.25]


def test_a_phase_that_begins_again_does_not_turn_back(phases, told):
    for _ in range(2):
        phases.start("again", None, 2)
        phases.step("again", 0)
        phases.step("again", 1)
        phases.finish("again")
    shares = [share for _, share in told]

    assert shares == [0.5, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("steps", [0, -3])
def test_a_phase_without_steps_is_one_step(phases, told, steps):
    phases.start("short", None, steps)
    phases.step("short", 0)

    assert [share for _, share in told] == [1.0]


def test_more_steps_than_were_promised_are_not_more_than_all(phases, told):
    phases.start("eager", None, 2)
    phases.step("eager", 7)

    assert [share for _, share in told] == [1.0]


def test_phases_that_are_within_each_other_end(phases, told):
    phases.start("a", "b", 1)
    phases.start("b", "a", 1)
    phases.start("root", None, 2)
    phases.start("a", "root", 1)
    phases.step("a", 0)

    assert all(0 <= share <= 1 for _, share in told)


def test_a_phase_that_nobody_began_is_only_told(phases, told):
    assert phases.step("unknown", 3)
    phases.finish("unknown")

    assert [share for _, share in told] == [0.0]


def test_a_step_goes_on_until_it_is_stopped(phases):
    phases.start("long", None, 9)
    before = phases.step("long", 0)
    phases.stop = True

    assert (before, phases.step("long", 1)) == (True, False)


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_what_a_report_raises_is_kept_and_ends_the_build(kind):
    def fail(what, share):
        raise kind("no terminal")

    phases = Phases(fail)
    phases.start("long", None, 9)

    assert not phases.step("long", 0)
    assert isinstance(phases.failure, kind)
