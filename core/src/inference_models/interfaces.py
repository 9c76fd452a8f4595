"""What plugins implement: backends, architectures and weights providers.

An architecture turns images into a network's inputs and a network's outputs into
results; a backend opens the graphs of an artifact as sessions; a weights provider knows
where models are. Neither knows the others: N architectures and M backends are N + M
plugins. The shortest architecture is a class with a `name` and `postprocess`:

    from inference_models import Architecture, ClassificationPrediction, hookimpl

    class Tiny(Architecture):
        name = "tiny"

        def postprocess(self, outputs, frames, options, ops):
            scores = ops.host(outputs["scores"])
            return [ClassificationPrediction.from_scores(scores, self.class_names)]

    @hookimpl
    def architectures():
        return [Tiny]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import attrs
import numpy as np

from inference_models.card import Artifact, Bundle, Facts, ModelCard, Plan, TensorSpec
from inference_models.card_files import cards_in
from inference_models.errors import (
    InvalidCard,
    InvalidOption,
    InvalidWeights,
    no_numbers,
)
from inference_models.frame import Frame
from inference_models.images import Array, Image, to_host
from inference_models.prepare import prepare
from inference_models.preprocess import Preprocessing
from inference_models.progress import Report
from inference_models.trust import Consent, Origin

O = TypeVar("O")  # noqa: E741 - the options of an architecture


class Session(ABC):
    """One graph on one device; safe to call from several threads.

    `inputs` and `outputs` describe the graph's tensors by name, in order.
    """

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]

    @abstractmethod
    def __call__(self, **inputs: Array) -> dict[str, Array]:
        """Run the graph once.

        Outputs are the caller's, to keep and to write to. Those named `state.*` are
        opaque: they are passed back once, as inputs of the next call.
        """

    def close(self) -> None:  # noqa: B027 - most sessions hold nothing
        """Free what is held on the device; no call is under way, and none follows."""


class Operations:
    """What surrounds a network on one device.

    These are the host references; a device's own are faster and mean the same (within
    2/255 before normalisation).
    """

    def prepare(
        self, images: Sequence[Image], spec: Preprocessing
    ) -> tuple[Array, list[Frame]]:
        """Images -> one batch (N, 3, H, W), or (N, H, W, 3), and a frame for each."""
        return prepare(images, spec)

    def join(self, arrays: Sequence[Array]) -> Array:
        """Arrays of the device, of one output, as one batch (N, ...)."""
        if len(arrays) == 1:
            return arrays[0]
        return np.concatenate([to_host(array) for array in arrays])

    def host(self, array: Array) -> np.ndarray:
        """A device's array as numpy; half precisions arrive as float32."""
        host = to_host(array)
        return host.astype(np.float32) if host.dtype == np.float16 else host

    def hosts(self, arrays: Sequence[Array]) -> list[np.ndarray]:
        """Several arrays, as `host` gives each; a device may copy them all at once."""
        return [self.host(array) for array in arrays]

    def masks(
        self, logits: Array, chosen: Sequence[np.ndarray], frames: Sequence[Frame]
    ) -> list[np.ndarray]:
        """Some of each image's masks, bool (K, H, W) of the size of the original.

        `logits` (B, N, h, w) are above 0 where a mask is, and `chosen` are the numbers
        of those of each image that are wanted, ints (K,).
        """
        triples = zip(self.host(logits), chosen, frames, strict=True)
        return [frame.masks_to_original(own[some]) for own, some, frame in triples]


class Backend(ABC):
    """Runs artifacts of some formats.

    Settings are picklable arguments of the constructor, each with a default. `rank`
    orders backends on the same device, highest first.
    """

    name: ClassVar[str]
    formats: ClassVar[tuple[str, ...]]
    aliases: ClassVar[tuple[str, ...]] = ()
    suffixes: ClassVar[tuple[str, ...]] = ()
    """Suffixes, such as ".npz", of single files that `inspect` knows.

    A server's file, whose content is not seen yet, is taken for weights by its suffix.
    """
    rank: ClassVar[int] = 0
    derives: ClassVar[Mapping[str, str]] = {}
    """Format read -> format written by `derive`."""
    converts: ClassVar[bool] = True
    """Whether `derive` writes what precision is wanted, or keeps its source's."""
    own_precisions: ClassVar[tuple[str, ...]] = ()
    """Precisions that `precisions` may offer beside "fp32", "fp16", "bf16", "int8"."""
    lends: ClassVar[tuple[str, ...]] = ()
    """Kinds of devices, such as "cuda", where its `operations` serve others, too.

    There they take any array that speaks DLPack, and raise `Unavailable` where the
    device is not reached.
    """

    @abstractmethod
    def devices(self) -> Sequence[str]:
        """Devices usable now, such as `["cuda:0", "cpu"]`; or raise `Unavailable`.

        Told from metadata and core's hardware facts, without importing the runtime.
        """

    def targets(self) -> Sequence[str]:
        """What `derive` can write for: devices here, and kinds of devices elsewhere.

        What it writes for a device that `devices` has not is judged where it is opened.
        """
        return self.devices()

    def lacks(self, form: str) -> str | None:
        """What must be installed for `derive` to write a format, with what to type.

        None if nothing is missing. Told as `devices` tells.
        """
        return None

    def precisions(self, artifact: Artifact, device: str) -> Sequence[str]:
        """Precisions this artifact can run in there, best first; no int8 unasked."""
        return (artifact.precision,)

    def refuse(self, card: ModelCard, artifact: Artifact, plan: Plan) -> str | None:
        """Why not, in one sentence and from facts alone; None if it can."""
        return None

    def advice(self) -> Sequence[str]:
        """What would make it faster on this machine, a sentence each with what to type.

        Told as `devices` tells, and shown by `explain` and `doctor` alone.
        """
        return ()

    @abstractmethod
    def open(
        self, bundle: Bundle, architecture: Architecture[Any], plan: Plan
    ) -> Mapping[str, Session]:
        """Open all graphs at once, as they may share weights; sessions by graph."""

    def operations(self, device: str) -> Operations:
        """What surrounds a network on this device.

        A backend that does not override this is given those that another backend lends
        for the device, or else the host's.
        """
        return Operations()

    def inspect(self, path: Path) -> Facts | None:
        """Read a file, or a folder, of these formats without running any of it.

        None if it is not one; `InvalidWeights` if it is, and damaged.
        """
        return None

    def derive(
        self,
        source: Bundle,
        architecture: Architecture[Any],
        plan: Plan,
        folder: Path,
        report: Report,
    ) -> Artifact:
        """Write `source` in the other format into `folder`, and describe it.

        Core fetches the source, holds the lock, hashes the files that are named,
        compares outputs, keeps or discards.
        """
        raise NotImplementedError(f"{type(self).__name__} derives nothing")


@attrs.frozen
class NoOptions:
    """Options of an architecture that has none."""


def check_at_least_one(
    instance: Any, attribute: attrs.Attribute[Any], value: Any
) -> None:
    """An attrs validator for settings that count something, or are None."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if value is not None and not (is_whole and value >= 1):
        raise InvalidOption(f"{attribute.name} {value!r} is not a whole number above 0")


def check_confidence(
    instance: Any, attribute: attrs.Attribute[Any], value: Any
) -> None:
    """An attrs validator for `confidence`: a number in 0–1, "best" or "default"."""
    if isinstance(value, str) and value in ("best", "default"):
        return
    if not _is_number(value) or not 0 <= value <= 1:
        raise InvalidOption(
            f"{attribute.name} {value!r:.100} is neither a number from 0 to 1 nor "
            "'best' or 'default'"
        )


def check_share(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    """An attrs validator for an option of a call that is a number in 0–1."""
    if not _is_number(value) or not 0 <= value <= 1:
        raise InvalidOption(
            f"{attribute.name} {value!r:.100} is not a number from 0 to 1"
        )


def _is_number(value: Any) -> bool:
    if isinstance(value, np.number):
        value = value.item() if value.dtype.kind in "iuf" else None  # halves lack 1e9
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return bool(number and -1e9 <= value <= 1e9)  # not NaN, and none of 400 digits


def _is_threshold(value: Any) -> bool:
    """Whether it is a number, or a mapping of class names to numbers."""
    each = value.values() if isinstance(value, Mapping) else [value]
    return all(map(_is_number, each))


@attrs.frozen
class ConfidenceOptions:
    """Options of an architecture that keeps what is confident enough.

    A number is used as it is. "default" is what the card's config has under
    "confidence", or else the architecture's own; "best" is what the card recommends for
    each class, or else the same as "default".
    """

    confidence: float | Literal["best", "default"] = attrs.field(
        default="default", validator=check_confidence
    )


class Architecture(ABC, Generic[O]):
    """A family of models. One object per loaded model, made after the fetch.

    It holds no sessions and no call's state, so threads can share it: `bundle`, the
    fetched artifact; `card`, its card; and `class_names`, the names by class id, "" for
    one that is never returned.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    tasks: ClassVar[tuple[str, ...]] = ()
    """What cards may ask of it; () for anything."""
    Options: ClassVar[type] = NoOptions
    """An attrs class of what a call may set; unknown names are refused by core.

    A field whose metadata has "tasks" is for models of these tasks alone.
    """
    rank: ClassVar[int] = 0
    """Of several that claim a file the highest serves; generic ones: -1."""
    image_input: ClassVar[tuple[str, str]] = ("main", "input")
    """Graph and tensor whose dtype the batch takes."""
    outputs: ClassVar[tuple[str, ...]] = ()
    """Names of the outputs, in the order of graphs that were exported elsewhere."""
    fp32_modules: ClassVar[tuple[str, ...]] = ()
    """Module names that a half-precision derivation leaves alone."""
    tolerances: ClassVar[Mapping[str, float]] = {
        "fp32": 1e-3,
        "fp16": 2e-2,
        "bf16": 5e-2,
        "int8": 0.1,
    }
    """Largest `difference` of a derived artifact from its source, by precision; what an
    architecture does not name is as here."""
    elsewhere: ClassVar[Mapping[str, str]] = {}
    """Public ids, each with its id at another provider, such as "hf://org/name"."""
    reads: ClassVar[tuple[str, ...]] = ()
    """Files beside weights that it reads where they are; derived artifacts get them."""
    Model: ClassVar[type[Any] | None] = None
    """What users hold, where it has more methods than its task's own class."""

    def __init__(self, bundle: Bundle) -> None:
        check_task(type(self), bundle.card)
        self.bundle = bundle
        self.card = bundle.card
        self.class_names = bundle.card.class_names

    @classmethod
    def cards(cls) -> Iterable[ModelCard]:
        """Public models; by default `cards/*.json` in the package of the class.

        Files without a source lie beside the card. A wrong card is left out with a
        warning.
        """
        import sys
        from importlib import resources

        package = cls.__module__.partition(".")[0]
        if not hasattr(sys.modules.get(package), "__path__"):
            return  # one file, which has no folder of its own
        for card in cards_in(resources.files(package) / "cards"):
            if card.architecture in (cls.name, *cls.aliases):
                yield card

    @classmethod
    def claims(cls, facts: Facts) -> ModelCard | None:
        """The card of a bare file or folder of this family; None if it is not of it.

        Its artifact needs no files for a bare file, which core fills in; for a folder
        it names those that the model needs.
        """
        return None

    @classmethod
    def trained_with(cls, told: Mapping[str, Any]) -> dict[str, Any]:
        """Correct what a package from elsewhere says of these networks' preprocessing.

        `told` holds the fields of `Preprocessing` that the package gives; those that
        are returned are used in their place.
        """
        return dict(told)

    @classmethod
    def named(cls, names: Sequence[str]) -> list[str | None]:
        """A package's class names as labels; None for one that stands for no class."""
        return [name or None for name in names]

    @property
    def preprocessing(self) -> Preprocessing:
        """What the network wants; by default the key "preprocessing" of the config."""
        try:
            config = self.bundle.config.get("preprocessing", {})
            return Preprocessing.from_config(config)
        except InvalidCard as error:
            raise InvalidCard(f"the card of {self.card.id!r}: {error}") from error

    def preprocess(
        self,
        images: Sequence[Image],
        options: O,
        ops: Operations,
        spec: Preprocessing,
    ) -> tuple[dict[str, Array], list[Frame]]:
        """Images -> the graph's inputs by name, and a frame for each image."""
        batch, frames = ops.prepare(images, spec)
        return {self.image_input[1]: batch}, frames

    def encode(
        self, sessions: Mapping[str, Session], inputs: dict[str, Array]
    ) -> dict[str, Array]:
        """What `forward` makes of images alone, whatever is asked of them.

        By default nothing is run. A vision-language model encodes its pictures here,
        once for any number of prompts; `forward` then takes what this returns.
        """
        return inputs

    def forward(
        self,
        sessions: Mapping[str, Session],
        inputs: dict[str, Array],
        options: O,
        ops: Operations,
    ) -> dict[str, Array]:
        """Run the graphs; by default `main` once. A generation loop lives here."""
        return sessions["main"](**inputs)

    @abstractmethod
    def postprocess(
        self,
        outputs: dict[str, Array],
        frames: Sequence[Frame],
        options: O,
        ops: Operations,
    ) -> list[Any]:
        """Outputs -> a list with one result for each image.

        One may stand for several images where the model's class has a `join` of its
        own, as classification has.
        """

    def modules(self, loaded: Any = None) -> Mapping[str, Any]:
        """torch modules by graph: new ones, or views of a loaded transformers model."""
        raise NotImplementedError(
            f"architecture {self.name!r} has no torch module; it runs from ready graphs"
        )

    def weights(self, graph: str, tensors: dict[str, Any]) -> dict[str, Any]:
        """Tensors as the file names them -> as the module does."""
        return tensors

    def signature(
        self, graph: str
    ) -> tuple[Mapping[str, TensorSpec], Mapping[str, TensorSpec]]:
        """A torch graph's inputs and outputs by name, in order.

        By default one image batch as `preprocessing` makes it, and one output "output".
        """
        spec = self.preprocessing
        size = spec.size if spec.makes_one_size else None
        height, width = size or ("height", "width")
        shape: tuple[int | str, ...] = ("batch", 3, height, width)
        if spec.layout == "NHWC":
            shape = ("batch", height, width, 3)
        return (
            {self.image_input[1]: TensorSpec("float32", shape)},
            {"output": TensorSpec("float32", ("batch", "classes"))},
        )

    @property
    def trial(self) -> O:
        """Options of the runs that compare a derived artifact with its source."""
        options: O = self.Options()
        return options

    def difference(
        self, expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]
    ) -> float:
        """How far two runs on the same inputs are apart, as a share of the values.

        By default the largest difference of any output, divided by that output's
        largest magnitude where it is above 1. It decides whether a derived artifact
        may stand for its source; networks that sort or select leave out what rounding
        may exchange.
        """
        shares = [_relative(expected[name], found[name]) for name in expected]
        return float(np.max(shares, initial=0.0))  # NaN where any is

    def columns(
        self, scores: np.ndarray, hidden: float = 0.0, axis: int = -1
    ) -> np.ndarray:
        """Scores (..., C), with `hidden` in the columns that are never returned.

        The columns lie along `axis`, which is 0 for maps (C, H, W). Raises
        `InvalidWeights` if C is not the number of the card's labels, and `RunFailed`
        where all rows of an image, or all images of a batch, are NaN.
        """
        labels = self.card.labels
        scores = np.moveaxis(scores, axis, -1)
        if scores.shape[-1] != len(labels):
            raise InvalidWeights(
                f"the network of {self.card.id!r} has {scores.shape[-1]} classes, and "
                f"its card names {len(labels)}; give labels=[...] of that length"
            )
        if _are_lost(scores):
            raise no_numbers()
        never = [index for index, label in enumerate(labels) if label is None]
        if never:
            scores = scores.copy()
            scores[..., never] = hidden
        return np.moveaxis(scores, -1, axis)

    def threshold(self, confidence: float | str, default: float) -> Any:
        """A confidence option as a number, or one number a class, float32 (C,).

        "best" and "default" read the config's "confidence", a mapping of these words to
        a number or, for "best", to a number by class name.
        """
        if not isinstance(confidence, str):
            return confidence
        known = self._recommended()
        value = known.get(confidence, known.get("default", default))
        if not isinstance(value, Mapping):
            return value
        rest = known.get("default", default)
        return np.array([value.get(n, rest) for n in self.class_names], np.float32)

    def _recommended(self) -> dict[str, Any]:
        known = self.bundle.config.get("confidence", {})
        is_mapping = isinstance(known, Mapping)
        if not is_mapping or not all(map(_is_threshold, known.values())):
            raise InvalidCard(
                f"the card of {self.card.id!r} has the confidence {known!r:.200}; "
                "correct it to numbers, by 'best' and 'default'"
            )
        return dict(known)


def check_task(architecture: type[Architecture[Any]], card: ModelCard) -> None:
    """Raise `InvalidCard` for a card of a task that an architecture does not serve."""
    if architecture.tasks and card.task not in architecture.tasks:
        raise InvalidCard(
            f"{card.id!r} is for {card.task!r}, and architecture "
            f"{architecture.name!r} is for {', '.join(architecture.tasks)}; correct "
            "the card's task"
        )


def _are_lost(scores: np.ndarray) -> bool:
    """Whether nothing but NaN stands in the first column of some (rows, C)."""
    if not scores.size:
        return False
    return bool(np.isnan(np.atleast_1d(scores[..., 0])).all(axis=-1).any())


def _relative(expected: np.ndarray, found: np.ndarray) -> float:
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    return float(np.abs(found - expected).max(initial=0)) / scale


@attrs.frozen
class Access:
    """What the user said of the one model that is looked for.

    `key`, `headers` and `query` are for the provider's own server alone: they are never
    printed, stored or pickled. `model_type` says what a file is that does not say so
    itself: the id of a known model, or the name of an architecture. `sha256` is what
    one file has to have, and `consent` what the user allows. `alone` is whether the
    provider that sees this is the one that the user names, so that any id is meant for
    it, a bare number, too.
    """

    key: str | None = attrs.field(default=None, repr=False)
    revision: str | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    model_type: str | None = None
    query: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    sha256: str | None = None
    consent: Consent = attrs.field(factory=Consent)
    alone: bool = False

    def without_secrets(self) -> Access:
        """The same, without what is for one provider alone."""
        return attrs.evolve(self, key=None, headers={}, query={})

    def for_another(self) -> Access:
        """The same for another model, without what is said of this one alone."""
        return attrs.evolve(self, revision=None, model_type=None, sha256=None)

    def __reduce__(self) -> Any:
        kept = self.without_secrets()
        return Access, attrs.astuple(kept, recurse=False)


class WeightsProvider(ABC):
    """Knows where some models are.

    Providers are asked in their `order`, then by name; `"<name>://id"` asks one alone.
    """

    name: ClassVar[str]
    order: ClassVar[int] = 100
    takes_key: ClassVar[bool] = False
    """Whether `api_key=`, headers and query are for it where nobody is named."""
    takes_revision: ClassVar[bool] = False
    """Whether it has several versions of one id, of which `revision=` names one."""

    @abstractmethod
    def find(self, model_id: str, access: Access) -> ModelCard | None:
        """The card, from small metadata only; None at once for ids it cannot know."""

    def models(self) -> Iterable[ModelCard]:
        """Every model this provider can list without asking a network."""
        return ()

    def request(self, source: str, access: Access) -> tuple[str, Mapping[str, str]]:
        """URL and headers of a file's source, fresh for each try."""
        return source, {}

    def origin(self, model_id: str, access: Access) -> Origin:
        """Who vouches for a model's files; "publisher": it gives a version's hashes.

        `inference_models.trust.Origin` has the other words.
        """
        return "publisher"

    def complete(self, bundle: Bundle) -> Bundle:
        """After the fetch: labels and preprocessing from the artifact's own files."""
        return bundle
