"""A web server on this machine whose every byte is scripted, faults included."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from typing import NamedTuple


class Asked(NamedTuple):
    path: str
    headers: dict[str, str]


class FaultyServer:
    """Answers by path: the n-th request gets the n-th answer, and the last one repeats.

    An answer is called with this server, the connection and what was asked.
    """

    def __init__(self, tls=None):
        self.answers = {}
        self.requests = []
        self.connections = 0
        self.keeps_open = False
        self.closing = threading.Event()
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]

    def url(self, path, host="127.0.0.1"):
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}{path}"

    def gives(self, path, *answers):
        self.answers[path] = list(answers)
        return self.url(path)

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                serve = threading.Thread(target=self._serve, args=[connection])
                serve.daemon = True
                serve.start()

    def _serve(self, connection):
        self.connections += 1
        with contextlib.suppress(OSError):
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                self._answer(connection)
                while self.keeps_open:
                    self._answer(connection)

    def _answer(self, connection):
        asked = _read(connection)
        self.requests.append(asked)
        answers = self.answers[asked.path.partition("?")[0]]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        answer(self, connection, asked)

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        self._listener.close()


def _read(connection):
    with connection.makefile("rb") as stream:
        line = stream.readline()
        if not line:
            raise ConnectionError("nothing is asked any more")
        path = line.split()[1].decode()
        headers = {}
        while (line := stream.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
    return Asked(path, headers)


def head(status="200 OK", **headers):
    """The bytes before a body; underscores in names of headers stand for dashes."""
    headers = {"Connection": "close"} | headers
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


def raw(*parts):
    """Send these bytes, and hang up."""

    def answer(server, connection, asked):
        for part in parts:
            connection.sendall(part)

    return answer


def status(line, **headers):
    return raw(head(line, Content_Length=0, **headers))


def whole(content, **headers):
    return raw(head(Content_Length=len(content), **headers), content)


def ranged(content, etag='"v1"', **headers):
    """A file as good servers give it: whole, or the part that it is asked for."""

    def answer(server, connection, asked):
        first, last = asked_range(asked) or (0, None)
        if (first or last) and asked.headers.get("if-range") == etag:
            connection.sendall(rest(content, first, etag, last=last, **headers))
        else:
            facts = {"Content_Length": len(content), "ETag": etag} | headers
            connection.sendall(head(**facts) + content)

    return answer


def asked_range(asked):
    """First and last byte that were asked for, as far as they were."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("range", ""))
    return (int(match[1]), int(match[2]) if match[2] else None) if match else None


def rest(content, first, etag='"v1"', shown=None, total=None, last=None, **headers):
    """A 206 of the bytes from `first` on, which may claim to be another."""
    start = first if shown is None else shown
    size = len(content) if total is None else total
    end = len(content) if last is None else last + 1
    facts = {"Content_Range": f"bytes {start}-{end - 1}/{size}", "ETag": etag}
    facts |= {"Content_Length": end - first} | headers
    return head("206 Partial Content", **facts) + content[first:end]


def stops(content, size, then, **headers):
    """Send so many bytes of a file, and then stall, reset or hang up."""

    def answer(server, connection, asked):
        facts = {"ETag": '"v1"'} | headers
        connection.sendall(head(Content_Length=len(content), **facts))
        connection.sendall(content[:size])
        then(server, connection)

    return answer


def stall(server, connection):
    server.closing.wait(60)


def reset(server, connection):
    linger = struct.pack("ii", 1, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    connection.close()


def hang_up(server, connection):
    """Close in an orderly way, as the end of `_serve` does."""


def drips(content, size=0, count=200, pause=0.02):
    """The first `size` bytes at once, so many one at a time, and then the rest."""

    def answer(server, connection, asked):
        connection.sendall(content[:size])
        for place in range(size, size + count):
            if server.closing.wait(pause):
                return
            connection.sendall(content[place : place + 1])
        connection.sendall(content[size + count :])

    return answer


def chunked(*parts, ended=True):
    """A body in chunks, without a length."""
    sent = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return raw(head(Transfer_Encoding="chunked"), sent, b"0\r\n\r\n" if ended else b"")


def endless(part):
    """Chunks until nobody listens."""

    def answer(server, connection, asked):
        connection.sendall(head(Transfer_Encoding="chunked"))
        while not server.closing.is_set():
            connection.sendall(b"%x\r\n%s\r\n" % (len(part), part))

    return answer


def redirects(target, code=302):
    return status(f"{code} Moved", Location=target)
