"""The weights provider of Zenodo: models by the number, or the DOI, of a record."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import quote

import attrs

from inference_models import (
    Access,
    File,
    Forbidden,
    InvalidCard,
    ModelCard,
    ModelNotFound,
    WeightsProvider,
    hookimpl,
)
from inference_models.download.answers import Answers
from inference_models.download.ask import (
    Question,
    Terms,
    address,
    ask,
    headers_of,
    refusal,
)
from inference_models.providers.claims import is_weights
from inference_models.providers.published import Published
from inference_models.strict_json import Node, parse

_ZENODO = "https://zenodo.org"
_TERMS = Terms(redirects=1)  # of the number that stands for all versions
_ID = re.compile(r"(10\.5281/zenodo\.)?([1-9][0-9]{0,14})(?:/(.+))?")
_SPDX = {
    "apache2.0": "Apache-2.0",
    "cc-zero": "CC0-1.0",
    "isc-license": "ISC",
    "mit-license": "MIT",
    "zlib-license": "Zlib",
}
"""Zenodo's older names; its others are SPDX's in lower case, which count as equal."""


class ZenodoProvider(WeightsProvider):
    """Serves `zenodo://1234567`, its DOI, and `zenodo://1234567/weights.onnx`.

    A number is of one version, whose files stay as they are. One that stands for all
    versions of a record is refused with the number of the latest.
    """

    name = "zenodo"

    def find(self, model_id: str, access: Access) -> ModelCard | None:
        """The card of a record or of a file in it; None for what is no id of Zenodo.

        Raises `ModelNotFound`, `Offline`, `Forbidden` for a record that shows no files,
        the `DownloadFailed` of a status, and `InvalidCard` for what cannot be read.
        """
        match = _ID.fullmatch(model_id)
        if match is None:
            return None
        doi, number, name = match.groups()
        if not (doi or access.alone) or not is_weights(name or "any.onnx"):
            return None  # where others are asked, too, 12/a.onnx is a path

        def asked(anew: bool) -> ModelCard:
            record = _record(number, access, _TERMS.tries if anew else 1)
            return _published(number, record).card(self, model_id, access, name)

        answers = Answers(self.name, _host(), access.key)
        return answers.latest(model_id, access, asked)

    def request(self, source: str, access: Access) -> tuple[str, Mapping[str, str]]:
        """The address of a record's file, and the token."""
        number, _, name = source.removeprefix("zenodo://").partition("/")
        url = f"{_host()}/api/records/{number}/files/{quote(name)}/content"
        return url, headers_of(access)


def _host() -> str:
    return address("ZENODO_HOST", os.environ.get("ZENODO_HOST") or _ZENODO, _ZENODO)


def _record(number: str, access: Access, tries: int) -> Node:
    """What Zenodo says of a record."""
    question = Question(f"{_host()}/api/records/{number}", headers_of(access))
    reply = ask(question, "Zenodo", attrs.evolve(_TERMS, tries=tries))
    if reply.status in (404, 410):
        gone = "no longer has" if reply.status == 410 else "has no"
        raise ModelNotFound(
            f"Zenodo {gone} record {number}; {_host()}/records/{number} may say why"
        )
    if reply.status != 200:
        raise refusal(reply, f"Zenodo was asked for record {number} and", "ZENODO_HOST")
    place = f"Zenodo's answer for record {number}"
    record = parse(reply.content, place, _TERMS.largest)
    found = record.whole("id", 1, 10**15)
    if found is None:
        raise record.wrong("id", "is missing")
    if found != int(number):
        raise ModelNotFound(
            f"{number} stands for all versions of a record; name one, such as the "
            f"latest, zenodo://{found}"
        )
    return record


def _published(number: str, record: Node) -> Published:
    metadata = record.node("metadata")
    files = [_file(number, entry) for entry in record.nodes("files", 10_000)]
    if not files:
        right = metadata.maybe_text("access_right") or "unknown"
        raise Forbidden(
            f"Zenodo shows no files of record {number} (access: {right}); give "
            f"zenodo://{number} with api_key= of an account that may read them"
        )
    named = metadata.maybe_node("license")
    license_id = named.maybe_text("id") if named else None
    return Published(
        id=f"zenodo://{number}",
        files={file.name: file for file in files},
        license=_SPDX.get(license_id or "", license_id),
    )


def _file(number: str, entry: Node) -> File:
    name, checksum = entry.text("key"), entry.text("checksum")
    if not checksum.startswith("md5:"):
        raise entry.wrong("checksum", "is no md5")
    size, md5 = entry.whole("size", 0, 1 << 50), checksum.removeprefix("md5:")
    try:
        return File(name, (f"zenodo://{number}/{name}",), size=size, md5=md5)
    except InvalidCard as error:
        raise InvalidCard(f"{entry.place}: {error}") from error


@hookimpl
def weights_providers() -> list[type[WeightsProvider]]:
    """The class that this distribution brings."""
    return [ZenodoProvider]
