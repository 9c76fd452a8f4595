"""The backend "trt": engines of TensorRT, which is imported on first use."""

from __future__ import annotations

from inference_models import Backend, hookimpl
from inference_models_trt.backend import TrtBackend


@hookimpl
def backends() -> list[type[Backend]]:
    """The TensorRT backend."""
    return [TrtBackend]
