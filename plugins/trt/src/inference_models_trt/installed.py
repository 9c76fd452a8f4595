"""Which TensorRT is installed, told from its files and not by importing it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import attrs

from inference_models import Unavailable
from inference_models.hardware import Hardware

Capability = tuple[int, int]

RTX_CAPABILITIES = ((7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1))
"""What TensorRT for RTX builds engines for, wherever it runs."""

NAMES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT for RTX"}
"""Modules, and what they are called."""

_OLDEST = {"tensorrt": (10, 0), "tensorrt_rtx": (1, 2)}
_OLDEST_GPU = (7, 5)
_VARIANTS = ("", "-cu12", "-cu13", "-cu12-bindings", "-cu13-bindings")


@attrs.frozen
class Installed:
    """One installed TensorRT."""

    module: str
    """"tensorrt" or "tensorrt_rtx"."""
    version: str
    """All of it, such as "10.13.0.35": an engine runs in the version that built it."""
    cuda: int | None = None
    """Major version of CUDA it was built for; None where its files do not say."""

    @property
    def name(self) -> str:
        """What it is called."""
        return NAMES[self.module]

    @property
    def is_rtx(self) -> bool:
        """Whether it builds for GPUs that are not here."""
        return self.module == "tensorrt_rtx"

    def refuse_driver(self, hardware: Hardware) -> str | None:
        """Why the driver here is too old for it, in a sentence; None if it is not."""
        driver = hardware.cuda
        if driver is None or self.cuda is None or self.cuda <= driver[0]:
            return None
        return (
            f"{self.name} {self.version} is built for CUDA {self.cuda}, and the driver "
            f"supports CUDA {driver[0]}.{driver[1]}; {advice(hardware)}"
        )

    def supports(self, capability: Capability) -> bool:
        """Whether it has code for GPUs of a compute capability."""
        if self.is_rtx:
            return capability in RTX_CAPABILITIES
        return capability >= _OLDEST_GPU


def find_installed(hardware: Hardware) -> Installed:
    """The TensorRT to use here; `Unavailable` if there is none, or it is too old.

    Of two, TensorRT for RTX is used unless a GPU is here that it has no code for.
    """
    found = {module: one for module in NAMES if (one := _find(module)) is not None}
    if not found:
        raise Unavailable(f"TensorRT is not installed; {advice(hardware)}")
    rtx = found.get("tensorrt_rtx")
    everywhere = rtx is not None and all(
        rtx.supports(gpu.compute_capability) for gpu in hardware.gpus
    )
    chosen = rtx if rtx and (everywhere or len(found) == 1) else found["tensorrt"]
    _check_age(chosen, hardware)
    return chosen


def _find(module: str) -> Installed | None:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent
    if not _has_code(module, package):
        return None
    names = list(_distributions(module, package.parent))
    version = names[0][1] if names else _written_version(package)
    if version is None:
        return None
    cuda = next((int(m[1]) for n, _ in names if (m := re.search(r"-cu(\d+)", n))), None)
    return Installed(module, version, cuda)


def _has_code(module: str, package: Path) -> bool:
    """Whether there are libraries, and not the names in them alone.

    Those of a system's own packages lie where its loader finds them.
    """
    own = any(package.glob(f"{module}*.so")) or any(package.glob(f"{module}*.pyd"))
    return own or find_spec(f"{module}_libs") is not None


def _distributions(module: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Name and version of those that put their files into this folder."""
    for variant in _VARIANTS:
        name = module.replace("_", "-") + variant
        for found in metadata.distributions(name=name, path=[str(folder)]):
            if re.match(r"\d+\.\d+", found.version):
                yield name, found.version


def _written_version(package: Path) -> str | None:
    try:
        text = (package / "__init__.py").read_text("utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"^__version__ = ['\"](\d+\.[\d.]+)['\"]", text, re.MULTILINE)
    return found[1] if found else None


def _check_age(installed: Installed, hardware: Hardware) -> None:
    oldest = _OLDEST[installed.module]
    major, minor = installed.version.split(".")[:2]
    if (int(major), int(re.match(r"\d*", minor)[0] or 0)) < oldest:  # type: ignore[index]
        raise Unavailable(
            f"{installed.name} {installed.version} is older than "
            f"{oldest[0]}.{oldest[1]}; {advice(hardware)}"
        )


def advice(hardware: Hardware) -> str:
    """What to type for the GPUs and the driver that are here."""
    extra = "cu12" if hardware.cuda and hardware.cuda < (13, 0) else "cu13"
    gpus = [gpu.compute_capability for gpu in hardware.gpus]
    rtx = f"pip install tensorrt-rtx-{extra}"
    if not gpus:
        return f"{rtx}, which builds engines for other machines"
    other = f", or {rtx}" if all(gpu in RTX_CAPABILITIES for gpu in gpus) else ""
    return f"pip install tensorrt-{extra}{other}"
