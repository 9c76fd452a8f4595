"""What a pack's torch module returns, beside what its signature says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inference_models.card import TensorSpec
from inference_models.interfaces import Architecture

_SIZES = {"batch": 2, "height": 64, "width": 96}


def check_network(made: Architecture[Any]) -> None:
    """Assert that the module for images returns what its signature names, in order.

    Only shapes and dtypes tell that two outputs are exchanged, and only here: whoever
    runs or exports the module goes by the signature.
    """
    graph, image = made.image_input
    inputs, outputs = made.signature(graph)
    returned = _by_name(_run(made, inputs[image]), list(outputs))
    for name, spec in outputs.items():
        dtype = str(returned[name].dtype).removeprefix("torch.")
        found = TensorSpec(dtype, tuple(returned[name].shape))
        assert _fits(found, spec), (
            f"output {name!r} is {found}, and signature() says {spec}"
        )


def has_modules(made: Architecture[Any]) -> bool:
    """Whether it makes modules of its own, and not only views of loaded ones."""
    import torch

    try:
        with torch.device("meta"):
            made.modules()
    except NotImplementedError:
        return False
    except RuntimeError:  # it has some, which cannot be made without memory
        return True
    return True


def _run(made: Architecture[Any], spec: TensorSpec) -> Any:
    """What the module gives for a batch; shapes alone are computed where that works."""
    import torch

    shape = [_SIZES[n] if isinstance(n, str) else n for n in spec.shape]
    for device in ("meta", "cpu"):
        try:
            with torch.device(device), torch.no_grad():
                module = _module(made).eval()
                return module(torch.zeros(shape, dtype=getattr(torch, spec.dtype)))
        except (NotImplementedError, RuntimeError):
            if device == "cpu":
                raise
    return None


def _module(made: Architecture[Any]) -> Any:
    modules = made.modules()
    assert isinstance(modules, Mapping), "modules() returns modules by graph"
    return modules[made.image_input[0]]


def _by_name(returned: Any, names: Sequence[str]) -> Mapping[str, Any]:
    if isinstance(returned, Mapping):
        assert set(names) <= set(returned), "signature() names outputs that are there"
        return returned
    values = list(returned) if isinstance(returned, (list, tuple)) else [returned]
    assert len(values) == len(names), f"signature() names {names}"
    return dict(zip(names, values, strict=True))


def _fits(found: TensorSpec, said: TensorSpec) -> bool:
    """Whether sizes are equal, or free; the batch's is known."""
    wanted = [_SIZES["batch"] if n == "batch" else n for n in said.shape]
    pairs = zip(found.shape, wanted, strict=False)
    alike = found.dtype == said.dtype and len(found.shape) == len(wanted)
    return alike and all(isinstance(n, str) or n == size for size, n in pairs)
