"""What a session does around a run, with an engine that is played in host memory."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from inference_models import (
    InvalidInput,
    InvalidWeights,
    ModelClosed,
    RunFailed,
    hardware,
)
from inference_models.testing import ToyArchitecture

from .engines import TOY, Engine, HostGpu, OnGpu, Tensor

pytestmark = pytest.mark.usefixtures("rtx")


def batch_of(count, seed=0):
    values = np.random.default_rng(seed).random((count, 3, 8, 8))
    return values.astype(np.float32)


@pytest.fixture
def trt():
    from inference_models_trt.runtime import trt

    return trt


@pytest.fixture
def gpu():
    return HostGpu()


@pytest.fixture
def start(trt, gpu):
    """A session of an engine."""
    from inference_models_trt.callbacks import Logger
    from inference_models_trt.session import TrtSession

    def start(engine):
        return TrtSession(Path("toy.plan"), engine, engine, gpu, Logger())

    return start


@pytest.fixture
def engine(trt):
    return Engine(trt)


@pytest.fixture
def session(start, engine):
    return start(engine)


@pytest.mark.parametrize("count", [1, 3, 16])
def test_a_run_computes_what_the_engine_does(session, count):
    batch = batch_of(count)
    output = session(input=batch)["output"]

    np.testing.assert_array_equal(output.cpu(), ToyArchitecture.expected(batch))


def test_tensors_are_described_in_order(session):
    assert list(session.inputs) == ["input"]
    assert session.inputs["input"].shape == ("batch", 3, 8, 8)
    assert session.outputs["output"].shape == ("batch", 3)
    assert session.outputs["output"].dtype == "float32"


def test_a_run_waits_for_readers_first_and_for_its_outputs_last(session, gpu):
    session(input=batch_of(1))

    assert gpu.told == ["enter", "follow readers", "upload", "wait", "leave"]


def test_outputs_of_a_run_are_left_alone_by_the_next(session):
    kept = session(input=batch_of(2))["output"]
    before = kept.cpu()
    session(input=batch_of(2, seed=1))

    np.testing.assert_array_equal(kept.cpu(), before)


def test_an_output_goes_in_again_where_it_is(session, gpu, start, trt):
    tensors = {
        "input": Tensor(True, "float32", -1, 3),
        "output": Tensor(False, "float32", -1, 3),
    }
    second = Engine(trt, tensors)
    second.runs = True
    found = []
    second.execute_async_v3 = lambda stream: found.append(second._addresses) or True
    output = session(input=batch_of(2))["output"]
    gpu.told.clear()
    start(second)(input=output)

    assert found[0]["input"] == output.address
    assert "upload" not in gpu.told
    assert "lend" not in gpu.told


def aligned(array, offset=0):
    """The same numbers at an address that is a multiple of 256, and something more."""
    raw = np.zeros(array.nbytes + 512, np.uint8)
    start = -raw.ctypes.data % 256 + offset
    copy = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[:] = array
    return copy


@pytest.mark.parametrize(
    ("array", "steps"),
    [
        (OnGpu(aligned(batch_of(2))), ["view"]),
        (OnGpu(aligned(batch_of(2), 64)), ["view", "copied"]),
        (OnGpu(aligned(batch_of(4))[::2]), ["view", "upload"]),
        (OnGpu(aligned(batch_of(2)), number=1), ["upload"]),
    ],
    ids=["in its place", "not aligned", "scattered", "on another GPU"],
)
def test_an_array_of_a_gpu_is_read_there_if_it_can_be(session, gpu, array, steps):
    output = session(input=array)["output"]

    np.testing.assert_array_equal(output.cpu(), ToyArchitecture.expected(array.array))
    assert [step for step in gpu.told if step in ("view", "copied", "upload")] == steps


def test_an_address_that_is_refused_is_a_failed_run(session, engine):
    engine.takes_addresses = False
    with pytest.raises(RunFailed, match="it gives no reason"):
        session(input=batch_of(1))


@pytest.mark.parametrize(
    "batch",
    [batch_of(6)[::2], batch_of(3).transpose(0, 1, 3, 2), batch_of(3).astype(">f4")],
    ids=["rows left out", "transposed", "other byte order"],
)
def test_arrays_of_any_order_arrive_as_they_are(session, batch):
    output = session(input=batch)["output"]

    np.testing.assert_array_equal(output.cpu(), ToyArchitecture.expected(batch))


@pytest.mark.parametrize(
    "array",
    [np.zeros((1, 3, 8, 9), np.float32), np.zeros((1, 3, 8, 8)), "picture.jpg"],
    ids=["shape", "dtype", "text"],
)
def test_a_wrong_input_says_what_is_wanted(session, array):
    with pytest.raises(InvalidInput, match="'input'"):
        session(input=array)


def test_a_wrong_name_says_what_is_wanted(session):
    with pytest.raises(InvalidInput, match="the graph takes 'input': float32"):
        session(image=batch_of(1))


def test_a_batch_that_the_engine_was_not_built_for_says_which_it_was(session):
    with pytest.raises(InvalidInput, match=r"takes \(1, 3, 8, 8\) to \(16, 3, 8, 8\)"):
        session(input=batch_of(17))


def test_a_failed_run_says_what_tensorrt_says(session, engine, trt):
    engine.runs = False
    engine.on_run = lambda: session._logger.log(trt.ILogger.ERROR, "it\n is  hot")
    with pytest.raises(RunFailed, match=r"failed to run 'toy.plan': it is hot"):
        session(input=batch_of(1))


def test_a_failure_is_not_told_again_with_the_next(session, engine, trt):
    engine.runs = False
    engine.on_run = lambda: session._logger.log(trt.ILogger.ERROR, "first")
    with pytest.raises(RunFailed):
        session(input=batch_of(1))
    engine.on_run = lambda: session._logger.log(trt.ILogger.ERROR, "second")
    with pytest.raises(RunFailed, match="second"):
        session(input=batch_of(1))


def test_memory_that_is_out_names_the_batch(session, gpu):
    gpu.largest = 20
    with pytest.raises(RunFailed, match="cuda:0 has too little memory for a batch"):
        session(input=batch_of(4))
    gpu.largest = 2**40

    assert session(input=batch_of(4))["output"].shape == (4, 3)


def test_an_output_whose_size_only_a_run_tells_is_refused(start, trt):
    tensors = {**TOY, "output": Tensor(False, "float32", -1, -1)}
    engine = Engine(trt, tensors)
    engine.get_tensor_shape = lambda name: tensors[name].shape
    with pytest.raises(RunFailed, match=r"output 'output' .* a size that only a run"):
        start(engine)(input=batch_of(1))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"location": "HOST"}, "'toy.plan' has the sizes of other tensors"),
        (
            {"tensors": {**TOY, "output": Tensor(False, "bfloat16", -1, 3)}},
            "tensor 'output' is BF16, and engines are run with float32",
        ),
    ],
    ids=["location", "dtype"],
)
def test_an_engine_that_cannot_be_fed_is_invalid_weights(start, trt, fields, reason):
    with pytest.raises(InvalidWeights, match=reason):
        start(Engine(trt, **fields))


def test_a_closed_session_says_so(session):
    for _ in range(2):
        session.close()
    with pytest.raises(ModelClosed, match=r"session of 'toy.plan' is closed"):
        session(input=batch_of(1))


def test_one_run_at_a_time_whoever_calls(session, engine):
    inside, most, lock = [0], [0], threading.Lock()

    def enter():
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        threading.Event().wait(0.002)
        with lock:
            inside[0] -= 1

    engine.on_run = enter
    batches = [batch_of(number % 3 + 1, number) for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        outputs = list(pool.map(lambda b: session(input=b)["output"].cpu(), batches))

    assert most == [1]
    for output, batch in zip(outputs, batches, strict=True):
        np.testing.assert_array_equal(output, ToyArchitecture.expected(batch))


def test_what_is_shared_by_dlpack_is_lent(session, gpu):
    pytest.importorskip("cuda.core")
    output = session(input=batch_of(1))["output"]

    assert output.__dlpack_device__() == (2, 0)
    gpu.told.clear()
    # The memory is the host's, which cuda-core's own buffers are not asked for here.
    with pytest.raises((TypeError, AttributeError)):
        output.__dlpack__()

    assert gpu.told == ["lend"]


@pytest.mark.parametrize(
    ("shape", "strides", "expected"),
    [
        ((2, 3), None, True),
        ((2, 3), (3, 1), True),
        ((1, 3), (99, 1), True),
        ((2, 3), (1, 2), False),
        ((2, 3), (6, 2), False),
        ((), (), True),
    ],
    ids=str,
)
def test_scattered_memory_is_told_by_its_strides(trt, shape, strides, expected):
    from inference_models_trt.session import is_contiguous

    assert is_contiguous(shape, strides) == expected


@pytest.mark.skipif(bool(hardware.detect().gpus), reason="a GPU is here")
def test_tensorrt_is_asked_to_open_an_engine_and_says_why_not(
    toy, tmp_path, monkeypatch
):
    from inference_models_trt.build import BuildSettings, build
    from inference_models_trt.session import open_engine

    path = tmp_path / "engine.plan"
    build(
        toy().path(), path, BuildSettings((1, 2, 4), (8, 9)), lambda what, share: None
    )
    monkeypatch.setattr("inference_models_trt.session.Gpu", lambda number: HostGpu())
    with pytest.raises(InvalidWeights, match=r"cannot open '.*engine\.plan': .*driver"):
        open_engine(path, 0, host_code=True)
