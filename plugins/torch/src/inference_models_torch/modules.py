"""An architecture's modules, made quickly, filled strictly and set to a precision."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from inference_models import Architecture, Bundle, InvalidWeights
from inference_models.errors import faults_of, shown_name
from inference_models_torch.weights import read_tensors

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

# Parameters that may be made, as some are replaced, or are the same in several graphs:
# so many for each tensor, and anyway; and so many values, beside two for each byte.
_TIMES, _ANYWAY, _SMALL = 8, 1000, 2**28

# A mode sees a call of `nn.init` as one call, and not the tensors' methods in it.
_RANDOM = (
    nn.init.kaiming_uniform_,
    nn.init.normal_,
    nn.init.uniform_,
    torch.Tensor.normal_,
    torch.Tensor.uniform_,
)


def load_modules(
    bundle: Bundle, architecture: Architecture[Any], device: str, precision: str
) -> dict[str, nn.Module]:
    """Modules by graph: with the bundle's weights, on the device, for inference."""
    paths = {graph: bundle.path(graph) for graph in bundle.artifact.graphs}
    read = {path: read_tensors(path) for path in dict.fromkeys(paths.values())}
    count = sum(map(len, read.values()))
    whose = f"modules() of architecture {architecture.name!r}"
    with _WithoutInitialisation(), within_files(read, count), faults_of(whose):
        modules = architecture.modules()
    if not isinstance(modules, Mapping):
        raise InvalidWeights(
            f"modules() of architecture {architecture.name!r} returned "
            f"{type(modules).__name__}, and not modules by graph, such as "
            "{'main': module}"
        )
    for graph, path in paths.items():
        if graph not in modules:
            raise InvalidWeights(
                f"architecture {architecture.name!r} has no graph {graph!r}; it has "
                f"{', '.join(sorted(modules))}"
            )
        with faults_of(f"weights() of architecture {architecture.name!r}"):
            tensors = architecture.weights(graph, read[path])
        _fill(modules[graph], tensors, path)
    opened = {graph: modules[graph] for graph in bundle.artifact.graphs}
    for module in opened.values():
        module.eval().requires_grad_(False)
        set_precision(module, DTYPES[precision], architecture.fp32_modules)
        module.to(device)
    return opened


@contextlib.contextmanager
def within_files(paths: Iterable[Path], count: int) -> Iterator[None]:
    """Ends the making of a network far larger than its files of so many tensors.

    A config is a few bytes, and one number in it could have layers made for ever, or
    tables without end. Raises `InvalidWeights`; networks that other threads make are
    not counted.
    """
    files = list(paths)
    most = _ANYWAY + _TIMES * count
    largest = _SMALL + 2 * sum(path.stat().st_size for path in files)
    thread, made, size = threading.get_ident(), 0, 0

    def counted(module: nn.Module, name: str, tensor: torch.Tensor | None) -> None:
        nonlocal made, size
        if tensor is None or threading.get_ident() != thread:
            return
        made += isinstance(tensor, nn.Parameter)
        size += tensor.numel()
        if made > most or size > largest:
            raise InvalidWeights(
                f"{', '.join(f'{str(path)!r}' for path in files[:3])} holds {count} "
                "tensors, and its config wants far more or larger ones; is it of "
                "another model?"
            )

    registered = [
        register_module_parameter_registration_hook(counted),
        register_module_buffer_registration_hook(counted),
    ]
    try:
        yield
    finally:
        for each in registered:
            each.remove()


class _WithoutInitialisation(TorchFunctionMode):
    """Makes modules with their parameters' memory as it is.

    Every value is read from the file afterwards. Drawing random ones first took 90 of
    100 ms for a ResNet-50.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if function in _RANDOM:
            return args[0] if args else given["tensor"]
        return function(*args, **given)


def _fill(module: nn.Module, tensors: Mapping[str, Any], path: Path) -> None:
    """Copy every tensor of the file to its place; `InvalidWeights` if any is left.

    Copies, since the file is mapped into memory and may be overwritten by training.
    """
    wanted = module.state_dict()
    # Inference never reads this counter, and files older than it lack it.
    counters = {k: v for k, v in wanted.items() if k.endswith("num_batches_tracked")}
    given = {**counters, **tensors}
    problems = [
        listed("lacks", wanted.keys() - given.keys()),
        listed("has unknown", given.keys() - wanted.keys()),
        listed("has other shapes than the module:", _misshapen(wanted, given)),
        listed("has complex", _complex(wanted, given)),
    ]
    if any(problems):
        raise _misfit(module, path, "; it ".join(filter(None, problems)))
    try:
        module.load_state_dict(given)
    except RuntimeError as error:
        kinds = sorted({str(tensor.dtype) for tensor in given.values()})
        problem = f"holds {', '.join(kinds)}, and torch cannot convert all of them"
        raise _misfit(module, path, problem) from error


def _misfit(module: nn.Module, path: Path, problem: str) -> InvalidWeights:
    return InvalidWeights(
        f"'{path}' does not fit {type(module).__name__}: it {problem}; is it of "
        "another model?"
    )


def _complex(wanted: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Where torch would drop the imaginary part."""
    return [
        name
        for name in wanted.keys() & given.keys()
        if given[name].is_complex() and not wanted[name].is_complex()
    ]


def _misshapen(wanted: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} {_shape(given[name])} instead of {_shape(wanted[name])}"
        for name in wanted
        if name in given and _shape(given[name]) != _shape(wanted[name])
    ]


def _shape(value: Any) -> Any:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def listed(what: str, names: Iterable[str]) -> str:
    """What is said of the first three of these names, as in "lacks a, b, c and 2 more".

    Empty if there are none.
    """
    known = sorted(names)
    shown = [shown_name(name, 200) for name in known[:3]]
    more = f" and {len(known) - 3} more" if len(known) > 3 else ""
    return f"{what} {', '.join(shown)}{more}" if known else ""


def set_precision(
    module: nn.Module, dtype: torch.dtype, fp32_modules: Sequence[str] = ()
) -> None:
    """Cast floats to `dtype`, apart from the named submodules, which stay float32.

    Of a list of modules, which is never called itself, each is kept.
    """
    kept = [] if dtype == torch.float32 else _named(module, fp32_modules)
    within = {inner for outer in kept for inner in outer.modules()}
    for inner in module.modules():
        _cast_own(inner, torch.float32 if inner in within else dtype)
    for outer in kept:
        outer.register_forward_pre_hook(_floats_in, with_kwargs=True)
        outer.register_forward_hook(lambda _, given, made: cast(made, dtype))


def _named(module: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """The outermost of the named modules that are called."""
    outer = [n for n in names if not any(n.startswith(f"{other}.") for other in names)]
    found = [inner for name, inner in module.named_modules() if name in outer]
    return [each for inner in found for each in _called(inner)]


def _called(module: nn.Module) -> list[nn.Module]:
    """The module, or in place of a container those in it."""
    if not isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        return [module]
    return [each for child in module.children() for each in _called(child)]


def _cast_own(module: nn.Module, dtype: torch.dtype) -> None:
    for parameter in module.parameters(recurse=False):
        parameter.data = cast(parameter.data, dtype)
    for name, buffer in list(module.named_buffers(recurse=False)):
        setattr(module, name, cast(buffer, dtype))


def _floats_in(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, Any]:
    return cast(args, torch.float32), cast(kwargs, torch.float32)


def cast(value: Any, dtype: torch.dtype) -> Any:
    """The floating tensors in `value`, which may be nested, as `dtype`."""
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {name: cast(item, dtype) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(cast(item, dtype) for item in value)
    return value
