"""One answer of a web server: asked for once, checked before its bytes are used."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from inference_models.errors import (
    DownloadFailed,
    Forbidden,
    PaymentRequired,
    RateLimited,
    Unauthorized,
    Unreachable,
    UsagePaused,
)

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_RETRIED = (408, 425, 429, 500, 502, 503, 504)
_REDIRECTED = (301, 302, 303, 307, 308)
_KINDS = {
    401: Unauthorized,
    402: PaymentRequired,
    403: Forbidden,
    423: UsagePaused,
    429: RateLimited,
}


@attrs.frozen
class Limits:
    """How long a download is waited for; seconds, but where it says otherwise."""

    connect: float = 15.0
    idle: float = 60.0
    """Without a single byte."""
    grace: float = 300.0
    """Before a try has to have been as fast as `slowest`."""
    slowest: float = 10_000.0
    """Bytes a second, on average over one try."""
    tries: int = 4
    """Of one source; a try that brings a resumable download on is not counted."""
    pause: float = 1.0
    """After the first failed try; it doubles with each."""
    longest_pause: float = 60.0
    """Whatever a server asks for with `Retry-After`."""
    redirects: int = 10


class Transient(DownloadFailed):
    """A failure that the next try may not meet; `kind` is what it is after the last.

    `wait` is what the server asked for (seconds), and `restart` says that what was kept
    of earlier tries does not fit what the server has now.
    """

    def __init__(
        self,
        reason: str,
        wait: float | None = None,
        restart: bool = False,
        kind: type[DownloadFailed] = Unreachable,
    ) -> None:
        super().__init__(reason)
        self.kind = kind
        self.wait = wait
        self.restart = restart


@attrs.frozen
class Answer:
    """The bytes of a file from `start` on; `total` is the whole file's size, in bytes.

    `validator` names this version of the file to its server, for a later try.
    """

    start: int
    total: int | None
    validator: str | None
    is_page: bool
    chunks: Iterator[bytes]


@contextlib.contextmanager
def answered(
    url: str,
    headers: Mapping[str, str],
    limits: Limits,
    start: int = 0,
    validator: str | None = None,
) -> Iterator[Answer]:
    """Ask for a file from byte `start` on, if it is the version of `validator` still.

    Raises `Transient`, and `DownloadFailed` where another try would meet the same.
    """
    asked = {**headers, "Accept-Encoding": "identity"}
    if start and validator:
        asked |= {"Range": f"bytes={start}-", "If-Range": validator}
    with (
        _explained(url),
        unlogged(),
        _client(url, headers, limits) as client,
        client.stream("GET", url, headers=asked) as response,
    ):
        yield _checked(response, shown_url(url), start, limits)


@contextlib.contextmanager
def _explained(url: str) -> Iterator[None]:
    import httpx

    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        reason = str(error) or type(error).__name__
        sentence = f"{shown_url(url)} could not be read: {reason}"
        passing = isinstance(error, httpx.TransportError)
        if not passing or isinstance(error, httpx.UnsupportedProtocol):
            raise DownloadFailed(sentence) from error
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            advice = "SSL_CERT_FILE names the authorities of a private network"
            raise DownloadFailed(f"{sentence}; {advice}") from error
        raise Transient(sentence) from error


def _client(url: str, headers: Mapping[str, str], limits: Limits) -> Any:
    import httpx

    hooks = {"request": [hop_check(httpx.URL(url), headers)]}
    try:
        return httpx.Client(
            follow_redirects=True,
            max_redirects=limits.redirects,
            timeout=httpx.Timeout(limits.idle, connect=limits.connect),
            event_hooks=hooks,
        )
    except (OSError, ValueError, ImportError) as error:
        # A proxy or a file of authorities that the environment names.
        raise DownloadFailed(
            f"the network cannot be used as the environment says: {error}; correct "
            "HTTPS_PROXY, ALL_PROXY or SSL_CERT_FILE"
        ) from error


def _checked(response: Any, shown: str, start: int, limits: Limits) -> Answer:
    status, headers = response.status_code, response.headers
    if status == 416 or (status == 206 and not start):
        raise Transient(f"{shown} answered {status} to no such range", restart=True)
    if status not in (200, 206):
        raise _refused(response, shown, limits)
    encoding = headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity":
        raise DownloadFailed(f"{shown} answered in the encoding {encoding!r}, unasked")
    total = _number(headers.get("Content-Length"))
    if status == 206:
        first, total = _range(headers.get("Content-Range", ""))
        if first != start:
            raise Transient(f"{shown} answered with another range", restart=True)
    return Answer(
        start if status == 206 else 0,
        total,
        _validator(headers),
        headers.get("Content-Type", "").startswith("text/html"),
        _timed(response.iter_raw(), shown, limits),
    )


def _refused(response: Any, shown: str, limits: Limits) -> DownloadFailed:
    status = response.status_code
    sentence = f"{shown} answered {status} {response.reason_phrase}"
    if status in _REDIRECTED:
        return DownloadFailed(f"{sentence}, without a place to go to")
    if status not in _RETRIED:
        return _KINDS.get(status, DownloadFailed)(sentence)
    asked = retry_after(response.headers.get("Retry-After"))
    wait = None if asked is None else min(asked, limits.longest_pause)
    return Transient(sentence, wait, kind=_KINDS.get(status, Unreachable))


def retry_after(value: str | None) -> float | None:
    """Seconds until the next try, from a number or an HTTP date; None if neither."""
    if value is None:
        return None
    if re.fullmatch(r"[0-9]{1,12}", value.strip()):
        return float(value)
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def _number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"[0-9]{1,18}", text.strip()) else None


def _range(text: str) -> tuple[int | None, int | None]:
    """First byte and whole size of a `Content-Range`; None for what it does not say."""
    match = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)", text)
    return (int(match[1]), _number(match[2])) if match else (None, None)


def _validator(headers: Any) -> str | None:
    """A strong ETag, else the date of the last change; a weak ETag proves nothing."""
    tag = headers.get("ETag", "").strip()
    if not tag:
        return _line(headers.get("Last-Modified"))
    return None if tag.startswith("W/") else _line(tag)


def _line(text: str | None) -> str | None:
    printable = text is not None and re.fullmatch(r"[ -~]{1,200}", text)
    return text if printable else None


def _timed(chunks: Iterator[bytes], shown: str, limits: Limits) -> Iterator[bytes]:
    """The same chunks, for as long as they come fast enough."""
    began, size = time.monotonic(), 0
    for chunk in chunks:
        size += len(chunk)
        if time.monotonic() - began > limits.grace + size / limits.slowest:
            raise Transient(
                f"{shown} sent {size} bytes in {time.monotonic() - began:.0f} s, which "
                "is too slow"
            )
        yield chunk


def hop_check(origin: Any, headers: Mapping[str, str]) -> Callable[[Any], None]:
    """Refuses a hop that leaves encryption or the public network.

    `headers` are for the first server alone, and are taken off for any other.
    """

    def check(request: Any) -> None:
        url = request.url
        inside = origin.host in _LOOPBACK and url.host in _LOOPBACK
        if url.scheme != "https" and not (inside and origin.scheme == "http"):
            raise DownloadFailed(
                f"{url.scheme}://{url.host} is not encrypted; give an https source"
            )
        if url.host != origin.host and not inside and _is_private(url.host):
            raise DownloadFailed(
                f"{shown_url(str(origin))} redirects to {url.host}, an address of a "
                "private network; name a server there in the source itself"
            )
        if (url.scheme, url.netloc) != (origin.scheme, origin.netloc):
            for name in headers:
                request.headers.pop(name, None)

    return check


def _is_private(host: str) -> bool:
    """Whether a host is written as an address, in any form, that is not public."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    with contextlib.suppress(OSError, ValueError):
        # Also "127.1" and "0x7f000001", which systems take for addresses.
        host = socket.inet_ntoa(socket.inet_aton(host))
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return not (mapped or address).is_global


@contextlib.contextmanager
def unlogged() -> Iterator[None]:
    """Keep the HTTP client from logging our URLs, whose queries may be signed."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_is_another_thread)
    _threads.add(threading.get_ident())
    try:
        yield
    finally:
        _threads.discard(threading.get_ident())


_LOGGERS = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.proxy")
_threads: set[int] = set()


def _is_another_thread(record: logging.LogRecord) -> bool:
    return threading.get_ident() not in _threads


def shown_url(url: str) -> str:
    """A URL without user, query and fragment, which may hold secrets."""
    bare = re.split(r"[?#]", url, maxsplit=1)[0]
    return re.sub(r"^([a-z]+://)[^/]*@", r"\1", bare)
