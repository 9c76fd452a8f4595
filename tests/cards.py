"""Cards for weights that tests make."""

from __future__ import annotations

import hashlib
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
