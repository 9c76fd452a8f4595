"""Where the cache lies, what lies there already, and what its files are named."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import time
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pytest

from inference_models import (
    Artifact,
    AutoModel,
    DownloadFailed,
    File,
    InvalidCard,
    InvalidWeights,
)
from inference_models.download import cache, partial, sources
from inference_models.download.limits import Limits
from inference_models.download.store import Store, cache_root

from .contents import content_of, noise
from .faulty_server import FaultyServer, asked_range, ranged

CONTENT = noise(100_000)
SHA256, MD5 = hashlib.sha256(CONTENT).hexdigest(), hashlib.md5(CONTENT).hexdigest()
SIZE, HALF = len(CONTENT), len(CONTENT) // 2
FUTURE = time.time() + 10 * 365 * 86400
LIMITS = Limits(pause=0.01, idle=5.0)


@pytest.fixture
def server():
    with FaultyServer() as running:
        running.gives("/model.bin", ranged(CONTENT))
        yield running


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache", limits=LIMITS)


def plain(source):
    return source, {}


def artifact(server, name="model.bin", **facts):
    facts = {"size": SIZE} | (facts or {"sha256": SHA256})
    file = File(name, [server.url("/model.bin")], **facts)
    return Artifact("acme", {"main": name}, [file])


def contents(store, wanted):
    """As the next process reads it, which remembers nothing."""
    folder = Store(store.root, limits=LIMITS).folder(wanted, plain)
    return content_of(folder / wanted.files[0].name)


def left_half(store, note=b'"v1"', content=CONTENT[:HALF]):
    """What a run left that was killed in the middle."""
    path = store.root / "partial" / f"{SHA256}.0"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.with_name(f"{path.name}.etag").write_bytes(note)
    return path


# What lies there already


@pytest.mark.parametrize("place", ["blobs", "bundles", "partial", "records"])
def test_a_file_in_the_place_of_a_folder_is_named(place, server, store):
    store.root.mkdir()
    (store.root / place).write_text("in the way")
    with pytest.raises(DownloadFailed, match=rf"cannot be used: .*{place}"):
        contents(store, artifact(server, md5=MD5))

    (store.root / place).unlink()
    assert contents(store, artifact(server, md5=MD5)) == CONTENT


def test_a_file_in_the_place_of_the_locks_does_no_harm(server, store):
    store.root.mkdir()
    (store.root / "locks").write_text("in the way")

    assert contents(store, artifact(server)) == CONTENT


@pytest.mark.parametrize("place", ["records/*", "bundles/*.json"])
def test_a_folder_in_the_place_of_what_is_noted_is_replaced(place, server, store):
    wanted = artifact(server, md5=MD5)
    contents(store, wanted)
    (path,) = store.root.glob(place)
    path.unlink()
    (path / "in it").mkdir(parents=True)

    assert contents(store, wanted) == CONTENT
    assert path.is_file()


def test_no_link_is_made_but_hard_ones(server, store, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EPERM, "A required privilege is not held by the client")

    monkeypatch.setattr(os, "symlink", refuse)

    assert contents(store, artifact(server)) == CONTENT


def test_a_cache_that_is_removed_is_filled_again(server, store):
    folder = store.folder(artifact(server), plain)
    with (folder / "model.bin").open("rb") as in_use:
        shutil.rmtree(store.root)

        assert contents(store, artifact(server)) == CONTENT
        assert in_use.read() == CONTENT


def test_a_cache_that_is_removed_meanwhile_is_filled_again(server, store):
    def removed(server, connection, asked):
        shutil.rmtree(store.root)
        ranged(CONTENT)(server, connection, asked)

    server.gives("/model.bin", removed, ranged(CONTENT))

    assert contents(store, artifact(server)) == CONTENT


def test_what_is_swapped_after_it_was_checked_is_told_at_the_next_load(server, store):
    path = store.folder(artifact(server), plain) / "model.bin"
    swapped = store.root / "swapped"
    swapped.write_bytes(CONTENT[::-1])
    os.utime(swapped, (1, 1))
    swapped.replace(path)

    assert contents(store, artifact(server)) == CONTENT


def test_a_swap_that_keeps_size_and_date_is_told_by_all_hashes(server, store):
    path = store.folder(artifact(server), plain) / "model.bin"
    swapped = store.root / "swapped"
    swapped.write_bytes(CONTENT[::-1])
    shutil.copystat(path, swapped)
    swapped.replace(path)

    assert cache.verify(store) != []
    assert contents(store, artifact(server)) == CONTENT


# Dates


@pytest.mark.parametrize("place", ["blobs/*", "bundles/*/*", "bundles/*.json"])
def test_dates_in_the_future_do_no_harm(place, server, store):
    contents(store, artifact(server))
    (path,) = store.root.glob(place)
    os.utime(path, (FUTURE, FUTURE))

    assert contents(store, artifact(server)) == CONTENT
    assert contents(store, artifact(server)) == CONTENT
    assert len(server.requests) == 1


def test_what_was_left_in_the_future_is_taken_up_and_removed(server, store):
    for path in (left_half(store), *store.root.glob("partial/*.etag")):
        os.utime(path, (FUTURE, FUTURE))

    assert contents(store, artifact(server)) == CONTENT
    assert asked_range(server.requests[0]) == (HALF, None)
    assert list(store.root.glob("partial/*")) == []


# Unfinished files


@pytest.mark.parametrize(
    "note",
    [b"\xff\xfe", b'"v1"\r\nX-Other: 1', b"", b"x" * 1000, "„v1“".encode()],
    ids=["bytes", "two lines", "empty", "long", "other script"],
)
def test_a_damaged_note_is_not_sent(note, server, store):
    left_half(store, note)

    assert contents(store, artifact(server)) == CONTENT
    assert [asked_range(asked) for asked in server.requests] == [None]
    assert list(store.root.glob("partial/*")) == []


def test_what_nobody_can_take_up_is_removed(server, store):
    left_half(store)
    (store.root / "partial" / f"{SHA256}.0.etag").unlink()

    assert contents(store, artifact(server)) == CONTENT
    assert list(store.root.glob("partial/*")) == []


def test_where_a_copy_has_no_room_it_begins_anew(server, store, monkeypatch):
    left_half(store)
    usage = shutil.disk_usage(store.root)
    free = iter([HALF - 1])
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: usage._replace(free=next(free, 10**12))
    )

    assert contents(store, artifact(server)) == CONTENT
    assert [asked_range(asked) for asked in server.requests] == [None]


def test_of_what_cannot_be_read_nothing_is_kept(server, store, monkeypatch):
    """A longer one breaks off in the middle, and the shorter one is taken up."""
    left_half(store)
    longer = left_half(store).rename(store.root / "partial" / f"{SHA256}.1")
    longer.write_bytes(CONTENT[: HALF + 1])
    shutil.copy(store.root / "partial" / f"{SHA256}.0.etag", f"{longer}.etag")
    left_half(store)
    read = partial.chunks_of

    def breaking(file):
        yield from read(file)
        if file.name == str(longer):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(partial, "chunks_of", breaking)

    assert contents(store, artifact(server)) == CONTENT
    assert asked_range(server.requests[0]) == (HALF, None)


# Room


@pytest.mark.parametrize(
    "number",
    [errno.ENOSPC, errno.EDQUOT, errno.EFBIG],
    ids=["full", "quota", "too large"],
)
@pytest.mark.parametrize("synced", [1, 1 << 30], ids=["meanwhile", "in the end"])
def test_a_disk_that_takes_no_more_is_named(number, synced, server, store, monkeypatch):
    """Some systems find it out only when they write to the disk."""

    def full(_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(partial, "_SYNCED", synced)
        patched.setattr(os, "fsync", full)
        with pytest.raises(DownloadFailed, match=r"no room in the cache .* prune"):
            contents(store, artifact(server))
    left = [path for path in store.root.rglob("*") if path.is_file()]

    assert [path for path in left if path.suffix != ".lock"] == []
    assert contents(store, artifact(server)) == CONTENT


# Names


@pytest.mark.parametrize(
    "name",
    [
        "x" * 200,
        f"{'x' * 200}/{'y' * 200}",
        "modèle.bin",
        unicodedata.normalize("NFD", "modèle.bin"),
        "モデル.bin",
        "Model.BIN",
        " model .bin",
        "-rf",
        "%2e%2e",
        "$HOME",
    ],
)
def test_names_are_kept_as_they_are(name, server, store):
    assert contents(store, artifact(server, name)) == CONTENT


@pytest.mark.parametrize("name", ["x" * 201, "é" * 101, "\ud800.bin"])
def test_a_name_that_no_file_can_have_is_refused(name):
    with pytest.raises(InvalidCard, match="is not allowed"):
        File(name)


@pytest.mark.parametrize(
    "names",
    [
        ("model.bin", "MODEL.bin"),
        ("straße.bin", "STRASSE.bin"),
        ("modèle.bin", unicodedata.normalize("NFD", "modèle.bin")),
        ("MODÈLE.bin", unicodedata.normalize("NFD", "modèle.bin")),
        ("model/weights.bin", "Model"),
    ],
    ids=["case", "folded", "composed", "both", "folder"],
)
def test_names_that_some_system_takes_for_one_are_refused(names):
    with pytest.raises(InvalidCard, match="more than once"):
        Artifact("acme", {}, [File(name) for name in names])


NO_UTF8 = "lat\udce9"
"""A folder's name in Latin-1, or in UTF-8 where Python reads ASCII."""


def test_a_cache_that_is_no_utf8_is_named_before_anything_is_fetched(server, tmp_path):
    store = Store(tmp_path / NO_UTF8)
    with pytest.raises(InvalidWeights, match="udce9', which is not UTF-8; rename it"):
        store.folder(artifact(server), plain)

    assert not server.requests


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="no such name there")
def test_a_file_in_a_folder_that_is_no_utf8_is_named(acme, tmp_path):
    folder = tmp_path / NO_UTF8
    folder.mkdir()
    (folder / "weights.json").write_bytes(acme.WEIGHTS.read_bytes())
    beside = {"format": "acme", "graphs": {"main": "weights.json"}}
    card = acme.card().to_json() | {"artifacts": [beside]}
    (folder / "card.json").write_text(json.dumps(card), "utf-8")

    for path in (folder, folder / "weights.json"):
        with pytest.raises(InvalidWeights, match=r"udce9.*', which is not UTF-8"):
            AutoModel.from_pretrained(path)


def test_a_card_whose_source_no_file_can_be_leaves_the_others(
    acme, tmp_path, monkeypatch, caplog
):
    artifact = {"format": "acme", "graphs": {"main": "weights.json"}}
    artifact["files"] = [{"name": "weights.json", "sources": ["\ud800.json"]}]
    wrong = acme.card().to_json() | {"id": "a", "artifacts": [artifact]}
    (tmp_path / "a.json").write_text(json.dumps(wrong), "utf-8")
    right = json.dumps(acme.card().to_json() | {"id": "b"})
    (tmp_path / "b.json").write_text(right, "utf-8")
    monkeypatch.setenv("INFERENCE_MODELS_CARDS", str(tmp_path))

    assert "b" in AutoModel.models()
    assert "a card is left out: the sources of 'weights.json' cannot be" in caplog.text
    with pytest.raises(InvalidCard, match="set PYTHONUTF8=1 if they are right"):
        AutoModel.explain("a")


# What is another user's


def refuse(path, *_):
    raise PermissionError(errno.EACCES, "Permission denied", str(path))


def test_a_file_that_may_not_be_read_is_not_called_damaged(acme, tmp_path, monkeypatch):
    path = tmp_path / "weights.json"
    path.write_bytes(acme.WEIGHTS.read_bytes())
    monkeypatch.setattr(os, "access", lambda path, mode: False)

    with pytest.raises(InvalidWeights, match=r"weights.json' may not be read by this"):
        AutoModel.from_pretrained(path)


def test_a_folder_that_may_not_be_read_is_named(acme, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "iterdir", refuse)

    with pytest.raises(InvalidCard, match=r"cannot be read: .*Permission denied"):
        AutoModel.from_pretrained(tmp_path)


# Home


@pytest.mark.skipif(os.name == "nt", reason="Windows has no users' database")
@pytest.mark.parametrize("named", ["~/cache", "~nobody-here/cache", None])
def test_without_a_home_it_says_what_to_set(named, monkeypatch):
    import pwd

    def unknown(_):
        raise KeyError("no such user")

    for name in ("HOME", "XDG_CACHE_HOME", "INFERENCE_MODELS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    if named:
        monkeypatch.setenv("INFERENCE_MODELS_CACHE", named)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)
    if sys.platform == "darwin" and named is None:
        pytest.skip("macOS has another way to find it")

    with pytest.raises(DownloadFailed, match="set INFERENCE_MODELS_CACHE to an abs"):
        cache_root()


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps folders that are in use")
def test_a_working_directory_that_is_gone_is_no_place_for_a_cache(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("INFERENCE_MODELS_CACHE", "relative")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()

    with pytest.raises(DownloadFailed, match="CACHE to an absolute path"):
        cache_root()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no users' database")
def test_without_home_in_the_environment_the_users_own_is_found(monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("INFERENCE_MODELS_CACHE")

    assert cache_root().is_absolute()


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("file://wsl.localhost/Ubuntu/m.onnx", r"\\wsl.localhost\Ubuntu\m.onnx"),
        ("file:///C:/models/a%20b.onnx", r"C:\models\a b.onnx"),
    ],
)
def test_a_file_of_a_windows_share_is_found_on_its_host(source, path, monkeypatch):
    nturl2path = pytest.importorskip("nturl2path")
    monkeypatch.setattr("urllib.request.url2pathname", nturl2path.url2pathname)
    monkeypatch.setattr(sources, "os", SimpleNamespace(name="nt"))

    assert str(sources.local_path(source)) == path
