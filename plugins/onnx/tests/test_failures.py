from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnxruntime import OrtValue
from onnxruntime.capi import onnxruntime_pybind11_state as native

from inference_models import InvalidInput, RunFailed, Unavailable
from inference_models_onnx.device_array import DeviceArray
from inference_models_onnx.failures import Run, explain_opening, explain_run

PATH = Path("model.onnx")
BATCH = {"x": np.ones((48, 3), np.float32)}
ARENA = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while "
    "running Conv node. Name:'/fc1/Conv' Status Message: /onnxruntime_src/onnxruntime/"
    "core/framework/bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal("
    "size_t, bool, onnxruntime::Stream*, bool, onnxruntime::WaitNotificationFn) Failed "
    "to allocate memory for requested buffer of size 4585490524328388608\n"
)
LIMIT = (
    "Non-zero status code returned while running Conv node. Available memory of "
    "1048576 is smaller than requested bytes of 154140672"
)


def explained(error, recorded=False, inputs=BATCH):
    return explain_run(error, Run(PATH, "cuda:0", recorded), inputs)


@pytest.mark.parametrize(
    "error",
    [
        native.RuntimeException(ARENA),
        native.Fail(LIMIT),
        native.Fail("CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc(&p, n);"),
        native.Fail("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0"),
        RuntimeError("NVIDIA's driver says out of memory (cuMemcpyAsync: 2)"),
    ],
    ids=["arena", "limit", "cuda", "cublas", "driver"],
)
def test_too_little_memory_names_the_batch_and_what_to_do(error):
    failure = explained(error)

    assert isinstance(failure, RunFailed)
    assert str(failure) == (
        "cuda:0 has too little memory for a batch of 48; load the model with a "
        "smaller batch_size"
    )


def test_the_batch_may_be_an_output_of_another_run():
    value = OrtValue.ortvalue_from_numpy(BATCH["x"])
    failure = explained(native.Fail(ARENA), inputs={"x": DeviceArray(value, None)})

    assert "a batch of 48;" in str(failure)


def test_without_a_batch_it_was_one():
    scalar = {"x": np.float32(1)}

    assert "a batch of 1;" in str(explained(native.Fail(ARENA), inputs=scalar))


def test_an_argument_that_is_refused_is_an_invalid_input():
    assert isinstance(explained(native.InvalidArgument("wrong rank")), InvalidInput)


@pytest.mark.parametrize("recorded", [True, False])
def test_a_run_that_cannot_be_recorded_says_how_to_load_it(recorded):
    failure = explained(native.Fail("operation not permitted"), recorded)

    assert isinstance(failure, RunFailed)
    assert ("without cuda_graph=True" in str(failure)) == recorded


def test_nodes_on_the_cpu_make_no_cuda_graph():
    error = native.Fail(
        "[ONNXRuntimeError] : 1 : FAIL : This session cannot use the graph capture "
        "feature as requested by the user as all the graph nodes have not been "
        "assigned to CUDAExecutionProvider"
    )
    failure = explain_opening(error, PATH, "CUDAExecutionProvider")

    assert isinstance(failure, Unavailable)
    assert str(failure).startswith("'model.onnx' cannot run as a CUDA graph: This")
    assert str(failure).endswith("; load it without cuda_graph=True")
