"""What is measured on: photos of three sizes, and a ResNet-18 with random weights."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SIZES = {"640×427": (640, 427), "1080p": (1920, 1080), "4K": (3840, 2160)}


def timed(function: Callable[[], object]) -> float:
    """Milliseconds that a call takes."""
    start = time.perf_counter()
    function()
    return (time.perf_counter() - start) * 1000


def photo(size: tuple[int, int]) -> np.ndarray:
    """A photograph at (width, height), BGR uint8 as OpenCV would read it."""
    from importlib.util import find_spec

    from PIL import Image

    spec = find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "data" / "motorcycle_left.png"
    with Image.open(path) as picture:
        resized = picture.convert("RGB").resize(size)
    return np.ascontiguousarray(np.asarray(resized)[..., ::-1])


def write(folder: Path) -> None:
    """A card folder with a ResNet-18, and a JPEG of each size."""
    import torch
    from PIL import Image
    from safetensors.torch import save_file

    from inference_models_resnet import IMAGENET, imagenet_labels
    from inference_models_resnet.network import ResNet

    torch.manual_seed(0)
    weights = folder / "resnet18.safetensors"
    save_file(dict(ResNet(18, 1000).state_dict()), weights)
    file = {
        "name": weights.name,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }
    card = {
        "id": "resnet18",
        "architecture": "resnet",
        "task": "classification",
        "labels": imagenet_labels(),
        "config": {"depth": 18, "preprocessing": IMAGENET},
        "artifacts": [
            {"format": "torch", "graphs": {"main": weights.name}, "files": [file]}
        ],
    }
    (folder / "resnet18.json").write_text(json.dumps(card), "utf-8")
    for name, size in SIZES.items():
        picture = Image.fromarray(photo(size)[..., ::-1])
        picture.save(folder / f"{name}.jpg", quality=90)
