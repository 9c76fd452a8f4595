"""What models return: NumPy on the host, in the original image's pixels."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import numpy as np

from inference_models.activations import softmax
from inference_models.errors import (
    InvalidCard,
    InvalidOption,
    MissingDependency,
    RunFailed,
    did_you_mean,
    no_numbers,
)

if TYPE_CHECKING:
    import supervision
    from typing_extensions import Self


class Scores(np.ndarray):
    """An array whose last axis is classes: `scores["tabby, tabby cat"]` is its column.

    Behaves as any `ndarray` otherwise. The names survive indexing, copies, pickling and
    element-wise arithmetic, and follow a selection of classes; `names` is empty where
    the last axis is classes no longer.
    """

    names: tuple[str, ...]

    def __new__(cls, values: Any, names: Iterable[str] = ()) -> Scores:
        """View `values` (..., C) with the C class names, which must be unique."""
        scores = np.asarray(values).view(cls)
        scores.names = tuple(names)
        if scores.names and scores.shape[-1:] != (len(scores.names),):
            raise InvalidCard(
                f"there are {len(scores.names)} class names for scores of shape "
                f"{scores.shape}; correct the labels of the card"
            )
        return scores

    def __array_finalize__(self, source: Any) -> None:
        self.names = ()

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            column = self._column(key)
            key = column if self.ndim == 1 else (..., column)
        item = super().__getitem__(key)
        return _named(item, _names_after(key, self)) if self.names else item

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def copy(self, order: Any = "C") -> Scores:
        """A copy, with the names."""
        copied: Scores = super().copy(order)
        copied.names = self.names
        return copied

    def sort(self, *arguments: Any, **keywords: Any) -> None:
        """Sort in place as any `ndarray` does; the names are lost."""
        super().sort(*arguments, **keywords)
        self.names = ()

    def __copy__(self) -> Scores:
        return self.copy()

    def __deepcopy__(self, memory: Any) -> Scores:
        return self.copy()

    def __reduce__(self) -> Any:
        parts: Any = super().__reduce__()
        return parts[0], parts[1], (parts[2], self.names)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state[0])
        self.names = state[1]

    def __array_wrap__(self, array: Any, context: Any = None, *rest: Any) -> Any:
        if array.ndim == 0:
            return array[()]
        wrapped = super().__array_wrap__(array, context, *rest)
        elementwise = context is not None and context[0].signature is None
        return _named(wrapped, self.names) if elementwise else wrapped

    def _column(self, name: str) -> int:
        try:
            return self.names.index(name)
        except ValueError:
            raise InvalidOption(
                f"there is no class {name!r}{did_you_mean(name, self.names)}"
            ) from None


def _named(item: Any, names: Sequence[str]) -> Any:
    if isinstance(item, Scores) and item.shape[-1:] == (len(names),):
        item.names = tuple(names)
    return item


def _names_after(key: Any, scores: Scores) -> tuple[str, ...]:
    """The classes of the last axis of `scores[key]`; none where it is another axis."""
    keys = list(key) if isinstance(key, tuple) else [key]
    used = [part for part in keys if part is not None]
    axes = sum(_axes(part) for part in used)
    spread = any(part is Ellipsis for part in used)
    if keys and keys[-1] is None and (spread or axes == scores.ndim):
        return ()
    if not used or used[-1] is Ellipsis or (not spread and axes < scores.ndim):
        return scores.names if axes < scores.ndim else ()
    *others, last = used
    if isinstance(last, slice):
        return scores.names[last]
    # Next to another array, or apart from a number, an array takes its axis elsewhere.
    alone = all(isinstance(part, slice) or part is Ellipsis for part in others)
    row = scores.ndim == 2 and len(others) == 1 and np.ndim(others[0]) == 0
    if isinstance(last, (list, np.ndarray)) and np.ndim(last) == 1 and (alone or row):
        return tuple(np.asarray(scores.names, object)[last])
    return ()


def _axes(part: Any) -> int:
    """How many axes one part of an index speaks of."""
    if part is Ellipsis:
        return 0
    mask = isinstance(part, (list, np.ndarray)) and np.asarray(part).dtype == bool
    return np.ndim(part) if mask else 1


def _scores(values: Any, names: Sequence[str], *axes: str) -> Scores:
    """A network's scores as float32; `RunFailed` for other axes, and for no numbers."""
    array = np.asarray(values, np.float32)
    if array.ndim != len(axes):
        raise RunFailed(
            f"the network's scores have the shape {array.shape}, and not "
            f"({', '.join(axes)})"
        )
    if not np.isfinite(array).all():
        raise no_numbers()
    return Scores(array, names)


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
        chosen = _chosen(key, len(self))
        names = {field.name for field in attrs.fields(type(self))} - {"class_names"}
        return attrs.evolve(self, **{n: getattr(self, n)[chosen] for n in names})

    def __iter__(self) -> Iterator[Self]:
        return (self[index] for index in range(len(self)))

    @property
    def names(self) -> list[str]:
        """The class name of each box; `"class_<id>"` where the card names none."""
        return [_name(self.class_names, int(index)) for index in self.class_id]

    def __repr__(self) -> str:
        listed = ", ".join(_shown(self.names, self.confidence)) or "nothing"
        return f"<{type(self).__name__} {len(self)}: {listed}>"

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
    boxes = np.asarray(xyxy, np.float32).reshape(-1, 4)
    scores = np.asarray(confidence, np.float32).reshape(-1)
    classes = np.asarray(class_id, np.int64).reshape(-1)
    if not len(boxes) == len(scores) == len(classes):
        raise InvalidOption(
            f"there are {len(boxes)} boxes, {len(scores)} confidences and "
            f"{len(classes)} class ids; give one of each for every box"
        )
    return boxes, scores, classes


_Found = TypeVar("_Found", bound=Detections)


def _sorted(found: _Found) -> _Found:
    return found[np.argsort(-found.confidence, kind="stable")]


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
        scores = _scores(confidence, class_names, "images", "classes")
        return cls(np.asarray(scores.argmax(axis=-1), np.int64), scores, class_names)

    @classmethod
    def from_logits(
        cls, logits: np.ndarray, class_names: Sequence[str]
    ) -> ClassificationPrediction:
        """The highest class of each row of `logits` (B, C), by softmax."""
        return cls.from_scores(softmax(logits), class_names)

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
        scores = _scores(confidence, class_names, "classes")
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


def _classifications(confidence: np.ndarray) -> supervision.Classifications:
    return _supervision().Classifications(
        class_id=np.arange(len(confidence)), confidence=confidence
    )
