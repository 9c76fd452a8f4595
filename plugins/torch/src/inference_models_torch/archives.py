"""Checkpoints that are ZIP archives, held to the layout that torch itself writes."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

from inference_models import InvalidWeights
from inference_models_torch.pickles import check_pickle, refused

# The records at the end of an archive; the last two are for large ones, and torch
# writes them always.
_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_LARGE_END = struct.Struct("<4sQ2H2L4Q")


def is_archive(path: Path) -> bool:
    """Whether torch takes a file for an archive, which it tells by the first bytes."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\3\4"


def check_archive(path: Path) -> None:
    """`InvalidWeights` for an archive that torch did not write, or that is hostile."""
    if not _ends_as_written(path):
        raise InvalidWeights(
            f"'{path}' is cut off, or its list of entries is not at its end, where "
            "torch writes it; fetch it again"
        )
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        # torch ignores case.
        names = [entry.filename.lower() for entry in entries]
        if any(name.endswith("constants.pkl") for name in names):
            raise refused(path, "holds a TorchScript program, which could run code")
        if not all(_is_stored(entry) for entry in entries):
            # Compressed entries can hide how large they get.
            raise refused(path, "is compressed, which torch's files are not")
        pickles = [e for e in entries if e.filename.lower().endswith("data.pkl")]
        if len(pickles) > 1:
            raise refused(path, f"holds {len(pickles)} pickles, where torch writes one")
        for entry in pickles:
            check_pickle(path, io.BytesIO(archive.read(entry)))


def _is_stored(entry: zipfile.ZipInfo) -> bool:
    return (
        entry.compress_type == zipfile.ZIP_STORED
        and entry.compress_size == entry.file_size
    )


def _ends_as_written(path: Path) -> bool:
    """Whether the list of entries lies right before the last record, as that says.

    Readers look for the list in different ways, so that a file could show each another.
    """
    stop = path.stat().st_size - _END.size
    large = stop - _LOCATOR.size - _LARGE_END.size
    with path.open("rb") as file:
        file.seek(max(0, large))
        tail = file.read().rjust(98, b"\0")
    signature, *_, length, offset, _ = _END.unpack(tail[-_END.size :])
    if signature != b"PK\5\6":
        return False
    locator = _LOCATOR.unpack_from(tail, _LARGE_END.size)
    if locator[0] == b"PK\6\7":
        stop = large
        signature, *_, length, offset = _LARGE_END.unpack_from(tail)
        if signature != b"PK\6\6" or locator[2] != large:
            return False
    return bool(offset + length == stop)
