"""Which PyTorch is installed, told from its files and not by importing it."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import attrs

from inference_models import Unavailable
from inference_models.hardware import Hardware

# CVE-2025-32434 and CVE-2026-24747 let a checkpoint run code in spite of
# `weights_only=True`; this is the first release without both.
_SAFE_UNPICKLING = (2, 10)


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

    def refuse_pickle(self) -> str | None:
        """Why this version must not read `.pth` files; None if it may."""
        found = tuple(int(n) for n in re.findall(r"\d+", self.version)[:2])
        if found >= _SAFE_UNPICKLING:
            return None
        return (
            f"torch {self.version} has known holes through which a .pth file can run "
            'code; pip install -U "torch>=2.10", or use a .safetensors file'
        )


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
