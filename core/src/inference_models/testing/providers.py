"""Tests of a weights provider: what it finds can be fetched, and it shows no secret."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest

from inference_models.card import Artifact, Bundle, ModelCard
from inference_models.download.store import Store
from inference_models.errors import InferenceModelsError
from inference_models.interfaces import Access, WeightsProvider
from inference_models.negotiation.routes import usable
from inference_models.testing.architectures import RUNTIMES
from inference_models.testing.imports import runtimes_imported
from inference_models.testing.standard import StandardTests, misspelt
from inference_models.trust import ORIGINS, Consent

NOBODYS = "kjqx? there is no such model"
"""An id that no provider can know."""

KEY = "kjqx-secret-of-one-user"


class WeightsProviderTests(StandardTests):
    """All that a weights provider has to pass.

    Set `provider`, and write the fixture `model_id`, with whatever server it takes. One
    that looks at keys also writes the fixture `key`, and one with a server the fixture
    `down`, which makes that unreachable.
    """

    provider: ClassVar[type[WeightsProvider]]
    """The class to test."""
    runtime: ClassVar[tuple[str, ...]] = RUNTIMES
    """Modules that importing the provider and listing its models must not import."""

    @pytest.fixture(autouse=True)
    def _own_cache(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Nothing that was remembered before stands in for what is tested."""
        monkeypatch.setenv("INFERENCE_MODELS_CACHE", str(tmp_path / "kit-cache"))
        monkeypatch.delenv("INFERENCE_MODELS_OFFLINE", raising=False)

    @pytest.fixture
    def model_id(self) -> str:
        """An id that the provider finds here and now; yours to write."""
        raise NotImplementedError(f"{type(self).__name__} has no fixture `model_id`")

    @pytest.fixture
    def key(self) -> str | None:
        """What `api_key=` has to be; by default something that nobody asks for."""
        return KEY

    @pytest.fixture
    def down(self) -> None:
        """Makes the provider's server unreachable."""
        pytest.skip("there is no fixture `down`")

    @pytest.fixture
    def access(self, key: str | None) -> Access:
        """What a user gives who names the provider, and allows everything."""
        return Access(key=key, consent=Consent(untrusted=True), alone=True)

    @pytest.fixture
    def card(self, model_id: str, access: Access) -> ModelCard:
        """What the provider finds."""
        found = self.provider().find(model_id, access)
        assert isinstance(found, ModelCard), f"{model_id!r} is {found!r}, and no card"
        return found

    @pytest.fixture
    def artifact(self, card: ModelCard) -> Artifact:
        """The first that something may be able to use."""
        found = usable(card)
        assert found, f"nothing can use any of the artifacts of {card.id!r}"
        return found[0]

    def test_misspells_no_member(self) -> None:
        """A method that core does not know by its name is never called."""
        assert misspelt(self.provider, WeightsProvider) == []

    def test_has_a_name_and_an_order(self) -> None:
        """Users name providers in `weights_provider=` and in "<name>://id"."""
        assert self.provider.name == self.provider.name.lower() != ""
        assert isinstance(self.provider.order, int)
        assert isinstance(self.provider.takes_key, bool)
        assert isinstance(self.provider.takes_revision, bool)

    def test_imports_no_runtime_to_list_its_models(self) -> None:
        """All providers are asked, so a heavy import is paid by everyone."""
        assert runtimes_imported(self.provider, self.runtime) == []

    def test_lists_models_that_it_finds(self, model_id: str, access: Access) -> None:
        """Ids are suggested to users, who load them then."""
        listed = list(self.provider().models())

        assert all(isinstance(card, ModelCard) for card in listed)
        assert [i for i, n in Counter(c.id for c in listed).items() if n > 1] == []
        for card in listed[:3]:
            assert self.provider().find(card.id, access) == card

    def test_knows_nothing_of_what_cannot_be_its_own(
        self, model_id: str, access: Access
    ) -> None:
        """None lets the next provider be asked."""
        assert self.provider().find(NOBODYS, access) is None

    def test_finds_the_same_again(
        self, model_id: str, card: ModelCard, access: Access
    ) -> None:
        """Caches and derived artifacts go by what the card says."""
        assert self.provider().find(model_id, access) == card

    def test_eight_threads_find_what_one_finds(
        self, model_id: str, card: ModelCard, access: Access
    ) -> None:
        """Servers load several models at the same time, by one provider object."""
        provider = self.provider()
        with ThreadPoolExecutor(8) as pool:
            found = pool.map(lambda _: provider.find(model_id, access), range(16))

        assert all(each == card for each in found)

    def test_a_card_survives_json(self, card: ModelCard) -> None:
        """What was found is remembered for times without a network."""
        assert ModelCard.from_json(json.loads(json.dumps(card.to_json()))) == card

    def test_files_have_sources_and_hashes(
        self, model_id: str, card: ModelCard, access: Access
    ) -> None:
        """What has no hash may be another file tomorrow, and `origin` says so."""
        files = [file for artifact in usable(card) for file in artifact.files]
        vouched = self.provider().origin(model_id, access) != "unpinned"

        assert files
        assert [file.name for file in files if not file.sources] == []
        assert [file.name for file in files if vouched and not file.is_hashed] == []

    def test_says_who_vouches_for_files(self, model_id: str, access: Access) -> None:
        """What may be loaded depends on it."""
        assert self.provider().origin(model_id, access) in ORIGINS

    def test_shows_no_key(
        self, model_id: str, key: str | None, card: ModelCard, access: Access
    ) -> None:
        """Cards are kept and printed, and providers may be pickled with a model."""
        if key is None:
            pytest.skip("there is no key")
        provider = self.provider()
        provider.find(model_id, access)
        kept = [json.dumps(card.to_json()), repr(card), repr(provider)]

        assert [text for text in kept if key in text] == []
        assert key.encode() not in pickle.dumps(provider)

    def test_says_how_a_file_is_asked_for(
        self, artifact: Artifact, access: Access
    ) -> None:
        """Core fetches, and adds these headers on the source's own server alone."""
        provider = self.provider()
        for source in _sources(artifact):
            url, headers = provider.request(source, access)

            assert isinstance(url, str)
            assert isinstance(headers, Mapping)
            assert all(isinstance(t, str) for pair in headers.items() for t in pair)

    def test_what_it_finds_is_fetched_and_completed(
        self, card: ModelCard, artifact: Artifact, access: Access, tmp_path: Path
    ) -> None:
        """The first artifact arrives, as its hashes say, and the card with it."""
        provider = self.provider()
        store = Store(tmp_path / "cache", first_use=True)
        folder = store.folder(artifact, lambda s: provider.request(s, access))
        bundle = provider.complete(Bundle(card, artifact, folder))

        assert isinstance(bundle, Bundle)
        assert all(bundle.path(graph).exists() for graph in bundle.artifact.graphs)

    def test_a_server_that_is_down_is_no_missing_model(
        self, model_id: str, access: Access, down: None
    ) -> None:
        """Whoever is told that there is no such model looks for another fault."""
        with pytest.raises(InferenceModelsError):
            self.provider().find(model_id, access)

    def test_offline_it_finds_the_same_or_says_why_not(
        self,
        model_id: str,
        card: ModelCard,
        access: Access,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A model that was not loaded before is not one that does not exist."""
        monkeypatch.setenv("INFERENCE_MODELS_OFFLINE", "1")
        try:
            found = self.provider().find(model_id, access)
        except InferenceModelsError:
            return

        assert found == card


def _sources(artifact: Artifact) -> Iterator[str]:
    return (source for file in artifact.files for source in file.sources)
