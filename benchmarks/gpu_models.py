"""Models of real sizes with seeded random weights, for the benchmark of GPUs."""

from __future__ import annotations

import json
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import scenes
import torch

from inference_models import AutoModel

sys.path.insert(0, str(Path(__file__).parents[1]))

DEPTHS = {"resnet18": 18, "resnet50": 50}
SIZES = {"640×480": (640, 480), "1080p": (1920, 1080), "4K": (3840, 2160)}


@cache
def picture(size: tuple[int, int]) -> np.ndarray:
    """A photo at (width, height), BGR uint8; without scikit-image, smooth noise."""
    if find_spec("skimage") is not None:
        return scenes.photo(size)
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    return np.array(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC))


def write(name: str, folder: Path) -> str:
    """A model's files in the folder, once; what `from_pretrained` takes for them."""
    own = folder / name
    made = own / "made"
    if not made.exists():
        own.mkdir(exist_ok=True)
        made.write_text(_write(name, own), "utf-8")
    return made.read_text("utf-8")


def _write(name: str, own: Path) -> str:
    if name in DEPTHS:
        return _resnet(name, own)
    from tests.checkpoints import rfdetr_cards

    size = name.removeprefix("rfdetr-")
    rfdetr_cards(own, size, picture((640, 480)))
    return str(own / f"{size}.pth")


def _resnet(name: str, own: Path) -> str:
    from tests.cards import resnet_card

    from inference_models_resnet import IMAGENET, imagenet_labels
    from inference_models_resnet.network import ResNet

    torch.manual_seed(0)
    weights = own / f"{name}.pth"
    torch.save(dict(ResNet(DEPTHS[name], 1000).state_dict()), weights)
    config = {"depth": DEPTHS[name], "preprocessing": IMAGENET}
    card = resnet_card(weights, labels=imagenet_labels(), config=config)
    (own / "card.json").write_text(json.dumps(card), "utf-8")
    return str(own)


def write_transformers(name: str, folder: Path) -> str:
    """A folder of transformers with a ResNet of that size."""
    import transformers as t

    own = folder / f"{name}-transformers"
    if own.exists():
        return str(own)
    basic = name == "resnet18"
    config = t.ResNetConfig(
        hidden_sizes=[64, 128, 256, 512] if basic else [256, 512, 1024, 2048],
        depths=[2, 2, 2, 2] if basic else [3, 4, 6, 3],
        layer_type="basic" if basic else "bottleneck",
        num_labels=1000,
    )
    torch.manual_seed(0)
    t.ResNetForImageClassification(config).save_pretrained(own)
    pillow = getattr(t, "ConvNextImageProcessorPil", None) or t.ConvNextImageProcessor
    pillow(size={"shortest_edge": 224}).save_pretrained(own)
    return str(own)


def load(source: str, backend: str, device: str) -> Any:
    """A model on that backend and device, or its refusal."""
    return AutoModel.from_pretrained(source, backend=backend, device=device)


def bare(model: Any, precision: str) -> torch.nn.Module:
    """The module of a model on the torch backend, once more and nothing around it."""
    from inference_models_torch.modules import load_modules

    loaded = model._loaded
    found = load_modules(loaded.bundle, loaded.architecture, model.device, precision)
    return found["main"]


def prepared(model: Any, count: int, precision: str) -> torch.Tensor:
    """A batch of prepared pixels on the model's device."""
    from inference_models_torch.modules import DTYPES

    inputs, _ = model.pre_process([picture(SIZES["640×480"])] * count)
    pixels = torch.as_tensor(np.asarray(model._loaded.operations.host(inputs["input"])))
    return pixels.to(model.device, DTYPES[precision])
