"""How fast files arrive in the store, beside curl and others; medians of one run.

    python benchmarks/downloads.py [--rounds 9] [--size 500] [--quiet] [--output FILE]

A server on this machine, in a process of its own, serves one file of `--size` MB. What
is compared takes turns, each download in a process of its own whose start is not
counted; curl's is, as it is a hundredth of a second. With `--quiet` each download waits
until the machine has nothing else to do.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from run import processor

HERE = Path(__file__).parent
Way = Callable[[], tuple[float, float]]
"""Downloads once: seconds, and peak megabytes, 0 where they are not known."""


def main() -> None:
    """Measure everything and write one page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--size", type=int, default=500)
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        size, rounds = options.size * 1_000_000, options.rounds
        bench = Bench(Path(name), size, rounds, options.quiet)
        page = [*header(bench), *bench.unhindered(), *bench.encrypted(), *bench.warm()]
        smaller = Bench(Path(name), size // 3, max(1, rounds // 3), options.quiet)
        page += smaller.capped()
    print("\n".join(page))
    if options.output:
        options.output.write_text("\n".join(page) + "\n", "utf-8")


def header(bench: Bench) -> list[str]:
    """Where and with what this was measured."""
    curl = subprocess.check_output(["curl", "--version"], text=True)
    versions = [curl.split(" (")[0], f"Python {platform.python_version()}"]
    for name in ("httpx", "httpcore", "h11", "huggingface_hub"):
        with contextlib.suppress(PackageNotFoundError):
            versions.append(f"{name} {version(name)}")
    where = f"{processor()}, {len(os.sched_getaffinity(0))} cores"
    conditions = (
        f"{where}; {', '.join(versions)}. A file of {bench.size / 1e6:.0f} MB from a "
        f"server on the same machine. Medians of {bench.rounds} rounds in which the "
        "rows of a table take turns, in seconds; `best` is the fastest one. `of curl` "
        "is curl's time by that of the row in the same round, the median of all, so "
        "100 % is as fast. `peak` is the process's resident memory in MB."
    )
    speeds = ", ".join(f"{kind} {speed(kind):.0f} MB/s" for kind in ("sha256", "md5"))
    hashes = f"One core hashes: {speeds}."
    return ["# Downloads", "", conditions, "", hashes]


def speed(kind: str) -> float:
    """Megabytes that one core hashes in a second."""
    content, digest = bytes(1 << 20), hashlib.new(kind)
    start = time.perf_counter()
    for _ in range(200):
        digest.update(content)
    return 200 * len(content) / 1e6 / (time.perf_counter() - start)


def idle_share() -> float:
    """How much of the last half of a second the processors had nothing to do."""

    def clock() -> tuple[int, int]:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
        return int(fields[3]), sum(map(int, fields))

    before = clock()
    time.sleep(0.5)
    idle, total = (now - then for now, then in zip(clock(), before, strict=True))
    return idle / max(1, total)


class Bench:
    """One file, the servers that give it, and the ways to fetch it."""

    def __init__(self, folder: Path, size: int, rounds: int, quiet: bool) -> None:
        self.folder = folder
        self.size = size
        self.rounds = rounds
        self._quiet = quiet
        self._file = folder / "file.bin"
        content = os.urandom(size)
        self._file.write_bytes(content)
        self._hashes = {
            kind: hashlib.new(kind, content).hexdigest() for kind in ("sha256", "md5")
        }

    @contextlib.contextmanager
    def server(self, *options: str) -> Iterator[str]:
        """A server's address without its scheme."""
        command = [sys.executable, str(HERE / "download_server.py"), str(self._file)]
        with subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, text=True
        ) as running:
            assert running.stdout is not None
            try:
                yield f"localhost:{int(running.stdout.readline())}/file.bin"
            finally:
                running.kill()

    def ours(self, url: str, *hashes: str, connections: int = 4) -> Way:
        """Into the store, held to these hashes."""
        job = {kind: self._hashes[kind] for kind in hashes}
        return self._worker("ours", url=url, connections=connections, **job)

    def _worker(self, way: str, **job: Any) -> Way:
        cache = self.folder / "cache"
        job |= {"cache": str(cache), "size": self.size}
        command = [sys.executable, str(HERE / "download_worker.py"), way]

        def once() -> tuple[float, float]:
            ended = subprocess.run(
                [*command, json.dumps(job)], check=True, capture_output=True, text=True
            )
            shutil.rmtree(cache)
            seconds, peak = ended.stdout.split()
            return float(seconds), float(peak)

        return once

    def curl(self, url: str, synced: bool = False) -> Way:
        """To a file, and on to the disk if that is asked for."""
        path = self.folder / "curled"
        command = ["curl", "--silent", "--fail", "--output", str(path), url]
        if url.startswith("https"):
            command += ["--cacert", str(self.folder / "cert.pem")]

        def once() -> tuple[float, float]:
            start = time.perf_counter()
            subprocess.run(command, check=True)
            if synced:
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            seconds = time.perf_counter() - start
            path.unlink()
            return seconds, 0.0

        return once

    def unhindered(self) -> list[str]:
        """As fast as this machine can."""
        with self.server() as address:
            url = f"http://{address}"
            ways = {
                "`curl -o`": self.curl(url),
                "`curl -o`, then fsync": self.curl(url, synced=True),
                "ours: sha256, fsync": self.ours(url, "sha256"),
                "ours: sha256 and md5, fsync": self.ours(url, "sha256", "md5"),
                "httpx `iter_raw` to a file": self._worker("parser", url=url),
            }
            if find_spec("huggingface_hub"):
                ways["huggingface_hub `http_get`"] = self._worker("hub", url=url)
            return self.table("Over the loopback", ways)

    def encrypted(self) -> list[str]:
        """The same over TLS."""
        os.environ["SSL_CERT_FILE"] = str(self.certificate())
        with self.server("--tls", str(self.folder)) as address:
            url = f"https://{address}"
            ways = {
                "`curl -o`": self.curl(url),
                "ours: sha256, fsync": self.ours(url, "sha256"),
                "httpx `iter_raw` to a file": self._worker("parser", url=url),
            }
            return self.table("Over TLS", ways)

    def certificate(self) -> Path:
        """A certificate for this machine, with its key beside it."""
        path = self.folder / "cert.pem"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes"]
        command += ["-keyout", str(self.folder / "key.pem"), "-out", str(path)]
        command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        subprocess.run(command, check=True, capture_output=True)
        return path

    def capped(self) -> list[str]:
        """Servers that give each connection, or all of them, so much."""
        sentence = (
            f"From here on with {self.size / 1e6:.0f} MB and {self.rounds} rounds, and "
            "a server that gives each connection, or all of them together, so much."
        )
        page = ["", sentence]
        for title, options in {
            "20 MB/s for each connection": ("--rate", "20e6"),
            "20 MB/s for each connection, answers 0.1 s late": (
                *("--rate", "20e6"),
                *("--delay", "0.1"),
            ),
            "60 MB/s for each connection": ("--rate", "60e6"),
            "40 MB/s for all together": ("--line", "40e6"),
            "90 MB/s for all together": ("--line", "90e6"),
        }.items():
            with self.server(*options) as address:
                url = f"http://{address}"
                ways = {"`curl -o`": self.curl(url)}
                for number in (1, 2, 4, 8):
                    name = f"ours, {number} connection{'s' * (number > 1)}"
                    ways[name] = self.ours(url, "sha256", connections=number)
                page += self.table(title, ways)
        return page

    def warm(self) -> list[str]:
        """What it takes to see that a file is in the store."""
        from inference_models import Artifact, File
        from inference_models.download.store import Store

        file = File(
            "model.bin", [self._file.as_uri()], self.size, self._hashes["sha256"]
        )
        artifact = Artifact("acme", {"main": file.name}, [file])
        root, times = self.folder / "cache", []
        for _ in range(self.rounds + 1):
            start = time.perf_counter()
            Store(root).folder(artifact, lambda source: (source, {}))
            times.append((time.perf_counter() - start) * 1000)
        found = f"{statistics.median(times[1:]):.2f} ms"
        sentence = f"Seeing that the file is there and whole takes {found}."
        return ["", "## Warm", "", sentence]

    def table(self, title: str, ways: dict[str, Way]) -> list[str]:
        """One table; its rows take turns."""
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(self.rounds):
            for name, way in ways.items():
                while self._quiet and idle_share() < 0.9:
                    time.sleep(1)
                found[name].append(way())
        curl = [seconds for seconds, _ in found["`curl -o`"]]
        lines = [f"| {name} | {row(runs, curl)} |" for name, runs in found.items()]
        columns = ["| | seconds | best | of curl | peak |", "| --- |" + " --- |" * 4]
        return ["", f"## {title}", "", *columns, *lines]


def row(runs: list[tuple[float, float]], curl: list[float]) -> str:
    """The cells of one way."""
    times = [seconds for seconds, _ in runs]
    shares = [theirs / ours for theirs, ours in zip(curl, times, strict=True)]
    peak = max(megabytes for _, megabytes in runs)
    cells = [f"{statistics.median(times):.2f}", f"{min(times):.2f}"]
    cells += [f"{statistics.median(shares):.0%}", f"{peak:.0f}" if peak else ""]
    return " | ".join(cells)


if __name__ == "__main__":
    main()
