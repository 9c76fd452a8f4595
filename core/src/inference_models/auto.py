"""`AutoModel`: an id in, a model out, by the best backend that works here."""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import attrs
import numpy as np

from inference_models import derive, find
from inference_models.batching import fitted, wrapped
from inference_models.card import Artifact, Bundle, File, ModelCard, Plan, relabelled
from inference_models.errors import (
    DownloadFailed,
    InferenceModelsError,
    InvalidOption,
    InvalidWeights,
    NoBackend,
    did_you_mean,
    told,
)
from inference_models.explain import Explanation
from inference_models.images import Image, read_images
from inference_models.interfaces import Access, Architecture, Backend
from inference_models.lending import operations_of
from inference_models.model import (
    CPU_PIXELS,
    DEFAULT_BATCH,
    Loaded,
    Model,
    Recipe,
)
from inference_models.negotiate import (
    Candidate,
    Negotiation,
    Option,
    Wishes,
    advice,
    install_hint,
    negotiate,
    to_build,
    usable,
)
from inference_models.preprocess import Preprocessing
from inference_models.registry import Registry, installed
from inference_models.store import Store
from inference_models.tasks import (
    TASKS,
    ClassificationModel,
    MultiLabelClassificationModel,
    ObjectDetectionModel,
)
from inference_models.trust import Consent
from inference_models.vision_language import VisionLanguageModel

log = logging.getLogger("inference_models")

BackendName = str | Backend | Sequence[str | Backend]
Pairs = Mapping[str, str] | Sequence[tuple[str, str]]
T = TypeVar("T")

if TYPE_CHECKING:
    from typing_extensions import TypedDict, Unpack

    class _Parameters(TypedDict, total=False):
        backend: BackendName | None
        device: Any
        quantization: str | None
        batch_size: int | tuple[int, ...] | None
        model_type: str | None
        labels: Sequence[str | None] | None
        derive: bool | None
        allow_licenses: Sequence[str] | None
        allow_untrusted_packages: bool
        weights_provider: str | None
        sha256: str | None
        api_key: str | None
        revision: str | None
        weights_provider_extra_headers: Mapping[str, str] | None
        weights_provider_extra_query_params: Pairs | None


def _device_name(device: Any) -> str | None:
    return None if device is None else str(device)


def _check_text(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not isinstance(value, str):
        raise InvalidOption(f"{attribute.name} is a {type(value).__name__}, not a text")


@attrs.frozen
class _Secret:
    """Something that is not shown."""

    value: Any = attrs.field(repr=False)


@attrs.frozen
class _Call:
    """The keywords of `from_pretrained` and of `explain`, which are the same."""

    task: str | None
    backend: BackendName | None
    device: str | None = attrs.field(converter=_device_name)
    quantization: str | None
    batch_size: int | tuple[int, ...] | None
    model_type: str | None = attrs.field(validator=_check_text)
    labels: Sequence[str | None] | None
    derive: bool | None
    allow_licenses: Sequence[str] | None
    allow_untrusted_packages: bool
    weights_provider: str | None = attrs.field(validator=_check_text)
    sha256: str | None
    api_key: str | None = attrs.field(repr=False)
    revision: str | None = attrs.field(validator=_check_text)
    weights_provider_extra_headers: Mapping[str, str] | None = attrs.field(repr=False)
    weights_provider_extra_query_params: Pairs | None = attrs.field(repr=False)

    @classmethod
    def of(cls, given: _Secret, function: Callable[..., Any]) -> _Call:
        """From all arguments of a function that takes these, by their names."""
        _refuse_unknown(list(given.value["unknown"]), function)
        return cls(**{name: given.value[name] for name in attrs.fields_dict(cls)})

    def search(self, model_id: Any) -> _Search:
        """Find the card, and the architecture that it names."""
        wishes = Wishes.read(
            self.backend,
            self.device,
            self.quantization,
            self.batch_size,
            self.derive,
        )
        registry = installed()
        access = self._access()
        found = find.find(model_id, registry, access, self.weights_provider)
        found = attrs.evolve(found, card=_relabelled(found.card, self.labels))
        _check_task(found.card, self.task)
        make = _architecture(found.card, registry)
        store = Store()
        left = derive.left(store, found.card, make, registry)
        return _Search(registry, store, found, wishes, make, left)

    def _access(self) -> Access:
        headers = _Secret(self.weights_provider_extra_headers)
        query = _Secret(self.weights_provider_extra_query_params)
        return Access(
            self.api_key,
            self.revision,
            _texts_by_name("weights_provider_extra_headers", headers),
            self.model_type,
            _texts_by_name("weights_provider_extra_query_params", query),
            _digest(self.sha256),
            Consent.read(self.allow_licenses, self.allow_untrusted_packages),
        )

    def recipe(self, model_id: Any, found: find.Found) -> Recipe:
        """What loads the same model again: all that was given, but for secrets."""
        given = attrs.asdict(self, recurse=False, filter=_is_kept)
        return Recipe(found.path or find.written(model_id), given)


def _is_kept(field: attrs.Attribute[Any], value: Any) -> bool:
    # The task was only checked; a key is nobody else's to keep.
    return value is not None and field.name != "task" and bool(field.repr)


def _texts_by_name(name: str, given: _Secret) -> dict[str, str]:
    """A mapping, or pairs, of texts."""
    if not _are_texts(given):
        raise InvalidOption(f"{name} is no mapping of texts to texts")
    return dict(given.value or {})


def _are_texts(given: _Secret) -> bool:
    try:
        pairs = dict(given.value or {})
    except (TypeError, ValueError):
        return False
    return all(isinstance(text, str) for pair in pairs.items() for text in pair)


def _digest(sha256: Any) -> str | None:
    if sha256 is None:
        return None
    if not isinstance(sha256, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise InvalidOption(f"sha256 {sha256!r} is not 64 hexadecimal digits")
    return sha256.lower()


@attrs.frozen
class _Search:
    """One call's surroundings: what is installed, what was found, what was named."""

    registry: Registry
    store: Store
    found: find.Found
    wishes: Wishes
    make: type[Architecture[Any]]
    left: Sequence[derive.Left] = ()
    failed: dict[tuple[File, ...], DownloadFailed] = attrs.field(
        factory=dict, init=False, repr=False
    )
    """What could not be fetched; the next plan of the same files does not try again."""

    @property
    def card(self) -> ModelCard:
        return self.found.card

    def negotiation(self) -> Negotiation:
        look = functools.partial(derive.cached, self.store, self.card, self.make)
        ready = (*self.card.artifacts, *(each.artifact for each in self.left))
        card = attrs.evolve(self.card, artifacts=ready)
        return negotiate(card, self.wishes, self.registry, look)

    def bundle(self, artifact: Artifact) -> Bundle:
        """Fetch an artifact, and what it adapts, and complete its card."""
        for each in self.left:
            if each.artifact is artifact:
                return each.bundle(self.card, self.bundle)
        if artifact.files in self.failed:
            raise self.failed[artifact.files]
        try:
            folder = self.store.folder(artifact, self.found.request)
            base = self._base(artifact)
        except DownloadFailed as error:
            self.failed[artifact.files] = error
            raise
        bundle = Bundle(self.card, artifact, folder, base)
        return self.found.provider.complete(bundle)

    def derived(self, option: Option, pictures: Sequence[Image] = ()) -> Bundle:
        """What an option derives, unless it was found wrong for another device."""
        store, card, make = self.store, self.card, self.make
        told = option.built or self.wishes.building
        if not told and (fault := derive.cached(store, card, make, option).fault):
            raise InvalidWeights(fault)
        return derive.derived(store, card, option, self.bundle, make, pictures)

    def _base(self, artifact: Artifact) -> Bundle | None:
        if artifact.base is None:
            return None
        access = self.found.access.for_another()
        if not self.found.provider.takes_key:  # nor does another see this one's key
            access = access.without_secrets()
        found = find.find(artifact.base, self.registry, access, None)
        search = attrs.evolve(self, found=found)
        for candidate in usable(found.card, artifact.format):
            return search.bundle(candidate)
        raise NoBackend(
            f"{self.card.id!r} adapts {artifact.base!r}, which has no "
            f"weights in format {artifact.format!r}"
        )


class AutoModel:
    """Finds a model's weights and runs them with the best backend that works here."""

    @overload
    @classmethod
    def from_pretrained(
        cls,
        model_id_or_path: str | os.PathLike[str],
        *,
        task: Literal["object-detection"],
        **parameters: Unpack[_Parameters],
    ) -> ObjectDetectionModel: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        model_id_or_path: str | os.PathLike[str],
        *,
        task: Literal["classification"],
        **parameters: Unpack[_Parameters],
    ) -> ClassificationModel: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        model_id_or_path: str | os.PathLike[str],
        *,
        task: Literal["multi-label-classification"],
        **parameters: Unpack[_Parameters],
    ) -> MultiLabelClassificationModel: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        model_id_or_path: str | os.PathLike[str],
        *,
        task: Literal["vision-language"],
        **parameters: Unpack[_Parameters],
    ) -> VisionLanguageModel: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        model_id_or_path: str | os.PathLike[str],
        *,
        task: str | None = ...,
        **parameters: Unpack[_Parameters],
    ) -> Any: ...

    @classmethod
    def from_pretrained(
        cls,
        model_id_or_path: str | os.PathLike[str],
        *,
        task: str | None = None,
        backend: BackendName | None = None,
        device: Any = None,
        quantization: str | None = None,
        batch_size: int | tuple[int, ...] | None = None,
        model_type: str | None = None,
        labels: Sequence[str | None] | None = None,
        derive: bool | None = None,
        allow_licenses: Sequence[str] | None = None,
        allow_untrusted_packages: bool = False,
        weights_provider: str | None = None,
        sha256: str | None = None,
        api_key: str | None = None,
        revision: str | None = None,
        weights_provider_extra_headers: Mapping[str, str] | None = None,
        weights_provider_extra_query_params: Pairs | None = None,
        **unknown: Any,
    ) -> Any:
        """Load a model by its id, a folder with a card, or a file of weights.

        task              refuse a model of another task
        backend           name, `Backend`, or several of these; else the best that works
        device            "cpu", "cuda", "cuda:1", "mps", or a `torch.device`
        quantization      "fp32", "fp16", "bf16" or "int8"
        batch_size        images prepared and run at a time; or (min, max)
        model_type        what a file of weights is, where it does not say so itself:
                          the id of a known model, or the name of an architecture
        labels            class names, in place of the card's; None for a column that
                          is never returned
        derive            build a better artifact first, where a backend can
        allow_licenses    refuse a model under any other, before its weights are fetched
        allow_untrusted_packages
                          run programs and engines that were not made here, too
        weights_provider  ask this one alone
        sha256            what the one file of a URL or a path has to have
        api_key, revision, weights_provider_extra_headers, …_query_params
                          for the provider's server alone

        What is named never falls back; what is left open falls back with one WARNING.
        Raises `ModelNotFound`, `NoBackend`, `DownloadFailed`, `InvalidWeights`,
        `InvalidCard`, `LicenseNotAllowed`, and `InvalidOption` (a `TypeError`) for an
        unknown parameter.
        """
        given = _Secret(locals())
        # Whoever prints a traceback's locals, as Sentry and rich do, sees no key.
        del api_key, unknown
        del weights_provider_extra_headers, weights_provider_extra_query_params
        call = _Call.of(given, cls.from_pretrained)
        search = call.search(model_id_or_path)
        return _load(search, call.recipe(model_id_or_path, search.found))

    @classmethod
    def explain(
        cls,
        model_id_or_path: str | os.PathLike[str],
        *,
        task: str | None = None,
        backend: BackendName | None = None,
        device: Any = None,
        quantization: str | None = None,
        batch_size: int | tuple[int, ...] | None = None,
        model_type: str | None = None,
        labels: Sequence[str | None] | None = None,
        derive: bool | None = None,
        allow_licenses: Sequence[str] | None = None,
        allow_untrusted_packages: bool = False,
        weights_provider: str | None = None,
        sha256: str | None = None,
        api_key: str | None = None,
        revision: str | None = None,
        weights_provider_extra_headers: Mapping[str, str] | None = None,
        weights_provider_extra_query_params: Pairs | None = None,
        **unknown: Any,
    ) -> Explanation:
        """What would run here, in order, and why not the rest.

        Fetches no weights, unless the id is their URL, and imports no runtime, unless a
        file of weights is named that only one can read; takes what `from_pretrained`
        takes.
        """
        given = _Secret(locals())
        del api_key, unknown
        del weights_provider_extra_headers, weights_provider_extra_query_params
        search = _Call.of(given, cls.explain).search(model_id_or_path)
        return Explanation.of(search.card, search.negotiation(), search.registry)

    @classmethod
    def compile(
        cls,
        model_id_or_path: str | os.PathLike[str],
        *,
        backend: str | Backend,
        device: Any = None,
        quantization: str | None = None,
        batch_size: int | tuple[int, ...] | None = None,
        calibration: Any = None,
        task: str | None = None,
        model_type: str | None = None,
        labels: Sequence[str | None] | None = None,
        allow_licenses: Sequence[str] | None = None,
        allow_untrusted_packages: bool = False,
        weights_provider: str | None = None,
        sha256: str | None = None,
        api_key: str | None = None,
        revision: str | None = None,
        weights_provider_extra_headers: Mapping[str, str] | None = None,
        weights_provider_extra_query_params: Pairs | None = None,
        **unknown: Any,
    ) -> Bundle:
        """Build now what a backend runs best, and keep it; `from_pretrained` finds it.

        backend      whose format is built
        device       one that is here, or a kind of device that is not, as the backend
                     names it; what is built for another is judged where it first runs
        batch_size   the largest batch, or (min, max), or (min, best, max)
        calibration  images, in any form that models take, on which what was built is
                     compared with its source; by default pictures of the library's

        The rest is that of `from_pretrained`. Returns what lies in the cache, built
        before or now. Where no precision is named, half precision that differs too much
        from its source falls back to full precision with one WARNING. Raises
        `InvalidOption` where the backend needs nothing built, and what
        `from_pretrained` raises.
        """
        derive = True
        given = _Secret(locals())
        del api_key, unknown
        del weights_provider_extra_headers, weights_provider_extra_query_params
        search = _Call.of(given, cls.compile).search(model_id_or_path)
        pictures = [] if calibration is None else read_images(calibration)
        wishes = attrs.evolve(search.wishes, building=True)
        return _compile(attrs.evolve(search, wishes=wishes), pictures)

    @classmethod
    def models(cls) -> list[str]:
        """Every id and alias that installed packs and card folders name, sorted."""
        registry = installed()
        ids = find.known_ids(find.providers(registry))
        return sorted({*ids, *find.elsewhere(registry)})


def _refuse_unknown(unknown: Sequence[str], function: Callable[..., Any]) -> None:
    import inspect

    for name in unknown:
        known = set(inspect.signature(function).parameters) - {"unknown"}
        raise InvalidOption(
            f"{function.__name__}() has no parameter {name!r}"
            f"{did_you_mean(name, known)}; what concerns a backend alone is an "
            "argument of its class, and backend= takes an object of it"
        )


def _relabelled(card: ModelCard, labels: Sequence[str | None] | None) -> ModelCard:
    if labels is None:
        return card
    if isinstance(labels, str) or not isinstance(labels, (Sequence, np.ndarray)):
        raise InvalidOption(
            f"labels {labels!r} is no list; give a list of names, in the order of the "
            "model's classes"
        )
    return relabelled(card, labels)


def _architecture(card: ModelCard, registry: Registry) -> type[Architecture[Any]]:
    """The class of the card's architecture; `NoBackend` says how to get it."""
    name = card.architecture
    cls = registry.architecture(name)
    if cls is None:
        known = sorted(registry.architectures)
        hint = install_hint("architecture", name)
        listed = ", ".join(known) or "none"
        sentence = (
            f"no installed plugin offers architecture {name!r}, which {card.id!r} "
            f"needs{did_you_mean(name, known)}; {hint or 'installed: ' + listed}"
        )
        raise NoBackend(registry.excused(sentence))
    return cls


def _check_task(card: ModelCard, task: str | None) -> None:
    if task is not None and card.task != task:
        raise InvalidOption(f"{card.id!r} is a model for {card.task}, not for {task}")


@attrs.frozen
class _Tries:
    """Options tried in turn: what failed, in words and as errors."""

    negotiation: Negotiation
    failures: list[str] = attrs.field(factory=list)
    errors: list[Exception] = attrs.field(factory=list)

    def first(
        self,
        options: Sequence[Option],
        attempt: Callable[[Option], T],
        named: Callable[[Option], str],
    ) -> tuple[Option, T] | None:
        """The first option with which an attempt works, and what it gives."""
        for option in options:
            try:
                return option, attempt(option)
            except Exception as error:  # noqa: BLE001 - any failure of a plugin or a file
                self.failures.append(f"{named(option)}: {told(error)}")
                self.errors.append(error)
        return None


def _load(search: _Search, recipe: Recipe) -> Model:
    """Open the first option that works, with a warning for each that did not."""
    negotiation = search.negotiation()
    tries = _Tries(negotiation)
    found = tries.first(
        negotiation.order,
        lambda option: _open(search, option, negotiation, tries.failures, recipe),
        lambda option: f"{option.backend.name} on {option.plan.device}",
    )
    if found is None:
        raise _failure(search, tries, "run")
    option, model = found
    if tries.failures:
        _warn_of_fallback(search.card, model, tries.failures)
    elif option.ready and not negotiation.options[0].ready:
        _warn_of_buildable(search, negotiation.options[0])
    return model


def _compile(search: _Search, pictures: Sequence[Image]) -> Bundle:
    """Build the first option that can be built and agrees with its source."""
    negotiation = search.negotiation()
    options = [option for option in negotiation.order if option.steps]
    if negotiation.order and not options:
        ready = negotiation.order[0]
        raise InvalidOption(
            f"{search.card.id!r} needs nothing built for {ready.backend.name!r}: it "
            f"has {ready.format} ready"
        )
    tries = _Tries(negotiation)
    found = tries.first(
        options,
        lambda option: search.derived(option, pictures),
        lambda option: option.plan.precision,
    )
    if found is None:
        raise _failure(search, tries, "build")
    option, bundle = found
    if tries.failures:
        built = f"{search.card.id} is built in {option.plan.precision}"
        log.warning("%s, because %s", built, "; ".join(tries.failures))
    return bundle


def _warn_of_fallback(card: ModelCard, model: Model, failures: Sequence[str]) -> None:
    log.warning(
        "%s runs on %s, %s, because the better choice failed: %s",
        card.id,
        model.backend,
        model.device,
        "; ".join(failures),
    )


def _warn_of_buildable(search: _Search, option: Option) -> None:
    log.warning(
        "%s would run better on %s, %s, which has to be built first: %s",
        search.card.id,
        option.backend.name,
        option.plan.device,
        to_build(search.card, option, search.wishes),
    )


def _failure(search: _Search, tries: _Tries, verb: str) -> InferenceModelsError:
    """What is raised where nothing works: the one error, or all that was in the way."""
    refusals = tries.negotiation.refusals
    errors = tries.errors or [InvalidWeights(c.reason) for c in refusals if c.differs]
    for error in errors:
        alike = all(isinstance(each, type(error)) for each in errors)
        if alike and isinstance(error, InferenceModelsError):
            return error
    lines = [f"nothing here can {verb} {search.card.id!r}:"]
    lines += [f"  {failure}" for failure in tries.failures]
    lines += [f"  {_refusal(candidate)}" for candidate in refusals]
    lines += [f"  {line}" for line in advice(search.card, search.registry)]
    lines += [f"  {line}" for line in search.registry.complaints]
    failure = NoBackend("\n".join(lines))
    failure.__cause__ = errors[0] if errors else None
    return failure


def _refusal(candidate: Candidate) -> str:
    where = f" on {candidate.device}" if candidate.device else ""
    return f"{candidate.backend}{where}: {candidate.reason}"


def _open(
    search: _Search,
    option: Option,
    negotiation: Negotiation,
    failures: Sequence[str],
    recipe: Recipe,
) -> Model:
    if option.steps:
        bundle = search.derived(option)
    else:
        bundle = search.bundle(option.artifact)
    architecture = search.make(bundle)
    operations = operations_of(option.backend, option.plan.device, search.registry)
    opened = option.backend.open(bundle, architecture, option.plan)
    artifact = bundle.artifact
    try:
        sessions = wrapped(opened, artifact.rename, artifact.batch, operations.host)
        spec = fitted(architecture, sessions)
    except Exception:
        for session in opened.values():
            session.close()
        raise
    number = negotiation.options.index(option)
    loaded = Loaded(
        bundle=bundle,
        architecture=architecture,
        sessions=sessions,
        operations=operations,
        backend=option.backend.name,
        plan=option.plan,
        spec=spec,
        batch_size=_batch_size(search.wishes, artifact, option.plan, spec),
        explanation=Explanation.of(
            search.card, negotiation, search.registry, number, failures
        ),
        recipe=recipe,
    )
    cls: type[Model] = architecture.Model or TASKS.get(bundle.card.task, Model)
    return cls(loaded)


def _batch_size(
    wishes: Wishes, artifact: Artifact, plan: Plan, spec: Preprocessing
) -> int:
    asked = wishes.batch or artifact.batch
    if asked is not None:
        return asked[1]
    if plan.device != "cpu" or spec.size is None:
        return DEFAULT_BATCH
    height, width = spec.size
    return max(1, min(DEFAULT_BATCH, CPU_PIXELS // (height * width)))
