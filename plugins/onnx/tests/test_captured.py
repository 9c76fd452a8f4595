"""Recorded runs with the host in the place of the GPU: the memory is real."""

from __future__ import annotations

import ctypes
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest

from inference_models_onnx.captured import MOST_SHAPES, CapturedRuns
from inference_models_onnx.device import Device

GRAPH = """graph (float[N, 2] x, bool[N, 2] mask) => (float[N, 2] y, bool[N, 2] no)
    { y = Add(x, x)  no = Not(mask) }"""


class HostStream:
    """A stream whose copies are done at once, in the order that they are begun in."""

    handle = 0

    def __init__(self):
        self.pending = []

    def lend(self, reader):
        """Nobody reads later."""

    def follow_readers(self):
        """Nobody reads later."""

    def copy(self, to, source, size):
        self.pending.append((to, source, size))

    def wait(self):
        while self.pending:
            ctypes.memmove(*self.pending.pop(0))


@pytest.fixture
def device():
    device = Device("cpu", 0)
    device._stream = HostStream()
    return device


@pytest.fixture
def session(save):
    return onnxruntime.InferenceSession(save(GRAPH), providers=["CPUExecutionProvider"])


@pytest.fixture
def runs(session, device):
    return CapturedRuns(session, device, ["y", "no"])


def inputs(value, batch=3):
    x = np.full((batch, 2), value, np.float32)
    return {"x": x, "mask": x > 4}


def check(outputs, value, batch=3):
    assert outputs["y"].cpu().tolist() == [[2 * value] * 2] * batch
    assert outputs["no"].cpu().tolist() == [[value <= 4] * 2] * batch


def test_host_inputs_are_copied_to_the_device_before_the_run(session, device):
    check(device.run(session, inputs(5), ["y", "no"]), 5)


def test_every_run_reads_its_own_inputs(runs):
    for value in range(8):
        check(runs.run(inputs(value)), value)


def test_outputs_of_the_device_are_taken(runs):
    first = runs.run(inputs(1))
    second = runs.run({"x": first["y"], "mask": first["no"]})
    third = runs.run({"x": second["y"], "mask": second["no"]})

    assert third["y"].cpu().tolist() == [[8, 8]] * 3
    assert third["no"].cpu().tolist() == [[True, True]] * 3


def test_shapes_have_memory_of_their_own(runs):
    for batch in (1, 3, 1, 3, 2, 1):
        check(runs.run(inputs(batch, batch)), batch, batch)


def test_later_runs_write_to_nothing_that_was_returned(runs):
    kept = [runs.run(inputs(value)) for value in range(5)]

    for value, outputs in enumerate(kept):
        check(outputs, value)


def test_no_output_lies_where_the_session_has_its_own(runs, device, monkeypatch):
    ran, run = [], device.run
    monkeypatch.setattr(device, "run", lambda *given: ran.append(run(*given)) or ran[0])
    first = runs.run(inputs(1))

    for name, array in ran[0].items():
        assert first[name].value.data_ptr() != array.value.data_ptr()


def test_threads_get_what_a_single_caller_gets(runs):
    def call(value):
        return value, runs.run(inputs(value, 1 + value % 3))

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(call, range(64)))

    for value, outputs in found:
        check(outputs, value, 1 + value % 3)


def test_shapes_beyond_the_bound_run_without_and_are_told_of_once(runs, caplog):
    caplog.set_level(logging.WARNING, "inference_models")
    for batch in range(1, MOST_SHAPES + 4):
        check(runs.run(inputs(1, batch)), 1, batch)

    assert len(runs._recorded) == MOST_SHAPES
    (told,) = caplog.records
    assert told.getMessage() == (
        "a session with cuda_graph=True records 8 shapes of inputs, and runs every "
        "further one without; give images in fewer sizes and batches"
    )
