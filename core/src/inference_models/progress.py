"""What takes long, and how far it is: a line on a terminal, else the log."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

log = logging.getLogger("inference_models")

Report = Callable[[str, float], None]
"""Told what is being done, in words, and the share of it that is done, 0–1."""


@contextlib.contextmanager
def shown(subject: str) -> Iterator[Report]:
    """Reports in here concern `subject`; a terminal's line is cleared at the end."""
    stream = _terminal()
    if stream is None:
        yield lambda what, share: log.info(
            "%s: %s (%.0f %%)", subject, what, share * 100
        )
        return

    def report(what: str, share: float) -> None:
        write(f"\r\x1b[K{subject}: {what} ({share:.0%})")

    def write(text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # it was closed meanwhile
            stream.write(text)
            stream.flush()

    try:
        yield report
    finally:
        write("\r\x1b[K")


def _terminal() -> TextIO | None:
    """The terminal that errors go to, if there is one."""
    try:
        return sys.stderr if sys.stderr.isatty() else None
    except (AttributeError, ValueError):  # no console, or a stream that is closed
        return None


def paced(report: Report) -> Report:
    """The same report, for what is told often: a log hears it every ten seconds."""
    pause = 0.1 if _terminal() else 10.0
    last = time.monotonic()

    def seldom(what: str, share: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= pause:
            last = now
            report(what, share)

    return seldom
