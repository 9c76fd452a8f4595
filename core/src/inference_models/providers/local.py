"""Models by path: a folder with a card, or one file of weights that a pack claims."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from inference_models.card import ModelCard
from inference_models.card_files import card_from, placed, read_json
from inference_models.errors import InvalidCard, ModelNotFound
from inference_models.interfaces import Access, WeightsProvider
from inference_models.negotiation.find import written_file
from inference_models.providers.claims import CARD, is_weights, of_file, of_folder
from inference_models.trust import Origin


class LocalProvider(WeightsProvider):
    """Serves ids that are written as a path: with a separator or a file's suffix.

    A bare name never means a folder of the working directory.
    """

    name = "local"
    order = 0

    def find(self, model_id: str, access: Access) -> ModelCard | None:
        """The card of a folder, or the one a pack makes for a file of weights."""
        file = written_file(model_id)
        if file is not None:
            return _of_file(file.absolute(), access)
        folder = _written_folder(model_id)
        if folder is not None:
            try:
                return _of_folder(folder.absolute())
            except PermissionError as error:
                raise InvalidCard(f"{model_id!r} cannot be read: {error}") from error
        if _must_be_path(model_id):
            raise ModelNotFound(f"there is no file or folder {model_id!r}")
        return None

    def origin(self, model_id: str, access: Access) -> Origin:
        """The user, who gave its path."""
        return "local"


def _written_folder(model_id: str) -> Path | None:
    try:
        folder = Path(model_id).expanduser()
        written = _has_separator(model_id) or _must_be_path(model_id)
        return folder if written and folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):
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
    card = of_folder(folder)
    if card is not None:
        return attrs.evolve(placed(card, folder), id=str(folder))
    files = sorted(file.name for file in folder.iterdir() if file.is_file())
    example = next(filter(is_weights, files), "")
    advice = f", or name the file: {str(folder / example)!r}" if example else ""
    raise InvalidCard(f"{str(folder)!r} has no {CARD}; add one{advice}")


def _of_file(path: Path, access: Access) -> ModelCard:
    if path.name == CARD:
        return card_from(path, read_json(path))
    card = of_file(path, access.model_type)
    if access.sha256 is None:
        return card
    (artifact,) = card.artifacts
    files = [attrs.evolve(file, sha256=access.sha256) for file in artifact.files]
    return attrs.evolve(card, artifacts=[attrs.evolve(artifact, files=files)])
