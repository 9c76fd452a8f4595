"""TensorRT, imported by whichever name it is installed."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from inference_models import Unavailable, hardware
from inference_models_trt.installed import find_installed

if TYPE_CHECKING:
    import tensorrt as trt


def _imported() -> Any:
    installed = find_installed(hardware.detect())
    try:
        return importlib.import_module(installed.module)
    except (ImportError, OSError) as error:
        raise Unavailable(
            f"{installed.name} is installed and cannot be imported: {error}"
        ) from error


if not TYPE_CHECKING:
    trt = _imported()

__all__ = ["trt"]
