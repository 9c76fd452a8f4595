"""What a card says of the points of its classes: their names, and what joins them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from inference_models.errors import InvalidCard
from inference_models.strict_json import Node

_MOST = 10_000


@attrs.frozen
class Skeleton:
    """The points of a class: a name for each, and pairs of their numbers, from 0."""

    names: tuple[str, ...] = ()
    edges: tuple[tuple[int, int], ...] = ()


def skeletons_of(config: Mapping[str, Any], classes: int) -> list[Skeleton]:
    """One for each class, empty where the config's "key_points" says nothing.

    Of a card without labels, 0 `classes`, it has as many as the config names. Raises
    `InvalidCard` for what cannot be read.
    """
    most = classes or _MOST
    named: dict[int, Skeleton] = {}
    for node in Node(config, "config").nodes("key_points", most):
        number = node.whole("class_id", 0, most - 1)
        if number is None:
            raise node.wrong("class_id", "is missing")
        if number in named:
            raise node.wrong("class_id", f"{number} stands twice")
        named[number] = _skeleton(node)
    count = classes or max(named, default=-1) + 1
    return [named.get(number, Skeleton()) for number in range(count)]


def _skeleton(node: Node) -> Skeleton:
    names = tuple(node.texts("names", _MOST))
    pairs = node.values("skeleton", _MOST)
    return Skeleton(names, tuple(_edge(node, pair, len(names)) for pair in pairs))


def _edge(node: Node, pair: Any, points: int) -> tuple[int, int]:
    is_pair = isinstance(pair, list) and len(pair) == 2
    if not is_pair or not all(type(end) is int and 0 <= end < points for end in pair):
        raise _no_edge(node, pair, points)
    return pair[0], pair[1]


def _no_edge(node: Node, pair: Any, points: int) -> InvalidCard:
    return node.wrong(
        "skeleton",
        f"has {pair!r:.60}, which is no pair of numbers from 0 to {points - 1}",
    )
