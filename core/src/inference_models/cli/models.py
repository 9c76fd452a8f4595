"""`inference-models models`: every id that can be loaded by its name."""

from __future__ import annotations

import typer

from inference_models.auto import AutoModel


def command() -> None:
    """List the ids that installed packs and card folders name, and their aliases."""
    for name in AutoModel.models():
        typer.echo(name)
