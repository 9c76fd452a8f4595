"""`inference-models explain ID`: what would run here, and why not the rest."""

from __future__ import annotations

import typer

from inference_models.auto import AutoModel
from inference_models.cli.app import (
    ApiKey,
    Backend,
    Device,
    ModelId,
    ModelType,
    Precision,
    Revision,
)


def command(
    model_id: ModelId,
    backend: Backend = None,
    device: Device = None,
    quantization: Precision = None,
    model_type: ModelType = None,
    revision: Revision = None,
    api_key: ApiKey = None,
) -> None:
    """Show which backend would run a model here, and why not the others."""
    explanation = AutoModel.explain(
        model_id,
        backend=backend,
        device=device,
        quantization=quantization,
        model_type=model_type,
        revision=revision,
        api_key=api_key,
    )
    typer.echo(str(explanation))
    if explanation.best is None:
        raise typer.Exit(1)
