"""Models by URL: a file of weights on a web server, fetched and claimed by a pack."""

from __future__ import annotations

import re
from typing import NoReturn

from inference_models.card import File, ModelCard
from inference_models.errors import InvalidOption, shown_url
from inference_models.interfaces import Access, WeightsProvider
from inference_models.providers.claims import is_weights, of_fetched_file, suffixes
from inference_models.trust import Origin, check_license, kind_of, objection


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
        check_license(shown_url(model_id), None, access.consent)
        file = _file(model_id, access.sha256)
        _check_trusted(file, self.origin(model_id, access), access)
        return of_fetched_file(file, lambda source: (source, {}), access)

    def origin(self, model_id: str, access: Access) -> Origin:
        """The user, who gave its hash; else nobody."""
        return "unpinned" if access.sha256 is None else "pinned"


def _file(url: str, sha256: str | None) -> File:
    if shown_url(url) != url:
        _refuse(url, "it has a user or a query, which may be a secret; leave it out")
    name = url.rpartition("/")[2]
    if not is_weights(name):
        known = ", ".join(suffixes())
        reason = f"it names no file of weights ({known})"
        _refuse(url, f"{reason}; correct it, give the id of the model on that page")
    return File(name, (url,), sha256=sha256)


def _check_trusted(file: File, origin: Origin, access: Access) -> None:
    reason = objection(file.name, kind_of(file.name, ""), origin, access.consent)
    if reason is not None:
        _refuse(file.sources[0], reason)


def _refuse(url: str, reason: str) -> NoReturn:
    raise InvalidOption(
        f"{shown_url(url)} cannot be fetched as a model: {reason}, or download the "
        "file and give its path"
    )
