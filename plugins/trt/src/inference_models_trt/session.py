"""One engine as a session: one run at a time, on a stream of its own."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inference_models import (
    Array,
    InferenceModelsError,
    InvalidInput,
    InvalidWeights,
    ModelClosed,
    RunFailed,
    Session,
    TensorSpec,
    check_inputs,
    host_array,
)
from inference_models.errors import first_line, out_of_memory
from inference_models_trt.callbacks import Logger
from inference_models_trt.device_array import DeviceArray
from inference_models_trt.gpu import Gpu
from inference_models_trt.runtime import trt
from inference_models_trt.tensors import spec_of

# What TensorRT wants the addresses of tensors to be a multiple of.
_ALIGNED = 256


def open_engine(path: Path, number: int, host_code: bool) -> TrtSession:
    """Read an engine onto a GPU; `InvalidWeights` if TensorRT does not take it.

    An engine is native code: whoever opens it trusts it. `host_code` lets one that is
    for later versions, too, bring code for the CPU that runs it there.
    """
    gpu, logger = Gpu(number), Logger()
    with gpu.current():
        runtime = trt.Runtime(logger)
        if host_code:
            runtime.engine_host_code_allowed = True
        engine = runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise InvalidWeights(f"TensorRT cannot open '{path}': {logger.reason}")
        context = engine.create_execution_context()
        if context is None:
            raise RunFailed(
                f"cuda:{number} has too little memory to run '{path}': {logger.reason}"
            )
        return TrtSession(path, engine, context, gpu, logger)


class TrtSession(Session):
    """An engine and its one context; a run ends when its outputs are there."""

    def __init__(
        self,
        path: Path,
        engine: trt.ICudaEngine,
        context: trt.IExecutionContext,
        gpu: Gpu,
        logger: Logger,
    ) -> None:
        self.inputs, self.outputs = _describe(engine, path)
        self._path = path
        self._engine: Any = engine
        self._context: Any = context
        self._gpu = gpu
        self._logger = logger
        self._lock = threading.Lock()

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        """Run the engine once; the outputs lie on the GPU, and speak DLPack.

        Raises `InvalidInput` for a wrong name, dtype or shape: nothing is cast.
        """
        with self._lock:
            if self._context is None:
                raise ModelClosed(
                    f"the session of '{self._path}' is closed; load it again"
                )
            check_inputs(self.inputs, inputs)
            try:
                with self._gpu.current():
                    return self._run(inputs)
            except InferenceModelsError:
                raise
            except Exception as error:
                raise self._explained(error, inputs) from error

    def close(self) -> None:
        """Free the engine's memory, once a running call is done."""
        with self._lock, self._gpu.current():
            self._context = self._engine = None

    def _run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self._logger.told = ""
        self._gpu.follow_readers()
        # What is given and what comes out is held until the run is done.
        held = [self._give(name, array) for name, array in inputs.items()]
        outputs = {name: self._new(name, spec) for name, spec in self.outputs.items()}
        if not self._context.execute_async_v3(self._gpu.stream):
            raise RuntimeError(self._logger.reason)
        self._gpu.wait()
        del held
        return outputs

    def _give(self, name: str, array: Array) -> Any:
        """Tell the engine an input's shape and address; return what must stay alive."""
        if not self._context.set_input_shape(name, tuple(array.shape)):
            raise InvalidInput(self._beyond(name, array))
        held, address = self._placed(array)
        self._point(name, address)
        return held

    def _point(self, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise RuntimeError(self._logger.reason)

    def _placed(self, array: Array) -> tuple[Any, int]:
        """What holds the array on this GPU, and its address; others are copied."""
        if getattr(array, "requires_grad", False):
            array = array.detach()
        if _place_of(array) == self._gpu.place:
            if isinstance(array, DeviceArray):
                return array, array.address
            # The maker of the array puts its work before what comes next on our stream.
            view = self._gpu.view(_gathered(array))
            if is_contiguous(view.shape, view.strides):
                return self._aligned(view)
        host = host_array(array)
        buffer = self._gpu.upload(host)
        return (host, buffer), int(buffer.handle)

    def _aligned(self, view: Any) -> tuple[Any, int]:
        if view.ptr % _ALIGNED == 0:
            return view, int(view.ptr)
        copied = self._gpu.copied(view)
        return (view, copied), int(copied.handle)

    def _new(self, name: str, spec: TensorSpec) -> DeviceArray:
        shape = tuple(self._context.get_tensor_shape(name))
        if min(shape, default=0) < 0:
            raise RunFailed(
                f"output {name!r} of '{self._path}' has a size that only a run tells, "
                "and engines are run with outputs of known sizes"
            )
        dtype = np.dtype(spec.dtype)
        buffer = self._gpu.empty(max(1, int(np.prod(shape))) * dtype.itemsize)
        self._point(name, int(buffer.handle))
        return DeviceArray(self._gpu, buffer, shape, dtype)

    def _beyond(self, name: str, array: Array) -> str:
        least, _, most = self._engine.get_tensor_profile_shape(name, 0)
        return (
            f"input {name!r} has the shape {tuple(array.shape)}, and the engine takes "
            f"{tuple(least)} to {tuple(most)}; build it for such batches with "
            "inference-models compile ID --backend trt --batch-size MIN,BEST,MAX"
        )

    def _explained(self, error: Exception, inputs: Mapping[str, Array]) -> Exception:
        reason = first_line(error)
        if "OUT_OF_MEMORY" in reason or "out of memory" in reason.lower():
            batch = next((a.shape[0] for a in inputs.values() if a.shape), 1)
            return out_of_memory(f"cuda:{self._gpu.number}", batch, error)
        return RunFailed(f"TensorRT failed to run '{self._path}': {reason}")


def _gathered(array: Any) -> Any:
    return array.contiguous() if hasattr(array, "contiguous") else array


def is_contiguous(shape: Sequence[int], strides: Sequence[int] | None) -> bool:
    """Whether an array is C-contiguous; strides are counted in elements."""
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides or ()), strict=False):
        if size > 1 and stride != step:
            return False
        step *= size
    return True


def _place_of(array: Any) -> tuple[int, int] | None:
    if not hasattr(array, "__dlpack_device__"):
        return None
    kind, number = array.__dlpack_device__()
    return int(kind), int(number)


def _describe(
    engine: trt.ICudaEngine, path: Path
) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
    """Inputs and outputs by name, in order."""
    inputs: dict[str, TensorSpec] = {}
    outputs: dict[str, TensorSpec] = {}
    for number in range(engine.num_io_tensors):
        name = engine.get_tensor_name(number)
        if engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
            raise InvalidWeights(
                f"'{path}' has the sizes of other tensors as its tensor {name!r}; "
                "export the model without"
            )
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        dtype, shape = engine.get_tensor_dtype(name), engine.get_tensor_shape(name)
        side = inputs if is_input else outputs
        side[name] = spec_of(name, dtype, shape)
    return inputs, outputs
