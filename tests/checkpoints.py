"""RF-DETR checkpoints of random weights, as its trainer would write them."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch

from inference_models import AutoModel
from inference_models_rfdetr import RfDetr
from inference_models_rfdetr.layout import SIZES
from inference_models_rfdetr.network import network


def rfdetr_state(
    size: str, classes: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Weights that make every tensor matter, and logits and boxes of a usual range."""
    published = SIZES[size]
    layout = attrs.evolve(published, classes=classes or published.classes)
    made = network(layout)
    generator = torch.Generator().manual_seed(seed)
    state = made.state_dict()
    for name, tensor in state.items():
        drawn = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim > 1:
            drawn /= math.sqrt(tensor[0].numel())
        elif name.endswith("weight") or "lambda" in name:
            drawn = 1 + 0.1 * drawn
        else:
            drawn *= 0.1
        # As after training: boxes are not far from where their cells are.
        near = "bbox_embed" in name and "layers.2" in name
        tensor.copy_(drawn / 5 if near or "refpoint" in name else drawn)
    if layout.keypoints:
        counts = torch.tensor(layout.keypoints)
        state["_kp_active_mask"] = torch.arange(int(counts.max())) < counts[:, None]
    return state


def save_checkpoint(path: Path, state: dict[str, Any], **args: Any) -> Path:
    """A file with the tensors and the training's arguments."""
    torch.save({"model": state, "args": argparse.Namespace(lr=1e-4, **args)}, path)
    return path


def rfdetr_cards(folder: Path, size: str, picture: np.ndarray, found: int = 40) -> Path:
    """A folder with a card of `rfdetr-<size>`, which finds so much in the picture."""
    state = rfdetr_state(size)
    path = save_checkpoint(folder / f"{size}.pth", state)
    model = AutoModel.from_pretrained(path, backend="torch")
    (things,) = model(picture, confidence=0)
    sure = getattr(things, "detection_confidence", things.confidence)
    scores = np.sort(sure)[::-1]
    state["class_embed.bias"] -= float(np.log(scores[found] / (1 - scores[found])))
    save_checkpoint(path, state)
    (card,) = (card for card in RfDetr.cards() if card.id == f"rfdetr-{size}")
    data = card.to_json()
    data["artifacts"][0]["graphs"] = {"main": path.name}
    data["artifacts"][0]["files"] = [{"name": path.name}]
    (folder / "card.json").write_text(json.dumps(data), "utf-8")
    return folder
