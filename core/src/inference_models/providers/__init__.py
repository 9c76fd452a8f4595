"""The weights providers that core brings, through the same hook as anyone's."""

from __future__ import annotations

from inference_models.hookspecs import hookimpl
from inference_models.interfaces import WeightsProvider
from inference_models.providers.cards import CardsProvider
from inference_models.providers.local import LocalProvider
from inference_models.providers.roboflow import RoboflowProvider
from inference_models.providers.urls import UrlProvider


@hookimpl
def weights_providers() -> list[type[WeightsProvider]]:
    """Local paths and URLs, cards of folders and of installed packs, then Roboflow."""
    return [LocalProvider, UrlProvider, CardsProvider, RoboflowProvider]
