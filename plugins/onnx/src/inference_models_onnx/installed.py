"""Which ONNX Runtime is installed, told from its files and not by importing it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import attrs

from inference_models import Unavailable
from inference_models.hardware import Hardware

# The distributions of one import package: the last one installed overwrites the others.
_DISTRIBUTIONS = (
    "onnxruntime",
    "onnxruntime-directml",
    "onnxruntime-gpu",
    "onnxruntime-migraphx",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-rocm",
)

# The first that exchanges arrays by DLPack.
_OLDEST = (1, 21)

# Newest opset of each minor version, found by opening models of every opset with it.
_OPSETS = {21: 22, 22: 22, 23: 23, 24: 25, **dict.fromkeys(range(25, 32), 26), 32: 28}


@attrs.frozen
class Installed:
    """The installed ONNX Runtime."""

    version: tuple[int, int] | None
    """(1, 31) for 1.31.1; None where its files do not say."""
    gpu: bool
    """Whether it has code for NVIDIA GPUs."""
    cuda: int | None
    """Major version of CUDA it was built for; None where its files do not say."""
    distributions: tuple[str, ...]
    """All that claim to be installed, though only one can be."""

    def refuse_opset(self, opset: object) -> str | None:
        """Why a model of this opset cannot run, in a sentence; None if it may."""
        if self.version is None or not isinstance(opset, int):
            return None
        newest = _OPSETS.get(self.version[1]) if self.version[0] == 1 else None
        if newest is None or opset <= newest:
            return None
        return (
            f"the model has opset {opset}, and ONNX Runtime {_dotted(self.version)} "
            f"knows opsets up to {newest}; pip install -U {self.distributions[0]}, or "
            "export the model with an older opset"
        )

    def refuse_cuda(self, hardware: Hardware) -> str | None:
        """Why this build cannot run on the GPUs here, in a sentence; None if it may."""
        driver = hardware.cuda or (0, 0)
        if len(self.distributions) > 1:
            names = " and ".join(self.distributions)
            reason = f"{names} are installed at once and overwrite each other's files"
        elif not self.gpu:
            reason = "the ONNX Runtime installed here has no code for NVIDIA GPUs"
        elif self.cuda is not None and driver[0] < self.cuda:
            reason = (
                f"ONNX Runtime here is built for CUDA {self.cuda}, and the driver "
                f"supports CUDA {_dotted(driver)}"
            )
        else:
            return None
        return (
            f"{reason}; pip uninstall -y {' '.join(self.distributions)}, then "
            f'pip install "inference-models-onnx[{_extra(driver)}]"'
        )

    def advise(self, hardware: Hardware) -> str | None:
        """Why it leaves the GPUs here idle, and what to type; None if it does not."""
        # For CUDA 12, which most Jetsons have, no build for their CPUs is published.
        if not hardware.gpus or hardware.jetson:
            return None
        return self.refuse_cuda(hardware)


def find_installed() -> Installed:
    """The ONNX Runtime installed here; `Unavailable` if it is missing or too old."""
    spec = find_spec("onnxruntime")
    if spec is not None and spec.origin is None:
        # Two builds share their files, so uninstalling one leaves the other bare.
        raise Unavailable(
            "ONNX Runtime lacks files, as after one of two builds was uninstalled; "
            "pip install --force-reinstall onnxruntime, or the build that you want"
        )
    if spec is None or spec.origin is None:
        raise Unavailable(
            "ONNX Runtime is not installed; "
            'pip install "inference-models-onnx[cpu]", or cu12 or cu13 for NVIDIA GPUs'
        )
    installed = _read(Path(spec.origin).parent)
    if installed.version is not None and installed.version < _OLDEST:
        raise Unavailable(
            f"ONNX Runtime {_dotted(installed.version)} is older than "
            f"{_dotted(_OLDEST)}; pip install -U {installed.distributions[0]}"
        )
    return installed


def _read(package: Path) -> Installed:
    distributions = tuple(_in_folder(package.parent))
    facts = _build_facts(package / "capi" / "build_and_package_info.py")
    version = re.match(r"(\d+)\.(\d+)", facts.get("__version__", ""))
    cuda = re.match(r"\d+", facts.get("cuda_version", ""))
    return Installed(
        version=(int(version[1]), int(version[2])) if version else None,
        gpu=any((package / "capi").glob("*onnxruntime_providers_cuda*")),
        cuda=int(cuda[0]) if cuda else None,
        distributions=distributions or ("onnxruntime",),
    )


def _build_facts(path: Path) -> dict[str, str]:
    """Name and version that a build writes down, as `name = 'value'` lines."""
    try:
        text = path.read_text("utf-8", errors="replace")
    except OSError:
        return {}
    return dict(re.findall(r"^(\w+) = ['\"]([^'\"]*)['\"]", text, re.MULTILINE))


def _in_folder(folder: Path) -> Iterator[str]:
    """The distributions that put their files into this folder."""
    for name in _DISTRIBUTIONS:
        if any(metadata.distributions(name=name, path=[str(folder)])):
            yield name


def _extra(driver: tuple[int, int]) -> str:
    return "cu13" if driver >= (13, 0) else "cu12"


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
