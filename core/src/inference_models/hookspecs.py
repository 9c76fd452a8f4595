"""The three hooks that a plugin module may implement. Each returns classes."""

from __future__ import annotations

from typing import Any

import pluggy

from inference_models.interfaces import Architecture, Backend, WeightsProvider

hookspec = pluggy.HookspecMarker("inference_models")
hookimpl = pluggy.HookimplMarker("inference_models")
"""Marks a module's function `backends`, `architectures` or `weights_providers`."""


@hookspec
def backends() -> list[type[Backend]]:
    """Classes that run artifacts of some formats."""


@hookspec
def architectures() -> list[type[Architecture[Any]]]:
    """Classes that know one family of models each."""


@hookspec
def weights_providers() -> list[type[WeightsProvider]]:
    """Classes that know where some models are."""
