"""Generated texts -> typed results; malformed ones give what can be read of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from PIL import Image, ImageDraw

from inference_models import Detections, Frame, InstanceDetections
from inference_models_florence2.locations import bins_of, dequantize, groups
from inference_models_florence2.tasks import Answer, Task

UNNAMED = "region"
"""What is found without a label, where the caller has no better word."""

_ENDS = re.compile(r"<s>|</s>|<pad>")
_TAG = re.compile(r"</?[A-Za-z]\w*>")
_LOCATIONS = re.compile(r"((?:<loc_[0-9]+>)+)")
_OUTLINES = re.compile(r"((?:<loc_[0-9]+>|<sep>|</?poly>)+)")
_CLOSED = re.compile(r"<poly>((?:<loc_[0-9]+>|<sep>)*)")


@attrs.frozen
class Part:
    """One thing that a text tells of: its label, and its places in bins.

    A box is one place of 4 numbers, a quad one of 8; polygons may be several.
    """

    label: str
    places: tuple[np.ndarray, ...]


def read(
    text: str,
    task: Task,
    frame: Frame,
    *,
    classes: Sequence[str] = (),
    banned: Collection[str] = (),
    unnamed: str = UNNAMED,
) -> str | Detections:
    """The typed result of a text that was generated for a task; it never raises.

    Words give a string; polygons `InstanceDetections`; boxes and quads, as the boxes
    around them, `Detections`. Their confidence is 1, and their classes are the distinct
    labels in the order they appear, or `classes` and then the labels that are none of
    them. `banned` are phrases of a caption that ground nothing, `unnamed` is for what
    has no label.
    """
    if task.answer == "text":
        return plain(text)
    unwanted = banned if task.answer == "phrases" else ()
    found = [part for part in parts(text, task.answer) if part.label not in unwanted]
    drawn = task.answer == "polygons" or _draws(text, task.answer)
    class_id, names = _classes([part.label or unnamed for part in found], classes)
    boxes = np.zeros((len(found), 4), np.float32)
    for box, part in zip(boxes, found, strict=True):
        box[:] = _around(dequantize(np.concatenate(part.places), frame))
    if not drawn:
        return Detections.sort(boxes, np.ones(len(boxes)), class_id, names)
    masks = _masks([part.places for part in found], frame)
    return InstanceDetections.sort(boxes, np.ones(len(boxes)), class_id, names, masks)


def banned_in(config: Mapping[str, Any]) -> frozenset[str]:
    """The phrases that a `processor_config.json` says ground nothing."""
    node: Any = config
    for key in ("post_processor_config", "phrase_grounding", "banned_grounding_tokens"):
        node = node.get(key) if isinstance(node, Mapping) else None
    phrases = node if isinstance(node, (list, tuple)) else ()
    return frozenset(phrase for phrase in phrases if isinstance(phrase, str))


def plain(text: str) -> str:
    """A text without the tokens that begin, end and pad it."""
    return _ENDS.sub("", text).strip()


def parts(text: str, answer: Answer) -> list[Part]:
    """What a text tells of, in order.

    On well-formed texts this is what transformers' processor finds, except that its
    labels keep letters that are not ASCII. Things of too few numbers are left out, as
    are polygons of fewer than three points.
    """
    text = _ENDS.sub("", text)
    if answer == "polygons" or _draws(text, answer):
        return list(_polygons(text, labelled=answer != "polygons"))
    if answer == "quads":
        return list(_quads(text))
    return list(_boxes(text, labelled=answer != "regions"))


def _draws(text: str, answer: Answer) -> bool:
    """Whether objects are outlined where boxes could have been expected."""
    return answer == "boxes" and "<poly>" in text


def _runs(text: str, run: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """Each run of location tokens after the text before it; what follows is dropped."""
    pieces = run.split(text)
    return zip(pieces[::2], pieces[1::2], strict=False)


def _label(text: str) -> str:
    """The last words of a text; those before a tag belong to something else."""
    pieces = (piece.strip() for piece in reversed(_TAG.split(text)))
    return next((piece for piece in pieces if piece), "")


def _boxes(text: str, labelled: bool) -> Iterator[Part]:
    for before, run in _runs(text, _LOCATIONS):
        if labelled and not _TAG.sub("", before):
            continue
        label = _label(before) if labelled else ""
        for box in groups(bins_of(run), 4):
            yield Part(label, (box,))


def _quads(text: str) -> Iterator[Part]:
    """One quad for each text, which may hold anything but locations."""
    for before, run in _runs(text, _LOCATIONS):
        for quad in groups(bins_of(run), 8)[:1]:
            if before:
                yield Part(before.strip(), (quad,))


def _polygons(text: str, labelled: bool) -> Iterator[Part]:
    for before, run in _runs(text, _OUTLINES):
        if labelled and not _TAG.sub("", before):
            continue
        label = _label(before) if labelled else ""
        for thing in _CLOSED.findall(run) or [run]:
            outlines = [_points(outline) for outline in thing.split("<sep>")]
            outlines = [points for points in outlines if len(points) >= 6]
            if outlines:
                yield Part(label, tuple(outlines))


def _points(text: str) -> np.ndarray:
    return groups(bins_of(text), 2).ravel()


def _classes(
    labels: Iterable[str], classes: Sequence[str]
) -> tuple[np.ndarray, list[str]]:
    """The class of each label, and the names of all classes."""
    names = list(classes)
    numbers = {name: number for number, name in reversed(list(enumerate(names)))}
    class_id = []
    for label in labels:
        if label not in numbers:
            numbers[label] = len(names)
            names.append(label)
        class_id.append(numbers[label])
    return np.array(class_id, np.int64), names


def _around(place: np.ndarray) -> np.ndarray:
    """The box around points that are x and y in turn."""
    points = place.reshape(-1, 2)
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def _masks(things: Sequence[tuple[np.ndarray, ...]], frame: Frame) -> np.ndarray:
    """Whether each pixel lies in any of a thing's polygons, bool (N, H, W)."""
    last = [frame.width - 1, frame.height - 1]
    masks = np.zeros((len(things), frame.height, frame.width), bool)
    for mask, places in zip(masks, things, strict=True):
        canvas = Image.new("1", (frame.width, frame.height))
        draw = ImageDraw.Draw(canvas)
        for place in places:
            # Pillow's corners are whole pixels, and it fills them, too.
            corners = np.floor(dequantize(place, frame)).reshape(-1, 2)
            draw.polygon(np.minimum(corners, last).ravel().tolist(), fill=1)
        mask[:] = canvas
    return masks
