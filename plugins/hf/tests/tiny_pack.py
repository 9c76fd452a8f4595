"""A third party's plugin: colours of an image, from a file of gains or a folder.

A file of weights is a magic word and three bytes, the gain of each channel. A folder's
`config.json` names the model type "tiny", and how many gains there are.
"""

from __future__ import annotations

import json

import numpy as np

from inference_models import (
    Architecture,
    Artifact,
    Backend,
    ClassificationPrediction,
    Facts,
    File,
    InvalidWeights,
    ModelCard,
    Session,
    TensorSpec,
    hookimpl,
)

MAGIC = b"TINY"
COLORS = ("red", "green", "blue")


def weights(*gains):
    return MAGIC + bytes(gains)


class TinySession(Session):
    def __init__(self, gains):
        self.gains = np.float32(gains)
        shape = ("batch", 3, "height", "width")
        self.inputs = {"input": TensorSpec("float32", shape)}
        self.outputs = {"scores": TensorSpec("float32", ("batch", 3))}

    def __call__(self, **inputs):
        means = np.asarray(inputs["input"]).mean(axis=(2, 3)) * self.gains
        scores = np.exp(means)
        return {"scores": scores / scores.sum(axis=1, keepdims=True)}


class TinyBackend(Backend):
    """Files of gains, and folders of them in one file or in several."""

    name, formats, rank = "tiny", ("tiny", "tiny-folder"), 50

    def devices(self):
        return ["cpu"]

    def open(self, bundle, architecture, plan):
        entry = bundle.path()
        files = sorted(entry.glob("*.safetensors")) if entry.is_dir() else [entry]
        gains = [g for file in files for g in file.read_bytes()[len(MAGIC) :]]
        if len(gains) != 3:
            raise InvalidWeights(f"{bundle.card.id!r} has {len(gains)} gains, not 3")
        return {"main": TinySession(gains)}

    def inspect(self, path):
        if path.is_dir():
            return self._folder(path)
        if not path.read_bytes().startswith(MAGIC):
            return None
        return Facts("tiny", {"gains": TensorSpec("uint8", (3,))})

    def _folder(self, path):
        config = path / "config.json"
        data = json.loads(config.read_bytes()) if config.is_file() else {}
        if data.get("model_type") != "tiny":
            return None
        about = "whose config names 'tiny'"
        return Facts("tiny-folder", {}, {"config": data, "about": about})


class Tiny(Architecture):
    """How much of each colour there is."""

    name = "tiny"

    @classmethod
    def cards(cls):
        return ()

    @classmethod
    def claims(cls, facts):
        if facts.format == "tiny":
            return card(Artifact("tiny", {}))
        config = facts.metadata.get("config", {})
        if config.get("unknown"):
            return None
        files = [File(name) for name in config.get("files", ())]
        return card(Artifact("tiny-folder", {"main": "."}, files))

    def postprocess(self, outputs, frames, options, ops):
        scores = ops.host(outputs["scores"])
        return [ClassificationPrediction.from_scores(scores, self.class_names)]


def card(*artifacts, **changes):
    facts = {
        "id": "tiny",
        "architecture": "tiny",
        "task": "classification",
        "artifacts": artifacts,
        "labels": COLORS,
        "config": {"preprocessing": {"size": [16, 16]}},
    }
    return ModelCard(**facts | changes)


@hookimpl
def backends():
    return [TinyBackend]


@hookimpl
def architectures():
    return [Tiny]
