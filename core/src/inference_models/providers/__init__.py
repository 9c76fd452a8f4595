"""The weights providers that core brings, through the same hook as anyone's."""

from __future__ import annotations

from inference_models.hookspecs import hookimpl
from inference_models.interfaces import WeightsProvider
from inference_models.providers.cards import CardsProvider
from inference_models.providers.local import LocalProvider


@hookimpl
def weights_providers() -> list[type[WeightsProvider]]:
    """Local paths first, then cards from folders and from installed packs."""
    return [LocalProvider, CardsProvider]
