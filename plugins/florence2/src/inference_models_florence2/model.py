"""What users hold of a Florence-2: prompts, and its tasks as methods."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from inference_models import (
    Detections,
    Encoding,
    Frame,
    InstanceDetections,
    InvalidInput,
    InvalidOption,
    VisionLanguageModel,
)
from inference_models.errors import did_you_mean
from inference_models.images import Color, to_host
from inference_models_florence2 import answers
from inference_models_florence2.locations import region, to_text
from inference_models_florence2.tasks import TASKS

if TYPE_CHECKING:
    from inference_models_florence2 import Florence2

Granularity = Literal["normal", "detailed", "very_detailed"]
Labels = Literal["classes", "captions", "rois"]

_CAPTIONS = {
    "normal": "<CAPTION>",
    "detailed": "<DETAILED_CAPTION>",
    "very_detailed": "<MORE_DETAILED_CAPTION>",
}
_LABELS = {
    "classes": "<OD>",
    "captions": "<DENSE_REGION_CAPTION>",
    "rois": "<REGION_PROPOSAL>",
}
_GROUNDING = "<CAPTION_TO_PHRASE_GROUNDING>"
_REFERRING = "<REFERRING_EXPRESSION_SEGMENTATION>"


class Florence2Model(VisionLanguageModel):
    """Answers prompts about pictures, and does the tasks that it was trained for.

    Every method takes one picture or several, or what `encode` made of them, and
    returns a list with a result for each. Keywords are the options of a call, such as
    `num_beams=3`. Places are in the original's pixels; a region is (x1, y1, x2, y2) in
    them, or in shares of the picture (0–1), one for all pictures or one for each. On a
    single picture several regions or phrases give a result each. The model rates
    nothing: the confidence of what it finds is 1.
    """

    def caption_image(
        self,
        images: Any,
        granularity: Granularity = "normal",
        *,
        input_color_format: Color | None = None,
        **options: Any,
    ) -> list[str]:
        """A caption; "detailed" is a few sentences, "very_detailed" a paragraph."""
        token = _chosen("granularity", granularity, _CAPTIONS)
        return self._read(
            self.encode(images, input_color_format=input_color_format), token, options
        )

    def detect_objects(
        self,
        images: Any,
        labels_mode: Labels = "classes",
        classes: Sequence[str] | None = None,
        *,
        input_color_format: Color | None = None,
        **options: Any,
    ) -> list[Detections]:
        """Boxes of objects: with class names, with captions, or of regions alone.

        With `classes`, boxes of these alone, numbered as they are given.
        """
        token = _chosen("labels_mode", labels_mode, _LABELS)
        encoding = self.encode(images, input_color_format=input_color_format)
        if classes is None:
            return self._read(encoding, token, options)
        names = _names(classes)
        asked = "<and>".join(names)
        return self._read(encoding, _GROUNDING, options, [asked], names)

    def ground_phrase(
        self,
        images: Any,
        phrase: str | Sequence[str],
        *,
        input_color_format: Color | None = None,
        **options: Any,
    ) -> list[Detections]:
        """Boxes of what a caption names, labelled with the words of the caption."""
        encoding = self.encode(images, input_color_format=input_color_format)
        return self._read(encoding, _GROUNDING, options, _phrases(phrase))

    def segment_phrase(
        self,
        images: Any,
        phrase: str | Sequence[str],
        *,
        input_color_format: Color | None = None,
        **options: Any,
    ) -> list[InstanceDetections]:
        """Masks of what a phrase names, labelled with it."""
        encoding = self.encode(images, input_color_format=input_color_format)
        phrases = _phrases(phrase)
        return self._read(encoding, _REFERRING, options, phrases, unnamed=phrases)

    def segment_region(
        self,
        images: Any,
        xyxy: Any,
        *,
        input_color_format: Color | None = None,
        **options: Any,
    ) -> list[InstanceDetections]:
        """The mask of what a region holds."""
        encoding = self.encode(images, input_color_format=input_color_format)
        return self._of_regions(encoding, "<REGION_TO_SEGMENTATION>", xyxy, options)

    def classify_image_region(
        self,
        images: Any,
        xyxy: Any,
        *,
        input_color_format: Color | None = None,
        **options: Any,
    ) -> list[str]:
        """The class of what a region holds."""
        encoding = self.encode(images, input_color_format=input_color_format)
        return self._of_regions(encoding, "<REGION_TO_CATEGORY>", xyxy, options)

    def caption_image_region(
        self,
        images: Any,
        xyxy: Any,
        *,
        input_color_format: Color | None = None,
        **options: Any,
    ) -> list[str]:
        """A description of what a region holds."""
        encoding = self.encode(images, input_color_format=input_color_format)
        return self._of_regions(encoding, "<REGION_TO_DESCRIPTION>", xyxy, options)

    def ocr_image(
        self, images: Any, *, input_color_format: Color | None = None, **options: Any
    ) -> list[str]:
        """The text in the picture."""
        encoding = self.encode(images, input_color_format=input_color_format)
        return self._read(encoding, "<OCR>", options)

    def ocr_image_region(
        self,
        images: Any,
        xyxy: Any,
        *,
        input_color_format: Color | None = None,
        **options: Any,
    ) -> list[str]:
        """The text in a region."""
        encoding = self.encode(images, input_color_format=input_color_format)
        return self._of_regions(encoding, "<REGION_TO_OCR>", xyxy, options)

    def parse_document(
        self, images: Any, *, input_color_format: Color | None = None, **options: Any
    ) -> list[Detections]:
        """Boxes around the texts in the picture, labelled with what they say."""
        encoding = self.encode(images, input_color_format=input_color_format)
        return self._read(encoding, "<OCR_WITH_REGION>", options)

    def _of_regions(
        self, encoding: Encoding, token: str, xyxy: Any, options: dict[str, Any]
    ) -> list[Any]:
        regions = list(_regions(xyxy, encoding.frames))
        return self._read(encoding, token, options, regions)

    def _read(
        self,
        encoding: Encoding,
        token: str,
        options: dict[str, Any],
        inputs: Sequence[str] = ("",),
        classes: Sequence[str] = (),
        unnamed: Sequence[str] = (answers.UNNAMED,),
    ) -> list[Any]:
        """The results of a task, by its token, one for each picture or input.

        `inputs` are what follows the token in prompts: one for all pictures, or one for
        each. `unnamed` are labels for what the model gives none, in the same way.
        """
        given = {**options, "skip_special_tokens": False}
        prompts = [token + text for text in inputs]
        asked = prompts[0] if len(prompts) == 1 else prompts
        banned = cast("Florence2", self._loaded.architecture).banned
        answered = self.answered(encoding, asked, None, given)
        labelled = zip(answered, itertools.cycle(unnamed), strict=False)
        return [
            answers.read(
                text,
                TASKS[token],
                frame,
                classes=classes,
                banned=banned,
                unnamed=label,
            )
            for (text, frame), label in labelled
        ]


def _chosen(name: str, value: Any, tokens: dict[str, str]) -> str:
    if not isinstance(value, str) or value not in tokens:
        raise InvalidOption(
            f"there is no {name} {value!r}{did_you_mean(str(value), tokens)}; choose "
            f"{' or '.join(map(repr, tokens))}"
        )
    return tokens[value]


def _listed(given: Any) -> list[Any]:
    """What is given, in a list: several things, or the one that it is."""
    several = isinstance(given, Iterable) and not isinstance(given, str)
    return list(given) if several else [given]


def _names(classes: Any) -> list[str]:
    names = _listed(classes)
    if not names or not all(isinstance(n, str) and n.strip() for n in names):
        raise InvalidOption(f"classes {classes!r:.100} is no list of names")
    return names


def _phrases(phrase: Any) -> list[str]:
    phrases = _listed(phrase)
    if not phrases or not all(isinstance(p, str) and p.strip() for p in phrases):
        raise InvalidOption(f"phrase {phrase!r:.100} is neither a text nor some")
    return [each.strip() for each in phrases]


def _regions(xyxy: Any, frames: Sequence[Frame]) -> Iterator[str]:
    """A region's location tokens for each frame, or on one frame for each region."""
    boxes = _boxes(xyxy)
    if len(frames) == 1:
        frames = list(frames) * len(boxes)
    if len(boxes) == 1:
        boxes = boxes * len(frames)
    if len(boxes) != len(frames):
        raise InvalidInput(
            f"there are {len(boxes)} regions for {len(frames)} images; give one for "
            "all, or one for each"
        )
    for box, frame in zip(boxes, frames, strict=True):
        yield to_text(region(box, frame.width, frame.height), frame)


def _boxes(xyxy: Any) -> list[Any]:
    """One region or several, from whatever holds them."""
    try:
        array = np.asarray(to_host(xyxy) if hasattr(xyxy, "__dlpack__") else xyxy)
    except (TypeError, ValueError):
        return [xyxy]
    return list(array) if array.ndim == 2 and len(array) else [xyxy]
