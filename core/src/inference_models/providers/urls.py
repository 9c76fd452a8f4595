"""Models by URL: a file of weights on a web server, fetched and claimed by a pack."""

from __future__ import annotations

import re
from typing import NoReturn

import attrs

from inference_models.card import Artifact, File, ModelCard
from inference_models.errors import InvalidOption
from inference_models.interfaces import Access, WeightsProvider
from inference_models.providers.claims import of_file
from inference_models.registry import installed
from inference_models.store import Store
from inference_models.transport import shown_url

DATA = (".onnx", ".safetensors")
"""Suffixes of formats that hold numbers, and nothing that is run."""

PICKLED = (".ckpt", ".pt", ".pth")
"""Suffixes of formats whose files can say what is run."""


class UrlProvider(WeightsProvider):
    """Serves `https://host/weights.onnx#sha256=…`: one file, under its own name.

    Without a hash the file is taken as it first comes, and held to that from then on;
    of a pickled file the hash is a must. To say what is in the file it has to be
    fetched, also for `explain`.
    """

    name = "url"
    order = 10

    def find(self, model_id: str, access: Access) -> ModelCard | None:
        """Fetch the file, and let a pack make the card; None if it is no URL."""
        if not re.match(r"https?://", model_id):
            return None
        file = _file(model_id)
        store = Store(first_use=file.sha256 is None)
        asked = Artifact("any", {"main": file.name}, (file,))
        path = store.folder(asked, lambda source: (source, {})) / file.name
        card = of_file(path, installed(), access.model_type)
        fetched = attrs.evolve(
            file, size=path.stat().st_size, sha256=store.digest(file)
        )
        artifact = attrs.evolve(card.artifacts[0], files=(fetched,))
        return attrs.evolve(card, id=file.sources[0], artifacts=(artifact,))


def _file(model_id: str) -> File:
    url, _, fragment = model_id.partition("#")
    if shown_url(url) != url:
        _refuse(
            url, "it has a user or a query, which may be a secret; leave it out, or"
        )
    name = url.rpartition("/")[2]
    suffix = f".{name.rpartition('.')[2].lower()}"
    if suffix not in (*DATA, *PICKLED):
        known = ", ".join((*DATA, *PICKLED))
        _refuse(url, f"it names no file of weights ({known}); correct it, or")
    match = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if fragment and not match:
        _refuse(
            url, "what follows # is not sha256=<64 hexadecimal digits>; correct it, or"
        )
    if suffix in PICKLED and not match:
        _refuse(
            url,
            f"a {suffix} file is a pickle, which can say what is run when it is read; "
            "add #sha256=<64 hexadecimal digits> of the file that you trust, or",
        )
    return File(name, (url,), sha256=match[1].lower() if match else None)


def _refuse(url: str, reason: str) -> NoReturn:
    raise InvalidOption(
        f"{shown_url(url)} cannot be fetched as a model: {reason} download the file "
        "and give its path"
    )
