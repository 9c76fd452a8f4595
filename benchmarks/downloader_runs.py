"""One download of `downloaders.py`, in a process of its own, and what it left."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from downloader_cases import ON_THE_HUB, Scene, described

WORKER = Path(__file__).with_name("downloader_worker.py")
TOKEN, SIGNATURE = "sesame-token", "sesame-query"
SILENCE = 3
"""Seconds without a byte, to which each library is set."""
PASSES = 5
"""How often the peer asks for each part of a large file, and not 60 times."""
LIMIT = 60.0
"""Seconds from the end of the imports, after which a download is ended."""


@dataclass(frozen=True)
class Library:
    """A contestant: its interpreter, its distribution, and where its files end up."""

    name: str
    title: str
    distribution: str
    module: str
    python: str
    places: tuple[str, ...]
    takes_token: bool = True

    def versions(self) -> str:
        """Of its distribution, and of the interpreter that runs it."""
        code = (
            "import platform; from importlib.metadata import version; "
            f"print(version({self.distribution!r}), 'on Python', "
            "platform.python_version())"
        )
        words = [self.python, "-c", code]
        return subprocess.check_output(words, text=True, env=environment()).strip()


@dataclass
class Ended:
    """What a download left: the entries of its journal, and what it printed."""

    entries: list[dict[str, Any]]
    printed: str

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The entries of one kind."""
        return [entry for entry in self.entries if entry["kind"] == kind]

    @property
    def error(self) -> dict[str, Any] | None:
        """What it ended with, if it did with an error."""
        return next(iter(self.of("raised")), None)

    @property
    def is_over(self) -> bool:
        """Whether it ended by itself."""
        return bool(self.of("raised") or self.of("returned"))

    def returned(self, content: bytes) -> bool:
        """Whether it returned the path of a file with these bytes."""
        paths = [Path(entry["path"]) for entry in self.of("returned")]
        return any(path.read_bytes() == content for path in paths)

    def shown(self) -> str:
        """What a user sees without asking: the error, output, and warnings."""
        logged = [entry["text"] for entry in self.of("log") if entry["level"] >= 30]
        said = self.error["traceback"] if self.error else ""
        return "\n".join([said, self.printed, *logged])

    def logged(self) -> str:
        """What there is to see if everything is logged."""
        return "\n".join(entry["text"] for entry in self.of("log"))


class Watch:
    """Looks for other bytes than the file's where a library keeps what is finished."""

    def __init__(self, scene: Scene, places: Sequence[str]) -> None:
        self.has_found_others = False
        self._scene = scene
        self._places = [place.format(sha256=scene.sha256) for place in places]
        self._seen: set[tuple[int, int, int]] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._over.wait(0.05):
            self._look()

    def _look(self) -> None:
        for place in self._places:
            for path in self._scene.cache.glob(place):
                with contextlib.suppress(OSError):
                    self._compare(path)

    def _compare(self, path: Path) -> None:
        facts = path.stat()
        version = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
        if version not in self._seen:
            self._seen.add(version)
            self.has_found_others |= path.read_bytes() != self._scene.content


def hub(scene: Scene, url: str) -> str:
    """The endpoint of a Hub that says where the large file lies, by a signed URL."""
    server = scene.server()
    reply = described(scene.content, f"{url}?signature={SIGNATURE}")
    server.gives(ON_THE_HUB, lambda _, connection, asked: connection.sendall(reply))
    return str(server.url(""))


def download(library: Library, scene: Scene, url: str, endpoint: str) -> Ended:
    """Let a library fetch the file, and end it where it takes too long."""
    journal, output = scene.folder / "journal", scene.folder / "output"
    journal.unlink(missing_ok=True)
    job = {
        "url": url,
        "endpoint": endpoint,
        "folder": str(scene.cache),
        "journal": str(journal),
        "size": len(scene.content),
        "sha256": scene.sha256,
        "md5": hashlib.md5(scene.content).hexdigest(),
        "token": TOKEN,
        "query": f"signature={SIGNATURE}",
        "seconds": SILENCE,
    }
    command = [library.python, str(WORKER), library.name, json.dumps(job)]
    with (
        output.open("w") as stream,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=stream,
            env=environment(scene.folder),
            cwd=scene.folder,
        ) as process,
    ):
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError(f"{library.title} cannot run: {output.read_text()}")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LIMIT)
        process.kill()
    lines = journal.read_text("utf-8").splitlines() if journal.exists() else []
    return Ended([json.loads(line) for line in lines], output.read_text("utf-8"))


def environment(folder: Path | None = None) -> dict[str, str]:
    """The variables of a child: no proxies, nobody's token or caches, short waits."""
    foreign = ("PYTHON", "HF_", "INFERENCE_", "HTTP_", "HTTPS_", "ALL_", "SSL_")
    kept = {k: v for k, v in os.environ.items() if not k.upper().startswith(foreign)}
    kept["HF_HUB_DOWNLOAD_TIMEOUT"] = kept["API_CALLS_TIMEOUT"] = str(SILENCE)
    kept["CHUNK_DOWNLOAD_MAX_ATTEMPTS"] = str(PASSES)
    if folder:
        kept |= {"HOME": str(folder), "HF_HOME": str(folder / "hub-home")}
        kept["INFERENCE_HOME"] = str(folder / "peer-home")
    return kept
