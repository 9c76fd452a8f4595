"""Which backend runs a model here: every possible plan, in order, and every refusal.

Nothing is fetched and no runtime is imported: backends answer from metadata and from
core's hardware facts.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from inference_models.card import Artifact, Batch, ModelCard, Plan
from inference_models.errors import NoBackend, Unavailable, did_you_mean, told
from inference_models.interfaces import Backend
from inference_models.negotiation.constraints import Constraints, is_device
from inference_models.negotiation.hints import install_hint
from inference_models.negotiation.options import Candidate, Look, Negotiation, Option
from inference_models.negotiation.routes import (
    Route,
    Steps,
    can_open,
    derived_routes,
    lacking,
    opened_format,
    ready_routes,
    refusal,
    usable,
    usable_formats,
)
from inference_models.registry import Registry, warn_of_misspelt

_WRITABLE = ("fp32", "fp16")
"""Precisions in which artifacts are derived; on an accelerator in the other order."""


def negotiate(
    card: ModelCard, constraints: Constraints, registry: Registry, look: Look
) -> Negotiation:
    """Every plan for the card, sorted: accelerators, then rank, then precision."""
    backends = [cls() for cls in registry.backends.values()]
    order = _preference(registry)
    options: list[tuple[Any, Option]] = []
    refusals: list[Candidate] = []
    sentences: list[str] = []
    allowed = _allowed(backends, constraints, registry)
    for backend in allowed:
        reason = _out_of_order(backend, order, constraints)
        if reason:
            refusals.append(Candidate(backend.name, "refused", reason))
            continue
        found, refused = _plans(card, backend, backends, constraints, look)
        refusals += refused
        told = advice_of(backend) if constraints.device != "cpu" else []
        if told and can_open(card, backend, backends):
            sentences += _untold(told, refused)
        place = order.get(backend.name, len(order)) if order else 0
        options += [(_key(option, place, index), option) for index, option in found]
    options.sort(key=lambda pair: pair[0])
    refusals += _not_allowed(backends, allowed)
    named = constraints.backends is not None
    return Negotiation(
        options=tuple(option for _, option in options),
        refusals=tuple(refusals),
        derive=constraints.derive is True or named,
        advice=tuple(dict.fromkeys(sentences)),
    )


def advice_of(backend: Backend) -> list[str]:
    """What a backend says would make it faster here, or that it fails to say it."""
    try:
        return _sentences(backend.advice())
    except Unavailable:
        return []  # why is said where its devices are asked for
    except Exception as error:  # noqa: BLE001 - a plugin's fault must not stop the others
        return [f"{backend.name}: advice() failed: {told(error)}"]


def _sentences(given: Any) -> list[str]:
    if isinstance(given, str) or not all(isinstance(each, str) for each in given):
        raise TypeError(f"{given!r:.80} is no list of sentences")
    return list(given)


def _untold(sentences: Iterable[str], refused: Sequence[Candidate]) -> list[str]:
    """The sentences that do not stand in the reason of a refusal already."""
    return [s for s in sentences if not any(s in each.reason for each in refused)]


def _preference(registry: Registry) -> dict[str, int] | None:
    """The places of backends in `INFERENCE_MODELS_BACKENDS`; None where it is empty."""
    text = os.environ.get("INFERENCE_MODELS_BACKENDS", "").lower()
    names = text.replace(",", " ").split()
    if not names:
        return None
    unknown = [
        name
        for name in names
        if not (registry.backend(name) or install_hint("backend", name, registry))
    ]
    variable = "INFERENCE_MODELS_BACKENDS"
    warn_of_misspelt(variable, "backend", unknown, registry.backends)
    known = dict.fromkeys(map(registry.backend, names))
    return {cls.name: place for place, cls in enumerate(known) if cls is not None}


def _out_of_order(
    backend: Backend, order: Mapping[str, Any] | None, constraints: Constraints
) -> str | None:
    if constraints.backends is None and order is not None and backend.name not in order:
        named = os.environ["INFERENCE_MODELS_BACKENDS"]
        return f"left out by INFERENCE_MODELS_BACKENDS={named}"
    return None


def _allowed(
    backends: Sequence[Backend], constraints: Constraints, registry: Registry
) -> list[Backend]:
    if constraints.backends is None:
        return list(backends)
    chosen = []
    for named in constraints.backends:
        if isinstance(named, Backend):
            chosen.append(named)
            continue
        cls = registry.backend(named)
        if cls is None:
            raise NoBackend(_no_such_backend(named, registry))
        found = next(b for b in backends if type(b) is cls)
        if found not in chosen:
            chosen.append(found)
    return chosen


def _not_allowed(
    backends: Sequence[Backend], allowed: Sequence[Backend]
) -> list[Candidate]:
    names = {backend.name for backend in allowed}
    return [
        Candidate(backend.name, "refused", "another backend was asked for")
        for backend in backends
        if backend.name not in names
    ]


def _no_such_backend(name: str, registry: Registry) -> str:
    names = sorted(registry.backends)
    hint = install_hint("backend", name, registry)
    listed = ", ".join(names) or "none"
    advice = hint or f"installed: {listed}{did_you_mean(name, names)}"
    sentence = f"no installed plugin offers backend {name!r}; {advice}"
    return registry.excused(sentence)


@attrs.frozen
class _Way:
    """An artifact to a backend on a device: as it is, or derived in steps."""

    card: ModelCard
    backend: Backend
    artifact: Artifact
    steps: Steps
    device: str

    @property
    def opened(self) -> Artifact:
        """What the backend opens, as far as it is known before it is derived."""
        if not self.steps:
            return self.artifact
        form = opened_format(self.artifact, self.steps)
        return attrs.evolve(self.artifact, format=form, batch=None, needs={})

    def in_precision(self, precision: str) -> Artifact:
        """The same, derived in a precision; what is ready stays as it is."""
        if not self.steps:
            return self.artifact
        return attrs.evolve(self.opened, precision=precision)


def _plans(
    card: ModelCard,
    backend: Backend,
    backends: Sequence[Backend],
    constraints: Constraints,
    look: Look,
) -> tuple[list[tuple[int, Option]], list[Candidate]]:
    """Options of one backend with their artifact's number, and its refusals."""
    refuse = functools.partial(Candidate, backend.name, "refused")
    asked = "targets()" if constraints.names_target else "devices()"
    try:
        offered = backend.targets() if constraints.names_target else backend.devices()
        devices, refused = _devices(asked, _names(offered), constraints)
    except Unavailable as error:
        return [], [refuse(str(error))]
    except (Exception, SystemExit) as error:  # noqa: BLE001 - must not stop the others
        return [], [refuse(f"{asked} failed: {told(error)}")]
    if refused:
        return [], [refuse(refused + _why_not(card, backend, constraints))]
    explore = functools.partial(_explored, card, backend, devices, constraints, look)
    ready = ready_routes(card, backend)
    found = list(explore(ready))
    if not any(isinstance(each, Option) for _, each in found):
        derivable = derived_routes(card, backend, backends)
        if not ready and not derivable:
            wanted = "/".join(backend.formats)
            has = usable_formats(card)
            lacks = "".join(f"; {lack}" for lack in lacking(card, backend, backends))
            return [], [refuse(f"needs {wanted}; the card has {has}{lacks}")]
        found += explore(derivable)
    options = [(number, each) for number, each in found if isinstance(each, Option)]
    return options, [each for _, each in found if isinstance(each, Candidate)]


def _explored(
    card: ModelCard,
    backend: Backend,
    devices: Sequence[str],
    constraints: Constraints,
    look: Look,
    routes: Iterable[Route],
) -> Iterator[tuple[int, Option | Candidate]]:
    """What comes of each route on each device, with the artifact's number."""
    for number, artifact, steps in routes:
        for device in devices:
            way = _Way(card, backend, artifact, steps, device)
            for found in _ways(way, constraints):
                yield number, _looked_up(card, found, look, constraints)


def _looked_up(
    card: ModelCard, found: Option | Candidate, look: Look, constraints: Constraints
) -> Option | Candidate:
    """An option with what the cache holds of it; refused if that differs too much.

    Whoever asks to build is not refused: it is built again.
    """
    if isinstance(found, Candidate) or not found.steps:
        return found
    kept = look(found)
    if not kept.fault or constraints.building:
        option = attrs.evolve(found, built=kept.is_built, misfit=kept.misfit)
        unwanted = constraints.derive is False and not option.ready
        return _unbuilt(option) if unwanted else option
    reason = f"{kept.fault}; {to_build(card, found, constraints)} builds it anew"
    return attrs.evolve(
        found.candidate(), verdict="refused", reason=reason, differs=True
    )


def _unbuilt(option: Option) -> Candidate:
    """Why an option is none where the user wants nothing built."""
    found = option.candidate()
    reason = f"{found.reason}, and derive=False keeps it from being built"
    return attrs.evolve(found, verdict="refused", reason=reason)


def to_build(card: ModelCard, option: Option, constraints: Constraints) -> str:
    """What to type to build what an option derives, as it was asked for."""
    batch = ",".join(map(str, constraints.batch or ()))
    named = {
        "device": constraints.device,
        "quantization": constraints.precision,
        "batch-size": batch,
    }
    command = f"inference-models compile {card.id} --backend {option.backend.name}"
    return command + "".join(f" --{n} {value}" for n, value in named.items() if value)


def _names(given: Any) -> list[str]:
    """What a backend listed; `TypeError` for one text, which is a list of letters."""
    if isinstance(given, str):
        raise TypeError(f"{given!r:.80} is no list of names")
    return list(given)


def _devices(
    asked: str, offered: Sequence[str], constraints: Constraints
) -> tuple[list[str], str | None]:
    strange = [d for d in offered if not is_device(d)]
    if strange:
        return [], f"{asked} gave {strange[0]!r}, which is no device's name"
    listed = ", ".join(offered) or "no device"
    if constraints.device is None:
        # Many operators of Apple's mps are missing or wrong: it is used when named.
        found = [d for d in offered if not d.startswith("mps")]
        hint = "; name it to use it: device='mps'" if offered else ""
        return found, None if found else f"offers {listed} here{hint}"
    fitting = [d for d in offered if constraints.device in (d, d.partition(":")[0])]
    if not fitting:
        offer = "builds for" if constraints.names_target else "offers"
        here = "" if constraints.names_target else " here"
        return [], f"{offer} {listed}{here}, not {constraints.device}"
    return fitting[:1], None


def _why_not(card: ModelCard, backend: Backend, constraints: Constraints) -> str:
    """The backend's own words on a named device that it does not offer."""
    if constraints.device is None:
        return ""
    for artifact in usable(card):
        if artifact.format in backend.formats:
            plan = Plan(constraints.device, constraints.precision or artifact.precision)
            with contextlib.suppress(Exception):
                return f"; {refusal(backend, card, artifact, plan) or ''}".rstrip("; ")
    return ""


def _ways(way: _Way, constraints: Constraints) -> Iterable[Option | Candidate]:
    """The best plan, and one in full precision for what half precision derives.

    Half precision may turn out to be too far from its source.
    """
    found = _plan(way, constraints)
    yield found
    halved = isinstance(found, Option) and found.plan.precision != "fp32"
    if halved and way.steps and constraints.precision is None:
        again = _plan(way, attrs.evolve(constraints, precision="fp32"))
        if isinstance(again, Option):
            yield again


def _plan(way: _Way, constraints: Constraints) -> Option | Candidate:
    """The best precision that is not refused, or why all are."""
    backend, opened = way.backend, way.opened
    batch = opened.batch or constraints.batch
    asked = "refuse()"
    try:
        if reason := _source_refused(way):
            return Candidate(backend.name, "refused", reason, opened.format, way.device)
        asked = "precisions()"
        offered = _offered(way)
        wanted, reason = _wanted(offered, constraints.precision, opened.format)
        asked = "refuse()"
        for choice in wanted:
            plan = Plan(way.device, choice, batch)
            refused = refusal(backend, way.card, way.in_precision(choice), plan)
            if refused is None:
                misfit = _misfit(opened.batch, constraints.batch)
                return Option(
                    backend,
                    way.artifact,
                    plan,
                    way.steps,
                    preference=(offered.index(choice), misfit),
                )
            reason = reason or refused
    except (Exception, SystemExit) as error:  # noqa: BLE001 - must not stop the others
        reason = f"{asked} failed: {told(error)}"
    named = constraints.precision
    return Candidate(
        backend.name, "refused", reason, opened.format, way.device, named, batch
    )


def _offered(way: _Way) -> list[str]:
    """Precisions of an artifact; one to be derived is written in what suits best."""
    if not way.steps:
        return _names(way.backend.precisions(way.artifact, way.device))
    writable: Sequence[str] = _WRITABLE if way.device == "cpu" else _WRITABLE[::-1]
    if not any(deriver.converts for deriver, _ in way.steps):
        writable = (way.artifact.precision,)
    return [
        precision
        for precision in writable
        if precision in way.backend.precisions(way.in_precision(precision), way.device)
    ]


def _source_refused(way: _Way) -> str | None:
    """Why the backend that would read a source cannot."""
    if not way.steps:
        return None
    reader = way.steps[0][0]
    plan = Plan("cpu", way.artifact.precision)
    refused = refusal(reader, way.card, way.artifact, plan)
    return f"to derive it, {reader.name}: {refused}" if refused else None


def _wanted(
    offered: Sequence[str], named: str | None, form: str
) -> tuple[list[str], str]:
    """The precisions to ask about, and why there are none."""
    listed = ", ".join(offered) or "no precision"
    if named is not None:
        if named in offered:
            return [named], ""
        return [], f"offers {listed} for {form}, not {named}"
    wanted = [precision for precision in offered if precision != "int8"]
    if wanted:
        return wanted, ""
    hint = "; ask for it to use it: quantization='int8'" if offered else ""
    return [], f"offers {listed} for {form}{hint}"


def _key(option: Option, place: int, number: int) -> tuple[Any, ...]:
    """A total order; nothing in it depends on how plugins were found."""
    kind, _, index = option.plan.device.partition(":")
    precision, misfit = option.preference
    return (
        kind == "cpu",
        place,
        -option.backend.rank,
        precision,
        # A CPU gains nothing by halves, whatever comes first in the card.
        kind == "cpu" and option.plan.precision in ("fp16", "bf16"),
        misfit,
        number,
        int(index or 0),
        option.backend.name,
    )


def _misfit(offered: Batch | None, asked: Batch | None) -> bool:
    if offered is None or asked is None:
        return False
    return not offered[0] <= asked[1] <= offered[2]
