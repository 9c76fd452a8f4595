"""Files written whole or not at all, which a power cut leaves as they are."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from inference_models.card import File

CHUNK = 1 << 20


def unique() -> str:
    """A name that nobody else has."""
    return os.urandom(16).hex()


def chunks_of(file: IO[bytes]) -> Iterator[bytes]:
    """What is left of an open file, a chunk at a time."""
    return iter(lambda: file.read(CHUNK), b"")


def hash_file(path: Path) -> str:
    """The sha256 of a file on this machine."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in chunks_of(file):
            digest.update(chunk)
    return digest.hexdigest()


def described(path: Path, name: str | None = None) -> File:
    """A file on this machine as an artifact lists it, with its size and its hash."""
    size, digest = path.stat().st_size, hash_file(path)
    return File(name or path.name, size=size, sha256=digest)


def is_real_file(path: Path) -> bool:
    """Whether a file lies there itself, and no link to one."""
    return path.is_file() and not path.is_symlink()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a small file so that readers see all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{unique()}")
    try:
        with partial.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        move_file(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def move_file(path: Path, target: Path) -> None:
    """Give a finished file its name, so that it keeps it in a power cut too."""
    path.replace(target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk, where the system can."""
    if os.name == "nt":
        return
    with contextlib.suppress(OSError):  # some network file systems cannot
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def move_folder(source: Path, target: Path) -> None:
    """Give a finished folder its final name; one that is there already is replaced."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() or target.is_symlink():
        aside = source.with_name(unique())
        with contextlib.suppress(OSError):
            target.rename(aside)
        remove(aside)
    try:
        source.rename(target)
    except OSError:
        if not target.is_dir():
            raise
    sync_folder(target.parent)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all in it, if it is there."""
    import shutil

    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):  # where none is, a read-only system fails
        path.unlink(missing_ok=True)


def check_room(path: Path, needed: int) -> None:
    """Raise `OSError` unless so many more bytes have room beside this file."""
    import shutil

    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"{needed / 1e6:.0f} MB more are needed and {free / 1e6:.0f} MB are free",
        )


def is_full(error: OSError) -> bool:
    """Whether a file could not be written for want of room."""
    full = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
    return error.errno in full


def last_written(path: Path) -> float:
    """When a file was written to, or a folder got an entry; 0 where none is.

    In seconds since the epoch. What is used and not written to is dated by `note_use`.
    """
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def is_older(path: Path, seconds: float) -> bool:
    """Whether that is at least so many seconds ago."""
    return time.time() - last_written(path) >= seconds


def note_use(path: Path) -> None:
    """Date a file as used last now; not every cache can keep that."""
    with contextlib.suppress(OSError):
        os.utime(path)
