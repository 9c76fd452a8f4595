"""Roboflow's weights API: one address, one key, pages of packages.

Keys travel in the header `Authorization` alone. They and signed addresses are kept
out of messages, of `repr` and of the HTTP client's logs.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import attrs

from inference_models.errors import (
    DownloadFailed,
    Forbidden,
    InvalidOption,
    ModelNotFound,
    PaymentRequired,
    RateLimited,
    Unauthorized,
    Unreachable,
    UsagePaused,
)
from inference_models.interfaces import Access
from inference_models.strict_json import Node, parse
from inference_models.transport import retry_after, unlogged

log = logging.getLogger("inference_models")

PATH = "/models/v1/external/weights"
TRIES = 3

_HOSTS = {
    ("prod", "us"): "https://api.roboflow.com",
    ("prod", "eu"): "https://api.roboflow.eu",
    ("staging", "us"): "https://api.roboflow.one",
    ("staging", "eu"): "https://api.roboflow-eu.one",
}
_LOOPBACK = ("127.0.0.1", "::1", "localhost")

_PAGES = 10
_LARGEST = 8_000_000  # bytes of one page; a package's entry has about a thousand
_CONNECT, _READ, _TOTAL = 5.0, 15.0, 60.0
_BACKOFF = 0.5  # seconds before the second try; twice that before each further one
_LONGEST_WAIT = 30.0  # seconds; a server that wants more is asked by the user

_TOKEN = re.compile(r"[!-~]+")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_RESERVED = ("modelid", "startafter")

_ADVICE: dict[int, tuple[type[DownloadFailed], str]] = {
    402: (PaymentRequired, "the plan of its workspace does not cover it; upgrade it"),
    403: (Forbidden, "the key may not use it; take a key of the model's workspace"),
    423: (UsagePaused, "the workspace's usage is paused; see its billing settings"),
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
            host=_address("ROBOFLOW_API_HOST", _host()),
            gateway=_address("SECURE_GATEWAY", gateway) if gateway else None,
            key=_key(access),
            extra=_extra_headers(access.headers),
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
        """All headers of a request; no compression, so that what comes is bounded."""
        own = {"Accept": "application/json", "Accept-Encoding": "identity"}
        bearer = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return {**self.extra, **own, **bearer}


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


def _address(name: str, value: str) -> str:
    """An address without a path's last slash; never one that would show a key."""
    if not encrypted(value) or re.search(r"[?#]", value):
        raise InvalidOption(
            f"{name} is no https:// address; give one without user name and query, "
            "such as 'https://api.roboflow.com'"
        )
    return value.rstrip("/")


def encrypted(url: str) -> bool:
    """Whether a URL is https, or this machine's, and names no user."""
    try:
        parts = urlsplit(url)
        named = parts.hostname is not None and parts.username is None
        _ = parts.port
    except ValueError:
        return False
    at_home = parts.scheme == "http" and parts.hostname in _LOOPBACK
    printable = _TOKEN.fullmatch(url) is not None
    return named and printable and (parts.scheme == "https" or at_home)


def _key(access: Access) -> str | None:
    named = access.key or os.environ.get("ROBOFLOW_API_KEY") or None
    if named is None or named == "local":  # how the API's own clients say "no key"
        return None
    if not isinstance(named, str) or not _TOKEN.fullmatch(named.strip()):
        raise InvalidOption(
            "the API key holds a space or a character that no key has; check api_key= "
            "or ROBOFLOW_API_KEY"
        )
    return named.strip()


def _extra_headers(given: Mapping[str, str]) -> dict[str, str]:
    extra = {}
    for name, value in given.items():
        sendable = value.isascii() and value.isprintable()
        if not _HEADER.fullmatch(name) or not sendable:
            raise InvalidOption(f"header {name!r} is none that can be sent")
        if name.lower() != "authorization":
            extra[name.lower()] = value.strip()
    return extra


def _extra_query(given: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in given.items() if k.lower() not in _RESERVED}


def pages(server: Server, model_id: str, tries: int = TRIES) -> Iterator[Node]:
    """What Roboflow says of a model, page by page, as `modelMetadata`.

    Raises `ModelNotFound`, `InvalidCard` for what cannot be read, or the
    `DownloadFailed` of its status.
    """
    cursor: str | None = None
    seen: set[str] = set()
    for _ in range(_PAGES):
        reply = _asked(server, model_id, cursor, tries)
        page = parse(reply, f"Roboflow's answer for {model_id!r}", _LARGEST)
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


@attrs.frozen
class _Reply:
    """One answer; a status of 0 is none at all, for the reason in `problem`."""

    status: int
    content: bytes = attrs.field(default=b"", repr=False)
    retry_after: str | None = None
    problem: str = ""

    @property
    def passing(self) -> bool:
        """Whether the same question may be answered later."""
        return self.status in (0, 408, 429) or self.status >= 500


def _asked(server: Server, model_id: str, cursor: str | None, tries: int) -> bytes:
    """The content of one page, after as many tries as it takes."""
    for number in range(1, tries + 1):
        reply = _once(server, model_id, cursor)
        if reply.status == 200:
            return reply.content
        pause = _pause(reply.retry_after, number)
        if not reply.passing or number == tries or pause > _LONGEST_WAIT:
            break
        log.info("Roboflow is asked again for %s in %.1f s", model_id, pause)
        time.sleep(pause)
    raise _refusal(server, model_id, reply)


def _pause(asked: str | None, number: int) -> float:
    """Seconds until the next try: what the server asks for, else ever longer."""
    own: float = _BACKOFF * 2 ** (number - 1)
    return max(retry_after(asked) or 0.0, own)


def _once(server: Server, model_id: str, cursor: str | None) -> _Reply:
    import httpx

    timeout = httpx.Timeout(_READ, connect=_CONNECT)
    try:
        with (
            unlogged(),
            httpx.Client(timeout=timeout) as client,
            client.stream(
                "GET", server.url(model_id, cursor), headers=server.headers()
            ) as response,
        ):
            return _Reply(
                response.status_code,
                _bounded(response),
                response.headers.get("Retry-After"),
            )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return _Reply(0, problem=str(error) or type(error).__name__)


def _bounded(response: Any) -> bytes:
    """The content of a response, cut where it is too long; not more than a minute."""
    import httpx

    content = bytearray()
    deadline = time.monotonic() + _TOTAL
    for chunk in response.iter_raw(1 << 16):
        content += chunk
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout(f"the answer took longer than {_TOTAL:.0f} s")
        if len(content) > _LARGEST:
            break
    return bytes(content)


def _refusal(server: Server, model_id: str, reply: _Reply) -> Exception:
    asked = f"Roboflow was asked for {model_id!r} and"
    status = reply.status
    if status == 401:
        return Unauthorized(f"{asked} {_about_key(server)}")
    if status in _ADVICE:
        kind, sentence = _ADVICE[status]
        return kind(f"{asked} answered {status}: {sentence}")
    if status == 404:
        return ModelNotFound(
            f"{asked} knows no such model; check its project and version, and that "
            f"{'the key is' if server.key else 'api_key= is given and'} of its "
            "workspace"
        )
    if status == 429:
        seconds = retry_after(reply.retry_after)
        after = "" if seconds is None else f" in {seconds:.0f} s"
        return RateLimited(f"{asked} wants fewer requests (429); try again{after}")
    if reply.passing:
        reason = f"answered {status}" if status else f"not reached: {reply.problem}"
        where = urlsplit(server.gateway or server.host).netloc
        return Unreachable(f"{asked} {reason}; check the network and {where!r}")
    return DownloadFailed(f"{asked} answered {status}, which is no answer to expect")


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
            url = file.text("downloadUrl")
            if not encrypted(url):
                raise file.wrong("downloadUrl", "is no https:// address")
            return server.through_gateway(url)
    raise DownloadFailed(f"{package.place} no longer has the file {handle!r}")
