from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from inference_models import Unavailable
from inference_models_onnx import stream as module

OWN = 77
SIDE = 4096


class Driver:
    """NVIDIA's driver, as far as it is called; it writes down the order of work."""

    def __init__(self):
        self.calls = []
        self.fails = {}

    def __getattr__(self, name):
        def call(*arguments):
            if name == "cuStreamCreate":
                arguments[0]._obj.value = OWN
            if name == "cuGetErrorString":
                arguments[1]._obj.value = b"out of memory"
                return 0
            plain = [getattr(a, "value", a) for a in arguments]
            self.calls.append((name, *(a for a in plain if isinstance(a, int))))
            return self.fails.get(name, 0)

        return call


@pytest.fixture
def driver(monkeypatch):
    driver = Driver()
    monkeypatch.setattr(module, "driver_library", lambda: driver)
    monkeypatch.setattr(module, "_STREAMS", {})
    return driver


@pytest.fixture
def stream(driver):
    stream = module.Stream(0)
    driver.calls.clear()
    return stream


def work(driver):
    return [c for c in driver.calls if not c[0].startswith("cuCtxP")]


def test_dlpack_is_told_the_number_of_the_stream(stream):
    assert stream.handle == OWN


@pytest.mark.parametrize("reader", [None, 1])
def test_readers_on_the_default_stream_are_followed_by_an_event(driver, stream, reader):
    stream.lend(reader)
    stream.follow_readers()

    assert [name for name, *_ in work(driver)] == [
        "cuEventCreate",
        "cuEventRecord",
        "cuStreamWaitEvent",
        "cuEventDestroy_v2",
    ]
    assert ("cuEventRecord", 1) in driver.calls
    assert ("cuStreamWaitEvent", OWN, 0) in driver.calls


def test_readers_on_a_stream_that_may_be_gone_are_waited_for_with_the_gpu(
    driver, stream
):
    stream.lend(SIDE)
    stream.follow_readers()
    stream.follow_readers()

    assert work(driver) == [("cuCtxSynchronize",)] * 2


def test_nobody_is_waited_for_where_nobody_reads(driver, stream):
    stream.follow_readers()

    assert work(driver) == []


def test_copies_are_begun_on_the_stream_and_waited_for_there(driver, stream):
    far = 2**47 + 8
    stream.copy(far, 16, 2**33)
    stream.wait()

    assert work(driver) == [
        ("cuMemcpyAsync", far, 16, 2**33, OWN),
        ("cuStreamSynchronize", OWN),
    ]


def test_nothing_is_copied_of_an_empty_tensor(driver, stream):
    stream.copy(0, 0, 0)

    assert work(driver) == []


def test_a_failure_says_what_the_driver_says_and_restores_the_context(driver, stream):
    driver.fails["cuStreamSynchronize"] = 2
    with pytest.raises(RuntimeError, match=r"says out of memory \(cuStream"):
        stream.wait()

    assert driver.calls[-1][0] == "cuCtxPopCurrent_v2"


def test_without_a_driver_there_is_no_stream(monkeypatch):
    monkeypatch.setattr(module, "driver_library", lambda: None)
    with pytest.raises(Unavailable, match="driver library is missing"):
        module.Stream(0)


def test_threads_that_come_first_at_the_same_time_share_a_stream(driver, monkeypatch):
    both = threading.Barrier(2)
    monkeypatch.setattr(driver, "cuInit", lambda _: both.wait(5) * 0, raising=False)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(module.stream_on, [0] * 2)

    assert first is second
