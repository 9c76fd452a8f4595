"""Hugging Face: models of the Hub, the backend "hf", and models no pack knows."""

from __future__ import annotations

from typing import Any

from inference_models import Architecture, Backend, WeightsProvider, hookimpl
from inference_models_hf.backend import HfBackend
from inference_models_hf.hub import HubProvider
from inference_models_hf.models import HfClassifier, HfDetector


@hookimpl
def backends() -> list[type[Backend]]:
    """The backend of transformers."""
    return [HfBackend]


@hookimpl
def architectures() -> list[type[Architecture[Any]]]:
    """Detectors and classifiers of transformers that no pack knows."""
    return [HfDetector, HfClassifier]


@hookimpl
def weights_providers() -> list[type[WeightsProvider]]:
    """The Hugging Face Hub."""
    return [HubProvider]
