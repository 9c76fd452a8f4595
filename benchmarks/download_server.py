"""A fast web server of one file: `download_server.py FILE [--rate …] [--tls FOLDER]`.

Prints its port. It knows ranges, a strong ETag and connections that are kept open.
With `--rate` each connection gets so many bytes a second, with `--line` all of them
together, and each answer begins `--delay` seconds late, as one from far away does.
"""

from __future__ import annotations

import argparse
import contextlib
import mmap
import os
import re
import socket
import ssl
import threading
import time
from pathlib import Path

SLICE = 1 << 16
RANGE = re.compile(rb"(?i)range: bytes=(\d+)-(\d*)")


class Pace:
    """How fast bytes may go; None is as fast as they can."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self, size: int) -> None:
        """Wait until so many bytes may go."""
        if self._rate is None:
            return
        with self._lock:
            now = time.monotonic()
            self._next = max(self._next, now - 0.1) + size / self._rate
            pause = self._next - now
        if pause > 0:
            time.sleep(pause)


class Server:
    """Serves one file to whoever asks."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._file = options.file.open("rb")
        self._content = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        self._line = Pace(options.line)
        self._tls: ssl.SSLContext | None = None
        if options.tls:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(options.tls / "cert.pem", options.tls / "key.pem")

    def serve(self, connection: socket.socket) -> None:
        """Answer until the other end hangs up."""
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            pace = Pace(self._options.rate)
            with connection, connection.makefile("rb") as asked:
                while asked.readline():
                    self._answer(connection, asked, pace)

    def _answer(self, connection: socket.socket, asked: object, pace: Pace) -> None:
        first, last, status, more = 0, len(self._content) - 1, b"200 OK", b""
        for line in iter(lambda: asked.readline().strip(), b""):  # type: ignore[attr-defined]
            if match := RANGE.match(line):
                first, last = int(match[1]), int(match[2] or last)
                status = b"206 Partial Content"
                place = (first, last, len(self._content))
                more = b"Content-Range: bytes %d-%d/%d\r\n" % place
        time.sleep(self._options.delay)
        facts = b'ETag: "v1"\r\nAccept-Ranges: bytes\r\nContent-Length: %d\r\n'
        head = b"HTTP/1.1 %s\r\n%s" % (status, more) + facts % (last - first + 1)
        connection.sendall(head + b"\r\n")
        self._send(connection, first, last + 1, pace)

    def _send(
        self, connection: socket.socket, first: int, end: int, pace: Pace
    ) -> None:
        unhindered = self._options.rate is None and self._options.line is None
        size = 1 << 30 if unhindered else SLICE
        while first < end:
            count = min(size, end - first)
            pace.wait(count)
            self._line.wait(count)
            if self._tls:
                connection.sendall(self._content[first : first + count])
            else:
                count = os.sendfile(
                    connection.fileno(), self._file.fileno(), first, count
                )
            first += count


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--line", type=float)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--tls", type=Path)
    server = Server(parser.parse_args())
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            threading.Thread(
                target=server.serve, args=[connection], daemon=True
            ).start()


if __name__ == "__main__":
    main()
