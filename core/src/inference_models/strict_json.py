"""JSON from strangers: bounded, unambiguous, and read key by key."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import attrs

from inference_models.errors import InvalidCard, did_you_mean, shown_name

T = TypeVar("T")

_DEEPEST = 32
_LONGEST_TEXT = 10_000


def parse(content: bytes, place: str, limit: int) -> Node:
    """A JSON mapping of at most `limit` bytes; `InvalidCard` says what is wrong.

    Refused beside what is no JSON: NaN and infinities, keys that repeat, and nesting
    of more than 32 levels. A byte order mark is skipped.
    """
    data = _data(content, place, limit)
    if not isinstance(data, dict):
        raise InvalidCard(f"{place} holds {_kind(data)} and no mapping")
    return Node(data, place)


def parse_file(path: Path, limit: int) -> Node:
    """The same of a file, of which no more is read."""
    with path.open("rb") as file:
        return parse(file.read(limit + 1), f"{str(path)!r}", limit)


def parse_list(content: bytes, place: str, limit: int, most: int) -> list[Node]:
    """A JSON list of at most so many mappings; otherwise as `parse`."""
    data = _data(content, place, limit)
    if not isinstance(data, list):
        raise InvalidCard(f"{place} holds {_kind(data)} and no list")
    return Node({"list": data}, place).nodes("list", most)


def _data(content: bytes, place: str, limit: int) -> Any:
    if len(content) > limit:
        raise InvalidCard(f"{place} is larger than {limit} bytes")
    try:
        data = json.loads(
            content.decode("utf-8-sig"),
            object_pairs_hook=without_repeats,
            parse_constant=_refuse_constant,
        )
        _check_depth(data)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        # Not chained: the parser's error holds the text, which may be signed.
        raise InvalidCard(f"{place} cannot be read as JSON: {reason}") from None
    return data


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping that json reads; `ValueError` for a key that is there twice."""
    mapping: dict[str, Any] = {}
    for name, value in pairs:
        if name in mapping:
            raise ValueError(f"key {name[:60]!r} is there more than once")
        mapping[name] = value
    return mapping


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _check_depth(data: Any) -> None:
    level = [data]
    for _ in range(_DEEPEST):
        level = [inner for value in level for inner in _inside(value)]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {_DEEPEST} levels")


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _kind(value: Any) -> str:
    return {
        dict: "a mapping",
        list: "a list",
        str: "a text",
        bool: "true or false",
        type(None): "null",
    }.get(type(value), "a number")


def _is_cut(text: str) -> bool:
    """Whether it has half of a surrogate pair, which JSON holds and UTF-8 cannot."""
    return re.search("[\ud800-\udfff]", text) is not None


@attrs.frozen
class Node:
    """A mapping of parsed JSON, and where it stands.

    Each reader raises `InvalidCard` with the place and the key. A key that is missing
    is the same as null. Texts are never repeated in messages, as they may be signed.
    """

    data: Mapping[str, Any] = attrs.field(repr=False)
    place: str

    def wrong(self, key: str, sentence: str) -> InvalidCard:
        """An error about one key."""
        return InvalidCard(f"{self.place}: {shown_name(key, 100)} {sentence}")

    def text(self, key: str) -> str:
        """A text that is not empty."""
        value = self.maybe_text(key)
        if value is None:
            raise self.wrong(key, "is missing")
        return value

    def maybe_text(self, key: str) -> str | None:
        """A text that is not empty, or None."""
        value = self.data.get(key)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.wrong(key, f"must be a text, not {_kind(value)}")
        if not value:
            raise self.wrong(key, "is empty")
        if len(value) > _LONGEST_TEXT:
            raise self.wrong(key, f"is longer than {_LONGEST_TEXT} characters")
        if _is_cut(value):
            raise self.wrong(key, "holds half of a character")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false."""
        value = self.data.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(key, f"must be true or false, not {_kind(value)}")
        return value

    def number(self, key: str, low: float, high: float) -> float | None:
        """A finite number from `low` to `high`, or None."""
        value = self.data.get(key)
        return None if value is None else self._checked(key, value, low, high)

    def whole(self, key: str, low: int, high: int) -> int | None:
        """A whole number from `low` to `high`, or None."""
        value = self.number(key, low, high)
        if value is not None and not isinstance(value, int):
            raise self.wrong(key, f"{value!r} is no whole number")
        return value

    def numbers(self, key: str, value: Any, count: int) -> list[float]:
        """`value` as a list of so many finite numbers."""
        if not isinstance(value, list) or len(value) != count:
            raise self.wrong(key, f"must hold lists of {count} numbers")
        return [float(self._checked(key, v, -1e6, 1e6)) for v in value]

    def choice(self, key: str, known: Mapping[str, T]) -> T | None:
        """What one of the known words stands for, or None."""
        word = self.maybe_text(key)
        if word is None:
            return None
        if word not in known:
            listed = ", ".join(map(repr, known))
            near = did_you_mean(word, known)
            raise self.wrong(key, f"{word[:60]!r} is not one of {listed}{near}")
        return known[word]

    def node(self, key: str) -> Node:
        """A mapping."""
        found = self.maybe_node(key)
        if found is None:
            raise self.wrong(key, "is missing")
        return found

    def maybe_node(self, key: str) -> Node | None:
        """A mapping, or None."""
        value = self.data.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.wrong(key, f"must be a mapping, not {_kind(value)}")
        return Node(value, f"{self.place}: {key}")

    def values(self, key: str, most: int) -> list[Any]:
        """A list of at most so many values; empty where it is missing."""
        value = self.data.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.wrong(key, f"must be a list, not {_kind(value)}")
        if len(value) > most:
            raise self.wrong(key, f"has {len(value)} entries, more than {most}")
        return value

    def nodes(self, key: str, most: int) -> list[Node]:
        """A list of at most so many mappings."""
        found = []
        for number, value in enumerate(self.values(key, most)):
            if not isinstance(value, dict):
                raise self.wrong(key, f"entry {number} is {_kind(value)}, no mapping")
            found.append(Node(value, f"{self.place}: {key}[{number}]"))
        return found

    def texts(self, key: str, most: int) -> list[str]:
        """A list of at most so many texts."""
        values = self.values(key, most)
        if not all(isinstance(value, str) for value in values):
            raise self.wrong(key, "must hold texts alone")
        if any(map(_is_cut, values)):
            raise self.wrong(key, "holds half of a character")
        return values

    def _checked(self, key: str, value: Any, low: float, high: float) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong(key, f"must be a number, not {_kind(value)}")
        if not low <= value <= high or not math.isfinite(value):
            shown = repr(value)[:20]
            raise self.wrong(key, f"{shown} is not from {low:g} to {high:g}")
        return value
