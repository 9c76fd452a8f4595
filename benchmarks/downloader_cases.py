"""What servers do to a download in `downloaders.py`: a way to set up each fault.

Each case prepares the servers of a scene and gives the URL of the file. A HEAD is
always answered as by a server in order, so that each library comes to ask for the file.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import random
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from core.tests import faulty_server as faulty
from core.tests.certificates import Authority

SMALL = random.Random(0).randbytes(300_000)
LARGE = random.Random(1).randbytes(36_000_000)
"""The peer asks for parts of what is larger than 32 MiB."""
FILE = "/model.bin"
ON_THE_HUB = "/acme/tiny/resolve/main/model.bin"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAMED = {"Content_Disposition": 'inline; filename="model.bin";'}
"""As the servers of the Hub's large files have it."""
Answer = Callable[[Any, socket.socket, Any], None]


class Server(faulty.FaultyServer):
    """A faulty server that can tell a HEAD."""

    def __init__(self, tls: Any = None) -> None:
        super().__init__(tls)
        self._asked = threading.local()

    @property
    def is_asked_for_a_head(self) -> bool:
        """Whether the request that this thread answers is a HEAD."""
        return bool(self._asked.begins == b"HEAD")

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._asked.begins = connection.recv(4, socket.MSG_PEEK)
            super()._serve(connection)


@dataclass
class Scene:
    """The servers of one case, which `stack` closes, and a folder for all else."""

    content: bytes
    folder: Path
    stack: ExitStack

    def __post_init__(self) -> None:
        self.servers: list[Server] = []
        self.files = self.server()
        self.elsewhere = self.server()
        self.cache = self.folder / "cache"
        self.cache.mkdir()
        self.sha256 = hashlib.sha256(self.content).hexdigest()

    def server(self, tls: Any = None) -> Server:
        """One more, which runs as long as the scene."""
        self.servers.append(Server(tls))
        self.stack.enter_context(self.servers[-1])
        return self.servers[-1]

    def gives(self, *answers: Answer) -> str:
        """A URL whose n-th GET gets the n-th answer, and the last one repeats."""
        answer = in_turn(self.content, *answers)
        self.files.gives(ON_THE_HUB, answer)
        return str(self.files.gives(FILE, answer))


SetUp = Callable[[Scene], str]


@dataclass(frozen=True)
class Case:
    """A fault, and words of which an error that names it has one.

    Where it is `direct` the Hub gives the file itself, and not a server that it names.
    """

    title: str
    set_up: SetUp
    words: str = ""
    content: bytes = SMALL
    direct: bool = False


# What a server in order answers


def described(content: bytes, location: str | None = None) -> bytes:
    """The answer to a HEAD; with a location, the Hub's for a large file."""
    digest = f'"{hashlib.sha256(content).hexdigest()}"'
    facts: dict[str, Any] = {"ETag": digest, "Accept_Ranges": "bytes"}
    facts |= {"X_Repo_Commit": COMMIT, "X_Linked_Size": len(content)}
    facts |= {"X_Linked_ETag": digest}
    if location is None:
        return bytes(faulty.head(Content_Length=len(content), **facts))
    return bytes(faulty.head("302 Found", Location=location, Content_Length=0, **facts))


def part(content: bytes, asked: Any, etag: str = '"v1"') -> bytes:
    """The whole file, or what is asked for of it."""
    span = faulty.asked_range(asked)
    if span is None or asked.headers.get("if-range", etag) != etag:
        facts = {"Content_Length": len(content), "ETag": etag}
        return bytes(faulty.head(**facts, **NAMED)) + content
    return named(faulty.rest(content, span[0], etag, last=span[1]))


def named(reply: bytes) -> bytes:
    """With the name of the file in its headers."""
    line = f"\r\nContent-Disposition: {NAMED['Content_Disposition']}\r\n"
    return reply.replace(b"\r\n", line.encode(), 1)


def serves(content: bytes, etag: str = '"v1"') -> Answer:
    """A file as good servers give it."""

    def answer(server: Server, connection: socket.socket, asked: Any) -> None:
        connection.sendall(part(content, asked, etag))

    return answer


def in_turn(content: bytes, *answers: Answer) -> Answer:
    """Each GET gets the next answer, and the last one repeats."""
    waiting, lock = list(answers), threading.Lock()

    def answer(server: Server, connection: socket.socket, asked: Any) -> None:
        if server.is_asked_for_a_head:
            connection.sendall(described(content))
            return
        with lock:
            now = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        now(server, connection, asked)

    return answer


# Ways to set up a fault


def once(*bad: Answer) -> SetUp:
    """These answers, one each, and then the file."""
    return lambda scene: scene.gives(*bad, serves(scene.content))


def always(bad: Answer) -> SetUp:
    """This answer for ever."""
    return lambda scene: scene.gives(bad)


def stops(size: int, then: Any) -> Answer:
    """The beginning of the small file, and then this."""
    answer: Answer = faulty.stops(SMALL, size, then, **NAMED)
    return answer


def gives(content: bytes, **headers: Any) -> Answer:
    """These bytes, whatever is asked for."""
    answer: Answer = faulty.whole(content, ETag='"v1"', **NAMED, **headers)
    return answer


def parts_meet(bad: Answer, for_ever: bool = False) -> SetUp:
    """Half of the large file, and this where a part is asked for."""
    first = faulty.stops(LARGE, len(LARGE) // 2, faulty.hang_up, **NAMED)
    rest = in_turn(LARGE, bad) if for_ever else in_turn(LARGE, bad, serves(LARGE))
    without = in_turn(LARGE, first, serves(LARGE))

    def answer(server: Server, connection: socket.socket, asked: Any) -> None:
        chosen = without if faulty.asked_range(asked) is None else rest
        chosen(server, connection, asked)

    return lambda scene: scene.gives(answer)


def another_part(server: Server, connection: socket.socket, asked: Any) -> None:
    """As many bytes as were asked for, from another place, and said so."""
    first, last = faulty.asked_range(asked)
    size = (len(LARGE) if last is None else last + 1) - first
    start = 0 if first else 1
    reply = faulty.rest(LARGE, start, last=start + size - 1)
    connection.sendall(named(reply))


def another_total(server: Server, connection: socket.socket, asked: Any) -> None:
    """What was asked for, of a file that is said to be larger."""
    first, last = faulty.asked_range(asked)
    reply = faulty.rest(LARGE, first, last=last, total=len(LARGE) + 9)
    connection.sendall(named(reply))


def changes(scene: Scene) -> str:
    """Half of what is first asked for, of a version that is replaced then."""
    old = LARGE[::-1]

    def answer(server: Server, connection: socket.socket, asked: Any) -> None:
        reply = part(old, asked, '"v0"')
        begins = reply.index(b"\r\n\r\n") + 4
        connection.sendall(reply[: begins + (len(reply) - begins) // 2])

    return scene.gives(answer, serves(LARGE))


def refused(scene: Scene) -> str:
    """A port that is taken, and where nobody listens."""
    taken = scene.stack.enter_context(socket.socket())
    taken.bind(("127.0.0.1", 0))
    return f"http://127.0.0.1:{taken.getsockname()[1]}{FILE}"


def untrusted(scene: Scene) -> str:
    """A server whose certificate nobody vouches for."""
    secure = scene.server(Authority(scene.folder).signed("localhost"))
    secure.gives(FILE, in_turn(scene.content, serves(scene.content)))
    return str(secure.url(FILE, "localhost"))


def moved(scene: Scene) -> str:
    """A redirect on the same server."""
    there = scene.files.gives("/there.bin", serves(scene.content))
    return scene.gives(faulty.redirects(there))


def moved_elsewhere(scene: Scene) -> str:
    """A redirect to another host."""
    scene.elsewhere.gives("/there.bin", serves(scene.content))
    there = scene.elsewhere.url("/there.bin", "localhost")
    return scene.gives(faulty.redirects(there))


def in_circles(scene: Scene) -> str:
    """A redirect to itself."""
    return scene.gives(faulty.redirects(scene.files.url(FILE)))


def many_hops(scene: Scene) -> str:
    """21 redirects, and then the file."""
    for hop in range(1, 21):
        following = scene.files.url(f"/{hop + 1}")
        scene.files.gives(f"/{hop}", faulty.redirects(following))
    scene.files.gives("/21", serves(scene.content))
    return scene.gives(faulty.redirects(scene.files.url("/1")))


def without_end(server: Server, connection: socket.socket, asked: Any) -> None:
    """A megabyte a second, for as long as somebody listens."""
    connection.sendall(faulty.head(Transfer_Encoding="chunked", **NAMED))
    while not server.closing.wait(0.05):
        connection.sendall(b"%x\r\n%s\r\n" % (50_000, bytes(50_000)))


HALF = len(SMALL) // 2
FLIPPED = bytes([SMALL[0] ^ 1]) + SMALL[1:]
HEAD = faulty.head(Content_Length=len(SMALL), **NAMED)
PAGE = gives(b"<html>Please log in</html>", Content_Type="text/html")
DRIPPING = faulty.drips(HEAD + SMALL, len(HEAD), count=len(SMALL))
UNSAID_LENGTH = faulty.raw(faulty.head(**NAMED), SMALL[:HALF])
LONG_HEADERS = gives(SMALL, X_Long="x" * (1 << 20))
BANANA = faulty.raw(b"BANANA\r\n\r\n")
SQUEEZED = gives(gzip.compress(SMALL), Content_Encoding="gzip")
BOMB = gives(gzip.compress(bytes(50_000_000)), Content_Encoding="gzip")
CUT_CHUNKS = faulty.chunked(SMALL[:HALF], ended=False)
NO_RANGE = faulty.status("416 Range Not Satisfiable")

BROKEN = "refus|reset|clos|disconnect|time[d-]? ?out|connect|incomplete|slow|silen"
OTHER = "hash|md5|sha256|size|bytes|length"
CASES = [
    Case("connection refused", refused, BROKEN),
    Case("stall before the first byte, once", once(stops(0, faulty.stall)), BROKEN),
    Case("stall after one byte, once", once(stops(1, faulty.stall)), BROKEN),
    Case("stall in the middle, once", once(stops(HALF, faulty.stall)), BROKEN),
    Case(
        "stall before the last byte, once",
        once(stops(len(SMALL) - 1, faulty.stall)),
        BROKEN,
    ),
    Case("stall before the first byte", always(stops(0, faulty.stall)), BROKEN),
    Case("stall after one byte", always(stops(1, faulty.stall)), BROKEN),
    Case(
        "reset before the headers, once",
        once(lambda s, c, a: faulty.reset(s, c)),
        BROKEN,
    ),
    Case("reset in the middle, once", once(stops(HALF, faulty.reset)), BROKEN),
    Case("short body, once", once(stops(HALF, faulty.hang_up)), BROKEN),
    Case("short body", always(stops(HALF, faulty.hang_up)), f"{BROKEN}|{OTHER}"),
    Case("short body, its length unsaid, once", once(UNSAID_LENGTH), OTHER),
    Case("chunks cut off, once", once(CUT_CHUNKS), BROKEN),
    Case(
        "more bytes than `Content-Length` says",
        always(faulty.raw(HEAD, SMALL + b"more")),
        OTHER,
    ),
    Case("a file twice as long, correctly sent", always(gives(SMALL * 2)), OTHER),
    Case("a file of 99 bytes, correctly sent", always(gives(SMALL[:99])), OTHER),
    Case("a body without end, 1 MB/s", always(without_end), f"{OTHER}|long"),
    Case("one bit flipped", always(gives(FLIPPED)), OTHER),
    Case("another file of the same length", always(gives(SMALL[::-1])), OTHER),
    Case(
        "first half damaged, then broken off, once",
        lambda scene: scene.gives(
            faulty.stops(FLIPPED, HALF, faulty.hang_up, **NAMED), serves(SMALL)
        ),
        OTHER,
    ),
    Case("`Content-Encoding: gzip` of the file", always(SQUEEZED), "gzip|encod"),
    Case("gzip of 50 MB of zeros", always(BOMB), f"gzip|encod|{OTHER}"),
    Case("206 of another range, once", parts_meet(another_part), "range", LARGE),
    Case(
        "206 that says another total, once", parts_meet(another_total), "range", LARGE
    ),
    Case("200 to a range", parts_meet(gives(LARGE), True), "range", LARGE),
    Case("416 to a range, once", parts_meet(NO_RANGE), "416|range", LARGE),
    Case("416 to every range", parts_meet(NO_RANGE, True), "416|range", LARGE),
    Case("the file changes between two tries", changes, f"{OTHER}|chang", LARGE),
    *(
        Case(f"status {code}", always(faulty.status(f"{code} No")), str(code))
        for code in (401, 403, 404, 410, 429, 500, 503)
    ),
    Case(
        "429 with `Retry-After: 1`, once",
        once(faulty.status("429 No", Retry_After=1)),
        "429",
    ),
    *(
        Case(
            f"status {code}, twice", once(*[faulty.status(f"{code} No")] * 2), str(code)
        )
        for code in (500, 503)
    ),
    Case("302 to the file", moved, "302|redirect"),
    Case("302 to another host", moved_elsewhere, "302|redirect", direct=True),
    Case("302 in circles", in_circles, "redirect"),
    Case("21 hops", many_hops, "redirect"),
    Case(
        "302 to `file:///etc/passwd`",
        always(faulty.redirects("file:///etc/passwd")),
        "file:|protocol|scheme",
    ),
    Case(
        "302 to `http://169.254.169.254/`",
        always(faulty.redirects("http://169.254.169.254/latest")),
        f"169.254.169.254|{BROKEN}",
    ),
    Case("web page with status 200", always(PAGE), f"page|html|login|{OTHER}"),
    Case("50 bytes a second", always(DRIPPING), "slow"),
    Case("a header of 1 MB, once", once(LONG_HEADERS), "header"),
    Case("a header of 1 MB", always(LONG_HEADERS), "header|too (big|large|long)|size"),
    Case("a bad status line, once", once(BANANA), "status|protocol|illegal"),
    Case("a bad status line", always(BANANA), "status|protocol|illegal"),
    Case("TLS, of an unknown authority", untrusted, "certificate"),
]
