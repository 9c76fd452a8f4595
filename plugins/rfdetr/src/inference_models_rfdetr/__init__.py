"""RF-DETR detection and segmentation, under the names of its own checkpoints."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from inference_models import (
    Architecture,
    Artifact,
    Bundle,
    ConfidenceOptions,
    Detections,
    Facts,
    Frame,
    InstanceDetections,
    InvalidCard,
    ModelCard,
    Operations,
    TensorSpec,
    cxcywh_to_xyxy,
    hookimpl,
    sigmoid,
)
from inference_models_rfdetr.labels import COCO_LABELS, labels_of
from inference_models_rfdetr.layout import SIZES, Layout, recognise, size_of

log = logging.getLogger("inference_models")

_EXPORT = {"dets": "boxes", "labels": "logits"}
"""Outputs as the official ONNX export names them, and as they are named here."""

DETECTION = "object-detection"
SEGMENTATION = "instance-segmentation"

_CONVERTED = {
    "RfDetrForObjectDetection": DETECTION,
    "RfDetrForInstanceSegmentation": SEGMENTATION,
}
"""Classes of transformers."""

_NAMES = (
    ["dets", "labels"],
    ["boxes", "logits"],
    ["logits", "boxes", "objectness"],
)
"""What ONNX files call their outputs, and may have masks behind."""

_BACKGROUND = re.compile(r"(background(_class\d+)?)?")

_THRESHOLD = 0.5
_MOST_CLASSES = 100_000  # a file that says more asks for memory

NORMALISED = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
"""ImageNet's statistics. Training resizes with antialias, which is the default here."""


class RfDetr(Architecture[ConfidenceOptions]):
    """RF-DETR, as published in 2025 and 2026: Robinson et al., arXiv:2511.09554.

    Graph `main`: "input" (B, 3, S, S) -> "logits" (B, Q, C), "boxes" (B, Q, 4) cxcywh
    as shares of the input, "objectness" (B, cells), and where the task is instance
    segmentation logits "masks" (B, Q, S / 4, S / 4). The config says which `size` it is
    ("nano", "base", "seg-nano" …), and may lay fields of `layout.Layout` over it under
    `layout`.
    """

    name = "rfdetr"
    aliases = ("rf-detr",)
    Options = ConfidenceOptions
    outputs = ("boxes", "logits")  # masks, behind them, are called so by all exports
    fp32_modules = ("transformer",)

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        if self.card.task not in (DETECTION, SEGMENTATION):
            raise InvalidCard(
                f"{self.card.id!r} is for {self.card.task}, and this pack has RF-DETR "
                f"for {DETECTION} and {SEGMENTATION}; choose a model of these tasks"
            )
        self.segments = self.card.task == SEGMENTATION

    @classmethod
    def cards(cls) -> Iterator[ModelCard]:
        """The public weights; all of them name COCO's categories by their ids."""
        for card in super().cards():
            yield attrs.evolve(card, labels=COCO_LABELS)

    @classmethod
    def claims(cls, facts: Facts) -> ModelCard | None:
        """A trainer's checkpoint, an exporter's ONNX file, or a transformers folder."""
        if facts.format == "hf":
            return _converted(facts)
        if facts.format == "onnx":
            return _exported(facts)
        shapes = {name: spec.shape for name, spec in facts.tensors.items()}
        told = _told(facts.metadata)
        layout = recognise(shapes, told) if facts.format == "torch" else None
        if layout is None:
            return None
        artifact = Artifact(facts.format, {"main": "weights"})
        return _card(layout, labels_of(layout.classes, told), artifact)

    @classmethod
    def trained_with(cls, told: Mapping[str, Any]) -> dict[str, Any]:
        """RGB from 0 to 1, by a resize with antialias that ends in a stretch."""
        fields = {**told, "antialias": True, "color": "rgb"}
        if "mean" in told or "scale" not in told:
            fields["scale"] = 1 / 255
        if told.get("resize") == "fit-longer-edge":
            log.warning("resize 'fit-longer-edge' cannot fill a square; it stretches")
        if "canvas" not in told or told.get("resize") in ("stretch", "fit-longer-edge"):
            fields["resize"] = "stretch"
            fields.pop("canvas", None)
        return fields

    @classmethod
    def named(cls, names: Sequence[str]) -> list[str | None]:
        """Labels, without what the trainer calls background."""
        return [None if _BACKGROUND.fullmatch(name) else name for name in names]

    @property
    def layout(self) -> Layout:
        """What the config says, with as many classes as there are labels."""
        config, spec = self.bundle.config, self.preprocessing
        size = config.get("size", "base")
        if not isinstance(size, str) or size not in SIZES:
            raise InvalidCard(f"size {size!r} is not one of {', '.join(SIZES)}")
        height, width = spec.size or (None, None)
        if height is None or height != width:
            raise InvalidCard(f"RF-DETR needs a square input, not {spec.size!r}")
        given, classes = config.get("layout", {}), len(self.card.labels)
        try:
            fields = {**given, "resolution": height, "segments": self.segments}
            return attrs.evolve(SIZES[size], classes=classes, **fields)
        except (TypeError, ValueError) as error:
            raise InvalidCard(f"layout {given!r} cannot be read: {error}") from error

    def modules(self, loaded: Any = None) -> Mapping[str, Any]:
        """The network of the config's layout, one logit a label; or what was loaded."""
        if loaded is not None:
            return {"main": loaded}
        from inference_models_rfdetr import network

        return {"main": network.RfDetr(self.layout)}

    def weights(self, graph: str, tensors: dict[str, Any]) -> dict[str, Any]:
        """What inference uses of a checkpoint, positions at the model's resolution."""
        from inference_models_rfdetr import checkpoint

        return checkpoint.for_inference(tensors, self.layout)

    def signature(
        self, graph: str
    ) -> tuple[Mapping[str, TensorSpec], Mapping[str, TensorSpec]]:
        """One image batch in; logits, boxes and masks of queries, objectness of cells.

        The network of transformers keeps objectness to itself.
        """
        inputs, _ = super().signature(graph)
        if self.bundle.artifact.format == "hf":
            shapes = self._shapes("queries", ("rows", "columns"))
        else:
            layout = self.layout
            grid = (layout.mask_side, layout.mask_side)
            shapes = self._shapes(layout.queries, grid, {"objectness": (layout.cells,)})
        return inputs, {
            name: TensorSpec("float32", ("batch", *shape))
            for name, shape in shapes.items()
        }

    def _shapes(
        self,
        queries: int | str,
        grid: tuple[int | str, int | str],
        between: Mapping[str, tuple[int, ...]] | None = None,
    ) -> dict[str, tuple[int | str, ...]]:
        """Of all outputs, for one image; `between` stands before the masks."""
        found: dict[str, tuple[int | str, ...]] = {
            "logits": (queries, len(self.card.labels)),
            "boxes": (queries, 4),
            **(between or {}),
        }
        return {**found, "masks": (queries, *grid)} if self.segments else found

    def difference(
        self, expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]
    ) -> float:
        """As for any model, but loosely for images whose best cells changed places.

        Queries start from the cells of highest objectness, in that order. Two cells
        that are equal but for rounding may change places, which gives other queries,
        and by self-attention moves the rest. Of such an image objectness is compared as
        usual, and of queries a twentieth of what their means differ by; of one without
        objectness, as transformers' network returns it, the means alone.
        """
        if "objectness" not in expected:
            every = np.ones(len(expected["logits"]), bool)
            means = (_means(run, every) for run in (expected, found))
            return super().difference(*means) / 20
        same = _same_order(expected, found)
        strict, loose = (
            super(RfDetr, self).difference(choose(expected, rows), choose(found, rows))
            for choose, rows in ((_ordered, same), (_means, ~same))
        )
        return float(np.max([strict, loose / 20]))  # NaN where either is

    def postprocess(
        self,
        outputs: dict[str, Any],
        frames: Sequence[Frame],
        options: ConfidenceOptions,
        ops: Operations,
    ) -> list[Detections]:
        """The best pairs of query and class, as many as there are queries."""
        logits, boxes = ops.hosts([outputs["logits"], outputs["boxes"]])
        logits = self.columns(logits, hidden=-np.inf)
        threshold = self.threshold(options.confidence, _THRESHOLD)
        pairs = zip(logits, boxes, strict=True)
        best = [_best(*pair, threshold) for pair in pairs]
        found = [
            self._detections(*each) for each in zip(best, boxes, frames, strict=True)
        ]
        if not self.segments:
            return found
        queries = [each.query for each in best]
        masks = ops.masks(outputs["masks"], queries, frames)
        return [_with_masks(*pair) for pair in zip(found, masks, strict=True)]

    def _detections(self, best: _Best, cxcywh: np.ndarray, frame: Frame) -> Detections:
        xyxy = frame.from_normalized(cxcywh_to_xyxy(cxcywh[best.query]))
        return Detections(xyxy, best.score, best.label, self.class_names)


@attrs.frozen
class _Best:
    """The best pairs of query and class of one image, the most confident first."""

    query: np.ndarray
    label: np.ndarray
    score: np.ndarray


def _best(logits: np.ndarray, cxcywh: np.ndarray, threshold: Any) -> _Best:
    near = np.flatnonzero(logits > _below(np.min(threshold)))  # few, as a rule
    query, label = np.divmod(near, logits.shape[1])
    found = logits.ravel()[near]
    scores = sigmoid(found)
    least = threshold[label] if np.ndim(threshold) else threshold
    known = np.isfinite(found) & np.isfinite(cxcywh).all(axis=1)[query]
    good = np.flatnonzero(known & (scores >= least))
    best = good[_largest(scores[good], len(logits))]
    return _Best(query[best], label[best], scores[best])


def _with_masks(found: Detections, masks: np.ndarray) -> InstanceDetections:
    arrays = (found.xyxy, found.confidence, found.class_id, found.class_names)
    return InstanceDetections(*arrays, masks=masks)


def _below(score: float) -> float:
    """A logit below all whose sigmoid reaches the score, rounded to float32 or not."""
    share = float(score) - 1e-6
    return math.log(share / (1 - share)) if share > 0 else -math.inf


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Indices of the largest, in falling order, and equals as they come."""
    chosen = np.arange(len(values))
    if len(values) > count:  # to sort thousands takes longer than to find these few
        chosen = np.flatnonzero(values >= np.partition(values, -count)[-count])
    order = np.argsort(-values[chosen], kind="stable")
    return np.asarray(chosen[order][:count])


def _ordered(outputs: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, Any]:
    """All objectness, and the queries' outputs of the images `rows`, bool (B,)."""
    queries = {name: outputs[name][rows] for name in _of_queries(outputs)}
    return {"objectness": outputs["objectness"], **queries}


def _means(outputs: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, Any]:
    """The means over queries of their outputs, of the images `rows`, bool (B,)."""
    return {name: outputs[name][rows].mean(axis=1) for name in _of_queries(outputs)}


def _of_queries(outputs: Mapping[str, np.ndarray]) -> list[str]:
    return [name for name in ("logits", "boxes", "masks") if name in outputs]


def _same_order(
    expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Which images, bool (B,), have no equal best cells and one order in both runs."""
    count = expected["logits"].shape[1]
    same = np.ones(len(expected["logits"]), bool)
    orders = []
    for run in (expected, found):
        order = np.argsort(-run["objectness"], axis=1, kind="stable")[:, : count + 1]
        best = np.take_along_axis(run["objectness"], order, axis=1)
        same &= (np.diff(best, axis=1) != 0).all(axis=1)  # which of equals is open
        orders.append(order[:, :count])
    return np.asarray(same & (orders[0] == orders[1]).all(axis=1))


def _told(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What the trainer wrote of the model; newer versions keep it apart from `args`."""
    told: dict[str, Any] = {}
    for part in ("args", "hyper_parameters", "model_config"):
        value = metadata.get(part)
        told |= value if isinstance(value, Mapping) else {}
    return told


def _card(
    layout: Layout, labels: Sequence[str | None], artifact: Artifact
) -> ModelCard:
    size = size_of(layout)
    fields = attrs.asdict(layout)
    sides = [fields.pop("resolution")] * 2
    task = SEGMENTATION if fields.pop("segments") else DETECTION
    fields.pop("classes")
    return ModelCard(
        id=f"rfdetr-{size}" if size else "rfdetr",
        architecture=RfDetr.name,
        task=task,
        artifacts=(artifact,),
        labels=tuple(labels),
        config={
            **({"size": size} if size else {}),
            "layout": fields,
            "preprocessing": {"size": sides, **NORMALISED},
        },
    )


def _exported(facts: Facts) -> ModelCard | None:
    """The card of an ONNX file with an export's inputs and outputs."""
    names: list[str] = facts.metadata.get("outputs") or []
    image = facts.tensors.get("input")
    segments = names[-1:] == ["masks"]
    if image is None or (names[:-1] if segments else names) not in _NAMES:
        return None
    shapes = {_EXPORT.get(name, name): facts.tensors[name].shape for name in names}
    boxes, logits = shapes["boxes"], shapes["logits"]
    if [len(shape) for shape in (image.shape, boxes, logits)] != [4, 3, 3]:
        return None
    batch, _, height, width = image.shape
    classes = logits[-1]
    if segments and len(shapes["masks"]) != 4:
        return None
    if boxes[-1] != 4 or not isinstance(classes, int) or classes > _MOST_CLASSES:
        return None
    if not (isinstance(height, int) and isinstance(width, int)):
        return None
    artifact = Artifact(
        facts.format,
        {"main": "weights"},
        batch=(batch,) * 3 if isinstance(batch, int) else None,
        rename={name: ours for name, ours in _EXPORT.items() if name in names},
        needs={"opset": facts.metadata["opset"]},
    )
    return ModelCard(
        id="rfdetr",
        architecture=RfDetr.name,
        task=SEGMENTATION if segments else DETECTION,
        artifacts=(artifact,),
        labels=labels_of(classes, {}),
        config={"preprocessing": {"size": [height, width], **NORMALISED}},
    )


def _converted(facts: Facts) -> ModelCard | None:
    """The card of a folder that transformers wrote."""
    known = facts.metadata
    task = _CONVERTED.get(known.get("class", ""))
    if task is None:
        return None
    reason = known["unsupported"]
    rename = {"pred_boxes": "boxes"}
    if task == SEGMENTATION:
        rename["pred_masks"] = "masks"
    artifact = Artifact(
        facts.format,
        {"main": "."},
        files=[{"name": name} for name in known["files"]],
        rename=rename,
        needs={"unsupported": reason} if reason else {},
    )
    return ModelCard(
        id="rfdetr",
        architecture=RfDetr.name,
        task=task,
        artifacts=(artifact,),
        labels=known["labels"],
        config={"preprocessing": known["preprocessing"] or {}},
    )


@hookimpl
def architectures() -> list[type[Architecture[Any]]]:
    """What this pack adds."""
    return [RfDetr]
