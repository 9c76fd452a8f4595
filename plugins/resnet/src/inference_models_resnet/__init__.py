"""ResNet classifiers, single- and multi-label, under torchvision's parameter names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

import attrs
import numpy as np

from inference_models import (
    Architecture,
    Artifact,
    ClassificationPrediction,
    ConfidenceOptions,
    Facts,
    Frame,
    InvalidCard,
    ModelCard,
    MultiLabelClassificationPrediction,
    Operations,
    TensorSpec,
    hookimpl,
    sigmoid,
)
from inference_models_resnet import folders
from inference_models_resnet.layout import BLOCKS, Layout, from_transformers, recognise

_LEAST = np.finfo(np.float32).tiny

IMAGENET = {
    "size": [224, 224],
    "resize": "center-crop",
    "intermediate": 256,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
"""Preprocessing of torchvision's first ImageNet weights."""


class ResNet(Architecture[ConfidenceOptions]):
    """He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385.

    Graph `main`: "input" (B, 3, H, W) -> "logits" (B, C). The config says `depth` (18,
    34, 50, 101, 152) and, where it is not 64, the stem's `width`. A card's task decides
    between softmax and sigmoid; `post_processing.fused` says that the graph ends in it,
    and that its "logits" are scores.
    """

    name = "resnet"
    tasks = ("classification", "multi-label-classification")
    Options = ConfidenceOptions
    outputs = ("logits",)

    @classmethod
    def cards(cls) -> Iterator[ModelCard]:
        """torchvision's public weights; all of them name ImageNet's classes."""
        labels = imagenet_labels()
        for card in super().cards():
            yield attrs.evolve(card, labels=labels)

    @classmethod
    def claims(cls, facts: Facts) -> ModelCard | None:
        """A state dict of a ResNet, or a folder of transformers with one.

        1,000 classes that have no names are taken for ImageNet's.
        """
        if facts.format == "hf":
            return folders.card_of(facts, cls.name)
        shapes = {name: spec.shape for name, spec in facts.tensors.items()}
        layout = recognise(shapes) if facts.format == "torch" else None
        if layout is None:
            return None
        return ModelCard(
            id="resnet",
            architecture=cls.name,
            task="classification",
            artifacts=(Artifact(facts.format, {"main": "weights"}),),
            labels=_labels(layout.classes),
            config={
                "depth": layout.depth,
                "width": layout.width,
                "preprocessing": IMAGENET,
            },
        )

    @property
    def layout(self) -> Layout:
        """What the config says, with as many classes as there are labels.

        Raises `InvalidCard` for what no network has.
        """
        depth, width = (self.bundle.config.get(name) for name in ("depth", "width"))
        if not isinstance(depth, int) or depth not in BLOCKS:
            listed = ", ".join(map(str, BLOCKS))
            raise InvalidCard(f"config.depth {depth!r} is not one of {listed}")
        width = 64 if width is None else width
        if not isinstance(width, int) or width < 1:
            raise InvalidCard(f"config.width {width!r} is not a number above 0")
        if not self.card.labels:
            raise InvalidCard(
                f"{self.card.id!r} has no labels, which say how many classes there "
                "are; add them to the card"
            )
        return Layout(depth, len(self.card.labels), width)

    def modules(self, loaded: Any = None) -> Mapping[str, Any]:
        """The network of the config's depth, one logit a label; or what was loaded.

        It has no normalisations of its own: `weights` folds them into convolutions.
        """
        if loaded is not None:
            return {"main": loaded}
        from inference_models_resnet import folding, network

        built = network.ResNet(*self.layout)
        return {"main": folding.without_norms(built, self.layout)}

    def weights(self, graph: str, tensors: dict[str, Any]) -> dict[str, Any]:
        """From torchvision's names or transformers'; normalisations folded."""
        from inference_models_resnet import folding

        named = {from_transformers(name): tensors[name] for name in tensors}
        return folding.folded(named, self.layout, self.bundle.path(graph))

    def signature(
        self, graph: str
    ) -> tuple[Mapping[str, TensorSpec], Mapping[str, TensorSpec]]:
        """One image batch in, one row of logits an image out."""
        inputs, _ = super().signature(graph)
        logits = TensorSpec("float32", ("batch", len(self.card.labels)))
        return inputs, {"logits": logits}

    def postprocess(
        self,
        outputs: dict[str, Any],
        frames: Sequence[Frame],
        options: ConfidenceOptions,
        ops: Operations,
    ) -> list[Any]:
        """One prediction for the batch, or with several labels one an image."""
        fused = self.bundle.config.get("post_processing", {}).get("fused") is True
        found = ops.host(outputs["logits"])
        if self.card.task == "classification":
            # The softmax of a probability's logarithm is the probability again.
            logits = np.log(np.maximum(found, _LEAST)) if fused else found
            hidden = self.columns(logits, hidden=-np.inf)
            return [ClassificationPrediction.from_logits(hidden, self.class_names)]
        scores = self.columns(found if fused else sigmoid(found))
        threshold = self.threshold(options.confidence, default=0.4)
        return [
            MultiLabelClassificationPrediction.from_scores(
                row, threshold, self.class_names
            )
            for row in scores
        ]


def _labels(classes: int) -> list[str]:
    if classes != 1000:
        return [f"class_{number}" for number in range(classes)]
    return imagenet_labels()


def imagenet_labels() -> list[str]:
    """The 1,000 classes of ImageNet-1k, in order, each with a name of its own."""
    file = resources.files(__name__) / "imagenet_labels.json"
    labels: list[str] = json.loads(file.read_text("utf-8"))
    return labels


@hookimpl
def architectures() -> list[type[Architecture[Any]]]:
    """What this pack adds."""
    return [ResNet]
