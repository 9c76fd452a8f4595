"""The store: what is fetched is whole and is what was promised, or is not there."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from textwrap import dedent

import attrs
import pytest

from inference_models import (
    Artifact,
    DownloadFailed,
    File,
    HashMismatch,
    InvalidCard,
    Offline,
)
from inference_models.disk import write_atomically
from inference_models.download import store as store_module
from inference_models.download.limits import Limits
from inference_models.download.partial import Partial
from inference_models.download.store import Store, cache_root

from .contents import Content, content_of
from .distributions import python
from .server import Server

CONTENT = Content(bytes(range(256)) * 5000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()
GIT = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()
OTHER = b"\0" * len(CONTENT)
SECRET = "sesame-open"


@pytest.fixture
def server():
    with Server() as running:
        running.gives("/model.bin", CONTENT)
        running.gives("/other.bin", OTHER)
        running.gives("/missing.bin", b"", status=404)
        yield running


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache", limits=Limits(pause=0.01))


def plain(source):
    """A provider's request that adds nothing."""
    return source, {}


def weights(*sources, name="model.bin", **facts):
    return File(name, sources, **facts)


def fetched(store, *files, request=plain):
    return store.folder(Artifact("acme", {"main": files[0].name}, files), request)


def left(store):
    """Everything in the cache that is no lock."""
    found = [path for path in store.root.rglob("*") if path.is_file()]
    return [path for path in found if path.suffix != ".lock"]


# Hashes


@pytest.mark.parametrize(
    "facts",
    [
        {"sha256": SHA256},
        {"sha256": SHA256[:8]},
        {"md5": MD5},
        {"md5": MD5, "size": len(CONTENT)},
        {"git_sha1": GIT, "size": len(CONTENT)},
        {"sha256": SHA256, "md5": MD5, "size": len(CONTENT)},
    ],
    ids="-".join,
)
def test_a_file_that_is_what_was_promised_is_kept(server, store, facts):
    folder = fetched(store, weights(server.url("/model.bin"), **facts))

    assert content_of(folder / "model.bin") == CONTENT
    assert store.blob(SHA256).is_file()


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"sha256": SHA256}, f"'model.bin' has sha256 .* instead of {SHA256}"),
        ({"sha256": SHA256[:8]}, f"has sha256 .* instead of {SHA256[:8]}; the file is"),
        ({"md5": MD5}, f"has md5 .* instead of {MD5}"),
        ({"git_sha1": GIT, "size": len(OTHER)}, f"has git .* instead of {GIT}"),
        ({"sha256": SHA256, "size": 7}, "is longer than 7 bytes"),
        ({"sha256": SHA256, "size": 1 << 40}, f"bytes instead of {1 << 40}"),
    ],
    ids=["sha256", "prefix", "md5", "git", "longer", "shorter"],
)
def test_a_file_that_is_something_else_is_discarded(server, store, facts, words):
    with pytest.raises(HashMismatch, match=words):
        fetched(store, weights(server.url("/other.bin"), **facts))

    assert left(store) == []


def test_a_file_without_a_hash_is_not_fetched(server, store):
    with pytest.raises(InvalidCard, match="no hash; add its sha256 to the card"):
        fetched(store, weights(server.url("/model.bin"), size=len(CONTENT)))

    assert server.requests == []


def test_the_full_hash_of_the_first_download_is_recorded(server, store):
    file = weights(server.url("/model.bin"), sha256=SHA256[:8])
    assert store.digest(file) is None

    fetched(store, file)
    assert store.digest(file) == SHA256


def test_a_recorded_hash_is_enforced_though_the_cards_would_fit(server, store):
    file = weights(server.url("/model.bin"), sha256=SHA256[:8])
    fetched(store, file)
    store.blob(SHA256).unlink()
    (record,) = (store.root / "records").iterdir()
    record.write_text("ab" * 32)  # as if the first download had been another file

    with pytest.raises(HashMismatch, match="instead of abab"):
        fetched(store, file)


def test_a_damaged_record_counts_as_none(server, store):
    file = weights(server.url("/model.bin"), md5=MD5)
    fetched(store, file)
    (record,) = (store.root / "records").iterdir()
    record.write_text("../../etc/passwd")

    assert store.digest(file) is None
    assert content_of(fetched(store, file) / "model.bin") == CONTENT


def test_what_lies_in_the_cache_is_not_fetched_again(server, store):
    file = weights(server.url("/model.bin"), md5=MD5)
    folders = {fetched(store, file) for _ in range(3)}

    assert len(folders) == 1
    assert len(server.requests) == 1


def test_one_content_is_stored_once_under_every_name(server, store):
    url = server.url("/model.bin")
    one = fetched(store, weights(url, sha256=SHA256))
    other = fetched(store, weights(url, name="again.bin", sha256=SHA256))

    assert (one / "model.bin").samefile(other / "again.bin")
    assert len(server.requests) == 1


# Faults


FAULTS = {
    "not found": lambda server: server.url("/missing.bin"),
    "server error": lambda server: server.gives("/5", b"", status=503),
    "short body": lambda server: server.gives("/s", CONTENT[:99], length=len(CONTENT)),
    "cut short": lambda server: server.gives("/c", CONTENT[:99]),
    "endless": lambda server: server.gives("/e", CONTENT * 2),
    "wrong content": lambda server: server.url("/other.bin"),
    "no connection": lambda server: f"http://127.0.0.1:{closed_port()}/model.bin",
    "redirect in circles": lambda server: server.redirects("/r", "/r"),
    "redirect to a file": lambda server: server.redirects("/f", "file:///etc/passwd"),
    "redirect to plain http": lambda server: server.redirects(
        "/h", "http://example.com/"
    ),
    "plain http": lambda server: "http://example.com/model.bin",
    "impossible URL": lambda server: "https://[::1/model.bin",
    "unknown kind": lambda server: "ftp://example.com/model.bin",
    "no kind": lambda server: "model.bin",
    "missing file": lambda server: "file:///no/such/model.bin",
    "no path": lambda server: "file://",
}


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("fault", FAULTS)
def test_after_a_fault_nothing_is_left_and_the_next_call_works(fault, server, store):
    bad = FAULTS[fault](server)
    size = len(CONTENT)
    with pytest.raises(DownloadFailed, match=r"model\.bin"):
        fetched(store, weights(bad, sha256=SHA256, size=size))
    assert left(store) == []

    good = fetched(store, weights(server.url("/model.bin"), sha256=SHA256, size=size))
    assert content_of(good / "model.bin") == CONTENT


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("not found", "missing.bin answered 404 Not Found"),
        ("short body", "could not be read"),
        ("endless", f"longer than {len(CONTENT)} bytes"),
        ("no connection", "could not be read"),
        ("redirect to plain http", "http://example.com is not encrypted"),
        ("plain http", "http://example.com is not encrypted; give an https source"),
        ("unknown kind", "of no known kind; use https://, file:// or wheel://"),
        ("missing file", "there is no file '/no/such/model.bin'"),
    ],
)
def test_a_fault_is_said_in_words(fault, words, server, store):
    file = weights(FAULTS[fault](server), sha256=SHA256, size=len(CONTENT))
    with pytest.raises(DownloadFailed, match=words):
        fetched(store, file)


def test_a_file_without_any_source_says_so(store):
    with pytest.raises(DownloadFailed, match="it has no source"):
        fetched(store, weights(sha256=SHA256))


def test_a_fault_in_one_file_keeps_what_was_fetched_before(server, store):
    good = weights(server.url("/model.bin"), sha256=SHA256)
    bad = weights(server.url("/missing.bin"), name="more.bin", sha256=SHA256[::-1])
    with pytest.raises(DownloadFailed, match=r"'more\.bin' is not in the cache"):
        fetched(store, good, bad)

    assert left(store) == [store.blob(SHA256)]


def test_what_is_removed_meanwhile_is_fetched_again(server, store):
    def request(source):
        if source.endswith("other.bin"):
            store.blob(SHA256).unlink()
        return source, {}

    files = [
        weights(server.url("/model.bin"), sha256=SHA256),
        weights(
            server.url("/other.bin"),
            name="other.bin",
            md5=hashlib.md5(OTHER).hexdigest(),
        ),
    ]
    folder = fetched(store, *files, request=request)

    assert content_of(folder / "model.bin") == CONTENT


def test_sources_are_tried_in_order(server, store):
    sources = [server.url(f"/{name}.bin") for name in ("missing", "other", "model")]
    fetched(store, weights(*sources, sha256=SHA256))

    assert [path for path, _ in server.requests] == [
        "/missing.bin",
        "/other.bin",
        "/model.bin",
    ]


def test_where_no_source_works_each_reason_is_given(server, store):
    sources = [server.url("/missing.bin"), "ftp://example.com/x"]
    with pytest.raises(DownloadFailed, match=r"404 Not Found; .*of no known kind"):
        fetched(store, weights(*sources, sha256=SHA256))


def test_a_redirect_on_this_machine_is_followed(server, store):
    url = server.redirects("/moved.bin", "/model.bin")

    folder = fetched(store, weights(url, sha256=SHA256))
    assert content_of(folder / "model.bin") == CONTENT


# Secrets


def signing(source):
    """A provider's request: a signed query, and a header with a key."""
    return f"{source}?signature={SECRET}", {"X-Api-Key": SECRET}


def test_a_providers_headers_and_query_reach_its_server(server, store):
    fetched(store, weights(server.url("/model.bin"), sha256=SHA256), request=signing)
    ((path, headers),) = server.requests

    assert path == f"/model.bin?signature={SECRET}"
    assert headers["X-Api-Key"] == SECRET


def test_a_providers_headers_do_not_follow_to_another_server(server, store):
    with Server() as other:
        target = other.gives("/model.bin", CONTENT)
        url = server.redirects("/moved.bin", target)
        fetched(store, weights(url, sha256=SHA256), request=signing)
        ((_, headers),) = other.requests

    assert SECRET not in str(headers)


@pytest.mark.parametrize("fault", ["not found", "short body", "no connection"])
def test_a_signed_query_is_shown_nowhere(fault, server, store, caplog):
    caplog.set_level(logging.DEBUG)
    file = weights(FAULTS[fault](server), sha256=SHA256)
    with pytest.raises(DownloadFailed) as caught:
        fetched(store, file, request=signing)

    assert SECRET not in str(caught.value)
    assert SECRET not in caplog.text


def test_a_signed_redirect_is_shown_nowhere(server, store, caplog):
    caplog.set_level(logging.DEBUG)
    server.redirects("/moved.bin", f"/model.bin?signature={SECRET}")
    fetched(store, weights(server.url("/moved.bin"), sha256=SHA256))

    assert SECRET not in caplog.text
    assert not [path for path in left(store) if SECRET in str(path)]


def test_others_may_log_what_they_fetch(server, store, caplog):
    import httpx

    caplog.set_level(logging.INFO)
    fetched(store, weights(server.url("/model.bin"), sha256=SHA256))
    httpx.get(server.url("/other.bin"))

    assert "/other.bin" in caplog.text
    assert "/model.bin" not in caplog.text


# Offline


@pytest.mark.parametrize("value", ["1", "true", "YES"])
def test_offline_nothing_is_fetched(server, store, monkeypatch, value):
    monkeypatch.setenv("INFERENCE_MODELS_OFFLINE", value)
    with pytest.raises(Offline, match="INFERENCE_MODELS_OFFLINE is set"):
        fetched(store, weights(server.url("/model.bin"), sha256=SHA256))

    assert server.requests == []


@pytest.mark.parametrize("value", ["", "0", "false", "no", "off"])
def test_the_switch_may_be_set_to_no(server, store, monkeypatch, value):
    monkeypatch.setenv("INFERENCE_MODELS_OFFLINE", value)

    assert fetched(store, weights(server.url("/model.bin"), sha256=SHA256)).is_dir()


def test_offline_the_cache_and_local_files_still_serve(
    server, store, monkeypatch, tmp_path
):
    cached = weights(server.url("/model.bin"), sha256=SHA256)
    fetched(store, cached)
    local = tmp_path / "elsewhere.bin"
    local.write_bytes(b"local")
    digest = hashlib.sha256(b"local").hexdigest()
    monkeypatch.setenv("INFERENCE_MODELS_OFFLINE", "1")
    both = fetched(
        store, cached, weights(local.as_uri(), name="more.bin", sha256=digest)
    )

    assert (both / "more.bin").read_bytes() == b"local"


def test_offline_a_wheel_is_not_asked_for(store, monkeypatch):
    monkeypatch.setenv("INFERENCE_MODELS_OFFLINE", "1")
    with pytest.raises(Offline):
        fetched(store, weights("wheel://acme/1.0/acme/model.bin", sha256=SHA256))


# The cache itself


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("INFERENCE_MODELS_CACHE", str(tmp_path / "mine"))
    assert cache_root() == tmp_path / "mine"

    monkeypatch.setenv("INFERENCE_MODELS_CACHE", f" {tmp_path / 'mine'}\r")
    assert cache_root() == tmp_path / "mine"

    for unset in ("", " "):
        monkeypatch.setenv("INFERENCE_MODELS_CACHE", unset)
        assert cache_root().name == "inference-models"


def test_a_cache_that_cannot_be_written_says_what_to_set(server, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    store = Store(tmp_path / "file" / "cache")

    with pytest.raises(
        DownloadFailed, match=r"cannot be used: .* INFERENCE_MODELS_CACHE"
    ):
        fetched(store, weights(server.url("/model.bin"), sha256=SHA256))


FETCH = """
    from inference_models import Artifact, File
    from inference_models.download.store import Store
    file = File("model.bin", ["{url}"], sha256="{sha256}")
    artifact = Artifact("acme", {{"main": "model.bin"}}, [file])
    folder = Store().folder(artifact, lambda source: (source, {{}}))
    print(len((folder / "model.bin").read_bytes()))
"""

FULL_DISK = """
    import resource, signal
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit for files")
def test_a_full_disk_leaves_nothing_half_written(server, store):
    code = FULL_DISK + FETCH.format(url=server.url("/model.bin"), sha256=SHA256)
    ended = python(code, INFERENCE_MODELS_CACHE=str(store.root))

    assert "set INFERENCE_MODELS_CACHE to a folder with room" in ended.stderr
    assert left(store) == []


def test_a_folder_that_may_not_be_listed_is_written_to(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    write_atomically(tmp_path / "note.json", b"{}")

    assert (tmp_path / "note.json").read_bytes() == b"{}"


def test_a_file_that_another_reads_on_windows_is_not_replaced(
    server, store, monkeypatch
):
    file = weights(server.url("/model.bin"), sha256=SHA256)
    move = store_module.move_file

    def refuse(path, target):
        move(path, target)
        raise PermissionError(errno.EACCES, "Access is denied", str(target))

    monkeypatch.setattr(store_module, "move_file", refuse)

    assert content_of(fetched(store, file) / "model.bin") == CONTENT


def test_a_small_file_that_cannot_be_placed_leaves_nothing_beside_it(tmp_path):
    (tmp_path / "record").mkdir()
    with pytest.raises(OSError, match="record"):
        write_atomically(tmp_path / "record", b"content")

    assert [path.name for path in tmp_path.iterdir()] == ["record"]


def test_a_bundle_holds_real_files_under_their_own_names(server, store):
    url = server.url("/model.bin")
    folder = fetched(store, weights(url, name="deep/er/model.bin", sha256=SHA256))
    path = folder / "deep" / "er" / "model.bin"

    assert path.is_file()
    assert not path.is_symlink()
    assert not folder.is_symlink()


def test_where_links_fail_files_are_copied(server, store, monkeypatch):
    def refuse(*_, **__):
        raise OSError("links are not supported")

    monkeypatch.setattr(os, "link", refuse)
    folder = fetched(store, weights(server.url("/model.bin"), sha256=SHA256))

    assert content_of(folder / "model.bin") == CONTENT
    assert not (folder / "model.bin").samefile(store.blob(SHA256))


def test_a_damaged_bundle_is_laid_anew(server, store):
    file = weights(server.url("/model.bin"), sha256=SHA256)
    path = fetched(store, file) / "model.bin"
    path.unlink()

    assert content_of(fetched(store, file) / "model.bin") == CONTENT
    assert len(server.requests) == 1


def test_a_link_that_somebody_put_into_a_bundle_leads_nowhere(server, store, tmp_path):
    file = weights(server.url("/model.bin"), sha256=SHA256)
    file = attrs.evolve(file, name="deep/model.bin")
    folder = fetched(store, file)
    (outside := tmp_path / "outside").mkdir()
    (folder / "deep" / "model.bin").unlink()
    (folder / "deep").rmdir()
    (folder / "deep").symlink_to(outside)

    assert content_of(fetched(store, file) / "deep" / "model.bin") == CONTENT
    assert list(outside.iterdir()) == []


def test_an_artifact_without_files_has_an_empty_folder(store):
    folder = store.folder(Artifact("acme", {}), plain)

    assert list(folder.iterdir()) == []


# Files on this machine


@pytest.fixture
def local(tmp_path):
    path = tmp_path / "weights with spaces #1" / "model.bin"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


def test_local_files_are_used_where_they_lie(local, store):
    folder = fetched(store, weights(local.as_uri()))

    assert folder == local.parent
    assert not store.root.exists()


@pytest.mark.parametrize(
    "facts", [{"sha256": SHA256[::-1]}, {"md5": MD5[::-1]}, {"size": 3}]
)
def test_local_files_are_checked_against_their_card(local, store, facts):
    with pytest.raises(HashMismatch):
        fetched(store, weights(local.as_uri(), **facts))

    assert content_of(local) == CONTENT


def test_a_local_file_may_be_of_this_host_by_name(local, store):
    uri = local.as_uri().replace("file:///", "file://localhost/")

    assert fetched(store, weights(uri)) == local.parent


def test_a_local_file_that_is_missing_is_named(tmp_path, store):
    with pytest.raises(DownloadFailed, match=r"there is no file .*gone\.bin"):
        fetched(store, weights((tmp_path / "gone.bin").as_uri(), name="gone.bin"))


def test_a_local_file_under_another_name_is_copied_into_the_cache(local, store):
    file = weights(local.as_uri(), name="renamed.bin", sha256=SHA256)

    assert content_of(fetched(store, file) / "renamed.bin") == CONTENT


def test_local_files_of_several_folders_are_brought_together(local, tmp_path, store):
    beside = tmp_path / "labels.txt"
    beside.write_bytes(b"cat")
    digest = hashlib.sha256(b"cat").hexdigest()
    folder = fetched(
        store,
        weights(local.as_uri(), sha256=SHA256),
        weights(beside.as_uri(), name="labels.txt", sha256=digest),
    )

    assert {path.name for path in folder.iterdir()} == {"model.bin", "labels.txt"}


# Several at once


def slow(server, gate):
    """Serve the model, but not before the gate opens."""
    quick = server.answers["/model.bin"]

    def answer(handler):
        gate.wait(timeout=60)
        quick(handler)

    server.answers["/model.bin"] = answer


def test_eight_threads_fetch_one_file_once(server, store):
    gate = threading.Event()
    slow(server, gate)
    file = weights(server.url("/model.bin"), sha256=SHA256)
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(fetched, store, file) for _ in range(8)]
        gate.set()
        folders = {future.result() for future in waiting}

    assert len(folders) == 1
    assert len(server.requests) == 1


def test_two_processes_fetch_one_file_once(server, store):
    gate = threading.Event()
    slow(server, gate)
    code = FETCH.format(url=server.url("/model.bin"), sha256=SHA256)
    cache = {"INFERENCE_MODELS_CACHE": str(store.root)}
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(python, code, **cache) for _ in range(2)]
        while not server.requests:
            assert not any(process.done() for process in both)
        gate.set()
        printed = [process.result() for process in both]

    assert [p.stdout.strip() for p in printed] == [str(len(CONTENT))] * 2, printed
    assert len(server.requests) == 1


# Members of wheels


def make_wheel(index, members, name="acme_weights", version="1.0"):
    """A wheel as any other, written by hand."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    wheel = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    index.mkdir(exist_ok=True)
    path = index / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", wheel)
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index of one wheel, which pip is configured for."""
    folder = tmp_path / "index"
    explosive = "raise SystemExit('the wheel was imported')"
    make_wheel(
        folder,
        {"acme_weights/__init__.py": explosive, "acme_weights/model 100%.bin": CONTENT},
    )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


MEMBER = "wheel://acme-weights/1.0/acme_weights/model 100%.bin"


def test_one_member_of_a_wheel_is_fetched_and_nothing_is_installed(index, store):
    folder = fetched(store, weights(MEMBER, sha256=SHA256))

    assert [path.name for path in folder.iterdir()] == ["model.bin"]
    assert content_of(folder / "model.bin") == CONTENT
    shown = [sys.executable, "-m", "pip", "show", "acme-weights"]
    assert subprocess.run(shown, capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize(
    ("name", "value"), [("executable", None), ("executable", ""), ("frozen", True)]
)
def test_a_program_without_a_python_says_so(index, store, monkeypatch, name, value):
    monkeypatch.setattr(sys, name, value, raising=False)
    with pytest.raises(DownloadFailed, match="needs a Python that has pip"):
        fetched(store, weights(MEMBER, sha256=SHA256))


WHEEL_FAULTS = {
    "member": ("wheel://acme-weights/1.0/acme_weights/none.bin", "has no member"),
    "version": (
        "wheel://acme-weights/2.0/acme_weights/x",
        "acme-weights==2.0 could not",
    ),
    "name": ("wheel://acme-nothing/1.0/x", "acme-nothing==1.0 could not be fetched"),
    "option": ("wheel://--help/1.0/x", "is not wheel://<distribution>/<version>"),
    "unpinned": (
        "wheel://acme-weights/1.*/x",
        "is not wheel://<distribution>/<version>",
    ),
    "url": ("wheel://acme @ file:x/1/x", "is not wheel://<distribution>/<version>"),
    "nothing": ("wheel://acme-weights/1.0/", "is not wheel://<distribution>/<version>"),
    "short": ("wheel://acme-weights/1.0", "is not wheel://<distribution>/<version>"),
}


@pytest.mark.parametrize("fault", WHEEL_FAULTS)
def test_a_wheel_that_does_not_fit_is_said_in_words(fault, index, store):
    source, words = WHEEL_FAULTS[fault]
    with pytest.raises(DownloadFailed, match=words.replace("*", r"\*")):
        fetched(store, weights(source, sha256=SHA256))

    assert left(store) == []


def test_a_member_with_another_hash_is_discarded(index, store):
    with pytest.raises(HashMismatch):
        fetched(store, weights(MEMBER, sha256=SHA256[::-1]))

    assert left(store) == []
    assert fetched(store, weights(MEMBER, sha256=SHA256)).is_dir()


@pytest.mark.parametrize("facts", [{"md5": MD5}, {"sha256": SHA256[:16]}])
def test_a_member_needs_its_full_sha256(index, store, facts):
    with pytest.raises(InvalidCard, match="needs its full sha256"):
        fetched(store, weights(MEMBER, **facts))


@pytest.mark.parametrize("damage", ["data", "end"])
def test_a_damaged_wheel_is_refused(index, store, damage):
    path = make_wheel(
        index, {"acme_weights/model 100%.bin": os.urandom(9000) + CONTENT}
    )
    content = bytearray(path.read_bytes())
    if damage == "data":
        content[100:4000] = b"\xff" * 3900
    else:
        content = content[: len(content) // 2]
    path.write_bytes(content)

    with pytest.raises(DownloadFailed, match=r"acme.weights"):
        fetched(store, weights(MEMBER, sha256=SHA256))
    assert left(store) == []


BOMB = b"\0" * 100_000_000


@pytest.fixture
def written(monkeypatch):
    """The size of each chunk that goes to a file in the cache."""
    sizes, write = [], Partial.write

    def counted(self, chunk):
        sizes.append(len(chunk))
        write(self, chunk)

    monkeypatch.setattr(Partial, "write", counted)
    return sizes


def test_a_member_that_is_longer_than_its_card_is_not_unpacked(index, store, written):
    make_wheel(index, {"acme_weights/model 100%.bin": BOMB})
    file = weights(MEMBER, sha256=SHA256, size=len(CONTENT))
    with pytest.raises(HashMismatch, match=f"is longer than {len(CONTENT)} bytes"):
        fetched(store, file)

    assert written == []
    assert left(store) == []


def test_a_member_that_has_no_room_is_not_unpacked(index, store, written, monkeypatch):
    make_wheel(index, {"acme_weights/model 100%.bin": BOMB})
    usage = shutil.disk_usage(index)._replace(free=len(BOMB) - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DownloadFailed, match="no room in the cache"):
        fetched(store, weights(MEMBER, sha256=SHA256))

    assert written == []
    assert left(store) == []


def test_a_member_that_is_longer_than_it_says_is_refused(index, store, written):
    path = make_wheel(index, {"acme_weights/model 100%.bin": BOMB})
    content = path.read_bytes()
    sizes = [len(number).to_bytes(4, "little") for number in (BOMB, CONTENT)]
    path.write_bytes(content.replace(*sizes))
    with pytest.raises(DownloadFailed, match="is damaged: Bad CRC-32"):
        fetched(store, weights(MEMBER, sha256=SHA256, size=len(CONTENT)))

    assert sum(written) <= len(CONTENT)
    assert left(store) == []


ENCRYPTED, UNKNOWN = (6, b"\1\0"), (8, b"\x63\0")
"""Places after a member's signature in a wheel, and what stands there."""


@pytest.mark.parametrize("change", [ENCRYPTED, UNKNOWN], ids=["encrypted", "packed"])
def test_a_member_that_cannot_be_unpacked_is_refused(change, index, store):
    path = make_wheel(index, {"acme_weights/model 100%.bin": CONTENT})
    place, value = change
    content = bytearray(path.read_bytes())
    for signature, shift in ((b"PK\3\4", 0), (b"PK\1\2", 2)):
        start = content.index(signature) + place + shift
        content[start : start + 2] = value
    path.write_bytes(content)

    with pytest.raises(DownloadFailed, match="is damaged: "):
        fetched(store, weights(MEMBER, sha256=SHA256))
    assert left(store) == []


def test_without_pip_it_says_what_to_type(tmp_path):
    code = f"import sys; sys.executable = {str(without_pip(tmp_path))!r}\n"
    fetch = dedent(FETCH.format(url=MEMBER, sha256=SHA256))

    assert "needs pip in this environment; python -m ensurepip" in (
        python(code + fetch).stderr
    )


def without_pip(folder):
    """An interpreter of an environment that has no pip."""
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", folder / "bare"], check=True
    )
    return folder / "bare" / ("Scripts" if os.name == "nt" else "bin") / "python"


def test_a_pip_of_the_working_directory_is_not_run(index, store, tmp_path, monkeypatch):
    canary = tmp_path / "canary"
    (tmp_path / "pip.py").write_text(f"open({str(canary)!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    fetched(store, weights(MEMBER, sha256=SHA256))

    assert not canary.exists()
