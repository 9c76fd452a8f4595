"""A network small enough to write by hand in any format, and what it computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inference_models.card import Artifact, Bundle, ModelCard
from inference_models.frame import Frame
from inference_models.images import Array
from inference_models.interfaces import Architecture, NoOptions, Operations
from inference_models.results import ClassificationPrediction

SIZE = 8
"""Height and width of the toy's images."""


class ToyArchitecture(Architecture[NoOptions]):
    """One graph "main": "input" (N, 3, 8, 8) float32 -> "output" (N, 3) float32.

    `output = input.mean(axis=(2, 3)) * weight + bias`, where `weight` and `bias` are
    float32 (3,) and lie in the file: see `tensors`.
    """

    name = "toy"

    @staticmethod
    def tensors() -> dict[str, np.ndarray]:
        """What the file holds: "weight" and "bias", float32 (3,)."""
        return {
            "weight": np.array([1.5, -2.0, 0.5], np.float32),
            "bias": np.array([0.25, 0.0, -1.0], np.float32),
        }

    @classmethod
    def expected(cls, batch: np.ndarray) -> np.ndarray:
        """What the graph gives for a batch (N, 3, 8, 8): float32 (N, 3)."""
        tensors = cls.tensors()
        means = np.asarray(batch, np.float64).mean(axis=(2, 3))
        return np.asarray(means * tensors["weight"] + tensors["bias"], np.float32)

    def modules(self, loaded: Any = None) -> Mapping[str, Any]:
        """A torch module with the parameters "weight" and "bias", which are zero."""
        from inference_models.testing.toy_module import ToyModule

        return {"main": ToyModule()}

    def postprocess(
        self,
        outputs: dict[str, Array],
        frames: Sequence[Frame],
        options: NoOptions,
        ops: Operations,
    ) -> list[ClassificationPrediction]:
        """The softmax of the output."""
        logits = ops.host(outputs["output"])
        return [ClassificationPrediction.from_logits(logits, self.class_names)]


def toy_card(artifact: Artifact) -> ModelCard:
    """The toy's card, with this artifact."""
    return ModelCard(
        id="toy",
        architecture=ToyArchitecture.name,
        task="classification",
        artifacts=(artifact,),
        labels=("red", "green", "blue"),
        config={"preprocessing": {"size": [SIZE, SIZE]}},
        license="CC0-1.0",
    )


def toy_bundle(folder: Path, artifact: Artifact) -> Bundle:
    """The toy in a format of yours: `folder` holds the files that `artifact` names."""
    return Bundle(toy_card(artifact), artifact, folder)
