"""Tests of a model pack: its cards are sound, and its results keep their promises."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar
from unittest import TestCase
from urllib.parse import parse_qs, urlsplit

import attrs
import numpy as np
import pytest

from inference_models.card import Artifact, Bundle, Facts, File, ModelCard, TensorSpec
from inference_models.errors import InvalidOption, MissingDependency
from inference_models.frame import Frame
from inference_models.images import read_images
from inference_models.interfaces import Architecture, Operations
from inference_models.model import make_options
from inference_models.negotiation.constraints import known_precisions
from inference_models.preprocess import Preprocessing
from inference_models.skeletons import skeletons_of
from inference_models.testing.imports import runtimes_imported
from inference_models.testing.networks import check_network, has_modules
from inference_models.testing.pictures import picture
from inference_models.testing.promises import (
    check_results,
    count_found,
    equal,
    joined,
)
from inference_models.testing.standard import StandardTests, misspelt

RUNTIMES = ("torch", "onnxruntime", "tensorrt", "transformers")

SIZES = ((96, 128), (111, 83))
"""Height and width of the two pictures that outputs are made up for."""

SECRET = re.compile(r"(?i)(key|token|signature|secret|password|credential)")

FOREIGN = [
    Facts("unknown", {}),
    Facts("onnx", {}),
    Facts("torch", {"": TensorSpec("float32", ())}),
    Facts(
        "torch", {f"kjqx.{n}.weight": TensorSpec("bfloat16", (n,)) for n in range(9)}
    ),
    Facts(
        "onnx", {"kjqx": TensorSpec("float32", ("batch", "?", "height"))}, {"": None}
    ),
    Facts("torch", {"model": TensorSpec("int64", (0,))}, {"args": "kjqx", "epoch": -1}),
]


class ArchitectureTests(StandardTests):
    """All that an architecture and its cards have to pass.

    Set `architecture`, and write the fixture `outputs`. An architecture without public
    cards also overrides the fixture `card`, one that reads files of its bundle the
    fixture `bundle`, and one that claims bare files may write the fixture `facts`.
    """

    architecture: ClassVar[type[Architecture[Any]]]
    """The class to test."""
    runtime: ClassVar[tuple[str, ...]] = RUNTIMES
    """Modules that importing the pack and listing its cards must not import."""

    @pytest.fixture
    def outputs(self) -> dict[str, np.ndarray]:
        """Plausible outputs of the first card's network for two images; yours."""
        raise NotImplementedError(f"{type(self).__name__} has no fixture `outputs`")

    @pytest.fixture
    def facts(self) -> Facts | None:
        """Facts of a bare file of this family, if it claims any."""
        return None

    @pytest.fixture
    def card(self) -> ModelCard:
        """The card that `outputs` belong to; by default the first."""
        cards = list(self.architecture.cards())
        assert cards, (
            f"{self.architecture.__name__} has no public cards; write the fixture "
            "`card`, one that `outputs` belong to"
        )
        return cards[0]

    @pytest.fixture
    def bundle(self, card: ModelCard, tmp_path: Path) -> Bundle:
        """The card's first artifact, with no file of it."""
        return Bundle(card, card.artifacts[0], tmp_path)

    @pytest.fixture
    def made(self, bundle: Bundle) -> Architecture[Any]:
        """The architecture of the bundle."""
        return self.architecture(bundle)

    @pytest.fixture
    def frames(self, made: Architecture[Any]) -> list[Frame]:
        """Frames of two pictures as `preprocess` gives them."""
        _, frames = self._preprocessed(made)
        return frames

    def _cards(self) -> list[ModelCard]:
        cards = list(self.architecture.cards())
        if not cards:
            pytest.skip(f"{self.architecture.__name__} has no public cards")
        return cards

    def _artifacts(self) -> Iterator[tuple[ModelCard, Artifact]]:
        for card in self._cards():
            for artifact in card.artifacts:
                yield card, artifact

    def _preprocessed(
        self, made: Architecture[Any]
    ) -> tuple[dict[str, Any], list[Frame]]:
        images = read_images([picture(*size) for size in SIZES])
        spec = attrs.evolve(made.preprocessing, dtype="float32")
        try:
            inputs, frames = made.preprocess(
                images, self.architecture.Options(), Operations(), spec
            )
        except MissingDependency as error:
            pytest.skip(str(error))
        return inputs, list(frames)

    def _results(
        self,
        made: Architecture[Any],
        outputs: dict[str, np.ndarray],
        frames: Sequence[Frame],
        **options: Any,
    ) -> list[Any]:
        chosen = make_options(self.architecture.Options, options, made.card.task)
        return made.postprocess(dict(outputs), frames, chosen, Operations())

    def _skip_without_confidence(self) -> None:
        if "confidence" not in attrs.fields_dict(self.architecture.Options):
            pytest.skip("there is no option confidence")

    def test_has_a_name(self) -> None:
        """Cards name their architecture, by its name or an alias."""
        names = [self.architecture.name, *self.architecture.aliases]

        assert isinstance(self.architecture.aliases, tuple)
        assert all(re.fullmatch(r"\S+", name) for name in names)
        assert len(names) == len(set(names))

    def test_misspells_no_member(self) -> None:
        """A method that core does not know by its name is never called."""
        assert misspelt(self.architecture, Architecture) == []

    def test_options_are_an_attrs_class_with_defaults(self) -> None:
        """A call may set any of them, and has to set none."""
        options = self.architecture.Options

        assert attrs.has(options)
        assert isinstance(options(), options)

    def test_its_trial_is_of_its_options(self, made: Architecture[Any]) -> None:
        """What is derived is compared with its source by a run with these."""
        assert isinstance(made.trial, self.architecture.Options)

    def test_imports_no_runtime_to_list_its_cards(self) -> None:
        """All packs are listed on first use, so a heavy import is paid by everyone."""
        assert runtimes_imported(self.architecture, self.runtime) == []

    def test_no_card_is_left_out(self) -> None:
        """A wrong one is passed over with a warning, so that others can be loaded."""
        with TestCase().assertNoLogs("inference_models", "WARNING"):
            list(self.architecture.cards())

    def test_cards_have_ids_of_their_own(self) -> None:
        """An id or alias means one model."""
        names = [name for card in self._cards() for name in (card.id, *card.aliases)]

        assert [name for name, count in Counter(names).items() if count > 1] == []

    def test_cards_name_this_architecture(self) -> None:
        """Core looks the architecture up by what the card says."""
        known = {self.architecture.name, *self.architecture.aliases}

        assert {card.architecture for card in self._cards()} <= known

    def test_its_card_names_the_task_that_users_name(self, card: ModelCard) -> None:
        """A task chooses the class that users hold, and is what `task=` asks for."""
        own = self.architecture.Model

        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", card.task), (
            f"the task {card.task!r} is not in lower-case words with hyphens between"
        )
        if own is not None and own.task is not None:
            assert card.task == own.task

    def test_cards_state_a_licence(self) -> None:
        """Users must know on which terms they may use the weights."""
        assert [card.id for card in self._cards() if not card.license] == []

    def test_cards_survive_json(self) -> None:
        """A card can be written down, mirrored and read again."""
        for card in self._cards():
            text = json.dumps(card.to_json(), sort_keys=True)
            again = ModelCard.from_json(json.loads(text))

            assert json.dumps(again.to_json(), sort_keys=True) == text

    def test_cards_have_preprocessing_that_can_be_read(self, tmp_path: Path) -> None:
        """A misspelt field would otherwise show after the download."""
        for card, artifact in self._artifacts():
            made = self.architecture(Bundle(card, artifact, tmp_path))

            assert isinstance(made.preprocessing, Preprocessing)

    def test_cards_have_skeletons_that_can_be_read(self, tmp_path: Path) -> None:
        """They are read when a user asks for them, long after the download."""
        for card, artifact in self._artifacts():
            bundle = Bundle(card, artifact, tmp_path)

            assert skeletons_of(bundle.config, len(card.labels)) is not None

    def test_artifacts_hold_the_files_of_their_graphs(self) -> None:
        """A graph's entry is a file of the artifact, or its folder."""
        for card, artifact in self._artifacts():
            assert artifact.precision in known_precisions(), card.id
            assert self.architecture.image_input[0] in artifact.graphs, card.id
            assert artifact.lost == [], card.id

    def test_files_have_a_source_and_a_hash(self) -> None:
        """What is fetched is checked, and what comes out of a wheel in full."""
        for card, artifact in self._artifacts():
            for file in artifact.files:
                assert file.sources, f"{file.name!r} of {card.id!r} has no source"
                assert _is_checked(file), f"{file.name!r} of {card.id!r} is not checked"

    def test_sources_are_encrypted_and_hold_no_secret(self) -> None:
        """Cards are published; keys belong to providers, who add them to a request."""
        for _, artifact in self._artifacts():
            for source in (s for file in artifact.files for s in file.sources):
                parts = urlsplit(source)

                assert parts.scheme in ("https", "file", "wheel"), source
                assert parts.password is None
                assert not list(filter(SECRET.search, parse_qs(parts.query)))

    @pytest.mark.parametrize("facts", FOREIGN, ids=range(len(FOREIGN)))
    def test_claims_no_foreign_files(self, facts: Facts) -> None:
        """Every architecture is shown the file, and all but one have never seen it."""
        assert self.architecture.claims(facts) is None

    def test_claims_a_file_of_its_family(self, facts: Facts | None) -> None:
        """The card it makes up is one that core can load."""
        if facts is None:
            pytest.skip("there is no fixture `facts`")
        card = self.architecture.claims(facts)

        assert card is not None
        assert card.architecture in (self.architecture.name, *self.architecture.aliases)
        assert ModelCard.from_json(card.to_json()).task

    def test_claims_a_mutilated_file_or_not_but_never_fails(
        self, facts: Facts | None
    ) -> None:
        """A file that is nearly one of the family must not stop the search."""
        if facts is None:
            pytest.skip("there is no fixture `facts`")
        for mutilated in _mutilated(facts):
            claimed = self.architecture.claims(mutilated)

            assert claimed is None or isinstance(claimed, ModelCard)

    def test_its_network_returns_what_its_signature_names(
        self, made: Architecture[Any]
    ) -> None:
        """Sessions and derived files have the signature's outputs, in its order."""
        _skip_without_modules(made)
        inputs, _ = made.signature(self.architecture.image_input[0])
        if list(inputs) != [self.architecture.image_input[1]]:
            pytest.skip("its graph takes more than images")

        check_network(made)

    def test_what_stays_in_full_precision_is_there(
        self, made: Architecture[Any]
    ) -> None:
        """A misspelt name is passed over, and halves what half precision spoils."""
        _skip_without_modules(made)
        modules = made.modules().values()
        known = {name for module in modules for name, _ in module.named_modules()}

        assert set(self.architecture.fp32_modules) <= known

    def test_preprocesses_into_the_input_for_images(
        self, made: Architecture[Any]
    ) -> None:
        """Core takes the batch's dtype from the tensor that `image_input` names."""
        inputs, frames = self._preprocessed(made)

        assert len(inputs[self.architecture.image_input[1]]) == len(SIZES)
        assert [(frame.height, frame.width) for frame in frames] == list(SIZES)

    def test_results_keep_what_the_task_promises(
        self,
        made: Architecture[Any],
        outputs: dict[str, np.ndarray],
        frames: list[Frame],
    ) -> None:
        """Boxes in the image, the highest score first, known dtypes and class ids."""
        results = self._results(made, outputs, frames)

        check_results(made, results, frames)
        assert count_found(results), (
            "nothing is found in `outputs`: make some score high"
        )

    def test_one_image_gives_what_it_gives_among_others(
        self,
        made: Architecture[Any],
        outputs: dict[str, np.ndarray],
        frames: list[Frame],
    ) -> None:
        """A result depends on its own image alone."""
        both = self._results(made, outputs, frames)
        each = []
        for number in range(len(frames)):
            part = slice(number, number + 1)
            each += self._results(made, _cut(outputs, part), frames[part])

        assert equal(joined(made, each), joined(made, both))

    def test_does_not_write_to_outputs(
        self,
        made: Architecture[Any],
        outputs: dict[str, np.ndarray],
        frames: list[Frame],
    ) -> None:
        """They are the caller's, who may post-process them again with other options."""
        expected = self._results(made, _copies(outputs), frames)
        kept = _copies(outputs)
        self._results(made, kept, frames)
        for name, array in kept.items():
            np.testing.assert_array_equal(array, outputs[name])
            array.flags.writeable = False

        assert equal(self._results(made, kept, frames), expected)

    def test_remembers_nothing_of_a_call(
        self,
        made: Architecture[Any],
        outputs: dict[str, np.ndarray],
        frames: list[Frame],
    ) -> None:
        """Threads share the object, so a call leaves no trace in it."""
        turned = _cut(outputs, slice(None, None, -1))
        fresh = self.architecture(made.bundle)
        expected = self._results(fresh, turned, frames[::-1])
        self._results(made, outputs, frames)

        assert equal(self._results(made, turned, frames[::-1]), expected)

    def test_eight_threads_get_what_one_gets(
        self,
        made: Architecture[Any],
        outputs: dict[str, np.ndarray],
        frames: list[Frame],
    ) -> None:
        """A model is shared by threads."""
        turned = _cut(outputs, slice(None, None, -1))
        calls = [(outputs, frames), (turned, frames[::-1])]
        alone = [self._results(self.architecture(made.bundle), *call) for call in calls]
        with ThreadPoolExecutor(8) as pool:
            futures = [
                pool.submit(self._results, made, *calls[n % 2]) for n in range(16)
            ]
        for number, future in enumerate(futures):
            assert equal(future.result(), alone[number % 2])

    @pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.25), "best", "default"])
    def test_any_confidence_keeps_what_the_task_promises(
        self,
        made: Architecture[Any],
        outputs: dict[str, np.ndarray],
        frames: list[Frame],
        value: Any,
    ) -> None:
        """Also where everything is kept, and where nothing is."""
        self._skip_without_confidence()
        results = self._results(made, outputs, frames, confidence=value)

        check_results(made, results, frames)

    @pytest.mark.parametrize(
        "value", [-0.1, 1.1, float("nan"), "surely", None, True, [0.5]], ids=repr
    )
    def test_a_confidence_out_of_range_is_invalid(
        self, value: Any, card: ModelCard
    ) -> None:
        """A percentage is not silently a threshold that keeps nothing."""
        self._skip_without_confidence()
        with pytest.raises(InvalidOption):
            make_options(self.architecture.Options, {"confidence": value}, card.task)

    @pytest.mark.parametrize(
        "value", ["no number", float("nan"), object()], ids=["text", "nan", "object"]
    )
    def test_what_is_no_number_is_invalid_for_a_number(
        self, value: Any, card: ModelCard
    ) -> None:
        """An option is checked when it is given, not deep in the post-processing."""
        options = self.architecture.Options
        for field in attrs.fields(options):
            if type(field.default) in (int, float):
                with pytest.raises(InvalidOption):
                    make_options(options, {field.name: value}, card.task)


def _skip_without_modules(made: Architecture[Any]) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    if not has_modules(made):
        pytest.skip("has no torch modules of its own")


def _is_checked(file: File) -> bool:
    """Local files may go unchecked; a wheel's member needs the whole sha256."""
    schemes = {urlsplit(source).scheme for source in file.sources}
    if "wheel" in schemes and len(file.sha256 or "") != 64:
        return False
    return schemes == {"file"} or file.sha256 is not None or file.md5 is not None


def _cut(outputs: dict[str, np.ndarray], part: slice) -> dict[str, np.ndarray]:
    """The outputs of some images; one that has no batch stays whole."""
    whole = {name: array.shape[:1] != (len(SIZES),) for name, array in outputs.items()}
    return {n: array if whole[n] else array[part] for n, array in outputs.items()}


def _copies(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in outputs.items()}


def _mutilated(facts: Facts) -> Iterator[Facts]:
    """The facts without one tensor, or with one of another shape."""
    for name, spec in list(facts.tensors.items())[:200]:
        rest = {n: s for n, s in facts.tensors.items() if n != name}
        yield attrs.evolve(facts, tensors=rest)
        for shape in (
            (),
            ("batch", *spec.shape),
            spec.shape[:1],
            (0,) * len(spec.shape),
        ):
            strange = {**facts.tensors, name: TensorSpec(spec.dtype, shape)}
            yield attrs.evolve(facts, tensors=strange)
    yield attrs.evolve(facts, metadata={})
