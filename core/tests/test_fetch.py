"""Downloads over a network that fails in every way it can, and what is left of it."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import logging
import os
import socket
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import attrs
import pytest

from inference_models import Artifact, DownloadFailed, File, HashMismatch
from inference_models.download import body, fetch, transport
from inference_models.download.limits import Limits
from inference_models.download.store import Store
from inference_models.errors import (
    Forbidden,
    PaymentRequired,
    RateLimited,
    Unauthorized,
    Unreachable,
    UsagePaused,
    shown_url,
)

from . import faulty_server as faulty
from .certificates import Authority
from .contents import content_of, noise
from .faulty_server import FaultyServer, ranged, status, stops, whole

CONTENT = noise(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SIZE, HALF = len(CONTENT), len(CONTENT) // 2
FLIPPED = bytes([CONTENT[0] ^ 1]) + CONTENT[1:]
SECRET = "sesame-open"
LIMITS = Limits(
    connect=0.3,
    idle=0.3,
    grace=0.4,
    slowest=1e6,
    tries=3,
    pause=0.01,
    longest_pause=0.02,
)
FILE = "/model.bin"
HEAD = faulty.head(Content_Length=SIZE)
GOOD = ranged(CONTENT)


def signing(source):
    """A provider's request: a signed query, and a header with a key."""
    return f"{source}?signature={SECRET}", {
        "Authorization": SECRET,
        "X-Api-Key": SECRET,
    }


@pytest.fixture
def server():
    with FaultyServer() as running:
        yield running


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache", limits=LIMITS)


@pytest.fixture(autouse=True)
def received(monkeypatch):
    """No packet leaves this machine; the number of bytes of each answer."""
    connect, timed, sizes = socket.socket.connect, body.timed, []

    def guarded(self, address):
        assert address[0] in ("127.0.0.1", "::1"), address
        return connect(self, address)

    def counted(chunks, *rest):
        sizes.append(0)
        for chunk in timed(chunks, *rest):
            sizes[-1] += len(chunk)
            yield chunk

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(body, "timed", counted)
    return sizes


def artifact(*urls, **facts):
    facts = {"size": SIZE, "sha256": SHA256} | facts
    return Artifact("acme", {"main": "model.bin"}, [File("model.bin", urls, **facts)])


def files(store, folder=""):
    return [path for path in (store.root / folder).rglob("*") if path.is_file()]


def fetched(store, *urls, **facts):
    """Fetch in a thread that is waited for half a minute, and read what came."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(store.folder, artifact(*urls, **facts), signing)
        return content_of(future.result(timeout=30) / "model.bin")


def check_invariants(store, server, received, shown, url, outcome, **facts):
    """Fetch, and hold the eight promises: whatever is said, it harmed nothing."""
    if outcome is None:
        assert fetched(store, url, **facts) == CONTENT
    else:
        kind, words = outcome
        with pytest.raises(kind, match=words) as caught:
            fetched(store, url, **facts)
        assert type(caught.value) is kind
        shown.append("".join(traceback.format_exception(caught.value)))
        assert files(store, "bundles") == []
    for blob in files(store, "blobs"):
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    assert max(received, default=0) <= SIZE + (64 << 10)
    server.gives("/clean.bin", GOOD)
    assert fetched(store, server.url("/clean.bin")) == CONTENT
    assert files(store, "partial") == []
    names = "".join(map(str, files(store)))
    kept = b"".join(path.read_bytes() for path in files(store)).decode("latin-1")
    assert SECRET not in "".join([*shown, names, kept])


@pytest.fixture
def promises(store, server, received, caplog, capfd):
    """Checks a case: its URL, and the error that it ends with, if it does."""
    caplog.set_level(logging.DEBUG)

    def check(url, outcome=None, **facts):
        shown = []
        check_invariants(store, server, received, shown, url, outcome, **facts)
        assert SECRET not in "".join([caplog.text, *capfd.readouterr()])

    return check


# What passes: a second try, or going on from where it broke, makes up for it.


def moved(code):
    return lambda s: [faulty.redirects(s.gives("/there.bin", GOOD), code)]


def hops(number):
    def answers(server):
        for hop in range(number):
            target = server.url(f"/{hop + 1}" if hop + 1 < number else "/end.bin")
            server.gives(f"/{hop}", faulty.redirects(target))
        server.gives("/end.bin", GOOD)
        return [faulty.redirects(server.url("/0"))]

    return answers


def then_good(*answers):
    return lambda server: [*answers, GOOD]


def broken_once(then, size=HALF):
    return then_good(stops(CONTENT, size, then))


def half_then(*answers):
    """The first half, then these answers to what asks for the second."""
    return lambda server: [stops(CONTENT, HALF, faulty.hang_up), *answers]


PASSES = {
    "stall before the first byte": broken_once(faulty.stall, 0),
    "stall after one byte": broken_once(faulty.stall, 1),
    "stall in the middle": broken_once(faulty.stall),
    "stall before the last byte": broken_once(faulty.stall, SIZE - 1),
    "reset before the headers": then_good(lambda s, c, a: faulty.reset(s, c)),
    "reset in the middle": broken_once(faulty.reset),
    "short body": broken_once(faulty.hang_up),
    "short body without a validator": then_good(
        stops(CONTENT, HALF, faulty.hang_up, ETag="")
    ),
    "short body with a weak validator": then_good(
        stops(CONTENT, HALF, faulty.hang_up, ETag='W/"v1"')
    ),
    "chunks cut off": then_good(faulty.chunked(CONTENT[:HALF], ended=False)),
    "more than the length says": lambda s: [
        faulty.raw(faulty.head(Content_Length=SIZE), CONTENT + b"more")
    ],
    "no length": lambda s: [faulty.raw(faulty.head(), CONTENT)],
    "chunks": lambda s: [faulty.chunked(CONTENT[:HALF], CONTENT[HALF:])],
    "first half damaged": lambda s: [stops(FLIPPED, HALF, faulty.hang_up), GOOD, GOOD],
    "another range": half_then(faulty.raw(faulty.rest(CONTENT, HALF, shown=9)), GOOD),
    "an unreadable range": half_then(
        faulty.raw(faulty.head("206 Partial", Content_Range="all", Content_Length=0)),
        GOOD,
    ),
    "another total": half_then(faulty.raw(faulty.rest(CONTENT, HALF, total=9)), GOOD),
    "unknown total": half_then(faulty.raw(faulty.rest(CONTENT, HALF, total="*"))),
    "the whole in place of the range": half_then(whole(CONTENT)),
    "no such range": half_then(status("416 Range Not Satisfiable"), GOOD),
    "part of another version": half_then(
        faulty.raw(faulty.rest(CONTENT, HALF, etag='"v2"')), GOOD
    ),
    "a new version": half_then(ranged(CONTENT, etag='"v2"')),
    "a part that was not asked for": then_good(faulty.raw(faulty.rest(CONTENT, 0))),
    "429, in a second": then_good(status("429 Slow Down", Retry_After=1)),
    "429, at a date": then_good(
        status("429 Slow Down", Retry_After=formatdate(time.time() + 9, usegmt=True))
    ),
    "429, in a century": then_good(status("429 Slow Down", Retry_After=10**9)),
    "429, at some time": then_good(status("429 Slow Down", Retry_After="later")),
    "bad status line": then_good(faulty.raw(b"BANANA\r\n\r\n")),
    "a megabyte of headers": then_good(
        faulty.raw(faulty.head(Content_Length=0, X_Long="x" * (1 << 20)))
    ),
    "an encoding that is empty": lambda s: [whole(CONTENT, Content_Encoding="")],
    "five redirects": hops(5),
    **{
        f"{code} twice": then_good(status(f"{code} No"), status(f"{code} No"))
        for code in (408, 425, 500, 502, 503, 504)
    },
    **{f"{code} redirect": moved(code) for code in (301, 302, 303, 307, 308)},
}

# What does not: one sentence says so.


def failing(*answers):
    return lambda server: list(answers)


ENDLESS_CHUNK = faulty.head(Transfer_Encoding="chunked") + b"5;" + b"x" * 900
DRIPPING = faulty.drips(HEAD + CONTENT, len(HEAD))
PAGE = b"<html>Please log in</html>"
SQUEEZED = gzip.compress(CONTENT)
FAILS = {
    "stall for ever": (
        failing(stops(CONTENT, 1, faulty.stall)),
        (Unreachable, "could not be read"),
    ),
    "body longer than the card says": (
        failing(whole(CONTENT * 2)),
        (HashMismatch, f"longer than {SIZE} bytes"),
    ),
    "body without end": (
        failing(faulty.endless(b"x" * 50_000)),
        (HashMismatch, f"longer than {SIZE} bytes"),
    ),
    "body shorter than the card says": (
        failing(whole(CONTENT[:99])),
        (HashMismatch, f"has 99 bytes instead of {SIZE}"),
    ),
    "one bit": (failing(whole(FLIPPED)), (HashMismatch, f"instead of {SHA256}")),
    "another file of the same size": (
        failing(whole(CONTENT[::-1])),
        (HashMismatch, f"instead of {SHA256}"),
    ),
    "damaged in its first half, again and again": (
        lambda s: [stops(FLIPPED, HALF, faulty.hang_up), ranged(FLIPPED)],
        (HashMismatch, f"instead of {SHA256}"),
    ),
    "gzip": (
        failing(whole(SQUEEZED, Content_Encoding="gzip")),
        (DownloadFailed, "in the encoding 'gzip', unasked"),
    ),
    "gzip bomb": (
        failing(whole(gzip.compress(b"\0" * 50_000_000), Content_Encoding="gzip")),
        (DownloadFailed, "in the encoding 'gzip', unasked"),
    ),
    "redirect in circles": (
        lambda s: [faulty.redirects(s.url(FILE))],
        (DownloadFailed, "redirect"),
    ),
    "21 hops": (hops(21), (DownloadFailed, "redirect")),
    "redirect to nowhere": (failing(status("302 Found")), (DownloadFailed, "302")),
    "redirect to a file": (
        failing(faulty.redirects("file:///etc/passwd")),
        (DownloadFailed, "unsupported protocol 'file://'"),
    ),
    "redirect to link-local": (
        failing(faulty.redirects("http://169.254.169.254/latest")),
        (DownloadFailed, "http://169.254.169.254 is not encrypted"),
    ),
    **{
        f"encrypted redirect to {host}": (
            failing(faulty.redirects(f"https://{host}/latest")),
            (DownloadFailed, "which is in a private network"),
        )
        for host in (
            "169.254.169.254",
            "10.0.0.1",
            "192.168.1.1",
            "2852039166",
            "0xa9.0xfe.0xa9.0xfe",
            "[fe80::1]",
            "[::ffff:10.0.0.1]",
            "0.0.0.0",
        )
    },
    **{
        f"redirect to {host[:10]}": (
            failing(faulty.redirects(f"https://{host}/latest")),
            (DownloadFailed, "could not be read: "),
        )
        for host in ("a..example", f"{'a' * 64}.example", "xn--a")
    },
    "redirect to plain http": (
        failing(faulty.redirects("http://example.com/")),
        (DownloadFailed, "http://example.com is not encrypted"),
    ),
    "captive portal": (
        failing(whole(PAGE, Content_Type="text/html")),
        (HashMismatch, "does this network ask for a login"),
    ),
    "slow drip": (
        failing(DRIPPING),
        (Unreachable, "which is too slow"),
    ),
    "bad size of a chunk": (
        failing(faulty.raw(faulty.head(Transfer_Encoding="chunked"), b"zz\r\n")),
        (Unreachable, "could not be read: illegal chunk header"),
    ),
    "a chunk without end": (
        failing(faulty.drips(ENDLESS_CHUNK, len(ENDLESS_CHUNK) - 900)),
        (Unreachable, "which is too slow"),
    ),
    "bad length": (
        failing(faulty.raw(faulty.head(Content_Length="many"), CONTENT)),
        (Unreachable, "could not be read: bad Content-Length"),
    ),
    "a megabyte of headers for ever": (
        failing(faulty.raw(faulty.head(X_Long="x" * (1 << 20)))),
        (Unreachable, "could not be read"),
    ),
    "a header that cannot be shown": (
        failing(faulty.raw(faulty.head(**{"X" * 60_000: "\0"}))),
        (Unreachable, "(?s)could not be read: illegal header line.{,400}$"),
    ),
    "a reason without end": (
        failing(status("404 " + "x" * 60_000)),
        (DownloadFailed, "answered 404 x{,400}$"),
    ),
    "redirect to a name without end": (
        failing(faulty.redirects(f"http://{'x.' * 9999}")),
        (DownloadFailed, r"http://[x.]{,400} is not encrypted"),
    ),
    "redirect to an impossible address": (
        failing(faulty.redirects("https://0177.0.0.1/latest")),
        (Unreachable, "Invalid IPv4 address"),
    ),
    "bad status line for ever": (
        failing(faulty.raw(b"BANANA\r\n\r\n")),
        (Unreachable, "could not be read"),
    ),
    "no range for ever": (
        lambda s: [
            stops(CONTENT, HALF, faulty.hang_up),
            status("416 Range Not Satisfiable"),
        ],
        (Unreachable, "416"),
    ),
    "no answer": (failing(faulty.raw()), (Unreachable, "could not be read")),
    **{
        f"{code}": (failing(status(f"{code} No")), (kind, f"answered {code} No"))
        for code, kind in {
            401: Unauthorized,
            402: PaymentRequired,
            403: Forbidden,
            404: DownloadFailed,
            410: DownloadFailed,
            423: UsagePaused,
            429: RateLimited,
            451: DownloadFailed,
            500: Unreachable,
            501: DownloadFailed,
            502: Unreachable,
            503: Unreachable,
            504: Unreachable,
        }.items()
    },
}


@pytest.mark.parametrize("case", PASSES)
def test_what_passes_ends_well(case, server, promises):
    promises(server.gives(FILE, *PASSES[case](server)))


@pytest.mark.parametrize("case", FAILS)
def test_what_does_not_pass_is_said_in_a_sentence(case, server, promises):
    answers, outcome = FAILS[case]
    promises(server.gives(FILE, *answers(server)), outcome)


@pytest.mark.parametrize("case", [*PASSES, *FAILS])
def test_what_is_in_the_cache_asks_nobody(case, server, store):
    server.gives("/clean.bin", GOOD)
    fetched(store, server.url("/clean.bin"))
    server.requests.clear()
    answers = PASSES[case] if case in PASSES else FAILS[case][0]

    assert fetched(store, server.gives(FILE, *answers(server))) == CONTENT
    assert server.requests == []


def test_a_server_that_is_not_there_is_given_up(promises):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    promises(f"http://127.0.0.1:{port}{FILE}", (Unreachable, "could not be read"))


def test_a_server_that_accepts_nobody_is_given_up(promises):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        full.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(full.getsockname())
            url = f"http://127.0.0.1:{full.getsockname()[1]}{FILE}"
            promises(url, (Unreachable, "could not be read: timed out"))


def test_headers_do_not_follow_to_another_server(server, promises):
    with FaultyServer() as other:
        target = other.gives("/there.bin", GOOD)
        promises(server.gives(FILE, faulty.redirects(target)))

        assert server.requests[0].headers["authorization"] == SECRET
        assert SECRET not in str(other.requests[0].headers)


# What is asked for


def asked_ranges(server):
    return [asked.headers.get("range") for asked in server.requests]


def test_a_second_try_asks_for_the_rest_alone(server, store):
    url = server.gives(FILE, stops(CONTENT, HALF, faulty.hang_up), GOOD)

    assert fetched(store, url) == CONTENT
    assert asked_ranges(server) == [None, f"bytes={HALF}-"]
    assert server.requests[1].headers["if-range"] == '"v1"'


def test_a_second_run_asks_for_the_rest_alone(server, store):
    dead = [stops(CONTENT, HALF, faulty.hang_up), status("404 Not Found")]
    url = server.gives(FILE, *dead)
    with pytest.raises(DownloadFailed):
        fetched(store, url)
    server.gives(FILE, GOOD)

    assert fetched(Store(store.root, limits=LIMITS), url) == CONTENT
    assert asked_ranges(server)[-1] == f"bytes={HALF}-"
    assert files(store, "partial") == []


def test_the_date_of_the_last_change_is_a_validator_too(server, store):
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    first = stops(CONTENT, HALF, faulty.hang_up, ETag="", Last_Modified=date)
    url = server.gives(FILE, first, whole(CONTENT))

    assert fetched(store, url) == CONTENT
    assert server.requests[1].headers["if-range"] == date


@pytest.mark.parametrize("tag", ["", 'W/"v1"'], ids=["none", "weak"])
def test_without_a_strong_validator_it_starts_anew(tag, server, store):
    first = stops(CONTENT, HALF, faulty.hang_up, ETag=tag)

    assert fetched(store, server.gives(FILE, first, GOOD)) == CONTENT
    assert asked_ranges(server) == [None, None]


def test_what_is_whole_already_is_not_asked_for_again(server, store):
    url = server.gives(FILE, GOOD)
    kept = store.root / "partial" / f"{SHA256}.0"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(CONTENT)
    kept.with_name(f"{SHA256}.0.etag").write_text('"v1"')

    assert fetched(store, url) == CONTENT
    assert server.requests == []


def left_by_the_killed(store, *ages):
    """Halves of the file that processes left so many seconds ago."""
    folder = store.root / "partial"
    folder.mkdir(parents=True)
    for number, age in enumerate(ages):
        for name, content in (("", CONTENT[:HALF]), (".etag", b'"v1"')):
            path = folder / f"{SHA256}.{number}{name}"
            path.write_bytes(content)
            os.utime(path, (time.time() - age,) * 2)


def test_what_killed_processes_left_is_taken_up_once_and_removed(server, store):
    left_by_the_killed(store, 100, 90, 80)
    dead = [stops(CONTENT[HALF:], 0, faulty.hang_up), status("404 Not Found")]
    with pytest.raises(DownloadFailed):
        fetched(store, server.gives(FILE, *dead))

    assert asked_ranges(server)[0] == f"bytes={HALF}-"
    assert sum(path.stat().st_size for path in files(store, "partial")) < 2 * HALF


def test_what_killed_processes_left_makes_room_for_the_file(server, store, monkeypatch):
    import shutil

    left_by_the_killed(store, 100, 90)
    total = shutil.disk_usage(store.root)

    def usage(path):
        used = sum(each.stat().st_size for each in files(store))
        return total._replace(free=SIZE + HALF - used)

    monkeypatch.setattr(shutil, "disk_usage", usage)

    assert fetched(store, server.gives(FILE, GOOD)) == CONTENT


def test_a_file_that_somebody_still_writes_to_is_left_alone(server, store):
    left_by_the_killed(store, 0)
    dead = [stops(CONTENT, 0, faulty.hang_up), status("404 Not Found")]
    with pytest.raises(DownloadFailed):
        fetched(store, server.gives(FILE, *dead))

    assert store.root / "partial" / f"{SHA256}.0" in files(store, "partial")


@pytest.mark.parametrize("left", [FLIPPED, FLIPPED[:HALF], CONTENT * 2, b""])
def test_what_an_earlier_run_left_is_not_trusted(left, server, store):
    url = server.gives(FILE, GOOD)
    kept = store.root / "partial" / f"{SHA256}.0"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(left)
    kept.with_name(f"{SHA256}.0.etag").write_text('"v1"')

    assert fetched(store, url) == CONTENT
    assert files(store, "partial") == []


def test_a_note_beside_it_that_would_fill_the_memory_is_not_read(server, store):
    kept = store.root / "partial" / f"{SHA256}.0"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(CONTENT[:HALF])
    with kept.with_name(f"{SHA256}.0.etag").open("wb") as note:
        note.truncate(2**40)

    assert fetched(store, server.gives(FILE, GOOD)) == CONTENT
    assert asked_ranges(server) == [None]


def test_a_try_that_brings_it_on_is_not_counted(server, store, monkeypatch):
    from inference_models.download import fetch

    monkeypatch.setattr(fetch, "CHUNK", 1000)
    pieces = []
    for number in range(10):
        size = 20_000 * number

        def piece(server, connection, asked, size=size):
            answer = faulty.rest(CONTENT, size) if size else b""
            answer = answer or faulty.head(Content_Length=SIZE, ETag='"v1"') + CONTENT
            end = answer.index(b"\r\n\r\n") + 4
            connection.sendall(answer[: end + 20_000])

        pieces.append(piece)

    assert fetched(store, server.gives(FILE, *pieces, GOOD)) == CONTENT
    assert len(server.requests) == 11


@pytest.mark.parametrize(
    "answer",
    [
        faulty.rest(CONTENT[::-1], HALF, etag='"v2"'),
        faulty.rest(CONTENT[::-1], HALF, shown=HALF - 9),
    ],
    ids=["another version", "another place"],
)
def test_parts_that_do_not_fit_are_never_joined(answer, server, tmp_path):
    """Also where no hash would tell."""
    store = Store(tmp_path / "cache", limits=LIMITS, first_use=True)
    first = stops(CONTENT, HALF, faulty.hang_up)
    url = server.gives(FILE, first, faulty.raw(answer), GOOD)

    assert fetched(store, url, sha256=None, size=None) == CONTENT


def test_the_next_source_goes_on_where_the_first_broke(server, store):
    dead = server.gives(FILE, stops(CONTENT, HALF, faulty.hang_up), status("404 No"))
    mirror = server.gives("/mirror.bin", GOOD)

    assert fetched(store, dead, mirror) == CONTENT
    assert asked_ranges(server)[-1] == f"bytes={HALF}-"


def test_that_the_next_source_serves_is_one_warning_with_the_reason(
    server, store, caplog
):
    dead = server.gives(FILE, status("404 No"))
    fetched(store, dead, server.gives("/mirror.bin", GOOD))
    (told,) = [each for each in caplog.records if each.levelname == "WARNING"]

    assert "'model.bin' comes from its next source: " in told.getMessage()
    assert "404 No" in told.getMessage()
    assert SECRET not in caplog.text


def test_each_try_is_told_with_its_reason(server, store, caplog):
    caplog.set_level(logging.INFO, "inference_models")
    fetched(store, server.gives(FILE, status("503 Busy"), GOOD))

    assert "answered 503 Busy; it is asked again in 0.0 s" in caplog.text
    assert SECRET not in caplog.text


def test_a_request_is_made_anew_for_each_try(server, store):
    signed = []

    def request(source):
        signed.append(source)
        return f"{source}?signature={len(signed)}", {}

    url = server.gives(FILE, status("503 No"), status("503 No"), GOOD)
    store.folder(artifact(url), request)

    assert [asked.path[-1] for asked in server.requests] == ["1", "2", "3"]


def test_a_files_hash_is_not_needed_for_a_page_to_be_refused(server, tmp_path):
    store = Store(tmp_path, limits=LIMITS, first_use=True)
    url = server.gives(FILE, whole(PAGE, Content_Type="text/html; charset=utf-8"))
    with pytest.raises(DownloadFailed, match="does this network ask for a login"):
        fetched(store, url, sha256=None, size=None)

    assert files(store, "blobs") == []


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("3", 3.0),
        ("later", None),
        ("-1", None),
        ("1e9", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 99 Foo 2015", None),
        ("9" * 13, None),
    ],
)
def test_what_a_server_asks_to_wait_is_read(value, seconds):
    assert transport.retry_after(value) == seconds


@pytest.mark.parametrize(
    "url",
    [
        f"https://host/weights.onnx?token={SECRET}",
        f"https://user:{SECRET}@host/weights.onnx",
        f"https://{SECRET}@host/weights.onnx#{SECRET}",
    ],
)
def test_a_url_is_shown_without_what_may_be_secret(url):
    assert shown_url(url) == "https://host/weights.onnx"


def test_a_url_of_any_scheme_is_shown_without_its_user():
    assert shown_url(f"SVN+ssh://user:{SECRET}@host/a.jpg") == "SVN+ssh://host/a.jpg"


def test_a_proxy_of_the_environment_is_used(server, store, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", server.url(""))
    monkeypatch.setenv("NO_PROXY", "")
    server.gives(f"http://localhost:9{FILE}", GOOD)

    assert fetched(store, f"http://localhost:9{FILE}") == CONTENT


def test_a_proxy_of_no_known_kind_is_named(server, store, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "gopher://127.0.0.1:9")
    with pytest.raises(DownloadFailed, match="correct HTTPS_PROXY"):
        fetched(store, server.gives(FILE, GOOD))


# Time

IMPATIENT = attrs.evolve(LIMITS, answer=0.5, tries=1)
CONTINUE = b"HTTP/1.1 102 Processing\r\n\r\n" * 200


def late_hops(server):
    """Each hop takes its time, and less than the server may be silent."""

    def late(answer):
        def answers(server, connection, asked):
            server.closing.wait(0.2)
            answer(server, connection, asked)

        return answers

    for hop in range(9):
        server.gives(f"/{hop}", late(faulty.redirects(server.url(f"/{hop + 1}"))))
    return server.url("/0")


LATE = {
    "the status line": faulty.drips(HEAD + CONTENT),
    "the headers": faulty.drips(HEAD + CONTENT, 30),
    "news of its work": faulty.drips(CONTINUE, len(CONTINUE) - 900),
}


@pytest.mark.parametrize("case", LATE)
def test_what_drips_before_the_body_has_to_end_in_time(case, server, tmp_path):
    store = Store(tmp_path / "cache", limits=IMPATIENT)
    with pytest.raises(Unreachable, match="did not begin to answer within 0 s"):
        fetched(store, server.gives(FILE, LATE[case]))

    assert files(store, "partial") == []


def test_all_hops_together_have_to_end_in_time(server, tmp_path):
    store = Store(tmp_path / "cache", limits=IMPATIENT)
    with pytest.raises(Unreachable, match="did not begin to answer within 0 s"):
        fetched(store, late_hops(server))

    assert len(server.requests) < 6


# Room


def test_what_has_no_room_is_not_begun(server, store, monkeypatch):
    import shutil

    usage = shutil.disk_usage(store.root.parent)._replace(free=SIZE - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DownloadFailed, match=r"no room in the cache .*prune"):
        fetched(store, server.gives(FILE, GOOD))

    assert files(store, "partial") == []


@pytest.fixture
def untold(server, store):
    """Fetches a file of which neither card nor server says how large it is."""
    url = server.gives(FILE, faulty.chunked(*[b"x" * 65_536] * 40))
    first = Store(store.root, limits=LIMITS, first_use=True)
    return lambda: fetched(first, url, sha256=None, size=None)


def test_a_body_of_no_known_size_is_given_up(untold, store, monkeypatch):
    monkeypatch.setattr(fetch, "_LARGEST_UNTOLD", 10**6)
    with pytest.raises(DownloadFailed, match="does not say how large the file is, and"):
        untold()

    assert files(store, "partial") == []


def test_a_body_of_no_known_size_leaves_room_on_the_disk(untold, store, monkeypatch):
    monkeypatch.setattr(fetch, "_RESERVE", 10**18)
    with pytest.raises(DownloadFailed, match="no room in the cache"):
        untold()

    assert files(store, "partial") == []


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def secure(authority):
    """Opens a server with a certificate that is signed as told."""
    with contextlib.ExitStack() as stack:

        def opened(name="localhost", *dates):
            context = authority.signed(name, *dates)
            return stack.enter_context(FaultyServer(context))

        yield opened


@pytest.fixture
def trusted(authority, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", os.fspath(authority.root))


UNTRUSTED = (DownloadFailed, "CERTIFICATE_VERIFY_FAILED.*SSL_CERT_FILE")


def test_a_certificate_of_a_known_authority_is_taken(trusted, secure, promises):
    running = secure()
    running.gives(FILE, GOOD)
    promises(running.url(FILE, "localhost"))


def test_a_certificate_of_an_unknown_authority_is_refused(secure, promises):
    running = secure()
    running.gives(FILE, GOOD)
    promises(running.url(FILE, "localhost"), UNTRUSTED)

    assert running.requests == []


def test_a_certificate_that_expired_is_refused(trusted, secure, promises):
    running = secure("localhost", "-days", "-1")
    running.gives(FILE, GOOD)
    promises(running.url(FILE, "localhost"), UNTRUSTED)

    assert running.requests == []


def test_a_certificate_of_another_host_is_refused(trusted, secure, promises):
    running = secure("elsewhere")
    running.gives(FILE, GOOD)
    promises(running.url(FILE, "localhost"), UNTRUSTED)

    assert running.requests == []


def test_a_redirect_off_encryption_is_refused(trusted, secure, server, promises):
    running = secure()
    running.gives(FILE, faulty.redirects(server.gives("/there.bin", GOOD)))
    url = running.url(FILE, "localhost")
    promises(url, (DownloadFailed, "http://127.0.0.1 is not encrypted"))


def test_a_drip_that_is_encrypted_is_broken_and_never_taken_as_it_is(
    trusted, secure, promises
):
    running = secure()
    running.gives(FILE, DRIPPING)
    running.gives("/clean.bin", GOOD)
    promises(running.url(FILE, "localhost"), (Unreachable, "which is too slow"))


def relayed(server, port):
    """What a proxy does once it is asked for a connection to a port here."""

    def answer(server, connection, asked):
        with socket.create_connection(("127.0.0.1", port)) as onward:
            connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            back = threading.Thread(target=copied, args=[onward, connection])
            back.start()
            copied(connection, onward)
            back.join()

    return answer


def copied(source, target):
    with contextlib.suppress(OSError):
        while part := source.recv(1 << 16):
            target.sendall(part)
        target.shutdown(socket.SHUT_WR)


def test_a_proxy_may_be_encrypted_itself(trusted, secure, store, monkeypatch):
    running, proxy = secure(), secure()
    place = f"localhost:{running.port}"
    proxy.gives(place, relayed(proxy, running.port))
    monkeypatch.setenv("HTTPS_PROXY", proxy.url("", "localhost"))
    monkeypatch.setenv("NO_PROXY", "")
    running.gives(FILE, GOOD)

    assert fetched(store, running.url(FILE, "localhost")) == CONTENT
    assert [asked.path for asked in proxy.requests] == [place]
