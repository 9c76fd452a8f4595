"""RF-DETR for boxes, masks and key points, under the names of its own checkpoints."""

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
    Bundle,
    ConfidenceOptions,
    Detections,
    Facts,
    Frame,
    InstanceDetections,
    InvalidCard,
    KeyPoints,
    ModelCard,
    Operations,
    RunFailed,
    TensorSpec,
    check_share,
    cxcywh_to_xyxy,
    highest,
    hookimpl,
    sigmoid,
)
from inference_models_rfdetr import points
from inference_models_rfdetr.claims import (
    DETECTION,
    FURTHER,
    KEY_POINTS,
    PERSONS,
    SEGMENTATION,
    claimed,
    task_of,
)
from inference_models_rfdetr.labels import COCO_LABELS, PERSON
from inference_models_rfdetr.layout import SIZES, Layout, points_of, slots_of

log = logging.getLogger("inference_models")

_BACKGROUND = re.compile(r"(background(_class\d+)?)?")

_THRESHOLD = 0.5


@attrs.frozen
class RfDetrOptions(ConfidenceOptions):
    """Options of a call; the second is for models that find key points alone.

    A point that is less sure than `key_points_threshold` is returned as none.
    """

    key_points_threshold: float = attrs.field(
        default=0.3, validator=check_share, metadata={"tasks": (KEY_POINTS,)}
    )


class RfDetr(Architecture[RfDetrOptions]):
    """RF-DETR, as published in 2025 and 2026: Robinson et al., arXiv:2511.09554.

    Graph `main`: "input" (B, 3, S, S) -> "logits" (B, Q, C), "boxes" (B, Q, 4) cxcywh
    as shares of the input, "objectness" (B, cells), and by the task logits "masks"
    (B, Q, S / 4, S / 4), or "keypoints" (B, Q, slots, 8) as `key_points` has them. The
    config says which `size` it is ("nano", "base", "seg-nano" …), and may lay fields of
    `layout.Layout` over it under `layout`.
    """

    name = "rfdetr"
    aliases = ("rf-detr",)
    tasks = (DETECTION, *FURTHER)
    Options = RfDetrOptions
    outputs = ("boxes", "logits")  # what is behind them is called so by all exports
    fp32_modules = ("transformer",)

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self.further = FURTHER.get(self.card.task)
        self.key_points = points_of(self.bundle.config) if self._is_pose else ()
        if self._is_pose and not self.key_points:
            raise InvalidCard(
                f"{self.card.id!r} does not say how many points each of its classes "
                'has; say it in the config\'s layout, such as "keypoints": [17]'
            )

    @property
    def _is_pose(self) -> bool:
        return self.card.task == KEY_POINTS

    @classmethod
    def cards(cls) -> Iterator[ModelCard]:
        """The public weights, with the names of COCO's categories."""
        for card in super().cards():
            if card.task == KEY_POINTS:
                config = {**card.config, "key_points": [{"class_id": 1, **PERSONS}]}
                yield attrs.evolve(card, labels=PERSON, config=config)
            else:
                yield attrs.evolve(card, labels=COCO_LABELS)

    @classmethod
    def claims(cls, facts: Facts) -> ModelCard | None:
        """A trainer's checkpoint, an exporter's ONNX file, or a transformers folder."""
        return claimed(facts)

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
            segments = self.card.task == SEGMENTATION
            fields = {"segments": segments, **given, "resolution": height}
            layout = attrs.evolve(SIZES[size], classes=classes, **fields)
        except (TypeError, ValueError) as error:
            raise InvalidCard(
                f"layout {given!r:.200} cannot be read: {error}"
            ) from error
        if task_of(layout) != self.card.task:
            raise InvalidCard(
                f"the size and layout of {self.card.id!r} are those of RF-DETR for "
                f"{task_of(layout)}, and not for {self.card.task}; correct one of them"
            )
        return layout

    def modules(self, loaded: Any = None) -> Mapping[str, Any]:
        """The network of the config's layout, one logit a label; or what was loaded."""
        if loaded is not None:
            return {"main": loaded}
        from inference_models_rfdetr import network

        return {"main": network.network(self.layout)}

    def weights(self, graph: str, tensors: dict[str, Any]) -> dict[str, Any]:
        """What inference uses of a checkpoint, positions at the model's resolution."""
        from inference_models_rfdetr import checkpoint

        return checkpoint.for_inference(tensors, self.layout)

    def signature(
        self, graph: str
    ) -> tuple[Mapping[str, TensorSpec], Mapping[str, TensorSpec]]:
        """One image batch in; logits, boxes and more of queries, objectness of cells.

        The network of transformers keeps objectness to itself.
        """
        inputs, _ = super().signature(graph)
        if self.bundle.artifact.format == "hf":
            shapes = self._shapes("queries", ("rows", "columns"))
        else:
            layout = self.layout
            grid = (layout.mask_side, layout.mask_side)
            each = (layout.slots, points.VALUES) if layout.keypoints else grid
            shapes = self._shapes(layout.queries, each, {"objectness": (layout.cells,)})
        return inputs, {
            name: TensorSpec("float32", ("batch", *shape))
            for name, shape in shapes.items()
        }

    def _shapes(
        self,
        queries: int | str,
        each: tuple[int | str, int | str],
        between: Mapping[str, tuple[int, ...]] | None = None,
    ) -> dict[str, tuple[int | str, ...]]:
        """Of all outputs, for one image: `each` of a query's further output.

        What is `between` stands before that.
        """
        found: dict[str, tuple[int | str, ...]] = {
            "logits": (queries, len(self.card.labels)),
            "boxes": (queries, 4),
            **(between or {}),
        }
        return {**found, self.further: (queries, *each)} if self.further else found

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
        options: RfDetrOptions,
        ops: Operations,
    ) -> list[Any]:
        """The best pairs of query and class, as many as there are queries."""
        logits, boxes = ops.hosts([outputs["logits"], outputs["boxes"]])
        logits = self.columns(logits, hidden=-np.inf)
        threshold = self.threshold(options.confidence, _THRESHOLD)
        if self._is_pose:
            slots = self._checked(ops.host(outputs["keypoints"]), logits)
            images = zip(logits, boxes, slots, frames, strict=True)
            least = options.key_points_threshold
            return [self._key_points(*image, threshold, least) for image in images]
        pairs = zip(logits, boxes, strict=True)
        best = [_best(*pair, threshold) for pair in pairs]
        found = [
            self._detections(*one) for one in zip(best, boxes, frames, strict=True)
        ]
        if not self.further:
            return found
        queries = [one.query for one in best]
        masks = ops.masks(outputs["masks"], queries, frames)
        return [_with_masks(*pair) for pair in zip(found, masks, strict=True)]

    def _detections(self, best: _Best, cxcywh: np.ndarray, frame: Frame) -> Detections:
        xyxy = frame.from_normalized(cxcywh_to_xyxy(cxcywh[best.query]))
        return Detections(xyxy, best.score, best.label, self.class_names)

    def _checked(self, slots: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """Slots of points, (B, Q, slots, 8), where the network gave as many."""
        wanted = (*logits.shape[:2], slots_of(self.key_points), points.VALUES)
        if slots.shape != wanted:
            raise RunFailed(
                f"the network of {self.card.id!r} gave key points of shape "
                f"{slots.shape}, and classes of {self.key_points!r:.60} points need "
                f"{wanted}; correct `keypoints` in the card's layout"
            )
        return slots

    def _key_points(
        self,
        logits: np.ndarray,
        cxcywh: np.ndarray,
        slots: np.ndarray,
        frame: Frame,
        threshold: Any,
        least: float,
    ) -> KeyPoints:
        """The best pairs, by how sure things and their points are together."""
        best = _best(logits, cxcywh, 0.0)
        classes = len(self.key_points)
        found = points.of_pairs(slots, classes, best.query, best.label)
        score = points.fused(best.score, found, best.label < classes)
        limit = threshold[best.label] if np.ndim(threshold) else threshold
        kept = score >= limit
        found, sure = found[kept], points.confidences(found[kept])
        sure[sure < least] = 0
        gone = sure == 0
        xy, spread = points.located(found, frame), points.covariances(found, frame)
        xy[gone], spread[gone] = 0, np.nan
        boxes = frame.from_normalized(cxcywh_to_xyxy(cxcywh[best.query[kept]]))
        things = (best.label[kept], score[kept], boxes, self.class_names)
        return KeyPoints.sort(xy, sure, *things, spread)


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
    best = good[highest(scores[good], len(logits))]
    return _Best(query[best], label[best], scores[best])


def _with_masks(found: Detections, masks: np.ndarray) -> InstanceDetections:
    arrays = (found.xyxy, found.confidence, found.class_id, found.class_names)
    return InstanceDetections(*arrays, masks=masks)


def _below(score: float) -> float:
    """A logit below all whose sigmoid reaches the score, rounded to float32 or not."""
    share = float(score) - 1e-6
    return math.log(share / (1 - share)) if share > 0 else -math.inf


def _ordered(outputs: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, Any]:
    """All objectness, and the queries' outputs of the images `rows`, bool (B,)."""
    queries = {name: outputs[name][rows] for name in _of_queries(outputs)}
    return {"objectness": outputs["objectness"], **queries}


def _means(outputs: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, Any]:
    """The means over queries of their outputs, of the images `rows`, bool (B,)."""
    return {name: outputs[name][rows].mean(axis=1) for name in _of_queries(outputs)}


def _of_queries(outputs: Mapping[str, np.ndarray]) -> list[str]:
    names = ("logits", "boxes", *FURTHER.values())
    return [name for name in names if name in outputs]


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


@hookimpl
def architectures() -> list[type[Architecture[Any]]]:
    """What this pack adds."""
    return [RfDetr]
