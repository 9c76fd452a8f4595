"""Detectors and classifiers of transformers that no pack knows: one class a task.

Their rank is below any pack's, so that a pack for a family serves it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from inference_models import (
    Architecture,
    Artifact,
    ClassificationPrediction,
    ConfidenceOptions,
    Detections,
    Facts,
    Frame,
    ModelCard,
    MultiLabelClassificationPrediction,
    Operations,
    TensorSpec,
    cxcywh_to_xyxy,
    highest,
    sigmoid,
    softmax,
)

Rule = Literal["softmax", "sigmoid"]

DETECTORS: dict[str, tuple[Rule, int | None]] = {
    "ConditionalDetrForObjectDetection": ("sigmoid", 100),
    "DFineForObjectDetection": ("sigmoid", None),
    "DeformableDetrForObjectDetection": ("sigmoid", 100),
    "Deimv2ForObjectDetection": ("sigmoid", None),
    "DetrForObjectDetection": ("softmax", None),
    "RTDetrForObjectDetection": ("sigmoid", None),
    "RTDetrV2ForObjectDetection": ("sigmoid", None),
    "TableTransformerForObjectDetection": ("softmax", None),
    "YolosForObjectDetection": ("softmax", None),
}
"""How scores come out of logits, and how many pairs of query and class are kept.

softmax: a query has one class, and the last column means no object.
sigmoid: the best pairs of query and class, of all; None is as many as queries.
"""

CLASSIFIERS = frozenset(
    f"{name}ForImageClassification"
    for name in (
        "Beit", "Bit", "ConvNext", "ConvNextV2", "Cvt", "Data2VecVision", "DeiT",
        "Dinov2", "Dinov2WithRegisters", "EfficientNet", "FocalNet", "HGNetV2", "Hiera",
        "Levit", "MobileNetV1", "MobileNetV2", "MobileViT", "MobileViTV2", "PoolFormer",
        "Pvt", "PvtV2", "RegNet", "ResNet", "Segformer", "SwiftFormer", "Swin",
        "Swinv2", "ViT", "ViTMSN",
    )
) | {
    "DeiTForImageClassificationWithTeacher",
    "LevitForImageClassificationWithTeacher",
}  # fmt: skip
"""Classes that take pixels and return logits; of those with a teacher the mean."""

_THRESHOLD = 0.5  # of transformers' pipelines


def card_of(
    facts: Facts, architecture: str, task: str, config: Mapping[str, Any]
) -> ModelCard:
    """The card of a folder, whose one graph is the folder itself."""
    known = facts.metadata
    timm = _wants_timm(known["config"])
    artifact = Artifact(
        facts.format,
        {"main": "."},
        files=[{"name": name} for name in known["files"]],
        precision=_precision(known["config"]),
        needs={"timm": timm} if timm else {},
        rename={"pred_boxes": "boxes"} if task == "object-detection" else {},
    ).refused(known["unsupported"])
    return ModelCard(
        id=known["class"],
        architecture=architecture,
        task=task,
        artifacts=(artifact,),
        labels=known["labels"],
        config={"preprocessing": known["preprocessing"] or {}, **config},
    )


def _precision(config: Mapping[str, Any]) -> str:
    dtype = config.get("dtype", config.get("torch_dtype"))
    return {"float16": "fp16", "bfloat16": "bf16"}.get(str(dtype), "fp32")


def _wants_timm(config: Mapping[str, Any]) -> bool:
    backbone = config.get("backbone_config")
    inner = backbone if isinstance(backbone, Mapping) else {}
    return bool(
        config.get("use_timm_backbone")
        or inner.get("model_type") == "timm_backbone"
        or config.get("model_type") == "timm_wrapper"
    )


class HfDetector(Architecture[ConfidenceOptions]):
    """A DETR-like detector of transformers: queries with logits and boxes.

    Graph `main`: "input" (B, 3, H, W) -> "logits" (B, Q, C), "boxes" (B, Q, 4) cxcywh
    as shares of the input.
    """

    name = "hf-detector"
    tasks = ("object-detection",)
    Options = ConfidenceOptions
    rank = -1
    outputs = ("logits", "boxes")

    @classmethod
    def claims(cls, facts: Facts) -> ModelCard | None:
        """A folder whose class is in the table of detectors."""
        known = DETECTORS.get(facts.metadata.get("class", ""))
        if facts.format != "hf" or known is None:
            return None
        scores, most = known
        config = {"scores": scores, "most": most}
        return card_of(facts, cls.name, "object-detection", config)

    def modules(self, loaded: Any = None) -> Mapping[str, Any]:
        """The loaded model itself."""
        return _loaded(self, loaded)

    def signature(
        self, graph: str
    ) -> tuple[Mapping[str, TensorSpec], Mapping[str, TensorSpec]]:
        """One image batch in; logits and boxes of queries."""
        inputs, _ = super().signature(graph)
        return inputs, {
            "logits": TensorSpec("float32", ("batch", "queries", "columns")),
            "boxes": TensorSpec("float32", ("batch", "queries", 4)),
        }

    def postprocess(
        self,
        outputs: dict[str, Any],
        frames: Sequence[Frame],
        options: ConfidenceOptions,
        ops: Operations,
    ) -> list[Detections]:
        """What is confident enough, by the model's own rule of scores."""
        logits, boxes = ops.hosts([outputs["logits"], outputs["boxes"]])
        scores, boxes = self._scores(logits), cxcywh_to_xyxy(boxes)
        threshold = self.threshold(options.confidence, _THRESHOLD)
        triples = zip(scores, boxes, frames, strict=True)
        return [self._detections(*triple, threshold) for triple in triples]

    def _scores(self, logits: np.ndarray) -> np.ndarray:
        """Logits (B, Q, columns) -> scores (B, Q, C), 0 for what is no candidate."""
        if self.bundle.config["scores"] == "sigmoid":
            return self.columns(sigmoid(logits))
        scores = self.columns(softmax(logits)[..., :-1])
        first = scores.argmax(axis=-1)[..., None]  # of equals, which halves often are
        return np.where(np.arange(scores.shape[-1]) == first, scores, 0)

    def _detections(
        self, scores: np.ndarray, xyxy: np.ndarray, frame: Frame, threshold: Any
    ) -> Detections:
        finite = np.isfinite(xyxy).all(axis=1, keepdims=True)
        query, label = np.nonzero((scores >= threshold) & (scores > 0) & finite)
        found = scores[query, label]
        most = self.bundle.config["most"] or len(scores)
        order = highest(found, most)
        boxes = frame.from_normalized(xyxy[query[order]])
        return Detections(boxes, found[order], label[order], self.class_names)


class HfClassifier(Architecture[ConfidenceOptions]):
    """An image classifier of transformers.

    Graph `main`: "input" (B, 3, H, W) -> "logits" (B, C).
    """

    name = "hf-classifier"
    tasks = ("classification", "multi-label-classification")
    Options = ConfidenceOptions
    rank = -1
    outputs = ("logits",)

    @classmethod
    def claims(cls, facts: Facts) -> ModelCard | None:
        """A folder whose class is in the table of classifiers."""
        if facts.format != "hf" or facts.metadata.get("class") not in CLASSIFIERS:
            return None
        kind = facts.metadata["config"].get("problem_type")
        several = kind == "multi_label_classification"
        several = several or len(facts.metadata["labels"]) == 1
        task = "multi-label-classification" if several else "classification"
        return card_of(facts, cls.name, task, {})

    def modules(self, loaded: Any = None) -> Mapping[str, Any]:
        """The loaded model itself."""
        return _loaded(self, loaded)

    def signature(
        self, graph: str
    ) -> tuple[Mapping[str, TensorSpec], Mapping[str, TensorSpec]]:
        """One image batch in, one row of logits an image out."""
        inputs, _ = super().signature(graph)
        return inputs, {
            "logits": TensorSpec("float32", ("batch", len(self.card.labels)))
        }

    def postprocess(
        self,
        outputs: dict[str, Any],
        frames: Sequence[Frame],
        options: ConfidenceOptions,
        ops: Operations,
    ) -> list[Any]:
        """One prediction for the batch, or with several labels one an image."""
        logits = self.columns(ops.host(outputs["logits"]), hidden=-np.inf)
        if self.card.task == "classification":
            return [ClassificationPrediction.from_logits(logits, self.class_names)]
        threshold = self.threshold(options.confidence, _THRESHOLD)
        several = MultiLabelClassificationPrediction.from_scores
        return [several(row, threshold, self.class_names) for row in sigmoid(logits)]


def _loaded(architecture: Architecture[Any], loaded: Any) -> Mapping[str, Any]:
    if loaded is None:
        return Architecture.modules(architecture)
    return {"main": loaded}
