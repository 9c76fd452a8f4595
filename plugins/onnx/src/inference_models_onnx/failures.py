"""What ONNX Runtime raises, as the errors that users are told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import attrs
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

from inference_models import (
    Array,
    InferenceModelsError,
    InvalidInput,
    InvalidWeights,
    RunFailed,
    Unavailable,
)
from inference_models.errors import out_of_memory
from inference_models_onnx.placement import CPU

_NOISE = (
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : ",
    r"^Load model from .* failed:",
    r"/onnxruntime_src/\S+:\d+ [^()]*\([^()]*\)(?: const)? ",
)

# What the runtime's arena says, and what CUDA, its driver and its libraries do.
_NO_MEMORY = re.compile(
    r"failed to allocate memory|smaller than requested bytes|out of memory"
    r"|cuda_error_out_of_memory|_alloc_failed",
    re.IGNORECASE,
)

# ONNX Runtime's exceptions share no root, only the module that they come from.
_NATIVE = [v for v in vars(native).values() if isinstance(v, type)]
FAILURES: tuple[type[Exception], ...] = (
    *(v for v in _NATIVE if issubclass(v, Exception)),
    RuntimeError,
    ValueError,
)


@attrs.frozen
class Run:
    """Which run it was that failed."""

    path: Path
    device: str
    recorded: bool
    """Whether CUDA was to record or to replay it."""


def explain_run(
    error: Exception, run: Run, inputs: Mapping[str, Array]
) -> InferenceModelsError:
    """The typed error for what ONNX Runtime raised in a run."""
    reason = _brief(error)
    if _NO_MEMORY.search(reason):
        batch = next((a.shape[0] for a in inputs.values() if a.shape), 1)
        return out_of_memory(run.device, batch, error)
    if isinstance(error, native.InvalidArgument):
        return InvalidInput(f"'{run.path}' takes other inputs: {reason}")
    failed = f"ONNX Runtime failed to run '{run.path}': {reason}"
    advice = "; if it runs without cuda_graph=True, load it so" if run.recorded else ""
    return RunFailed(failed + advice)


def explain_opening(error: Exception, path: Path, first: str) -> InferenceModelsError:
    """The typed error for what ONNX Runtime raised when it opened a file."""
    reason = _brief(error)
    if "graph capture" in reason:
        return Unavailable(
            f"'{path}' cannot run as a CUDA graph: {reason}; load it without "
            "cuda_graph=True"
        )
    if isinstance(error, native.NotImplemented):
        return Unavailable(
            f"ONNX Runtime {onnxruntime.__version__} lacks an operator of '{path}': "
            f"{reason}; try a newer one with pip install -U, or another backend"
        )
    if first != CPU and isinstance(error, (RuntimeError, native.EPFail)):
        return Unavailable(f"{first!r} cannot run '{path}': {reason}")
    return InvalidWeights(
        f"ONNX Runtime cannot open '{path}': {reason}; fetch it again, or export it "
        "anew"
    )


def _brief(error: Exception) -> str:
    """What happened, without the numbers, paths and source lines around it."""
    text = str(error)
    for pattern in _NOISE:
        text = re.sub(pattern, "", text)
    return text.strip()
