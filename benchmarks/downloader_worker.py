"""One download by one library: `downloader_worker.py LIBRARY JOB`, a JSON object.

Prints a line once all is imported, and then writes what happens to the job's `journal`,
an object a line: what is logged, what connections leave this machine, and the end.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

Download = Callable[[], str]


class Journal:
    """What happened, in its order; what was written stays if the process is ended."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def write(self, **facts: Any) -> None:
        """Add a line."""
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(facts) + "\n")


class Listener(logging.Handler):
    """Hands all that is logged to the journal."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(logging.DEBUG)
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, as it would be shown."""
        text = self.format(record)
        self._journal.write(kind="log", level=record.levelno, text=text)


def main() -> None:
    """Download once, and say how it ended."""
    library, job = sys.argv[1], json.loads(sys.argv[2])
    # What libraries print goes where errors go: standard output says when to begin.
    ready = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    download, journal = LIBRARIES[library](job), Journal(job["journal"])
    listen(journal)
    stay_here(journal)
    ready.write("ready\n")
    ready.close()
    try:
        journal.write(kind="returned", path=str(download()))
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the result
        journal.write(kind="raised", **facts(error))


def facts(error: BaseException) -> dict[str, Any]:
    """What a user sees of an error."""
    causes, cause = [], error
    while following := cause.__cause__ or cause.__context__:
        causes.append(f"{type(following).__name__}: {following}")
        cause = following
    return {
        "module": type(error).__module__,
        "name": type(error).__name__,
        "text": str(error),
        "causes": "\n".join(causes),
        "traceback": "".join(traceback.format_exception(error)),
    }


def listen(journal: Journal) -> None:
    """Note every record of every logger; what they show themselves stays as it is."""
    root, listener = logging.getLogger(), Listener(journal)
    found = root.manager.loggerDict.values()
    for logger in (root, *(one for one in found if isinstance(one, logging.Logger))):
        for handler in logger.handlers:
            handler.setLevel(max(handler.level, logger.getEffectiveLevel()))
    for logger in (root, *(one for one in found if isinstance(one, logging.Logger))):
        logger.setLevel(logging.DEBUG)
        if logger is root or not logger.propagate:
            logger.addHandler(listener)


def stay_here(journal: Journal) -> None:
    """Let no connection leave this machine, and note those that would have."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        by_internet = self.family in (socket.AF_INET, socket.AF_INET6)
        if by_internet and address[0] not in ("127.0.0.1", "::1"):
            journal.write(kind="connects", host=str(address[0]))
            raise ConnectionRefusedError(111, "Connection refused")
        connect(self, address)

    socket.socket.connect = guarded  # type: ignore[method-assign]


def ours(job: dict[str, Any]) -> Download:
    """Into this library's store, held to size and sha256."""
    import httpx  # noqa: F401 - imported before the clock starts

    from inference_models import Artifact, File
    from inference_models.download.limits import Limits
    from inference_models.download.store import Store

    file = File("model.bin", [job["url"]], job["size"], sha256=job["sha256"])
    artifact = Artifact("acme", {"main": file.name}, [file])
    seconds = job["seconds"]
    limits = Limits(connect=seconds, idle=seconds, answer=20.0, grace=5.0)
    store = Store(Path(job["folder"]), limits)

    def request(source: str) -> tuple[str, dict[str, str]]:
        headers = {"Authorization": f"Bearer {job['token']}"}
        return f"{source}?{job['query']}", headers

    return lambda: str(store.folder(artifact, request) / file.name)


def hub(job: dict[str, Any]) -> Download:
    """Into huggingface_hub's cache, from a Hub that names sha256 and size."""
    from huggingface_hub import hf_hub_download

    return lambda: hf_hub_download(
        "acme/tiny",
        "model.bin",
        endpoint=job["endpoint"],
        token=job["token"],
        cache_dir=job["folder"],
    )


def peer(job: dict[str, Any]) -> Download:
    """Into a folder, held to its md5."""
    from inference_models.developer_tools import download_files_to_directory

    spec = ("model.bin", f"{job['url']}?{job['query']}", job["md5"])
    return lambda: download_files_to_directory(job["folder"], [spec])["model.bin"]


LIBRARIES = {"ours": ours, "hub": hub, "peer": peer}

if __name__ == "__main__":
    main()
