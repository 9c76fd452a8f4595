"""An unfinished file: written by one alone, hashed as it grows, and taken up later."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from inference_models.card import File
from inference_models.errors import HashMismatch
from inference_models.sources import chunks_of

_ABANDONED = 3600.0
"""Seconds without a byte, after which an unfinished file is nobody's."""


class Checked:
    """The size and hashes of a file's bytes as they pass, held to its card."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.size = 0
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)
        header = b"blob %d\0" % (file.size or 0)  # git hashes it before the content
        self._git = hashlib.sha1(header, usedforsecurity=False)

    def add(self, chunk: bytes) -> None:
        """Count bytes; `HashMismatch` if there are more than the card says."""
        self.size += len(chunk)
        self.check_total(self.size, at_least=True)
        self._sha256.update(chunk)
        if self.file.md5:
            self._md5.update(chunk)
        if self.file.git_sha1:
            self._git.update(chunk)

    def check_total(self, total: int, at_least: bool = False) -> None:
        """Raise `HashMismatch` if a file of so many bytes is not the card's."""
        name, wanted = self.file.name, self.file.size
        if wanted is not None and total > wanted:
            raise HashMismatch(f"{name!r} is longer than {wanted} bytes")
        if wanted is not None and total < wanted and not at_least:
            raise HashMismatch(f"{name!r} has {total} bytes instead of {wanted}")

    def digest(self) -> str:
        """The sha256 of all bytes, once all that the card says fits."""
        self.check_total(self.size)
        found = self._sha256.hexdigest()
        _compare("sha256", found, self.file.sha256, self.file.name)
        _compare("md5", self._md5.hexdigest(), self.file.md5, self.file.name)
        _compare("git", self._git.hexdigest(), self.file.git_sha1, self.file.name)
        return found


class Partial:
    """The bytes of a file so far, under a name that nobody else has.

    What an earlier run left under the same key is copied in, so that no two ever write
    to one file; nothing in it is trusted before `digest` has compared the whole.
    """

    def __init__(self, folder: Path, key: str, file: File) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{key}.{os.urandom(8).hex()}"
        self.file = file
        self.validator: str | None = None
        self._folder = folder
        self._key = key
        self._stream = self.path.open("xb")
        self.restart()

    def restart(self) -> None:
        """Forget all bytes."""
        self._checked = Checked(self.file)
        self.resumed = False
        self._stream.seek(0)
        self._stream.truncate()

    def adopt(self) -> None:
        """Take over the longest of what earlier runs left."""
        left = sorted(self._left(), key=lambda path: -path.stat().st_size)
        for path in left:
            with contextlib.suppress(OSError):
                validator = _beside(path).read_text("ascii")
                with path.open("rb") as stream:
                    for chunk in chunks_of(stream):
                        self.write(chunk)
                self.validator, self.resumed = validator, self.size > 0
                self._note()
                return

    def _left(self) -> Iterator[Path]:
        for note in self._folder.glob(f"{self._key}.*.etag"):
            path = note.with_suffix("")
            too_long = self.file.size is not None and (
                path.is_file() and path.stat().st_size > self.file.size
            )
            if path != self.path and path.is_file() and not too_long:
                yield path

    def resume(self, validator: str | None) -> None:
        """More bytes follow from a server that names its version of the file so."""
        self.resumed = self.size > 0
        if validator != self.validator:
            self.validator = validator
            self._note()

    def _note(self) -> None:
        if self.validator is None:
            _beside(self.path).unlink(missing_ok=True)
        else:
            _beside(self.path).write_text(self.validator, "ascii")

    def write(self, chunk: bytes) -> None:
        """Add bytes; `HashMismatch` if there are more than the card says."""
        self._checked.add(chunk)
        self._stream.write(chunk)
        self._stream.flush()  # a process that is killed leaves what it had

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return self._checked.size

    def check_total(self, total: int) -> None:
        """Raise `HashMismatch` if a file of so many bytes is not the card's."""
        self._checked.check_total(total)

    def digest(self) -> str:
        """The sha256 of what is on the disk now, once all that the card says fits."""
        found = self._checked.digest()
        os.fsync(self._stream.fileno())
        return found

    def close(self, keep: bool) -> None:
        """Close it, and keep it for a later run if it can be taken up there."""
        with contextlib.suppress(OSError):
            self._stream.close()
        if not (keep and self.size and self.validator):
            self.path.unlink(missing_ok=True)
            _beside(self.path).unlink(missing_ok=True)
        elif self.resumed:
            self.sweep(_ABANDONED)

    def sweep(self, age: float = 0.0) -> None:
        """Remove what other runs left of this file, if it is older (seconds)."""
        for note in self._folder.glob(f"{self._key}.*.etag"):
            for path in (note.with_suffix(""), note):
                with contextlib.suppress(OSError):
                    old = time.time() - path.stat().st_mtime >= age
                    if old and note != _beside(self.path):
                        path.unlink()


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".etag")


def kept(folder: Path, key: str) -> int:
    """The bytes of the longest unfinished file under this key."""
    sizes = [0]
    for path in folder.glob(f"{key}.*"):
        with contextlib.suppress(OSError):
            sizes.append(path.stat().st_size)
    return max(sizes)


def _compare(kind: str, found: str, expected: str | None, name: str) -> None:
    if expected is not None and not found.startswith(expected):
        raise HashMismatch(
            f"{name!r} has {kind} {found[: len(expected)]} instead of {expected}; the "
            "file is damaged, or the card is of another file"
        )
