"""What takes long, and how far it is: a line on a terminal, else the log."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator

log = logging.getLogger("inference_models")

Report = Callable[[str, float], None]
"""Told what is being done, in words, and the share of it that is done, 0–1."""


@contextlib.contextmanager
def shown(subject: str) -> Iterator[Report]:
    """Reports in here concern `subject`; a terminal's line is cleared at the end."""
    stream = sys.stderr
    if not (stream and stream.isatty()):
        yield lambda what, share: log.info(
            "%s: %s (%.0f %%)", subject, what, share * 100
        )
        return

    def report(what: str, share: float) -> None:
        stream.write(f"\r\x1b[K{subject}: {what} ({share:.0%})")
        stream.flush()

    try:
        yield report
    finally:
        stream.write("\r\x1b[K")
        stream.flush()


def paced(report: Report) -> Report:
    """The same report, for what is told often: a log hears it every ten seconds."""
    pause = 0.1 if sys.stderr and sys.stderr.isatty() else 10.0
    heard = [time.monotonic()]

    def seldom(what: str, share: float) -> None:
        now = time.monotonic()
        if now - heard[-1] >= pause:
            heard[:] = [now]
            report(what, share)

    return seldom
