"""From the artifacts of a card to what a backend opens: ready, or derived in steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inference_models.card import Artifact, ModelCard, Plan
from inference_models.errors import told
from inference_models.interfaces import Backend

Steps = tuple[tuple[Backend, str], ...]
"""Backends that derive one after the other, each with the format it writes."""

Route = tuple[int, Artifact, Steps]
"""An artifact of the card with its number, and the steps to what a backend opens."""


def opened_format(artifact: Artifact, steps: Steps) -> str:
    """The format that the backend opens at the end of a route."""
    return steps[-1][1] if steps else artifact.format


def refusal(
    backend: Backend, card: ModelCard, artifact: Artifact, plan: Plan
) -> str | None:
    """What `refuse` says; `TypeError` for what is neither a sentence nor None."""
    found: Any = backend.refuse(card, artifact, plan)
    if not isinstance(found, (str, type(None))):
        raise TypeError(f"it returned {found!r:.80}, and not a sentence or None")
    return found


def usable(card: ModelCard, form: str | None = None) -> list[Artifact]:
    """The artifacts that something may be able to use, of all formats or of one."""
    return [
        artifact
        for artifact in card.artifacts
        if artifact.unsupported is None and form in (None, artifact.format)
    ]


def usable_formats(card: ModelCard) -> str:
    """The formats of these artifacts, in words."""
    return ", ".join(sorted({artifact.format for artifact in usable(card)})) or "none"


def ready_routes(card: ModelCard, backend: Backend) -> list[Route]:
    """Artifacts that the backend can open as they are."""
    return [
        (number, artifact, ())
        for number, artifact in enumerate(card.artifacts)
        if artifact.format in backend.formats and artifact.unsupported is None
    ]


def derived_routes(
    card: ModelCard, backend: Backend, backends: Sequence[Backend]
) -> list[Route]:
    """Artifacts that others can write in one of the backend's formats."""
    routes = []
    for number, artifact in enumerate(card.artifacts):
        if artifact.unsupported is None and artifact.format not in backend.formats:
            steps = chain(artifact.format, backend.formats, backends)
            if steps:
                routes.append((number, artifact, steps))
    return routes


def can_open(card: ModelCard, backend: Backend, backends: Sequence[Backend]) -> bool:
    """Whether the backend may open something of the card, perhaps derived."""
    return bool(ready_routes(card, backend) or derived_routes(card, backend, backends))


def chain(source: str, targets: Sequence[str], backends: Sequence[Backend]) -> Steps:
    """The shortest way from one format to any of `targets`: (deriver, format) steps.

    The search goes backwards from the targets, so that only backends that write
    something on the way are asked whether they can.
    """
    paths: list[tuple[str, Steps]] = [(target, ()) for target in targets]
    seen = set(targets)
    for form, steps in paths:
        if form == source:
            return steps
        for backend in sorted(backends, key=lambda b: (-b.rank, b.name)):
            for read, written in backend.derives.items():
                if written == form and read not in seen and _can_derive(backend, form):
                    seen.add(read)
                    paths.append((read, ((backend, form), *steps)))
    return ()


def lacking(
    card: ModelCard, backend: Backend, backends: Sequence[Backend]
) -> list[str]:
    """What would have to be installed to derive what a backend opens."""
    formats = {artifact.format for artifact in usable(card)}
    found = [
        _lack(deriver, written)
        for deriver in backends
        for read, written in deriver.derives.items()
        if read in formats and written in backend.formats and _available(deriver)
    ]
    return [*dict.fromkeys(filter(None, found))]


def _can_derive(backend: Backend, form: str) -> bool:
    return _available(backend) and _lack(backend, form) is None


def _lack(backend: Backend, form: str) -> str | None:
    try:
        return backend.lacks(form)
    except Exception as error:  # noqa: BLE001 - a plugin's fault must not stop the others
        return f"lacks() of {backend.name!r} failed: {told(error)}"


def _available(backend: Backend) -> bool:
    try:
        return bool(backend.targets())
    except (Exception, SystemExit):  # noqa: BLE001 - why is said where it is to run
        return False
