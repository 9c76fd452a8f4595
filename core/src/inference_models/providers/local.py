"""Models by path: a folder with a card, or one file of weights that a pack claims."""

from __future__ import annotations

import os
from pathlib import Path

from inference_models.card import ModelCard
from inference_models.errors import InvalidCard, ModelNotFound
from inference_models.interfaces import Access, WeightsProvider
from inference_models.providers.cards import card_from, read_json
from inference_models.providers.claims import CARD, of_file
from inference_models.registry import Registry, installed


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
    return of_file(path, registry, model_type)
