"""One graph, compiled by OpenVINO for the CPU."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from inference_models import (
    Array,
    InvalidWeights,
    RunFailed,
    Session,
    TensorSpec,
    check_inputs,
    host_array,
)

# It would compute in bf16 where the CPU is fast at it. Its snippets, operators that it
# fuses, make Florence-2's decoder wrong from eight tokens on (2026.4, AVX2).
_SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "SNIPPETS_MODE": "DISABLE"}


class OpenVinoSession(Session):
    """A compiled graph, and requests that are free: a call has one to itself."""

    def __init__(self, path: Path, threads: int | None) -> None:
        settings: dict[str, Any] = dict(_SETTINGS)
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        core = openvino.Core()
        try:
            model = core.read_model(path)
            self._compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise InvalidWeights(
                f"OpenVINO cannot open '{path}': {_reason(error)}; fetch it again, or "
                "name another backend"
            ) from error
        # Compiled, a tensor can also have the names of those that were optimised away.
        self.inputs = dict(map(_described, model.inputs))
        self.outputs = dict(map(_described, model.outputs))
        self._path = path
        self._free: deque[Any] = deque()

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        """Run the graph once; inputs and outputs are copied."""
        check_inputs(self.inputs, inputs)
        arrays = [host_array(inputs[name]) for name in self.inputs]
        try:
            request = self._free.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        try:
            outputs = request.infer(arrays).values()
        except RuntimeError as error:
            raise RunFailed(
                f"OpenVINO failed to run '{self._path}': {_reason(error)}"
            ) from error
        self._free.append(request)
        return dict(zip(self.outputs, outputs, strict=True))


def _described(tensor: Any) -> tuple[str, TensorSpec]:
    name, kind = tensor.get_any_name(), tensor.element_type
    if kind == openvino.Type.bf16:  # its arrays would say float16 of these bytes
        raise InvalidWeights(
            f"tensor {name!r} is bfloat16, which NumPy does not have; name another "
            "backend"
        )
    shape = [
        f"axis {axis}" if size.is_dynamic else size.get_length()
        for axis, size in enumerate(tensor.partial_shape)
    ]
    return name, TensorSpec(np.dtype(kind.to_dtype()).name, shape)


def _reason(error: RuntimeError) -> str:
    """The last line; those before it name places in OpenVINO's sources."""
    return str(error).strip().rpartition("\n")[2]
