"""Models by the cards of folders, and of installed packs."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from inference_models.card import ModelCard
from inference_models.card_files import card_from, read_json
from inference_models.download.answers import carried
from inference_models.errors import InferenceModelsError, InvalidCard, told
from inference_models.interfaces import Access, WeightsProvider
from inference_models.registry import installed, returned
from inference_models.trust import Origin

log = logging.getLogger("inference_models")


class CardsProvider(WeightsProvider):
    """Folders named in `INFERENCE_MODELS_CARDS`, cards that packs ship, then others.

    The last are those that were imported with their weights.

    A folder holds `<any name>.json` or `<any name>/card.json`; sources in it that are
    plain names lie beside the card.
    """

    name = "cards"
    order = 10

    def find(self, model_id: str, access: Access) -> ModelCard | None:
        """The first card of this id or alias; `InvalidCard` if that card is wrong."""
        for path, data in _raw_cards():
            if model_id == data.get("id") or model_id in _aliases(data):
                return card_from(path, data)
        packed = (c for c in _pack_cards() if model_id in (c.id, *c.aliases))
        return next(packed, None) or carried(self.name, model_id)

    def origin(self, model_id: str, access: Access) -> Origin:
        """An installed pack, or a folder of cards that the user named."""
        return "card"

    def models(self) -> Iterable[ModelCard]:
        """Every sound card; a wrong one is left out with a warning."""
        for path, data in _raw_cards():
            try:
                yield card_from(path, data)
            except InferenceModelsError as error:
                log.warning("a card is left out: %s", error)
        yield from _pack_cards()


def _folders() -> Iterator[Path]:
    parts = os.environ.get("INFERENCE_MODELS_CARDS", "").split(os.pathsep)
    for part in filter(None, map(str.strip, parts)):
        folder = Path(os.path.expanduser(part))  # noqa: PTH111 - which never raises
        if os.access(f"{folder}/", os.R_OK | os.X_OK):
            yield folder
        else:
            log.warning(
                "INFERENCE_MODELS_CARDS names %r, which is no folder that can be read",
                part,
            )


def _raw_cards() -> Iterator[tuple[Path, dict[str, Any]]]:
    for folder in _folders():
        for path in sorted([*folder.glob("*.json"), *folder.glob("*/card.json")]):
            try:
                yield path, read_json(path)
            except InvalidCard as error:
                log.warning("a card is left out: %s", error)


def _aliases(data: dict[str, Any]) -> list[Any]:
    aliases = data.get("aliases", [])
    return aliases if isinstance(aliases, list) else []


def _pack_cards() -> Iterator[ModelCard]:
    for name, architecture in installed().architectures.items():
        try:
            for card in architecture.cards():
                yield returned(card, ModelCard, "cards()")
        except Exception as error:  # noqa: BLE001 - a stranger's pack
            reason = told(error)
            log.warning("the cards of architecture %r cannot be read: %s", name, reason)
