"""One model's way from its card to what a backend opens: negotiated, then fetched."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import attrs

from inference_models.card import Artifact, Bundle, File, ModelCard
from inference_models.download.store import Store
from inference_models.errors import (
    DownloadFailed,
    InvalidCard,
    InvalidWeights,
    NoBackend,
    faults_of,
)
from inference_models.images import Image
from inference_models.interfaces import Architecture
from inference_models.negotiation import derived_cache, find
from inference_models.negotiation.constraints import Constraints
from inference_models.negotiation.derive import derived
from inference_models.negotiation.negotiate import negotiate
from inference_models.negotiation.options import Negotiation, Option
from inference_models.negotiation.routes import usable
from inference_models.registry import Registry, returned

_MOST_ABOVE = 8
"""Adapters of adapters; a model that adapts itself would be looked for without end."""


@attrs.frozen
class Search:
    """One call's surroundings: what is installed, what was found, what was named."""

    registry: Registry
    store: Store
    found: find.Found
    constraints: Constraints
    make: type[Architecture[Any]]
    left: Sequence[derived_cache.Left] = ()
    above: int = 0
    """How many models adapt what is searched for here, one on the other."""
    failed: dict[tuple[File, ...], DownloadFailed] = attrs.field(
        factory=dict, init=False, repr=False
    )
    """What could not be fetched; the next plan of the same files does not try again."""

    @property
    def card(self) -> ModelCard:
        """What was found, with the labels that were given."""
        return self.found.card

    def negotiation(self) -> Negotiation:
        """Every plan for the card and for what absent derivers left of it."""
        look = functools.partial(derived_cache.cached, self.store, self.card, self.make)
        ready = (*self.card.artifacts, *(each.artifact for each in self.left))
        card = attrs.evolve(self.card, artifacts=ready)
        return negotiate(card, self.constraints, self.registry, look)

    def bundle(self, artifact: Artifact) -> Bundle:
        """Fetch an artifact, and what it adapts, and complete its card."""
        for each in self.left:
            if each.artifact is artifact:
                return each.bundle(self.card, self.bundle)
        if artifact.files in self.failed:
            raise self.failed[artifact.files]
        try:
            folder = self.store.folder(artifact, self.found.request)
            base = self._base(artifact)
        except DownloadFailed as error:
            self.failed[artifact.files] = error
            raise
        bundle = Bundle(self.card, artifact, folder, base)
        provider = self.found.provider
        with faults_of(f"complete() of weights provider {provider.name!r}"):
            return returned(provider.complete(bundle), Bundle, "it")

    def derived(self, option: Option, pictures: Sequence[Image] = ()) -> Bundle:
        """What an option derives; `InvalidWeights` if an earlier try found it wrong."""
        store, card, make = self.store, self.card, self.make
        building = self.constraints.building
        if not option.built and not building:
            held = derived_cache.cached(store, card, make, option)
            if held.fault:
                raise InvalidWeights(held.fault)
        return derived(store, card, option, self.bundle, make, pictures, building)

    def _base(self, artifact: Artifact) -> Bundle | None:
        if artifact.base is None:
            return None
        check_base(self.card, artifact.base, self.above)
        access = self.found.access_to_base()
        found = find.find(artifact.base, self.registry, access, None)
        search = attrs.evolve(self, found=found, above=self.above + 1)
        for candidate in usable(found.card, artifact.format):
            return search.bundle(candidate)
        raise NoBackend(
            f"{self.card.id!r} adapts {artifact.base!r}, which has no "
            f"weights in format {artifact.format!r}"
        )


def check_base(card: ModelCard, base: str, above: int) -> None:
    """Raise `InvalidCard` for a base below too many models that adapt one another."""
    if above >= _MOST_ABOVE:
        raise InvalidCard(
            f"{card.id!r} adapts {base!r}, below {above} models that adapt one "
            "another; does one of them adapt itself?"
        )
