"""CUDA graphs: runs recorded once for each shape of inputs, and then replayed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import attrs
from onnxruntime import InferenceSession, IOBinding, OrtValue, RunOptions

from inference_models import Array
from inference_models_onnx.device import Device
from inference_models_onnx.device_array import DeviceArray

log = logging.getLogger("inference_models")

# Each shape keeps its inputs and outputs on the GPU as long as the session lives.
MOST_SHAPES = 8

# What ONNX Runtime takes as "record nothing and replay nothing"; 0 is its own.
_NEITHER = -1
_FIRST = 1


@attrs.frozen
class _Recorded:
    """A CUDA graph of one shape of inputs: the memory that it reads and writes."""

    inputs: Mapping[str, OrtValue]
    outputs: Mapping[str, OrtValue]
    binding: IOBinding
    options: RunOptions


class _OneThread:
    """A session that runs in one thread: ONNX Runtime records for each thread anew."""

    def __init__(self, session: InferenceSession) -> None:
        self._session = session
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cuda-graph")

    def io_binding(self) -> IOBinding:
        return self._session.io_binding()

    def run_with_iobinding(self, binding: IOBinding, options: RunOptions) -> None:
        run = self._session.run_with_iobinding
        self._thread.submit(run, binding, options).result()


class CapturedRuns:
    """The runs of one session, as CUDA graphs where they can be.

    They take turns, since a replay's inputs and outputs lie in memory of its graph.
    """

    def __init__(
        self, session: InferenceSession, device: Device, outputs: Sequence[str]
    ) -> None:
        self._session = _OneThread(session)
        self._device = device
        self._outputs = outputs
        self._lock = threading.Lock()
        self._recorded: dict[tuple[object, ...], _Recorded] = {}
        self._has_told = False

    def run(self, inputs: Mapping[str, Array]) -> dict[str, DeviceArray]:
        """Run once; outputs are the caller's own, and no later run writes to them.

        The first run of a shape is an ordinary one, which shows the outputs' shapes.
        """
        shapes = tuple((name, *inputs[name].shape) for name in sorted(inputs))
        with self._lock:
            if shapes in self._recorded:
                return self._replay(self._recorded[shapes], inputs)
            options = _with_graph(_NEITHER)
            ran = self._device.run(self._session, inputs, self._outputs, options)
            outputs = {name: array.value for name, array in ran.items()}
            if len(self._recorded) < MOST_SHAPES:
                self._recorded[shapes] = self._prepare(inputs, outputs)
            else:
                self._tell_once()
            return self._copied(outputs)

    def _prepare(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, OrtValue]
    ) -> _Recorded:
        """Memory for a shape; ONNX Runtime records what the next run does with it."""
        taken = self._device.take(inputs)
        own = {name: self._device.empty(value) for name, value in taken.items()}
        results = {name: self._device.empty(value) for name, value in outputs.items()}
        binding = self._session.io_binding()
        for name, value in own.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in results.items():
            binding.bind_ortvalue_output(name, value)
        options = _with_graph(_FIRST + len(self._recorded))
        return _Recorded(own, results, binding, options)

    def _replay(
        self, recorded: _Recorded, inputs: Mapping[str, Array]
    ) -> dict[str, DeviceArray]:
        taken = self._device.take(inputs)
        for name, value in taken.items():
            self._device.copy(recorded.inputs[name], value)
        self._device.wait()
        self._session.run_with_iobinding(recorded.binding, recorded.options)
        return self._copied(recorded.outputs)

    def _copied(self, outputs: Mapping[str, OrtValue]) -> dict[str, DeviceArray]:
        """The outputs in memory that no replay writes to.

        Replays use what was free in the session's own when they were recorded.
        """
        copies = {name: self._device.empty(value) for name, value in outputs.items()}
        for name, copied in copies.items():
            self._device.copy(copied, outputs[name])
        self._device.wait()
        return {name: self._device.hand_out(value) for name, value in copies.items()}

    def _tell_once(self) -> None:
        if not self._has_told:
            self._has_told = True
            log.warning(
                "a session with cuda_graph=True records %d shapes of inputs, and runs "
                "every further one without; give images in fewer sizes and batches",
                MOST_SHAPES,
            )


def _with_graph(number: int) -> RunOptions:
    options = RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(number))
    return options
