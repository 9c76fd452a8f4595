"""One backend's calls, split into their parts: `calls.py BACKEND FOLDER ROUNDS`.

Prints JSON rows: `call` is `model(image)` end to end, `run` the bare runtime on the
prepared tensor, `prepare` and `post` our parts around it, `share` what the library adds
beyond preparing the pixels: call - run - prepare. `resize` is the resize alone, by the
fastest means that this installation has (torch, else Pillow). `decode` comes before all
of it where the images are files: as many JPEGs of that size, read to arrays.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scenes

from inference_models import AutoModel
from inference_models.images import read_images

MODELS = {"onnx": ("resnet18", "yolox-nano"), "torch": ("resnet18",)}


def main() -> None:
    """Measure every model, size and batch."""
    backend, folder, rounds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    rows = []
    for model_id in MODELS[backend]:
        model = AutoModel.from_pretrained(model_id, backend=backend)
        bare = bare_run(model, backend, folder)
        for size_name, size in scenes.SIZES.items():
            for batch in (1, 8):
                images = [scenes.photo(size)] * batch
                times = measure(model, bare, images, max(4, rounds // (2 * batch)))
                files = [folder / f"{size_name}.jpg"] * batch
                times["decode"] = decode(files)
                rows.append(
                    {"model": model_id, "image": size_name, "batch": batch, **times}
                )
    json.dump(rows, sys.stdout)


def measure(
    model: Any, bare: Callable[[Any], Any], images: list[np.ndarray], rounds: int
) -> dict[str, float]:
    """Medians of a call and of its parts, which take turns."""
    inputs, frames = model.pre_process(images)
    outputs = model.forward(inputs)
    tensor = inputs["input"]
    resize = bare_resize(model, images[0])
    parts: dict[str, Callable[[], object]] = {
        "call": lambda: model(images),
        "run": lambda: bare(tensor),
        "prepare": lambda: model.pre_process(images),
        "post": lambda: model.post_process(outputs, frames),
        "resize": lambda: [resize() for _ in images],
    }
    found: dict[str, list[float]] = {name: [] for name in (*parts, "share")}
    for function in parts.values():
        function()
    for _ in range(rounds):
        now = {name: steady(function) for name, function in parts.items()}
        now["share"] = now["call"] - now["run"] - now["prepare"]
        for name, milliseconds in now.items():
            found[name].append(milliseconds)
    return {name: statistics.median(times) for name, times in found.items()}


def decode(files: list[Path]) -> float:
    """Milliseconds to read JPEGs, the median of five times."""
    times = [scenes.timed(lambda: read_images(files)) for _ in range(5)]
    return statistics.median(times)


def steady(function: Callable[[], object]) -> float:
    """Milliseconds of the better of two calls, after two that are not counted.

    ONNX Runtime's threads go on spinning for a while after a run, and ours and the bare
    session's would take each other's cores.
    """
    times = [scenes.timed(function) for _ in range(4)]
    return min(times[2:])


def bare_run(model: Any, backend: str, folder: Path) -> Callable[[Any], Any]:
    """The runtime as a user would call it by hand, on the prepared tensor."""
    if backend == "torch":
        return bare_module(folder)
    import onnxruntime

    bundle = model._loaded.bundle
    session = onnxruntime.InferenceSession(bundle.path("main"))
    name, fixed = session.get_inputs()[0].name, session.get_inputs()[0].shape[0]
    if fixed == 1:
        return lambda batch: [session.run(None, {name: one[None]}) for one in batch]
    return lambda batch: session.run(None, {name: batch})


def bare_module(folder: Path) -> Callable[[Any], Any]:
    """The eager module under inference mode."""
    import torch
    from safetensors.torch import load_file

    from inference_models_resnet.network import ResNet

    network = ResNet(18, 1000)
    network.load_state_dict(load_file(folder / "resnet18.safetensors"))
    network.eval()

    def run(batch: Any) -> Any:
        with torch.inference_mode():
            return network(batch)

    return run


def bare_resize(model: Any, image: np.ndarray) -> Callable[[], object]:
    """The resize that the model's preprocessing asks for, and nothing else."""
    from inference_models.preprocess import place

    spec = model._loaded.spec
    height, width = place(spec, *image.shape[:2]).resized
    if model.backend == "torch":
        import torch
        from torch.nn.functional import interpolate

        pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
        return lambda: interpolate(
            pixels, (height, width), mode=spec.interpolation, antialias=True
        )
    from PIL import Image

    bilinear = Image.Resampling.BILINEAR
    if spec.antialias:
        return lambda: Image.fromarray(image).resize((width, height), bilinear)
    steps = (image.shape[1] / width, 0, 0, 0, image.shape[0] / height, 0)
    return lambda: Image.fromarray(image).transform(
        (width, height), Image.Transform.AFFINE, steps, bilinear
    )


if __name__ == "__main__":
    main()
