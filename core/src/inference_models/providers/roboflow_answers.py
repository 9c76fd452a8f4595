"""What Roboflow last said of a model: cards that stand in when it cannot be asked.

    <cache>/answers/<name>.json    one card, without signed addresses
    <cache>/answers/salt           random bytes of this cache

The name is a keyed hash of the server, the id and the API key: whoever has another key,
or none, does not find what this one may see, and no key can be read back from a name.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
from pathlib import Path

import attrs

from inference_models.card import ModelCard
from inference_models.disk import write_atomically
from inference_models.errors import InferenceModelsError
from inference_models.providers.roboflow_api import Server
from inference_models.providers.roboflow_json import parse
from inference_models.store import cache_root

log = logging.getLogger("inference_models")

_LARGEST = 16_000_000
_SALT_BYTES = 32


def _folder() -> Path:
    return cache_root() / "answers"


@attrs.frozen
class Answers:
    """Remembered cards of one server and one key."""

    server: Server
    folder: Path = attrs.field(factory=_folder)

    def read(self, model_id: str) -> ModelCard | None:
        """The card of an id; None where there is none, or where it is damaged."""
        try:
            path = self._path(model_id)
            if path is None or not path.is_file():
                return None
            with path.open("rb") as file:
                content = file.read(_LARGEST + 1)
            node = parse(content, f"{str(path)!r}", _LARGEST)
            return ModelCard.from_json(node.node("card").data)
        except (OSError, TypeError, ValueError, InferenceModelsError) as error:
            log.debug("a remembered answer is left out: %s", error)
            return None

    def write(self, model_id: str, card: ModelCard) -> None:
        """Remember the card of an id, where the cache can be written to."""
        import json

        try:
            self._make_salt()
            path = self._path(model_id)
            if path is not None:
                data = {"card": card.to_json()}
                write_atomically(path, json.dumps(data).encode())
        except OSError as error:
            log.debug("Roboflow's answer is not remembered: %s", error)

    def _path(self, model_id: str) -> Path | None:
        salt = self._salt()
        if salt is None:
            return None
        facts = "\0".join([self.server.host, model_id, self.server.key or ""])
        name = hmac.new(salt, facts.encode(), hashlib.sha256).hexdigest()
        return self.folder / f"{name}.json"

    def _salt(self) -> bytes | None:
        try:
            salt = (self.folder / "salt").read_bytes()
        except FileNotFoundError:
            return None
        return salt if len(salt) == _SALT_BYTES else None

    def _make_salt(self) -> None:
        """Of several processes that start at once, the salt of one serves all."""
        if self._salt() is not None:
            return
        path, mine = self.folder / "salt", self.folder / f"salt.{os.urandom(8).hex()}"
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
