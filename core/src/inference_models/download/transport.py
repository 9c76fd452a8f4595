"""Answers of a web server: asked for, and checked before their bytes are used."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import attrs

from inference_models.download import body
from inference_models.download.deadline import Deadline
from inference_models.download.limits import Limits, Transient
from inference_models.download.redirects import Redirects
from inference_models.errors import (
    DownloadFailed,
    Forbidden,
    PaymentRequired,
    RateLimited,
    Unauthorized,
    Unreachable,
    UsagePaused,
    shown_url,
)

if TYPE_CHECKING:
    import ssl

_PLAIN = {"Accept-Encoding": "identity"}
_RETRIED = (408, 425, 429, 500, 502, 503, 504)
_REDIRECTED = (301, 302, 303, 307, 308)
KINDS = {
    401: Unauthorized,
    402: PaymentRequired,
    403: Forbidden,
    423: UsagePaused,
    429: RateLimited,
}
"""What a server's refusal is raised as, by its status."""


@attrs.frozen
class Part:
    """What of a file is asked for: from `start` on, of one version of it.

    `end` is behind the last byte that is wanted, or None for all the rest. `url` is
    where an earlier answer found the file, after all redirects.
    """

    start: int = 0
    validator: str | None = None
    end: int | None = None
    url: str | None = attrs.field(default=None, repr=False)

    @property
    def size(self) -> int | None:
        """How many bytes were asked for, if that was said."""
        return None if self.end is None else self.end - self.start

    def headers(self) -> dict[str, str]:
        """What asks for the part; the whole where no version of the file is known."""
        if self.validator is None or (self.start == 0 and self.end is None):
            return {}
        last = "" if self.end is None else self.end - 1
        return {"Range": f"bytes={self.start}-{last}", "If-Range": self.validator}


@attrs.frozen
class Answer:
    """The bytes of a file from `start` on; `total` is the whole file's size, in bytes.

    `validator` names this version of the file to its server, for a later try; it
    `gives_parts` if it says so. `url` is where the file lies, after all redirects.
    """

    start: int
    total: int | None
    validator: str | None
    is_page: bool
    gives_parts: bool
    url: str = attrs.field(repr=False)
    chunks: Iterator[body.Chunk]
    close: Callable[[], None]


Ask = Callable[[Part], AbstractContextManager[Answer]]


def authorities() -> ssl.SSLContext:
    """The authorities whose certificates are trusted; reading them takes a while."""
    import httpx

    with as_environment_says():
        return httpx.create_ssl_context()


@contextlib.contextmanager
def line(
    url: str, headers: Mapping[str, str], limits: Limits, believed: ssl.SSLContext
) -> Iterator[Ask]:
    """A function that asks a file's server for parts of it, over one connection.

    Raises `Transient`, and `DownloadFailed` where another try would meet the same.
    """
    import httpx

    with _explained(url), unlogged():
        redirects = Redirects(httpx.URL(url), headers)
        with _client(redirects, limits, believed) as client:

            @contextlib.contextmanager
            def ask(part: Part) -> Iterator[Answer]:
                request = client.build_request(
                    "GET",
                    part.url or url,
                    headers={**headers, **part.headers(), **_PLAIN},
                )
                with (
                    _explained(url),
                    _in_time(shown_url(url), redirects, limits) as deadline,
                    contextlib.closing(_sent(client, request, redirects)) as response,
                ):
                    yield _checked(response, shown_url(url), part, limits, deadline)

            yield ask


@contextlib.contextmanager
def _in_time(shown: str, redirects: Redirects, limits: Limits) -> Iterator[Deadline]:
    import httpx

    late = f"{shown} did not begin to answer within {limits.answer:.0f} s"
    with Deadline(limits.answer, late, lambda: redirects.connection) as deadline:
        try:
            yield deadline
        except (httpx.TransportError, Transient) as error:
            if deadline.passed:
                raise Transient(deadline.reason) from error
            raise


def _sent(client: Any, request: Any, redirects: Redirects) -> Any:
    import httpx

    while True:
        try:
            return client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            if not redirects.has_another_address:
                raise


@contextlib.contextmanager
def _explained(url: str) -> Iterator[None]:
    import httpx

    try:
        yield
    except (
        httpx.HTTPError,
        httpx.InvalidURL,
        httpx.StreamError,
        UnicodeError,  # of a host that no name can be
    ) as error:
        reason = str(error) or type(error).__name__
        sentence = f"{shown_url(url)} could not be read: {reason:.300}"
        passing = isinstance(error, httpx.TransportError)
        if not passing or isinstance(error, httpx.UnsupportedProtocol):
            raise DownloadFailed(sentence) from error
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            advice = "SSL_CERT_FILE names the authorities of a private network"
            raise DownloadFailed(f"{sentence}; {advice}") from error
        raise Transient(sentence) from error


def _client(redirects: Redirects, limits: Limits, believed: ssl.SSLContext) -> Any:
    import httpx

    with as_environment_says():
        return httpx.Client(
            verify=believed,
            follow_redirects=True,
            max_redirects=limits.redirects,
            timeout=httpx.Timeout(limits.idle, connect=limits.connect),
            event_hooks={"request": [redirects.check]},
        )


@contextlib.contextmanager
def as_environment_says() -> Iterator[None]:
    """Say of a proxy, or of a file of authorities, named there that it is of no use."""
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        raise DownloadFailed(
            f"the network cannot be used as the environment says: {error}; correct "
            "HTTPS_PROXY, ALL_PROXY or SSL_CERT_FILE"
        ) from error


def _checked(
    response: Any, shown: str, part: Part, limits: Limits, deadline: Deadline
) -> Answer:
    status, headers = response.status_code, response.headers
    if status == 416 or (status == 206 and not part.headers()):
        raise Transient(f"{shown} answered {status} to no such range", restart=True)
    if status not in (200, 206):
        raise _refused(response, shown, limits)
    encoding = headers.get("Content-Encoding", "").strip().lower() or "identity"
    if encoding != "identity":
        raise DownloadFailed(
            f"{shown} answered in the encoding {encoding!r:.80}, unasked"
        )
    chunked = "Transfer-Encoding" in headers
    length = total = None if chunked else _number(headers.get("Content-Length"))
    if status == 206:
        first, total = _range(headers.get("Content-Range", ""))
        if first != part.start:
            raise Transient(f"{shown} answered with another range", restart=True)
    accepted = headers.get("Accept-Ranges", "").strip()
    return Answer(
        start=part.start if status == 206 else 0,
        total=total,
        validator=_validator(headers),
        is_page=headers.get("Content-Type", "").startswith("text/html"),
        gives_parts=status == 206 or accepted == "bytes",
        url=str(response.url),
        # What is only a part leaves its connection for the next one.
        chunks=body.read(response, length, shown, limits, deadline, part.end is None),
        close=response.close,
    )


def _refused(response: Any, shown: str, limits: Limits) -> DownloadFailed:
    status = response.status_code
    sentence = f"{shown} answered {status} {response.reason_phrase:.100}"
    if status in _REDIRECTED:
        return DownloadFailed(f"{sentence}, without a place to go to")
    if status not in _RETRIED:
        return KINDS.get(status, DownloadFailed)(sentence)
    asked = retry_after(response.headers.get("Retry-After"))
    wait = None if asked is None else min(asked, limits.longest_pause)
    return Transient(sentence, wait, kind=KINDS.get(status, Unreachable))


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
        return header_value(headers.get("Last-Modified"))
    return None if tag.startswith("W/") else header_value(tag)


def header_value(text: str | None) -> str | None:
    """A text that may stand in a header, else None."""
    printable = text is not None and re.fullmatch(r"[ -~]{1,200}", text)
    return text if printable else None


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


_LOGGERS = (
    "httpx",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.proxy",
    "httpcore.socks",
)
_threads: set[int] = set()


def _is_another_thread(record: logging.LogRecord) -> bool:
    return threading.get_ident() not in _threads
