"""Options tried in turn, until one runs or is built; the others become a warning."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import attrs

from inference_models.batching import fitted, wrapped
from inference_models.card import Artifact, Bundle, ModelCard, Plan
from inference_models.errors import (
    InferenceModelsError,
    InvalidOption,
    InvalidWeights,
    NoBackend,
    faults_of,
    let_go,
    told,
)
from inference_models.hardware import check_not_forked
from inference_models.images import Image
from inference_models.interfaces import Architecture, Operations, Session
from inference_models.lending import operations_of
from inference_models.model import (
    CPU_PIXELS,
    DEFAULT_BATCH,
    Loaded,
    Model,
    Recipe,
)
from inference_models.negotiation.constraints import Constraints
from inference_models.negotiation.explain import Explanation
from inference_models.negotiation.hints import advice
from inference_models.negotiation.negotiate import to_build
from inference_models.negotiation.options import Candidate, Negotiation, Option
from inference_models.negotiation.search import Search
from inference_models.preprocess import Preprocessing
from inference_models.tasks import TASKS

log = logging.getLogger("inference_models")

T = TypeVar("T")


@attrs.frozen
class _Tries:
    """Options tried in turn: what failed, in words and as errors."""

    negotiation: Negotiation
    failures: list[str] = attrs.field(factory=list)
    errors: list[BaseException] = attrs.field(factory=list)

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
            except (Exception, SystemExit) as error:  # noqa: BLE001 - of a plugin, or a file
                self.failures.append(f"{named(option)}: {told(error)}")
                self.errors.append(error)
                let_go(error)  # of weights that the next option needs the memory of
        return None


def load(search: Search, recipe: Recipe) -> Model[Any]:
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


def build(search: Search, pictures: Sequence[Image]) -> Bundle:
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


def _warn_of_fallback(
    card: ModelCard, model: Model[Any], failures: Sequence[str]
) -> None:
    log.warning(
        "%s runs on %s, %s, because the better choice failed: %s",
        card.id,
        model.backend,
        model.device,
        "; ".join(failures),
    )


def _warn_of_buildable(search: Search, option: Option) -> None:
    log.warning(
        "%s would run better on %s, %s, which has to be built first: %s",
        search.card.id,
        option.backend.name,
        option.plan.device,
        to_build(search.card, option, search.constraints),
    )


def _failure(search: Search, tries: _Tries, verb: str) -> InferenceModelsError:
    """What is raised where nothing works.

    The first error whose class all others are of, too; else `NoBackend`, with all that
    was in the way.
    """
    refusals = tries.negotiation.refusals
    differing = [InvalidWeights(c.reason) for c in refusals if c.differs]
    errors: Sequence[BaseException] = tries.errors or differing
    for error in errors:
        alike = all(isinstance(each, type(error)) for each in errors)
        if alike and isinstance(error, InferenceModelsError):
            return error
    lines = [f"nothing here can {verb} {search.card.id!r}:"]
    lines += [f"  {failure}" for failure in tries.failures]
    lines += [f"  {_refusal(candidate)}" for candidate in refusals]
    lines += [f"  {line}" for line in advice(search.card, search.registry)]
    lines += [f"  {line}" for line in search.registry.complaints]
    failure = NoBackend("\n".join(dict.fromkeys(lines)))
    failure.__cause__ = errors[0] if errors else None
    return failure


def _refusal(candidate: Candidate) -> str:
    where = f" on {candidate.device}" if candidate.device else ""
    return f"{candidate.backend}{where}: {candidate.reason}"


def _open(
    search: Search,
    option: Option,
    negotiation: Negotiation,
    failures: Sequence[str],
    recipe: Recipe,
) -> Model[Any]:
    check_not_forked(option.plan.device)
    derives = bool(option.steps)
    bundle = search.derived(option) if derives else search.bundle(option.artifact)
    with faults_of(f"architecture {search.make.name!r}"):
        architecture = search.make(bundle)
    operations = operations_of(option.backend, option.plan.device, search.registry)
    sessions, spec = _opened(option, bundle, architecture, operations)
    number = negotiation.options.index(option)
    loaded = Loaded(
        bundle=bundle,
        architecture=architecture,
        sessions=sessions,
        operations=operations,
        backend=option.backend.name,
        plan=option.plan,
        spec=spec,
        batch_size=_batch_size(search.constraints, bundle.artifact, option.plan, spec),
        explanation=Explanation.of(
            search.card, negotiation, search.registry, number, failures
        ),
        recipe=recipe,
    )
    cls: type[Model[Any]] = architecture.Model or TASKS.get(bundle.card.task, Model)
    return cls(loaded)


def _opened(
    option: Option,
    bundle: Bundle,
    architecture: Architecture[Any],
    operations: Operations,
) -> tuple[Mapping[str, Session], Preprocessing]:
    """The sessions of a bundle as its architecture sees them, and what they take."""
    artifact, given = bundle.artifact, _given(option, bundle, architecture)
    try:
        sessions = wrapped(given, artifact.rename, artifact.batch, operations.host)
        with faults_of(f"architecture {architecture.name!r}"):
            return sessions, fitted(architecture, sessions)
    except Exception:
        for session in given.values():
            session.close()
        raise


def _given(
    option: Option, bundle: Bundle, architecture: Architecture[Any]
) -> Mapping[str, Session]:
    """What a backend opens; `TypeError` for anything else than sessions by graph."""
    opened: Any = option.backend.open(bundle, architecture, option.plan)
    found = opened.values() if isinstance(opened, Mapping) else [None]
    if not all(isinstance(session, Session) for session in found):
        raise TypeError(f"open() returned {opened!r:.80}, and not sessions by graph")
    sessions: Mapping[str, Session] = opened
    return sessions


def _batch_size(
    constraints: Constraints, artifact: Artifact, plan: Plan, spec: Preprocessing
) -> int:
    asked = constraints.batch or artifact.batch
    if asked is not None:
        return asked[1]
    if plan.device != "cpu" or spec.size is None:
        return DEFAULT_BATCH
    height, width = spec.size
    return max(1, min(DEFAULT_BATCH, CPU_PIXELS // (height * width)))
