"""One small answer of a server's API, as far as it may be taken and waited for.

Keys travel in headers alone. They and addresses, which may be signed, are kept out of
messages, of `repr` and of the HTTP client's logs; a redirect takes them nowhere else.
"""

from __future__ import annotations

import logging
import re
import socket
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import attrs

from inference_models.download.deadline import Deadline
from inference_models.download.redirects import LOOPBACK
from inference_models.download.store import offline
from inference_models.download.transport import (
    KINDS,
    as_environment_says,
    retry_after,
    unlogged,
)
from inference_models.errors import (
    DownloadFailed,
    InvalidOption,
    Offline,
    RateLimited,
    Unreachable,
)
from inference_models.interfaces import Access

log = logging.getLogger("inference_models")

# No compression, so that what comes is bounded.
_OWN = {"Accept": "application/json", "Accept-Encoding": "identity"}
_KEY = re.compile(r"[!-~]+")
_RESERVED = ("authorization", *map(str.lower, _OWN))
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REFUSALS = {
    401: "wants a key, or another one; check api_key=",
    402: "says that the key's plan does not cover it",
    403: "says that it may not be had, or not with this key",
    423: "says that the account's usage is paused",
}


@attrs.frozen
class Terms:
    """How much is taken of an answer (bytes), and how long it is waited for (seconds).

    A server that wants a longer pause than `longest_pause` is not asked again.
    """

    largest: int = 8_000_000
    connect: float = 5.0
    idle: float = 15.0
    total: float = 60.0
    tries: int = 3
    pause: float = 0.5
    """Before the second try; it doubles with each."""
    longest_pause: float = 30.0
    redirects: int = 0
    """How many are followed, on the server that was asked."""


class Hidden(dict[str, str]):
    """Headers that are not shown, as some hold secrets."""

    def __repr__(self) -> str:
        return f"<headers: {', '.join(self)}>"


@attrs.frozen
class Question:
    """What is asked, and as whom; nothing of it is shown, as it may hold secrets."""

    url: str = attrs.field(repr=False)
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)


@attrs.frozen
class Reply:
    """One answer; a status of 0 is none at all, for the reason in `problem`.

    `content` is cut where it is too long, just above the limit. Of the headers those
    are kept that were asked for, under their names in lower case.
    """

    status: int
    content: bytes = attrs.field(default=b"", repr=False)
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    problem: str = ""

    @property
    def passing(self) -> bool:
        """Whether the same question may be answered later."""
        return self.status in (0, 408, 429) or self.status >= 500

    @property
    def wait(self) -> float | None:
        """The seconds that the server asks for before the next question."""
        return retry_after(self.headers.get("retry-after"))


def ask(
    question: Question, server: str, terms: Terms, kept: tuple[str, ...] = ()
) -> Reply:
    """What a server answers, after as many tries as it takes.

    `server` is its name for the log, and `kept` names headers, in lower case. Raises
    `DownloadFailed` where the environment names a network that cannot be used, and
    `Offline` where it switches the network off.
    """
    if offline():
        raise Offline(f"INFERENCE_MODELS_OFFLINE is set, so {server} is not asked")
    for number in range(1, terms.tries + 1):
        reply = _once(question, terms, ("retry-after", *kept))
        pause = max(reply.wait or 0.0, terms.pause * 2 ** (number - 1))
        too_long = pause > terms.longest_pause
        if not reply.passing or number >= terms.tries or too_long:
            break
        log.info("%s is asked again in %.1f s", server, pause)
        time.sleep(pause)
    return reply


def refusal(reply: Reply, asked: str, setting: str) -> DownloadFailed:
    """What a reply that is no answer means, as the error of its status.

    `asked` begins the sentence, as "the shelf was asked for 'acme/bolts' and" does;
    `setting` is what to check where a server is not reached, such as its variable.
    """
    status = reply.status
    if status in _REFUSALS:
        return KINDS[status](f"{asked} {_REFUSALS[status]} ({status})")
    if status == 429:
        after = "" if reply.wait is None else f" in {reply.wait:.0f} s"
        return RateLimited(f"{asked} wants fewer requests (429); try again{after}")
    if reply.passing:
        reason = f"answered {status}" if status else f"not reached: {reply.problem}"
        return Unreachable(f"{asked} {reason}; check the network and {setting}")
    return DownloadFailed(f"{asked} answered {status}, which is no answer to expect")


def _once(question: Question, terms: Terms, kept: tuple[str, ...]) -> Reply:
    import httpx

    late = f"the answer took longer than {terms.total:.0f} s"
    watch = _Watch()
    with Deadline(terms.total, late, lambda: watch.connection) as deadline:
        try:
            with unlogged(), _client(terms) as client:
                return _followed(client, question, watch, terms, kept)
        except (
            httpx.HTTPError,
            httpx.InvalidURL,
            UnicodeError,  # of a host that no name can be
        ) as error:
            problem = deadline.reason if deadline.passed else str(error)
            return Reply(0, problem=problem[:300] or type(error).__name__)


def _followed(
    client: Any, question: Question, watch: _Watch, terms: Terms, kept: tuple[str, ...]
) -> Reply:
    """The answer behind as many redirects on the same server as there may be."""
    left = terms.redirects
    while True:
        with _streamed(client, question, watch) as response:
            further = _further(response, question) if left else None
            if further is None:
                return _reply(response, terms, kept)
        question, left = further, left - 1


class _Watch:
    """Follows which connection a question goes over."""

    connection: socket.socket | None = None

    def __call__(self, event: str, info: dict[str, Any]) -> None:
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self.connection = info["return_value"].get_extra_info("socket")


def _streamed(client: Any, question: Question, watch: _Watch) -> Any:
    headers = Hidden({**question.headers, **_OWN})
    extensions = {"trace": watch}
    return client.stream("GET", question.url, headers=headers, extensions=extensions)


def _client(terms: Terms) -> Any:
    import httpx

    timeout = httpx.Timeout(terms.idle, connect=terms.connect)
    with as_environment_says():
        return httpx.Client(timeout=timeout)


def _further(response: Any, question: Question) -> Question | None:
    """The question that a redirect leads to on the same server; else None."""
    following = response.next_request
    if following is None:
        return None
    here, there = response.url, following.url
    if (there.scheme, there.netloc) != (here.scheme, here.netloc):
        return None
    return attrs.evolve(question, url=str(there))


def _reply(response: Any, terms: Terms, kept: tuple[str, ...]) -> Reply:
    headers = {k: response.headers[k] for k in kept if k in response.headers}
    content = bytearray()
    for chunk in response.iter_raw():
        content += chunk
        if len(content) > terms.largest:
            break
    return Reply(response.status_code, bytes(content), headers)


def address(name: str, value: str, example: str) -> str:
    """An address without its last slash, as the setting `name` has it.

    Raises `InvalidOption`, which shows nothing, for one that is not encrypted or that
    holds a user or a query: these may be secrets.
    """
    if not encrypted(value) or re.search(r"[?#]", value):
        raise InvalidOption(
            f"{name} is no https:// address; give one without user name and query, "
            f"such as {example!r}"
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
    at_home = parts.scheme == "http" and parts.hostname in LOOPBACK
    printable = _KEY.fullmatch(url) is not None
    return named and printable and (parts.scheme == "https" or at_home)


def sendable_key(key: object, settings: str) -> str:
    """A key as it is sent; `InvalidOption` names the settings that it may be from."""
    sent = key.strip() if isinstance(key, str) else ""
    del key  # whoever prints a traceback's locals sees none
    if not _KEY.fullmatch(sent):
        del sent
        raise InvalidOption(
            f"the key holds a space or a character that no key has; check {settings}"
        )
    return sent


def headers_of(access: Access) -> dict[str, str]:
    """The headers that the user gives for a server, and the key as a bearer's token.

    Where no key is given, an authorization of the user's own is sent as it is. They are
    for that server alone. Raises `InvalidOption` for what cannot be sent.
    """
    headers = sendable_headers(access.headers)
    own = {name.lower(): value for name, value in access.headers.items()}
    if access.key:
        headers["authorization"] = f"Bearer {sendable_key(access.key, 'api_key=')}"
    elif "authorization" in own:
        headers["authorization"] = own["authorization"].strip()
    return Hidden(headers)


def sendable_headers(given: Mapping[str, str]) -> dict[str, str]:
    """Extra headers by names in lower case, without those that core sets itself.

    These hold the key, and say how an answer is sent. Raises `InvalidOption`, which
    shows no value, for a header that cannot be sent.
    """
    extra = {}
    for name, value in given.items():
        printable = value.isascii() and value.isprintable()
        if not _HEADER.fullmatch(name) or not printable:
            raise InvalidOption(f"header {name!r} is none that can be sent")
        if name.lower() not in _RESERVED:
            extra[name.lower()] = value.strip()
    return extra
