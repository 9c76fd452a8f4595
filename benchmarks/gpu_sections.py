"""The sections of the benchmark of GPUs; each runs in a process of its own."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gpu_contestants as contestants
import gpu_models as models
import torch
from gpu_host import host
from gpu_machine import limits
from gpu_turns import (
    Bench,
    Call,
    Timed,
    measure,
    on_device,
    synchronised,
    used,
    wall,
)
from PIL import Image

Rows = tuple[tuple[int, tuple[str, ...]], ...]
"""Batches, and the pictures each is measured with."""

FULL: Rows = tuple((count, tuple(models.SIZES)) for count in (1, 8, 32))
FEW: Rows = ((1, ("1080p",)), (8, ("1080p",)))
QUICK: Rows = ((1, ("640×480", "1080p")), (2, ("640×480",)))
ROWS: Mapping[str, Rows] = {
    "rfdetr-nano": FULL,
    "resnet50": FULL,
    "rfdetr-base": (*FEW, (32, ("1080p",))),
    "rfdetr-large": FEW,
    "resnet18": FEW,
}


def model(name: str, bench: Bench, folder: Path) -> None:
    """One model's calls and its network alone, and where a call's time goes."""
    rows = QUICK if bench.quick else ROWS[name]
    source = models.write(name, folder)
    before = bench.fresh()
    plain = models.load(source, "torch", bench.device)
    bench.note((name, "–", "ours, torch"), before)
    bench.rows_left = sum(1 + len(sizes) for _, sizes in rows)
    named = name in ("rfdetr-nano", "resnet50")
    bench.rows_left += named
    if named:
        steps(bench, name, plain)
    calls = {"ours, torch": plain, **others(bench, name, source, folder)}
    hand = written_by_hand(bench, name, plain)
    for count, sizes in rows:
        runs = contestants.graphs(bench, name, plain, count)
        best = network(bench, name, count, plain.precision, runs)
        for size in sizes:
            images = [models.picture(models.SIZES[size])] * count
            turns: dict[str, Timed | None] = {
                title: wall(partial(own, images)) for title, own in calls.items()
            }
            turns["by hand, fp32"] = wall(partial(hand, images)) if hand else None
            turns["network"] = best
            row = (name, count, size)
            found = measure(bench, turns, row)
            kinds = {t: own.precision for t, own in calls.items()}
            bench.send("calls", {"row": row, "kinds": kinds, **found})
        del runs, best, turns
        bench.clean()
        send_memory(bench)


def send_memory(bench: Bench) -> None:
    """What each contestant took; of ONNX Runtime, torch sees no calls."""
    for (name, count, what), mebibytes in bench.added.items():
        if what != "network" and (what != "ours, onnx" or count == "–"):
            key = {"model": name, "images": count, "what": what}
            bench.send("memory", {**key, "MiB": mebibytes})


def network(
    bench: Bench, name: str, count: int, precision: str, runs: dict[str, Call | None]
) -> Timed | None:
    """A row of the network alone; returns the fastest replay's turn."""
    turns = {t: run and on_device(bench, run) for t, run in runs.items()}
    found = measure(bench, turns, (name, count))
    row = {"row": (name, count), "precision": precision, **found}
    bench.send("network", row)
    replayed = [title for title in contestants.LAYOUTS if title in found]
    known = replayed or [title for title in runs if title in found]
    return turns[min(known, key=found.__getitem__)] if known else None


def others(bench: Bench, name: str, source: str, folder: Path) -> dict[str, Any]:
    """Our other backends that reach the device."""
    wanted: dict[str, Callable[[], Any]] = {
        "ours, onnx": partial(models.load, source, "onnx", bench.device)
    }
    if name in models.DEPTHS:
        wanted["ours, hf"] = lambda: models.load(
            models.write_transformers(name, folder), "hf", bench.device
        )
    loaded = {}
    for title, make in wanted.items():
        before = used(bench)
        loaded[title] = bench.attempt(f"{name}, {title}", make)
        if loaded[title] is not None and bench.on_gpu:
            bench.added[(name, "–", title)] = used(bench) - before
    return {title: own for title, own in loaded.items() if own is not None}


def written_by_hand(bench: Bench, name: str, plain: Any) -> Any:
    """The eager float32 call, or None."""
    height, width = models.prepared(plain, 1, "fp32").shape[2:]
    crop = name in models.DEPTHS

    def make() -> Any:
        module = models.bare(plain, "fp32")
        return contestants.by_hand(module, bench.device, (height, width), crop=crop)

    return bench.attempt(f"{name}, by hand", make)


def steps(bench: Bench, name: str, plain: Any) -> None:
    """Where a call with one picture of 1080p spends its time."""
    images = [models.picture(models.SIZES["1080p"])]
    inputs, frames = plain.pre_process(images)
    outputs = plain.forward(inputs)
    parts: dict[str, Call] = {
        "pre_process": lambda: plain.pre_process(images),
        "forward": lambda: plain.forward(inputs),
        "post_process": lambda: plain.post_process(outputs, frames),
        "call": lambda: plain(images),
    }
    turns = {title: wall(partial(synchronised, bench, p)) for title, p in parts.items()}
    found = measure(bench, turns, (name, 1))
    for step in parts:
        bench.added.pop((name, 1, step), None)
    bench.send("steps", {"model": name, **found})


def compiled(name: str, bench: Bench, folder: Path) -> None:
    """The network beside torch.compile's, with all data on the device already."""
    plain = models.load(models.write(name, folder), "torch", bench.device)
    counts = (1,) if bench.quick else (32, 1, 8)
    bench.rows_left = 2 * len(counts)
    for count in counts:
        pixels = models.prepared(plain, count, plain.precision)
        runs = contestants.graphs(bench, name, plain, count)
        runs["ours, forward"] = partial(plain.forward, {"input": pixels})
        if name in models.DEPTHS:
            bytes_ = torch.zeros_like(pixels, dtype=torch.uint8)
            runs["ours, call on uint8"] = partial(plain, bytes_)
        _resident(bench, (name, count, "before"), plain.precision, runs)
        module = models.bare(plain, plain.precision)
        fast = torch.compile(module, mode="reduce-overhead", dynamic=False)
        run = contestants.eager(fast, pixels)
        what = f"{name}, {count} pictures: torch.compile"
        runs["compiled"] = bench.attempt(what, partial(_compiled, run))
        _resident(bench, (name, count, "all"), plain.precision, runs)
        torch.compiler.reset()


def _compiled(run: Call) -> Call:
    """The same, after the runs that compile and capture it."""
    for _ in range(3):
        run()
    return run


def _resident(
    bench: Bench, row: tuple[Any, ...], precision: str, runs: dict[str, Call | None]
) -> None:
    turns = {t: run and on_device(bench, run) for t, run in runs.items()}
    found = measure(bench, turns, row)
    bench.send("resident", {"row": row[:2], "precision": precision, **found})


def pipeline(bench: Bench, folder: Path) -> None:
    """Transformers' pipeline beside ours, on the same folder and pictures."""
    import transformers as t

    t.utils.logging.set_verbosity_error()
    source = models.write_transformers("resnet50", folder)
    half = torch.float16 if bench.on_gpu else torch.float32
    pipe = t.pipeline("image-classification", source, device=bench.device, dtype=half)
    hf = models.load(source, "hf", bench.device)
    ours = models.load(models.write("resnet50", folder), "torch", bench.device)
    array = models.picture(models.SIZES["1080p"])
    photo = Image.fromarray(array[..., ::-1].copy())
    counts = (1,) if bench.quick else (1, 8)
    bench.rows_left = len(counts)
    for count in counts:
        turns = {
            "pipeline": wall(partial(pipe, [photo] * count, batch_size=count)),
            "ours, hf": wall(partial(hf, [photo] * count)),
            "ours, torch": wall(partial(ours, [photo] * count)),
        }
        row = ("resnet50", count)
        bench.send("pipeline", {"row": row, **measure(bench, turns, row)})


def official(bench: Bench, folder: Path) -> None:
    """The official package of RF-DETR beside ours, on the same checkpoint."""
    import rfdetr  # noqa: F401 - where it is missing, no files are made

    sizes = ("nano",) if bench.quick else ("nano", "base")
    bench.rows_left = len(sizes)
    array = models.picture(models.SIZES["1080p"])
    rgb = array[..., ::-1].copy()
    for size in sizes:
        checkpoint = models.write(f"rfdetr-{size}", folder)
        make = partial(contestants.official, size, checkpoint, bench.device, 1)
        theirs = bench.attempt(f"rfdetr-{size}, the official package", make)
        if theirs is None:
            continue
        ours = models.load(checkpoint, "torch", bench.device)
        turns = {
            "the official package": wall(partial(theirs, [rgb])),
            "ours, torch": wall(partial(ours, [array])),
        }
        row = (f"rfdetr-{size}", 1)
        bench.send("official", {"row": row, **measure(bench, turns, row)})


def florence(bench: Bench, folder: Path) -> None:
    """Florence-2's texts, beside transformers' generate."""
    import florence2

    size = "tiny" if bench.quick else "base"
    own = florence2.write_florence(folder / "florence2", size=size)
    options = Namespace(
        device=bench.device,
        precision="fp16" if bench.on_gpu else "fp32",
        rounds=1 if bench.quick else 5,
        backends=["torch", "hf"],
    )
    photo = models.picture((640, 427))
    bench.send("florence2", {"header": florence2.columns(options)})
    for line in florence2.rows(own, options, photo):
        bench.send("florence2", {"line": line})


SECTIONS: dict[str, tuple[float, Callable[[Bench, Path], None]]] = {
    "limits": (0.5, limits),
    "host": (0.8, host),
    "rfdetr-nano": (2.5, partial(model, "rfdetr-nano")),
    "resnet50": (2.5, partial(model, "resnet50")),
    "rfdetr-base": (1.5, partial(model, "rfdetr-base")),
    "florence2": (3, florence),
    "pipeline": (0.8, pipeline),
    "rfdetr-large": (1.5, partial(model, "rfdetr-large")),
    "resnet18": (0.7, partial(model, "resnet18")),
    "resnet50, compiled": (3, partial(compiled, "resnet50")),
    "rfdetr-nano, compiled": (3, partial(compiled, "rfdetr-nano")),
    "official": (0.5, official),
}
"""Each with its share of the time, in the order they run."""
