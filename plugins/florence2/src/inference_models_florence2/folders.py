"""Florence-2 in folders that transformers wrote: for its backend, and for torch's."""

from __future__ import annotations

from typing import Any

from inference_models import (
    Artifact,
    Bundle,
    Facts,
    InvalidCard,
    InvalidWeights,
    ModelCard,
)
from inference_models.strict_json import parse

_CLASS = "Florence2ForConditionalGeneration"
_GENERATION = "generation_config.json"
_LARGEST = 1_000_000

GRAPHS = ("vision", "encoder", "decoder")


def card_of(facts: Facts, architecture: str) -> ModelCard | None:
    """The card of such a folder; None for another model's."""
    known = facts.metadata
    if known.get("class") != _CLASS:
        return None
    files = known["files"]
    needs = {"unsupported": known["unsupported"]} if known["unsupported"] else {}
    named = [{"name": name} for name in files]
    weights = [name for name in files if name.endswith(".safetensors")]
    artifacts = [Artifact("hf", dict.fromkeys(GRAPHS, "."), named, needs=needs)]
    if len(weights) == 1:
        only = dict.fromkeys(GRAPHS, weights[0])
        artifacts.insert(0, Artifact("torch", only, named, needs=needs))
    config: dict[str, Any] = {
        key: known["config"].get(key, {}) for key in ("vision_config", "text_config")
    }
    return ModelCard(
        id="florence2",
        architecture=architecture,
        task="vision-language",
        artifacts=artifacts,
        config={**config, "preprocessing": known["preprocessing"] or {}},
    )


def generation(bundle: Bundle) -> dict[str, Any]:
    """What the model's files say of generation: its own file, else its text config.

    Raises `InvalidWeights` for a file that cannot be read.
    """
    path = bundle.folder / _GENERATION
    text: dict[str, Any] = dict(bundle.config.get("text_config", {}))
    if not path.is_file():
        return text
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    try:
        return {**text, **parse(content, f"{str(path)!r}", _LARGEST).data}
    except InvalidCard as error:
        raise InvalidWeights(str(error)) from error
