"""What runs beside this library on a GPU: the network alone, and code by hand."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import gpu_models
import numpy as np
import torch
from gpu_turns import Bench, Call
from torch.nn.functional import interpolate

LAYOUTS = {
    "graph": torch.contiguous_format,
    "graph, channels last": torch.channels_last,
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def eager(module: torch.nn.Module, pixels: torch.Tensor) -> Call:
    """The module as it is called by hand."""
    return torch.inference_mode()(partial(module, pixels))


def graph(bench: Bench, module: torch.nn.Module, pixels: torch.Tensor) -> Call:
    """The module captured once into a CUDA graph, and replayed; eager on a CPU."""
    if not bench.on_gpu:
        return eager(module, pixels)
    run = eager(module, pixels)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        kept = run()
    return partial(_replay, captured, (module, pixels, kept))


def _replay(captured: Any, _kept: Any) -> None:
    captured.replay()


def graphs(bench: Bench, name: str, model: Any, count: int) -> dict[str, Call | None]:
    """The network in the model's precision: two layouts replayed, and one eager."""
    pixels = gpu_models.prepared(model, count, model.precision)
    found: dict[str, Call | None] = {}
    for title, layout in LAYOUTS.items():
        before = bench.fresh()
        module = gpu_models.bare(model, model.precision).to(memory_format=layout)
        batch = pixels.to(memory_format=layout)
        what = f"{name}, {count} pictures: {title}"
        found[title] = bench.attempt(what, partial(graph, bench, module, batch))
        bench.note((name, count, title), before)
    module = gpu_models.bare(model, model.precision)
    return {**found, "eager": eager(module, pixels)}


def by_hand(
    module: torch.nn.Module, device: str, size: tuple[int, int], *, crop: bool
) -> Any:
    """A call as a user of torch would write it, in float32."""
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (MEAN, STD))

    @torch.inference_mode()
    def call(images: Sequence[np.ndarray]) -> list[torch.Tensor]:
        batch = [_one(image, device, size, crop) for image in images]
        outputs = module((torch.cat(batch) / 255 - mean) / std)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return [output.cpu() for output in outputs]

    return call


def _one(
    image: np.ndarray, device: str, size: tuple[int, int], crop: bool
) -> torch.Tensor:
    pixels = torch.from_numpy(image).to(device).permute(2, 0, 1)[None].flip(1).float()
    if not crop:
        return interpolate(pixels, size, mode="bilinear", antialias=True)
    height, width = image.shape[:2]
    ratio = 256 / min(height, width)
    longer = (round(height * ratio), round(width * ratio))
    pixels = interpolate(pixels, longer, mode="bilinear", antialias=True)
    top, left = ((whole - own) // 2 for whole, own in zip(longer, size, strict=True))
    return pixels[..., top : top + size[0], left : left + size[1]]


def official(size: str, checkpoint: str, device: str, count: int) -> Any:
    """The official package's `predict`, after its own optimisation."""
    import rfdetr

    variant = getattr(rfdetr, f"RFDETR{size.capitalize()}")
    model = variant(pretrain_weights=checkpoint, device=device)
    optimise = getattr(model, "optimize_for_inference", None) or model.inference
    half = torch.float16 if device.startswith("cuda") else torch.float32
    optimise(batch_size=count, dtype=half)
    return partial(model.predict, threshold=0.5)
