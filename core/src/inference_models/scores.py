"""An array of scores whose last axis is classes, by name as by number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from inference_models.errors import (
    InvalidCard,
    InvalidOption,
    RunFailed,
    did_you_mean,
    no_numbers,
)


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

    def astype(self, *arguments: Any, **keywords: Any) -> Any:
        """In another dtype, as of any `ndarray`, with the names."""
        return _named(super().astype(*arguments, **keywords), self.names)

    def sort(self, *arguments: Any, **keywords: Any) -> None:
        """Sort in place as any `ndarray` does; the names are lost."""
        super().sort(*arguments, **keywords)
        self.names = ()

    def partition(self, *arguments: Any, **keywords: Any) -> None:
        """Partition in place as any `ndarray` does; the names are lost."""
        super().partition(*arguments, **keywords)
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


def named_scores(values: Any, names: Sequence[str], *axes: str) -> Scores:
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
