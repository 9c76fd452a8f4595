"""Locks that save work: several processes that want one thing have it made once."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from inference_models.progress import Report, paced, shown

log = logging.getLogger("inference_models")


@contextlib.contextmanager
def locked(path: Path, share: Callable[[], float], patience: float) -> Iterator[bool]:
    """Keep others from doing the same work; safety does not depend on it.

    Who waits shows the share of the work that is done, as `share` tells it, and does
    the work, too, after so many seconds in which it has not grown. Gives whether the
    lock is held.
    """
    import filelock

    lock, held = filelock.FileLock(path), False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _acquire(lock, share, patience)
        held = lock.is_locked
    except (NotImplementedError, OSError) as error:
        log.debug("no lock on this file system: %s", error)
    try:
        yield held
    finally:
        with contextlib.suppress(NotImplementedError, OSError):
            lock.release()


def _acquire(lock: Any, share: Callable[[], float], patience: float) -> None:
    import filelock

    try:
        lock.acquire(timeout=2)
    except filelock.Timeout:
        with shown("waiting") as report:
            _wait(lock, share, patience, report)
        if not lock.is_locked:
            log.warning(
                "another process has the same file to fetch and got no further in "
                "%.0f s; it is fetched here, too",
                patience,
            )


def _wait(
    lock: Any, share: Callable[[], float], patience: float, report: Report
) -> None:
    """Wait for a lock while the work of who has it goes on."""
    import filelock

    what = "another process fetches or derives the same file"
    report(what, share())
    again = paced(report)
    done, since = share(), time.monotonic()
    while not lock.is_locked and time.monotonic() - since < patience:
        with contextlib.suppress(filelock.Timeout):
            lock.acquire(timeout=1)
        now = share()
        again(what, now)
        if now != done:
            done, since = now, time.monotonic()
