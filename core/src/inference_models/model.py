"""What the user holds: a loaded model, whatever its task."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import attrs
import numpy as np

from inference_models.card import Bundle, ModelCard, Plan
from inference_models.errors import (
    InferenceModelsError,
    InvalidInput,
    InvalidOption,
    ModelClosed,
    RunFailed,
    did_you_mean,
    faults_of,
)
from inference_models.frame import Frame
from inference_models.hardware import check_not_forked
from inference_models.images import (
    Array,
    Color,
    Image,
    read_batches,
    read_images,
)
from inference_models.interfaces import Architecture, Operations, Session
from inference_models.preprocess import Preprocessing, place

if TYPE_CHECKING:
    from typing_extensions import Self

    from inference_models.negotiation.explain import Explanation

Run = TypeVar("Run")
R = TypeVar("R")

DEFAULT_BATCH = 16
"""Images prepared and run at a time, where neither user nor artifact says."""
CPU_PIXELS = DEFAULT_BATCH * 224**2
"""Pixels that a CPU is given at a time: a batch of a large network that outgrows the
caches costs up to half as much again for each image."""


@attrs.frozen
class Recipe:
    """How a model was loaded: what pickling keeps. Secrets are not in it."""

    model_id: str
    parameters: Mapping[str, Any]


@attrs.frozen(eq=False)
class Loaded:
    """A bundle that a backend has opened."""

    bundle: Bundle
    architecture: Architecture[Any]
    sessions: Mapping[str, Session]
    operations: Operations
    backend: str
    plan: Plan
    spec: Preprocessing
    batch_size: int
    explanation: Explanation
    recipe: Recipe


class Model(Generic[R]):
    """A loaded model: call it with images, or use its three steps one by one.

    Safe to call from several threads. `with model:` closes it at the end.
    """

    task: str | None = None
    """The card's task; on the class, the one task that it is for."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self.task = loaded.bundle.card.task
        self._closed = False

    @classmethod
    def from_pretrained(cls, model_id_or_path: Any, **parameters: Any) -> Self:
        """As `AutoModel.from_pretrained`, for this task alone."""
        from inference_models.auto import AutoModel

        if cls.task is not None and parameters.setdefault("task", cls.task) != cls.task:
            raise InvalidOption(
                f"{cls.__name__} is for {cls.task}, not for {parameters['task']!r}; "
                "leave task= out, or load with AutoModel"
            )
        model = AutoModel.from_pretrained(model_id_or_path, **parameters)
        if not isinstance(model, cls):
            model.close()
            raise InvalidOption(
                f"{model.card.id!r} is a {type(model).__name__}, not a {cls.__name__}; "
                "load it with AutoModel"
            )
        return model

    @property
    def card(self) -> ModelCard:
        """What the model is: id, labels, licence, configuration."""
        return self._loaded.bundle.card

    @property
    def class_names(self) -> list[str]:
        """Names by class id; a class that is never returned is `""`."""
        return self.card.class_names

    @property
    def device(self) -> str:
        """Where the network runs, such as "cpu" or "cuda:0"."""
        return self._loaded.plan.device

    @property
    def backend(self) -> str:
        """Name of the backend that runs it."""
        return self._loaded.backend

    @property
    def precision(self) -> str:
        """Numeric type of the network, such as "fp32" or "fp16"."""
        return self._loaded.plan.precision

    @property
    def explanation(self) -> Explanation:
        """Why this backend was chosen, and the others were not."""
        return self._loaded.explanation

    @property
    def batch_size(self) -> int:
        """How many images are prepared and run at a time."""
        return self._loaded.batch_size

    def __call__(
        self, images: Any, *, input_color_format: Color | None = None, **options: Any
    ) -> R:
        """Predict for one image or several.

        An image is a path, encoded bytes, a PIL image, a NumPy array (H, W, 3), BGR, or
        a tensor (3, H, W), RGB; one channel or four work too. Arrays and tensors are
        uint8 in 0–255 or floats in 0–1; `input_color_format` is the order of their
        channels, where it is another. Files are turned as their EXIF says. A list, a
        generator or a 4-D array is several.

        Raises `InvalidInput` for an image, `InvalidOption` for an option that does not
        fit; `options` are the fields of the architecture's `Options`.
        """
        chosen = self._options(options)
        results: list[Any] = []
        order: list[int] = []
        runs = self._runs(images, input_color_format, chosen)
        for numbers, outputs, frames in _behind(runs):
            order += numbers
            results += self._postprocess(outputs, frames, chosen)
        if self._has_one_each:
            results = [results[index] for index in np.argsort(order)]
        return self.join(results)

    def pre_process(
        self, images: Any, *, input_color_format: Color | None = None, **options: Any
    ) -> tuple[dict[str, Array], list[Frame]]:
        """Images -> the network's inputs by name, and a frame for each image.

        Where the network has no size of its own they are one batch all the same, and
        smaller ones are padded; a call runs them apart.
        """
        pictures = read_images(images, input_color_format)
        return self._preprocess(pictures, self._options(options))

    def forward(self, inputs: dict[str, Array], **options: Any) -> dict[str, Array]:
        """The network's inputs -> its outputs by name, where the device has them."""
        if not isinstance(inputs, Mapping) or not all(
            isinstance(name, str) for name in inputs
        ):
            raise InvalidInput(
                "forward() takes arrays by name, the first of the two that "
                f"pre_process() returns, and not a {type(inputs).__name__}"
            )
        return self._forward(inputs, self._options(options))

    def post_process(
        self, outputs: dict[str, Array], frames: Sequence[Frame], **options: Any
    ) -> R:
        """The network's outputs -> results, as a call returns them."""
        if not isinstance(outputs, Mapping) or not isinstance(frames, Sequence):
            given = f"a {type(outputs).__name__} and a {type(frames).__name__}"
            raise InvalidInput(
                "post_process() takes what forward() returns, and the frames that "
                f"pre_process() returns second; it was given {given}"
            )
        chosen = self._options(options)
        return self.join(self._postprocess(outputs, frames, chosen))

    def join(self, results: list[Any]) -> R:
        """What a call returns for the results of its images; a list of them."""
        return cast("R", results)

    def close(self) -> None:
        """Free what the model holds on its device; using it then is `ModelClosed`."""
        self._closed = True
        for session in self._loaded.sessions.values():
            session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        return _load_again, (self._loaded.recipe,)

    def __repr__(self) -> str:
        plan = self._loaded.plan
        return (
            f"<{type(self).__name__} {self.card.id!r} on {self.backend}, "
            f"{plan.device}, {plan.precision}>"
        )

    def _runs(
        self, images: Any, color: Color | None, options: Any
    ) -> Iterator[tuple[list[int], dict[str, Array], list[Frame]]]:
        """Numbers of images that run together, the network's outputs, and frames."""
        prepared = self._prepared(images, color, options, self._has_one_each)
        for numbers, inputs, frames in prepared:
            yield numbers, self._forward(inputs, options), frames

    def _prepared(
        self, images: Any, color: Color | None, options: Any, sort: bool
    ) -> Iterator[tuple[list[int], dict[str, Array], list[Frame]]]:
        """Numbers of images of one size, the network's inputs for them, and frames."""
        begun = 0
        for part in read_batches(images, color, self.batch_size):
            for numbers in _alike(self._loaded.spec, part, sort):
                some = [part[number] for number in numbers]
                inputs, frames = self._preprocess(some, options)
                yield [begun + number for number in numbers], inputs, frames
            begun += len(part)

    @property
    def _has_one_each(self) -> bool:
        """Whether there is a result for each image; others may have one for several."""
        return type(self).join is Model.join

    def _preprocess(
        self, images: Sequence[Image], options: Any
    ) -> tuple[dict[str, Array], list[Frame]]:
        self._check_usable()
        loaded = self._loaded
        whose = f"preprocess() of architecture {loaded.architecture.name!r}"
        with faults_of(whose):
            prepared = loaded.architecture.preprocess(
                images, options, loaded.operations, loaded.spec
            )
        _check_prepared(prepared, len(images), whose)
        return prepared

    def _forward(self, inputs: dict[str, Array], options: Any) -> dict[str, Array]:
        self._check_usable()
        loaded = self._loaded
        # What it raises is left as it is: an option may be a function of the user's,
        # whose error ends the call.
        outputs = loaded.architecture.forward(
            loaded.sessions, inputs, options, loaded.operations
        )
        if not isinstance(outputs, Mapping):
            raise RunFailed(
                f"forward() of architecture {loaded.architecture.name!r} returned a "
                f"{type(outputs).__name__}, and not arrays by name"
            )
        return outputs

    def _postprocess(
        self, outputs: dict[str, Array], frames: Sequence[Frame], options: Any
    ) -> list[Any]:
        loaded = self._loaded
        whose = f"postprocess() of architecture {loaded.architecture.name!r}"
        with faults_of(whose, outputs):
            results = loaded.architecture.postprocess(
                outputs, frames, options, loaded.operations
            )
        self._check_results(results, len(frames))
        return list(results)

    def _check_results(self, results: Any, images: int) -> None:
        """Raise `RunFailed` for what is no list, or has not one result an image."""
        is_list = isinstance(results, (list, tuple))
        if is_list and (len(results) == images or not self._has_one_each):
            return
        name = self._loaded.architecture.name
        given = len(results) if is_list else type(results).__name__
        raise RunFailed(
            f"postprocess() of architecture {name!r} returned {given}, and not a list "
            f"of {images} results"
        )

    def _options(self, given: Mapping[str, Any]) -> Any:
        return make_options(self._loaded.architecture.Options, given, self.card.task)

    def _check_usable(self) -> None:
        if self._closed:
            raise ModelClosed("the model is closed; load it again to use it")
        check_not_forked(self.device)


def _check_prepared(prepared: Any, images: int, whose: str) -> None:
    """Raise `RunFailed` for what is not arrays by name, and a frame for each image."""
    if isinstance(prepared, (tuple, list)) and len(prepared) == 2:
        inputs, frames = prepared
        if isinstance(inputs, Mapping) and _are_frames(frames, images):
            return
    raise RunFailed(
        f"{whose} returned {prepared!r:.80}, and not arrays by name with {images} "
        "frames, one for each image"
    )


def _are_frames(frames: Any, images: int) -> bool:
    is_list = isinstance(frames, (list, tuple))
    return is_list and len(frames) == images


def _alike(spec: Preprocessing, images: Sequence[Image], sort: bool) -> list[list[int]]:
    """Numbers of images that are made one size, so that none is padded for another.

    Those that follow each other, or with `sort` all.
    """
    numbers = range(len(images))
    if spec.makes_one_size or len(images) < 2:
        return [[*numbers]]
    sizes = [place(spec, image.height, image.width).canvas for image in images]
    order = sorted(numbers, key=sizes.__getitem__) if sort else numbers
    return [[*group] for _, group in itertools.groupby(order, sizes.__getitem__)]


def _behind(runs: Iterable[Run]) -> Iterator[Run]:
    """The same runs, each handed on once the next one has been started.

    While an accelerator works on one part, the host reads and prepares the next.
    """
    begun: deque[Run] = deque()
    for run in runs:
        begun.append(run)
        if len(begun) > 1:
            yield begun.popleft()
    yield from begun


def make_options(cls: type[Any], given: Mapping[str, Any], task: str) -> Any:
    """An architecture's options; `InvalidOption` names an unknown one's neighbours.

    So it does for one that is for models of other tasks.
    """
    fields = attrs.fields(cls)
    known = [f.name for f in fields if task in f.metadata.get("tasks", [task])]
    for name in given:
        if name not in known:
            listed = ", ".join(known) or "no options"
            raise InvalidOption(
                f"there is no option {name!r}{did_you_mean(name, known)}; this model "
                f"takes {listed}"
            )
    try:
        return cls(**given)
    except InferenceModelsError:
        raise
    except Exception as error:  # validators compare, and values raise what they like
        reason = next(iter(error.args), error)  # attrs puts more than words behind it
        raise InvalidOption(
            f"options {dict(given)!s:.200} do not fit: {reason}"
        ) from error


def _load_again(recipe: Recipe) -> Any:
    from inference_models.auto import AutoModel

    return AutoModel.from_pretrained(recipe.model_id, **recipe.parameters)
