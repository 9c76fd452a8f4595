"""What the host does in a call, function by function, and what an upload is made of."""

from __future__ import annotations

import contextlib
import functools
import importlib
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gpu_models as models
import torch
from gpu_turns import Bench, Call, Timed, measure, on_device, synchronised, wall

WATCHED = {
    "pre_process": ("inference_models.model", "Model._preprocess"),
    "read": ("inference_models.images", "_read"),
    "place": ("inference_models_torch.operations", "place_batch"),
    "upload": ("inference_models_torch.operations", "upload"),
    "kernel": ("inference_models_torch.mixer", "Mixer.lay"),
    "forward": ("inference_models.model", "Model._forward"),
    "graph": ("inference_models_torch.graphs", "Graphs.__call__"),
    "post_process": ("inference_models.model", "Model._postprocess"),
    "host": ("inference_models_torch.operations", "TorchOperations.host"),
    "hosts": ("inference_models_torch.operations", "TorchOperations.hosts"),
}
"""Functions of a call, by what they are called in the table."""

PIECES = (1, 2, 4, 32)
"""MiB that are on their way at a time; the library's own is among them."""


def host(bench: Bench, folder: Path) -> None:
    """How long the host is in each function of a call, and in parts of an upload."""
    uploads(bench)
    for name in ("resnet50", "rfdetr-nano"):
        model = models.load(models.write(name, folder), "torch", bench.device)
        for count in (1, 2) if bench.quick else (1, 32):
            for size in ("640×480", "1080p"):
                images = [models.picture(models.SIZES[size])] * count
                found = watched(partial(model, images), 3 if bench.quick else 50)
                bench.send("host", {"row": (name, count, size), **found})
        model.close()


def watched(call: Call, times: int) -> dict[str, float]:
    """Medians of the milliseconds that calls spend in each function, and as a whole."""
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(3):
        call()
    for _ in range(times):
        with watching() as spent:
            start = time.perf_counter()
            call()
            spent["call"] = (time.perf_counter() - start) * 1e3
        for name, value in spent.items():
            found[name].append(value)
    return {name: statistics.median(values) for name, values in found.items()}


@contextlib.contextmanager
def watching() -> Iterator[dict[str, float]]:
    """Add up the milliseconds that pass in what is watched."""
    spent: dict[str, float] = defaultdict(float)
    with contextlib.ExitStack() as undo:
        for name, (module, path) in WATCHED.items():
            *within, attribute = path.split(".")
            owner = functools.reduce(getattr, within, importlib.import_module(module))
            original = getattr(owner, attribute)
            undo.callback(setattr, owner, attribute, original)
            setattr(owner, attribute, _timed(original, name, spent))
        yield spent


def _timed(
    function: Callable[..., Any], name: str, spent: dict[str, float]
) -> Callable[..., Any]:
    @functools.wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent[name] += (time.perf_counter() - start) * 1e3

    return timed


def uploads(bench: Bench) -> None:
    """The parts of an upload, each alone, for each size of a picture."""
    bench.rows_left = 2 * len(models.SIZES)  # half of the time is for the calls
    for size, sides in models.SIZES.items():
        pixels = torch.from_numpy(models.picture(sides)).permute(2, 0, 1)
        row = (size,)
        found = measure(bench, parts(bench, pixels), row)
        bench.send("uploads", {"row": row, **found})


def parts(bench: Bench, pixels: torch.Tensor) -> dict[str, Timed | None]:
    """Turns of what an upload consists of, and of the whole of it."""
    from inference_models_torch import upload

    device = torch.device(bench.device)
    flat = pixels.permute(1, 2, 0)
    pinned = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=bench.on_gpu)
    there = torch.empty(flat.shape, dtype=flat.dtype, device=device)
    every = torch.get_num_threads()

    def cross() -> torch.Tensor:
        return there.copy_(pinned, non_blocking=True)

    copies: dict[str, Timed | None] = {
        f"copy by {count}": _threaded(count, lambda: pinned.copy_(flat))
        for count in sorted({1, min(4, every), every})
    }
    new = partial(torch.empty, flat.shape, dtype=flat.dtype, pin_memory=bench.on_gpu)

    def whole(mebibytes: int) -> Timed:
        def run() -> Any:
            before, upload._PIECE = upload._PIECE, mebibytes << 20
            try:
                return synchronised(bench, lambda: upload.upload(pixels, device))
            finally:
                upload._PIECE = before

        return wall(run)

    return {
        **copies,
        "pinned memory": wall(new),
        "over the bus": on_device(bench, cross),
        "pageable": wall(partial(synchronised, bench, lambda: flat.to(device))),
        **{f"upload by {size} MiB": whole(size) for size in PIECES},
    }


def _threaded(count: int, call: Call) -> Timed:
    """A turn of a call by as many of torch's threads."""

    def turn() -> float:
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            return wall(call)()
        finally:
            torch.set_num_threads(before)

    return turn
