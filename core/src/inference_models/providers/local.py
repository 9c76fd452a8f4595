"""Models by path: a folder with a card, or one file of weights that a pack claims."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from inference_models.card import Artifact, Facts, File, ModelCard
from inference_models.errors import InvalidCard, InvalidWeights, ModelNotFound
from inference_models.interfaces import Access, WeightsProvider
from inference_models.providers.cards import card_from, read_json
from inference_models.registry import Registry, installed

CARD = "card.json"


class LocalProvider(WeightsProvider):
    """Serves ids that are written as a path: with a separator or a file's suffix.

    A bare name never means a folder of the working directory.
    """

    name = "local"
    order = 0

    def find(self, model_id: str, access: Access) -> ModelCard | None:
        """The card of a folder, or the one a pack makes for a file of weights."""
        path = Path(model_id).expanduser()
        if path.is_dir() and _has_separator(model_id):
            return _of_folder(path.absolute())
        if path.is_file() and (_has_separator(model_id) or path.suffix):
            return _of_file(path.absolute(), installed())
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


def _of_file(path: Path, registry: Registry) -> ModelCard:
    if path.name == CARD:
        return card_from(path, read_json(path))
    inspected = _inspect(path, registry)
    claims = [
        (cls.rank, name, card, facts)
        for facts in inspected
        for name, cls in registry.architectures.items()
        if (card := cls.claims(facts)) is not None
    ]
    if not claims:
        raise InvalidWeights(_unclaimed(path, inspected, registry))
    *_, card, facts = max(claims, key=lambda claim: (claim[0], claim[1]))
    return _filled(card, facts, path)


def _inspect(path: Path, registry: Registry) -> list[Facts]:
    found = (cls().inspect(path) for cls in registry.backends.values())
    return [facts for facts in found if facts is not None]


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
