"""A model in one file, for a machine without a network: written here, checked there.

A tar without compression, which holds regular files alone: `manifest.json` with the
size and sha256 of each other member, then `blobs/…`, `records/…`, `derived/…` and
`imported/…` (cards) as they lie in a cache. What it holds is taken only after all of it
was checked.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

import attrs

from inference_models.card import Artifact, File
from inference_models.disk import (
    check_room,
    chunks_of,
    hash_file,
    move_file,
    move_folder,
    write_atomically,
)
from inference_models.download.answers import read_card
from inference_models.download.hashing import Checked
from inference_models.download.store import Store, explained, is_sound
from inference_models.errors import HashMismatch, InvalidOption, InvalidWeights

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger("inference_models")

_MANIFEST = "manifest.json"
_LARGEST_MANIFEST = 16_000_000
_MOST_MEMBERS = 100_000
_NAME = re.compile(
    r"(blobs|records)/[0-9a-f]{64}|derived/[0-9a-f]{64}/.+"
    r"|imported/[0-9a-f]{64}\.json"
)

_LONGEST_HEADER = 8192
"""Bytes; Pythons of before September 2024 take the square of such a header's size."""

Content = Path | bytes
"""What a member holds: a file's bytes, or these."""


@attrs.frozen
class Member:
    """What the manifest says of a member: its size in bytes, and its sha256."""

    size: int
    sha256: str


def export(path: Path, files: Mapping[str, Content]) -> int:
    """Write files, by the names that they have in a cache; the archive's bytes.

    Raises `HashMismatch` for a damaged one, and `InvalidOption` if the archive cannot
    be written; nothing is left then.
    """
    if path.exists() and not path.is_file():  # it would be replaced, and not written to
        raise InvalidOption(f"{str(path)!r} is no file; name the one to be written")
    try:
        return _export(path, files)
    except OSError as error:
        raise InvalidOption(f"{str(path)!r} cannot be written: {error}") from error


def _export(path: Path, files: Mapping[str, Content]) -> int:
    listed = {name: _member(name, file) for name, file in sorted(files.items())}
    facts = {name: attrs.asdict(member) for name, member in listed.items()}
    text = json.dumps({"format": "inference-models", "version": 1, "files": facts})
    partial = path.with_name(f"{path.name}.partial")
    try:
        with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as archive:
            _add(archive, _MANIFEST, len(text), io.BytesIO(text.encode()))
            for name, member in listed.items():
                with _opened(files[name]) as stream:
                    _add(archive, name, member.size, stream)
        move_file(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path.stat().st_size


def _opened(content: Content) -> IO[bytes]:
    return io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")


def _member(name: str, file: Content) -> Member:
    if isinstance(file, bytes):
        return Member(len(file), hashlib.sha256(file).hexdigest())
    digest = hash_file(file)
    if name.startswith("blobs/") and name != f"blobs/{digest}":
        raise HashMismatch(
            f"{str(file)!r} is damaged; inference-models cache verify removes it, and "
            "inference-models download fetches it again"
        )
    return Member(file.stat().st_size, digest)


def _add(archive: tarfile.TarFile, name: str, size: int, stream: IO[bytes]) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = size
    archive.addfile(entry, stream)


def take(path: Path, store: Store, derived: bool = False) -> list[str]:
    """Put an archive's files into the cache; the names that it left out.

    With `derived` also what was derived elsewhere, which may be native code. Raises
    `InvalidWeights` or `HashMismatch` for an archive that is not what it should be, of
    which nothing is taken then.
    """
    with explained(store.root), store.unfinished() as staged:
        try:
            with path.open("rb") as file, _read(file) as tar:
                listed = _stage(tar, staged)
        except (tarfile.TarError, EOFError, ValueError, RecursionError) as error:
            raise InvalidWeights(f"{str(path)!r} is damaged: {error}") from error
        recorded = _recorded(staged, store, listed)
        return _settle(staged, store, listed, recorded, derived)


def _read(file: IO[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=file, mode="r|", tarinfo=_Entry)


class _Entry(tarfile.TarInfo):
    """An entry, of which headers that describe it are bounded."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Self:
        """One header; `InvalidWeights` for one that is followed by too much more."""
        entry = super().frombuf(buf, encoding, errors)
        if not entry.isreg() and entry.size > _LONGEST_HEADER:
            raise InvalidWeights(
                f"the archive has a header of {entry.size} bytes, as no name needs"
            )
        return entry


def _stage(tar: tarfile.TarFile, staged: Path) -> Mapping[str, Member]:
    """Copy all members out, each checked against the manifest, which comes first."""
    members = iter(tar)
    first = next(members, None)
    if first is None or first.name != _MANIFEST or first.size > _LARGEST_MANIFEST:
        raise InvalidWeights("the archive does not begin with its manifest")
    listed = _listed(_content(tar, first).read())
    staged.mkdir(parents=True)
    check_room(staged, sum(member.size for member in listed.values()))
    missing = set(listed)
    for entry in members:
        if entry.name not in missing:
            raise InvalidWeights(
                f"the archive holds {entry.name!r}, which its manifest does not list, "
                "or holds it twice"
            )
        missing.remove(entry.name)
        _copy(_content(tar, entry), entry, listed[entry.name], staged)
    if missing:
        raise InvalidWeights(f"the archive lacks {min(missing)!r}")
    return listed


def _content(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    plain = entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not entry.issparse()
    content = tar.extractfile(entry) if plain else None
    if content is None:
        raise InvalidWeights(
            f"the archive's {entry.name!r} is no regular file; links, devices and "
            "folders are not taken"
        )
    return content


def _copy(
    content: IO[bytes], entry: tarfile.TarInfo, member: Member, staged: Path
) -> None:
    if entry.size != member.size:
        raise HashMismatch(
            f"the archive's {entry.name!r} has {entry.size} bytes instead of "
            f"{member.size}"
        )
    target = staged / entry.name
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with target.open("xb") as stream:
        for chunk in chunks_of(content):
            digest.update(chunk)
            stream.write(chunk)
    misnamed = entry.name.startswith("blobs/") and (
        entry.name != f"blobs/{member.sha256}"
    )
    if digest.hexdigest() != member.sha256 or misnamed:
        raise HashMismatch(
            f"the archive's {entry.name!r} has sha256 {digest.hexdigest()} instead of "
            f"{member.sha256}; the archive is damaged, copy it again"
        )


def _listed(content: bytes) -> dict[str, Member]:
    """The manifest, if it is one: every name is one of a cache's, and none twice."""
    try:
        data = json.loads(content)
        known = data["format"] == "inference-models" and data["version"] == 1
        listed = {name: Member(**facts) for name, facts in data["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidWeights("the archive's manifest cannot be read") from error
    if not known:
        raise InvalidWeights(
            "the archive is not of this version; import it with the version of "
            "inference-models that wrote it, or a later one"
        )
    _check_names(listed)
    for name, member in listed.items():
        if type(member.size) is not int or not 0 <= member.size < 1 << 50:
            raise InvalidWeights(f"the archive's {name!r} has no possible size")
    return listed


def _check_names(listed: Mapping[str, Member]) -> None:
    if len(listed) > _MOST_MEMBERS:
        raise InvalidWeights(f"the archive lists more than {_MOST_MEMBERS} files")
    folded = {name.casefold() for name in listed}
    if len(folded) < len(listed):
        raise InvalidWeights("the archive lists names that differ in case alone")
    for name in listed:
        if not _NAME.fullmatch(name):
            raise InvalidWeights(f"the archive lists {name!r}, which no cache holds")
        # A file's name on a card has the same rules: raises `InvalidCard`.
        File(name)
        if any(parent.as_posix() in folded for parent in PurePosixPath(name).parents):
            raise InvalidWeights(f"the archive lists {name!r} in a file's place")


def _recorded(
    staged: Path, store: Store, listed: Mapping[str, Member]
) -> dict[str, str]:
    """The records to take, and the full hash that each notes of a file.

    Loading believes records, so one is taken only for a file of a card in the archive,
    and only if the bytes fit the weaker hash that the card gives.
    """
    files = {f"records/{store.record(f).name}": f for f in _described(staged, listed)}
    recorded = {}
    for name in _of("records", listed):
        digest = (staged / name).read_text("ascii", errors="replace")
        file = files.get(name)
        if file is None:
            raise InvalidWeights(f"the archive has no card with the file of {name!r}")
        if not file.is_hashed:
            log.warning(
                "%r has no hash to check it by; load it with sha256=", file.name
            )
        elif f"blobs/{digest}" in listed:
            _check(staged / "blobs" / digest, file)
            recorded[name] = digest
    return recorded


def _described(staged: Path, listed: Mapping[str, Member]) -> Iterator[File]:
    for artifact in _artifacts(staged, listed):
        yield from artifact.files


def _artifacts(staged: Path, listed: Mapping[str, Member]) -> Iterator[Artifact]:
    """Those of all cards in the archive."""
    for name in _of("imported", listed):
        card = read_card(staged / name)
        yield from card.artifacts if card else ()


def _check(path: Path, file: File) -> None:
    with path.open("rb") as stream:
        Checked(file).take(chunks_of(stream))


def _settle(
    staged: Path,
    store: Store,
    listed: Mapping[str, Member],
    recorded: Mapping[str, str],
    derived: bool,
) -> list[str]:
    """Move what was checked to its place: blobs first, what speaks of them after."""
    for name in _of("blobs", listed):
        target = store.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not is_sound(target):
            move_file(staged / name, target)
    for name, digest in recorded.items():
        if not (store.root / name).exists():
            write_atomically(store.root / name, digest.encode())
    for name in _of("imported", listed):
        write_atomically(store.root / name, (staged / name).read_bytes())
    for artifact in _artifacts(staged, listed):
        store.lay(artifact)  # what has no bundle is neither listed nor removed
    folders = {"/".join(name.split("/")[:2]) for name in _of("derived", listed)}
    for folder in sorted(folders) if derived else ():
        if not (store.root / folder).exists():
            move_folder(staged / folder, store.root / folder)
    return [] if derived else sorted(folders)


def _of(kind: str, listed: Mapping[str, Member]) -> Iterator[str]:
    return (name for name in sorted(listed) if name.startswith(f"{kind}/"))
