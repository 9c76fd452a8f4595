"""`inference-models explain ID`: what would run here, and why not the rest."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from inference_models.auto import AutoModel

Backend = Annotated[Optional[str], typer.Option(help="Ask for one backend.")]  # noqa: UP045 - read by typer on Python 3.10
Device = Annotated[Optional[str], typer.Option(help="Ask for one device.")]  # noqa: UP045
Precision = Annotated[Optional[str], typer.Option(help="fp32, fp16, bf16 or int8.")]  # noqa: UP045
ModelType = Annotated[Optional[str], typer.Option(help="What kind a bare file is.")]  # noqa: UP045
ModelId = Annotated[str, typer.Argument(help="An id, a folder or a file of weights.")]


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
