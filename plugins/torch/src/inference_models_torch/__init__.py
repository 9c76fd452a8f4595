"""The backend "torch": PyTorch weights, run and exported; torch comes on first use."""

from __future__ import annotations

from inference_models import Backend, hookimpl
from inference_models_torch.backend import TorchBackend


@hookimpl
def backends() -> list[type[Backend]]:
    """The PyTorch backend."""
    return [TorchBackend]
