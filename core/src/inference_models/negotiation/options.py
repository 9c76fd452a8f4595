"""The ways to run a model that negotiation found, in order, and those it refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import attrs

from inference_models.card import Artifact, Batch, Plan
from inference_models.interfaces import Backend
from inference_models.negotiation.routes import Steps, opened_format

Verdict = Literal["runs", "buildable", "refused"]
"""Whether a way to run a model works now, has to be built first, or is none here."""


@attrs.frozen
class Candidate:
    """One way to run the model, or one reason why there is none.

    `differs` says that it was built before, and is refused as it differs from its
    source.
    """

    backend: str
    verdict: Verdict
    reason: str = ""
    format: str | None = None
    device: str | None = None
    precision: str | None = None
    batch: Batch | None = None
    differs: bool = False


@attrs.frozen
class Option:
    """A plan that can be carried out: open `artifact` with `backend`.

    `steps` are the backends that derive it first, in order; empty where the card has
    the artifact ready. `built` says that the derived artifact lies in the cache, and
    `misfit` why what lies there is of no use. Options are sorted by `preference`: the
    place of the precision in the backend's own order, then whether the batch is another
    than the user asked for.
    """

    backend: Backend
    artifact: Artifact
    plan: Plan
    steps: Steps = ()
    built: bool = False
    misfit: str = ""
    preference: tuple[int, bool] = (0, False)

    @property
    def ready(self) -> bool:
        """Whether nothing has to be derived first."""
        return self.built or not self.steps

    @property
    def format(self) -> str:
        """The format that the backend opens."""
        return opened_format(self.artifact, self.steps)

    def candidate(self) -> Candidate:
        """The same, as data for `explain`."""
        route = " -> ".join([self.artifact.format, *(step[1] for step in self.steps)])
        reason = ""
        if self.steps:
            reason = f"derived, {route}" if self.built else f"can be derived, {route}"
            reason += f"; {self.misfit}" if self.misfit else ""
        return Candidate(
            backend=self.backend.name,
            verdict="runs" if self.ready else "buildable",
            reason=reason,
            format=self.format,
            device=self.plan.device,
            precision=self.plan.precision,
            batch=self.plan.batch,
        )


@attrs.frozen
class Cached:
    """What the cache holds of what an option derives.

    `misfit` says why what was built does not fit this option, and `fault` that it was
    built, and differs too much from its source.
    """

    is_built: bool = False
    misfit: str = ""
    fault: str = ""


Look = Callable[[Option], Cached]


@attrs.frozen
class Negotiation:
    """Options in the order of preference, and why the rest is out.

    `advice` are sentences of the backends themselves, on what would make them faster.
    """

    options: tuple[Option, ...]
    refusals: tuple[Candidate, ...]
    derive: bool
    advice: tuple[str, ...] = ()

    @property
    def order(self) -> list[Option]:
        """Options in the order in which they are tried."""
        if self.derive:
            return list(self.options)
        ready = [option for option in self.options if option.ready]
        return ready + [option for option in self.options if not option.ready]

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Options and refusals as data."""
        return (*(option.candidate() for option in self.options), *self.refusals)
