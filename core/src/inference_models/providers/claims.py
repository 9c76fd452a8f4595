"""Whose a bare file of weights is: backends read it, and an architecture claims it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import attrs

from inference_models.card import Artifact, Facts, File, ModelCard
from inference_models.download.sources import Request, check_openable
from inference_models.download.store import Store
from inference_models.errors import (
    InvalidOption,
    InvalidWeights,
    did_you_mean,
    told,
)
from inference_models.interfaces import Access, Architecture
from inference_models.negotiation.hints import hint_for_file, known_suffixes
from inference_models.providers.cards import CardsProvider
from inference_models.registry import Registry, installed, returned

log = logging.getLogger("inference_models")

CARD = "card.json"

_MOST_COLUMNS = 100_000  # a file that says more asks for memory


def suffixes() -> list[str]:
    """Suffixes of files that can stand alone and say what they are, sorted.

    Those of first-party backends are known where the backend is not, whose hint is told
    once the file is here.
    """
    backends = installed().backends.values()
    own = (suffix for cls in backends for suffix in cls.suffixes)
    return sorted({*known_suffixes(), *own})


def is_weights(name: str) -> bool:
    """Whether a name is that of a file that can stand alone and say what it is."""
    return PurePosixPath(name).suffix.lower() in suffixes()


def of_file(path: Path, model_type: str | None) -> ModelCard:
    """The card of a file, with that file in it; `model_type` says what it is, if given.

    Raises `InvalidWeights` if nothing installed reads or claims it.
    """
    registry = installed()
    inspected = _inspect(path, registry)
    if model_type is not None:
        return _of_type(path, inspected, registry, model_type)
    claimed = _best_claim(inspected, registry)
    if claimed is None:
        asked = registry.architectures
        raise InvalidWeights(_unclaimed(path, inspected, registry, asked))
    return _filled(*claimed, path)


def of_folder(folder: Path) -> ModelCard | None:
    """The card of a folder that is one model, as some frameworks write them.

    Its artifacts' files are those that the claim names, and those that are there of
    what its architecture reads. None if no backend reads the folder; raises
    `InvalidWeights` if one does and nothing claims it.
    """
    registry = installed()
    inspected = _inspect(folder, registry)
    if not inspected:
        return None
    claimed = _best_claim(inspected, registry)
    if claimed is None:
        known = ", ".join(sorted(registry.architectures)) or "none"
        said = inspected[0].metadata.get("about", inspected[0].format)
        sentence = (
            f"no installed architecture ({known}) claims {str(folder)!r}, {said}; put "
            f"a {CARD} there"
        )
        raise InvalidWeights(registry.excused(sentence))
    there = [name for name in reads(claimed[0]) if (folder / name).is_file()]
    return with_files(claimed[0], there)


def reads(card: ModelCard) -> tuple[str, ...]:
    """The files beside weights that a card's architecture reads where they are."""
    cls = installed().architecture(card.architecture)
    return () if cls is None else cls.reads


def with_files(card: ModelCard, names: Iterable[str]) -> ModelCard:
    """The card whose artifacts that name any files have these, too."""
    return attrs.evolve(
        card, artifacts=[_with_files(each, list(names)) for each in card.artifacts]
    )


def _with_files(artifact: Artifact, names: Sequence[str]) -> Artifact:
    named = {file.name for file in artifact.files}
    more = [File(name) for name in names if name not in named] if named else []
    return attrs.evolve(artifact, files=[*artifact.files, *more])


def _best_claim(
    inspected: Sequence[Facts], registry: Registry
) -> tuple[ModelCard, Facts] | None:
    """The card of the highest rank that an architecture makes of what was read."""
    claims = [
        (cls.rank, name, card, facts)
        for facts in inspected
        for name, cls in registry.architectures.items()
        if (card := claim(cls, facts)) is not None
    ]
    if not claims:
        return None
    rank, name, card, facts = max(claims, key=lambda claim: (claim[0], claim[1]))
    rivals = sorted({other for at, other, *_ in claims if at == rank} - {name})
    if rivals:
        log.warning(
            "architectures %s claim this file alike, and %r serves it; model_type= "
            "names another",
            ", ".join(map(repr, [*rivals, name])),
            name,
        )
    return card, facts


def of_fetched_file(file: File, request: Request, access: Access) -> ModelCard:
    """The card of one file of weights, which is fetched to see what is in it.

    Without a hash it is taken as it first comes, and held to that from then on.
    """
    store = Store(first_use=not file.is_hashed)
    asked = Artifact("any", {"main": file.name}, (file,))
    path = store.folder(asked, request) / file.name
    card = of_file(path, access.model_type)
    fetched = attrs.evolve(file, size=path.stat().st_size, sha256=store.digest(file))
    artifact = attrs.evolve(card.artifacts[0], files=(fetched,))
    return attrs.evolve(card, id=file.sources[0], artifacts=(artifact,))


def _of_type(
    path: Path, inspected: list[Facts], registry: Registry, model_type: str
) -> ModelCard:
    """The card of a file that the user says is like a known model.

    What the file tells of itself stands, but for the known model's config.
    """
    known = CardsProvider().find(model_type, Access())
    cls = registry.architecture(known.architecture if known else model_type)
    if cls is None:
        raise InvalidOption(_no_such_type(model_type, registry))
    for facts in inspected:
        card = claim(cls, facts)
        if card is not None:
            config = {**card.config, **(known.config if known else {})}
            return _filled(attrs.evolve(card, config=config), facts, path)
    if not inspected or known is None:
        raise InvalidWeights(_unclaimed(path, inspected, registry, [cls.name]))
    alike = [a for a in known.artifacts if a.format == inspected[0].format]
    like = attrs.evolve(
        known,
        artifacts=alike,
        license=None,
        aliases=(),
        labels=_fitting(known, inspected[0]),
    )
    return _filled(like, inspected[0], path)


def _fitting(known: ModelCard, facts: Facts) -> tuple[str | None, ...]:
    """The labels of a known model, or numbers for a classifier's file with others."""
    columns = _columns(facts) if "classification" in known.task else None
    if columns in (None, len(known.labels)):
        return tuple(known.labels)
    return tuple(f"class_{column}" for column in range(columns))


def _columns(facts: Facts) -> int | None:
    """How many scores an image gets, if the one output (B, C) of a file says so."""
    outputs = facts.metadata.get("outputs")
    if not isinstance(outputs, list) or len(outputs) != 1:
        return None
    shape = facts.tensors[outputs[0]].shape
    columns = shape[1] if len(shape) == 2 else None
    if isinstance(columns, int) and 0 < columns <= _MOST_COLUMNS:
        return columns
    return None


def _no_such_type(model_type: str, registry: Registry) -> str:
    ids = [card.id for card in CardsProvider().models()]
    families = ", ".join(sorted(registry.architectures))
    names = sorted({*ids, *registry.architectures})
    return (
        f"model_type {model_type!r} is neither the id of a known model nor an "
        f"installed architecture{did_you_mean(model_type, names)}; AutoModel.models() "
        f"lists ids, and the architectures are {families}"
    )


def _inspect(path: Path, registry: Registry) -> list[Facts]:
    """What each backend reads in the file; what they complain of, if none can."""
    check_openable(path)
    if not os.access(path, os.R_OK):
        raise InvalidWeights(f"{str(path)!r} may not be read by this user")
    found: list[Facts] = []
    errors: list[Exception] = []
    for cls in registry.backends.values():
        try:
            facts = cls().inspect(path)
            if facts is not None:
                found.append(returned(facts, Facts, "inspect()"))
        except Exception as error:  # noqa: BLE001 - a plugin's fault must not stop the others
            errors.append(error)
    if errors and not found:
        if len(errors) == 1 and isinstance(errors[0], InvalidWeights):
            raise errors[0]
        reasons = "; ".join(map(told, errors))
        raise InvalidWeights(f"{str(path)!r} cannot be read: {reasons}") from errors[0]
    return found


def claim(cls: type[Architecture[Any]], facts: Facts) -> ModelCard | None:
    """The card that an architecture makes; a fault of its own is told as a warning."""
    try:
        card = cls.claims(facts)
        return None if card is None else returned(card, ModelCard, "claims()")
    except Exception as error:  # noqa: BLE001 - a plugin's fault must not stop the others
        log.warning(
            "architecture %r cannot tell if it is its own: %s", cls.name, told(error)
        )
        return None


def _unclaimed(
    path: Path, inspected: list[Facts], registry: Registry, asked: Iterable[str]
) -> str:
    if not inspected:
        backends = ", ".join(sorted(registry.backends)) or "none"
        sentence = f"no installed backend ({backends}) reads {str(path)!r}"
        hint = hint_for_file(path, registry)
        return registry.excused(f"{sentence}; {hint}" if hint else sentence)
    known = ", ".join(sorted(asked)) or "none"
    tensors = ", ".join(list(inspected[0].tensors)[:3])
    names = (
        f"whose first tensors are {tensors}" if tensors else "which names no tensors"
    )
    sentence = (
        f"no installed architecture ({known}) claims {str(path)!r}, {names}; put a "
        f"{CARD} beside it, and load the folder, or say by model_type= which known "
        "model it is like"
    )
    return registry.excused(sentence)


def _filled(card: ModelCard, facts: Facts, path: Path) -> ModelCard:
    """The claimed card with the inspected file as its artifact's only one."""
    claimed = card.artifacts[0] if card.artifacts else Artifact(facts.format, {})
    file = File(path.name, (path.as_uri(),), path.stat().st_size)
    graphs = dict.fromkeys(claimed.graphs, path.name) or {"main": path.name}
    artifact = attrs.evolve(claimed, files=(file,), graphs=graphs)
    return attrs.evolve(card, id=str(path), artifacts=(artifact,))
