"""What a card says of a file's bytes, held against them while they arrive."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import queue
import threading
from collections.abc import Callable, Iterable

from inference_models.card import File
from inference_models.download.body import Chunk
from inference_models.errors import HashMismatch

_AHEAD = 8
"""Calls that may wait for a thread; with a chunk each, some megabytes."""


class Beside:
    """Calls that a thread makes in order, while its owner goes on."""

    def __init__(self) -> None:
        self._calls: queue.Queue[Callable[[], object] | None] = queue.Queue(_AHEAD)
        self._problem: Exception | None = None
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[[], object]) -> None:
        """Have it called; waits where too many others do."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
        self._calls.put(function)

    def finish(self) -> None:
        """Wait until all were made; raises what one of them raised."""
        if self._thread is not None:
            self._calls.put(None)
            self._thread.join()
            self._thread = None
        if self._problem is not None:
            raise self._problem

    def _work(self) -> None:
        while (function := self._calls.get()) is not None:
            if self._problem is None:
                try:
                    function()
                except Exception as error:  # noqa: BLE001 - raised by `finish`
                    self._problem = error


class Checked:
    """The size and hashes of a file's bytes as they pass, each hash on its own thread.

    Whoever begins to add bytes has to come to `digest` or to `close`; `take` does.
    """

    def __init__(self, file: File) -> None:
        self.file = file
        self.size = 0
        self._hashes = {"sha256": hashlib.sha256()}
        if file.md5:
            self._hashes["md5"] = hashlib.md5(usedforsecurity=False)
        if file.git_sha1:
            header = b"blob %d\0" % (file.size or 0)  # hashed before the content
            self._hashes["git"] = hashlib.sha1(header, usedforsecurity=False)
        self._threads = {kind: Beside() for kind in self._hashes}

    def add(self, chunk: Chunk) -> None:
        """Count bytes; `HashMismatch` if there are more than the card says.

        They are hashed later, and may not be changed until then.
        """
        self.size += len(chunk)
        self.check_total(self.size, at_least=True)
        for kind, thread in self._threads.items():
            thread.call(functools.partial(self._hashes[kind].update, chunk))

    def take(self, chunks: Iterable[Chunk]) -> str:
        """Add all of a file; its sha256, once all that the card says fits."""
        with contextlib.closing(self):
            for chunk in chunks:
                self.add(chunk)
            return self.digest()

    def check_total(self, total: int, at_least: bool = False) -> None:
        """Raise `HashMismatch` if a file of so many bytes is not the card's.

        `at_least`: more bytes may follow.
        """
        name, wanted = self.file.name, self.file.size
        if wanted is not None and total > wanted:
            raise HashMismatch(f"{name!r} is longer than {wanted} bytes")
        if wanted is not None and total < wanted and not at_least:
            raise HashMismatch(f"{name!r} has {total} bytes instead of {wanted}")

    def digest(self) -> str:
        """The sha256 of all bytes, once all that the card says fits."""
        self.close()
        self.check_total(self.size)
        expected = {
            "sha256": self.file.sha256,
            "md5": self.file.md5,
            "git": self.file.git_sha1,
        }
        for kind, digest in self._hashes.items():
            _compare(kind, digest.hexdigest(), expected[kind], self.file.name)
        return self._hashes["sha256"].hexdigest()

    def close(self) -> None:
        """Wait for the hashes, and let their threads go."""
        for thread in self._threads.values():
            thread.finish()


def _compare(kind: str, found: str, expected: str | None, name: str) -> None:
    if expected is not None and not found.startswith(expected):
        raise HashMismatch(
            f"{name!r} has {kind} {found[: len(expected)]} instead of {expected}; the "
            "file is damaged, or the card is of another file"
        )
