"""Large files over several connections: when, and what is made of all that can fail."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest

from inference_models import Artifact, DownloadFailed, File, HashMismatch
from inference_models.download import ranges
from inference_models.download.limits import Limits
from inference_models.download.store import Store
from inference_models.download.transport import Answer, Part
from inference_models.errors import Unreachable

from . import faulty_server as faulty
from .contents import Content, content_of, noise
from .faulty_server import FaultyServer, asked_range, ranged, status

PIECE, SIZE = 50_000, 900_000
CONTENT = noise(SIZE)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
LIMITS = Limits(connect=2.0, idle=0.5, tries=3, pause=0.01, longest_pause=0.02)
FILE = "/model.bin"
PARTS = {"Accept_Ranges": "bytes"}
GOOD = ranged(CONTENT, **PARTS)
SECRET = "sesame-open"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Everything that comes is slow, and nothing too small to be divided."""
    monkeypatch.setattr(ranges, "_LARGE", PIECE)
    monkeypatch.setattr(ranges, "_PIECE", PIECE)
    monkeypatch.setattr(ranges, "_FAST", float("inf"))
    monkeypatch.setattr(ranges, "_WINDOW", 0.0)


@pytest.fixture
def server():
    with FaultyServer() as running:
        yield running


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache", limits=LIMITS)


def fetched(store, url, **facts):
    facts = {"size": SIZE, "sha256": SHA256} | facts
    artifact = Artifact(
        "acme", {"main": "model.bin"}, [File("model.bin", [url], **facts)]
    )
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(store.folder, artifact, signing)
        return content_of(future.result(timeout=60) / "model.bin")


def signing(source):
    return source, {"X-Api-Key": SECRET}


def asked_ranges(server):
    return [asked_range(asked) for asked in server.requests]


def parts_of(server):
    """The bounded ranges that were asked for."""
    return sorted(r for r in asked_ranges(server) if r is not None and r[1] is not None)


def by_part(part, first=GOOD, then=GOOD):
    """One answer to the first question, one to each part, one to what comes after."""

    def answer(server, connection, asked):
        found = asked_range(asked)
        if found is None:
            chosen = first
        else:
            chosen = part if found[1] is not None else then
        chosen(server, connection, asked)

    return answer


# When


def test_a_large_file_that_comes_slowly_comes_in_parts(server, store):
    assert fetched(store, server.gives(FILE, GOOD)) == CONTENT

    found = parts_of(server)
    assert found[-1][1] == SIZE - 1
    assert all(a[1] + 1 == b[0] for a, b in itertools.pairwise(found))
    assert {asked.headers["if-range"] for asked in server.requests[1:]} == {'"v1"'}


def test_the_parts_come_over_several_connections_that_are_used_again(server, store):
    server.keeps_open = True
    url = server.gives(FILE, ranged(CONTENT, Connection="keep-alive", **PARTS))
    fetched(store, url)

    assert server.connections == 1 + LIMITS.connections
    assert len(parts_of(server)) > LIMITS.connections


UNDIVIDED = {
    "few bytes left": {"_LARGE": SIZE},
    "fast": {"_FAST": 0.0},
    "not slow for long": {"_WINDOW": 60.0},
}


@pytest.mark.parametrize("case", UNDIVIDED)
def test_it_stays_at_one_where_more_would_not_pay(case, server, store, monkeypatch):
    for name, value in UNDIVIDED[case].items():
        monkeypatch.setattr(ranges, name, value)

    assert fetched(store, server.gives(FILE, GOOD)) == CONTENT
    assert asked_ranges(server) == [None]


@pytest.mark.parametrize(
    "headers",
    [
        {"ETag": "", **PARTS},
        {"ETag": 'W/"v1"', **PARTS},
        {"ETag": "", "Last_Modified": "Wed, 21 Oct 2015 07:28:00 GMT", **PARTS},
        {"Accept_Ranges": "none"},
        {},
    ],
    ids=["no tag", "weak tag", "date", "no parts", "not said"],
)
def test_it_stays_at_one_where_the_server_promises_no_parts(headers, server, store):
    assert (
        fetched(store, server.gives(FILE, faulty.whole(CONTENT, **headers))) == CONTENT
    )
    assert asked_ranges(server) == [None]


def test_it_stays_at_one_if_told_to(server, tmp_path):
    store = Store(tmp_path / "cache", limits=attrs.evolve(LIMITS, connections=1))

    assert fetched(store, server.gives(FILE, GOOD)) == CONTENT
    assert asked_ranges(server) == [None]


def test_a_second_run_takes_the_rest_in_parts_too(server, store):
    half = faulty.stops(CONTENT, SIZE // 2, faulty.hang_up)
    url = server.gives(FILE, half, status("404 No"))
    with pytest.raises(DownloadFailed):
        fetched(store, url)
    server.requests.clear()
    server.gives(FILE, GOOD)

    assert fetched(Store(store.root, limits=LIMITS), url) == CONTENT
    assert asked_ranges(server)[0] == (SIZE // 2, None)
    assert parts_of(server)[-1][1] == SIZE - 1


def test_parts_are_asked_for_where_redirects_lead(server, store):
    with FaultyServer() as other:
        target = other.gives("/there.bin", GOOD)
        url = server.gives(FILE, faulty.redirects(target))

        assert fetched(store, url) == CONTENT
        assert len(server.requests) == 1
        assert len(parts_of(other)) > 1
        assert SECRET not in str(other.requests)


# What can fail


def cut_short(server, connection, asked):
    first, last = asked_range(asked)
    connection.sendall(faulty.rest(CONTENT, first, last=last)[:-1000])


def hangs(server, connection, asked):
    first, last = asked_range(asked)
    connection.sendall(faulty.rest(CONTENT, first, last=last)[:-1000])
    faulty.stall(server, connection)


def changed(server, connection, asked):
    first, last = asked_range(asked)
    connection.sendall(faulty.rest(CONTENT[::-1], first, etag='"v2"', last=last))


def misplaced(server, connection, asked):
    first, last = asked_range(asked)
    connection.sendall(faulty.rest(CONTENT[::-1], first, shown=first + 1, last=last))


def longer(server, connection, asked):
    first, last = asked_range(asked)
    connection.sendall(faulty.rest(CONTENT, first, last=last + 999))


def shorter(server, connection, asked):
    first, last = asked_range(asked)
    connection.sendall(faulty.rest(CONTENT, first, last=last - 999))


REFUSED = {
    "ignored": faulty.whole(CONTENT, ETag='"v1"'),
    "a new version of the whole": faulty.whole(CONTENT, ETag='"v2"'),
    "part of a new version": changed,
    "another part": misplaced,
    "longer": longer,
    "shorter": shorter,
    "cut short": cut_short,
    "silence": hangs,
    "reset": lambda server, connection, asked: faulty.reset(server, connection),
    "nothing": faulty.raw(),
    "another protocol": faulty.raw(b"BANANA\r\n\r\n"),
    **{
        line: status(line)
        for line in ("401 No", "403 No", "404 No", "416 No", "429 No", "503 No")
    },
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_parts_fail_with_the_rest_comes_in_one(case, server, store):
    assert fetched(store, server.gives(FILE, by_part(REFUSED[case]))) == CONTENT
    first, *_, last = asked_ranges(server)
    assert first is None
    assert last[1] is None
    assert len([r for r in asked_ranges(server) if r and r[1] is None]) == 1


@pytest.mark.parametrize("case", REFUSED)
def test_parts_that_do_not_fit_are_never_joined(case, server, tmp_path):
    """Also where no hash would tell."""
    store = Store(tmp_path / "cache", limits=LIMITS, first_use=True)
    url = server.gives(FILE, by_part(REFUSED[case]))

    assert fetched(store, url, sha256=None, size=None) == CONTENT


def test_a_part_that_is_damaged_is_told_by_the_hash(server, store):
    url = server.gives(FILE, by_part(ranged(CONTENT[::-1])))
    with pytest.raises(HashMismatch, match=f"instead of {SHA256}"):
        fetched(store, url)

    assert list(store.root.glob("blobs/*")) == []
    assert list(store.root.glob("partial/*")) == []


def test_a_file_that_changes_while_it_comes_is_taken_anew(server, store):
    old = faulty.whole(CONTENT[::-1], ETag='"v1"', **PARTS)
    new = ranged(CONTENT, etag='"v2"', **PARTS)

    assert fetched(store, server.gives(FILE, by_part(new, old, new))) == CONTENT


def test_what_came_before_a_part_failed_is_kept(server, store):
    def some(server, connection, asked):
        refused = asked_range(asked)[0] > SIZE // 2
        (status("403 No") if refused else GOOD)(server, connection, asked)

    fetched(store, server.gives(FILE, by_part(some)))
    refused = min(first for first, _ in parts_of(server) if first > SIZE // 2)

    assert asked_ranges(server)[-1] == (refused, None)


def test_a_source_that_fails_for_good_says_why(server, store):
    url = server.gives(FILE, by_part(status("403 No"), then=status("503 No")))
    with pytest.raises(Unreachable, match="answered 503 No"):
        fetched(store, url)

    assert len(list(store.root.glob("partial/*.etag"))) == 1


# How


class Source:
    """A file and the questions for its parts, without any network."""

    def __init__(self):
        self.asked = []
        self.closed = 0
        self.lines = 0
        self.gate = threading.Event()
        self.gate.set()

    def answer(self):
        def close():
            self.closed += 1

        return self._answer(0, iter([CONTENT[:PIECE], CONTENT[PIECE:]]), close)

    @staticmethod
    def _answer(start, chunks, close=lambda: None):
        return Answer(start, SIZE, '"v1"', False, True, "https://host/", chunks, close)

    def line(self):
        @contextlib.contextmanager
        def ask(part):
            self.asked.append(part)
            self.gate.wait(30)
            time.sleep(random.random() / 100)
            yield self._answer(part.start, iter([CONTENT[part.start : part.end]]))

        self.lines += 1
        return contextlib.nullcontext(ask)


@pytest.fixture
def source():
    return Source()


def test_parts_are_joined_in_their_order(source):
    chunks = ranges.hastened(source.answer(), source.line, 4)

    assert Content(b"".join(chunks)) == CONTENT


def test_the_first_connection_is_closed_before_the_others_are_used(source):
    chunks = ranges.hastened(source.answer(), source.line, 4)
    next(chunks)
    assert (source.closed, source.asked) == (0, [])

    next(chunks)
    assert source.closed == 1


def test_no_more_is_asked_for_than_is_soon_needed(source):
    chunks = ranges.hastened(source.answer(), source.line, 4)
    taken = [next(chunks) for _ in range(3)]
    wait_for(lambda: len(source.asked) == 2 + 4 + ranges._AHEAD)
    time.sleep(0.1)

    assert len(taken) == 3
    assert len(source.asked) == 2 + 4 + ranges._AHEAD
    chunks.close()


def test_who_stops_listening_stops_the_rest(source):
    before = set(threading.enumerate())
    chunks = ranges.hastened(source.answer(), source.line, 4)
    next(chunks)
    next(chunks)
    chunks.close()
    wait_for(lambda: set(threading.enumerate()) <= before)

    assert source.lines <= 4


def test_a_part_that_is_still_coming_keeps_nobody_waiting(source):
    chunks = ranges.hastened(source.answer(), source.line, 4)
    next(chunks)
    next(chunks)
    source.gate.clear()
    chunks.close()

    assert all(thread.daemon for thread in threading.enumerate() if is_ours(thread))
    source.gate.set()


def is_ours(thread):
    return "_work" in thread.name


def wait_for(condition):
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("part", "headers"),
    [
        (Part(), {}),
        (Part(5), {}),
        (Part(5, '"v1"'), {"Range": "bytes=5-", "If-Range": '"v1"'}),
        (Part(5, '"v1"', 9), {"Range": "bytes=5-8", "If-Range": '"v1"'}),
        (Part(0, '"v1"', 9), {"Range": "bytes=0-8", "If-Range": '"v1"'}),
        (Part(0, '"v1"'), {}),
    ],
)
def test_a_part_is_asked_for_of_one_version(part, headers):
    assert part.headers() == headers
