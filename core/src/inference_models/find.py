"""From an id or a path to a card, by asking the weights providers in order."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs

from inference_models.card import ModelCard
from inference_models.errors import (
    InferenceModelsError,
    InvalidOption,
    ModelNotFound,
    did_you_mean,
)
from inference_models.interfaces import Access, WeightsProvider
from inference_models.negotiate import install_hint
from inference_models.registry import Registry

log = logging.getLogger("inference_models")


@attrs.frozen
class Found:
    """A card, and the provider that answers for its files."""

    card: ModelCard
    provider: WeightsProvider


def providers(registry: Registry) -> list[WeightsProvider]:
    """All weights providers, in the order in which they are asked."""
    classes = sorted(
        registry.weights_providers.values(), key=lambda cls: (cls.order, cls.name)
    )
    return [cls() for cls in classes]


def find(
    model_id: Any, registry: Registry, access: Access, weights_provider: str | None
) -> Found:
    """The first provider's card for this id; `ModelNotFound` names the nearest ids.

    A `Path` is asked of providers as a string that is written as a path.
    """
    asked = providers(registry)
    name = written(model_id)
    prefix, separator, rest = name.partition("://")
    is_url = bool(separator) and prefix in ("http", "https")
    if access.model_type is not None and not is_url:
        _check_is_file(name, access.model_type)
    if is_url:
        asked = [_provider("url", asked)]
    elif separator:
        asked, name = [_provider(prefix, asked)], rest
    elif weights_provider is not None:
        asked = [_provider(weights_provider, asked)]
    for provider in asked:
        try:
            card = provider.find(name, access)
        except InferenceModelsError:
            raise
        except Exception as error:  # a plugin's fault must not stop the others
            if len(asked) == 1:
                raise
            log.warning("weights provider %r failed: %s", provider.name, error)
            continue
        if card is not None:
            return Found(card, provider)
    raise ModelNotFound(_not_found(name, asked, registry))


def _check_is_file(name: str, model_type: str) -> None:
    if not _is_file(name.removeprefix("local://")):
        raise InvalidOption(
            f"model_type={model_type!r} says what a file of weights is, and {name!r} "
            "is no file; leave it out for ids and folders, whose card says what they "
            "are"
        )


def _is_file(name: str) -> bool:
    """Whether a name is written as a path, and there is a file; no card is one."""
    try:
        path = Path(name).expanduser()
        written_as_path = len(path.parts) > 1 or path.suffix
        return bool(written_as_path) and path.is_file() and path.name != "card.json"
    except (OSError, RuntimeError, ValueError):
        return False


def written(model_id: Any) -> str:
    """An id as it stands, and a `Path` as a string that is written as a path."""
    if isinstance(model_id, str) and model_id:
        return model_id
    if isinstance(model_id, os.PathLike):
        return str(Path(model_id).absolute())
    raise InvalidOption(f"model id {model_id!r} is neither a name nor a path")


def _provider(name: str, known: Sequence[WeightsProvider]) -> WeightsProvider:
    for provider in known:
        if provider.name == name:
            return provider
    names = [provider.name for provider in known]
    raise InvalidOption(
        f"there is no weights provider {name!r}{did_you_mean(name, names)}; installed: "
        f"{', '.join(names)}"
    )


def known_ids(asked: Iterable[WeightsProvider]) -> list[str]:
    """Every id and alias that the providers can list, sorted."""
    ids: set[str] = set()
    for provider in asked:
        try:
            for card in provider.models():
                ids.update((card.id, *card.aliases))
        except Exception as error:  # noqa: BLE001 - a plugin's fault must not stop the others
            log.warning("weights provider %r lists nothing: %s", provider.name, error)
    return sorted(ids)


def _not_found(name: str, asked: Sequence[WeightsProvider], registry: Registry) -> str:
    ids = known_ids(asked)
    sentence = f"no model {name!r} is known{did_you_mean(name, ids)}"
    family = name.partition("-")[0].rstrip("0123456789")
    hint = install_hint("architecture", family)
    if hint and registry.architecture(family) is None:
        sentence += f"; models of this family come with: {hint}"
    else:
        sentence += f"; AutoModel.models() lists {len(ids)} known ids"
    return "\n  ".join([sentence, *registry.complaints])
