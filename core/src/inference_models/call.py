"""The keywords of `from_pretrained`, checked, and what they lead to."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from inference_models.card import ModelCard, relabelled
from inference_models.download.store import Store
from inference_models.errors import InvalidOption, NoBackend, did_you_mean
from inference_models.interfaces import Access, Architecture, Backend, check_task
from inference_models.model import Recipe
from inference_models.negotiation import derived_cache, find
from inference_models.negotiation.constraints import Constraints
from inference_models.negotiation.hints import install_hint
from inference_models.negotiation.search import Search
from inference_models.registry import Registry, installed
from inference_models.trust import Consent

BackendName = str | Backend | Sequence[str | Backend]
Pairs = Mapping[str, str] | Sequence[tuple[str, str]]


def _device_name(device: Any) -> str | None:
    return None if device is None else str(device)


def _check_text(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not isinstance(value, str):
        raise InvalidOption(f"{attribute.name} is a {type(value).__name__}, not a text")


@attrs.frozen
class Secret:
    """A value that does not show where a traceback's locals are printed."""

    value: Any = attrs.field(repr=False)


@attrs.frozen
class Call:
    """The keywords of `from_pretrained` and of `explain`, which are the same."""

    task: str | None = attrs.field(validator=_check_text)
    backend: BackendName | None
    device: str | None = attrs.field(converter=_device_name)
    quantization: str | None
    batch_size: int | tuple[int, ...] | None
    model_type: str | None = attrs.field(validator=_check_text)
    labels: Sequence[str | None] | None
    derive: bool | None
    allow_licenses: Sequence[str] | None
    allow_untrusted_packages: bool
    weights_provider: str | None = attrs.field(validator=_check_text)
    sha256: str | None
    api_key: str | None = attrs.field(repr=False)
    revision: str | None = attrs.field(validator=_check_text)
    weights_provider_extra_headers: Mapping[str, str] | None = attrs.field(repr=False)
    weights_provider_extra_query_params: Pairs | None = attrs.field(repr=False)

    @classmethod
    def of(cls, given: Secret, function: Callable[..., Any]) -> Call:
        """From all arguments of a function that takes these, by their names."""
        _refuse_unknown(list(given.value["unknown"]), function)
        return cls(**{name: given.value[name] for name in attrs.fields_dict(cls)})

    def search(self, model_id: Any) -> Search:
        """Find the card, and the architecture that it names."""
        constraints = Constraints.read(
            self.backend,
            self.device,
            self.quantization,
            self.batch_size,
            self.derive,
        )
        registry = installed()
        access = self._access()
        found = find.find(model_id, registry, access, self.weights_provider)
        found = attrs.evolve(found, card=_relabelled(found.card, self.labels))
        _check_task(found.card, self.task)
        make = _architecture(found.card, registry)
        store = Store()
        left = derived_cache.left(store, found.card, make, registry)
        return Search(registry, store, found, constraints, make, left)

    def _access(self) -> Access:
        if not isinstance(self.api_key, (str, type(None))):
            kind = type(self.api_key).__name__
            raise InvalidOption(f"api_key is a {kind}, not a text")
        headers = Secret(self.weights_provider_extra_headers)
        query = Secret(self.weights_provider_extra_query_params)
        return Access(
            key=self.api_key,
            revision=self.revision,
            headers=_texts_by_name("weights_provider_extra_headers", headers),
            model_type=self.model_type,
            query=_texts_by_name("weights_provider_extra_query_params", query),
            sha256=_digest(self.sha256),
            consent=Consent.read(self.allow_licenses, self.allow_untrusted_packages),
        )

    def recipe(self, model_id: Any, found: find.Found) -> Recipe:
        """What loads the same model again: all that was given, but for secrets."""
        given = attrs.asdict(self, recurse=False, filter=_is_kept)
        return Recipe(found.path or find.written(model_id), given)


def _is_kept(field: attrs.Attribute[Any], value: Any) -> bool:
    # The task was only checked; a key is nobody else's to keep.
    return value is not None and field.name != "task" and bool(field.repr)


def _texts_by_name(name: str, given: Secret) -> dict[str, str]:
    """A mapping, or pairs, of texts."""
    if not _are_texts(given):
        raise InvalidOption(f"{name} is no mapping of texts to texts")
    return dict(given.value or {})


def _are_texts(given: Secret) -> bool:
    try:
        pairs = dict(given.value or {})
    except (TypeError, ValueError):
        return False
    return all(isinstance(text, str) for pair in pairs.items() for text in pair)


def _digest(sha256: Any) -> str | None:
    if sha256 is None:
        return None
    if not isinstance(sha256, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise InvalidOption(f"sha256 {sha256!r} is not 64 hexadecimal digits")
    return sha256.lower()


def _refuse_unknown(unknown: Sequence[str], function: Callable[..., Any]) -> None:
    import inspect

    for name in unknown:
        known = set(inspect.signature(function).parameters) - {"unknown"}
        raise InvalidOption(
            f"{function.__name__}() has no parameter {name!r}"
            f"{did_you_mean(name, known)}; what concerns a backend alone is an "
            "argument of its class, and backend= takes an object of it"
        )


def _relabelled(card: ModelCard, labels: Sequence[str | None] | None) -> ModelCard:
    if labels is None:
        return card
    is_array = isinstance(labels, np.ndarray) and labels.ndim > 0
    if isinstance(labels, str) or not (is_array or isinstance(labels, Sequence)):
        raise InvalidOption(
            f"labels {labels!r} is no list; give a list of names, in the order of the "
            "model's classes"
        )
    return relabelled(card, labels)


def _architecture(card: ModelCard, registry: Registry) -> type[Architecture[Any]]:
    """The class of the card's architecture; `NoBackend` says how to get it.

    Raises `InvalidCard` for a task that it does not serve.
    """
    name = card.architecture
    cls = registry.architecture(name)
    if cls is None:
        known = sorted(registry.architectures)
        hint = install_hint("architecture", name, registry)
        listed = ", ".join(known) or "none"
        sentence = (
            f"no installed plugin offers architecture {name!r}, which {card.id!r} "
            f"needs{did_you_mean(name, known)}; {hint or 'installed: ' + listed}"
        )
        raise NoBackend(registry.excused(sentence))
    check_task(cls, card)
    return cls


def _check_task(card: ModelCard, task: str | None) -> None:
    if task is not None and card.task != task:
        raise InvalidOption(f"{card.id!r} is a model for {card.task}, not for {task}")
