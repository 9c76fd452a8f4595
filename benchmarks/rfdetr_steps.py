"""What each step that makes RF-DETR faster on a CPU gains, side by side in one process.

    python benchmarks/rfdetr_steps.py [--sizes nano base] [--rounds 12]

The network alone, on one prepared picture, with seeded random weights. Each row adds
one step to the row above it; the rows take turns, and their medians are given.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import scenes
import torch

from inference_models import Artifact, AutoModel, Bundle, Plan
from inference_models_onnx import OnnxBackend
from inference_models_rfdetr import RfDetr
from inference_models_torch import export, packed
from inference_models_torch.modules import load_modules

Run = Callable[[np.ndarray], Any]


def main() -> None:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["nano", "base"])
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as folder:
            model = loaded(size, Path(folder))
            inputs, _ = model.pre_process(scenes.photo(scenes.SIZES["640×427"]))
            rows = dict(steps(model._loaded.bundle, Path(folder)))
            show(size, measure(rows, np.asarray(inputs["input"]), arguments.rounds))


def loaded(size: str, folder: Path) -> Any:
    """A model of seeded random weights, loaded from a checkpoint."""
    from inference_models_rfdetr.layout import SIZES
    from inference_models_rfdetr.network import RfDetr as Network

    network = Network(SIZES[size])
    generator = torch.Generator().manual_seed(0)
    for tensor in network.state_dict().values():
        tensor.normal_(0, 0.05, generator=generator)
    torch.save({"model": network.state_dict()}, folder / f"{size}.pth")
    return AutoModel.from_pretrained(folder / f"{size}.pth", backend="torch")


def steps(bundle: Bundle, folder: Path) -> Iterator[tuple[str, Run]]:
    """Name and network of each row."""
    yield "torch, eager", torch_run(network(bundle))
    yield "+ channels last", torch_run(channels_last(network(bundle)))
    activations, packed._ACTIVATIONS = packed._ACTIVATIONS, {}
    layers = channels_last(packed.pack_linears(network(bundle)))
    packed._ACTIVATIONS = activations
    yield "+ linear layers packed for oneDNN", torch_run(layers)
    fused = channels_last(packed.pack_linears(network(bundle)))
    yield "+ GELU within them", torch_run(fused)
    translations, export.TRANSLATIONS = export.TRANSLATIONS, {}
    opset, export.OPSET = export.OPSET, 18
    yield "ONNX Runtime, opset 18", bare(written(bundle, folder / "18"))
    export.OPSET = opset
    yield "+ opset 20, for its Gelu", bare(written(bundle, folder / "20"))
    export.TRANSLATIONS = translations
    path = written(bundle, folder / "attention")
    yield "+ attention in fewer operators", bare(path)
    yield "+ our session's threads", session(bundle, path)


def network(bundle: Bundle) -> torch.nn.Module:
    """The module as it is loaded."""
    return load_modules(bundle, RfDetr(bundle), "cpu", "fp32")["main"]


def channels_last(module: torch.nn.Module) -> torch.nn.Module:
    """Filters with their channels innermost, as the session has them."""
    return module.to(memory_format=torch.channels_last)


def torch_run(module: torch.nn.Module) -> Run:
    """Call a module without gradients."""

    def run(pixels: np.ndarray) -> Any:
        with torch.inference_mode():
            tensor = torch.from_numpy(pixels)
            return module(tensor.contiguous(memory_format=torch.channels_last))

    return run


def written(bundle: Bundle, folder: Path) -> Path:
    """An ONNX file as the backend derives it."""
    folder.mkdir()
    export.export_bundle(bundle, RfDetr(bundle), "fp32", folder, lambda *_: None)
    return folder / "model.onnx"


def bare(path: Path) -> Run:
    """ONNX Runtime with its own defaults."""
    opened = onnxruntime.InferenceSession(path)
    return lambda pixels: opened.run(None, {"input": pixels})


def session(bundle: Bundle, path: Path) -> Run:
    """The onnx backend's session."""
    derived = Bundle(bundle.card, Artifact("onnx", {"main": path.name}), path.parent)
    opened = OnnxBackend().open(derived, RfDetr(bundle), Plan("cpu", "fp32"))["main"]
    return lambda pixels: opened(input=pixels)


def measure(
    rows: dict[str, Run], pixels: np.ndarray, rounds: int
) -> dict[str, list[float]]:
    """Milliseconds of each row in each round, after one call that is not counted."""
    found: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(rounds):
        for name, run in rows.items():
            run(pixels)
            found[name].append(scenes.timed(lambda run=run: run(pixels)))
            time.sleep(0.05)  # threads go on spinning for a while
    return found


def show(size: str, found: dict[str, list[float]]) -> None:
    """Print the medians, and the median of what each row gains over the one above."""
    print(f"\n| rfdetr-{size} | ms | of the row above |\n| --- | --- | --- |")
    above: list[float] | None = None
    for name, times in found.items():
        ratio = ""
        if above is not None and name.startswith("+"):
            pairs = zip(times, above, strict=True)
            ratio = f"{statistics.median(a / b for a, b in pairs):.2f}"
        print(f"| {name} | {statistics.median(times):.1f} | {ratio} |")
        above = times


if __name__ == "__main__":
    main()
