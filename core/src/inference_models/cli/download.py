"""`inference-models download ID…`: fetch models now, to run them later or offline."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from inference_models.card import Artifact, ModelCard
from inference_models.cli.app import (
    ApiKey,
    Backend,
    Device,
    ModelType,
    Precision,
    Revision,
)
from inference_models.download.store import Store
from inference_models.errors import InvalidOption, NoBackend
from inference_models.interfaces import Access
from inference_models.negotiation import find
from inference_models.negotiation.constraints import Constraints
from inference_models.negotiation.negotiate import negotiate
from inference_models.negotiation.options import Cached
from inference_models.negotiation.routes import usable, usable_formats
from inference_models.negotiation.search import check_base
from inference_models.registry import installed
from inference_models.trust import Consent

Ids = Annotated[list[str], typer.Argument(help="Ids of models.")]
Format = Annotated[
    Optional[str],  # noqa: UP045 - read by typer on Python 3.10
    typer.Option(
        "--format", help="Fetch this format, for another machine; else what runs here."
    ),
]


def command(
    ids: Ids,
    backend: Backend = None,
    device: Device = None,
    quantization: Precision = None,
    form: Format = None,
    model_type: ModelType = None,
    revision: Revision = None,
    api_key: ApiKey = None,
) -> None:
    """Fetch what would run here, so that loading it needs no network."""
    if form is not None and (backend or device):
        raise InvalidOption(
            f"--format {form} is for another machine, and --backend and --device are "
            "for this one; leave out either"
        )
    constraints = Constraints.read(backend, device, quantization, None, None)
    # What is consented to for another machine is said there, where it is loaded.
    consent = Consent(untrusted=form is not None)
    access = Access(api_key, revision, model_type=model_type, consent=consent)
    for model_id in ids:
        typer.echo(f"{model_id}: {_download(model_id, constraints, form, access)}")


def _download(
    model_id: str,
    constraints: Constraints,
    form: str | None,
    access: Access,
    above: int = 0,
) -> str:
    found = find.find(model_id, installed(), access, None)
    if form is None:
        artifact = _best(found.card, constraints)
    else:
        artifact = _of(found.card, form, constraints.precision)
    folder = Store().folder(artifact, found.request)
    if artifact.base is not None:
        check_base(found.card, artifact.base, above)
        access = found.access_to_base()
        _download(artifact.base, Constraints(), artifact.format, access, above + 1)
    return str(folder)


def _best(card: ModelCard, constraints: Constraints) -> Artifact:
    order = negotiate(card, constraints, installed(), lambda option: Cached()).order
    if not order:
        raise NoBackend(
            f"nothing here can run {card.id!r}; inference-models explain {card.id} "
            f"says why, and --format takes one of {usable_formats(card)}"
        )
    return order[0].artifact


def _of(card: ModelCard, form: str, precision: str | None) -> Artifact:
    """The first in a format that can be used, and in this precision if there is one.

    A backend may run it in others.
    """
    found = usable(card, form)
    if found:
        return min(found, key=lambda artifact: artifact.precision != precision)
    raise InvalidOption(
        f"{card.id!r} has no weights in format {form!r}; it has {usable_formats(card)}"
    )
