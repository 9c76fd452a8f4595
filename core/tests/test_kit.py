"""The kit passes what is sound, and catches what is broken."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
import logging
import os
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import numpy as np
import pytest

from inference_models import (
    Architecture,
    Artifact,
    Backend,
    ClassificationPrediction,
    ConfidenceOptions,
    Detections,
    Facts,
    File,
    InstanceDetections,
    InvalidInput,
    InvalidWeights,
    KeyPoints,
    Model,
    ModelCard,
    MultiLabelClassificationPrediction,
    Offline,
    Operations,
    Session,
    TensorSpec,
    Unavailable,
    Unreachable,
    WeightsProvider,
)
from inference_models.download.ask import Question, Terms, ask
from inference_models.download.store import cache_root
from inference_models.images import to_host
from inference_models.prepare import prepare
from inference_models.testing import (
    ArchitectureTests,
    BackendTests,
    ToyArchitecture,
    WeightsProviderTests,
    toy_bundle,
    toy_card,
)
from inference_models.testing.operations import OperationsTests
from inference_models.testing.sessions import SessionTests

from .server import Server

RUNTIME = "colorsys"  # any module that nothing else imports


class NpzSession(Session):
    """The toy in NumPy."""

    def __init__(self, tensors):
        self.inputs = {"input": TensorSpec("float32", ("batch", 3, 8, 8))}
        self.outputs = {"output": TensorSpec("float32", ("batch", 3))}
        self.tensors = tensors

    def __call__(self, **inputs):
        return {"output": self.run(to_host(inputs["input"]))}

    def run(self, batch):
        if batch.shape[1:] != (3, 8, 8):
            raise InvalidInput(f"a batch of shape {batch.shape} is not (N, 3, 8, 8)")
        means = batch.astype(np.float64).mean(axis=(2, 3))
        output = means * self.tensors["weight"] + self.tensors["bias"]
        return output.astype(np.float32)


class NpzBackend(Backend):
    """Runs the toy from an .npz file."""

    name = "npz"
    formats = ("npz",)
    session = NpzSession
    device_operations = Operations

    def __init__(self, threads=1):
        self.threads = threads

    def devices(self):
        return ["cpu"]

    def refuse(self, card, artifact, plan):
        return None if plan.device == "cpu" else f"there is no device {plan.device}"

    def open(self, bundle, architecture, plan):
        tensors = read(bundle.path())
        if tensors is None:
            raise InvalidWeights(f"{bundle.path()} is damaged")
        return {"main": self.session(tensors)}

    def operations(self, device):
        return self.device_operations()

    def inspect(self, path):
        tensors = read(path)
        if tensors is None:
            return None
        specs = {n: TensorSpec(str(a.dtype), a.shape) for n, a in tensors.items()}
        return Facts("npz", specs)


def read(path):
    try:
        with np.load(path) as file:
            return dict(file) or None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile):
        return None


class NpzKit:
    """What the author of the backend writes."""

    backend = NpzBackend
    runtime = (RUNTIME,)

    @pytest.fixture
    def toy(self, tmp_path):
        np.savez(tmp_path / "toy.npz", **ToyArchitecture.tensors())
        return toy_bundle(tmp_path, Artifact("npz", {"main": "toy.npz"}))


class TestNpz(NpzKit, BackendTests):
    settings = {"threads": 2}  # noqa: RUF012 - as an author writes it


class TestNpzThroughOtherNamesAndBatches(NpzKit, SessionTests):
    """The file names its tensors otherwise, and the graph takes two images."""

    class backend(NpzBackend):  # noqa: N801 - an attribute of the kit
        class session(NpzSession):  # noqa: N801
            def __init__(self, tensors):
                super().__init__(tensors)
                self.inputs = {"x": TensorSpec("float32", (2, 3, 8, 8))}
                self.outputs = {"y": TensorSpec("float32", (2, 3))}

            def __call__(self, x):
                assert len(x) == 2
                return {"y": self.run(to_host(x))}

    @pytest.fixture
    def toy(self, tmp_path):
        np.savez(tmp_path / "toy.npz", **ToyArchitecture.tensors())
        names = {"x": "input", "#0": "output"}
        artifact = Artifact("npz", {"main": "toy.npz"}, batch=(2, 2, 2), rename=names)
        return toy_bundle(tmp_path, artifact)


class TestNpzInInt8(NpzKit, SessionTests):
    """The file holds integers and what one of them is worth, and nothing better."""

    precision = "int8"

    class backend(NpzBackend):  # noqa: N801
        own_precisions = ("q5",)

        def open(self, bundle, architecture, plan):
            if plan.precision not in ("int8", "q5"):
                raise InvalidWeights("there are integers alone")
            (session,) = super().open(bundle, architecture, plan).values()
            of = session.tensors
            session.tensors = {n: of[n] * of["worth"] for n in ("weight", "bias")}
            return {"main": session}

    @pytest.fixture
    def toy(self, tmp_path):
        tensors, worth = ToyArchitecture.tensors(), np.float32(1 / 16)
        whole = {n: np.round(t / worth).astype(np.int8) for n, t in tensors.items()}
        np.savez(tmp_path / "toy.npz", worth=worth, **whole)
        artifact = Artifact("npz", {"main": "toy.npz"}, precision=self.precision)
        return toy_bundle(tmp_path, artifact)


class TestNpzInAPrecisionOfItsOwn(TestNpzInInt8):
    precision = "q5"


BROKEN = {}
CAUGHT = set()


def broken(kit, *tests, needs="numpy", **attributes):
    """Say that a plugin fails these tests of a kit, and no others."""

    def register(cls):
        name = f"Broken{cls.__name__}"
        # Without the library the test is skipped.
        BROKEN[name] = set(tests) if importlib.util.find_spec(needs) else set()
        CAUGHT.update(tests)
        plugin = backend_with(cls) if kit.slot == "backend" else cls
        define(name, kit, **{kit.slot: plugin, **attributes})
        return cls

    return register


def backend_with(part):
    """A backend that is sound but for this part."""
    if issubclass(part, Backend):
        return part
    slot = "session" if issubclass(part, Session) else "device_operations"
    return define(f"{part.__name__}Backend", NpzBackend, **{slot: part})


def define(name, *bases, **attributes):
    globals()[name] = type(name, bases, {"__module__": __name__, **attributes})
    return globals()[name]


class Sessions(NpzKit, SessionTests):
    slot = "backend"


class Preparation(NpzKit, OperationsTests):
    slot = "backend"


@broken(Sessions, "test_imports_no_runtime_to_answer")
class ImportsItsRuntime(NpzBackend):
    def devices(self):
        importlib.import_module(RUNTIME)
        return ["cpu"]


@broken(Sessions, "test_imports_no_runtime_to_answer")
class ImportsItsRuntimeToAdvise(NpzBackend):
    def advice(self):
        importlib.import_module(RUNTIME)
        return ()


@broken(Sessions, "test_has_a_name_and_formats")
class CannotBeNamed(NpzBackend):
    aliases = ("NPZ",)


@broken(Sessions, "test_misspells_no_member")
class MisspellsAMethod(NpzBackend):
    def target(self):
        return ["never asked for"]


@broken(Sessions, "test_settings_are_named_and_have_defaults")
class TakesAnySetting(NpzBackend):
    def __init__(self, **settings):
        super().__init__()


@broken(Sessions, "test_pickles_with_its_settings", settings={"threads": 2})
class LosesItsSettings(NpzBackend):
    def __reduce__(self):
        return type(self), ()


@broken(Sessions, "test_devices_come_in_a_steady_order")
class ListsDevicesInAnyOrder(NpzBackend):
    names = ["cpu:0", "cpu:1"]  # noqa: RUF012 - shared on purpose

    def devices(self):
        self.names.reverse()
        return list(self.names)

    def refuse(self, card, artifact, plan):
        return None


@broken(Sessions, "test_devices_come_in_a_steady_order")
class HasNoDeviceAndDoesNotSayWhy(NpzBackend):
    def devices(self):
        return []


@broken(
    Sessions,
    "test_precisions_include_the_artifacts_own",
    "test_answers_from_facts_alone",
)
class RunsHalfPrecisionOnly(NpzBackend):
    def precisions(self, artifact, device):
        return ["fp16"]


@broken(Sessions, "test_precisions_include_the_artifacts_own")
class OffersWhatNobodyCanName(NpzBackend):
    def precisions(self, artifact, device):
        return ["fp32", "q4"]


@broken(Sessions, "test_runs_what_its_operations_prepare_in_every_precision")
class IsWrongInHalfPrecision(NpzBackend):
    def precisions(self, artifact, device):
        return ["fp16", "fp32"]

    def open(self, bundle, architecture, plan):
        sessions = super().open(bundle, architecture, plan)
        if plan.precision == "fp16":
            sessions["main"].tensors["weight"] *= 1.1
        return sessions


@broken(Sessions, "test_refuses_in_a_sentence_or_not_at_all")
class RefusesWithoutAReason(NpzBackend):
    def refuse(self, card, artifact, plan):
        return None if plan.device == "cpu" else ""


@broken(Sessions, "test_says_in_a_sentence_what_it_lacks_to_derive")
class LacksWithoutAReason(NpzBackend):
    derives = {"beads": "npz"}  # noqa: RUF012 - what the toy is not, so none is made

    def lacks(self, form):
        return ""


@broken(Sessions, "test_advises_in_sentences")
class AdvisesInOneString(NpzBackend):
    def advice(self):
        return "buy more beads"


@broken(Sessions, "test_advises_in_sentences")
class AdvisesInTwoLines(NpzBackend):
    def advice(self):
        return ["buy more beads\npip install beads"]


@broken(Sessions, "test_does_not_refuse_the_toy")
class RefusesWhatItOffers(NpzBackend):
    def refuse(self, card, artifact, plan):
        return "it is too late in the day"


@broken(Sessions, "test_opens_a_session_for_each_graph")
class OpensMoreThanThereIs(NpzBackend):
    def open(self, bundle, architecture, plan):
        sessions = super().open(bundle, architecture, plan)
        return {**sessions, "spare": sessions["main"]}


@broken(Sessions, "test_a_damaged_file_is_invalid_weights")
class LetsTheReadersErrorThrough(NpzBackend):
    def open(self, bundle, architecture, plan):
        with np.load(bundle.path()) as file:
            return {"main": self.session(dict(file))}


@broken(Sessions, "test_inspects_its_own_files")
class DoesNotKnowItsOwnFiles(NpzBackend):
    def inspect(self, path):
        return None


@broken(Sessions, "test_inspects_no_foreign_files")
class KnowsEveryFile(NpzBackend):
    def inspect(self, path):
        return super().inspect(path) or Facts("npz", {})


@broken(Sessions, "test_inspects_damaged_files_without_failing")
class FailsToInspectDamagedFiles(NpzBackend):
    def inspect(self, path):
        if path.read_bytes()[:4] == b"PK\3\4":
            with np.load(path) as file:
                tensors = dict(file)
            return Facts("npz", {n: TensorSpec("float32", (3,)) for n in tensors})
        return None


@broken(Sessions, "test_writes_nothing_beside_the_weights")
class CachesBesideTheWeights(NpzBackend):
    def open(self, bundle, architecture, plan):
        (bundle.folder / "cache").write_text("compiled")
        return super().open(bundle, architecture, plan)


@broken(Sessions, "test_derives_what_it_says")
class DerivesNothing(NpzBackend):
    derives = {"npz": "beads"}  # noqa: RUF012 - as a backend declares it

    def derive(self, source, architecture, plan, folder, report):
        return Artifact("beads", {"main": "toy.beads"}, (File("toy.beads"),))


class Beads(NpzKit, SessionTests):
    """Of a backend whose own files another's are made into."""

    slot = "backend"

    @pytest.fixture
    def toy(self, source, tmp_path):
        artifact = Artifact("npz", {"main": "toy.npz"})
        np.savez(tmp_path / "toy.npz", **ToyArchitecture.tensors())
        return attrs.evolve(source, artifact=artifact)

    @pytest.fixture
    def source(self, tmp_path):
        np.savez(tmp_path / "toy.beads", **ToyArchitecture.tensors())
        return toy_bundle(tmp_path, Artifact("beads", {"main": "toy.beads.npz"}))


class StringsBeads(NpzBackend):
    """Derives its own files from another's, with all numbers a little larger."""

    derives = {"beads": "npz"}  # noqa: RUF012 - as a backend declares it
    error = 0.0

    def derive(self, source, architecture, plan, folder, report):
        with np.load(source.path()) as file:
            tensors = {name: file[name] + self.error for name in file}
        np.savez(folder / "own.npz", **tensors)
        return Artifact("npz", {"main": "own.npz"}, (File("own.npz"),))


class TestBeads(Beads):
    backend = StringsBeads


@broken(Beads, "test_derives_what_it_says")
class DerivesSomethingElse(StringsBeads):
    error = np.float32(0.1)


@broken(Sessions, "test_describes_the_tensors_of_the_graph")
class DescribesAnotherGraph(NpzSession):
    def __init__(self, tensors):
        super().__init__(tensors)
        self.outputs = {"output": TensorSpec("float64", ("batch", 3))}


@broken(Sessions, "test_computes_the_toy")
class TakesThreeImagesOrLess(NpzSession):
    def run(self, batch):
        return super().run(batch)[:3]


@broken(Sessions, "test_takes_arrays_of_other_libraries")
class TakesNumpyAlone(NpzSession):
    def __call__(self, **inputs):
        return {"output": self.run(inputs["input"])}


@broken(Sessions, "test_takes_views_with_any_strides")
class ReadsRawMemory(NpzSession):
    def run(self, batch):
        memory = batch.base
        whole = isinstance(memory, np.ndarray) and memory.size == batch.size
        return super().run(memory.reshape(batch.shape) if whole else batch)


@broken(Sessions, "test_does_not_write_to_its_inputs")
class WritesToItsInput(NpzSession):
    def run(self, batch):
        output = super().run(batch)
        if batch.flags.writeable:
            batch[:] = batch[:, :, ::-1].copy()
        return output


@broken(Sessions, "test_takes_read_only_inputs_and_leaves_them_alone")
class LocksItsInput(NpzSession):
    def run(self, batch):
        if batch.flags.owndata and not batch.flags.writeable:
            raise ValueError("assignment destination is read-only")
        return super().run(batch)


@broken(Sessions, "test_does_not_reuse_what_it_returned")
class ReusesItsOutput(NpzSession):
    def __init__(self, tensors):
        super().__init__(tensors)
        self.memory = threading.local()

    def run(self, batch):
        output = super().run(batch)
        if getattr(self.memory, "output", np.empty(0)).shape != output.shape:
            self.memory.output = np.empty_like(output)
        self.memory.output[:] = output
        return self.memory.output


@broken(Sessions, "test_what_it_returned_can_be_written_to")
class LocksItsOutput(NpzSession):
    def run(self, batch):
        output = super().run(batch)
        output.flags.writeable = False
        return output


@broken(Sessions, "test_a_wrong_shape_is_an_error_of_ours")
class LeavesTheShapeToTheRuntime(NpzSession):
    def run(self, batch):
        return super().run(batch.reshape(-1, 3, 8, 8))


@broken(Sessions, "test_eight_threads_get_what_one_gets")
class KeepsTheBatchOfACall(NpzSession):
    def run(self, batch):
        self.batch = batch
        time.sleep(0.0005)
        return super().run(self.batch)


@broken(Sessions, "test_closing_ends_its_own_sessions_alone")
class ClosesAllSessions(NpzBackend):
    opened = {}  # noqa: RUF012 - shared on purpose

    class session(NpzSession):  # noqa: N801 - an attribute of the backend
        def close(self):
            self.tensors.clear()

    def open(self, bundle, architecture, plan):
        sessions = super().open(bundle, architecture, plan)
        tensors = self.opened.get(bundle.folder) or sessions["main"].tensors
        self.opened[bundle.folder] = tensors
        return {"main": self.session(tensors)}


@broken(Sessions, "test_closing_twice_is_closing_once")
class ClosesOnce(NpzSession):
    def close(self):
        del self.tensors


@broken(Preparation, "test_resizes_as_the_host_does")
class AlwaysSmooths(Operations):
    def prepare(self, images, spec):
        return super().prepare(images, attrs.evolve(spec, antialias=True))


@broken(Preparation, "test_prepares_as_the_host_does")
class ForgetsTheCrop(Operations):
    def prepare(self, images, spec):
        dropped = None if spec.contrast is None else spec.crop
        return super().prepare(images, attrs.evolve(spec, crop=dropped))


@broken(Preparation, "test_normalises_channels_in_the_networks_order")
class TurnsTheMeanWithTheChannels(Operations):
    def prepare(self, images, spec):
        if spec.color == "bgr":
            spec = attrs.evolve(spec, mean=spec.mean[::-1], std=spec.std[::-1])
        return super().prepare(images, spec)


@broken(Preparation, "test_leaves_uint8_batches_as_they_are")
class NormalisesIntegers(Operations):
    def prepare(self, images, spec):
        batch, frames = super().prepare(images, spec)
        return (batch // 2 if spec.dtype == "uint8" else batch), frames


@broken(Preparation, "test_the_same_pixels_in_any_form_give_the_same_batch")
class TakesEveryTensorForBgr(Operations):
    def prepare(self, images, spec):
        return super().prepare([self.turned(image) for image in images], spec)

    def turned(self, image):
        tensor = image.layout == "CHW" and "uint8" in str(image.pixels.dtype)
        return attrs.evolve(image, color="bgr") if tensor else image


@broken(Preparation, "test_floats_in_0_to_1_give_the_batch_of_their_pixels")
class TruncatesFloats(Operations):
    def prepare(self, images, spec):
        return super().prepare([self.truncated(image) for image in images], spec)

    def truncated(self, image):
        pixels = to_host(image.pixels)
        if pixels.dtype == np.uint8:
            return image
        darker = (pixels * 254).astype(np.uint8)
        return attrs.evolve(image, pixels=darker)


@broken(Preparation, "test_takes_gray_images_and_those_with_alpha")
class NeedsThreeChannels(Operations):
    def prepare(self, images, spec):
        for image in images:
            if image.pixels.ndim == 2:
                raise ValueError("not enough values to unpack")
        return super().prepare(images, spec)


@broken(Preparation, "test_reads_read_only_images")
class WritesToImages(Operations):
    def prepare(self, images, spec):
        for image in images:
            if spec.size == (image.height, image.width):
                image.pixels[:] = image.pixels
        return super().prepare(images, spec)


@broken(Preparation, "test_maps_masks_as_the_host_does")
class TakesTheNearestCell(Operations):
    def masks(self, logits, chosen, frames):
        found = super().masks(logits, chosen, frames)
        return [masks[:, ::2].repeat(2, axis=1)[:, : masks.shape[1]] for masks in found]


@broken(Preparation, "test_a_later_batch_leaves_earlier_ones_alone")
class ReusesItsBatch(Operations):
    def __init__(self):
        self.memory = threading.local()

    def prepare(self, images, spec):
        batch, frames = super().prepare(images, spec)
        if getattr(self.memory, "batch", np.empty(0)).shape != batch.shape:
            self.memory.batch = np.empty_like(batch)
        self.memory.batch[:] = batch
        return self.memory.batch, frames


@broken(Preparation, "test_eight_threads_prepare_what_one_prepares")
class PreparesOneCallsImagesInAnother(Operations):
    def prepare(self, images, spec):
        self.images = images
        time.sleep(0.0005)
        return prepare(self.images, spec)


@broken(Preparation, "test_equalizes_as_the_host_does", needs="skimage")
class LeavesTheContrast(Operations):
    def prepare(self, images, spec):
        return super().prepare(images, attrs.evolve(spec, contrast=None))


@broken(Preparation, "test_brings_tensors_to_the_host", needs="torch")
class LeavesTensorsAsTheyAre(Operations):
    def host(self, array):
        return super().host(array) if isinstance(array, np.ndarray) else array


@broken(Preparation, "test_several_arrays_come_to_the_host_as_each_alone")
class BringsSeveralArraysInOneType(Operations):
    def hosts(self, arrays):
        return [self.host(array).astype(np.float64) for array in arrays]


@broken(Preparation, "test_brings_numpy_arrays_to_the_host")
class LeavesHalvesAsTheyAre(Operations):
    def host(self, array):
        return array if isinstance(array, np.ndarray) else super().host(array)


@broken(Sessions)
class IsNotAvailable(NpzBackend):
    def devices(self):
        raise Unavailable("there are no beads here; pip install beads")


class BrokenOverrides(Sessions):
    def test_computes_the_toy(self):
        pass


BROKEN["BrokenOverrides"] = {"test_overrides_no_standard_test_without_a_reason"}


class BrokenButKnown(Sessions):
    @pytest.mark.xfail(reason="close() is not yet idempotent", strict=True)
    def test_closing_twice_is_closing_once(self):
        raise NotImplementedError


BROKEN["BrokenButKnown"] = set()


PREPROCESSING = {"size": [64, 96], "resize": "letterbox"}


def tiny_card(number, **changes):
    """A sound card but for the changes."""
    file = File("tiny.npz", ("https://example.com/tiny.npz",), 123, "0" * 64)
    card = ModelCard(
        id=f"tiny-{number}",
        architecture="tiny",
        task="object-detection",
        artifacts=(Artifact("npz", {"main": "tiny.npz"}, (file,)),),
        labels=("cat", None, "dog"),
        config={"preprocessing": PREPROCESSING},
        license="MIT",
    )
    return attrs.evolve(card, **changes)


@attrs.frozen
class TinyOptions(ConfidenceOptions):
    most: int = attrs.field(default=100, validator=attrs.validators.ge(1))


class Tiny(Architecture):
    """Output "boxes" (N, K, 6): corners in 0–1 of the input, score, class."""

    name = "tiny"
    Options = TinyOptions
    second = {}  # noqa: RUF012 - what a variant's second card has otherwise

    @classmethod
    def cards(cls):
        return [tiny_card(1), tiny_card(2, **cls.second)]

    @classmethod
    def claims(cls, facts):
        boxes = facts.tensors.get("boxes")
        if boxes is None or len(boxes.shape) != 3 or boxes.shape[2] != 6:
            return None
        return tiny_card(3)

    def postprocess(self, outputs, frames, options, ops):
        threshold = self.threshold(options.confidence, default=0.5)
        boxes = ops.host(outputs["boxes"])
        pairs = zip(boxes, frames, strict=True)
        return [
            self.found(rows, frame, threshold)[: options.most] for rows, frame in pairs
        ]

    def found(self, rows, frame, threshold):
        rows = rows[(rows[:, 4] >= threshold) & (rows[:, 5] != 1)]
        xyxy = frame.from_normalized(rows[:, :4])
        return Detections.sort(xyxy, rows[:, 4], rows[:, 5], self.class_names)


class TinyKit(ArchitectureTests):
    architecture = Tiny
    slot = "architecture"
    runtime = (RUNTIME,)

    @pytest.fixture
    def outputs(self):
        boxes = [
            [[0.1, 0.2, 0.3, 0.4, 0.6, 0], [0, 0, 1, 1, 0.9, 2], [0, 0, 1, 1, 0.8, 1]],
            [[-0.1, 0.2, 1.5, 1.4, 0.7, 2], [0, 0, 1, 1, 0.1, 0], [0, 0, 1, 1, 0.8, 0]],
        ]
        return {
            "boxes": np.array(boxes, np.float32),
            "constant": np.zeros((), np.float32),
        }

    @pytest.fixture
    def facts(self):
        return Facts("npz", {"boxes": TensorSpec("float32", ("batch", 3, 6))})


class TestTiny(TinyKit):
    pass


class TestToy(ArchitectureTests):
    architecture = ToyArchitecture

    @pytest.fixture
    def card(self):
        return toy_card(Artifact("npz", {"main": "toy.npz"}))

    @pytest.fixture
    def outputs(self):
        return {"output": np.array([[3, 1, -1], [0, 5, 2]], np.float32)}


class Tags(Tiny):
    """Output "scores" (N, 3)."""

    def postprocess(self, outputs, frames, options, ops):
        threshold = self.threshold(options.confidence, default=0.5)
        return [
            MultiLabelClassificationPrediction.from_scores(
                scores, threshold, self.class_names
            )
            for scores in ops.host(outputs["scores"])
        ]


class TestTags(ArchitectureTests):
    architecture = Tags

    @pytest.fixture
    def card(self):
        return tiny_card(4, task="multi-label-classification", labels=("a", "b", "c"))

    @pytest.fixture
    def outputs(self):
        return {"scores": np.array([[0.9, 0.1, 0.95], [0, 0.2, 0.6]], np.float32)}


class Captions(Tiny):
    """Output "length" (N,)."""

    def postprocess(self, outputs, frames, options, ops):
        return ["na" * int(length) for length in ops.host(outputs["length"])]


class TestCaptions(ArchitectureTests):
    """A task that core has no class for."""

    architecture = Captions

    @pytest.fixture
    def card(self):
        return tiny_card(5, task="captioning")

    @pytest.fixture
    def outputs(self):
        return {"length": np.array([2, 8])}


class Rows(Model):
    task = "embedding"

    def join(self, results):
        return np.concatenate(results)


class Embeds(Tiny):
    """Output "rows" (N, D)."""

    Model = Rows

    def postprocess(self, outputs, frames, options, ops):
        return [ops.host(outputs["rows"])]


class TestEmbeds(ArchitectureTests):
    """A task that core has no class for, whose own class joins batches."""

    architecture = Embeds

    @pytest.fixture
    def card(self):
        return tiny_card(6, task="embedding")

    @pytest.fixture
    def outputs(self):
        return {"rows": np.array([[1, 2, 3], [4, 5, 6]], np.float32)}


class Shapes(Tiny):
    """The boxes of `Tiny`, and output "masks" (N, K, h, w)."""

    @classmethod
    def cards(cls):
        return [tiny_card(7, task="instance-segmentation")]

    def postprocess(self, outputs, frames, options, ops):
        threshold = self.threshold(options.confidence, default=0.5)
        masks = ops.host(outputs["masks"])
        triples = zip(ops.host(outputs["boxes"]), masks, frames, strict=True)
        return [self.shapes(*triple, threshold) for triple in triples]

    def shapes(self, rows, masks, frame, threshold):
        kept = (rows[:, 4] >= threshold) & (rows[:, 5] != 1)
        xyxy = frame.from_normalized(rows[kept, :4])
        arrays = (xyxy, rows[kept, 4], rows[kept, 5], self.class_names)
        return InstanceDetections.sort(*arrays, self.masks(masks[kept], frame))

    def masks(self, logits, frame):
        return frame.masks_to_original(logits)


class ShapesKit(ArchitectureTests):
    architecture = Shapes
    slot = "architecture"

    @pytest.fixture
    def outputs(self):
        boxes = [[0.1, 0.2, 0.3, 0.4, 0.6, 0], [0, 0, 1, 1, 0.9, 2]]
        masks = np.random.default_rng(0).normal(size=(2, 2, 6, 5))
        return {"boxes": np.array([boxes] * 2, np.float32), "masks": masks}


class TestShapes(ShapesKit):
    pass


class Poses(Tiny):
    """The boxes of `Tiny`, and output "points" (N, K, 3): x, y and how sure."""

    @classmethod
    def cards(cls):
        return [tiny_card(9, task="keypoint-detection")]

    def postprocess(self, outputs, frames, options, ops):
        threshold = self.threshold(options.confidence, default=0.5)
        points = ops.host(outputs["points"])
        triples = zip(ops.host(outputs["boxes"]), points, frames, strict=True)
        return [self.poses(*triple, threshold) for triple in triples]

    def poses(self, rows, points, frame, threshold):
        kept = (rows[:, 4] >= threshold) & (rows[:, 5] != 1)
        xyxy = frame.from_normalized(rows[kept, :4])
        things = (rows[kept, 5], rows[kept, 4], xyxy, self.class_names)
        return KeyPoints.sort(*self.points(points[kept], frame), *things)

    def points(self, points, frame):
        sure = points[..., 2]
        return frame.points_to_original(points[..., :2]) * (sure > 0)[..., None], sure


class PosesKit(ArchitectureTests):
    architecture = Poses
    slot = "architecture"

    @pytest.fixture
    def outputs(self):
        boxes = [[0.1, 0.2, 0.3, 0.4, 0.6, 0], [0, 0, 1, 1, 0.9, 2]]
        points = [[[3, 4, 0.5], [0, 0, 0]], [[-1, 9, 1], [5, 5, 0.25]]]
        found = {"boxes": [boxes] * 2, "points": [points] * 2}
        return {name: np.array(rows, np.float32) for name, rows in found.items()}


class TestPoses(PosesKit):
    pass


@attrs.frozen(repr=False)
class Marked(Detections):
    marks: np.ndarray = attrs.field(kw_only=True)


class Marks(Tiny):
    """A task that core has no class for, whose results are boxes with more to them."""

    @classmethod
    def cards(cls):
        return [tiny_card(8, task="marking")]

    def found(self, rows, frame, threshold):
        found = super().found(rows, frame, threshold)
        boxes = (found.xyxy, found.confidence, found.class_id, found.class_names)
        return Marked(*boxes, marks=self.marks(found))

    def marks(self, found):
        return found.xyxy.mean(axis=1)


class MarksKit(TinyKit):
    architecture = Marks


class TestMarks(MarksKit):
    pass


PROMISES = (
    "test_results_keep_what_the_task_promises",
    "test_any_confidence_keeps_what_the_task_promises",
)


@broken(TinyKit, "test_its_trial_is_of_its_options")
class HasATrialOfAnotherKind(Tiny):
    trial = {"confidence": 0.5}  # noqa: RUF012 - as such a mistake is made


@broken(TinyKit, "test_imports_no_runtime_to_list_its_cards")
class ImportsARuntime(Tiny):
    @classmethod
    def claims(cls, facts):
        importlib.import_module(RUNTIME)
        return super().claims(facts)


@broken(TinyKit, "test_has_a_name")
class HasOneNameTwice(Tiny):
    aliases = ("tiny",)


@broken(TinyKit, "test_no_card_is_left_out")
class LeavesACardOut(Tiny):
    @classmethod
    def cards(cls):
        logging.getLogger("inference_models").warning("a card is left out: 'a.json'")
        yield from super().cards()


@broken(TinyKit, "test_cards_have_ids_of_their_own")
class RepeatsAnId(Tiny):
    second = {"aliases": ("tiny-1",)}  # noqa: RUF012


@broken(TinyKit, "test_cards_name_this_architecture")
class ShipsAStrangersCard(Tiny):
    second = {"architecture": "huge"}  # noqa: RUF012


@broken(TinyKit, "test_cards_state_a_licence")
class StatesNoLicence(Tiny):
    second = {"license": None}  # noqa: RUF012


@broken(TinyKit, "test_cards_survive_json")
class HasACardThatIsNoJson(Tiny):
    second = {"config": {"preprocessing": PREPROCESSING, "sizes": {1, 2}}}  # noqa: RUF012


@broken(TinyKit, "test_cards_have_preprocessing_that_can_be_read")
class MisspellsPreprocessing(Tiny):
    second = {"config": {"preprocessing": {"sise": [64, 64]}}}  # noqa: RUF012


@broken(TinyKit, "test_artifacts_hold_the_files_of_their_graphs")
class LacksTheEntryFile(Tiny):
    second = {"artifacts": (Artifact("npz", {"main": "tiny.npz"}),)}  # noqa: RUF012


def with_file(**changes):
    (artifact,) = tiny_card(0).artifacts
    file = attrs.evolve(artifact.files[0], **changes)
    return {"artifacts": (attrs.evolve(artifact, files=(file,)),)}


@broken(TinyKit, "test_files_have_a_source_and_a_hash")
class HasNoHash(Tiny):
    second = with_file(sha256=None)


@broken(TinyKit, "test_files_have_a_source_and_a_hash")
class HasHalfAHashOfAWheel(Tiny):
    second = with_file(sha256="0" * 8, sources=("wheel://tiny/1.0/tiny.npz",))


@broken(TinyKit, "test_sources_are_encrypted_and_hold_no_secret")
class TellsItsKey(Tiny):
    second = with_file(sources=("https://example.com/tiny.npz?api_key=123",))


@broken(TinyKit, "test_claims_no_foreign_files")
class ClaimsEverything(Tiny):
    @classmethod
    def claims(cls, facts):
        return tiny_card(3)


@broken(TinyKit, "test_claims_a_file_of_its_family")
class ClaimsNothing(Tiny):
    @classmethod
    def claims(cls, facts):
        return None


@broken(TinyKit, "test_claims_a_mutilated_file_or_not_but_never_fails")
class FailsToReadAMutilatedFile(Tiny):
    @classmethod
    def claims(cls, facts):
        boxes = facts.tensors.get("boxes")
        return tiny_card(3) if boxes and boxes.shape[2] == 6 else None


@broken(TinyKit, "test_preprocesses_into_the_input_for_images")
class NamesAnotherInput(Tiny):
    def preprocess(self, images, options, ops, spec):
        inputs, frames = super().preprocess(images, options, ops, spec)
        return {"pixels": inputs["input"]}, frames


@broken(TinyKit, *PROMISES)
class DoesNotSort(Tiny):
    def found(self, rows, frame, threshold):
        found = super().found(rows, frame, threshold)
        return found[::-1]


@broken(TinyKit, *PROMISES)
class LeavesTheImage(Tiny):
    def found(self, rows, frame, threshold):
        larger = attrs.evolve(frame, width=frame.width * 2)
        return super().found(rows, larger, threshold)


@broken(TinyKit, *PROMISES)
class ReturnsUnnamedClasses(Tiny):
    def found(self, rows, frame, threshold):
        found = super().found(rows, frame, threshold)
        return attrs.evolve(found, class_id=np.ones_like(found.class_id))


@broken(TinyKit, *PROMISES)
class HasClassIdsOfAnotherType(Tiny):
    def found(self, rows, frame, threshold):
        found = super().found(rows, frame, threshold)
        return attrs.evolve(found, class_id=found.class_id.astype(np.int32))


@broken(TinyKit, "test_any_confidence_keeps_what_the_task_promises")
class LosesTheShapeOfNothing(Tiny):
    def found(self, rows, frame, threshold):
        found = super().found(rows, frame, threshold)
        return found if len(found) else attrs.evolve(found, xyxy=np.float32([]))


@broken(TinyKit, "test_one_image_gives_what_it_gives_among_others")
class Squeezes(Tiny):
    def postprocess(self, outputs, frames, options, ops):
        squeezed = {"boxes": outputs["boxes"].squeeze()}
        return super().postprocess(squeezed, frames, options, ops)


@broken(TinyKit, "test_its_card_names_the_task_that_users_name")
class MisspellsItsTask(Tiny):
    @classmethod
    def cards(cls):
        return [tiny_card(1, task="object_detection")]


class EmbedsKit(TestEmbeds):
    slot = "architecture"


@broken(EmbedsKit, "test_its_card_names_the_task_that_users_name")
class HasAnotherTaskThanItsCards(Embeds):
    Model = type("Vectors", (Rows,), {"task": "vectors"})


@broken(ShapesKit, *PROMISES)
class HasMasksOfTheInputsSize(Shapes):
    def masks(self, logits, frame):
        return logits > 0


@broken(ShapesKit, *PROMISES)
class HasMasksOfAnotherType(Shapes):
    def shapes(self, rows, masks, frame, threshold):
        found = super().shapes(rows, masks, frame, threshold)
        return attrs.evolve(found, masks=found.masks.astype(np.uint8))


@broken(ShapesKit, *PROMISES)
class LeavesTheMasksOut(Shapes):
    def shapes(self, rows, masks, frame, threshold):
        return self.found(rows, frame, threshold)


@broken(PosesKit, *PROMISES)
class HasPointsThatAreNotThere(Poses):
    def points(self, points, frame):
        return frame.points_to_original(points[..., :2]) + 1, points[..., 2]


@broken(PosesKit, *PROMISES)
class IsMoreThanSureOfPoints(Poses):
    def points(self, points, frame):
        xy, sure = super().points(points, frame)
        return xy, sure * 2


@broken(PosesKit, *PROMISES)
class HasPointsNowhere(Poses):
    def points(self, points, frame):
        xy, sure = super().points(points, frame)
        return np.where(sure[..., None] == 1, np.nan, xy), sure


@broken(PosesKit, *PROMISES)
class HasPointsOfAnotherType(Poses):
    def poses(self, *arguments):
        found = super().poses(*arguments)
        return attrs.evolve(found, xy=found.xy.astype(np.float64))


@broken(PosesKit, *PROMISES)
class HasSpreadForNothing(Poses):
    def poses(self, *arguments):
        found = super().poses(*arguments)
        return attrs.evolve(found, covariance=np.zeros((len(found), 2), np.float32))


@broken(PosesKit, *PROMISES)
class SpreadsWhatIsNotThere(Poses):
    def poses(self, *arguments):
        found = super().poses(*arguments)
        spread = np.zeros((*found.xy.shape, 2), np.float32)
        return attrs.evolve(found, covariance=spread)


@broken(PosesKit, *PROMISES)
class HasOnePointWithoutAnAxis(Poses):
    def poses(self, *arguments):
        found = super().poses(*arguments)
        return attrs.evolve(found, xy=found.xy[:, 0], confidence=found.confidence[:, 0])


@broken(PosesKit, *PROMISES)
class LeavesThePointsOut(Poses):
    def poses(self, *arguments):
        return super().poses(*arguments).detections


@broken(PosesKit, "test_cards_have_skeletons_that_can_be_read")
class JoinsPointsThatThereAreNot(Poses):
    @classmethod
    def cards(cls):
        (card,) = super().cards()
        wrong = {"class_id": 0, "names": ["tip"], "skeleton": [[0, 1]]}
        yield attrs.evolve(card, config={**card.config, "key_points": [wrong]})


@broken(MarksKit, *PROMISES)
class HasOneMarkForAllBoxes(Marks):
    def marks(self, found):
        return np.zeros(1)


@broken(MarksKit, *PROMISES)
class DoesNotSortItsMarks(Marks):
    def found(self, rows, frame, threshold):
        return super().found(rows, frame, threshold)[::-1]


@broken(TinyKit, "test_does_not_write_to_outputs")
class ClipsTheOutputs(Tiny):
    def postprocess(self, outputs, frames, options, ops):
        boxes = outputs["boxes"]
        np.clip(boxes[..., :4], 0, 1, out=boxes[..., :4])
        return super().postprocess(outputs, frames, options, ops)


@broken(
    TinyKit,
    "test_remembers_nothing_of_a_call",
    "test_eight_threads_get_what_one_gets",
    "test_one_image_gives_what_it_gives_among_others",
)
class RemembersOutputs(Tiny):
    def postprocess(self, outputs, frames, options, ops):
        if not hasattr(self, "last") or len(self.last["boxes"]) != len(
            outputs["boxes"]
        ):
            self.last = outputs
        return super().postprocess(self.last, frames, options, ops)


@broken(TinyKit, "test_eight_threads_get_what_one_gets")
class SharesItsFrames(Tiny):
    def postprocess(self, outputs, frames, options, ops):
        self.frames = frames
        time.sleep(0.001)
        return super().postprocess(outputs, self.frames, options, ops)


@attrs.frozen
class UncheckedOptions(ConfidenceOptions):
    most: int = 100


@broken(TinyKit, "test_what_is_no_number_is_invalid_for_a_number")
class ChecksNoOption(Tiny):
    Options = UncheckedOptions


@attrs.frozen
class PercentOptions(TinyOptions):
    confidence: float | str = "default"


@broken(TinyKit, "test_a_confidence_out_of_range_is_invalid")
class TakesAnyConfidence(Tiny):
    Options = PercentOptions


class ToyKit(TestToy):
    slot = "architecture"


@broken(ToyKit, "test_results_keep_what_the_task_promises")
class DoesNotNormalise(ToyArchitecture):
    def postprocess(self, outputs, frames, options, ops):
        scores = 1 / (1 + np.exp(-outputs["output"]))
        return [ClassificationPrediction.from_scores(scores, self.class_names)]


class Signed(ToyArchitecture):
    """The toy, which says something else of its outputs."""

    said = {}  # noqa: RUF012 - what a variant says of them

    def signature(self, graph):
        inputs, _ = super().signature(graph)
        return inputs, self.said


NETWORK = "test_its_network_returns_what_its_signature_names"


@broken(ToyKit, NETWORK, needs="torch")
class NamesAnOutputTooMany(Signed):
    said = {n: TensorSpec("float32", ("batch", "n")) for n in "ab"}  # noqa: RUF012


@broken(ToyKit, NETWORK, needs="torch")
class SaysAnotherSize(Signed):
    said = {"output": TensorSpec("float32", ("batch", 4))}  # noqa: RUF012


@broken(ToyKit, NETWORK, needs="torch")
class SaysAnotherType(Signed):
    said = {"output": TensorSpec("int64", ("batch", "n"))}  # noqa: RUF012


@broken(ToyKit, "test_what_stays_in_full_precision_is_there", needs="torch")
class MisspellsAModule(ToyArchitecture):
    fp32_modules = ("heda",)


@broken(
    ToyKit,
    NETWORK,
    "test_what_stays_in_full_precision_is_there",
    needs="torch",
)
class ReturnsTheModuleItself(ToyArchitecture):
    def modules(self, loaded=None):
        return super().modules()["main"]


WEIGHTS = b"weights of the shelf"


def shelf_card(address):
    source = f"{address}/weights.npz"
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    file = File("weights.npz", (source,), len(WEIGHTS), digest)
    return toy_card(Artifact("npz", {"main": file.name}, (file,)))


class Shelf(WeightsProvider):
    """Has one model, on a server."""

    name = "shelf"
    takes_key = True
    address = ""

    def find(self, model_id, access):
        if model_id != toy_card(Artifact("npz", {})).id:
            return None
        reply = ask(Question(f"{self.address}/card.json"), "the shelf", Terms())
        if reply.status != 200:
            raise self.gone()
        return self.changed(ModelCard.from_json(json.loads(reply.content)))

    def models(self):
        return [self.changed(shelf_card(self.address))] if self.address else []

    def changed(self, card):
        return card

    def gone(self):
        return Unreachable("the shelf is down; try again later")


class ShelfKit(WeightsProviderTests):
    slot = "provider"
    provider = Shelf
    runtime = (RUNTIME,)

    @pytest.fixture
    def server(self, monkeypatch):
        with Server() as server:
            monkeypatch.setattr(Shelf, "address", server.url(""))
            server.gives("/weights.npz", WEIGHTS)
            card = json.dumps(shelf_card(Shelf.address).to_json())
            server.gives("/card.json", card.encode())
            yield server

    @pytest.fixture
    def model_id(self, server):
        return shelf_card(Shelf.address).id

    @pytest.fixture
    def down(self, monkeypatch, server):
        server.gives("/card.json", b"", status=404)


class TestShelf(ShelfKit):
    def test_what_is_remembered_is_nobodys_but_the_tests(self, tmp_path):
        assert cache_root() == tmp_path / "kit-cache"


@broken(ShelfKit, "test_has_a_name_and_an_order")
class IsShouted(Shelf):
    name = "SHELF"


@broken(ShelfKit, "test_imports_no_runtime_to_list_its_models")
class ImportsARuntimeToList(Shelf):
    def models(self):
        importlib.import_module(RUNTIME)
        return super().models()


@broken(ShelfKit, "test_lists_models_that_it_finds")
class ListsAModelTwice(Shelf):
    def models(self):
        return super().models() * 2


@broken(ShelfKit, "test_knows_nothing_of_what_cannot_be_its_own")
class TakesEveryIdForItsOwn(Shelf):
    def find(self, model_id, access):
        return super().find(shelf_card("").id, access)


@broken(
    ShelfKit,
    "test_finds_the_same_again",
    "test_eight_threads_find_what_one_finds",
    "test_lists_models_that_it_finds",
)
class CountsItsCalls(Shelf):
    calls = itertools.count()

    def changed(self, card):
        return attrs.evolve(card, config={"call": next(self.calls)})


@broken(ShelfKit, "test_a_card_survives_json")
class HasATupleInItsConfig(Shelf):
    def changed(self, card):
        return attrs.evolve(card, config={"sizes": (1, 2)})


@broken(ShelfKit, "test_files_have_sources_and_hashes")
class LeavesTheHashOut(Shelf):
    def changed(self, card):
        (artifact,) = card.artifacts
        files = [attrs.evolve(file, sha256=None) for file in artifact.files]
        return attrs.evolve(card, artifacts=[attrs.evolve(artifact, files=files)])


@broken(ShelfKit, "test_says_who_vouches_for_files")
class IsVouchedForByNobodyKnown(Shelf):
    def origin(self, model_id, access):
        return "somebody"


@broken(ShelfKit, "test_shows_no_key")
class KeepsTheKey(Shelf):
    def find(self, model_id, access):
        self.key = access.key
        return super().find(model_id, access)


@broken(
    ShelfKit,
    "test_says_how_a_file_is_asked_for",
    "test_what_it_finds_is_fetched_and_completed",
)
class AsksWithANumber(Shelf):
    def request(self, source, access):
        return source, {"x-shelf": 7}


@broken(ShelfKit, "test_what_it_finds_is_fetched_and_completed")
class LosesTheBundle(Shelf):
    def complete(self, bundle):
        """Forgets to return it."""


@broken(ShelfKit, "test_a_server_that_is_down_is_no_missing_model")
class TakesItsServerForComplete(Shelf):
    def find(self, model_id, access):
        try:
            return super().find(model_id, access)
        except Unreachable:
            return None


@broken(ShelfKit, "test_offline_it_finds_the_same_or_says_why_not")
class TakesItsCacheForComplete(Shelf):
    def find(self, model_id, access):
        try:
            return super().find(model_id, access)
        except Offline:
            return None


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """What the broken plugins fail and skip: {class: {outcome: {test: why}}}."""
    folder = tmp_path_factory.mktemp("reports")
    halves = [list(BROKEN)[half::2] for half in range(2)]
    paths = [folder / "0.xml", folder / "1.xml"]
    with ThreadPoolExecutor() as pool:
        outcomes = {}
        for of_half in pool.map(run_broken, halves, paths):
            outcomes.update(of_half)
    return outcomes


def run_broken(names, path):
    # Each import test starts an interpreter; it is run for those that shall fail it.
    chosen = "BrokenImports or not imports_no_runtime"
    command = [sys.executable, "-m", "pytest", "-p", "no:logging", "--tb=no"]
    command += ["-p", "no:cacheprovider"]
    command += ["-o", "python_classes=Broken*", "-k", chosen]
    result = subprocess.run(
        [*command, f"--junitxml={path}", *(f"{__file__}::{name}" for name in names)],
        env={**os.environ, "PYTEST_ADDOPTS": ""},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert result.returncode == 1, result.stdout + result.stderr
    outcomes = {}
    for case in xml.etree.ElementTree.parse(path).iter("testcase"):
        test = case.get("name").partition("[")[0]
        of_class = outcomes.setdefault(case.get("classname").rpartition(".")[2], {})
        for child in case:
            of_class.setdefault(child.tag, {})[test] = child.get("message")
    return outcomes


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_fails_the_tests_of_what_it_breaks(report, name):
    outcome = report[name]

    assert set(outcome.get("failure", {})) == BROKEN[name]
    assert "error" not in outcome


def test_what_is_unavailable_is_skipped_with_its_reason(report):
    skipped = report["BrokenIsNotAvailable"]["skipped"]

    assert (
        skipped["test_computes_the_toy"] == "there are no beads here; pip install beads"
    )
    assert len(skipped) > 20


CARDLESS = """
import numpy as np
import pytest
from inference_models.testing import ArchitectureTests, ToyArchitecture

class TestToy(ArchitectureTests):
    architecture = ToyArchitecture

    @pytest.fixture
    def outputs(self):
        return {"output": np.zeros((2, 3), np.float32)}
"""


def test_without_any_card_results_are_not_silently_left_untested(tmp_path):
    (tmp_path / "test_toy.py").write_text(CARDLESS)
    (tmp_path / "pytest.ini").write_text("[pytest]")  # no settings of a folder above
    chosen = ["-k", "results_keep", "test_toy.py"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert result.returncode == 1
    assert "ToyArchitecture has no public cards; write the fixture" in result.stdout


def test_every_standard_test_has_a_plugin_that_fails_it():
    tests = {
        name
        for kit in (BackendTests, ArchitectureTests, WeightsProviderTests)
        for name in dir(kit)
        if name.startswith("test_")
    }

    # With options of another kind nothing works, so that all tests fail.
    tests.remove("test_options_are_an_attrs_class_with_defaults")
    tests.remove("test_overrides_no_standard_test_without_a_reason")

    assert tests - CAUGHT == set()
