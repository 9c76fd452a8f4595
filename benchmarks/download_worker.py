"""One download in a process of its own: `download_worker.py WAY JOB`, a JSON object.

Prints seconds, imports left out, and the peak memory in megabytes.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def ours(job: dict[str, Any]) -> float:
    """Into the store, hashed, and on the disk for good."""
    import httpx  # noqa: F401 - imported before the clock starts

    from inference_models import Artifact, File
    from inference_models.download.limits import Limits
    from inference_models.download.store import Store

    hashes = {name: job[name] for name in ("sha256", "md5") if name in job}
    file = File("model.bin", [job["url"]], job["size"], **hashes)
    artifact = Artifact("acme", {"main": file.name}, [file])
    store = Store(Path(job["cache"]), Limits(connections=job.get("connections", 4)))
    start = time.perf_counter()
    folder = store.folder(artifact, lambda source: (source, {}))
    seconds = time.perf_counter() - start
    assert (folder / file.name).stat().st_size == job["size"]
    return seconds


def parser(job: dict[str, Any]) -> float:
    """What httpx's own iteration takes to write the file, without any hash."""
    import httpx

    path = Path(job["cache"]) / "model.bin"
    path.parent.mkdir(parents=True)
    start = time.perf_counter()
    with (
        path.open("wb") as file,
        httpx.Client() as client,
        client.stream("GET", job["url"]) as response,
    ):
        for chunk in response.iter_raw():
            file.write(chunk)
    return time.perf_counter() - start


def hub(job: dict[str, Any]) -> float:
    """huggingface_hub's plain download, which hashes nothing."""
    from huggingface_hub.file_download import http_get

    path = Path(job["cache"]) / "model.bin"
    path.parent.mkdir(parents=True)
    start = time.perf_counter()
    with path.open("wb") as file:
        http_get(job["url"], file, expected_size=job["size"])
    return time.perf_counter() - start


def peak_megabytes() -> float:
    """Peak resident memory of this process alone."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1000


if __name__ == "__main__":
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    way = {"ours": ours, "parser": parser, "hub": hub}[sys.argv[1]]
    print(way(json.loads(sys.argv[2])), peak_megabytes())
