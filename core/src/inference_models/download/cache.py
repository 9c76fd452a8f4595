"""What lies in the cache: listed, verified, and removed again."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import attrs

from inference_models.card import Artifact, File, structure
from inference_models.disk import (
    hash_file,
    is_older,
    is_real_file,
    last_written,
    remove,
)
from inference_models.download.partial import ABANDONED
from inference_models.download.store import Store, is_sound, read_manifest
from inference_models.errors import InvalidCard

_FORGOTTEN = 86_400.0
"""Seconds after which what nothing in the cache names is nobody's."""


@attrs.frozen
class Entry:
    """A folder that runtimes are handed: a bundle, or what was derived here.

    `size` is in bytes, `used` when it was last loaded (seconds since the epoch),
    `digests` are the blobs that it is made of; of what was derived `model` is told, and
    its `form`: format, precision and sizes of batches.
    """

    kind: Literal["bundle", "derived"]
    folder: Path
    names: tuple[str, ...]
    digests: tuple[str, ...]
    size: int
    used: float
    model: str | None = None
    form: str = ""

    @property
    def key(self) -> str:
        """The name of its folder."""
        return self.folder.name


def inventory(store: Store) -> list[Entry]:
    """All that can be loaded from the cache, that used last first."""
    found = [*_bundles(store), *_derived(store)]
    return sorted(found, key=lambda kept: (-kept.used, kept.key))


def _bundles(store: Store) -> Iterator[Entry]:
    for manifest in (store.root / "bundles").glob("*.json"):
        laid = read_manifest(manifest)
        folder = manifest.with_suffix("")
        yield Entry(
            kind="bundle",
            folder=folder,
            names=tuple(laid),
            digests=tuple(str(facts[0]) for facts in laid.values()),
            size=_size([folder]),
            used=last_written(manifest),
        )


def _derived(store: Store) -> Iterator[Entry]:
    for manifest in (store.root / "derived").glob("*/artifact.json"):
        folder = manifest.parent
        model, form = _model(manifest)
        yield Entry(
            kind="derived",
            folder=folder,
            names=tuple(_names(folder)),
            digests=(),
            size=_size([folder]),
            used=last_written(manifest),
            model=model,
            form=form,
        )


def _names(folder: Path) -> list[str]:
    paths = [path for path in _within(folder) if path.is_file()]
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def _within(folder: Path) -> Iterator[Path]:
    """All files and links below a folder, which others may remove meanwhile."""
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in names)


def _model(manifest: Path) -> tuple[str | None, str]:
    """The id of what was derived, and its form."""
    data = _json(manifest)
    try:
        artifact, model = data["artifact"], str(data["card"]["id"])
        form = f"{artifact['format']}, {artifact['precision']}"
        batch = artifact.get("batch")
        return model, f"{form}, batches of {batch}" if batch else form
    except (KeyError, TypeError, AttributeError):
        return None, ""


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def size(store: Store) -> int:
    """The bytes of all that lies in the cache; links to one file count once."""
    return _size([store.root])


def _size(folders: Iterable[Path]) -> int:
    sizes = {}
    for folder in folders:
        for path in _within(folder):
            with contextlib.suppress(OSError):
                status = path.lstat()
                sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


def verify(store: Store) -> list[str]:
    """Hash all files, remove what is damaged, and say what that was, a line each."""
    blobs = sorted((store.root / "blobs").glob("*"))
    damaged = [blob for blob in blobs if not is_sound(blob)]
    for blob in damaged:
        remove(blob)
    lines = [f"blob {blob.name} was damaged" for blob in damaged]
    bad = {blob.name for blob in damaged}
    for kept in inventory(store):
        if not _is_whole(store, kept, bad):
            delete(store, [kept])
            names = ", ".join(kept.names)
            lines.append(f"{kept.kind} {kept.key[:12]} ({names}) was damaged")
    return lines


def _is_whole(store: Store, kept: Entry, bad: set[str]) -> bool:
    if kept.kind == "derived":
        return _is_derived_whole(kept.folder)
    pairs = sorted(zip(kept.names, kept.digests, strict=True))
    return not bad.intersection(kept.digests) and all(
        _is_entry(kept.folder / name, store.blob(digest), digest)
        for name, digest in pairs
    )


def _is_entry(path: Path, blob: Path, digest: str) -> bool:
    if not is_real_file(path):
        return False
    linked = blob.is_file() and path.samefile(blob)  # and that was hashed before
    return linked or hash_file(path) == digest


def _is_derived_whole(folder: Path) -> bool:
    try:
        artifact = structure(Artifact, _json(folder / "artifact.json")["artifact"])
    except (KeyError, InvalidCard):
        return False
    return all(_fits(folder / file.name, file) for file in artifact.files)


def _fits(path: Path, file: File) -> bool:
    """Whether a file has the size and the hash that its manifest gives, if it does."""
    sized = path.is_file() and file.size in (None, path.stat().st_size)
    return sized and (not file.sha256 or hash_file(path) == file.sha256)


def delete(store: Store, gone: Iterable[Entry]) -> None:
    """Remove these folders, and the blobs that no other is made of."""
    gone = list(gone)
    for kept in gone:
        if kept.kind == "bundle":
            kept.folder.with_suffix(".json").unlink(missing_ok=True)
        remove(kept.folder)
        if kept.folder.exists():
            _remove_again(kept.folder)
    still = {digest for kept in _bundles(store) for digest in kept.digests}
    for digest in {digest for kept in gone for digest in kept.digests} - still:
        remove(store.blob(digest))


def _remove_again(folder: Path) -> None:
    """Raise what keeps a folder there, unless another process lays it meanwhile."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise


def prune(store: Store, largest: int) -> list[Entry]:
    """Remove what is unfinished or unused, and then what was used longest ago.

    It ends once the cache has no more than `largest` bytes; what it removed. What may
    not be removed stays, and is raised at the end if it makes the cache too large.
    """
    _sweep(store)
    gone: list[Entry] = []
    errors: list[PermissionError] = []
    for kept in reversed(inventory(store)):
        if size(store) <= largest:
            return gone
        try:
            delete(store, [kept])
            gone.append(kept)
        except PermissionError as error:  # on Windows, of what is being read
            errors.append(error)
    if errors and size(store) > largest:
        raise errors[0]
    return gone


def _sweep(store: Store) -> None:
    used = {digest for kept in _bundles(store) for digest in kept.digests}
    for blob in (store.root / "blobs").glob("*"):
        if blob.name not in used and is_older(blob, _FORGOTTEN):
            remove(blob)
    for path in (store.root / "partial").glob("*"):
        if is_older(path, ABANDONED):
            remove(path)
    for folder in (store.root / "bundles").glob("*"):
        unfinished = folder.is_dir() and not folder.with_suffix(".json").is_file()
        if unfinished and is_older(folder, _FORGOTTEN):
            remove(folder)


def matching(store: Store, prefix: str) -> list[Entry]:
    """All whose key, or the sha256 of a file in it, begins with this."""
    return [
        kept
        for kept in inventory(store)
        if any(name.startswith(prefix) for name in (kept.key, *kept.digests))
    ]
