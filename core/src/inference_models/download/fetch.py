"""One file from the first of its sources that gives it: tries, pauses, resumption."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Mapping

import attrs

from inference_models.card import File
from inference_models.disk import CHUNK, check_room
from inference_models.download.limits import Limits, Transient
from inference_models.download.partial import Partial
from inference_models.download.ranges import hastened
from inference_models.download.sources import (
    LOCAL,
    Request,
    of_no_known_kind,
    opened,
    scheme,
)
from inference_models.download.transport import Answer, Part, authorities, line
from inference_models.errors import DownloadFailed, HashMismatch, Offline

_RESERVE = 1_000_000_000
_LARGEST_UNTOLD = 50_000_000_000
"""Bytes that stay free, and bytes that come, where nobody says how many these are."""

log = logging.getLogger("inference_models")

Grown = Callable[[int], object]
"""Told how many bytes of the file are here."""


def fetch(
    partial: Partial, request: Request, limits: Limits, offline: bool, grown: Grown
) -> str:
    """Fill `partial` from its file's sources, in order; the sha256 of what came.

    Raises `DownloadFailed` with the reason of each source, as `HashMismatch` or
    `Offline` if the last one's was that; `OSError` if there is no room for it.
    """
    file = partial.file
    problems: list[DownloadFailed] = []
    for source in file.sources:
        if offline and scheme(source) != "file":
            problems.append(Offline("INFERENCE_MODELS_OFFLINE is set"))
            continue
        try:
            digest = _from_source(source, partial, request, limits, grown)
        except DownloadFailed as error:
            problems.append(error)
            continue
        if problems:
            log.warning(
                "%r comes from its next source: %s", file.name, _reasons(problems)
            )
        return digest
    raise _failure(file, problems)


def _reasons(problems: list[DownloadFailed]) -> str:
    return "; ".join(dict.fromkeys(map(str, problems)))


def _failure(file: File, problems: list[DownloadFailed]) -> DownloadFailed:
    reasons = _reasons(problems) or "it has no source"
    last = problems[-1] if problems else DownloadFailed()
    kind = last.kind if isinstance(last, Transient) else type(last)
    failure = kind(
        f"{file.name!r} is not in the cache and cannot be fetched: {reasons}"
    )
    failure.__cause__ = problems[-1] if problems else None
    return failure


def _from_source(
    source: str, partial: Partial, request: Request, limits: Limits, grown: Grown
) -> str:
    if scheme(source) not in LOCAL:
        return _from_web(source, partial, request, limits, grown)
    partial.restart()
    with opened(source) as content:
        partial.check_total(content.size)
        check_room(partial.path, content.size)
        for chunk in content.chunks:
            partial.write(chunk)
            grown(partial.size)
    return partial.digest()


def _from_web(
    source: str, partial: Partial, request: Request, limits: Limits, grown: Grown
) -> str:
    tries, anew = 0, False
    while True:
        before = partial.size
        try:
            if before and before == partial.file.size:
                return partial.digest()
            return _receive(*_asked(source, request), partial, limits, grown)
        except HashMismatch:
            resumed = partial.resumed
            partial.restart()
            if anew or not resumed:
                raise
            anew = True
        except Transient as error:
            if error.restart or partial.validator is None:
                partial.restart()
            tries = 0 if partial.size - before >= CHUNK else tries + 1
            if tries >= limits.tries:
                raise
            pause = _pause(error, tries, limits)
            log.info("%s; it is asked again in %.1f s", error, pause)
            time.sleep(pause)
            limits = attrs.evolve(limits, connections=1)


def _asked(source: str, request: Request) -> tuple[str, Mapping[str, str]]:
    """The URL and headers of a source, as its provider gives them for this try."""
    url, headers = request(source)
    if scheme(url) not in ("http", "https"):
        raise of_no_known_kind(source)
    return url, headers


def _pause(error: Transient, tries: int, limits: Limits) -> float:
    if error.restart:
        return 0.0
    if error.wait is not None:
        return error.wait
    return float(min(limits.pause * 2 ** max(0, tries - 1), limits.longest_pause))


def _receive(
    url: str, headers: Mapping[str, str], partial: Partial, limits: Limits, grown: Grown
) -> str:
    rest = Part(partial.size, partial.validator)
    opened = functools.partial(line, url, headers, limits, authorities())
    with opened() as ask, ask(rest) as answer:
        try:
            _begin(answer, partial)
            for chunk in hastened(answer, opened, limits.connections):
                partial.write(chunk)
                grown(partial.size)
                if answer.total is None and partial.file.size is None:
                    _check_endless(partial)
            return partial.digest()
        except HashMismatch as error:
            if answer.is_page:
                raise HashMismatch(f"{error}; {_PAGE}") from None
            raise


def _check_endless(partial: Partial) -> None:
    """Raise for a file of no known size that outgrows what one may have."""
    check_room(partial.path, _RESERVE)
    if partial.size > _LARGEST_UNTOLD:
        raise DownloadFailed(
            f"the server does not say how large the file is, and sent more than "
            f"{_LARGEST_UNTOLD / 1e9:.0f} GB; give its size, or download it yourself"
        )


_PAGE = "the server answered with a web page: does this network ask for a login?"


def _begin(answer: Answer, partial: Partial) -> None:
    """Put the partial where the answer begins, and see that there is room for it."""
    if answer.is_page and not partial.file.is_hashed:
        raise DownloadFailed(_PAGE)
    if answer.start == 0:
        partial.restart()
    elif answer.validator not in (None, partial.validator):
        raise Transient("the file changed while it was fetched", restart=True)
    partial.resume(answer.validator or (partial.validator if answer.start else None))
    if answer.total is not None:
        partial.check_total(answer.total)
    total = answer.total or partial.file.size or 0
    check_room(partial.path, total - partial.size)
