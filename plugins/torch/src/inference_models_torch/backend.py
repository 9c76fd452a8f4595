"""The backend: what PyTorch can run here, and how it is opened and exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

import attrs

from inference_models import (
    Architecture,
    Artifact,
    Backend,
    Bundle,
    Facts,
    File,
    InvalidOption,
    MissingDependency,
    ModelCard,
    Operations,
    Plan,
    Session,
    Unavailable,
    hardware,
)
from inference_models.interfaces import check_at_least_one
from inference_models.progress import Report
from inference_models_torch.facts import PICKLES, read_facts
from inference_models_torch.header import SAFETENSORS
from inference_models_torch.installed import find_installed

_PRECISIONS = ("fp32", "fp16", "bf16")

# bfloat16 has arithmetic of its own from Ampere on.
_AMPERE = (8, 0)


def _check_count(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidOption(f"{attribute.name} {value!r} is not a number from 0 up")


@attrs.frozen
class TorchBackend(Backend):
    """Runs the modules of architectures with weights from PyTorch's files.

    `threads` sets torch's threads for the whole process; by default they are left
    alone, unless they are more than this process may use. A process that is forked from
    one with a model has one thread for all. `channels_last` stores images
    and filters with their channels innermost; by default on the CPU, where convolutions
    gain up to a fifth from it, and in half precision on an NVIDIA GPU, where ResNet-50
    gains a half at a batch of 32.

    On NVIDIA GPUs runs are recorded as CUDA graphs, for the `graphs` input shapes used
    most lately; 0 records none. `compiled=True` has `torch.compile` write faster code
    at the first call of each shape, which takes from seconds to minutes.
    """

    name = "torch"
    aliases = ("pytorch",)
    formats = ("torch",)
    suffixes = (".safetensors", ".ckpt", ".pt", ".pth")
    rank = 300
    derives = {"torch": "onnx"}  # noqa: RUF012 - a ClassVar of the base class
    lends = ("cuda",)

    threads: int | None = attrs.field(default=None, validator=check_at_least_one)
    channels_last: bool | None = None
    graphs: int = attrs.field(default=8, validator=_check_count)
    compiled: bool = False

    def devices(self) -> Sequence[str]:
        """The GPUs that this build of torch reaches, the CPU, and Apple's GPU."""
        installed, machine = find_installed(), hardware.detect()
        apple = ["mps"] if machine.apple_silicon else []
        return [*installed.cuda_devices(machine), "cpu", *apple]

    def precisions(self, artifact: Artifact, device: str) -> Sequence[str]:
        """Half precision first on NVIDIA GPUs, float32 elsewhere.

        Weights of 16 bits keep their kind on a GPU; the CPU widens them, since it
        has hardly any arithmetic for float16.
        """
        own = artifact.precision
        if own not in _PRECISIONS:
            return (own,)
        if device == "cpu":
            return ("fp32", "bf16")
        if not device.startswith("cuda"):
            return (own,)
        half = ("fp16", "bf16") if _has_bfloat16(device) else ("fp16",)
        first = (own,) if own in half else ()
        return tuple(dict.fromkeys((*first, *half, "fp32")))

    def refuse(self, card: ModelCard, artifact: Artifact, plan: Plan) -> str | None:
        """Why not: its precision, its kind of file, or a file without a hash."""
        if plan.precision not in _PRECISIONS:
            return (
                f"torch runs {', '.join(_PRECISIONS)} here and not {plan.precision}; "
                "choose another quantization"
            )
        if artifact.base is not None:
            return f"torch cannot lay adapters over the weights of {artifact.base!r}"
        for name in sorted(set(artifact.graphs.values())):
            reason = _refuse_file(name, artifact)
            if reason is not None:
                return reason
        return None

    def lacks(self, form: str) -> str | None:
        """The libraries that torch writes ONNX with."""
        return lacks_exporter()

    def advice(self) -> Sequence[str]:
        """The build of torch that would run on the NVIDIA GPU here."""
        reason = find_installed().advise(hardware.detect())
        return () if reason is None else (reason,)

    def open(
        self, bundle: Bundle, architecture: Architecture[Any], plan: Plan
    ) -> Mapping[str, Session]:
        """A session for each graph, filled from its file in the plan's precision."""
        self.ready(plan.device)
        from inference_models_torch.modules import load_modules

        modules = load_modules(bundle, architecture, plan.device, plan.precision)
        return self.sessions(modules, architecture, plan)

    def ready(self, device: str) -> None:
        """Set torch's threads; `Unavailable` where it does not reach the device."""
        torch = _torch()
        from inference_models_torch.threads import limit_threads

        _check_device(torch, device)
        limit_threads(self.threads)

    def sessions(
        self, modules: Mapping[str, Any], architecture: Architecture[Any], plan: Plan
    ) -> Mapping[str, Session]:
        """A session for each filled module, in the plan's precision on its device."""
        from inference_models_torch.modules import DTYPES
        from inference_models_torch.packed import can_pack, pack_linears
        from inference_models_torch.session import TorchSession

        if plan.device == "cpu" and plan.precision == "fp32" and can_pack():
            modules = {graph: pack_linears(each) for graph, each in modules.items()}
        return {
            graph: TorchSession(
                module.to(plan.device),
                architecture.signature(graph),
                plan.device,
                DTYPES[plan.precision],
                self._channels_last(plan),
                self.graphs,
                self.compiled,
            )
            for graph, module in modules.items()
        }

    def operations(self, device: str) -> Operations:
        """Preprocessing by torch's own resize; on an NVIDIA GPU, there."""
        self.ready(device)
        from inference_models_torch.operations import TorchOperations

        return TorchOperations(device)

    def inspect(self, path: Path) -> Facts | None:
        """Tensors and metadata of a `.safetensors`, `.pth` or `.pt` file."""
        return read_facts(path)

    def derive(
        self,
        source: Bundle,
        architecture: Architecture[Any],
        plan: Plan,
        folder: Path,
        report: Report,
    ) -> Artifact:
        """Write ONNX of opset 20, with float32 inputs and outputs and a free batch."""
        _torch()
        check_exportable(plan.precision)
        from inference_models_torch.export import export_bundle

        return export_bundle(source, architecture, plan.precision, folder, report)

    def _channels_last(self, plan: Plan) -> bool:
        if self.channels_last is not None:
            return self.channels_last
        half = plan.device.startswith("cuda") and plan.precision != "fp32"
        return plan.device == "cpu" or half


def lacks_exporter() -> str | None:
    """Which library is missing to write ONNX here, with what to type; None if none."""
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if not missing:
        return None
    return (
        f"writing ONNX needs {' and '.join(missing)}; "
        'pip install "inference-models-torch[export]"'
    )


def check_exportable(precision: str) -> None:
    """Raise unless ONNX can be written here, in this precision."""
    lack = lacks_exporter()
    if lack is not None:
        raise MissingDependency(lack)
    if precision not in ("fp32", "fp16"):
        raise InvalidOption(
            f"ONNX is written in fp32 or fp16, not {precision!r}; choose another "
            "quantization"
        )


def _has_bfloat16(device: str) -> bool:
    number = int(device.partition(":")[2] or 0)
    gpus = hardware.detect().gpus
    return number < len(gpus) and gpus[number].compute_capability >= _AMPERE


def _refuse_file(name: str, artifact: Artifact) -> str | None:
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in SAFETENSORS:
        return None
    if suffix not in PICKLES:
        return (
            f"{name!r} is none of {', '.join((*SAFETENSORS, *PICKLES))}; save its "
            "state_dict() with safetensors.torch.save_file"
        )
    if any(file.name == name and _is_unvouched(file) for file in artifact.files):
        return (
            f"{name!r} could run code if it were exchanged, and its card gives no hash "
            "of it; use a .safetensors file, or add its sha256 to the card"
        )
    return find_installed().refuse_pickle()


def _is_unvouched(file: File) -> bool:
    """Whether a file comes from elsewhere, and nothing says what it must be."""
    remote = any(not source.startswith("file:") for source in file.sources)
    return remote and not file.is_hashed


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise Unavailable(
            f"PyTorch is missing or cannot be imported: {error}; "
            "pip install inference-models-torch"
        ) from error
    return torch


def _check_device(torch: Any, device: str) -> None:
    """Raise `Unavailable` where torch does not reach a device that files promised."""
    kind = device.partition(":")[0]
    reached = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if kind in reached and not reached[kind]():
        raise Unavailable(
            f"torch {torch.__version__} cannot use {device!r}; "
            f'try python -c "import torch; torch.zeros(1, device={device!r})"'
        )
