"""A large file that comes slowly: its rest in pieces, over several connections."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager

from inference_models.download.body import Chunk
from inference_models.download.limits import Transient
from inference_models.download.transport import Answer, Ask, Part
from inference_models.errors import DownloadFailed

_LARGE = 1 << 26
"""Bytes that must be left for more connections to pay."""
_PIECE = 1 << 23
_FAST = 1e8
"""Bytes a second over one connection, with which it stays at one."""
_WINDOW = 1.0
"""Seconds of waiting over which that is looked at."""
_AHEAD = 2
"""Pieces that may be here before their turn, beside those that are on their way."""
_HANDED = 1 << 20

Line = Callable[[], AbstractContextManager[Ask]]


def hastened(answer: Answer, line: Line, connections: int) -> Iterator[Chunk]:
    """The chunks of an answer in their order, over more connections if it is slow.

    A server that caps each connection, or is far away, gives more over several. Raises
    `Transient` if a piece does not come; what came before it is good.
    """
    came = answer.start
    for chunk, is_slow in _clocked(answer.chunks):
        yield chunk
        came += len(chunk)
        if is_slow and connections > 1 and _is_divisible(answer, came):
            break
    else:
        return
    answer.close()
    try:
        yield from _pieces(_parts(answer, came), line, connections)
    except DownloadFailed as error:
        raise Transient(str(error), getattr(error, "wait", None)) from error


def _clocked(chunks: Iterator[Chunk]) -> Iterator[tuple[Chunk, bool]]:
    """Each chunk, and whether those before it were long in coming."""
    waited, size = 0.0, 0
    while True:
        began = time.monotonic()
        chunk = next(chunks, None)
        waited += time.monotonic() - began
        if chunk is None:
            return
        size += len(chunk)
        yield chunk, waited >= _WINDOW and size < _FAST * waited
        if waited >= _WINDOW:
            waited, size = 0.0, 0


def _is_divisible(answer: Answer, came: int) -> bool:
    """Whether the rest is large, and its server can name this version of the file."""
    is_large = answer.total is not None and answer.total - came >= _LARGE
    has_tag = (answer.validator or "").startswith('"')
    return is_large and has_tag and answer.gives_parts


def _parts(answer: Answer, start: int) -> Iterator[Part]:
    total = answer.total or 0
    for first in range(start, total, _PIECE):
        yield Part(first, answer.validator, min(first + _PIECE, total), answer.url)


Job = tuple[Part, "Future[bytearray]"]


def _pieces(
    parts: Iterator[Part], line: Line, connections: int
) -> Iterator[memoryview]:
    """The bytes of all parts in their order; no more than a few are held at a time."""
    jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
    stopped = threading.Event()
    for _ in range(connections):
        threading.Thread(target=_work, args=(jobs, line, stopped), daemon=True).start()

    def begun(part: Part) -> Future[bytearray]:
        job: Job = (part, Future())
        jobs.put(job)
        return job[1]

    coming = map(begun, parts)
    waiting = deque(itertools.islice(coming, connections + _AHEAD))
    try:
        while waiting:
            piece = memoryview(waiting.popleft().result())
            waiting.extend(itertools.islice(coming, 1))
            for start in range(0, len(piece), _HANDED):
                yield piece[start : start + _HANDED]
    finally:
        stopped.set()
        for _ in range(connections):
            jobs.put(None)


def _work(
    jobs: queue.SimpleQueue[Job | None], line: Line, stopped: threading.Event
) -> None:
    """Fetch one piece after another over one connection, until there is no job."""
    with contextlib.ExitStack() as stack:
        ask: Ask | None = None
        while (job := jobs.get()) is not None and not stopped.is_set():
            part, piece = job
            try:
                ask = ask or stack.enter_context(line())
                piece.set_result(_received(ask, part, stopped))
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                piece.set_exception(error)


def _received(ask: Ask, part: Part, stopped: threading.Event) -> bytearray:
    piece, size = bytearray(), part.size or 0
    with ask(part) as answer:
        if (answer.start, answer.validator) != (part.start, part.validator):
            raise Transient("the server answered with another part than was asked for")
        for chunk in answer.chunks:
            piece += chunk
            if stopped.is_set() or len(piece) > size:
                break
    if len(piece) != size:
        raise Transient(f"a part has {len(piece)} bytes instead of {size}")
    return piece
