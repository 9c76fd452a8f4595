"""Roboflow's weights API: one address, one key, pages of packages."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from urllib.parse import quote, urlencode, urlsplit

import attrs

from inference_models.download.ask import (
    Question,
    Reply,
    Terms,
    address,
    ask,
    encrypted,
    refusal,
    sendable_headers,
    sendable_key,
)
from inference_models.download.transport import KINDS
from inference_models.errors import (
    DownloadFailed,
    InvalidOption,
    ModelNotFound,
    Unauthorized,
)
from inference_models.interfaces import Access
from inference_models.strict_json import Node, parse

log = logging.getLogger("inference_models")

PATH = "/models/v1/external/weights"
TERMS = Terms(largest=8_000_000)  # of one page; a package's entry has about 1,000 bytes

_HOSTS = {
    ("prod", "us"): "https://api.roboflow.com",
    ("prod", "eu"): "https://api.roboflow.eu",
    ("staging", "us"): "https://api.roboflow.one",
    ("staging", "eu"): "https://api.roboflow-eu.one",
}

_EXAMPLE = _HOSTS["prod", "us"]
_PAGES = 10
_RESERVED = ("modelid", "startafter")

_ADVICE = {
    402: "the plan of its workspace does not cover it; upgrade it",
    403: "the key may not use it; take a key of the model's workspace",
    423: "the workspace's usage is paused; see its billing settings",
}


@attrs.frozen
class Server:
    """Where Roboflow is asked, and as whom."""

    host: str
    gateway: str | None = None
    key: str | None = attrs.field(default=None, repr=False)
    extra: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    query: Mapping[str, str] = attrs.field(factory=dict, repr=False)

    @classmethod
    def read(cls, access: Access) -> Server:
        """From the environment, and what the user said of this model.

        `ROBOFLOW_API_KEY`; `ROBOFLOW_API_HOST`, else by `ROBOFLOW_ENVIRONMENT` and
        `ROBOFLOW_REGION`; `SECURE_GATEWAY` or its older name `LICENSE_SERVER`. Raises
        `InvalidOption` for what is no address, no key or no header.
        """
        gateway = os.environ.get("SECURE_GATEWAY") or os.environ.get("LICENSE_SERVER")
        return cls(
            host=address("ROBOFLOW_API_HOST", _host(), _EXAMPLE),
            gateway=address("SECURE_GATEWAY", gateway, _EXAMPLE) if gateway else None,
            key=_key(access),
            extra=sendable_headers(access.headers),
            query=_extra_query(access.query),
        )

    def url(self, model_id: str, cursor: str | None = None) -> str:
        """The address of one page of a model's packages."""
        asked = {**self.query, "modelId": model_id}
        if cursor is not None:
            asked["startAfter"] = cursor
        return self.through_gateway(f"{self.host}{PATH}?{urlencode(asked)}")

    def through_gateway(self, url: str) -> str:
        """The same address, asked of the gateway where there is one."""
        if self.gateway is None:
            return url
        return f"{self.gateway}/proxy?url={quote(url, safe='')}"

    def headers(self) -> dict[str, str]:
        """The headers that are for Roboflow alone."""
        bearer = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return {**self.extra, **bearer}


def _host() -> str:
    named = os.environ.get("ROBOFLOW_API_HOST")
    if named:
        return named
    environment = os.environ.get("ROBOFLOW_ENVIRONMENT") or "prod"
    region = os.environ.get("ROBOFLOW_REGION") or "us"
    host = _HOSTS.get((environment.lower(), region.lower()))
    if host is None:
        raise InvalidOption(
            f"ROBOFLOW_ENVIRONMENT {environment!r} and ROBOFLOW_REGION {region!r} are "
            "not 'prod' or 'staging' and 'us' or 'eu'"
        )
    return host


def _key(access: Access) -> str | None:
    named = access.key or os.environ.get("ROBOFLOW_API_KEY") or None
    if named is None or named == "local":  # how the API's own clients say "no key"
        return None
    try:
        return sendable_key(named, "api_key= or ROBOFLOW_API_KEY")
    finally:
        del named  # whoever prints a traceback's locals sees none


def _extra_query(given: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in given.items() if k.lower() not in _RESERVED}


def pages(server: Server, model_id: str, tries: int = TERMS.tries) -> Iterator[Node]:
    """What Roboflow says of a model, page by page, as `modelMetadata`.

    Raises `ModelNotFound`, `InvalidCard` for what cannot be read, or the
    `DownloadFailed` of its status.
    """
    cursor: str | None = None
    seen: set[str] = set()
    for _ in range(_PAGES):
        reply = _asked(server, model_id, cursor, tries)
        page = parse(reply, f"Roboflow's answer for {model_id!r}", TERMS.largest)
        metadata = page.node("modelMetadata")
        yield metadata
        cursor = metadata.maybe_text("nextPage")
        if cursor is None:
            return
        if cursor in seen:
            raise metadata.wrong("nextPage", "leads back to a page before it")
        seen.add(cursor)
    log.warning(
        "Roboflow has more than %d pages of packages for %s; the rest is left out",
        _PAGES,
        model_id,
    )


def _asked(server: Server, model_id: str, cursor: str | None, tries: int) -> bytes:
    """The content of one page, after as many tries as it takes."""
    terms = attrs.evolve(TERMS, tries=tries)
    question = Question(server.url(model_id, cursor), server.headers())
    reply = ask(question, "Roboflow", terms)
    if reply.status == 200:
        return reply.content
    raise _refusal(server, model_id, reply)


def _refusal(server: Server, model_id: str, reply: Reply) -> Exception:
    asked = f"Roboflow was asked for {model_id!r} and"
    status = reply.status
    if status == 401:
        return Unauthorized(f"{asked} {_about_key(server)}")
    if status in _ADVICE:
        return KINDS[status](f"{asked} answered {status}: {_ADVICE[status]}")
    if status == 404:
        return ModelNotFound(
            f"{asked} knows no such model; check its project and version, and that "
            f"{'the key is' if server.key else 'api_key= is given and'} of its "
            "workspace"
        )
    where = urlsplit(server.gateway or server.host).netloc
    return refusal(reply, asked, repr(where))


def _about_key(server: Server) -> str:
    if server.key is None:
        return "wants a key; give api_key=... or set ROBOFLOW_API_KEY"
    return "refused the key; check api_key= or ROBOFLOW_API_KEY, it may have expired"


def fresh_url(server: Server, model_id: str, package: str, handle: str) -> str:
    """A package file's address, signed just now; `DownloadFailed` if there is none."""
    for page in pages(server, model_id):
        for entry in page.nodes("modelPackages", 1000):
            if entry.data.get("packageId") == package:
                return _address_of(server, entry, handle)
    raise DownloadFailed(
        f"Roboflow no longer has package {package!r} of {model_id!r}; load it again"
    )


def _address_of(server: Server, package: Node, handle: str) -> str:
    for file in package.nodes("packageFiles", 1000):
        if file.data.get("fileHandle") == handle:
            if not encrypted(file.text("downloadUrl")):
                raise file.wrong("downloadUrl", "is no https:// address")
            return server.through_gateway(file.text("downloadUrl"))
    raise DownloadFailed(f"{package.place} no longer has the file {handle!r}")
