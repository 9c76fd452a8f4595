"""`inference-models compile ID`: build now what a backend runs best."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from inference_models.auto import AutoModel
from inference_models.cli.app import ApiKey, ModelId, ModelType, Precision, Revision
from inference_models.errors import InvalidOption

Backend = Annotated[str, typer.Option(help="The backend whose format is built.")]
Device = Annotated[
    Optional[str],  # noqa: UP045 - read by typer on Python 3.10
    typer.Option(help="A device, or a kind of device elsewhere, such as sm_89."),
]
BatchSize = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="The largest batch, or MIN,MAX, or MIN,BEST,MAX."),
]
Calibration = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(help="An image to compare with the source on; may be repeated."),
]


def command(
    model_id: ModelId,
    backend: Backend,
    device: Device = None,
    quantization: Precision = None,
    model_type: ModelType = None,
    revision: Revision = None,
    api_key: ApiKey = None,
    batch_size: BatchSize = None,
    calibration: Calibration = None,
) -> None:
    """Build what a backend runs best, compare it with its source, and keep it."""
    bundle = AutoModel.compile(
        model_id,
        backend=backend,
        device=device,
        quantization=quantization,
        model_type=model_type,
        revision=revision,
        api_key=api_key,
        batch_size=None if batch_size is None else _sizes(batch_size),
        calibration=calibration or None,
    )
    artifact = bundle.artifact
    typer.echo(f"{model_id}: {artifact.format}, {artifact.precision}: {bundle.folder}")


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError:
        raise InvalidOption(
            f"--batch-size {text!r} is not a number, nor numbers such as 1,8,16"
        ) from None
