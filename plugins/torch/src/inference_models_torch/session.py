"""One graph as a torch module on one device."""

from __future__ import annotations

import contextlib
import functools
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from inference_models import (
    Array,
    InvalidInput,
    ModelClosed,
    RunFailed,
    Session,
    TensorSpec,
)
from inference_models.errors import first_line
from inference_models.inputs import check_names, listed
from inference_models_torch.arrays import as_tensor
from inference_models_torch.graphs import Graphs, between_turns
from inference_models_torch.memory import is_out_of_memory, ran_out

Signature = tuple[Mapping[str, TensorSpec], Mapping[str, TensorSpec]]

# What torch and models raise for a tensor of a shape or dtype they cannot take.
_REJECTIONS = (AssertionError, IndexError, RuntimeError, ValueError)
# What begins with this is a fault of the GPU, or of its libraries.
_FAULT = re.compile(r"CUDA error|cuDNN error")


class TorchSession(Session):
    """Calls a module with its inputs in the order of the signature.

    The module returns a tensor, a sequence in the order of the signature's outputs, or
    a mapping by their names. On an NVIDIA GPU runs are recorded as CUDA graphs, for as
    many shapes as `graphs` says, unless the graph has state.
    """

    def __init__(
        self,
        module: nn.Module,
        signature: Signature,
        device: str,
        dtype: torch.dtype,
        channels_last: bool,
        graphs: int = 0,
        compiled: bool = False,
    ) -> None:
        self.inputs, self.outputs = (_in_dtype(specs, dtype) for specs in signature)
        self._module: nn.Module | None = module
        # Not a method: who holds that holds us, and we are to be collected at once.
        self._named = functools.partial(by_name, names=list(self.outputs))
        self._device = torch.device(device)
        self._lay = _contiguous
        if channels_last:
            self._lay = _channels_last
            module.to(memory_format=torch.channels_last)
        if compiled:
            self._module = module = torch.compile(module, dynamic=False)
        self._graphs: Graphs | None = None
        if graphs and self._device.type == "cuda" and not self._has_state():
            self._graphs = Graphs(module, self._device, graphs, self._lay, self._named)

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        """Run the module; outputs are tensors on the device."""
        module = self._module
        if module is None:
            raise ModelClosed("the model is closed; load it again to use it")
        check_names(self.inputs, inputs)
        tensors = [
            inputs[n] if n.startswith("state.") else as_tensor(inputs[n])
            for n in self.inputs
        ]
        try:
            with _without_autocast(self._device.type):
                return self._run(module, [*map(self._accept, self.inputs, tensors)])
        except _REJECTIONS as error:
            raise self._explained(error, tensors) from error

    def close(self) -> None:
        """Drop the module, and give the device its memory back."""
        self._module = None
        if self._graphs is not None:
            self._graphs.close()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def __del__(self) -> None:
        # A model that nobody holds any more gives its memory back, too.
        if getattr(self, "_module", None) is None or sys.is_finalizing():
            return
        if self._device.type == "cuda":
            between_turns(self._device, self.close)

    def _has_state(self) -> bool:
        return any(name.startswith("state.") for name in (*self.inputs, *self.outputs))

    def _accept(self, name: str, array: Any) -> Any:
        if name.startswith("state."):
            return array
        wanted = getattr(torch, self.inputs[name].dtype)
        both_float = array.is_floating_point() and wanted.is_floating_point
        tensor = array.to(self._device, wanted if both_float else array.dtype)
        # A replay copies it to where it is wanted anyway.
        return self._lay(tensor) if self._graphs is None else tensor

    def _run(self, module: nn.Module, tensors: Sequence[Any]) -> dict[str, Array]:
        if self._graphs is None:
            return self._eager(module, tensors)
        try:
            replayed = self._graphs(tensors)
            if replayed is not None:
                return dict(replayed)
            return self._eager(module, [*map(self._lay, tensors)])
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        # What recordings hold may be what is missing. The error, which held what the
        # module had made, is gone.
        self._graphs.forget()
        torch.cuda.empty_cache()
        return self._eager(module, [*map(self._lay, tensors)])

    def _eager(self, module: nn.Module, tensors: Sequence[Any]) -> dict[str, Array]:
        with torch.inference_mode():
            outputs = self._named(module(*tensors))
        # A tensor made in inference mode cannot be written to; its copy can.
        return {
            n: v if n.startswith("state.") else v.clone() for n, v in outputs.items()
        }

    def _explained(
        self, error: Exception, tensors: Sequence[Any]
    ) -> RunFailed | InvalidInput:
        reason = first_line(error)
        if is_out_of_memory(error):
            batch = next((len(t) for t in tensors if getattr(t, "ndim", 0)), 1)
            return ran_out(self._device, batch, error)
        if _FAULT.match(reason) or isinstance(error, torch.AcceleratorError):
            return RunFailed(f"{self._device} failed: {reason}")
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            return RunFailed(
                f"torch.compile failed: {reason}; load the model without compiled=True"
            )
        given = ", ".join(
            f"{name!r}: {str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}"
            for name, t in zip(self.inputs, tensors, strict=True)
            if isinstance(t, torch.Tensor)
        )
        return InvalidInput(
            f"the network cannot take {given}; it takes {listed(self.inputs)} "
            f"({type(error).__name__}: {reason})"
        )


def _without_autocast(kind: str) -> contextlib.AbstractContextManager[Any]:
    """The precision is the plan's, whatever the caller's own code computes in."""
    context: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if torch.is_autocast_enabled(kind):  # a context of torch's costs some 20 us
        context = torch.autocast(kind, enabled=False)
    return context


def _contiguous(tensor: Tensor) -> Tensor:
    """Images (N, C, H, W) in torch's default memory format; others as they are."""
    return tensor.contiguous() if tensor.ndim == 4 else tensor


def _channels_last(tensor: Tensor) -> Tensor:
    """Images (N, C, H, W) in torch's channels-last format, as the filters are."""
    if tensor.ndim != 4:
        return tensor
    return tensor.contiguous(memory_format=torch.channels_last)


def by_name(returned: Any, names: Sequence[str]) -> dict[str, Any]:
    """What a module returned, by the names that the signature gives to it."""
    if isinstance(returned, Mapping):
        missing = [name for name in names if name not in returned]
        if missing:
            raise RunFailed(
                f"the module returned {', '.join(map(repr, returned))}, and its "
                f"signature names {', '.join(map(repr, missing))}"
            )
        return {name: returned[name] for name in names}
    values = list(returned) if isinstance(returned, (list, tuple)) else [returned]
    if len(values) != len(names):
        raise RunFailed(
            f"the module returned {len(values)} outputs, and its signature names "
            f"{', '.join(map(repr, names))}"
        )
    return dict(zip(names, values, strict=True))


def _in_dtype(
    specs: Mapping[str, TensorSpec], dtype: torch.dtype
) -> dict[str, TensorSpec]:
    """The specs with their floating tensors in the precision that the graph runs in."""
    name = str(dtype).removeprefix("torch.")
    return {
        key: attrs.evolve(spec, dtype=name) if "float" in spec.dtype else spec
        for key, spec in specs.items()
    }
