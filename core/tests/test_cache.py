"""What lies in the cache: shown, verified, removed, and carried to another machine."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import time
from pathlib import Path

import attrs
import pytest

from inference_models import (
    Artifact,
    File,
    HashMismatch,
    InferenceModelsError,
    InvalidOption,
    InvalidWeights,
    ModelCard,
)
from inference_models.download import archive, cache
from inference_models.download.answers import content_of as content_of_card
from inference_models.download.answers import imported_name
from inference_models.download.store import Store

from .contents import content_of, noise
from .faulty_server import FaultyServer, ranged
from .test_cli import cli

CONTENTS = {name: noise(50_000, name) for name in "abc"}


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def server():
    with FaultyServer() as running:
        for name, content in CONTENTS.items():
            running.gives(f"/{name}.bin", ranged(content))
        yield running


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache")


def plain(source):
    return source, {}


def artifact(server, *names, **facts):
    files = [
        File(f"{n}.bin", [server.url(f"/{n}.bin")], sha256=sha256(CONTENTS[n]))
        for n in names
    ]
    return Artifact("acme", {"main": files[0].name}, files, **facts)


def used(store, folder, date):
    os.utime(folder.with_suffix(".json"), (date, date))


def derived(store, name="d" * 64, model="acme-colors"):
    """A folder as a backend derives it."""
    folder = store.root / "derived" / name
    folder.mkdir(parents=True)
    (folder / "model.acme").write_bytes(b"derived")
    artifact = Artifact("acme", {}, [File("model.acme", size=7)], batch=(1, 2, 4))
    data = {"artifact": attrs.asdict(artifact), "card": {"id": model}}
    (folder / "artifact.json").write_text(json.dumps(data))
    return folder


def names(store):
    return [kept.names for kept in cache.inventory(store)]


# Listed, verified, removed


def test_what_was_used_last_is_listed_first(server, store):
    old = store.folder(artifact(server, "a"), plain)
    store.folder(artifact(server, "b", "c"), plain)
    used(store, old, 1000)

    assert names(store) == [("b.bin", "c.bin"), ("a.bin",)]
    assert [kept.size for kept in cache.inventory(store)] == [100_000, 50_000]


def test_loading_counts_as_use(server, store):
    folder = store.folder(artifact(server, "a"), plain)
    used(store, folder, 1000)
    before = time.time() - 60
    Store(store.root).folder(artifact(server, "a"), plain)

    assert cache.inventory(store)[0].used > before


def test_what_was_derived_is_listed_with_its_model(store):
    derived(store)
    (kept,) = cache.inventory(store)

    assert (kept.kind, kept.model) == ("derived", "acme-colors")
    assert kept.form == "acme, fp32, batches of [1, 2, 4]"


@pytest.mark.parametrize("look", [cache.inventory, cache.size])
def test_what_is_removed_meanwhile_is_passed_over(look, server, store, monkeypatch):
    folder = store.folder(artifact(server, "a"), plain)
    listed = os.scandir

    def scandir(path):
        if str(path) == str(folder):
            shutil.rmtree(folder)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    look(store)

    assert not folder.exists()


def test_a_file_under_two_names_counts_once(server, store):
    store.folder(artifact(server, "a"), plain)
    store.folder(artifact(server, "a", "b"), plain)

    assert 100_000 <= cache.size(store) < 110_000


def test_an_empty_cache_is_whole(store):
    assert cache.inventory(store) == cache.verify(store) == cache.prune(store, 0) == []


def test_a_whole_cache_passes(server, store):
    store.folder(artifact(server, "a", "b"), plain)
    derived(store)

    assert cache.verify(store) == []
    assert len(cache.inventory(store)) == 2


def damaged(path):
    """Other bytes of the same size and date, as a failing disk gives them."""
    status = path.stat()
    with path.open("r+b") as file:
        file.write(b"\0" * 9)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("copied", [False, True], ids=["link", "copy"])
def test_damage_that_keeps_size_and_date_is_found_and_heals(
    copied, server, store, monkeypatch
):
    def refuse(*_, **__):
        raise OSError("no links here")

    if copied:
        monkeypatch.setattr(os, "link", refuse)
    wanted = artifact(server, "a")
    damaged(store.folder(wanted, plain) / "a.bin")
    lines = cache.verify(store)

    assert lines[-1].endswith("(a.bin) was damaged")
    assert cache.inventory(store) == []
    again = Store(store.root).folder(wanted, plain)
    assert content_of(again / "a.bin") == CONTENTS["a"]


LONG = {"format": "acme", "graphs": {}, "files": [{"name": "x" * 5000}]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"artifact": {"files": [{"name": "x"}]}}',
        json.dumps({"artifact": LONG}),
    ],
)
def test_a_derived_folder_that_is_not_whole_is_removed(text, store):
    folder = derived(store)
    (folder / "artifact.json").write_text(text)

    assert len(cache.verify(store)) == 1
    assert not folder.exists()


def test_a_bundle_of_a_name_that_no_file_has_is_removed(server, store):
    bundle = store.folder(artifact(server, "a"), plain)
    manifest = bundle.with_suffix(".json")
    manifest.write_text(manifest.read_text().replace("a.bin", "x" * 5000))
    cache.verify(store)

    assert [kept for kept in cache.inventory(store) if kept.names] == []


@pytest.mark.parametrize("digest", ["../../precious", ""])
def test_a_manifest_that_was_edited_removes_nothing_of_others(
    digest, server, store, tmp_path
):
    store.folder(artifact(server, "a"), plain)
    bundle = store.folder(artifact(server, "b"), plain)
    precious = tmp_path / "precious"
    precious.mkdir()
    laid = {"version": 1, "files": {"b.bin": [digest, 1, 1]}}
    bundle.with_suffix(".json").write_text(json.dumps(laid))
    cache.verify(store)
    cache.delete(store, [kept for kept in cache.inventory(store) if not kept.digests])

    assert precious.is_dir()
    assert store.blob(sha256(CONTENTS["a"])).is_file()


def test_removal_keeps_what_others_are_made_of(server, store):
    one = store.folder(artifact(server, "a"), plain)
    other = store.folder(artifact(server, "a", "b"), plain)
    cache.delete(store, cache.matching(store, other.name))

    assert names(store) == [("a.bin",)]
    assert content_of(one / "a.bin") == CONTENTS["a"]
    assert [path.name for path in (store.root / "blobs").iterdir()] == [
        sha256(CONTENTS["a"])
    ]


def test_what_was_used_longest_ago_is_pruned_first(server, store):
    for date, name in enumerate("bac"):
        used(store, store.folder(artifact(server, name), plain), 1000 + date)
    gone = cache.prune(store, 110_000)

    assert [kept.names for kept in gone] == [("b.bin",)]
    assert cache.size(store) <= 110_000


def failing_with(number):
    def rmtree(path, **_):
        raise OSError(number, os.strerror(number), str(path))

    return rmtree


def test_what_cannot_be_removed_is_not_counted_as_removed(server, store, monkeypatch):
    store.folder(artifact(server, "a"), plain)
    monkeypatch.setattr(cache, "remove", lambda path: None)
    monkeypatch.setattr(shutil, "rmtree", failing_with(errno.EACCES))
    with pytest.raises(PermissionError):
        cache.prune(store, 0)


def test_what_is_in_use_keeps_nothing_else_from_being_removed(
    server, store, monkeypatch
):
    for name in ("a", "b"):
        store.folder(artifact(server, name), plain)
    oldest = cache.inventory(store)[-1]
    delete = cache.delete

    def refuse(store, gone):
        if gone == [oldest]:
            raise PermissionError(errno.EACCES, "Access is denied")
        delete(store, gone)

    monkeypatch.setattr(cache, "delete", refuse)
    with pytest.raises(PermissionError):
        cache.prune(store, 0)

    assert cache.inventory(store) == [oldest]
    assert cache.prune(store, 10**9) == []


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTEMPTY])
def test_what_another_process_lays_again_is_no_fault(
    number, server, store, monkeypatch
):
    store.folder(artifact(server, "a"), plain)
    monkeypatch.setattr(cache, "remove", lambda path: None)
    monkeypatch.setattr(shutil, "rmtree", failing_with(number))

    assert len(cache.prune(store, 0)) == 1


def test_pruning_removes_what_was_abandoned(server, store):
    store.folder(artifact(server, "a"), plain)
    for place in ("partial", "blobs"):
        for name, age in (("old", 90_000), ("new", 0)):
            path = store.root / place / name
            path.write_bytes(b"half")
            os.utime(path, (time.time() - age,) * 2)
    cache.prune(store, 10**9)

    assert [path.name for path in (store.root / "partial").iterdir()] == ["new"]
    assert {path.name for path in (store.root / "blobs").iterdir()} == {
        "new",
        sha256(CONTENTS["a"]),
    }


# Carried


def weak(server, **facts):
    """A file whose card has less than its full hash."""
    facts = {"md5": hashlib.md5(CONTENTS["c"]).hexdigest(), **facts}
    return File("c.bin", [server.url("/c.bin")], **facts)


def members(store, *files, digest=None):
    """What an archive holds of such files: a card, records, and bytes."""
    own = Artifact("acme", {"main": files[0].name}, files)
    card = ModelCard("acme-colors", "acme-colors", "classification", (own,), ("red",))
    digest = digest or sha256(CONTENTS["c"])
    return {
        f"imported/{imported_name('cards', card.id)}": content_of_card(card),
        **{f"records/{store.record(file).name}": digest.encode() for file in files},
    }


@pytest.fixture
def packed(server, store, tmp_path):
    """An archive of two bundles and of what was derived from one."""
    folder = store.folder(artifact(server, "a", "b"), plain)
    built = derived(store)
    files = {f"blobs/{sha256(CONTENTS[n])}": folder / f"{n}.bin" for n in "ab"}
    files |= members(store, weak(server))
    files[f"blobs/{sha256(CONTENTS['c'])}"] = CONTENTS["c"]
    files |= {
        f"derived/{built.name}/{path.name}": path for path in sorted(built.iterdir())
    }
    path = tmp_path / "model.tar"
    archive.export(path, files)
    return path


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A cache without a network."""
    monkeypatch.setenv("INFERENCE_MODELS_OFFLINE", "1")
    return Store(tmp_path / "elsewhere")


def files(store):
    found = [path for path in store.root.rglob("*") if path.is_file()]
    return sorted(path.relative_to(store.root).as_posix() for path in found)


def test_what_was_exported_serves_where_there_is_no_network(packed, server, elsewhere):
    left_out = archive.take(packed, elsewhere)
    folder = elsewhere.folder(artifact(server, "a", "b"), plain)

    assert left_out == [f"derived/{'d' * 64}"]
    assert content_of(folder / "b.bin") == CONTENTS["b"]
    assert not (elsewhere.root / "derived").exists()
    assert list((elsewhere.root / "partial").iterdir()) == []


def test_what_was_derived_is_taken_where_it_is_asked_for(packed, elsewhere):
    assert archive.take(packed, elsewhere, derived=True) == []
    assert "acme-colors" in {kept.model for kept in cache.inventory(elsewhere)}


def test_what_a_card_has_a_weaker_hash_of_is_known_by_its_record(
    packed, server, elsewhere
):
    archive.take(packed, elsewhere)
    folder = elsewhere.folder(
        Artifact("acme", {"main": "c.bin"}, [weak(server)]), plain
    )

    assert content_of(folder / "c.bin") == CONTENTS["c"]


@pytest.mark.parametrize("facts", [{"size": 4}, {"md5": "0" * 32}, {"sha256": "0" * 8}])
def test_a_record_of_other_bytes_than_the_cards_is_refused(
    facts, server, store, tmp_path
):
    files = members(store, weak(server, **facts))
    files[f"blobs/{sha256(CONTENTS['c'])}"] = CONTENTS["c"]
    archive.export(tmp_path / "model.tar", files)
    with pytest.raises(HashMismatch, match=r"'c\.bin'"):
        archive.take(tmp_path / "model.tar", store)

    assert not (store.root / "records").exists()


def test_a_record_of_a_file_of_no_card_is_refused(server, store, tmp_path):
    files = members(store, weak(server))
    archive.export(
        tmp_path / "model.tar", {n: c for n, c in files.items() if "records" in n}
    )
    with pytest.raises(InvalidWeights, match="has no card with the file of 'records/"):
        archive.take(tmp_path / "model.tar", store)


def test_a_record_of_what_is_not_in_the_archive_is_left_out(server, store, tmp_path):
    archive.export(tmp_path / "model.tar", members(store, weak(server)))
    archive.take(tmp_path / "model.tar", store)

    assert not (store.root / "records").exists()


def test_a_record_of_what_has_no_hash_is_left_out_with_what_to_type(
    server, store, tmp_path, caplog
):
    files = members(store, weak(server, md5=None))
    files[f"blobs/{sha256(CONTENTS['c'])}"] = CONTENTS["c"]
    archive.export(tmp_path / "model.tar", files)
    archive.take(tmp_path / "model.tar", store)

    assert not (store.root / "records").exists()
    assert "'c.bin' has no hash to check it by; load it with sha256=" in caplog.text


def test_an_import_replaces_no_record_and_nothing_derived(packed, server, elsewhere):
    kept = derived(elsewhere, model="own")
    record = elsewhere.record(weak(server))
    record.parent.mkdir(parents=True)
    record.write_text("ab" * 32)
    archive.take(packed, elsewhere, derived=True)

    assert record.read_text() == "ab" * 32
    assert json.loads((kept / "artifact.json").read_text())["card"]["id"] == "own"


def test_an_import_leaves_what_is_sound_in_its_place(packed, elsewhere):
    archive.take(packed, elsewhere)
    blob = elsewhere.blob(sha256(CONTENTS["a"]))
    before = blob.stat().st_ino
    archive.take(packed, elsewhere)

    assert blob.stat().st_ino == before


def test_an_import_heals_what_is_damaged(packed, elsewhere):
    archive.take(packed, elsewhere)
    damaged(elsewhere.blob(sha256(CONTENTS["a"])))
    archive.take(packed, elsewhere)

    assert cache.verify(elsewhere) == []


def test_a_damaged_file_is_not_exported(server, store, tmp_path):
    path = store.folder(artifact(server, "a"), plain) / "a.bin"
    damaged(path)
    with pytest.raises(HashMismatch, match="cache verify removes it"):
        archive.export(tmp_path / "x.tar", {f"blobs/{sha256(CONTENTS['a'])}": path})

    assert [p.name for p in tmp_path.iterdir()] == ["cache"]


def test_an_archive_that_cannot_be_written_says_so(tmp_path):
    with pytest.raises(InvalidOption, match="cannot be written"):
        archive.export(tmp_path / "none" / "x.tar", {})


@pytest.mark.parametrize("name", ["folder", "pipe", ""])
def test_an_archive_replaces_nothing_but_a_file(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidOption, match="is no file; name the one to be written"):
        archive.export(Path(name), {})

    assert (tmp_path / "pipe").is_fifo()


BLOB = b"weights"
NAME = f"blobs/{sha256(BLOB)}"
FACTS = {"size": len(BLOB), "sha256": sha256(BLOB)}


def member(name=NAME, content=BLOB, **changes):
    entry = tarfile.TarInfo(name)
    for key, value in changes.items():
        setattr(entry, key, value)
    content = content if entry.isreg() else b""
    entry.size = len(content)
    return entry, content


def manifest(listed, **changes):
    data = {"format": "inference-models", "version": 1, "files": listed} | changes
    return member("manifest.json", json.dumps(data).encode())


def listing(name):
    """A manifest that lists this name, and a member that has it."""
    return [manifest({name: FACTS}), member(name)]


def typed(kind, linkname="/etc/passwd"):
    return [manifest({NAME: FACTS}), member(type=kind, linkname=linkname)]


DERIVED = f"derived/{'d' * 64}"
HOSTILE = {
    "nothing": [],
    "no manifest": [member()],
    "manifest last": [member(), manifest({NAME: FACTS})],
    "manifest is a link": [member("manifest.json", type=tarfile.SYMTYPE)],
    "manifest is no JSON": [member("manifest.json", b"{")],
    "manifest is a list": [member("manifest.json", b"[]")],
    "manifest of many megabytes": [
        manifest({NAME: FACTS}, notes=" " * 16_000_000),
        member(),
    ],
    "manifest nests deeply": [member("manifest.json", b"[" * 99_999)],
    "manifest of the future": [manifest({NAME: FACTS}, version=2), member()],
    "manifest of another": [manifest({NAME: FACTS}, format="zip"), member()],
    "manifest without sizes": [manifest({NAME: {"sha256": "0"}}), member()],
    "a negative size": [manifest({NAME: FACTS | {"size": -1}}), member()],
    "a size in words": [manifest({NAME: FACTS | {"size": "7"}}), member()],
    "an exabyte": [manifest({NAME: FACTS | {"size": 10**18}}), member()],
    "more than there is room for": [
        manifest({NAME: FACTS | {"size": 10**15}}),
        member(),
    ],
    "too many": [manifest({f"blobs/{n:064x}": FACTS for n in range(100_001)})],
    "a name that is not listed": [manifest({}), member()],
    "a listed name that is missing": [manifest({NAME: FACTS})],
    "the same name twice": [manifest({NAME: FACTS}), member(), member()],
    "names that differ in case": [
        manifest({f"{DERIVED}/a": FACTS, f"{DERIVED}/A": FACTS}),
        member(f"{DERIVED}/a"),
        member(f"{DERIVED}/A"),
    ],
    "a file in a file's place": [
        manifest({f"{DERIVED}/a": FACTS, f"{DERIVED}/a/b": FACTS}),
        member(f"{DERIVED}/a"),
        member(f"{DERIVED}/a/b"),
    ],
    "other bytes": [manifest({NAME: FACTS}), member(content=b"wEights")],
    "fewer bytes": [manifest({NAME: FACTS}), member(content=b"w")],
    "more bytes": [manifest({NAME: FACTS}), member(content=BLOB * 9)],
    "a blob under another's name": listing(f"blobs/{'0' * 64}"),
    "up": listing(f"{DERIVED}/../../../up"),
    "up at once": listing("../up"),
    "absolute": listing("/tmp/absolute"),
    "a drive": listing("C:/drive"),
    "a drive below": listing(f"{DERIVED}/C:/drive"),
    "a share": listing("//host/share"),
    "backslashes": listing(f"{DERIVED}\\..\\up"),
    "backslashes below": listing(f"{DERIVED}/..\\up"),
    "a control character": listing(f"{DERIVED}/a\x01b"),
    "a device's name": listing(f"{DERIVED}/con"),
    "a long name": listing(f"{DERIVED}/{'x' * 300}"),
    "a lock": listing(f"locks/{'0' * 64}"),
    "a bundle": listing(f"bundles/{'0' * 64}/model.bin"),
    "a link": typed(tarfile.SYMTYPE),
    "a link up": typed(tarfile.SYMTYPE, "../../up"),
    "a hard link": typed(tarfile.LNKTYPE),
    "a character device": typed(tarfile.CHRTYPE),
    "a block device": typed(tarfile.BLKTYPE),
    "a pipe": typed(tarfile.FIFOTYPE),
    "a folder": typed(tarfile.DIRTYPE),
    "a contiguous file": typed(tarfile.CONTTYPE),
    "a sparse file": typed(tarfile.GNUTYPE_SPARSE),
    "a map of holes in words": [
        manifest({NAME: FACTS}),
        member(pax_headers={"GNU.sparse.map": "x"}),
    ],
    "another path in its header": [
        manifest({NAME: FACTS}),
        member(pax_headers={"path": "../../up"}),
    ],
}


def packed_of(members, mode="w"):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode, format=tarfile.PAX_FORMAT) as tar:
        for entry, content in members:
            tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def test_headers_that_would_take_for_ever_are_refused(store, tmp_path):
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 160_000
    content = header.tobuf(tarfile.USTAR_FORMAT) + b"1" * 160_256

    error = check_refused(content, store, tmp_path)

    assert str(error) == "the archive has a header of 160000 bytes, as no name needs"


def test_headers_of_headers_without_end_are_refused(store, tmp_path):
    header = tarfile.TarInfo("x")
    header.type = tarfile.XHDTYPE
    content = header.tobuf(tarfile.USTAR_FORMAT) * 2000

    assert "hostile.tar' is damaged" in str(check_refused(content, store, tmp_path))


def check_refused(content, store, tmp_path):
    path = tmp_path / "hostile.tar"
    path.write_bytes(content)
    with pytest.raises(InferenceModelsError) as caught:
        archive.take(path, store, derived=True)

    assert files(store) == []
    assert {p.name for p in tmp_path.iterdir()} <= {"hostile.tar", "cache"}
    return caught.value


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_refused_whole(case, store, tmp_path):
    check_refused(packed_of(HOSTILE[case]), store, tmp_path)


def test_an_archive_that_lacks_a_file_says_so(store, tmp_path):
    content = packed_of(HOSTILE["a listed name that is missing"])

    assert "the archive lacks 'blobs/" in str(check_refused(content, store, tmp_path))


GOOD = [manifest({NAME: FACTS}), member()]


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_archive_is_refused(mode, store, tmp_path):
    error = check_refused(packed_of(GOOD, mode), store, tmp_path)

    assert isinstance(error, InvalidWeights)


@pytest.mark.parametrize("end", [0, 1, 300, 600, 1100, 2000])
def test_an_archive_that_was_cut_is_refused(end, store, tmp_path):
    check_refused(packed_of(GOOD)[:end], store, tmp_path)


def test_something_else_is_refused(store, tmp_path):
    check_refused(b"PK\x03\x04" + bytes(2000), store, tmp_path)


@pytest.mark.parametrize("changes", [{"mode": 0o6777}, {"uid": 0, "uname": "root"}])
def test_modes_and_owners_are_not_taken(changes, store, tmp_path):
    path = tmp_path / "x.tar"
    path.write_bytes(packed_of([GOOD[0], member(**changes)]) + b"trailing junk")
    archive.take(path, store)

    assert files(store) == [NAME]
    assert store.blob(sha256(BLOB)).stat().st_mode & 0o7111 == 0


# The command line


@pytest.fixture
def command(acme_site, server, tmp_path):
    """Runs the command line with a card whose weights the server has."""
    pytest.importorskip("typer")
    gain = b'{"gain": [1, 2, 3]}'
    server.gives("/gain.json", ranged(gain))
    file = File("gain.json", [server.url("/gain.json")], len(gain), sha256(gain))
    made = Artifact("acme", {"main": "gain.json"}, [file])
    card = ModelCard("far", "acme-colors", "classification", [made], ("r", "g", "b"))
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "far.json").write_text(json.dumps(card.to_json()))

    def run(*arguments, code=0, home="cache", **environment):
        environment["INFERENCE_MODELS_CACHE"] = str(tmp_path / home)
        environment["INFERENCE_MODELS_CARDS"] = str(tmp_path / "cards")
        ended = cli(*map(str, arguments), site=acme_site, **environment)
        assert ended.returncode == code, ended.stderr
        assert "Traceback" not in ended.stderr
        return ended.stdout + ended.stderr

    return run


def test_a_model_is_downloaded_and_carried_to_another_machine(
    command, server, tmp_path
):
    assert str(tmp_path / "cache" / "bundles") in command("download", "far")
    assert "bundle   far" in command("cache", "ls")
    assert "whole bundles and derived artifacts: 1" in command("cache", "verify")
    assert "wrote " in command("cache", "export", tmp_path / "far.tar", "far")
    offline = {"home": "other", "INFERENCE_MODELS_OFFLINE": "1"}
    (tmp_path / "cards" / "far.json").unlink()
    assert "took " in command("cache", "import", tmp_path / "far.tar", **offline)
    assert "bundle   far" in command("cache", "ls", **offline)
    assert "far: " in command("download", "far", **offline)
    assert len(server.requests) == 1


def test_what_was_imported_can_be_removed_before_it_is_loaded(command, tmp_path):
    command("download", "far")
    command("cache", "export", tmp_path / "far.tar", "far")
    command("cache", "import", tmp_path / "far.tar", home="other")

    command("cache", "rm", "far", home="other")
    assert not any((tmp_path / "other" / "blobs").iterdir())


def test_damage_is_told_and_removed(command, tmp_path):
    command("download", "far")
    (blob,) = (tmp_path / "cache" / "blobs").iterdir()
    damaged(blob)

    assert "was damaged and is removed" in command("cache", "verify", code=1)
    assert "artifacts: 0" in command("cache", "verify")


@pytest.mark.parametrize("by_hash", [False, True], ids=["id", "hash"])
def test_a_model_is_removed(by_hash, command, tmp_path):
    command("download", "far")
    (blob,) = (tmp_path / "cache" / "blobs").iterdir()

    command("cache", "rm", blob.name[:12] if by_hash else "far")
    assert not blob.exists()


def test_what_no_id_is_known_of_is_removed_by_the_name_that_is_listed(
    command, tmp_path
):
    command("download", "far")
    (tmp_path / "cards" / "far.json").unlink()

    assert command("cache", "ls").splitlines()[0].endswith("bundle   gain.json")
    command("cache", "rm", "gain.json")
    assert not any((tmp_path / "cache" / "blobs").iterdir())


def test_what_was_derived_is_removed_by_what_is_listed(command, tmp_path):
    command("download", "far")
    folder = tmp_path / "cache" / "derived" / ("0" * 64)
    folder.mkdir(parents=True)
    artifact = {"format": "onnx", "precision": "fp32"}
    manifest = {"card": {"id": "gone"}, "artifact": artifact}
    (folder / "artifact.json").write_text(json.dumps(manifest))

    assert "derived  gone (onnx, fp32)" in command("cache", "ls")
    command("cache", "rm", "gone (onnx, fp32)")
    assert not folder.exists()
    assert "bundle   far" in command("cache", "ls")


def test_weights_that_lie_in_a_folder_are_not_carried_and_this_is_told(
    command, tmp_path
):
    shown = command("cache", "export", tmp_path / "x.tar", "acme-colors", code=1)

    assert re.search(r"lie in '.*', and not in the cache; copy that folder", shown)


def test_the_cache_is_pruned_to_a_size(command):
    command("download", "far")

    assert "artifacts: 0" in command("cache", "prune", "--max-size", "1.5MB")
    assert "artifacts: 1" in command("cache", "prune", "--max-size", "1")


def test_what_cannot_be_removed_is_said_in_a_sentence(command, tmp_path):
    (tmp_path / "cache" / "bundles" / "00000000.json").mkdir(parents=True)

    assert "cannot be used: " in command("cache", "rm", "00000000", code=1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["cache", "rm", "far"], "ModelNotFound: nothing of 'far' is in the cache"),
        (["cache", "rm", "abcdef0123"], "nothing of 'abcdef0123' is in the cache"),
        (["cache", "export", "x.tar", "far"], "weights of 'far' are not in the cache"),
        (["cache", "import", "none.tar"], "InvalidOption: there is no file 'none.tar'"),
        (["cache", "prune", "--max-size", "big"], "'big' is not a number of bytes"),
        (
            ["download", "far", "--format", "onnx"],
            "no weights in format 'onnx'; it has",
        ),
        (["download", "far", "--device", "cuda"], "nothing here can run 'far'"),
        (
            ["download", "far", "--format", "acme", "--device", "cuda"],
            "--format acme is for another machine",
        ),
        (["download", "fur"], "ModelNotFound: no model 'fur' is known"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(command, arguments, sentence):
    assert sentence in command(*arguments, code=1)


def test_a_model_that_adapts_itself_is_not_downloaded_without_end(command, tmp_path):
    path = tmp_path / "cards" / "far.json"
    card = json.loads(path.read_text())
    card["artifacts"][0]["base"] = "far"
    path.write_text(json.dumps(card))

    assert "does one of them adapt itself" in command("download", "far", code=1)


def test_offline_a_download_names_what_is_missing(command):
    shown = command("download", "far", code=1, INFERENCE_MODELS_OFFLINE="1")

    assert "Offline: 'gain.json' is not in the cache" in shown


def test_a_format_is_fetched_for_another_machine(command):
    assert "bundles" in command("download", "far", "--format", "acme")


@pytest.mark.parametrize(
    ("precision", "name"), [("fp32", "b.json"), ("fp16", "c.json"), ("bf16", "b.json")]
)
def test_a_format_is_fetched_as_it_can_be_used_and_in_the_precision_that_is_named(
    command, server, tmp_path, precision, name
):
    artifacts = []
    for letter, needs in {"a": {"unsupported": "too old"}, "b": {}, "c": {}}.items():
        content, path = f'{{"gain": "{letter}"}}'.encode(), f"/{letter}.json"
        server.gives(path, ranged(content))
        file = File(path[1:], [server.url(path)], sha256=sha256(content))
        kind = "fp16" if letter == "c" else "fp32"
        made = Artifact("acme", {"main": file.name}, [file], kind, needs=needs)
        artifacts.append(made)
    card = ModelCard("three", "acme-colors", "classification", artifacts)
    (tmp_path / "cards" / "three.json").write_text(json.dumps(card.to_json()))
    command("download", "three", "--format", "acme", "--quantization", precision)

    assert [path for path, _ in server.requests] == [f"/{name}"]
