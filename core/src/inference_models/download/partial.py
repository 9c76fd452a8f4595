"""An unfinished file: written by one alone, hashed as it grows, and taken up later."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from inference_models.card import File
from inference_models.disk import check_room, chunks_of, is_older, unique
from inference_models.download.body import Chunk
from inference_models.download.hashing import Beside, Checked
from inference_models.download.transport import header_value

ABANDONED = 3600.0
"""Seconds without a byte, after which an unfinished file is nobody's."""
_QUIET = 30.0
"""The same for who has the file's lock; not all file systems' locks hold everybody."""
_LONGEST_NOTE = 1000
_SYNCED = 1 << 25
"""Bytes after which the disk is asked to keep them, so that the end waits for few."""


class Partial:
    """The bytes of a file so far, under a name that nobody else has.

    What an earlier run left under the same key is copied in, so that no two ever write
    to one file; nothing in it is trusted before `digest` has compared the whole. Who is
    `alone` with the key, as its lock says, removes what is left, for whoever is killed
    cannot.
    """

    def __init__(self, folder: Path, key: str, file: File, alone: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{key}.{unique()}"
        self.file = file
        self.validator: str | None = None
        self._folder = folder
        self._key = key
        self._alone = alone
        self._stream = self.path.open("xb")
        self._disk = Beside()
        self._checked = Checked(file)
        self.restart()

    def restart(self) -> None:
        """Forget all bytes."""
        self._checked.close()
        self._checked = Checked(self.file)
        self._synced = 0
        self.resumed = False
        self._stream.seek(0)
        self._stream.truncate()

    def adopt(self) -> None:
        """Copy in the longest unfinished file that earlier runs left, if any."""
        for size, path in sorted(self._left(), reverse=True):
            try:
                check_room(self.path, size)
                self._copy(path)
            except (OSError, ValueError):
                self.restart()
            else:
                break
        if self._alone:
            self.sweep(_QUIET)

    def _left(self) -> Iterator[tuple[int, Path]]:
        for note in self._folder.glob(f"{self._key}.*.etag"):
            path = note.with_suffix("")
            with contextlib.suppress(OSError):
                size = path.stat().st_size
                fits = self.file.size is None or size <= self.file.size
                whole = note.is_file() and note.stat().st_size <= _LONGEST_NOTE
                if path != self.path and path.is_file() and fits and whole:
                    yield size, path

    def _copy(self, path: Path) -> None:
        validator = header_value(_beside(path).read_text("ascii"))
        with path.open("rb") as stream:
            for chunk in chunks_of(stream):
                self.write(chunk)
        self.resume(validator)

    def resume(self, validator: str | None) -> None:
        """Note the server's name of the file's version, of which more bytes follow."""
        self.resumed = self.size > 0
        if validator != self.validator:
            self.validator = validator
            self._note()

    def _note(self) -> None:
        if self.validator is None:
            _beside(self.path).unlink(missing_ok=True)
        else:
            _beside(self.path).write_text(self.validator, "ascii")

    def write(self, chunk: Chunk) -> None:
        """Add bytes; `HashMismatch` if there are more than the card says."""
        self._checked.add(chunk)
        self._stream.write(chunk)
        self._stream.flush()  # a process that is killed leaves what it had
        if self.size - self._synced >= _SYNCED:
            self._synced = self.size
            self._disk.call(self._sync)

    def _sync(self) -> None:
        os.fsync(self._stream.fileno())

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return self._checked.size

    def check_total(self, total: int) -> None:
        """Raise `HashMismatch` if a file of so many bytes is not the card's."""
        self._checked.check_total(total)

    def digest(self) -> str:
        """The sha256 of what is on the disk now, once all that the card says fits.

        It is closed then, since an open file can be moved on some systems alone.
        """
        found = self._checked.digest()
        self._disk.finish()
        self._sync()
        self._stream.close()
        return found

    def close(self, keep: bool) -> None:
        """Close it, and keep it for a later run if it can be taken up there."""
        self._checked.close()
        with contextlib.suppress(OSError):
            self._disk.finish()
        with contextlib.suppress(OSError):
            self._stream.close()
        if not (keep and self.size and self.validator):
            self.path.unlink(missing_ok=True)
            _beside(self.path).unlink(missing_ok=True)
        elif self.resumed:
            self.sweep(ABANDONED)

    def sweep(self, quiet: float = 0.0) -> None:
        """Remove what other runs left of this file, if it is older (seconds)."""
        mine = (self.path, _beside(self.path))
        for path in self._folder.glob(f"{self._key}.*"):
            with contextlib.suppress(OSError):
                is_old = quiet == 0 or is_older(path, quiet)
                if is_old and path not in mine:
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
