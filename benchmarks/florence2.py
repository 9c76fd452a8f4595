"""Florence-2 on this machine, beside transformers' own `generate`.

    python benchmarks/florence2.py [--rounds 3] [--output results/florence2-cpu.md]
    python benchmarks/florence2.py --device cuda --precision fp16

A model of the size of Florence-2-base with seeded random weights writes texts of a
fixed number of tokens, greedily. Both begin with the same photo in memory: a PIL image
for transformers' processor, the same for ours; what takes turns is compared.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import florence2_pasts
import numpy as np
import scenes
import torch
import transformers as t
from PIL import Image
from run import processor
from turns import Call, measure

from inference_models import AutoModel

sys.path.insert(0, str(Path(__file__).parents[1]))
from plugins.florence2.tests.florence_folders import write_florence

PROMPTS = ("<CAPTION>", "<OD>", "<OCR>")
TOKENS = 20
CONTESTANTS = (
    "`transformers` is `Florence2ForConditionalGeneration.generate` on what its "
    "processor makes of pictures and prompts; three prompts on one picture are a batch "
    "of three there, and one encoded picture here. `tokens a second` are those of the "
    "fastest of ours."
)


def main() -> None:
    """Measure all and write one page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backends", nargs="+", default=["torch", "hf", "onnx"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    t.utils.logging.set_verbosity_error()
    t.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        os.environ["INFERENCE_MODELS_CACHE"] = str(Path(name) / "cache")
        folder = write_florence(Path(name) / "base", size="base")
        photo = scenes.photo((640, 427))
        lines = [*header(options), *rows(folder, options, photo)]
        config = json.loads((folder / "config.json").read_text("utf-8"))
        lines += florence2_pasts.section(config, options.rounds)
    print("\n".join(lines))
    if options.output:
        options.output.write_text("\n".join(lines) + "\n", "utf-8")


def header(options: argparse.Namespace) -> list[str]:
    """Where and with what this was measured."""
    names = ("transformers", "torch", "onnxruntime", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    conditions = (
        f"{processor()}, {len(os.sched_getaffinity(0))} cores; {versions}. Medians of "
        f"{options.rounds} rounds in which the columns take turns; seconds for a call "
        "with all its pictures and prompts; in brackets how many times as fast as "
        "transformers. A model of the size of Florence-2-base, random weights, "
        f"{options.precision}; {TOKENS} tokens a text, greedily; PIL images of 640×427."
    )
    title = "# Florence-2, beside transformers"
    return [title, "", conditions, "", CONTESTANTS, "", *columns(options)]


def columns(options: argparse.Namespace) -> list[str]:
    """The head of the table."""
    names = ["transformers", *(f"ours, {name}" for name in options.backends)]
    return [
        f"| pictures | prompts each | {' | '.join(names)} | tokens a second |",
        "| --- " * (len(names) + 3) + "|",
    ]


def rows(folder: Path, options: argparse.Namespace, photo: np.ndarray) -> Iterator[str]:
    """A row for each number of pictures and prompts; the photo is BGR."""
    picture = Image.fromarray(np.ascontiguousarray(photo[..., ::-1]))
    reference = theirs(folder, options.device, options.precision)
    models = [
        AutoModel.from_pretrained(
            folder, backend=b, device=options.device, quantization=options.precision
        )
        for b in options.backends
    ]
    for pictures, prompts in ((1, 1), (1, 3), (4, 1)):
        calls = [reference(picture, pictures, PROMPTS[:prompts])]
        calls += [ours(model, picture, pictures, PROMPTS[:prompts]) for model in models]
        medians = measure(calls, options.rounds)
        cells = [f"{medians[0]:.2f}"]
        cells += [f"{own:.2f} ({medians[0] / own:.2f}×)" for own in medians[1:]]
        speed = pictures * prompts * TOKENS / min(medians[1:])
        yield f"| {pictures} | {prompts} | {' | '.join(cells)} | {speed:.1f} |"


def theirs(
    folder: Path, device: str, precision: str
) -> Callable[[Image.Image, int, tuple[str, ...]], Call]:
    """Transformers' model and processor."""
    dtype = {"fp32": torch.float32, "fp16": torch.float16}[precision]
    network = t.Florence2ForConditionalGeneration.from_pretrained(folder, dtype=dtype)
    network.eval().to(device)
    prepare = t.AutoProcessor.from_pretrained(folder)

    def made(picture: Image.Image, pictures: int, prompts: tuple[str, ...]) -> Call:
        texts = list(prompts) * pictures

        def call() -> Any:
            inputs = prepare(
                text=texts,
                images=[picture] * len(texts),
                return_tensors="pt",
                padding=True,
            ).to(device, dtype)
            with torch.inference_mode():
                tokens = network.generate(
                    **inputs,
                    num_beams=1,
                    do_sample=False,
                    max_new_tokens=TOKENS,
                )
            return tokens.cpu()

        return call

    return made


def ours(model: Any, picture: Image.Image, pictures: int, prompts: Any) -> Call:
    """A call with one prompt for all pictures, or with several for one."""
    asked = prompts[0] if len(prompts) == 1 else list(prompts)

    def call() -> Any:
        return model.prompt([picture] * pictures, asked, max_new_tokens=TOKENS)

    return call


if __name__ == "__main__":
    main()
