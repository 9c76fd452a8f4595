"""Models by path: a folder with a card, or one file of weights that a pack claims."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import attrs

from inference_models.card import Artifact, Facts, File, ModelCard
from inference_models.errors import (
    InvalidCard,
    InvalidOption,
    InvalidWeights,
    ModelNotFound,
    did_you_mean,
)
from inference_models.interfaces import Access, Architecture, WeightsProvider
from inference_models.providers.cards import CardsProvider, card_from, read_json
from inference_models.registry import Registry, installed

log = logging.getLogger("inference_models")

CARD = "card.json"


class LocalProvider(WeightsProvider):
    """Serves ids that are written as a path: with a separator or a file's suffix.

    A bare name never means a folder of the working directory.
    """

    name = "local"
    order = 0

    def find(self, model_id: str, access: Access) -> ModelCard | None:
        """The card of a folder, or the one a pack makes for a file of weights."""
        try:
            path = Path(model_id).expanduser()
            is_dir, is_file = path.is_dir(), path.is_file()
        except (OSError, RuntimeError, ValueError):  # too long, or a stranger's "~name"
            path, is_dir, is_file = Path(model_id), False, False
        if is_dir and _has_separator(model_id):
            return _of_folder(path.absolute())
        if is_file and (_has_separator(model_id) or path.suffix):
            return _of_file(path.absolute(), installed(), access.model_type)
        if _must_be_path(model_id):
            raise ModelNotFound(f"there is no file or folder {str(path)!r}")
        return None


def _has_separator(model_id: str) -> bool:
    return any(mark in model_id for mark in filter(None, (os.sep, os.altsep)))


def _must_be_path(model_id: str) -> bool:
    """Whether it cannot be anybody's id: absolute, or relative by dots or a tilde."""
    return Path(model_id).is_absolute() or model_id.startswith((".", "~"))


def _of_folder(folder: Path) -> ModelCard:
    path = folder / CARD
    if path.is_file():
        return card_from(path, read_json(path))
    files = sorted(file.name for file in folder.iterdir() if file.is_file())
    example = next(
        (n for n in files if n.endswith((".onnx", ".pth", ".safetensors"))), ""
    )
    advice = f", or name the file: {str(folder / example)!r}" if example else ""
    raise InvalidCard(f"{str(folder)!r} has no {CARD}; add one{advice}")


def _of_file(path: Path, registry: Registry, model_type: str | None) -> ModelCard:
    if path.name == CARD:
        return card_from(path, read_json(path))
    inspected = _inspect(path, registry)
    if model_type is not None:
        return _of_type(path, inspected, registry, model_type)
    claims = [
        (cls.rank, name, card, facts)
        for facts in inspected
        for name, cls in registry.architectures.items()
        if (card := _claim(cls, facts)) is not None
    ]
    if not claims:
        raise InvalidWeights(_unclaimed(path, inspected, registry))
    *_, card, facts = max(claims, key=lambda claim: (claim[0], claim[1]))
    return _filled(card, facts, path)


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
        card = _claim(cls, facts)
        if card is not None:
            config = {**card.config, **(known.config if known else {})}
            return _filled(attrs.evolve(card, config=config), facts, path)
    if not inspected or known is None:
        raise InvalidWeights(_unclaimed(path, inspected, registry))
    alike = [a for a in known.artifacts if a.format == inspected[0].format]
    like = attrs.evolve(known, artifacts=alike, license=None, aliases=())
    return _filled(like, inspected[0], path)


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
    found: list[Facts] = []
    errors: list[Exception] = []
    for cls in registry.backends.values():
        try:
            facts = cls().inspect(path)
        except Exception as error:  # noqa: BLE001 - a plugin's fault must not stop the others
            errors.append(error)
            continue
        if facts is not None:
            found.append(facts)
    if errors and not found:
        reasons = "; ".join(map(str, errors))
        raise InvalidWeights(f"{str(path)!r} cannot be read: {reasons}") from errors[0]
    return found


def _claim(cls: type[Architecture[Any]], facts: Facts) -> ModelCard | None:
    try:
        return cls.claims(facts)
    except Exception as error:  # noqa: BLE001 - a plugin's fault must not stop the others
        log.warning("architecture %r cannot tell if it is its own: %s", cls.name, error)
        return None


def _unclaimed(path: Path, inspected: list[Facts], registry: Registry) -> str:
    if not inspected:
        backends = ", ".join(sorted(registry.backends)) or "none"
        return f"no installed backend ({backends}) reads {str(path)!r}"
    known = ", ".join(sorted(registry.architectures)) or "none"
    tensors = ", ".join(list(inspected[0].tensors)[:3])
    return (
        f"no installed architecture ({known}) claims {str(path)!r}, whose first "
        f"tensors are {tensors}; put a {CARD} beside it, and load the folder"
    )


def _filled(card: ModelCard, facts: Facts, path: Path) -> ModelCard:
    """The claimed card with the inspected file as its artifact's only one."""
    claimed = card.artifacts[0] if card.artifacts else Artifact(facts.format, {})
    file = File(path.name, (path.as_uri(),), path.stat().st_size)
    graphs = dict.fromkeys(claimed.graphs, path.name) or {"main": path.name}
    artifact = attrs.evolve(claimed, files=(file,), graphs=graphs)
    return attrs.evolve(card, id=str(path), artifacts=(artifact,))
