"""A third party's plugin: two families of models, and two backends in NumPy.

The format "acme" is a JSON file with a gain for each channel. Its graph is exact, so
tests can say what comes out: of colours the mean of each channel, of brightness the
mean of all three.
"""

from __future__ import annotations

import json
import threading
import weakref
from pathlib import Path

import numpy as np

from inference_models import (
    Architecture,
    Artifact,
    Backend,
    ClassificationPrediction,
    ConfidenceOptions,
    Detections,
    Facts,
    File,
    InvalidWeights,
    ModelCard,
    MultiLabelClassificationPrediction,
    Session,
    TensorSpec,
    hookimpl,
)

WEIGHTS = Path(__file__).with_name("acme_weights.json")
COLORS = ("red", "green", "blue")

batches: list[int] = []
"""The size of each batch that a session ran."""

crashed: list[weakref.ref[Weights]] = []
"""What a backend held each time when it crashed."""


class Weights:
    """Much memory, if it were real."""


class AcmeSession(Session):
    """Scales each channel; takes no batch but one of the sizes it was made for."""

    def __init__(self, path, dtype, batch):
        self.gain = np.asarray(json.loads(path.read_text("utf-8"))["gain"], np.float32)
        self.batch, self.closed, self.lock = batch, False, threading.Lock()
        self.inputs = {"pixels": TensorSpec(dtype, ("batch", 3, "height", "width"))}
        scaled = TensorSpec("float32", ("batch", 3, "height", "width"))
        self.outputs = {"means": TensorSpec("float32", ("batch", 3)), "scaled": scaled}

    def __call__(self, **inputs):
        pixels = np.asarray(inputs["pixels"])
        if self.batch and not self.batch[0] <= len(pixels) <= self.batch[2]:
            raise ValueError(f"a batch of {len(pixels)} for a graph of {self.batch}")
        with self.lock:
            batches.append(len(pixels))
        scaled = pixels.astype(np.float32) * self.gain[:, None, None]
        return {"means": scaled.mean(axis=(2, 3)), "scaled": scaled}

    def close(self):
        self.closed = True


class AcmeBackend(Backend):
    """Runs acme's files; the artifact's `needs` may tell it to fail."""

    name, aliases, formats, rank = "acme", ("acme-numpy",), ("acme",), 50

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self.sessions: list[AcmeSession] = []

    def __reduce__(self):
        return type(self), (self.threads,)

    def devices(self):
        return ["cpu"]

    def open(self, bundle, architecture, plan):
        if self.name in bundle.artifact.needs.get("fails", ()):
            raise InvalidWeights(f"{self.name} cannot open {bundle.card.id}")
        if self.name in bundle.artifact.needs.get("crashes", ()):
            weights = Weights()
            crashed.append(weakref.ref(weights))
            raise ZeroDivisionError("a stranger's fault")
        dtype = bundle.config.get("dtype", "float32")
        session = AcmeSession(bundle.path(), dtype, bundle.artifact.batch)
        self.sessions.append(session)
        return {"main": session}

    def inspect(self, path):
        if path.suffix != ".json" or "gain" not in path.read_text("utf-8"):
            return None
        return Facts("acme", {"gain": TensorSpec("float32", (3,))})


class AcmeSpare(AcmeBackend):
    """The same, less preferred."""

    name, aliases, rank = "acme-spare", (), 10

    def inspect(self, path):
        return None


class Colors(Architecture):
    """How much of each colour there is."""

    name, aliases = "acme-colors", ("acme-hues",)
    Options = ConfidenceOptions
    image_input = ("main", "pixels")

    @classmethod
    def cards(cls):
        yield card()

    @classmethod
    def claims(cls, facts):
        return card() if "gain" in facts.tensors else None

    def postprocess(self, outputs, frames, options, ops):
        means = ops.host(outputs["means"])
        if self.card.task == "multi-label-classification":
            least = self.threshold(options.confidence, 0.5)
            of = MultiLabelClassificationPrediction.from_scores
            return [of(row, least, self.class_names) for row in means]
        scores = np.exp(means)
        scores /= scores.sum(axis=1, keepdims=True)
        return [ClassificationPrediction.from_scores(scores, self.class_names)]


class Bright(Architecture):
    """One box around what is bright, in each image."""

    name = "acme-bright"
    image_input = ("main", "pixels")

    @classmethod
    def cards(cls):
        yield card(
            id="acme-bright",
            aliases=(),
            architecture="acme-bright",
            task="object-detection",
            labels=("bright",),
        )

    def postprocess(self, outputs, frames, options, ops):
        scaled = ops.host(outputs["scaled"])
        return [self._box(*pair) for pair in zip(scaled, frames, strict=True)]

    def _box(self, planes, frame):
        rows, columns = np.nonzero(planes.mean(axis=0) > 4.5)
        if not len(rows):
            return Detections.sort(np.empty((0, 4)), [], [], self.class_names)
        corners = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        box = frame.to_original(np.array([corners]))
        return Detections.sort(box, [0.9], [0], self.class_names)


def artifact(**changes):
    """The artifact of the weights beside this module."""
    facts = {
        "format": "acme",
        "graphs": {"main": WEIGHTS.name},
        "files": (File(WEIGHTS.name, (WEIGHTS.as_uri(),)),),
    }
    return Artifact(**facts | changes)


def card(**changes):
    """A card of those weights, as colours unless changed."""
    facts = {
        "id": "acme-colors",
        "aliases": ("acme-hues-small",),
        "architecture": "acme-colors",
        "task": "classification",
        "artifacts": (artifact(),),
        "labels": COLORS,
        "config": {"preprocessing": {"size": [16, 16], "resize": "letterbox"}},
        "license": "MIT",
    }
    return ModelCard(**facts | changes)


@hookimpl
def backends():
    return [AcmeBackend, AcmeSpare]


@hookimpl
def architectures():
    return [Colors, Bright]
