"""Which PyTorch is installed, told from its files and not by importing it."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import attrs

from inference_models import Unavailable
from inference_models.hardware import Gpu, Hardware

# CVE-2025-32434 and CVE-2026-24747 let a checkpoint run code in spite of
# `weights_only=True`; this is the first release without both.
_SAFE_UNPICKLING = (2, 10)

_INDEX = "https://download.pytorch.org/whl"

# Of PyTorch 2.10 to 2.14, builds for CUDA 12.6 have code for GPUs up to Hopper, and
# those for CUDA 13 from Turing on. For Blackwell on CUDA 12 there is one more, for
# CUDA 12.8, which ends with 2.11.
_OLDEST_DRIVER = (12, 0)
_TURING = (7, 5)
_BLACKWELL = (10, 0)

_JETSON = (
    "https://docs.nvidia.com/deeplearning/frameworks/install-pytorch-jetson-platform/"
)


@attrs.frozen
class Installed:
    """The installed PyTorch."""

    version: str
    cuda: str | None
    """CUDA version it was built for, such as "12.8"; None for a build without."""

    def cuda_devices(self, hardware: Hardware) -> list[str]:
        """GPUs that this build reaches through the driver here."""
        # A driver serves every CUDA version up to the major version it supports.
        built_for = int(self.cuda.partition(".")[0]) if self.cuda else None
        driver = hardware.cuda
        if built_for is None or driver is None or driver[0] < built_for:
            return []
        return hardware.cuda_devices

    def advise(self, hardware: Hardware) -> str | None:
        """Why it leaves the GPU here idle, and what to type; None if it does not."""
        if not hardware.gpus or self.cuda_devices(hardware):
            return None
        if self.cuda is None:
            name = hardware.gpus[0].name
            reason = f"has no code for the NVIDIA GPU here ({name})"
        else:
            newest = ".".join(map(str, hardware.cuda or (0, 0)))
            reason = (
                f"is built for CUDA {self.cuda}, and the driver here supports {newest}"
            )
        return f"torch {self.version} {reason}; {self._remedy(hardware)}"

    def _remedy(self, hardware: Hardware) -> str:
        driver = hardware.cuda or (0, 0)
        if hardware.jetson:
            return f"install NVIDIA's build for Jetson, {_JETSON}"
        if driver < _OLDEST_DRIVER:
            return "update the driver to one for CUDA 12.6 or newer"
        # Without the first command pip keeps what is installed.
        command = (
            "pip uninstall -y torch, then pip install torch "
            f"--index-url {_INDEX}/{_build(hardware.gpus[0], driver)}"
        )
        return command if self.cuda is None else f"update the driver, or {command}"

    def refuse_pickle(self) -> str | None:
        """Why this version must not read `.pth` files; None if it may."""
        found = tuple(int(n) for n in re.findall(r"\d+", self.version)[:2])
        if found >= _SAFE_UNPICKLING:
            return None
        return (
            f"torch {self.version} has known holes through which a .pth file can run "
            'code; pip install -U "torch>=2.10", or use a .safetensors file'
        )


def _build(gpu: Gpu, driver: tuple[int, int]) -> str:
    """The newest build that has code for a GPU and suits the driver."""
    if driver >= (13, 0) and gpu.compute_capability >= _TURING:
        return "cu130"
    return "cu128" if gpu.compute_capability >= _BLACKWELL else "cu126"


def find_installed() -> Installed:
    """The PyTorch installed here; `Unavailable` if there is none."""
    spec = find_spec("torch")
    folders = spec.submodule_search_locations if spec is not None else None
    if not folders:
        raise Unavailable(
            "PyTorch is not installed; pip install inference-models-torch"
        )
    return read_version(Path(folders[0]) / "version.py")


def read_version(path: Path) -> Installed:
    """What a build writes down about itself, as `name: type = 'value'` lines."""
    try:
        text = path.read_text("utf-8", errors="replace")
    except OSError as error:
        raise Unavailable(
            f"the PyTorch installed here is damaged, it has no '{path}'; "
            "pip install --force-reinstall torch"
        ) from error
    pattern = r"^(\w+)(?::[^=]*)? = ['\"]([^'\"]*)['\"]"
    values = dict(re.findall(pattern, text, re.MULTILINE))
    return Installed(values.get("__version__", "0"), values.get("cuda"))
