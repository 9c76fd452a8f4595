"""One answer of a server's API: what is taken, what is waited for, what is not told."""

from __future__ import annotations

import logging
import traceback

import pytest

from inference_models import (
    Access,
    DownloadFailed,
    Forbidden,
    InvalidOption,
    Offline,
    PaymentRequired,
    RateLimited,
    Unauthorized,
    Unreachable,
    UsagePaused,
)
from inference_models.download import ask as module
from inference_models.download.ask import (
    Question,
    Reply,
    Terms,
    address,
    ask,
    encrypted,
    headers_of,
    refusal,
    sendable_headers,
    sendable_key,
)

from . import faulty_server as faulty
from .faulty_server import FaultyServer, status, whole

KEY = "sesame-open-42"
HEADERS = {"Authorization": f"Bearer {KEY}"}
TERMS = Terms(
    largest=1000, connect=0.5, idle=0.3, total=5.0, pause=0.01, longest_pause=0.05
)
GOOD = whole(b'{"a": 1}')


@pytest.fixture
def server():
    with FaultyServer() as running:
        yield running


@pytest.fixture
def waits(monkeypatch):
    """The pauses that were made, none of which takes any time."""
    found = []
    monkeypatch.setattr(module.time, "sleep", found.append)
    return found


def asked(server, *answers, terms=TERMS, kept=()):
    url = server.gives("/api", *answers)
    return ask(Question(f"{url}?signature={KEY}", HEADERS), "the server", terms, kept)


# What is taken


def test_the_content_is_taken_as_it_is_sent(server):
    reply = asked(server, GOOD)

    assert (reply.status, reply.content) == (200, b'{"a": 1}')


def test_no_compression_is_asked_for_whatever_the_caller_says(server):
    url = server.gives("/api", GOOD)
    ask(Question(url, {"Accept-Encoding": "gzip"}), "the server", TERMS)

    assert server.requests[0].headers["accept-encoding"] == "identity"


def test_what_is_compressed_unasked_stays_so(server):
    reply = asked(server, whole(b"squeezed", Content_Encoding="gzip"))

    assert reply.content == b"squeezed"


def test_of_the_headers_those_are_kept_that_are_asked_for(server):
    answer = whole(b"", X_Error_Code="Gone", Set_Cookie=KEY)
    reply = asked(server, answer, kept=("x-error-code",))

    assert reply.headers == {"x-error-code": "Gone"}


@pytest.mark.parametrize("answer", [whole(b"x" * 10**6), faulty.endless(b"x" * 500)])
def test_an_answer_that_is_too_long_is_cut_just_above_the_limit(server, answer):
    reply = asked(server, answer)

    assert 1000 < len(reply.content) <= 1000 + (1 << 16)


# What is waited for


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_what_passes_is_asked_again(server, waits, code):
    reply = asked(server, status(f"{code} Later"), status(f"{code} Later"), GOOD)

    assert reply.status == 200
    assert waits == [0.01, 0.02]


@pytest.mark.parametrize("code", [204, 301, 400, 401, 403, 404, 410, 418])
def test_what_stays_is_asked_once(server, waits, code):
    reply = asked(server, status(f"{code} So"))

    assert reply.status == code
    assert waits == []


def test_the_number_of_tries_is_kept(server, waits):
    reply = asked(server, status("503 No"))

    assert reply.status == 503
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "fault",
    [
        lambda s, c, a: faulty.reset(s, c),
        faulty.raw(b"BANANA\r\n\r\n"),
        faulty.stops(b"x" * 99, 50, faulty.hang_up),
        faulty.stops(b"x" * 99, 50, faulty.stall),
        faulty.chunked(b"x" * 50, ended=False),
    ],
)
def test_a_broken_answer_is_asked_for_again(server, waits, fault):
    reply = asked(server, fault, GOOD)

    assert (reply.status, reply.content) == (200, b'{"a": 1}')


def test_no_answer_at_all_has_its_reason(waits):
    reply = ask(Question("http://127.0.0.1:9/api"), "the server", TERMS)

    assert (reply.status, reply.passing) == (0, True)
    assert "refused" in reply.problem


HEAD = faulty.head(Content_Length=2, X_Long="x" * 500)


@pytest.mark.parametrize(
    "sent", [faulty.head(Content_Length=500) + b"x" * 500, HEAD + b"{}"]
)
def test_an_answer_that_drips_is_not_waited_for_to_its_end(server, waits, sent):
    went = []

    def drips(server, connection, asked):
        for byte in sent:
            connection.sendall(bytes([byte]))
            went.append(byte)
            if server.closing.wait(0.01):
                return

    reply = asked(server, drips, terms=Terms(total=0.1, tries=1))

    assert reply == Reply(0, problem="the answer took longer than 0 s")
    assert len(went) < len(sent)


def test_the_pause_that_a_server_asks_for_is_made(server, waits):
    terms = Terms(longest_pause=30)
    asked(server, status("429 Later", Retry_After=7), GOOD, terms=terms)

    assert waits == [7]


@pytest.mark.parametrize("value", ["garbage", "-3", "Tomorrow, maybe"])
def test_a_pause_that_says_nothing_is_our_own(server, waits, value):
    asked(server, status("429 Later", Retry_After=value), GOOD)

    assert waits == [0.01]


def test_a_longer_pause_than_the_longest_is_left_to_the_user(server, waits):
    reply = asked(server, status("429 Later", Retry_After=600), GOOD)

    assert (reply.status, reply.wait) == (429, 600)
    assert waits == []


# Where it leads


def test_a_redirect_on_the_server_is_followed_with_the_key(server):
    there = server.gives("/there", GOOD)
    moved = [faulty.redirects(there, 307), GOOD]
    reply = asked(server, *moved, terms=Terms(redirects=1))

    assert reply.status == 200
    assert [r.path.partition("?")[0] for r in server.requests] == ["/api", "/there"]
    assert server.requests[1].headers["authorization"] == HEADERS["Authorization"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_redirect_elsewhere_is_not_followed(server, host):
    with FaultyServer() as other:
        target = other.gives("/there", GOOD).replace("127.0.0.1", host)
        reply = asked(server, faulty.redirects(target), terms=Terms(redirects=5))

        assert reply.status == 302
        assert other.requests == []


@pytest.mark.parametrize("host", ["a..example", f"{'a' * 64}.example", "xn--a"])
def test_a_host_that_no_name_can_be_is_no_answer(host):
    reply = ask(Question(f"https://{host}/api", HEADERS), "the server", TERMS)

    assert reply.status == 0


def test_a_redirect_to_what_is_no_host_is_no_answer(server):
    reply = asked(server, faulty.redirects("https://xn--a/api"))

    assert reply.status == 0


def test_no_more_redirects_are_followed_than_the_terms_say(server):
    url = server.url("/api")
    reply = asked(server, faulty.redirects(url), terms=Terms(redirects=4, total=3))

    assert reply.status == 302
    assert len(server.requests) == 5


# What is not told


def test_neither_key_nor_address_is_logged(server, waits, caplog):
    caplog.set_level(logging.DEBUG)
    asked(server, status("503 No"), GOOD)

    assert "the server is asked again" in caplog.text
    assert KEY not in caplog.text
    assert "/api" not in caplog.text


def test_neither_key_nor_address_is_shown(server, waits):
    question = Question(f"http://127.0.0.1/?{KEY}", HEADERS)
    reply = Reply(200, KEY.encode(), {"x": KEY})

    assert KEY not in repr(question) + repr(reply)


def test_a_network_that_cannot_be_used_is_named_without_the_key(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "banana://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "banana://127.0.0.1:9")
    question = Question(f"https://example.org/?{KEY}", HEADERS)
    with pytest.raises(DownloadFailed, match="correct HTTPS_PROXY") as caught:
        ask(question, "the server", TERMS)

    assert KEY not in "".join(traceback.format_exception(caught.value))


# Settings


@pytest.mark.parametrize(
    ("url", "is_encrypted"),
    [
        ("https://example.org/x", True),
        ("http://127.0.0.1:80/x", True),
        ("http://localhost/x", True),
        ("http://example.org/x", False),
        ("ftp://example.org/x", False),
        ("file://localhost/x", False),
        ("https://user@example.org/x", False),
        ("https://example.org:port/x", False),
        ("https://example.org/a b", False),
        ("https:///x", False),
        ("", False),
    ],
)
def test_an_address_is_encrypted_or_of_this_machine(url, is_encrypted):
    assert encrypted(url) is is_encrypted


def test_an_address_loses_its_last_slash():
    assert address("SERVER", "https://a.example/b/", "") == "https://a.example/b"


@pytest.mark.parametrize("end", [f"?token={KEY}", f"#{KEY}", f" {KEY}"])
def test_an_address_with_a_secret_is_refused_and_not_shown(end):
    with pytest.raises(InvalidOption, match="SERVER is no https:// address") as caught:
        address("SERVER", f"https://a.example{end}", "https://a.example")

    assert KEY not in str(caught.value)


def test_spaces_around_a_key_are_left_out():
    assert sendable_key(f" {KEY}\n", "KEY") == KEY


@pytest.mark.parametrize("key", [f"{KEY}\nX-Evil: 1", f"{KEY} {KEY}", f"{KEY}é", 7])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(key):
    with pytest.raises(InvalidOption, match="check SETTING") as caught:
        sendable_key(key, "SETTING")

    assert KEY not in str(caught.value)


@pytest.mark.parametrize("name", ["authorization", "ACCEPT", "Accept-Encoding"])
def test_extra_headers_replace_none_of_our_own(name):
    given = {"X-Team": " vision ", name: "other"}

    assert sendable_headers(given) == {"x-team": "vision"}


@pytest.mark.parametrize(
    ("key", "sent"), [(None, "Basic bWU6"), ("secret", "Bearer secret")]
)
def test_an_authorization_of_the_users_own_is_sent_where_there_is_no_key(key, sent):
    access = Access(key=key, headers={"Authorization": " Basic bWU6", "X-Team": "a"})

    assert headers_of(access) == {"authorization": sent, "x-team": "a"}


@pytest.mark.parametrize(("name", "value"), [("X Y", "a"), ("X", "a\nb"), ("X", "é")])
def test_an_extra_header_that_cannot_be_sent_is_refused(name, value):
    with pytest.raises(InvalidOption, match="is none that can be sent"):
        sendable_headers({name: value})


# What is no answer


def test_nobody_is_asked_where_the_network_is_switched_off(server, monkeypatch):
    monkeypatch.setenv("INFERENCE_MODELS_OFFLINE", "1")
    with pytest.raises(Offline, match="so the server is not asked"):
        asked(server, GOOD)

    assert server.requests == []


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (Reply(401), Unauthorized, "wants a key, or another one; check api_key="),
        (Reply(402), PaymentRequired, r"does not cover it \(402\)"),
        (Reply(403), Forbidden, "not with this key"),
        (Reply(423), UsagePaused, "usage is paused"),
        (Reply(429), RateLimited, r"try again$"),
        (Reply(429, headers={"retry-after": "60"}), RateLimited, "again in 60 s"),
        (Reply(503), Unreachable, "answered 503; check the network and ACME_SHELF"),
        (Reply(0, problem="refused"), Unreachable, "not reached: refused; check"),
        (Reply(302), DownloadFailed, "answered 302, which is no answer to expect"),
    ],
)
def test_a_status_is_an_error_of_its_kind(reply, kind, words):
    error = refusal(reply, "the shelf was asked for 'bolts' and", "ACME_SHELF")

    assert type(error) is kind
    with pytest.raises(kind, match=f"^the shelf was asked for 'bolts' and .*{words}"):
        raise error


def test_the_key_is_a_bearers_token_that_no_header_of_the_user_replaces():
    own = {"Authorization": "Basic mine", "X-Team": "bolts"}
    headers = headers_of(Access(key=KEY, headers=own))

    assert headers == {"x-team": "bolts", "authorization": f"Bearer {KEY}"}
    assert KEY not in repr(headers)
    assert headers_of(Access()) == {}
    with pytest.raises(InvalidOption, match="check api_key="):
        headers_of(Access(key="two words"))
