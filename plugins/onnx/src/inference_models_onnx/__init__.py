"""The backend "onnx": ONNX files on ONNX Runtime, which is imported on first use."""

from __future__ import annotations

from inference_models import Backend, hookimpl
from inference_models_onnx.backend import OnnxBackend


@hookimpl
def backends() -> list[type[Backend]]:
    """The ONNX Runtime backend."""
    return [OnnxBackend]
