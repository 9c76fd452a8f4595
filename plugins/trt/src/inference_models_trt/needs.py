"""What an engine needs of a machine: written down when it is built, and asked again.

Engines of others, such as those of Roboflow's packages, say a little more or less.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from inference_models.hardware import Gpu, Hardware
from inference_models_trt.installed import NAMES, Capability, Installed


def needs_of(
    installed: Installed, capability: Capability, gpu: Gpu | None, hardware: Hardware
) -> dict[str, Any]:
    """What an engine needs that is built now, for a GPU here or of this capability.

    TensorRT tunes an engine to one model of GPU; one of TensorRT for RTX is finished by
    the driver where it is opened, on any GPU of the capability.
    """
    found: dict[str, Any] = {
        installed.module: installed.version,
        "compute_capability": dotted(capability),
    }
    if gpu is not None and not installed.is_rtx:
        found["device"] = gpu.name
    if gpu is not None and hardware.cuda is not None:
        found["cuda_driver"] = hardware.cuda[0]
    return found


def refuse_needs(
    needs: Mapping[str, Any], installed: Installed, gpu: Gpu, hardware: Hardware
) -> str | None:
    """Why an engine cannot run on a GPU, in a sentence; None if it may."""
    if misread := _misread(needs):
        return misread
    reasons = (*_gpu(needs, gpu), *_machine(needs, hardware))
    return refuse_version(needs, installed) or next(iter(reasons), None)


def refuse_version(needs: Mapping[str, Any], installed: Installed) -> str | None:
    """Why the installed TensorRT does not read an engine; None if it may."""
    wrote = {module: needs[module] for module in NAMES if module in needs}
    here = wrote.get(installed.module)
    if not wrote or (here is not None and _runs(here, needs, installed)):
        return None
    module, version = next(iter(wrote.items()))
    return (
        f"the engine is for {NAMES[module]} {version}, and {installed.name} "
        f"{installed.version} is installed"
    )


def refuse_kind(
    needs: Mapping[str, Any], installed: Installed, capability: Capability
) -> str | None:
    """Why an engine is none for GPUs of a kind, wherever they are; None if it is."""
    if misread := _misread(needs):
        return misread
    wanted, kind = needs.get("compute_capability"), dotted(capability)
    if wanted not in (None, kind):
        return f"the engine is for compute capability {wanted}, and not for {kind}"
    return refuse_version(needs, installed)


def _misread(needs: Mapping[str, Any]) -> str | None:
    """What a card says that is no text where it must be one."""
    for key in (*NAMES, "device", "l4t"):
        if not isinstance(needs.get(key), (str, type(None))):
            return (
                f"its card needs {key!r} {needs[key]!r:.80}, which is no text; correct "
                "the card"
            )
    return None


def brings_host_code(needs: Mapping[str, Any]) -> bool:
    """Whether an engine for later versions brings the code that runs it there."""
    forward = needs.get("forward_compatible") is True
    return forward and needs.get("lean_runtime_excluded") is not True


def dotted(version: tuple[int, ...]) -> str:
    """(8, 9) as "8.9"."""
    return ".".join(map(str, version))


def _runs(version: str, needs: Mapping[str, Any], installed: Installed) -> bool:
    """Whether this TensorRT is the one that wrote it, or a later one that may read it.

    A version may be written in fewer parts than the installed one's.
    """
    wrote, here = version.split("."), installed.version.split(".")
    if here[: len(wrote)] == wrote:
        return True
    later = _numbers(here) >= _numbers(wrote) and here[0] == wrote[0]
    return later and brings_host_code(needs)


def _numbers(parts: list[str]) -> list[int]:
    return [int(part) for part in parts if part.isdigit()]


def _gpu(needs: Mapping[str, Any], gpu: Gpu) -> Iterator[str]:
    wanted, here = needs.get("compute_capability"), dotted(gpu.compute_capability)
    if wanted not in (None, here):
        yield (
            f"the engine is for compute capability {wanted}, and {gpu.name} has {here}"
        )
    named = needs.get("device")
    anywhere = needs.get("same_compute_capability") is True
    if named is not None and not anywhere and _plain(named) != _plain(gpu.name):
        yield f"the engine is for {named}, and the GPU here is {gpu.name}"


def _plain(name: str) -> str:
    """A GPU's name as everybody writes it: "Tesla T4" is "tesla-t4"."""
    return name.lower().replace(" ", "-")


def _machine(needs: Mapping[str, Any], hardware: Hardware) -> Iterator[str]:
    driver, newest = needs.get("cuda_driver"), (hardware.cuda or (None,))[0]
    if driver not in (None, newest):
        yield f"the engine is for a driver of CUDA {driver}, and this one has {newest}"
    board = "jetson" if hardware.jetson else "gpu-server"
    if needs.get("machine", board) != board:
        yield f"the engine is for a {needs['machine']}, and this machine is none"
    release = needs.get("l4t")
    here = hardware.l4t
    if release and here and release.split(".")[:2] != here.split(".")[:2]:
        yield f"the engine is for L4T {release}, and this one is {here}"
