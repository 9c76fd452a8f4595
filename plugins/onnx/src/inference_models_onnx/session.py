"""One graph as a session of ONNX Runtime, which this module imports."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

from inference_models import (
    Array,
    InvalidInput,
    InvalidWeights,
    ModelClosed,
    RunFailed,
    Session,
    TensorSpec,
    Unavailable,
)
from inference_models_onnx.arrays import check_inputs, host_array
from inference_models_onnx.device import run_on_device
from inference_models_onnx.dtypes import NUMPY_LACKS, numpy_name
from inference_models_onnx.threads import Threads

Providers = Sequence[tuple[str, Mapping[str, Any]]]

_CPU = "CPUExecutionProvider"
_NOISE = (
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : ",
    r"^Load model from .* failed:",
    r"/onnxruntime_src/\S+:\d+ [^()]*\([^()]*\)(?: const)? ",
)
_ERRORS_ONLY = 3

# A thread that sleeps between two operators costs a third of a small model's time; one
# that stays awake after the run takes its core from whatever comes next. ONNX Runtime
# before 1.26 knows no duration, and ignores it.
_SPINNING = {
    True: {
        "session.intra_op.allow_spinning": "1",
        "session.intra_op.spin_duration_us": "100",
        "session.force_spinning_stop": "1",
    },
    False: {"session.intra_op.allow_spinning": "0"},
}

# ONNX Runtime's exceptions share no root, only the module that they come from.
_NATIVE = [v for v in vars(native).values() if isinstance(v, type)]
_FAILURES: tuple[type[Exception], ...] = (
    *(v for v in _NATIVE if issubclass(v, Exception)),
    RuntimeError,
    ValueError,
)


class OnnxSession(Session):
    """A graph on one device; on the CPU it reads the caller's memory in place."""

    def __init__(
        self, path: Path, device: str, providers: Providers, threads: Threads
    ) -> None:
        self._session: Any = _create(path, providers, threads)
        self._path = path
        kind, _, number = device.partition(":")
        self._device = (kind, int(number or 0))
        self.inputs = _specs(self._session.get_inputs())
        self.outputs = _specs(self._session.get_outputs())
        tensors = [*self.inputs.values(), *self.outputs.values()]
        self._on_host = kind == "cpu" and not any(
            t.dtype in NUMPY_LACKS for t in tensors
        )

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        """Run the graph once; NumPy arrays on the CPU, else arrays that speak DLPack.

        Raises `InvalidInput` for a wrong name, dtype or shape: nothing is cast.
        """
        session = self._session
        if session is None:
            raise ModelClosed(f"the session of '{self._path}' is closed; load it again")
        check_inputs(self.inputs, inputs)
        try:
            return self._run(session, inputs)
        except native.InvalidArgument as error:
            raise InvalidInput(
                f"'{self._path}' takes other inputs: {_brief(error)}"
            ) from error
        except _FAILURES as error:
            raise RunFailed(
                f"ONNX Runtime failed to run '{self._path}': {_brief(error)}"
            ) from error

    def close(self) -> None:
        """Let ONNX Runtime free its memory, once running calls are done."""
        self._session = None

    def _run(self, session: Any, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if not self._on_host:
            return run_on_device(session, inputs, self.outputs, self._device)
        feeds = {name: host_array(array) for name, array in inputs.items()}
        return dict(zip(self.outputs, session.run(None, feeds), strict=True))


def _specs(nodes: Sequence[Any]) -> dict[str, TensorSpec]:
    """Tensors by name, in order; a free size without a name is "?" and its axis."""
    specs = {}
    for node in nodes:
        sizes = enumerate(node.shape)
        shape = tuple(f"?{axis}" if size is None else size for axis, size in sizes)
        specs[node.name] = TensorSpec(numpy_name(node.type), shape)
    return specs


def _create(path: Path, providers: Providers, threads: Threads) -> Any:
    names = [name for name, _ in providers]
    _require_built(names)
    if names[0] != _CPU:
        _load_libraries()
    try:
        # By default it prints when a provider fails, and tries the CPU.
        session = onnxruntime.InferenceSession(
            str(path),
            _options(threads),
            providers=[(name, dict(options)) for name, options in providers],
            enable_fallback=0,
        )
    except _FAILURES as error:
        raise _explained(error, path, names) from error
    session.disable_fallback()
    _require_running(names, session.get_providers())
    return session


def _options(threads: Threads) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads.count
    options.inter_op_num_threads = 1
    for key, value in _SPINNING[threads.spinning].items():
        options.add_session_config_entry(key, value)
    return options


def _load_libraries() -> None:
    """Load CUDA and cuDNN from NVIDIA's own distributions, where they are installed."""
    if hasattr(onnxruntime, "preload_dlls"):
        with redirect_stdout(io.StringIO()):  # it prints what it does not find
            onnxruntime.preload_dlls()


def _require_built(names: Sequence[str]) -> None:
    known = onnxruntime.get_available_providers()
    for name in names:
        if name not in known:
            raise Unavailable(
                f"execution provider {name!r} is not in the ONNX Runtime "
                f"{onnxruntime.__version__} installed here; it has {', '.join(known)}"
            )


def _require_running(names: Sequence[str], running: Sequence[str]) -> None:
    """Raise `Unavailable` for a provider that ONNX Runtime left out, as it may."""
    for name in names:
        if name not in running:
            raise Unavailable(
                f"ONNX Runtime {onnxruntime.__version__} could not start {name!r}; its "
                "libraries are missing or of another version; for NVIDIA GPUs, "
                'pip install "onnxruntime-gpu[cuda,cudnn]"'
            )


def _explained(error: Exception, path: Path, names: Sequence[str]) -> Exception:
    """The typed error for what ONNX Runtime raised when it opened a file."""
    reason = _brief(error)
    if isinstance(error, native.NotImplemented):
        return Unavailable(
            f"ONNX Runtime {onnxruntime.__version__} lacks an operator of '{path}': "
            f"{reason}; try a newer one with pip install -U, or another backend"
        )
    if names[0] != _CPU and isinstance(error, (RuntimeError, native.EPFail)):
        return Unavailable(f"{names[0]!r} cannot run '{path}': {reason}")
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
