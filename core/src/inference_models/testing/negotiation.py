"""Tests of what a backend says of itself before anything is opened."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest

from inference_models.card import Artifact, Bundle, Plan
from inference_models.errors import Unavailable
from inference_models.interfaces import Backend
from inference_models.negotiation.constraints import PRECISIONS, is_device
from inference_models.testing.imports import runtimes_imported
from inference_models.testing.standard import StandardTests, misspelt
from inference_models.testing.toy import toy_card


class NegotiationTests(StandardTests):
    """A backend answers for itself lightly, plainly and in a steady order."""

    backend: ClassVar[type[Backend]]
    """The class to test."""
    runtime: ClassVar[tuple[str, ...]] = ()
    """Modules that are imported by `open` at the earliest, such as ("onnxruntime",)."""
    settings: ClassVar[Mapping[str, Any]] = {}
    """Arguments of the constructor to test with."""

    @pytest.fixture
    def toy(self, tmp_path: Path) -> Bundle:
        """`ToyArchitecture`'s function in a format of the backend; yours to write."""
        raise NotImplementedError(f"{type(self).__name__} has no fixture `toy`")

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run what needs a device on one device of each kind that there is."""
        if "device" in metafunc.fixturenames:
            metafunc.parametrize("device", self._one_of_each_kind())

    def made(self) -> Backend:
        """A new backend with the settings to test."""
        return self.backend(**self.settings)

    def _one_of_each_kind(self) -> list[Any]:
        try:
            devices = list(map(str, self.made().devices()))
        except Unavailable as error:
            return [pytest.param("none", marks=pytest.mark.skip(reason=str(error)))]
        except Exception:  # noqa: BLE001 - the test of `devices` says what it is
            devices = ["cpu"]
        kinds = {name.partition(":")[0]: name for name in reversed(devices)}
        return sorted(kinds.values())

    def _devices(self) -> list[str]:
        try:
            return list(self.made().devices())
        except Unavailable as error:
            pytest.skip(str(error))

    def test_has_a_name_and_formats(self) -> None:
        """Users name backends in any case, so core looks for lower-case names."""
        names = [self.backend.name, *self.backend.aliases]

        assert all(name and name == name.lower() for name in names)
        assert len(names) == len(set(names))
        assert isinstance(self.backend.formats, tuple)
        assert self.backend.formats
        assert isinstance(self.backend.rank, int)

    def test_misspells_no_member(self) -> None:
        """A method that core does not know by its name is never called."""
        assert misspelt(self.backend, Backend) == []

    def test_settings_are_named_and_have_defaults(self) -> None:
        """Core makes backends without arguments; a misspelt setting is an error."""
        parameters = inspect.signature(self.backend).parameters.values()
        loose = [
            p.name for p in parameters if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        ]
        bare = [p.name for p in parameters if p.default is p.empty]

        assert not loose, f"any name passes as one of {loose}"
        assert not bare, f"{bare} have no default"

    def test_pickles_with_its_settings(self) -> None:
        """A model pickles as what it was loaded with, and that may be a backend."""
        made = self.made()
        copy = pickle.loads(pickle.dumps(made))  # noqa: S301 - pickled just now

        assert type(copy) is type(made)
        for name in inspect.signature(self.backend).parameters:
            assert getattr(copy, name, None) == getattr(made, name, None)

    def test_imports_no_runtime_to_answer(self) -> None:
        """Every installed backend is asked, so a heavy import is paid by everyone."""
        assert runtimes_imported(self.backend, self.runtime) == []

    def test_devices_come_in_a_steady_order(self) -> None:
        """The first device of a kind is the one that its bare name means."""
        devices = self._devices()

        assert devices, "devices() raises Unavailable, with the reason, if it has none"
        assert devices == self._devices()
        assert len(devices) == len(set(devices))
        for name in devices:
            assert isinstance(name, str)
            assert is_device(name)
        assert not isinstance(self.made().devices(), str), "devices() gives a sequence"

    def test_precisions_include_the_artifacts_own(
        self, toy: Bundle, device: str
    ) -> None:
        """Weights can run as they were written, and int8 is never the first choice."""
        own = toy.artifact.precision
        offered = list(self.made().precisions(toy.artifact, device))

        assert own in offered
        nameable = {*PRECISIONS, *self.backend.own_precisions}
        assert set(offered) <= nameable, "others are to be in own_precisions"
        assert len(offered) == len(set(offered))
        assert offered[0] in {own, "fp32", "fp16", "bf16"}

    def test_does_not_refuse_the_toy(self, toy: Bundle, device: str) -> None:
        """The toy runs in its own precision wherever `devices` says that things run."""
        plan = Plan(device, toy.artifact.precision)

        assert self.made().refuse(toy.card, toy.artifact, plan) is None

    @pytest.mark.parametrize(
        "plan",
        [Plan("abacus:9", "fp32"), Plan("cpu", "fp3"), Plan("cpu", "fp32", (1, 2, 3))],
        ids=["device", "precision", "batch"],
    )
    @pytest.mark.parametrize("needs", [{}, {"opset": 999, "beads": "9.9"}], ids=str)
    def test_refuses_in_a_sentence_or_not_at_all(
        self, toy: Bundle, device: str, plan: Plan, needs: dict[str, Any]
    ) -> None:
        """A refusal is shown to the user, so it says why; it never raises."""
        artifact = attrs.evolve(toy.artifact, needs=needs)
        reason = self.made().refuse(toy.card, artifact, plan)

        assert reason is None or (len(reason.split()) > 1 and "\n" not in reason)

    def test_says_in_a_sentence_what_it_lacks_to_derive(self) -> None:
        """Users are told before anything is fetched, with what to type."""
        for form in self.backend.derives.values():
            lack = self.made().lacks(form)

            assert lack is None or (len(lack.split()) > 1 and "\n" not in lack)

    def test_advises_in_sentences(self) -> None:
        """Each is a line of `explain` and of `doctor`, and says what to type."""
        try:
            sentences = self.made().advice()
        except Unavailable as error:
            pytest.skip(str(error))

        assert not isinstance(sentences, str), "advice() gives a sequence of sentences"
        for sentence in sentences:
            assert len(sentence.split()) > 1
            assert "\n" not in sentence

    def test_answers_from_facts_alone(self, device: str) -> None:
        """It is asked before the fetch: the files are not there yet."""
        made = self.made()
        for name in self.backend.formats:
            artifact = Artifact(name, {"main": "nowhere"})
            made.refuse(toy_card(artifact), artifact, Plan(device, "fp32"))

            assert "fp32" in made.precisions(artifact, device)
