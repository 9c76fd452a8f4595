"""Cards for weights that tests make."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def resnet_card(weights: Path, **fields: Any) -> dict[str, Any]:
    """A card for a ResNet's file of weights that lies beside it, with its hash."""
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    artifact = {
        "format": "torch",
        "graphs": {"main": weights.name},
        "files": [{"name": weights.name, "sha256": digest}],
    }
    return {
        "id": weights.stem,
        "architecture": "resnet",
        "task": "classification",
        "artifacts": [artifact],
        **fields,
    }


def florence2_card(folder: Path, name: str, base: str | None = None) -> dict[str, Any]:
    """A card for a folder that transformers wrote, or for an adapter of `base`."""
    files = [
        {"name": path.name, "sources": [path.resolve().as_uri()]}
        for path in sorted(folder.iterdir())
        if path.suffix in (".json", ".safetensors", ".txt")
    ]
    graphs = dict.fromkeys(("vision", "encoder", "decoder"), ".")
    artifact: dict[str, Any] = {"format": "hf", "graphs": graphs, "files": files}
    card: dict[str, Any] = {
        "id": name,
        "architecture": "florence2",
        "task": "vision-language",
        "artifacts": [artifact],
    }
    if base is not None:
        artifact["base"] = base
        return card
    config = json.loads((folder / "config.json").read_text("utf-8"))
    settings = json.loads((folder / "preprocessor_config.json").read_text("utf-8"))
    size = settings["size"]
    preprocessing = {
        "size": [size["height"], size["width"]],
        "interpolation": "bicubic",
        "mean": settings["image_mean"],
        "std": settings["image_std"],
    }
    kept = {key: config[key] for key in ("vision_config", "text_config")}
    weights = dict.fromkeys(graphs, "model.safetensors")
    card["artifacts"] = [{**artifact, "format": "torch", "graphs": weights}, artifact]
    return {**card, "config": {**kept, "preprocessing": preprocessing}}


def write_florence2_cards(folder: Path, adapter: Path, cards: Path) -> None:
    """Cards "acme-base" of a folder, and "acme-tuned" of an adapter of it."""
    made = [
        florence2_card(folder, "acme-base"),
        florence2_card(adapter, "acme-tuned", base="acme-base"),
    ]
    for card in made:
        (cards / f"{card['id']}.json").write_text(json.dumps(card))
