"""Graphs that run."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from inference_models import (
    InvalidInput,
    ModelClosed,
    Plan,
    RunFailed,
    TensorSpec,
    Unavailable,
)
from inference_models_torch import TorchBackend, threads
from inference_models_torch.session import TorchSession

BATCH = np.random.default_rng(0).random((3, 3, 32, 32), np.float32)
IMAGES = {"x": TensorSpec("float32", ("batch", 3, 8, 8))}
OUTPUT = {"y": TensorSpec("float32", ("batch", 3, 8, 8))}


def session_of(module, inputs=IMAGES, outputs=OUTPUT):
    return TorchSession(module, (inputs, outputs), "cpu", torch.float32, False)


class Raises(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error


@pytest.mark.parametrize("channels_last", [None, True, False])
def test_gives_what_torch_gives(workshop, channels_last):
    path = workshop.safetensors()
    session = workshop.session(path, channels_last=channels_last)

    for count in (1, 3, 8):
        batch = np.resize(BATCH, (count, 3, 32, 32))
        output = session(input=batch)["output"].numpy()
        np.testing.assert_allclose(output, workshop.reference(batch), atol=1e-5)


def test_computes_in_its_own_precision_within_the_callers_autocast(workshop):
    session = workshop.session(workshop.safetensors())
    outside = session(input=BATCH)["output"]
    with torch.autocast("cpu", torch.bfloat16):
        within = session(input=BATCH)["output"]
        still = torch.is_autocast_enabled("cpu")

    assert within.dtype == torch.float32
    assert torch.equal(within, outside)
    assert still


def test_describes_itself_in_its_precision(workshop):
    session = workshop.session(workshop.safetensors(), "bf16")

    shape = ("batch", 3, 32, 32)
    assert {"input": TensorSpec("bfloat16", shape)} == session.inputs
    assert {"output": TensorSpec("bfloat16", ("batch", "classes"))} == session.outputs


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_keeps_named_modules_in_float32(workshop, precision):
    session = workshop.session(workshop.safetensors(), precision)
    output = session(input=BATCH)["output"]
    types = {n: p.dtype for n, p in session._module.named_parameters()}

    assert torch.float32 == types["block.0.weight"] == types["block.1.weight"]
    assert types["head.weight"] == output.dtype == session._module.scale.dtype
    np.testing.assert_allclose(output.float(), workshop.reference(BATCH), atol=0.05)


def test_reads_any_array_and_writes_to_none(workshop):
    session = workshop.session(workshop.safetensors())
    expected = session(input=BATCH.copy())["output"]
    frozen = BATCH.copy()
    frozen.flags.writeable = False
    mirrored = np.ascontiguousarray(BATCH[..., ::-1])[..., ::-1]

    for array in (frozen, mirrored, torch.from_numpy(BATCH), BATCH.astype(np.float64)):
        assert torch.equal(expected, session(input=array)["output"])


def test_outputs_are_the_callers(workshop):
    same = session_of(nn.Identity())
    given = torch.zeros(1, 3, 8, 8)
    output = same(x=given)["y"]
    output += 1

    assert torch.equal(torch.zeros(1, 3, 8, 8), given)
    assert torch.equal(given, same(x=given)["y"])


def test_takes_state_back(workshop):
    path = workshop.safetensors({"nothing": torch.zeros(1)})
    bundle = workshop.bundle(path, "counting", "step")
    counting = workshop.Counting(bundle)
    counting.weights = lambda graph, tensors: {}
    step = TorchBackend().open(bundle, counting, Plan("cpu", "fp32"))["step"]
    state = {"state.total": torch.zeros(2, 1, dtype=torch.int64)}

    for _ in range(2):
        outputs = step(tokens=np.array([[1, 2], [3, 4]]), **state)
        state = {"state.total": outputs["state.total"]}

    assert list(outputs) == ["logits", "state.total"]
    assert outputs["logits"].tolist() == [[12.0], [28.0]]


@pytest.mark.parametrize(
    "array", [BATCH[:, :2], BATCH[0], (BATCH * 255).astype(np.uint8)]
)
def test_says_what_it_takes(workshop, array):
    session = workshop.session(workshop.safetensors())

    with pytest.raises(InvalidInput, match=r"takes 'input': float32 \(batch, 3, 32"):
        session(input=array)


def test_names_an_unknown_input(workshop):
    with pytest.raises(InvalidInput, match=r"takes 'input': .* given 'image'"):
        workshop.session(workshop.safetensors())(image=BATCH)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublas`"),
        torch.AcceleratorError("CUDA error: out of memory"),
    ],
)
def test_says_which_batch_was_too_large(error):
    with pytest.raises(RunFailed, match="for a batch of 4; load"):
        session_of(Raises(error))(x=np.zeros((4, 3, 8, 8), np.float32))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublas`"
        ),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        torch.AcceleratorError("CUDA error: an illegal memory access"),
    ],
)
def test_a_fault_of_the_gpu_is_no_fault_of_the_inputs(error):
    with pytest.raises(RunFailed, match=r"cpu failed: (cuDNN|CUDA) error"):
        session_of(Raises(error))(x=np.zeros((4, 3, 8, 8), np.float32))


def test_what_ran_out_of_memory_is_free_while_its_error_is_handled():
    gc.disable()
    module = RunsOutOnce()
    try:
        session_of(module)(x=torch.zeros(1, 3, 8, 8))
    except RunFailed:
        assert module.made() is None
    else:
        raise AssertionError("it had enough memory")
    finally:
        gc.enable()


def test_a_fault_of_the_module_is_not_hidden():
    with pytest.raises(AttributeError, match="typo"):
        session_of(Raises(AttributeError("typo")))(x=np.zeros((1, 3, 8, 8)))


@pytest.mark.parametrize("returned", [{"z": 1}, (1, 2)])
def test_tells_a_signature_that_does_not_match_its_module(returned):
    class Other(nn.Module):
        def forward(self, x):
            return returned

    with pytest.raises(RunFailed, match="its signature names 'y'"):
        session_of(Other())(x=np.zeros((1, 3, 8, 8)))


def test_cannot_be_used_when_closed(workshop):
    session = workshop.session(workshop.safetensors())
    session.close()

    with pytest.raises(ModelClosed, match="load it again"):
        session(input=BATCH)


def test_eight_threads_get_the_same_bits(workshop):
    session = workshop.session(workshop.safetensors())
    batches = [np.roll(BATCH, shift, axis=2) for shift in range(8)] * 8
    expected = [session(input=batch)["output"] for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda batch: session(input=batch)["output"], batches))

    assert all(map(torch.equal, expected, found))


def test_a_device_that_torch_does_not_reach_is_unavailable(workshop):
    if torch.backends.mps.is_available():
        pytest.skip("this machine has the device that the test wants missing")

    with pytest.raises(Unavailable, match="cannot use 'mps'"):
        workshop.session(workshop.safetensors(), device="mps")


@pytest.mark.parametrize(
    ("wanted", "current", "usable", "expected"),
    [(None, 16, 2, 2), (None, 1, 8, 1), (3, 16, 2, 3), (None, 4, 4, 4)],
)
def test_keeps_torchs_threads_within_this_processs_share(
    monkeypatch, wanted, current, usable, expected
):
    counts = [current]
    monkeypatch.setattr(torch, "get_num_threads", lambda: counts[-1])
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    monkeypatch.setattr(threads, "usable_cpus", lambda: usable)
    threads.limit_threads(wanted)

    assert expected == counts[-1]
    assert (expected != current) == (len(counts) == 2)


def test_several_threads_in_a_process_that_was_forked_are_refused(monkeypatch):
    threads.limit_threads(None)
    monkeypatch.setattr(threads.os, "getpid", lambda: -1)

    with pytest.raises(Unavailable, match="2 threads in a process that was forked"):
        threads.limit_threads(2)


class RunsOutOnce(nn.Module):
    """Has memory for what it makes once recordings are forgotten."""

    made = None

    def forward(self, x):
        if self.made is not None:
            return x + (self.made() is None)
        large = x * 2
        self.made = weakref.ref(large)
        raise torch.OutOfMemoryError("CUDA out of memory")


class NoRecordings:
    def __init__(self, error=None):
        self.error = error

    def __call__(self, tensors):
        if self.error is not None:
            raise self.error
        return

    def forget(self):
        """There is nothing."""

    def close(self):
        """There is nothing."""


def test_what_ran_out_of_memory_holds_none_when_it_is_tried_again():
    session = session_of(RunsOutOnce())
    session._graphs = NoRecordings()

    assert session(x=torch.zeros(1, 3, 8, 8))["y"].mean().item() == 1


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA out of memory")],
)
def test_what_recordings_lack_memory_for_is_run_without_them(error):
    session = session_of(Raises(AttributeError("once")))
    session._module = nn.Identity()
    session._graphs = NoRecordings(error)

    assert session(x=torch.ones(1, 3, 8, 8))["y"].mean().item() == 1
