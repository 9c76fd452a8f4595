"""ResNets in folders that transformers wrote: for its backend, and for torch's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from inference_models import Artifact, Facts, ModelCard
from inference_models_resnet.layout import of_config

_CLASS = "ResNetForImageClassification"


def card_of(facts: Facts, architecture: str) -> ModelCard | None:
    """The card of such a folder; None for another model's."""
    known = facts.metadata
    if known.get("class") != _CLASS:
        return None
    kind = known["config"].get("problem_type")
    several = kind == "multi_label_classification"
    config: dict[str, Any] = {"preprocessing": known["preprocessing"] or {}}
    layout = of_config(known["config"], len(known["labels"]))
    if layout is not None:
        config |= {"depth": layout.depth, "width": layout.width}
    return ModelCard(
        id="resnet",
        architecture=architecture,
        task="multi-label-classification" if several else "classification",
        artifacts=tuple(_artifacts(facts, layout is not None)),
        labels=known["labels"],
        config=config,
    )


def _artifacts(facts: Facts, has_layout: bool) -> Iterator[Artifact]:
    """The folder; and its file of weights alone, where our own network fits it."""
    files = facts.metadata["files"]
    reason = facts.metadata["unsupported"]
    weights = [name for name in files if name.endswith(".safetensors")]
    if has_layout and len(weights) == 1:
        only = {"name": weights[0]}
        yield Artifact("torch", {"main": weights[0]}, [only]).refused(reason)
    named = [{"name": name} for name in files]
    yield Artifact(facts.format, {"main": "."}, named).refused(reason)
