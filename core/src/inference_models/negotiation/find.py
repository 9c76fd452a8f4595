"""From an id or a path to a card, by asking the weights providers in order."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs

from inference_models.card import Artifact, ModelCard
from inference_models.download.sources import Request, local_path
from inference_models.errors import (
    Forbidden,
    HashMismatch,
    InferenceModelsError,
    InvalidOption,
    ModelNotFound,
    Unauthorized,
    did_you_mean,
    shown_url,
    told,
)
from inference_models.interfaces import Access, WeightsProvider
from inference_models.negotiation.hints import hint_for_id, install_hint
from inference_models.registry import Registry, returned
from inference_models.trust import ORIGINS, check_license, vetted

log = logging.getLogger("inference_models")

_SCHEME = re.compile(r"(?i)^https?://")

_OWN = 10
"""The `order` up to which providers know what is on this machine."""


@attrs.frozen
class Found:
    """A card, the provider that answers for its files, and what that one may know.

    `name` is what that provider was asked for.
    """

    card: ModelCard
    provider: WeightsProvider
    access: Access
    name: str

    @property
    def request(self) -> Request:
        """URL and headers of a file's source, fresh for each try."""
        return lambda source: self.provider.request(source, self.access)

    def access_to_base(self) -> Access:
        """What may be said of the model that this one adapts, which another may have.

        A key is this model's provider's, unless that shares the keys that it is shown.
        """
        access = self.access.for_another()
        return access if self.provider.takes_key else access.without_secrets()

    @property
    def path(self) -> str | None:
        """Where it lies, whatever the working directory, if a path was given."""
        if self.provider.origin(self.name, self.access) != "local":
            return None
        path = Path(self.name).expanduser()
        return str(path.absolute()) if path.exists() else None


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

    A `Path` is asked of providers as a string that is written as a path. A key is for
    the provider that is named, else for those that take one. Artifacts that may not be
    loaded say so in what they need; raises `LicenseNotAllowed` for the model's licence.
    """
    name, access = _pinned(written(model_id), access)
    _check_is_file(name, access)
    known = providers(registry)
    faults: list[str] = []
    public = None if weights_provider else elsewhere(registry).get(name)
    if public is not None:
        own = [provider for provider in known if provider.order <= _OWN]
        found = _first(own, name, access, faults)
        return found or _abroad(name, public, registry, access)
    asked, name = _asked(name, known, weights_provider, registry)
    found = _first(asked, name, access, faults)
    if found is None:
        raise ModelNotFound("\n  ".join([_not_found(name, asked, registry), *faults]))
    return found


def _first(
    asked: Sequence[WeightsProvider], name: str, access: Access, faults: list[str]
) -> Found | None:
    """What the first provider that knows an id says of it; others' faults are noted."""
    alone = len(asked) == 1
    for provider in asked:
        own = alone or provider.takes_key
        granted = access if own else access.without_secrets()
        granted = attrs.evolve(granted, alone=alone)
        try:
            card = _card(provider, name, granted, faults)
        except (Unauthorized, Forbidden) as error:
            if granted.key == access.key:
                raise
            raise _without_key(error, provider, name) from error
        if card is not None:
            return Found(card, provider, granted, name)
    return None


def _without_key(
    error: Unauthorized | Forbidden, provider: WeightsProvider, name: str
) -> InferenceModelsError:
    """The refusal of a provider that was not shown the key, and how to show it."""
    kind = Unauthorized if isinstance(error, Unauthorized) else Forbidden
    own = f"{provider.name}://{name}"
    return kind(
        f"{error}; api_key= is shown to a provider that is named, so load {own!r}"
    )


def elsewhere(registry: Registry) -> dict[str, str]:
    """Public ids of installed packs, with the id that another provider has for each."""
    packs = sorted(registry.architectures.items())
    return {name: there for _, cls in packs for name, there in cls.elsewhere.items()}


def _abroad(name: str, there: str, registry: Registry, access: Access) -> Found:
    """The card of a public id, found at another provider; it keeps this id."""
    provider = there.partition("://")[0]
    if provider not in registry.weights_providers:
        hint = install_hint("weights_provider", provider, registry)
        advice = hint or f"install {provider!r}"
        sentence = f"{name!r} is {there}, which is not asked here; {advice}"
        raise ModelNotFound(registry.excused(sentence))
    found = find(there, registry, access, None)
    return attrs.evolve(found, card=attrs.evolve(found.card, id=name))


def _card(
    provider: WeightsProvider, name: str, access: Access, faults: list[str]
) -> ModelCard | None:
    """A provider's card; unless it is asked alone, a fault of its own is a warning."""
    try:
        card = provider.find(name, access)
        return None if card is None else _admitted(card, provider, name, access)
    except InferenceModelsError:
        raise
    except Exception as error:  # a plugin's fault must not stop the others
        failure = f"weights provider {provider.name!r} failed: {told(error)}"
        if access.alone:
            raise InferenceModelsError(failure) from error
        faults.append(failure)
        log.warning("%s", failure)
        return None


def _admitted(
    card: Any, provider: WeightsProvider, name: str, access: Access
) -> ModelCard:
    """What a provider found, as far as it may be loaded."""
    found = returned(card, ModelCard, "find()")
    check_license(found.id, found.license, access.consent)
    _check_held(found, access.sha256)
    if access.revision is not None and not provider.takes_revision:
        raise InvalidOption(
            f"revision {access.revision!r} means nothing to {provider.name!r}, which "
            f"has {found.id!r}; leave revision= out"
        )
    origin = provider.origin(name, access)
    if origin not in ORIGINS:
        known = ", ".join(ORIGINS)
        raise TypeError(f"origin() returned {origin!r}, which is none of {known}")
    return vetted(_without_lost(found), origin, access.consent)


def _without_lost(card: ModelCard) -> ModelCard:
    """The card, in which artifacts that lack a graph's file say that they do."""
    return attrs.evolve(card, artifacts=tuple(map(_unless_lost, card.artifacts)))


def _unless_lost(artifact: Artifact) -> Artifact:
    if not artifact.lost:
        return artifact
    return artifact.refused(
        f"{artifact.lost[0]!r}, which has a graph, is not among the card's files"
    )


def _check_held(card: ModelCard, sha256: str | None) -> None:
    """Raise `HashMismatch` for files that are not held to the hash the user gave."""
    files = [file for artifact in card.artifacts for file in artifact.files]
    for file in files:
        if sha256 is not None and file.sha256 != sha256:
            raise HashMismatch(
                f"{file.name!r} of {card.id!r} is not held to sha256={sha256!r}, so it "
                "may be another file than you trust; leave sha256= out, or name the "
                "one file that has it"
            )


def _asked(
    name: str, known: list[WeightsProvider], named: str | None, registry: Registry
) -> tuple[list[WeightsProvider], str]:
    """Who is asked for an id, and for what: `"<provider>://id"` is one's alone."""
    prefix, separator, rest = name.partition("://")
    if not separator:
        return (known if named is None else [_provider(named, known, registry)]), name
    if not rest:
        raise InvalidOption(f"{name!r} names no model; write its id behind it")
    is_url = prefix in ("http", "https")
    provider = _provider("url" if is_url else prefix, known, registry)
    if named not in (None, provider.name):
        raise InvalidOption(
            f"{_shown(name)!r} is asked of {provider.name!r}, and weights_provider="
            f"{named!r} names another; leave one out"
        )
    return [provider], name if is_url else rest


def _pinned(name: str, access: Access) -> tuple[str, Access]:
    """A URL without `#sha256=…`, which goes the way of the keyword."""
    if not name.startswith(("https://", "http://")):
        return name, access
    url, _, fragment = name.partition("#")
    match = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if fragment and not match:
        raise InvalidOption(
            f"what follows {shown_url(url)}# is not sha256=<64 hexadecimal digits>; "
            "correct it, or download the file and give its path"
        )
    digest = match[1].lower() if match else None
    if digest and access.sha256 not in (None, digest):
        raise InvalidOption(
            f"{shown_url(url)}#sha256={digest} and sha256={access.sha256!r} name "
            "different files; leave one out"
        )
    return url, attrs.evolve(access, sha256=digest or access.sha256)


def _check_is_file(name: str, access: Access) -> None:
    """Raise `InvalidOption` for what is said of a file where there is none."""
    given = {"model_type": access.model_type, "sha256": access.sha256}
    for parameter, value in given.items():
        if value is not None and not _names_file(name):
            raise InvalidOption(
                f"{parameter}={value!r} says what a file of weights is, and "
                f"{_shown(name)!r} is no file that is there; correct the path, or "
                f"leave {parameter} out for ids and folders, whose card says what they "
                "are"
            )


def _shown(name: str) -> str:
    if "://" in name:
        return shown_url(name)
    return re.split(r"\?\w+=", name, maxsplit=1)[0]  # of an address without its scheme


def _names_file(name: str) -> bool:
    """Whether a name is that of a file: a URL, a provider's path of one, or a path."""
    prefix, separator, rest = name.partition("://")
    if separator and prefix != "local":
        is_url = prefix in ("http", "https")
        return is_url or bool(re.search(r"\.\w+$", shown_url(name)))
    path = written_file(rest if separator else name)
    return path is not None and path.name != "card.json"


def written_file(name: str) -> Path | None:
    """The file that is there, if the name is written as a path: not as a bare word."""
    try:
        path = Path(name).expanduser()
        written_as_path = len(path.parts) > 1 or path.suffix
        return path if written_as_path and path.is_file() else None
    except (OSError, RuntimeError, ValueError):  # too long, or a stranger's "~name"
        return None


def written(model_id: Any) -> str:
    """An id as it stands; a `Path`, or a `file://` URL, as it is written as a path."""
    if isinstance(model_id, str) and model_id:
        if model_id.startswith("file://"):
            return str(local_path(model_id))
        return _SCHEME.sub(lambda scheme: scheme[0].lower(), model_id)
    if isinstance(model_id, os.PathLike):
        return str(Path(model_id).absolute())
    raise InvalidOption(f"model id {model_id!r} is neither a name nor a path")


def _provider(
    name: str, known: Sequence[WeightsProvider], registry: Registry
) -> WeightsProvider:
    for provider in known:
        if provider.name == name:
            return provider
    names = [provider.name for provider in known]
    hint = install_hint("weights_provider", name, registry)
    advice = hint or f"installed: {', '.join(names)}"
    sentence = (
        f"there is no weights provider {name!r}{did_you_mean(name, names)}; {advice}"
    )
    raise InvalidOption(registry.excused(sentence))


def known_ids(asked: Iterable[WeightsProvider]) -> list[str]:
    """Every id and alias that the providers can list, sorted."""
    ids: set[str] = set()
    for provider in asked:
        try:
            for card in provider.models():
                ids.update((card.id, *card.aliases))
        except Exception as error:  # noqa: BLE001 - a plugin's fault must not stop the others
            reason = told(error)
            log.warning("weights provider %r lists nothing: %s", provider.name, reason)
    return sorted(ids)


def _not_found(name: str, asked: Sequence[WeightsProvider], registry: Registry) -> str:
    ids = sorted({*known_ids(asked), *elsewhere(registry)})
    nor = ", and there is no such file" if re.search(r"\.[a-z]\w*$", name, re.I) else ""
    alone = asked[0].name if len(asked) == 1 else None
    known = "is known" if alone is None else f"is known to {alone!r}"
    sentence = f"no model {_shown(name)!r} {known}{nor}{did_you_mean(name, ids)}"
    hint = _missing_pack(name, registry)
    if hint:
        sentence += f"; for models of this family: {hint}"
    elif _is_folder(name):
        sentence += f"; the folder here is written {f'./{name}'!r}"
    elif form := hint_for_id(name, registry) if alone is None else None:
        sentence += f"; for ids of this form: {form}"
    elif alone is not None:
        sentence += f"; all providers are asked where {alone!r} is not named"
    else:
        sentence += f"; AutoModel.models() lists {len(ids)} known ids"
    return registry.excused(sentence)


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):  # too long, or no path at all
        return False


def _missing_pack(name: str, registry: Registry) -> str | None:
    """What to type for the family that an id begins with, where it is not here."""
    first = name.partition("-")[0]
    for family in (first, first.rstrip("0123456789")):
        hint = install_hint("architecture", family, registry)
        if hint and registry.architecture(family) is None:
            return hint
    return None
