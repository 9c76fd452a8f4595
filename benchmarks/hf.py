"""Models of transformers: this library's backends beside transformers' own pipeline.

    python benchmarks/hf.py [--rounds 15] [--output benchmarks/results/hf-cpu.md]

Weights are random, of published sizes; what takes turns is compared. The photo is a
PIL image of 640×427 pixels, which pipelines take as well. All run on torch, in one
process.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import scenes
import torch
import transformers as t
from PIL import Image
from run import processor
from turns import Call, measure

from inference_models import AutoModel


def main() -> None:
    """Measure all models and write one page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    t.utils.logging.set_verbosity_error()
    t.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["INFERENCE_MODELS_CACHE"] = str(Path(folder) / "cache")
        rgb = scenes.photo((640, 427))[..., ::-1]
        photo = Image.fromarray(np.ascontiguousarray(rgb))
        lines = [*header(options.rounds), *rows(Path(folder), photo, options.rounds)]
    print("\n".join(lines))
    if options.output:
        options.output.write_text("\n".join(lines) + "\n", "utf-8")


def header(rounds: int) -> list[str]:
    """Where and with what this was measured."""
    names = ("transformers", "torch", "pillow", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    conditions = (
        f"{processor()}, {len(os.sched_getaffinity(0))} cores; {versions}. Medians of "
        f"{rounds} rounds in which the columns take turns; milliseconds for a call "
        "with all its images; in brackets how many times as fast as the pipeline. "
        "Random weights of published sizes, a PIL image of 640×427."
    )
    columns = (
        "`pipeline` is `transformers.pipeline(task, folder)` with its processor on "
        "Pillow (torchvision is not installed), with `batch_size` 8 where there are "
        "eight, but for the detector, where it fails with that; `network` is the "
        "loaded model of transformers alone, on prepared pixels."
    )
    return [
        "# Models of transformers, beside its own pipelines",
        "",
        conditions,
        "",
        columns,
        "",
        "| model | images | pipeline | ours, hf | ours, torch | network |",
        "| --- | --- | --- | --- | --- | --- |",
    ]


def resnet18() -> tuple[Any, Any]:
    """As `microsoft/resnet-18`."""
    config = t.ResNetConfig(
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        num_labels=1000,
    )
    processor = t.ConvNextImageProcessorPil(size={"shortest_edge": 224})
    return t.ResNetForImageClassification(config), processor


def vit_base() -> tuple[Any, Any]:
    """As `google/vit-base-patch16-224`."""
    config = t.ViTConfig(num_labels=1000)
    return t.ViTForImageClassification(config), t.ViTImageProcessorPil()


def rt_detr() -> tuple[Any, Any]:
    """As `PekingU/rtdetr_r18vd`."""
    backbone = t.RTDetrResNetConfig(
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = t.RTDetrConfig(
        backbone_config=backbone,
        encoder_in_channels=[128, 256, 512],
        decoder_layers=3,
        num_labels=80,
    )
    return t.RTDetrForObjectDetection(config), t.RTDetrImageProcessorPil()


MODELS = {
    "resnet-18": ("image-classification", resnet18, (1, 8)),
    "vit-base": ("image-classification", vit_base, (1, 8)),
    "rt-detr r18": ("object-detection", rt_detr, (1, 8)),
}


def rows(folder: Path, photo: Image.Image, rounds: int) -> Iterator[str]:
    """A row for each model and number of images."""
    for name, (task, make, counts) in MODELS.items():
        path = folder / name
        torch.manual_seed(0)
        model, image_processor = make()
        model.save_pretrained(path)
        image_processor.save_pretrained(path)
        for count in counts:
            calls = contestants(path, task, model.eval(), [photo] * count)
            few = max(5, rounds // count)
            medians = [1e3 * s for s in measure(list(calls.values()), few)]
            yield row(name, count, dict(zip(calls, medians, strict=True)))


def contestants(
    path: Path, task: str, network: Any, photos: list[Image.Image]
) -> dict[str, Call]:
    """What is called, by the column it stands in."""
    pipe = t.pipeline(task, str(path), device="cpu")
    # With more, the pipeline of transformers 5.24 fails on the outputs of RT-DETR.
    at_once = len(photos) if task == "image-classification" else 1
    hf = AutoModel.from_pretrained(path, backend="hf")
    inputs, _ = hf.pre_process(photos)
    pixels = torch.as_tensor(inputs["input"])

    def bare() -> Any:
        with torch.inference_mode():
            return network(pixels)

    calls = {
        "pipeline": lambda: pipe(photos, batch_size=at_once),
        "hf": lambda: hf(photos),
        "network": bare,
    }
    explained = AutoModel.explain(path)
    if any(c.backend == "torch" and c.verdict == "runs" for c in explained.candidates):
        own = AutoModel.from_pretrained(path, backend="torch")
        calls["torch"] = lambda: own(photos)
    return calls


def row(name: str, count: int, found: dict[str, float]) -> str:
    """One line of the table."""

    def cell(key: str) -> str:
        if key not in found:
            return "–"
        times = f" ({found['pipeline'] / found[key]:.2f}×)"
        return f"{found[key]:.1f}" + ("" if key in ("pipeline", "network") else times)

    cells = [cell(key) for key in ("pipeline", "hf", "torch", "network")]
    return f"| {name} | {count} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
