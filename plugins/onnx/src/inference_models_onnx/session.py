"""One graph as a session of ONNX Runtime, which this module imports."""

from __future__ import annotations

import ctypes
import functools
import io
import os
import weakref
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import onnxruntime

from inference_models import (
    Array,
    ModelClosed,
    Session,
    TensorSpec,
    Unavailable,
    check_inputs,
    host_array,
)
from inference_models_onnx.captured import CapturedRuns
from inference_models_onnx.device import Device
from inference_models_onnx.dtypes import NUMPY_LACKS, numpy_name
from inference_models_onnx.failures import FAILURES, Run, explain_opening, explain_run
from inference_models_onnx.placement import CPU, RECORD, report_placement
from inference_models_onnx.threads import Threads

Providers = Sequence[tuple[str, Mapping[str, Any]]]

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


class OnnxSession(Session):
    """A graph on one device; on the CPU it reads the caller's memory in place."""

    def __init__(
        self,
        path: Path,
        device: str,
        providers: Providers,
        threads: Threads,
        cuda_graph: bool = False,
    ) -> None:
        self._session: Any = _create(path, providers, threads)
        self._path = path
        self._device_name = device
        self.inputs = _specs(self._session.get_inputs())
        self.outputs = _specs(self._session.get_outputs())
        kind, _, number = device.partition(":")
        self._device = None
        if kind != "cpu" or _beyond_numpy((self.inputs, self.outputs)):
            self._device = Device(kind, int(number or 0))
        self._captured = None
        if self._device is not None and cuda_graph:
            outputs = list(self.outputs)
            self._captured = CapturedRuns(self._session, self._device, outputs)

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        """Run the graph once; NumPy arrays on the CPU, else arrays that speak DLPack.

        Raises `InvalidInput` for a wrong name, dtype or shape: nothing is cast.
        """
        session, captured = self._session, self._captured
        if session is None:
            raise ModelClosed(f"the session of '{self._path}' is closed; load it again")
        check_inputs(self.inputs, inputs)
        try:
            return self._run(session, captured, inputs)
        except FAILURES as error:
            run = Run(self._path, self._device_name, captured is not None)
            raise explain_run(error, run, inputs) from error

    def close(self) -> None:
        """Let ONNX Runtime free its memory, once running calls are done."""
        self._session = None
        self._captured = None

    def _run(
        self, session: Any, captured: CapturedRuns | None, inputs: Mapping[str, Array]
    ) -> dict[str, Array]:
        if self._device is None:
            feeds = {name: host_array(array) for name, array in inputs.items()}
            return dict(zip(self.outputs, session.run(None, feeds), strict=True))
        with self._device.current():
            if captured is not None:
                return dict(captured.run(inputs))
            return dict(self._device.run(session, inputs, self.outputs))


def _beyond_numpy(sides: Sequence[Mapping[str, TensorSpec]]) -> bool:
    return any(spec.dtype in NUMPY_LACKS for side in sides for spec in side.values())


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
    if names[0] != CPU:
        _load_libraries()
    try:
        # By default it prints when a provider fails, and tries the CPU.
        session = onnxruntime.InferenceSession(
            str(path),
            _options(threads, names[0] != CPU),
            providers=[(name, dict(options)) for name, options in providers],
            enable_fallback=0,
        )
    except FAILURES as error:
        raise explain_opening(error, path, names[0]) from error
    _known_to_forks().add(session)
    session.disable_fallback()
    _require_running(names, session.get_providers())
    if names[0] != CPU:
        report_placement(session, path)
    return session


@functools.cache
def _known_to_forks() -> weakref.WeakSet[Any]:
    """The sessions that no forked process destroys: it would wait for their threads.

    These are the parent's alone; at its end, too, the process would wait for ever.
    """
    sessions: weakref.WeakSet[Any] = weakref.WeakSet()

    def keep() -> None:
        for session in sessions:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=keep)
    return sessions


def _options(threads: Threads, recorded: bool) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads.count
    options.inter_op_num_threads = 1
    for key, value in _SPINNING[threads.spinning].items():
        options.add_session_config_entry(key, value)
    if recorded:
        options.add_session_config_entry(RECORD, "1")
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
