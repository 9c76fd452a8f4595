"""Models that answer prompts about images, which are encoded once for all of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from inference_models.errors import InvalidInput, InvalidOption
from inference_models.frame import Frame
from inference_models.images import Array, Color
from inference_models.interfaces import Operations
from inference_models.model import DEFAULT_BATCH, Loaded, Model


@attrs.frozen(eq=False)
class EncodedImages:
    """A batch of images as the network sees them: `encode`'s outputs, and frames."""

    arrays: Mapping[str, Array]
    frames: tuple[Frame, ...]


@attrs.frozen(eq=False)
class Maker:
    """A loaded model as its encodings know it, without what it holds on its device."""

    name: str


@attrs.frozen(eq=False)
class Encoding:
    """Images that were encoded once, for any number of prompts to the same model."""

    parts: tuple[EncodedImages, ...]
    maker: Maker

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def frames(self) -> tuple[Frame, ...]:
        """Where in each image the network looked."""
        return tuple(frame for part in self.parts for frame in part.frames)


@attrs.frozen(eq=False)
class _Row:
    """One image with what is asked of it; None: the architecture's own prompt."""

    part: EncodedImages
    index: int
    prompt: str | None


class VisionLanguageModel(Model[list[str]]):
    """Answers in words what is asked of images."""

    task = "vision-language"

    def __init__(self, loaded: Loaded) -> None:
        super().__init__(loaded)
        self._maker = Maker(repr(self))

    def prompt(
        self,
        images: Any,
        prompt: str | Sequence[str],
        *,
        input_color_format: Color | None = None,
        **options: Any,
    ) -> list[str]:
        """One answer for each image, or for each prompt on a single one.

        `images` are those that a call takes, or what `encode` returned of them; one
        prompt is for all of them, several are for one each. Raises `InvalidInput`
        where these are of different numbers, and for another model's encoding.
        """
        return self(
            images, input_color_format=input_color_format, prompt=prompt, **options
        )

    def __call__(
        self,
        images: Any,
        *,
        input_color_format: Color | None = None,
        prompt: str | Sequence[str] | None = None,
        **options: Any,
    ) -> list[str]:
        """As `prompt`; without one, what the architecture asks by itself."""
        answered = self.answered(images, prompt, input_color_format, options)
        return [answer for answer, _ in answered]

    def encode(
        self, images: Any, *, input_color_format: Color | None = None
    ) -> Encoding:
        """What the network makes of images, to be given to `prompt` in their place.

        An `Encoding` is its own; raises `InvalidInput` for that of another model.
        """
        if isinstance(images, Encoding):
            return self._own(images)
        parts = self._encoded(images, input_color_format)
        return Encoding(tuple(parts), self._maker)

    def answered(
        self,
        images: Any,
        prompt: str | Sequence[str] | None,
        input_color_format: Color | None,
        options: Mapping[str, Any],
    ) -> Iterator[tuple[str, Frame]]:
        """Answers in order, each with the frame of its image."""
        self._options(options)  # a wrong one is told before anything is encoded
        if prompt is None or isinstance(prompt, str):
            parts = self._parts(images, input_color_format)
            rows = _asked_alike(parts, prompt)
        else:
            prompts = _texts(prompt)
            encoding = self.encode(images, input_color_format=input_color_format)
            rows = _paired(encoding, prompts)
        while batch := list(itertools.islice(rows, DEFAULT_BATCH)):
            yield from self._ask(batch, options)

    def _own(self, encoding: Encoding) -> Encoding:
        if encoding.maker is not self._maker:
            raise InvalidInput(
                f"the encoding is of another loaded model, {encoding.maker.name}; give "
                f"{self!r} the images, or what its own encode() returned of them"
            )
        return encoding

    def _parts(self, images: Any, color: Color | None) -> Iterable[EncodedImages]:
        """Those of an encoding, or of images, which are encoded as they are needed."""
        if isinstance(images, Encoding):
            return self._own(images).parts
        return self._encoded(images, color)

    def _encoded(self, images: Any, color: Color | None) -> Iterator[EncodedImages]:
        loaded, options = self._loaded, self._options({})
        for _, inputs, frames in self._prepared(images, color, options, sort=False):
            arrays = loaded.architecture.encode(loaded.sessions, inputs)
            yield EncodedImages(arrays, tuple(frames))

    def _ask(
        self, rows: Sequence[_Row], options: Mapping[str, Any]
    ) -> Iterator[tuple[str, Frame]]:
        prompts = [row.prompt for row in rows if row.prompt is not None]
        chosen = self._options({**options, **({"prompt": prompts} if prompts else {})})
        inputs = _joined(rows, self._loaded.operations)
        frames = [row.part.frames[row.index] for row in rows]
        outputs = self._forward(inputs, chosen)
        return zip(self._postprocess(outputs, frames, chosen), frames, strict=True)


def _texts(prompt: Any) -> list[str]:
    prompts = list(prompt) if isinstance(prompt, Iterable) else [prompt]
    if not all(isinstance(each, str) for each in prompts):
        raise InvalidOption(
            f"prompt {prompt!r:.100} is neither a text nor a list of some"
        )
    return prompts


def _asked_alike(parts: Iterable[EncodedImages], prompt: str | None) -> Iterator[_Row]:
    for part in parts:
        for index in range(len(part.frames)):
            yield _Row(part, index, prompt)


def _paired(encoding: Encoding, prompts: Sequence[str]) -> Iterator[_Row]:
    """Each image with its own prompt, or a single one with all of them."""
    images = list(_asked_alike(encoding.parts, None))
    if len(images) == 1:
        images *= len(prompts)
    if len(images) != len(prompts):
        raise InvalidInput(
            f"there are {len(prompts)} prompts for {len(images)} images; give one "
            "prompt for all, or one for each"
        )
    pairs = zip(images, prompts, strict=True)
    return (attrs.evolve(image, prompt=prompt) for image, prompt in pairs)


def _joined(rows: Sequence[_Row], ops: Operations) -> dict[str, Array]:
    """The arrays of the rows' images, one after the other."""
    runs = [
        (part.arrays, [row.index for row in run])
        for part, run in itertools.groupby(rows, key=lambda row: row.part)
    ]
    return {
        name: ops.join([arrays[name][chosen] for arrays, chosen in runs])
        for name in runs[0][0]
    }
