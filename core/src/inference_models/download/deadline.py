"""A limit for all that is done on a connection, however busy its other end seems."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable

_GLANCE = 0.25
"""Seconds between two looks at the clock, which may be moved in between."""


class Deadline:
    """Breaks a connection when the time is over, since a socket limits each read alone.

    Whoever reads from it then meets its end, and finds `reason` here. `connection`
    tells which one there is, if there is one.
    """

    def __init__(
        self,
        seconds: float,
        reason: str,
        connection: Callable[[], socket.socket | None],
    ) -> None:
        self.reason = reason
        self.passed = False
        self._connection = connection
        self._until = time.monotonic() + seconds
        self._over = threading.Event()

    def move(self, seconds: float, reason: str) -> None:
        """Set it anew, to so many seconds from now and for this reason."""
        self._until, self.reason = time.monotonic() + seconds, reason

    def __enter__(self) -> Deadline:
        threading.Thread(target=self._wait, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _wait(self) -> None:
        while (left := self._until - time.monotonic()) > 0:
            if self._over.wait(min(left, _GLANCE)):
                return
        self.passed = True
        self._break()
        while not self._over.wait(_GLANCE):  # should it be connected to another
            self._break()

    def _break(self) -> None:
        connection = self._connection()
        if connection is not None:
            with contextlib.suppress(OSError):
                # An SSLSocket's own method would go on in plain text.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
