"""The cache of weights here: fetched once, checked by hash, never half there.

    <cache>/blobs/<sha256>      one file each, named by its content
    <cache>/bundles/<key>/      the files of an artifact under their names (hard links)
    <cache>/derived/<key>/      what a backend derived here
    <cache>/records/<key>       full sha256 of files whose card has a weaker one
    <cache>/partial/            unfinished downloads, under unique names

A file gets its final name only after its hash was checked; the locks only save work.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs

from inference_models.card import Artifact, File
from inference_models.errors import DownloadFailed, HashMismatch, InvalidCard, Offline
from inference_models.sources import (
    Request,
    chunks_of,
    local_path,
    opened,
    scheme,
)

log = logging.getLogger("inference_models")


def cache_root() -> Path:
    """`INFERENCE_MODELS_CACHE`, else the user's cache directory."""
    named = os.environ.get("INFERENCE_MODELS_CACHE")
    if named:
        return Path(named).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("inference-models")


def offline() -> bool:
    """Whether `INFERENCE_MODELS_OFFLINE` switches the network off."""
    value = os.environ.get("INFERENCE_MODELS_OFFLINE", "").strip().lower()
    return value not in ("", "0", "false", "no", "off")


@attrs.frozen
class Store:
    """Files by content, and the folders that runtimes are handed."""

    root: Path = attrs.field(factory=cache_root)
    _hashes: dict[Path, str] = attrs.field(
        factory=dict, init=False, eq=False, repr=False
    )
    """Of local files whose card gives none; a store lives as long as one load."""

    def folder(self, artifact: Artifact, request: Request) -> Path:
        """A folder with every file of the artifact, fetched and checked.

        Files that lie on this machine under their own names are used where they are.
        Raises `DownloadFailed`, or its `HashMismatch` and `Offline`.
        """
        local = in_place(artifact.files)
        if local is not None:
            for file in artifact.files:
                _check_in_place(file, request)
            return local
        with _explained(self.root):
            digests = [self._fetch(file, request) for file in artifact.files]
            return self._assemble(artifact.files, digests)

    def digest(self, file: File) -> str | None:
        """The full sha256 of a file, if that can be told without a network."""
        if file.sha256 is not None and len(file.sha256) == 64:
            return file.sha256
        recorded = _read_record(self._record(file))
        if recorded is not None:
            return recorded
        if file.sources and scheme(file.sources[0]) == "file":
            return self._hash(local_path(file.sources[0]))
        return None

    def _hash(self, path: Path) -> str | None:
        if path not in self._hashes and path.is_file():
            self._hashes[path] = hash_file(path)
        return self._hashes.get(path)

    def _record(self, file: File) -> Path:
        facts = [file.name, list(file.sources), file.sha256, file.md5, file.size]
        key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        return self.root / "records" / key

    def blob(self, digest: str) -> Path:
        """Where the file of this sha256 lies, or would."""
        return self.root / "blobs" / digest

    def _fetch(self, file: File, request: Request) -> str:
        known = self.digest(file)
        if known and self.blob(known).is_file():
            return known
        _check_fetchable(file)
        with self.locked(known or self._record(file).name):
            known = self.digest(file)
            if known and self.blob(known).is_file():
                return known
            digest = self._download(file, known, request)
            if known is None:
                write_atomically(self._record(file), digest.encode())
            return digest

    def _download(self, file: File, known: str | None, request: Request) -> str:
        expected = attrs.evolve(file, sha256=known or file.sha256)
        problems: list[DownloadFailed] = []
        for source in file.sources:
            if offline() and scheme(source) != "file":
                problem: DownloadFailed = Offline("INFERENCE_MODELS_OFFLINE is set")
                problems.append(problem)
                continue
            try:
                return self._download_from(source, expected, request)
            except DownloadFailed as error:
                problems.append(error)
        reasons = "; ".join(dict.fromkeys(map(str, problems))) or "it has no source"
        kind = type(problems[-1]) if problems else DownloadFailed
        raise kind(
            f"{file.name!r} is not in the cache and cannot be fetched: {reasons}"
        )

    def _download_from(self, source: str, file: File, request: Request) -> str:
        with self.unfinished() as partial:
            with opened(source, request) as chunks, partial.open("xb") as target:
                digest = _copy_checked(chunks, target.write, file)
                target.flush()
                os.fsync(target.fileno())
            self.blob(digest).parent.mkdir(parents=True, exist_ok=True)
            partial.replace(self.blob(digest))
        return digest

    @contextlib.contextmanager
    def unfinished(self) -> Iterator[Path]:
        """A unique path to write to; whatever is left there afterwards is removed."""
        path = self.root / "partial" / _unique()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield path
        finally:
            remove(path)

    @contextlib.contextmanager
    def locked(self, key: str) -> Iterator[None]:
        """Keep others from doing the same work; safety does not depend on it."""
        import filelock

        path = self.root / "locks" / f"{key}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path)
        try:
            lock.acquire(timeout=2)
        except filelock.Timeout:
            log.info(
                "waiting for another process that fetches or derives the same file"
            )
            lock.acquire(timeout=-1)
        except (NotImplementedError, OSError) as error:
            log.debug("no lock on this file system: %s", error)
        try:
            yield
        finally:
            lock.release()

    def _assemble(self, files: Sequence[File], digests: Sequence[str]) -> Path:
        """The folder of these files, made of hard links, or copies where links fail."""
        pairs = sorted(zip([file.name for file in files], digests, strict=True))
        key = hashlib.sha256(json.dumps(pairs).encode()).hexdigest()
        folder = self.root / "bundles" / key
        if not self._is_whole(folder, pairs):
            with self.locked(key):
                # Whoever held the lock before may have done it, and use it already.
                if not self._is_whole(folder, pairs):
                    self._lay(folder, pairs)
        return folder

    def _is_whole(self, folder: Path, pairs: Sequence[tuple[str, str]]) -> bool:
        return folder.is_dir() and all(
            _same_size(folder / name, self.blob(digest)) for name, digest in pairs
        )

    def _lay(self, folder: Path, pairs: Sequence[tuple[str, str]]) -> None:
        with self.unfinished() as partial:
            partial.mkdir()
            for name, digest in pairs:
                _link(self.blob(digest), partial / name)
            move_folder(partial, folder)


def _read_record(path: Path) -> str | None:
    if not path.is_file():
        return None
    text = path.read_text("ascii", errors="replace")
    return text if re.fullmatch(r"[0-9a-f]{64}", text) else None


def in_place(files: Sequence[File]) -> Path | None:
    """The folder where all these files lie already, under their own names."""
    folders = set()
    for file in files:
        if not file.sources or scheme(file.sources[0]) != "file":
            return None
        path, depth = local_path(file.sources[0]), len(Path(file.name).parts)
        if len(path.parents) < depth or path.parents[depth - 1] / file.name != path:
            return None
        folders.add(path.parents[depth - 1])
    return folders.pop() if len(folders) == 1 else None


def write_atomically(path: Path, content: bytes) -> None:
    """Write a small file so that readers see all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{_unique()}")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def move_folder(source: Path, target: Path) -> None:
    """Give a finished folder its final name; one that is there already is replaced."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        aside = source.with_name(_unique())
        with contextlib.suppress(OSError):
            target.rename(aside)
        remove(aside)
    try:
        source.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def _unique() -> str:
    return os.urandom(16).hex()


def remove(path: Path) -> None:
    """Remove a file or a folder with all in it, if it is there."""
    import shutil

    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def hash_file(path: Path) -> str:
    """The sha256 of a file on this machine."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in chunks_of(file):
            digest.update(chunk)
    return digest.hexdigest()


def _same_size(path: Path, blob: Path) -> bool:
    return path.is_file() and path.stat().st_size == blob.stat().st_size


def _link(blob: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(blob, path)
    except OSError:
        import shutil

        shutil.copyfile(blob, path)


def _check_fetchable(file: File) -> None:
    if file.sha256 is None and file.md5 is None:
        raise InvalidCard(f"{file.name!r} has no hash; add its sha256 to the card")
    from_wheel = any(scheme(source) == "wheel" for source in file.sources)
    if from_wheel and len(file.sha256 or "") != 64:
        raise InvalidCard(f"{file.name!r} comes from a wheel and needs its full sha256")


def _check_in_place(file: File, request: Request) -> None:
    with opened(file.sources[0], request) as chunks:
        if file.sha256 or file.md5 or file.size is not None:
            _copy_checked(chunks, lambda chunk: None, file, progress=False)


def _copy_checked(
    chunks: Iterator[bytes],
    write: Callable[[bytes], object],
    file: File,
    progress: bool = True,
) -> str:
    """Write chunks as they come and return their sha256, or raise `HashMismatch`."""
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    shown = _Progress(file) if progress else None
    for chunk in chunks:
        size += len(chunk)
        if file.size is not None and size > file.size:
            raise HashMismatch(f"{file.name!r} is longer than {file.size} bytes")
        sha256.update(chunk)
        if file.md5:
            md5.update(chunk)
        write(chunk)
        if shown:
            shown.update(size)
    if shown:
        shown.close()
    if file.size is not None and size != file.size:
        raise HashMismatch(f"{file.name!r} has {size} bytes instead of {file.size}")
    _compare("sha256", sha256.hexdigest(), file.sha256, file.name)
    _compare("md5", md5.hexdigest(), file.md5, file.name)
    return sha256.hexdigest()


def _compare(kind: str, found: str, expected: str | None, name: str) -> None:
    if expected is not None and not found.startswith(expected):
        raise HashMismatch(
            f"{name!r} has {kind} {found[: len(expected)]} instead of {expected}; the "
            "file is damaged, or the card is of another file"
        )


class _Progress:
    """One line on a terminal, written anew at most ten times a second."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.shown = sys.stderr is not None and sys.stderr.isatty()
        self.last = time.monotonic()
        self.written = False

    def update(self, size: int) -> None:
        now = time.monotonic()
        if self.shown and now - self.last > 0.1:
            self.last, self.written = now, True
            total = f" of {self.file.size / 1e6:.1f}" if self.file.size else ""
            line = f"\r{self.file.name}: {size / 1e6:.1f}{total} MB"
            sys.stderr.write(line)
            sys.stderr.flush()

    def close(self) -> None:
        if self.written:
            sys.stderr.write("\n")


@contextlib.contextmanager
def _explained(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DownloadFailed(
            f"the cache {str(root)!r} cannot be used: {error}; set "
            "INFERENCE_MODELS_CACHE to a folder with room that can be written to"
        ) from error
