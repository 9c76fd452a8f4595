"""`inference-models explain ID`: what would run here, and why not the rest."""

from __future__ import annotations

import typer

from inference_models.auto import AutoModel
from inference_models.cli.app import Backend, Device, ModelId, ModelType, Precision


def command(
    model_id: ModelId,
    backend: Backend = None,
    device: Device = None,
    quantization: Precision = None,
    model_type: ModelType = None,
) -> None:
    """Show which backend would run a model here, and why not the others."""
    explanation = AutoModel.explain(
        model_id,
        backend=backend,
        device=device,
        quantization=quantization,
        model_type=model_type,
    )
    typer.echo(str(explanation))
    if explanation.best is None:
        raise typer.Exit(1)
