"""Photos, and weights in real formats, for tests that need several distributions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .cards import florence2_card, resnet_card
from .checkpoints import rfdetr_cards


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Nobody's cache, and unknown ids are asked of nobody outside this machine.

    From the start: fixtures of a module load models before those of a test are made.
    """
    folder = tmp_path_factory.mktemp("own_cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INFERENCE_MODELS_CACHE", str(folder))
        patch.setenv("ROBOFLOW_API_HOST", "http://127.0.0.1:9")
        patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        yield folder


def package_folder(name: str) -> Path:
    """Where a package lies, without importing it."""
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@pytest.fixture
def run() -> Callable[..., str]:
    """Runs code in a process of its own, in a folder, and returns what it printed."""

    def run_code(code: str, folder: Path, **environment: str) -> str:
        result = subprocess.run(
            [sys.executable, "-c", code],
            cwd=folder,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run_code


@pytest.fixture(scope="session")
def photos() -> dict[str, np.ndarray]:
    """scikit-image's photographs as OpenCV would read them: BGR, (H, W, 3), uint8."""
    folder = package_folder("skimage") / "data"
    names = {"motorcycle": "motorcycle_left"}
    found = {}
    for name in ("astronaut", "coffee", "chelsea", "motorcycle"):
        with Image.open(folder / f"{names.get(name, name)}.png") as picture:
            rgb = np.asarray(picture.convert("RGB"))
        found[name] = np.ascontiguousarray(rgb[..., ::-1])
    return found


@pytest.fixture(scope="session")
def imagenet_photos() -> list[tuple[Path, int]]:
    """foolbox's 20 photos of ImageNet, with the class id that stands in their name."""
    paths = sorted((package_folder("foolbox") / "data").glob("imagenet_*.jpg"))
    return [(path, int(path.stem.rpartition("_")[2])) for path in paths]


@pytest.fixture(scope="session")
def resnet18_cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A card folder with a resnet18 of random weights, saved as torchvision saves."""
    import torch

    from inference_models_resnet import IMAGENET, imagenet_labels
    from inference_models_resnet.network import ResNet

    folder = tmp_path_factory.mktemp("cards")
    torch.manual_seed(0)
    torch.save(dict(ResNet(18, 1000).state_dict()), folder / "resnet18.pth")
    card = resnet_card(
        folder / "resnet18.pth",
        labels=imagenet_labels(),
        config={"depth": 18, "preprocessing": IMAGENET},
    )
    (folder / "resnet18.json").write_text(json.dumps(card), "utf-8")
    return folder


@pytest.fixture(scope="session")
def florence2_cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A card folder with a small florence2-base of random weights."""
    from plugins.florence2.tests.florence_folders import write_florence

    weights = write_florence(tmp_path_factory.mktemp("florence2") / "tiny")
    folder = tmp_path_factory.mktemp("florence2_cards")
    card = florence2_card(weights, "florence2-base")
    (folder / "florence2-base.json").write_text(json.dumps(card), "utf-8")
    return folder


@pytest.fixture(scope="session")
def overview_cards(
    resnet18_cards: Path,
    florence2_cards: Path,
    photos: dict[str, np.ndarray],
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """Card folders with weights for every id of the overview, as the environment's."""
    folder = tmp_path_factory.mktemp("rfdetr")
    cards = rfdetr_cards(folder, "base", photos["astronaut"])
    return os.pathsep.join(map(str, (resnet18_cards, florence2_cards, cards)))
