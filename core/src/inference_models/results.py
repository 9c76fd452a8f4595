"""What models return: NumPy on the host, in the original image's pixels."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import numpy as np

from inference_models.activations import softmax
from inference_models.errors import InvalidOption, MissingDependency, RunFailed
from inference_models.scores import Scores, named_scores

if TYPE_CHECKING:
    import supervision
    from typing_extensions import Self


def _supervision() -> Any:
    try:
        import supervision
    except ImportError as error:
        raise MissingDependency(
            "to_supervision() needs supervision; pip install supervision"
        ) from error
    return supervision


def _to_tuple(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(names)


_array = attrs.cmp_using(eq=np.array_equal)


@attrs.frozen(repr=False)
class Detections:
    """Boxes of one image, sorted by confidence, highest first.

    `xyxy` is float32 (N, 4) in pixels of the original image and inside it, `confidence`
    float32 (N,) in 0–1, `class_id` int64 (N,), and `class_names[class_id]` the name.
    """

    xyxy: np.ndarray = attrs.field(eq=_array)
    confidence: np.ndarray = attrs.field(eq=_array)
    class_id: np.ndarray = attrs.field(eq=_array)
    class_names: Sequence[str] = attrs.field(default=(), converter=_to_tuple)

    @classmethod
    def sort(
        cls,
        xyxy: np.ndarray,
        confidence: np.ndarray,
        class_id: np.ndarray,
        class_names: Sequence[str] = (),
    ) -> Detections:
        """Detections from arrays in any order and of any numeric dtype.

        Raises `InvalidOption` unless there is one of each for every box.
        """
        return _sorted(cls(*_typed(xyxy, confidence, class_id), class_names))

    def __len__(self) -> int:
        return len(self.xyxy)

    def __getitem__(self, key: Any) -> Self:
        """Choose by number, slice, mask or list of numbers; always the same class."""
        return _selected(self, key)

    def __iter__(self) -> Iterator[Self]:
        return (self[index] for index in range(len(self)))

    @property
    def names(self) -> list[str]:
        """The class name of each box; `"class_<id>"` where the card names none."""
        return [_name(self.class_names, int(index)) for index in self.class_id]

    def __repr__(self) -> str:
        return _described(self, self.confidence)

    def to_supervision(self) -> supervision.Detections:
        """The same as `supervision.Detections`, with `data["class_name"]`.

        It has the same arrays of boxes and confidences, and not copies of them.
        """
        return _supervision().Detections(
            xyxy=self.xyxy,
            confidence=self.confidence,
            class_id=self.class_id.astype(int),
            data={"class_name": np.asarray(self.names, dtype=str)},
        )


@attrs.frozen(repr=False)
class InstanceDetections(Detections):
    """Boxes of one image, as in `Detections`, and which pixels each thing covers.

    `masks` is bool (N, H, W), of the original image's size.
    """

    masks: np.ndarray = attrs.field(eq=_array, kw_only=True)

    @classmethod
    def sort(
        cls,
        xyxy: np.ndarray,
        confidence: np.ndarray,
        class_id: np.ndarray,
        class_names: Sequence[str] = (),
        masks: np.ndarray | None = None,
    ) -> InstanceDetections:
        """Instances from arrays in any order and of any numeric dtype, with masks.

        Raises `InvalidOption` unless there is one of each for every box.
        """
        if masks is None:
            raise InvalidOption(
                "instances have masks; give masks=, or make Detections of boxes alone"
            )
        arrays, shapes = _typed(xyxy, confidence, class_id), np.asarray(masks, bool)
        if shapes.ndim != 3:
            raise InvalidOption(f"masks of shape {shapes.shape} are not (N, H, W)")
        if len(shapes) != len(arrays[0]):
            raise InvalidOption(
                f"there are {len(arrays[0])} boxes and {len(shapes)} masks; give one "
                "mask for every box"
            )
        return _sorted(cls(*arrays, class_names, masks=shapes))

    def to_supervision(self) -> supervision.Detections:
        """The same as `supervision.Detections`, with `mask`: the same array, too."""
        found = super().to_supervision()
        found.mask = self.masks
        return found


def _typed(
    xyxy: Any, confidence: Any, class_id: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    boxes = _numbers("xyxy", xyxy)
    if boxes.size and (boxes.ndim != 2 or boxes.shape[1] != 4):
        raise InvalidOption(
            f"boxes of shape {boxes.shape} are not xyxy; give (N, 4), 4 numbers for "
            "every box"
        )
    boxes = boxes.reshape(-1, 4)
    scores = _numbers("confidence", confidence).reshape(-1)
    classes = _whole_numbers(class_id).reshape(-1)
    if not len(boxes) == len(scores) == len(classes):
        raise InvalidOption(
            f"there are {len(boxes)} boxes, {len(scores)} confidences and "
            f"{len(classes)} class ids; give one of each for every box"
        )
    return boxes, scores, classes


def _numbers(name: str, values: Any) -> np.ndarray:
    try:
        return np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidOption(f"{name} is no array of numbers: {error}") from error


def _whole_numbers(values: Any) -> np.ndarray:
    try:
        given = np.asarray(values)
        with np.errstate(invalid="ignore"):  # NaN is told below
            found = given.astype(np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidOption(f"class_id is no array of numbers: {error}") from error
    if not np.array_equal(found, given):
        raise InvalidOption(f"class_id {given!r:.80} has other than whole numbers")
    return found


_Boxes = TypeVar("_Boxes", bound=Detections)
_Found = TypeVar("_Found", bound="Detections | KeyPoints")


def _sorted(found: _Boxes) -> _Boxes:
    return found[np.argsort(-found.confidence, kind="stable")]


def _selected(found: _Found, key: Any) -> _Found:
    """Some rows of a result: all of its arrays have one for each thing."""
    chosen = _chosen(key, len(found))
    names = {field.name for field in attrs.fields(type(found))} - {"class_names"}
    arrays = {name: getattr(found, name) for name in names}
    rows = {name: a[chosen] for name, a in arrays.items() if a is not None}
    return attrs.evolve(found, **rows)


def _described(found: Detections | KeyPoints, scores: np.ndarray) -> str:
    listed = ", ".join(_shown(found.names, scores)) or "nothing"
    return f"<{type(found).__name__} {len(found)}: {listed}>"


def _chosen(key: Any, count: int) -> slice | np.ndarray:
    """An index that keeps the first axis: a number becomes a slice of one."""
    if isinstance(key, slice):
        return key
    array = np.asarray(key)
    if array.ndim > 1:
        raise IndexError(f"results are one row, and the index has {array.ndim} axes")
    if array.ndim == 0:
        index = operator.index(array)
        if not -count <= index < count:
            raise IndexError(f"there are {count} results, and no number {index}")
        return slice(index % count, index % count + 1)
    return array if array.size else array.astype(np.intp)


def _shown(names: Sequence[str], scores: Iterable[float]) -> list[str]:
    """The first five as "cat 0.95", and how many more there are."""
    pairs = zip(names[:5], scores, strict=False)
    shown = [f"{name} {score:.2f}" for name, score in pairs]
    return [*shown, f"and {len(names) - 5} more"] if len(names) > 5 else shown


def _name(class_names: Sequence[str], index: int) -> str:
    known = 0 <= index < len(class_names) and class_names[index]
    return class_names[index] if known else f"class_{index}"


def _alike(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other, equal_nan=True)


_maybe = attrs.cmp_using(eq=_alike)


@attrs.frozen(repr=False)
class KeyPoints:
    """Things of one image and the points of each, the surest thing first.

    `xy` is float32 (N, K, 2) in pixels of the original image, and may lie outside it;
    `confidence` float32 (N, K) in 0–1 says how sure each point is. Things have a
    `detection_confidence`, float32 (N,) in 0–1, a `class_id`, int64 (N,), and a box in
    `xyxy`, float32 (N, 4) in the image. K is that of the class with most points; a
    point that is not there is (0, 0), with confidence 0. `covariance`, float32
    (N, K, 2, 2) in pixels squared, says where each may be instead; it is NaN for one
    that is not there, and None for networks that do not tell it.
    """

    xy: np.ndarray = attrs.field(eq=_array)
    confidence: np.ndarray = attrs.field(eq=_array)
    class_id: np.ndarray = attrs.field(eq=_array)
    detection_confidence: np.ndarray = attrs.field(eq=_array)
    xyxy: np.ndarray = attrs.field(eq=_array)
    class_names: Sequence[str] = attrs.field(default=(), converter=_to_tuple)
    covariance: np.ndarray | None = attrs.field(default=None, eq=_maybe)

    @classmethod
    def sort(
        cls,
        xy: np.ndarray,
        confidence: np.ndarray,
        class_id: np.ndarray,
        detection_confidence: np.ndarray,
        xyxy: np.ndarray,
        class_names: Sequence[str] = (),
        covariance: np.ndarray | None = None,
    ) -> KeyPoints:
        """Things from arrays in any order and of any numeric dtype.

        Raises `InvalidOption` unless there is one of each for every box.
        """
        boxes, scores, classes = _typed(xyxy, detection_confidence, class_id)
        points, sure = np.asarray(xy, np.float32), np.asarray(confidence, np.float32)
        spread = None if covariance is None else np.asarray(covariance, np.float32)
        _check_points(points, sure, spread, len(boxes))
        found = cls(points, sure, classes, scores, boxes, class_names, spread)
        return found[np.argsort(-scores, kind="stable")]

    @property
    def detections(self) -> Detections:
        """The things alone, without their points."""
        arrays = (self.xyxy, self.detection_confidence, self.class_id)
        return Detections(*arrays, self.class_names)

    def __len__(self) -> int:
        return len(self.xy)

    def __getitem__(self, key: Any) -> KeyPoints:
        """Choose things by number, slice, mask or list of numbers."""
        return _selected(self, key)

    def __iter__(self) -> Iterator[KeyPoints]:
        return (self[index] for index in range(len(self)))

    @property
    def names(self) -> list[str]:
        """The class name of each thing; `"class_<id>"` where the card names none."""
        return self.detections.names

    def __repr__(self) -> str:
        return _described(self, self.detection_confidence)

    def to_supervision(self) -> supervision.KeyPoints:
        """The same as `supervision.KeyPoints`, whose `data` has what it lacks.

        That is "class_name", "xyxy" and, where it is known, "covariance". Since its
        version 0.29 it also says how sure each thing is, and which points are there.
        """
        data = {"class_name": np.asarray(self.names, dtype=str), "xyxy": self.xyxy}
        if self.covariance is not None:
            data["covariance"] = self.covariance
        arrays = (self.xy, self.class_id.astype(int), self.confidence)
        found: Any = _supervision().KeyPoints(*arrays, data=data)
        if hasattr(found, "visible"):
            found.detection_confidence = self.detection_confidence
            found.visible = self.confidence > 0
        return found


def _check_points(
    xy: np.ndarray, confidence: np.ndarray, covariance: np.ndarray | None, count: int
) -> None:
    """Raise `InvalidOption` unless there are as many points for each of the boxes."""
    points = confidence.shape[1:2]
    wanted = {(count, *points, 2): xy, (count, *points): confidence}
    spread = {} if covariance is None else {(count, *points, 2, 2): covariance}
    for shape, array in (wanted | spread).items():
        if array.shape != shape or not points:
            raise InvalidOption(
                f"there are {count} boxes, points of shape {xy.shape} and confidences "
                f"of {confidence.shape}; give (N, K, 2), (N, K) and, if any, "
                "covariances (N, K, 2, 2)"
            )


@attrs.frozen(repr=False)
class ClassificationPrediction:
    """One class for each image of a batch.

    `class_id` is int64 (B,), `confidence` float32 (B, C) in 0–1, and sums to 1 an
    image; `confidence[0]["tabby, tabby cat"]` works by name as by number.
    """

    class_id: np.ndarray = attrs.field(eq=_array)
    confidence: Scores = attrs.field(eq=_array)
    class_names: Sequence[str] = attrs.field(default=(), converter=_to_tuple)

    @classmethod
    def from_scores(
        cls, confidence: np.ndarray, class_names: Sequence[str]
    ) -> ClassificationPrediction:
        """The highest class of each row of `confidence` (B, C).

        Raises `RunFailed` for scores of another shape, and for NaN.
        """
        scores = named_scores(confidence, class_names, "images", "classes")
        if not scores.shape[-1]:
            raise RunFailed("the network's scores are of no class")
        return cls(np.asarray(scores.argmax(axis=-1), np.int64), scores, class_names)

    @classmethod
    def from_logits(
        cls, logits: np.ndarray, class_names: Sequence[str]
    ) -> ClassificationPrediction:
        """The highest class of each row of `logits` (B, C), by softmax."""
        return cls.from_scores(softmax(_at_least_single(logits)), class_names)

    @classmethod
    def join(
        cls, parts: Sequence[ClassificationPrediction]
    ) -> ClassificationPrediction:
        """One prediction for the images of several, in order."""
        names = parts[0].class_names
        confidence = np.concatenate([np.asarray(part.confidence) for part in parts])
        class_id = np.concatenate([part.class_id for part in parts])
        return cls(class_id, Scores(confidence, names), names)

    def __len__(self) -> int:
        return len(self.class_id)

    def __getitem__(self, key: Any) -> ClassificationPrediction:
        """The prediction of some images, by number, slice, mask or list."""
        chosen = _chosen(key, len(self))
        return ClassificationPrediction(
            self.class_id[chosen], self.confidence[chosen], self.class_names
        )

    def __iter__(self) -> Iterator[ClassificationPrediction]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        scores = np.asarray(self.confidence).max(axis=-1) if len(self) else []
        names = [_name(self.class_names, int(index)) for index in self.class_id]
        listed = "; ".join(_shown(names, scores))
        return f"<ClassificationPrediction {len(self)}: {listed}>"

    def to_supervision(self) -> list[supervision.Classifications]:
        """One `supervision.Classifications` an image, with all classes' confidence."""
        return [_classifications(row) for row in np.asarray(self.confidence)]


@attrs.frozen(repr=False)
class MultiLabelClassificationPrediction:
    """The classes present in one image.

    `class_ids` is int64 (n,), highest confidence first; `confidence` float32 (C,) holds
    every class in 0–1, by name as by number.
    """

    class_ids: np.ndarray = attrs.field(eq=_array)
    confidence: Scores = attrs.field(eq=_array)
    class_names: Sequence[str] = attrs.field(default=(), converter=_to_tuple)

    @classmethod
    def from_scores(
        cls, confidence: np.ndarray, threshold: Any, class_names: Sequence[str]
    ) -> MultiLabelClassificationPrediction:
        """The classes of `confidence` (C,) that reach `threshold`, a number or (C,).

        A class whose name is "" is never among them. Raises `RunFailed` for scores of
        another shape, and for NaN.
        """
        scores = named_scores(confidence, class_names, "classes")
        plain = np.asarray(scores)
        nameless = [number for number, name in enumerate(scores.names) if not name]
        present = np.setdiff1d(np.flatnonzero(plain >= threshold), nameless)
        order = np.argsort(-plain[present], kind="stable")
        return cls(present[order].astype(np.int64), scores, class_names)

    def __len__(self) -> int:
        return len(self.class_ids)

    def __repr__(self) -> str:
        names = [_name(self.class_names, int(index)) for index in self.class_ids]
        scores = [float(self.confidence[int(index)]) for index in self.class_ids]
        listed = "; ".join(_shown(names, scores)) or "nothing"
        return f"<MultiLabelClassificationPrediction {len(self)}: {listed}>"

    def to_supervision(self) -> supervision.Classifications:
        """The same as `supervision.Classifications`, with all classes' confidence."""
        return _classifications(np.asarray(self.confidence))


def _at_least_single(values: np.ndarray) -> np.ndarray:
    """Halves cannot hold the sum of many shares."""
    return np.asarray(values, np.result_type(values, np.float32))


def _classifications(confidence: np.ndarray) -> supervision.Classifications:
    return _supervision().Classifications(
        class_id=np.arange(len(confidence)), confidence=confidence
    )
