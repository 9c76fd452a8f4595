"""What providers last said of a model: cards that stand in when they cannot be asked.

    <cache>/answers/<name>.json    one card, without signed addresses
    <cache>/answers/salt           random bytes of this cache
    <cache>/imported/<name>.json   one card that was carried here with its weights

The name of an answer is a keyed hash of the provider, its server, the id and the key:
whoever has another key, or none, does not find what this one may see, and no key can be
read back from a name. A card that was carried here is anybody's who may read the cache.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

from inference_models.card import ModelCard
from inference_models.disk import unique, write_atomically
from inference_models.download.store import cache_root, offline
from inference_models.errors import (
    DownloadFailed,
    Forbidden,
    InferenceModelsError,
    InvalidCard,
    Offline,
    RateLimited,
    Unauthorized,
    Unreachable,
)
from inference_models.interfaces import Access
from inference_models.strict_json import parse_file

log = logging.getLogger("inference_models")

_NO_ANSWER = (Unreachable, RateLimited, InvalidCard)
_REFUSED = (Unauthorized, Forbidden)
_LARGEST = 16_000_000
_SALT_BYTES = 32


def latest(
    model_id: str, remembered: ModelCard | None, ask: Callable[[bool], ModelCard]
) -> ModelCard:
    """What a server says of a model now; else, with one warning, what it said before.

    The remembered card stands in where the server is down, answers nonsense or refuses
    the key. `ask` is given True where no card is remembered, and waiting is worth it.
    """
    try:
        return ask(remembered is None)
    except (*_NO_ANSWER, *_REFUSED) as error:
        if remembered is None:
            raise
        log.warning("%s is loaded as it was known before: %s", model_id, error)
        return remembered


def known(root: Path) -> Iterator[ModelCard]:
    """Every card that is remembered or was carried here, whoever may ask for it."""
    for folder in ("answers", "imported"):
        cards = map(read_card, sorted((root / folder).glob("*.json")))
        yield from (card for card in cards if card is not None)


def remembered_as(model_id: str, access: Access) -> str:
    """An id as it is remembered: each version, and each kind of a file, on its own."""
    parts = {"@": access.revision, "#": access.model_type}
    return model_id + "".join(f"{sign}{said}" for sign, said in parts.items() if said)


def imported_name(provider: str, model_id: str) -> str:
    """The file name of a card that is carried from one cache to another."""
    facts = json.dumps([provider, model_id])
    return f"{hashlib.sha256(facts.encode()).hexdigest()}.json"


def carried(provider: str, model_id: str) -> ModelCard | None:
    """The card of an id of this provider that was carried here, if there is one."""
    try:
        return read_card(cache_root() / "imported" / imported_name(provider, model_id))
    except DownloadFailed:  # the cache has no place
        return None


def content_of(card: ModelCard) -> bytes:
    """A card as it is kept."""
    return json.dumps({"card": card.to_json()}).encode()


def read_card(path: Path) -> ModelCard | None:
    """A card as it was kept; None where there is none, or where it is damaged."""
    try:
        if not path.is_file():
            return None
        node = parse_file(path, _LARGEST)
        return ModelCard.from_json(node.node("card").data)
    except (OSError, TypeError, ValueError, InferenceModelsError) as error:
        log.debug("a remembered answer is left out: %s", error)
        return None


@attrs.frozen
class Answers:
    """Remembered cards of one provider's server, and of one key or of none."""

    provider: str
    server: str
    key: str | None = attrs.field(default=None, repr=False)
    root: Path = attrs.field(factory=cache_root)

    def latest(
        self, model_id: str, access: Access, ask: Callable[[bool], ModelCard]
    ) -> ModelCard:
        """What the server says of a model now, which is remembered; else what it said.

        `ask` asks the server, and is given whether nothing is remembered, so that
        waiting and trying again are worth it. What is remembered stands in offline
        without a word; where the server is down, answers nonsense or refuses the key,
        with one warning. Raises `Offline` where nothing is remembered.
        """
        name = remembered_as(model_id, access)
        remembered = self.read(name)
        if not offline():
            card = latest(model_id, remembered, ask)
            if card is not remembered:
                self.write(name, card)
            return card
        if remembered is None:
            raise Offline(
                f"INFERENCE_MODELS_OFFLINE is set, and {model_id!r} was not loaded "
                "here before with this key; load it once with a network"
            )
        return remembered

    def read(self, model_id: str) -> ModelCard | None:
        """The card of an id; None where there is none, or where it is damaged."""
        own = self._path(model_id)
        imported = self.root / "imported" / imported_name(self.provider, model_id)
        found = read_card(own) if own is not None else None
        return found or read_card(imported)

    def write(self, model_id: str, card: ModelCard) -> None:
        """Remember the card of an id, where the cache can be written to."""
        try:
            self._make_salt()
            path = self._path(model_id)
            if path is not None:
                write_atomically(path, content_of(card))
        except OSError as error:
            log.debug("an answer is not remembered: %s", error)

    @property
    def _folder(self) -> Path:
        return self.root / "answers"

    def _path(self, model_id: str) -> Path | None:
        salt = self._salt()
        if salt is None:
            return None
        facts = "\0".join([self.provider, self.server, model_id, self.key or ""])
        name = hmac.new(salt, facts.encode(), hashlib.sha256).hexdigest()
        return self._folder / f"{name}.json"

    def _salt(self) -> bytes | None:
        try:
            salt = (self._folder / "salt").read_bytes()
        except OSError:
            return None
        return salt if len(salt) == _SALT_BYTES else None

    def _make_salt(self) -> None:
        """Of several processes that start at once, the salt of one serves all."""
        if self._salt() is not None:
            return
        path = self._folder / "salt"
        mine = self._folder / f"salt.{unique()}"
        write_atomically(mine, os.urandom(_SALT_BYTES))
        try:
            os.link(mine, path)  # fails where there is one already
        except FileExistsError:
            if self._salt() is None:
                mine.replace(path)  # damaged, as by a full disk
        except OSError:
            mine.replace(path)  # a file system without hard links
        finally:
            mine.unlink(missing_ok=True)
