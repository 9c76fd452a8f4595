"""The backend: which devices ONNX Runtime has here, and how its sessions are opened."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from inference_models import (
    Architecture,
    Artifact,
    Backend,
    Bundle,
    Facts,
    InvalidOption,
    ModelCard,
    Plan,
    Session,
    Unavailable,
    hardware,
)
from inference_models.interfaces import check_at_least_one
from inference_models_onnx.contents import check_external, read_contents
from inference_models_onnx.installed import find_installed
from inference_models_onnx.placement import CPU
from inference_models_onnx.threads import Threads, physical_cores

Provider = str | tuple[str, Mapping[str, Any]]
Providers = tuple[tuple[str, Mapping[str, Any]], ...]

_CUDA = "CUDAExecutionProvider"

# By default it takes the next power of two, and so up to twice what a model needs. What
# it takes it gives back when the session ends.
_FRUGAL = {"arena_extend_strategy": "kSameAsRequested"}
_ON_NVIDIA = (_CUDA, "NvTensorRTRTXExecutionProvider", "TensorrtExecutionProvider")


def _to_providers(given: Sequence[Provider] | None) -> Providers | None:
    if given is None:
        return None
    if isinstance(given, str) or not given:
        raise InvalidOption(f"providers {given!r} is no list such as [{CPU!r}]")
    return tuple(map(_to_provider, given))


def _to_provider(given: Provider) -> tuple[str, Mapping[str, Any]]:
    match given:
        case str():
            return given, {}
        case (str() as name, Mapping() as options):
            return name, dict(options)
    raise InvalidOption(f"provider {given!r} is neither a name nor (name, options)")


def _check_cuda_graph(backend: OnnxBackend, _: object, cuda_graph: bool) -> None:
    """Raise `InvalidOption` where options of providers and `cuda_graph` both speak."""
    given = backend.providers or ()
    if cuda_graph and given:
        raise InvalidOption(
            "cuda_graph=True is for the providers that are chosen by default; give one "
            "of cuda_graph and providers"
        )
    if any("enable_cuda_graph" in options for _, options in given):
        raise InvalidOption(
            "'enable_cuda_graph' among a provider's options would replay old inputs; "
            "give cuda_graph=True and no providers"
        )


@attrs.frozen
class OnnxBackend(Backend):
    """Runs ONNX files with ONNX Runtime.

    `providers` are execution providers, each a name or `(name, options)`, and are used
    exactly as given; by default CUDA's on a GPU and the CPU's elsewhere. A session runs
    on `threads` threads, by default one for each core. While it runs, they wait awake
    for the next operator; `spinning=False` lets them sleep, which is slower alone and
    faster where other processes want the same cores.

    With `cuda_graph`, CUDA records what a session does for each of the first shapes of
    its inputs and replays it as one piece, which is faster where a network has many
    small steps. Such a session makes one run at a time. Graphs with states run without.
    """

    name = "onnx"
    aliases = ("onnxruntime", "ort")
    formats = ("onnx",)
    suffixes = (".onnx",)
    rank = 100

    providers: Providers | None = attrs.field(default=None, converter=_to_providers)
    threads: int | None = attrs.field(default=None, validator=check_at_least_one)
    spinning: bool = True
    cuda_graph: bool = attrs.field(default=False, validator=_check_cuda_graph)

    def devices(self) -> Sequence[str]:
        """The GPUs, if this build of ONNX Runtime has code for them, and the CPU."""
        gpus = hardware.detect().cuda_devices if find_installed().gpu else []
        if self.providers is None:
            return [*gpus, "cpu"]
        name, options = self.providers[0]
        wanted = f"cuda:{options.get('device_id', 0)}" if name in _ON_NVIDIA else "cpu"
        if wanted not in [*gpus, "cpu"]:
            raise Unavailable(
                f"provider {name!r} needs {wanted!r}, and ONNX Runtime has "
                f"{', '.join([*gpus, 'cpu'])} here; name another provider or device_id"
            )
        return [wanted]

    def refuse(self, card: ModelCard, artifact: Artifact, plan: Plan) -> str | None:
        """Why not: its precision, its opset, its providers or this build."""
        installed = find_installed()
        first = self._providers(plan.device)[0][0]
        if plan.precision != artifact.precision:
            return (
                f"the ONNX file is {artifact.precision} and runs as it is; "
                f"choose quantization={artifact.precision!r}"
            )
        if self.cuda_graph and first != _CUDA:
            return (
                "cuda_graph=True needs an NVIDIA GPU; choose device='cuda', or omit it"
            )
        unfit = artifact.needs.get("incompatible_providers") or []
        if not isinstance(unfit, (list, tuple)):
            return (
                f"its card needs 'incompatible_providers' {unfit!r:.80}, which is no "
                "list of names; correct the card"
            )
        if first in unfit:
            return f"the ONNX file does not work with {first!r}; choose another device"
        opset = installed.refuse_opset(artifact.needs.get("opset"))
        if opset is None and plan.device.startswith("cuda"):
            return installed.refuse_cuda(hardware.detect())
        return opset

    def advice(self) -> Sequence[str]:
        """The build of ONNX Runtime that would run on the NVIDIA GPU here."""
        reason = find_installed().advise(hardware.detect())
        return () if reason is None or self.providers is not None else (reason,)

    def open(
        self, bundle: Bundle, architecture: Architecture[Any], plan: Plan
    ) -> Mapping[str, Session]:
        """One session for each graph: ONNX Runtime shares no weights between them."""
        graphs = bundle.artifact.graphs
        return {
            graph: self._session(bundle.path(graph), plan.device) for graph in graphs
        }

    def inspect(self, path: Path) -> Facts | None:
        """Tensors, opset and metadata of an `.onnx` file, without ONNX Runtime."""
        if path.suffix.lower() != ".onnx" or not path.is_file():
            return None
        contents = read_contents(path)
        metadata = {
            **contents.metadata,
            "inputs": list(contents.inputs),
            "outputs": list(contents.outputs),
            "opset": contents.opset,
            "producer": contents.producer,
        }
        return Facts("onnx", {**contents.inputs, **contents.outputs}, metadata)

    def _session(self, path: Path, device: str) -> Session:
        contents = read_contents(path)
        check_external(path, contents.external)
        reason = find_installed().refuse_opset(contents.opset)
        if reason is not None:
            raise Unavailable(f"'{path}' cannot run here: {reason}")
        # It gives the machine an id, and a process that is forked does not end.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        try:
            from inference_models_onnx.session import OnnxSession
        except ImportError as error:
            raise Unavailable(
                f"ONNX Runtime is installed and cannot be imported: {error}"
            ) from error
        tensors = (*contents.inputs, *contents.outputs)
        has_state = any(name.startswith("state.") for name in tensors)
        cuda_graph = self.cuda_graph and not has_state
        providers = self._providers(device, cuda_graph)
        return OnnxSession(path, device, providers, self._threads(device), cuda_graph)

    def _providers(self, device: str, cuda_graph: bool = False) -> Providers:
        if self.providers is not None:
            return self.providers
        kind, _, number = device.partition(":")
        if kind == "cuda":
            capture = {"enable_cuda_graph": "1"} if cuda_graph else {}
            options = {"device_id": int(number or 0), **_FRUGAL, **capture}
            return (_CUDA, options), (CPU, {})
        return ((CPU, {}),)

    def _threads(self, device: str) -> Threads:
        spinning = self.spinning and device == "cpu"
        return Threads(self.threads or physical_cores(), spinning)
