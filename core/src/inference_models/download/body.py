"""The bytes of an answer: in large pieces, and given up where they are too slow."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from inference_models.download.deadline import Deadline
from inference_models.download.limits import Limits, Transient

Chunk = bytes | memoryview
_LARGEST = 1 << 21
_MOMENT = 0.05
"""Seconds that what has come already waits for more, to be handed on together."""


def read(
    response: Any,
    length: int | None,
    shown: str,
    limits: Limits,
    deadline: Deadline,
    is_last: bool,
) -> Iterator[Chunk]:
    """The body of a response, `length` bytes if that is known; raises `Transient`.

    h11 copies each byte three times and takes 64 kB at a time, 16 with TLS, which is
    slower than curl by half. It has nothing to say within a body of known length, so
    that is read from the connection itself, if it `is_last` to be read from there.
    """
    chunks = response.iter_raw()
    connection = _connection(response) if is_last else None
    if length is not None and connection is not None:
        chunks = _past_parser(chunks, length, connection, shown, limits)
    return timed(chunks, shown, limits, deadline)


def _connection(response: Any) -> socket.socket | None:
    import ssl  # which is slow to import, and most calls do without

    stream = response.extensions.get("network_stream")
    found = stream and stream.get_extra_info("socket")
    # TLS to a server through TLS to its proxy, which the socket knows nothing of.
    doubled = found and isinstance(stream.get_extra_info("ssl_object"), ssl.SSLObject)
    return found if isinstance(found, socket.socket) and not doubled else None


def _past_parser(
    chunks: Iterator[bytes],
    length: int,
    connection: socket.socket,
    shown: str,
    limits: Limits,
) -> Iterator[Chunk]:
    first = next(chunks, b"")  # all that came together with the headers
    yield first
    left = length - len(first)
    while left > 0:
        # Not a bytearray, which is filled with zeros first.
        piece = np.empty(min(left, _LARGEST), np.uint8).data
        try:
            size = _fill(piece, connection, limits.idle)
        except OSError as error:
            raise Transient(f"{shown} could not be read: {error}") from error
        if not size:
            raise Transient(f"{shown} could not be read: it ended {left} bytes early")
        left -= size
        yield piece[:size]


def _fill(piece: memoryview, connection: socket.socket, idle: float) -> int:
    """Receive into `piece` what is there, and what follows in a moment; its size."""
    connection.settimeout(idle)
    size = connection.recv_into(piece)
    until = time.monotonic() + _MOMENT
    with contextlib.suppress(OSError):  # what is more than silence is met again
        while 0 < size < len(piece) and (wait := until - time.monotonic()) > 0:
            connection.settimeout(wait)
            more = connection.recv_into(piece[size:])
            if not more:
                break
            size += more
    return size


def timed(
    chunks: Iterator[Chunk], shown: str, limits: Limits, deadline: Deadline
) -> Iterator[Chunk]:
    """The same chunks, for as long as they come fast enough."""
    began, size = time.monotonic(), 0
    while True:
        allowed = limits.grace + size / limits.slowest
        left = began + allowed - time.monotonic()
        deadline.move(
            left, f"{shown} sent {size} bytes in {allowed:.0f} s, which is too slow"
        )
        chunk = next(chunks, None)
        if chunk is None:
            return
        size += len(chunk)
        yield chunk
