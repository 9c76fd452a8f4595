"""The cache after a crash, damage and a crowd: it heals, or was never harmed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from textwrap import dedent

import filelock
import pytest

from inference_models import Artifact, DownloadFailed, File, Offline
from inference_models.download import locks
from inference_models.download import store as store_module
from inference_models.download.limits import Limits
from inference_models.download.store import Store

from . import faulty_server as faulty
from .contents import content_of, noise
from .distributions import others, python
from .faulty_server import FaultyServer, ranged

CONTENTS = [noise(200_000, seed) for seed in range(3)]
CONTENT, SIZE = CONTENTS[0], 200_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
LIMITS = Limits(pause=0.01, idle=5.0)
LINK = os.link


@pytest.fixture
def server():
    with FaultyServer() as running:
        for number, content in enumerate(CONTENTS):
            running.gives(f"/{number}.bin", ranged(content))
        yield running


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache", limits=LIMITS)


def artifact(server, number=1, weak=False):
    files = []
    for n, content in enumerate(CONTENTS[:number]):
        full = {"sha256": hashlib.sha256(content).hexdigest()}
        md5 = {"md5": hashlib.md5(content).hexdigest()}
        url = server.url(f"/{n}.bin")
        files.append(File(f"{n}.bin", [url], len(content), **(md5 if weak else full)))
    return Artifact("acme", {"main": "0.bin"}, files)


def plain(source):
    return source, {}


def anew(store):
    """A store as the next process has it, which remembers nothing."""
    return Store(store.root, limits=LIMITS)


def contents(store, wanted):
    folder = anew(store).folder(wanted, plain)
    return [content_of(folder / file.name) for file in wanted.files]


def blob(store):
    return store.blob(SHA256)


def entry(store):
    (path,) = (store.root / "bundles").glob("*/0.bin")
    return path


def manifest(store):
    (path,) = (store.root / "bundles").glob("*.json")
    return path


# Killed

FETCH = """
    import json, os, signal, sys

    class Killing:
        calls = 0

        def __init__(self, original):
            self.original = original

        def __call__(self, *arguments, **keywords):
            if Killing.calls == int(os.environ.get("KILL_AT", -1)):
                os.kill(os.getpid(), signal.SIGKILL)
            Killing.calls += 1
            return self.original(*arguments, **keywords)

    # Python 3.10's pathlib takes them as it is imported, as attributes of a class.
    for name in ("fsync", "replace", "link"):
        setattr(os, name, Killing(getattr(os, name)))

    from inference_models.card import Artifact, structure
    from inference_models.download.store import Store

    # Whoever is started in the background has Ctrl-C switched off.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if "PIECE" in os.environ:
        from inference_models.download import ranges

        ranges._PIECE = ranges._LARGE = int(os.environ["PIECE"])
        ranges._FAST, ranges._WINDOW = float("inf"), 0.0
    artifact = structure(Artifact, json.loads(os.environ["ARTIFACT"]))
    folder = Store().folder(artifact, lambda source: (source, {}))
    print(*[(folder / file.name).stat().st_size for file in artifact.files])
"""


def as_json(wanted):
    import attrs

    return json.dumps(attrs.asdict(wanted))


def child(store, wanted, **environment):
    cache = {"INFERENCE_MODELS_CACHE": str(store.root), "ARTIFACT": as_json(wanted)}
    return python(FETCH, **cache, **environment)


def begun(store, wanted, **environment):
    """The same child, still running."""
    variables = (
        os.environ
        | environment
        | {
            "INFERENCE_MODELS_CACHE": str(store.root),
            "ARTIFACT": as_json(wanted),
            "INFERENCE_MODELS_DISABLED_PLUGINS": others(),
        }
    )
    command = [sys.executable, "-c", dedent(FETCH)]
    return subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def check_kill(store, wanted, boundary):
    ended = child(store, wanted, KILL_AT=str(boundary))
    assert ended.returncode == -signal.SIGKILL, ended.stderr

    for path in (store.root / "blobs").glob("*"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    assert contents(store, wanted) == CONTENTS[: len(wanted.files)]


no_kill = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")


@no_kill
@pytest.mark.parametrize("boundary", range(12))
def test_killed_before_any_write_is_final_the_next_run_works(boundary, server, store):
    check_kill(store, artifact(server, weak=True), boundary)


@no_kill
@pytest.mark.slow
@pytest.mark.parametrize("boundary", range(21))
def test_killed_with_three_files_the_next_run_works(boundary, server, store):
    check_kill(store, artifact(server, 3), boundary)


@no_kill
@pytest.mark.parametrize(("number", "weak", "kills"), [(1, True, 12), (3, False, 21)])
def test_no_boundary_is_left_out(number, weak, kills, server, store):
    """As many calls as kills above; it ends well where none is left."""
    ended = child(store, artifact(server, number, weak), KILL_AT=str(kills))

    assert ended.stdout.split() == [str(SIZE)] * number, ended.stderr


def half(gate):
    """Half of the file, and the rest once the gate opens."""

    def answer(server, connection, asked):
        facts = {"Content_Length": SIZE, "ETag": '"v1"'}
        connection.sendall(faulty.head(**facts) + CONTENT[: SIZE // 2])
        gate.wait(60)
        connection.sendall(CONTENT[SIZE // 2 :])

    return answer


@no_kill
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_stopped_in_the_middle_the_next_run_asks_for_the_rest(blow, server, store):
    gate = threading.Event()
    server.gives("/0.bin", half(gate), ranged(CONTENT))
    running = begun(store, artifact(server))
    while sum(p.stat().st_size for p in store.root.glob("partial/*")) < SIZE // 2:
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.01)
    running.send_signal(blow)
    running.communicate()
    gate.set()

    assert contents(store, artifact(server)) == [CONTENT]
    assert server.requests[-1].headers["range"] == f"bytes={SIZE // 2}-"
    assert list(store.root.glob("partial/*")) == []


def in_parts(gate):
    """The beginning, and parts; those of the second half once the gate opens."""
    facts = {"Accept_Ranges": "bytes"}
    first = faulty.stops(CONTENT, SIZE // 4, faulty.stall, **facts)

    def answer(server, connection, asked):
        part = faulty.asked_range(asked)
        if part is not None and part[0] >= SIZE // 2:
            gate.wait(60)
        chosen = first if part is None else ranged(CONTENT, **facts)
        chosen(server, connection, asked)

    return answer


@no_kill
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_stopped_while_parts_come_the_next_run_asks_for_the_rest(blow, server, store):
    gate = threading.Event()
    server.gives("/0.bin", in_parts(gate))
    running = begun(store, artifact(server), PIECE=str(SIZE // 8))
    while sum(p.stat().st_size for p in store.root.glob("partial/*")) < SIZE // 2:
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.01)
    running.send_signal(blow)
    running.communicate(timeout=30)
    gate.set()

    assert contents(store, artifact(server)) == [CONTENT]
    start = int(server.requests[-1].headers["range"].strip("bytes=-"))
    assert SIZE // 2 <= start < SIZE // 2 + SIZE // 8  # where the last whole part ends
    assert list(store.root.glob("partial/*")) == []


# Damaged


def truncated(path):
    with path.open("r+b") as file:
        file.truncate(SIZE // 2)


def overwritten(path):
    with path.open("r+b") as file:
        file.write(b"\0" * 99)
    os.utime(path, (1, 1))


def linked(path):
    target = path.with_name("elsewhere")
    target.write_bytes(b"\0" * SIZE)
    path.unlink()
    path.symlink_to(target)


def hard_linked(path):
    target = path.with_name("elsewhere")
    target.write_bytes(b"\0" * SIZE)
    os.utime(target, (1, 1))
    path.unlink()
    LINK(target, path)
    target.unlink()


def replaced_by_folder(path):
    if path.is_dir():
        return
    path.unlink()
    (path / "in it").mkdir(parents=True)


def removed(path):
    path.unlink()


DAMAGE = [
    truncated,
    overwritten,
    linked,
    hard_linked,
    replaced_by_folder,
    removed,
]


@pytest.mark.parametrize("how", DAMAGE, ids=lambda how: how.__name__)
@pytest.mark.parametrize("what", [blob, entry], ids=["blob", "bundle"])
@pytest.mark.parametrize("links", [True, False], ids=["links", "copies"])
def test_damage_heals(how, what, links, server, store, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no links here")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    contents(store, artifact(server))
    how(what(store))

    assert contents(store, artifact(server)) == [CONTENT]
    assert entry(store).is_file()
    assert not entry(store).is_symlink()


def test_a_damaged_file_is_reported_as_it_is_fetched_again(server, store, caplog):
    contents(store, artifact(server))
    truncated(blob(store))
    contents(store, artifact(server))

    assert "'0.bin' is damaged in the cache; fetching it again" in caplog.text
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"version": 2, "files": {}}', '{"version": 1}', "[" * 99_999],
    ids=["empty", "cut", "list", "future", "no files", "deep"],
)
def test_a_manifest_that_says_nothing_is_written_anew(text, server, store):
    contents(store, artifact(server))
    manifest(store).write_text(text)

    assert contents(store, artifact(server)) == [CONTENT]
    assert json.loads(manifest(store).read_text())["version"] == 1
    assert len(server.requests) == 1


@pytest.mark.parametrize("place", ["bundles", "locks", "partial"])
def test_a_part_of_the_cache_that_vanishes_is_made_anew(place, server, store):
    contents(store, artifact(server))
    shutil.rmtree(store.root / place, ignore_errors=True)

    assert contents(store, artifact(server)) == [CONTENT]
    assert len(server.requests) == 1


def test_a_folder_in_a_lock_files_place_does_no_harm(server, store):
    (store.root / "locks" / f"{SHA256}.lock").mkdir(parents=True)

    assert contents(store, artifact(server)) == [CONTENT]


def test_a_lock_file_that_was_left_does_no_harm(server, store):
    left = store.root / "locks" / f"{SHA256}.lock"
    left.parent.mkdir(parents=True)
    left.write_text("1")

    assert contents(store, artifact(server)) == [CONTENT]


def test_a_link_in_a_lock_files_place_empties_no_file(server, store, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("of another user")
    lock = store.root / "locks" / f"{SHA256}.lock"
    lock.parent.mkdir(parents=True)
    lock.symlink_to(precious)

    assert contents(store, artifact(server)) == [CONTENT]
    assert precious.read_text() == "of another user"


def test_the_cache_may_be_a_link_to_a_folder(server, store, tmp_path):
    (tmp_path / "disk").mkdir()
    store.root.symlink_to(tmp_path / "disk")

    assert contents(store, artifact(server)) == [CONTENT]


@pytest.mark.parametrize("copy", [shutil.copy2, shutil.copyfile])
def test_the_cache_may_be_moved(copy, server, store, tmp_path, monkeypatch):
    contents(store, artifact(server))
    shutil.copytree(store.root, tmp_path / "moved", copy_function=copy)
    shutil.rmtree(store.root)
    monkeypatch.setenv("INFERENCE_MODELS_OFFLINE", "1")

    assert contents(Store(tmp_path / "moved"), artifact(server)) == [CONTENT]


READ_ONLY = """
    import os, sys
    root = os.environ["INFERENCE_MODELS_CACHE"]

    def refuse(event, arguments):
        changes = event in ("os.mkdir", "os.rename", "os.link", "os.remove", "os.utime")
        if event == "open" and arguments[2] is not None:
            changes = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if changes and str(arguments[0]).startswith(root):
            number = int(os.environ.get("ERRNO", 30))
            raise OSError(number, f"{os.strerror(number)}: {event}")

    sys.addaudithook(refuse)
"""


def test_a_cache_that_cannot_be_written_serves_what_it_holds(server, store):
    contents(store, artifact(server))
    cache = {"INFERENCE_MODELS_CACHE": str(store.root)}
    ended = python(READ_ONLY + FETCH, **cache, ARTIFACT=as_json(artifact(server)))

    assert ended.stdout.strip() == str(SIZE), ended.stderr
    assert len(server.requests) == 1


def test_a_cache_with_other_dates_that_cannot_be_written_serves(server, store):
    contents(store, artifact(server))
    os.utime(blob(store), (1, 1))
    cache = {"INFERENCE_MODELS_CACHE": str(store.root)}
    ended = python(READ_ONLY + FETCH, **cache, ARTIFACT=as_json(artifact(server)))

    assert ended.stdout.strip() == str(SIZE), ended.stderr
    assert len(server.requests) == 1


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_cache_that_cannot_be_written_says_so(number, server, store):
    store.root.mkdir()
    cache = {"INFERENCE_MODELS_CACHE": str(store.root), "ERRNO": str(number)}
    ended = python(READ_ONLY + FETCH, **cache, ARTIFACT=as_json(artifact(server)))

    assert "cannot be used: " in ended.stderr
    assert os.strerror(number) in ended.stderr


# Warm


def test_a_warm_load_hashes_nothing(server, store, monkeypatch):
    wanted = artifact(server, 3)
    contents(store, wanted)
    monkeypatch.setattr(store_module, "hash_file", refuse_to_hash)

    assert anew(store).folder(wanted, plain).is_dir()


def refuse_to_hash(path):
    raise AssertionError(f"{path} was hashed")


def test_without_a_network_what_is_there_serves_and_what_is_not_is_named(
    server, store, monkeypatch
):
    contents(store, artifact(server))
    monkeypatch.setenv("INFERENCE_MODELS_OFFLINE", "1")

    assert contents(store, artifact(server)) == [CONTENT]
    with pytest.raises(Offline, match=r"'1\.bin' is not in the cache"):
        contents(store, artifact(server, 2))


def test_with_the_network_gone_what_is_there_serves(server, store):
    wanted = artifact(server, 2)
    contents(store, artifact(server))
    server.gives("/1.bin", lambda server, connection, asked: None)

    assert contents(store, artifact(server)) == [CONTENT]
    with pytest.raises(DownloadFailed, match=r"'1\.bin' is not in the cache"):
        contents(store, wanted)


# Crowds


def crowd(store, wanted, number):
    """So many threads at once, each with a store of its own."""
    barrier = threading.Barrier(number)

    def one(_):
        barrier.wait()
        return contents(store, wanted)

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(one, range(number)))


@pytest.mark.parametrize("number", [2, 8, 32])
def test_a_crowd_of_threads_fetches_once(number, server, store):
    assert crowd(store, artifact(server), number) == [[CONTENT]] * number
    assert len(server.requests) == 1


def acquires_nothing(self, *_, **__):
    """A lock that lets everyone in, as some network file systems have it."""


def raises(error):
    def acquire(self, *_, **__):
        raise error

    return acquire


@pytest.mark.parametrize(
    "acquire",
    [acquires_nothing, raises(OSError("no locks")), raises(NotImplementedError())],
    ids=["nothing", "OSError", "NotImplementedError"],
)
def test_where_locks_do_nothing_a_crowd_does_no_harm(
    acquire, server, store, monkeypatch
):
    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)

    assert crowd(store, artifact(server, 3), 8) == [CONTENTS] * 8
    assert {path.name for path in (store.root / "blobs").iterdir()} == {
        hashlib.sha256(content).hexdigest() for content in CONTENTS
    }


@no_kill
def test_where_the_systems_locks_do_nothing_a_crowd_does_no_harm(
    server, store, monkeypatch
):
    import fcntl

    monkeypatch.setattr(fcntl, "flock", lambda *_: None)

    assert crowd(store, artifact(server, 3), 8) == [CONTENTS] * 8


def check_processes(number, server, store):
    wanted = artifact(server)
    running = [begun(store, wanted) for _ in range(number)]
    printed = [process.communicate()[0].strip() for process in running]

    assert printed == [str(SIZE).encode()] * number
    assert len(server.requests) == 1


def test_eight_processes_fetch_once(server, store):
    check_processes(8, server, store)


@pytest.mark.slow
def test_32_processes_fetch_once(server, store):
    check_processes(32, server, store)


def test_who_waits_for_another_process_says_so(server, store, caplog):
    caplog.set_level("INFO", "inference_models")
    gate = threading.Event()
    server.gives("/0.bin", half(gate))
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(contents, store, artifact(server)) for _ in range(2)]
        while "another process fetches" not in caplog.text:
            time.sleep(0.01)
        gate.set()

        assert [future.result() for future in both] == [[CONTENT]] * 2
    assert "waiting: another process fetches or derives the same file" in caplog.text


HOLD = """
    import sys
    import filelock

    with filelock.FileLock(sys.argv[1]):
        print("held", flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def held(store):
    """Another process has the lock, and does nothing."""
    path = store.root / "locks" / f"{SHA256}.lock"
    path.parent.mkdir(parents=True)
    command = [sys.executable, "-c", dedent(HOLD), str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as holding:
        assert holding.stdout.readline().strip() == b"held"
        yield holding
        holding.communicate()


def test_a_process_that_gets_nowhere_is_not_waited_for(held, server, store, caplog):
    impatient = Store(store.root, limits=Limits(patience=0.1))
    folder = impatient.folder(artifact(server), plain)

    assert content_of(folder / "0.bin") == CONTENT
    assert "got no further in 0 s; it is fetched here, too" in caplog.text


def test_a_process_that_ends_gives_its_lock_up(held, server, store, caplog):
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(contents, store, artifact(server))
        held.kill()

        assert waiting.result() == [CONTENT]
    assert "fetched here, too" not in caplog.text


def test_a_process_that_gets_on_is_waited_for(tmp_path, caplog):
    path, grown = tmp_path / "a.lock", iter(range(1, 10**9))
    with ThreadPoolExecutor(1) as pool:

        def second():
            with locks.locked(path, lambda: float(next(grown)), patience=0.1):
                return has_it.locked()

        has_it = threading.Lock()
        with filelock.FileLock(path), has_it:
            waiting = pool.submit(second)
            while next(grown) < 12:  # it has looked at it a few times by then
                time.sleep(0.5)

        assert waiting.result() is False
    assert "fetched here, too" not in caplog.text
