"""The backend: where engines run and what they can be built for, told from facts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
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
    InvalidWeights,
    ModelCard,
    Plan,
    Session,
    Unavailable,
    hardware,
)
from inference_models.card import Batch
from inference_models.disk import described
from inference_models.download.store import cache_root
from inference_models.interfaces import check_at_least_one
from inference_models.progress import Report, paced
from inference_models_trt.header import read_header
from inference_models_trt.installed import (
    NAMES,
    RTX_CAPABILITIES,
    Capability,
    Installed,
    advice,
    find_installed,
)
from inference_models_trt.needs import (
    brings_host_code,
    needs_of,
    refuse_kind,
    refuse_needs,
    refuse_version,
)

_BATCH: Batch = (1, 8, 16)
_ENTRY = "engine.plan"
_SUFFIXES = (".engine", ".plan", ".trt")


def _check_level(_: Any, attribute: attrs.Attribute[Any], value: int | None) -> None:
    if value is not None and value not in range(6):
        raise InvalidOption(f"{attribute.name} {value!r} is not a number from 0 to 5")


@attrs.frozen
class TrtBackend(Backend):
    """Builds engines of ONNX files, and runs them, with TensorRT or TensorRT for RTX.

    `workspace` bounds the memory that a layer may use while it runs, in bytes.
    `optimization_level` (0–5) trades the time of a build for the speed of its engine.
    What is None is left to TensorRT.
    """

    name = "trt"
    aliases = ("tensorrt",)
    formats = ("trt",)
    rank = 400
    derives = {"onnx": "trt"}  # noqa: RUF012 - read by core, never written to
    converts = False

    workspace: int | None = attrs.field(default=None, validator=check_at_least_one)
    optimization_level: int | None = attrs.field(default=None, validator=_check_level)

    def devices(self) -> Sequence[str]:
        """The NVIDIA GPUs that the installed TensorRT has code for."""
        facts = hardware.detect()
        installed = find_installed(facts)
        found = [
            device
            for device, gpu in zip(facts.cuda_devices, facts.gpus, strict=True)
            if installed.supports(gpu.compute_capability)
        ]
        if reason := _refuse_machine(installed, facts, found):
            raise Unavailable(reason)
        return found

    def targets(self) -> Sequence[str]:
        """The GPUs here; with TensorRT for RTX kinds of GPUs, too, such as "sm_89"."""
        installed = find_installed(hardware.detect())
        if not installed.is_rtx:
            return self.devices()
        kinds = [f"sm_{major}{minor}" for major, minor in RTX_CAPABILITIES]
        try:
            return [*self.devices(), *kinds]
        except Unavailable:
            return kinds

    def refuse(self, card: ModelCard, artifact: Artifact, plan: Plan) -> str | None:
        """Why not: several graphs, another precision, or another machine's engine."""
        if len(artifact.graphs) != 1:
            return (
                "engines are run of models of one graph, and this one has "
                f"{len(artifact.graphs)}"
            )
        if plan.precision != artifact.precision:
            return (
                f"the engine is {artifact.precision} and runs as it is; "
                f"choose quantization={artifact.precision!r}"
            )
        facts, needs = hardware.detect(), artifact.needs
        gpu, kind = _gpu(plan.device, facts), _capability(plan.device)
        if needs and gpu is not None:
            return refuse_needs(needs, find_installed(facts), gpu, facts)
        if needs and kind is not None:
            return refuse_kind(needs, find_installed(facts), kind)
        return None

    def derive(
        self,
        source: Bundle,
        architecture: Architecture[Any],
        plan: Plan,
        folder: Path,
        report: Report,
    ) -> Artifact:
        """Build the engine of an ONNX file, for a GPU here or for a kind of GPUs."""
        from inference_models_trt.build import BuildSettings, build

        (path,) = map(source.path, source.artifact.graphs)
        facts = hardware.detect()
        installed, gpu = find_installed(facts), _gpu(plan.device, facts)
        capability = gpu.compute_capability if gpu else _capability(plan.device)
        if capability is None:
            raise InvalidOption(
                f"device {plan.device!r} is neither a GPU here nor such as 'sm_89'"
            )
        settings = BuildSettings(
            batch=plan.batch or _BATCH,
            capability=capability if installed.is_rtx else None,
            device=None if installed.is_rtx else _number(plan.device),
            workspace=self.workspace,
            optimization_level=self.optimization_level,
            timings=_timings(installed, capability),
        )
        built = build(path, folder / _ENTRY, settings, paced(report))
        return attrs.evolve(
            source.artifact,
            format="trt",
            graphs=dict.fromkeys(source.artifact.graphs, _ENTRY),
            files=[described(folder / _ENTRY)],
            batch=built.batch,
            needs=needs_of(installed, capability, gpu, facts),
        )

    def open(
        self, bundle: Bundle, architecture: Architecture[Any], plan: Plan
    ) -> Mapping[str, Session]:
        """One session, for the one graph; `InvalidWeights` for what is no engine."""
        ((graph, _),) = bundle.artifact.graphs.items()
        path, number = bundle.path(graph), _number(plan.device)
        _check_header(path, bundle.artifact.needs)
        from inference_models_trt.session import open_engine

        host_code = brings_host_code(bundle.artifact.needs)
        return {graph: open_engine(path, number or 0, host_code)}

    def inspect(self, path: Path) -> Facts | None:
        """The version that wrote an engine, which is all that its file tells."""
        if path.suffix.lower() not in _SUFFIXES or not path.is_file():
            return None
        header = read_header(path)
        if header is None:
            return None
        return Facts("trt", {}, {header.module: header.version})


def _refuse_machine(
    installed: Installed, facts: hardware.Hardware, found: Sequence[str]
) -> str | None:
    """Why no engine runs here, and what to type; None if one may."""
    if not facts.gpus:
        return (
            "no NVIDIA GPU is here; for one elsewhere, "
            "inference-models compile ID --backend trt --device sm_89"
        )
    if not found:
        has = ", ".join(gpu.name for gpu in facts.gpus)
        return f"{installed.name} has no code for {has}; {advice(facts)}"
    if find_spec("cuda") is None or find_spec("cuda.core") is None:
        return (
            "cuda-core is not installed, by which engines reach the GPU; "
            "pip install cuda-core cuda-bindings"
        )
    return installed.refuse_driver(facts)


def _number(device: str) -> int | None:
    """The number of a GPU here; None for a kind of GPUs, such as "sm_89"."""
    kind, _, number = device.partition(":")
    return int(number or 0) if kind == "cuda" else None


def _gpu(device: str, facts: hardware.Hardware) -> hardware.Gpu | None:
    """The GPU here that a device names, if it names one."""
    number = _number(device)
    return None if number is None else next(iter(facts.gpus[number:]), None)


def _capability(device: str) -> Capability | None:
    """(8, 9) for "sm_89"; None for what is no kind of GPUs."""
    found = re.fullmatch(r"sm_(\d+)(\d)", device)
    return (int(found[1]), int(found[2])) if found else None


def _timings(installed: Installed, capability: Capability) -> Path | None:
    """Where measurements are kept; TensorRT for RTX measures nothing in a build."""
    if installed.is_rtx:
        return None
    major, minor = capability
    name = f"{installed.module}-{installed.version}-sm_{major}{minor}"
    return cache_root() / "timings" / name


def _check_header(path: Path, needs: Mapping[str, Any]) -> None:
    """Raise `InvalidWeights` for what is no engine, or is one of another version."""
    header = read_header(path)
    if header is None:
        raise InvalidWeights(f"'{path}' is no engine of TensorRT; build it anew")
    told = {key: value for key, value in needs.items() if key not in NAMES}
    written = {**told, header.module: header.version}
    reason = refuse_version(written, find_installed(hardware.detect()))
    if reason is not None:
        raise InvalidWeights(f"'{path}' cannot be opened: {reason}; build it anew")
