"""Redirects stay out of private networks, whatever a name says that it is."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import socket

import pytest

from inference_models import Artifact, DownloadFailed, File
from inference_models.download.limits import Limits
from inference_models.download.redirects import is_public
from inference_models.download.store import Store
from inference_models.errors import Unreachable

from . import faulty_server as faulty
from .certificates import Authority
from .contents import content_of, noise
from .faulty_server import FaultyServer, ranged

CONTENT = noise(50_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
LIMITS = Limits(connect=1.0, idle=1.0, tries=2, pause=0.01)
PUBLIC, UNREACHABLE = "93.184.216.34", "2606:2800:220:1::1"
PRIVATE = [
    "127.0.0.1",
    "127.1.2.3",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "224.0.0.1",
    "240.0.0.1",
    "::1",
    "::",
    "::10.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
    "2002:a00:1::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]
WRITTEN = [
    "localhost",
    "LOCALHOST",
    "localhost.",
    "some.localhost",
    "[::ffff:a00:1]",
    "[fe80::1%25eth0]",
    "2130706433",
    "017700000001",
    "0x7f000001",
    "0x7f.1",
    "127.1",
    "someone@127.0.0.1",
    "example.com@127.0.0.1",
    "127\u30020\u30020\u30021",
    *[f"[{address}]" if ":" in address else address for address in PRIVATE],
]


class Internet:
    """Names that resolve as they are told, and one public address that leads here.

    To connect to anything else fails the test, in place of a packet.
    """

    def __init__(self, monkeypatch):
        self.names = {}
        self.connected = []
        self.leading_here = {PUBLIC}
        self._connect = socket.socket.connect
        self._peer = socket.socket.getpeername
        self._peers = {}

        def connect(opened, place):
            self._connected(opened, *place[:2])

        def peer(opened):
            return self._peers.get(opened.getsockname()) or self._peer(opened)

        monkeypatch.setattr(socket, "getaddrinfo", self._resolved)
        monkeypatch.setattr(socket.socket, "connect", connect)
        monkeypatch.setattr(socket.socket, "getpeername", peer)

    def has(self, name, *addresses):
        """The n-th time that a name is asked for, it has the n-th of these lists."""
        self.names[name] = list(addresses)

    def _resolved(self, host, port, *_, **__):
        if host in self.names:
            lists = self.names[host]
            found = lists.pop(0) if len(lists) > 1 else lists[0]
        elif re.fullmatch(r"[0-9a-f.:]+", host):
            found = [host]
        else:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                socket.IPPROTO_TCP,
                "",
                (address, port),
            )
            for address in found
        ]

    def _connected(self, opened, host, port):
        self.connected.append(host)
        if host == UNREACHABLE:
            raise OSError(errno.EHOSTUNREACH, "No route to host")
        assert host in self.leading_here, (host, port)
        self._connect(opened, ("127.0.0.1", port))
        self._peers[opened.getsockname()] = (host, port)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def internet(monkeypatch):
    return Internet(monkeypatch)


@pytest.fixture
def serving(authority, monkeypatch):
    """Opens servers, each with the certificate of its name."""
    monkeypatch.setenv("SSL_CERT_FILE", os.fspath(authority.root))
    with contextlib.ExitStack() as stack:

        def opened(name):
            return stack.enter_context(FaultyServer(authority.signed(name)))

        yield opened


@pytest.fixture
def source(serving, internet):
    """What the user named: source.example, which redirects as it is told."""
    internet.has("source.example", [PUBLIC])
    return serving("source.example")


@pytest.fixture
def target(serving):
    """Where the file lies: target.example."""
    running = serving("target.example")
    running.gives("/model.bin", ranged(CONTENT))
    return running


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache", limits=LIMITS)


def fetched(store, url):
    file = File("model.bin", [url], len(CONTENT), SHA256)
    folder = store.folder(Artifact("acme", {"main": file.name}, [file]), plain)
    return content_of(folder / file.name)


def plain(source):
    return source, {}


def redirected(source, target, name="target.example"):
    """The source's URL, which leads to a server or to a URL."""
    url = target if isinstance(target, str) else target.url("/model.bin", name)
    source.gives("/moved.bin", faulty.redirects(url))
    return source.url("/moved.bin", "source.example")


def check_refused(store, internet, url):
    with pytest.raises(DownloadFailed, match="which is in a private network; name a"):
        fetched(store, url)

    assert internet.connected == [PUBLIC]


def test_a_redirect_to_a_public_name_is_followed(internet, source, target, store):
    internet.has("target.example", [PUBLIC])

    assert fetched(store, redirected(source, target)) == CONTENT
    assert target.requests[0].headers["host"] == f"target.example:{target.port}"


@pytest.mark.parametrize("address", PRIVATE)
def test_a_name_that_resolves_into_a_private_network_is_refused(
    address, internet, source, target, store
):
    internet.has("target.example", [address])

    check_refused(store, internet, redirected(source, target))


@pytest.mark.parametrize("host", WRITTEN)
def test_a_private_address_is_refused_however_it_is_written(
    host, internet, source, store
):
    check_refused(store, internet, redirected(source, f"https://{host}/model.bin"))


@pytest.mark.parametrize("address", PRIVATE)
@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
def test_one_private_address_of_several_is_enough(
    address, first, internet, source, target, store
):
    found = [address, PUBLIC] if first else [PUBLIC, address]
    internet.has("target.example", found)

    check_refused(store, internet, redirected(source, target))


def test_it_is_connected_to_the_address_that_was_looked_at(
    internet, source, target, store
):
    internet.has("target.example", [PUBLIC], ["127.0.0.1"])

    assert fetched(store, redirected(source, target)) == CONTENT
    assert internet.connected == [PUBLIC, PUBLIC]


def test_what_it_is_connected_to_is_looked_at_again(
    internet, source, target, store, monkeypatch
):
    internet.has("target.example", [PUBLIC])
    url = redirected(source, target)
    peer = socket.socket.getpeername

    def elsewhere(opened):
        host, port = peer(opened)[:2]
        return ("10.0.0.1" if port == target.port else host, port)

    monkeypatch.setattr(socket.socket, "getpeername", elsewhere)
    with pytest.raises(DownloadFailed, match="which is in a private network"):
        fetched(store, url)

    assert target.requests == []


def test_a_name_that_changes_in_between_two_tries_is_refused(
    internet, source, target, store
):
    internet.has("target.example", [PUBLIC], ["127.0.0.1"])
    target.gives("/model.bin", faulty.status("503 No"), ranged(CONTENT))

    with pytest.raises(DownloadFailed, match="which is in a private network"):
        fetched(store, redirected(source, target))
    assert internet.connected == [PUBLIC, PUBLIC, PUBLIC]


def test_the_next_address_is_tried_where_one_does_not_answer(
    internet, source, target, store
):
    internet.has("target.example", [UNREACHABLE, PUBLIC])

    assert fetched(store, redirected(source, target)) == CONTENT
    assert [a for a in internet.connected if a != PUBLIC] == [UNREACHABLE]


def test_where_no_address_answers_it_says_so(internet, source, target, store):
    internet.has("target.example", [UNREACHABLE, UNREACHABLE])
    with pytest.raises(Unreachable, match=r"could not be read: .*No route to host"):
        fetched(store, redirected(source, target))

    assert internet.connected.count(UNREACHABLE) == 2 * LIMITS.tries


def test_a_name_that_does_not_resolve_says_so(source, store):
    with pytest.raises(Unreachable, match=r"target\.example could not be resolved"):
        fetched(store, redirected(source, "https://target.example/model.bin"))


def test_a_certificate_is_held_to_the_name_and_not_to_the_address(
    internet, source, target, store
):
    internet.has("other.example", [PUBLIC])
    with pytest.raises(DownloadFailed, match="CERTIFICATE_VERIFY_FAILED"):
        fetched(store, redirected(source, target, "other.example"))

    assert target.requests == []


def test_a_second_hop_is_looked_at_as_the_first(internet, source, target, store):
    internet.has("target.example", [PUBLIC])
    internet.has("near.example", ["10.0.0.1"])
    target.gives("/model.bin", faulty.redirects("https://near.example/model.bin"))
    with pytest.raises(DownloadFailed, match=r"near\.example, which is in a private"):
        fetched(store, redirected(source, target))

    assert internet.connected == [PUBLIC, PUBLIC]


def test_a_relative_redirect_stays_with_its_name(internet, source, target, store):
    internet.has("target.example", [PUBLIC])
    target.gives("/model.bin", faulty.redirects("/there.bin"))
    target.gives("/there.bin", ranged(CONTENT))

    assert fetched(store, redirected(source, target)) == CONTENT
    assert target.requests[1].headers["host"] == f"target.example:{target.port}"


def test_the_users_own_source_may_be_anywhere(internet, source, store):
    internet.has("source.example", ["10.0.0.1"])
    internet.leading_here = {"10.0.0.1"}
    source.gives("/model.bin", ranged(CONTENT))
    url = source.url("/model.bin", "source.example")

    assert fetched(store, redirected(source, url)) == CONTENT


@pytest.fixture
def proxy(internet, monkeypatch):
    with FaultyServer() as running:
        internet.leading_here.add("127.0.0.1")
        monkeypatch.setenv("HTTPS_PROXY", running.url(""))
        monkeypatch.setenv("NO_PROXY", "source.example")
        yield running


def test_a_proxy_resolves_names_itself(internet, proxy, source, store):
    """Even where they would resolve to a private address here."""
    internet.has("target.example", ["10.0.0.1"])
    proxy.gives("target.example:443", faulty.status("502 No"))
    with pytest.raises(DownloadFailed, match="502 No"):
        fetched(store, redirected(source, "https://target.example/model.bin"))

    assert proxy.requests[0].path == "target.example:443"


def test_through_a_proxy_a_written_address_is_refused_all_the_same(
    internet, proxy, source, store
):
    check_refused(store, internet, redirected(source, "https://10.0.0.1/model.bin"))


@pytest.mark.parametrize(
    "address",
    [
        PUBLIC,
        UNREACHABLE,
        "64:ff9b::5db8:d822",
        "2002:5db8:d822::1",
        "::ffff:93.184.216.34",
    ],
)
def test_public_addresses_are_told_as_such(address):
    assert is_public(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_told_as_such(address):
    assert not is_public(address)
