"""Cards in folders: read with the name of their file, their weights beside them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from inference_models.card import Artifact, File, ModelCard
from inference_models.errors import InvalidCard
from inference_models.strict_json import without_repeats

if TYPE_CHECKING:
    from importlib.abc import Traversable

log = logging.getLogger("inference_models")


def read_json(path: Path | Traversable) -> dict[str, Any]:
    """A JSON mapping, with or without a byte order mark; `InvalidCard` names the file.

    Unlike that of a stranger it is not bounded, and an error tells line and column.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        data = json.loads(text, object_pairs_hook=without_repeats)
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidCard(f"{str(path)!r} cannot be read as JSON: {error}") from error
    if not isinstance(data, dict):
        raise InvalidCard(f"{str(path)!r} is not a card: it holds no mapping")
    return data


def card_from(path: Path, data: dict[str, Any]) -> ModelCard:
    """The card in a folder, its plain sources made absolute."""
    try:
        card = ModelCard.from_json(data)
    except InvalidCard as error:
        raise InvalidCard(f"{str(path)!r}: {error}") from error
    return placed(card, path.parent.resolve())


def placed(card: ModelCard, folder: Path) -> ModelCard:
    """The card with its plain sources made absolute, in a folder."""
    return attrs.evolve(
        card, artifacts=tuple(_placed(artifact, folder) for artifact in card.artifacts)
    )


def _placed(artifact: Artifact, folder: Path) -> Artifact:
    files = (*artifact.files, *map(File, dict.fromkeys(artifact.lost)))
    return attrs.evolve(artifact, files=tuple(_located(file, folder) for file in files))


def _located(file: File, folder: Path) -> File:
    sources = file.sources or (file.name,)
    try:
        placed = [s if "://" in s else (folder / s).as_uri() for s in sources]
    except UnicodeEncodeError as error:
        raise InvalidCard(
            f"the sources of {file.name!r} cannot be names of files here: {error}; "
            "rename them, or set PYTHONUTF8=1 if they are right"
        ) from error
    return attrs.evolve(file, sources=tuple(placed))


def cards_in(folder: Path | Traversable) -> Iterator[ModelCard]:
    """The sound cards of a folder, by name; a wrong one is left out with a warning.

    The folder may be a package's, within a zip archive too.
    """
    there = folder.iterdir() if folder.is_dir() else ()
    cards = [path for path in there if path.name.endswith(".json")]
    for path in sorted(cards, key=lambda path: path.name):
        try:
            yield card_from(Path(str(path)), read_json(path))
        except InvalidCard as error:
            log.warning("a card is left out: %s", error)
