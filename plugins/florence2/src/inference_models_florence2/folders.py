"""Florence-2 in folders that transformers wrote: for its backend, and for torch's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from inference_models import (
    Artifact,
    Bundle,
    Facts,
    InvalidCard,
    InvalidWeights,
    ModelCard,
)
from inference_models.strict_json import parse_file
from inference_models_florence2.answers import banned_in
from inference_models_florence2.layout import given_of

_CLASS = "Florence2ForConditionalGeneration"
_GENERATION = "generation_config.json"
_PROCESSOR = "processor_config.json"
SETTINGS = (_GENERATION, _PROCESSOR)
_LARGEST = 1_000_000

PUBLIC = {
    f"florence2-{size}": f"florence-community/Florence-2-{size}"
    for size in ("base", "base-ft", "large", "large-ft")
}
"""The Hub's repositories of the public models, which bring no code of their own."""
ELSEWHERE = {
    alias: f"hf://{repo}"
    for name, repo in PUBLIC.items()
    for alias in (name, name.replace("florence2", "florence-2"))
}
"""The public ids, the hyphenated ones too, and where they are."""
_BASES = {
    **{repo: repo for repo in PUBLIC.values()},
    **{f"microsoft/{repo.partition('/')[2]}": name for name, repo in PUBLIC.items()},
}
"""What adapters say they adapt, and the id of the base to load: the repositories of
microsoft, which the originals are in, want code to be run, and are replaced."""

GRAPHS = ("vision", "encoder", "decoder")


def card_of(facts: Facts, architecture: str) -> ModelCard | None:
    """The card of such a folder, or of an adapter; None for another model's."""
    known = facts.metadata
    base = _BASES.get(known.get("adapts", ""))
    if base is None and known.get("class") != _CLASS:
        return None
    return ModelCard(
        id="florence2",
        architecture=architecture,
        task="vision-language",
        artifacts=tuple(_artifacts(known, base)),
        config={} if base else _config(known),
    )


def _artifacts(known: Mapping[str, Any], base: str | None) -> Iterator[Artifact]:
    """The folder; before it its one file of weights, which our own networks read."""
    reason = known["unsupported"]
    named = [{"name": name} for name in known["files"]]
    weights = [name for name in known["files"] if name.endswith(".safetensors")]
    if base is None and len(weights) == 1:
        graphs = dict.fromkeys(GRAPHS, weights[0])
        yield Artifact("torch", graphs, named).refused(reason)
    yield Artifact("hf", dict.fromkeys(GRAPHS, "."), named, base=base).refused(reason)


def _config(known: Mapping[str, Any]) -> dict[str, Any]:
    parts = ("vision_config", "text_config")
    given = {part: known["config"].get(part, {}) for part in parts}
    return {**given, "preprocessing": known["preprocessing"] or {}}


def generation(bundle: Bundle) -> dict[str, Any]:
    """What the model's files say of generation: its text config, and a file of its own.

    Raises `InvalidWeights` for a file that cannot be read.
    """
    return {**given_of(bundle.config, "text_config"), **_read(bundle.file(_GENERATION))}


def banned(bundle: Bundle) -> frozenset[str]:
    """The phrases that ground nothing, as `processor_config.json` has them."""
    return banned_in(_read(bundle.file(_PROCESSOR)))


def _read(path: Path) -> dict[str, Any]:
    """A small file of settings; nothing where there is none."""
    if not path.is_file():
        return {}
    try:
        return dict(parse_file(path, _LARGEST).data)
    except InvalidCard as error:
        raise InvalidWeights(str(error)) from error
