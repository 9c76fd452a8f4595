"""Why a model runs the way it does: negotiation as data, and as a table."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from inference_models.card import ModelCard
from inference_models.negotiation.hints import advice
from inference_models.negotiation.options import Candidate, Negotiation
from inference_models.registry import Registry, SetAside


@attrs.frozen
class Explanation:
    """What would run here, in order, and why not the rest; `str()` is a table.

    `candidates` come in the order of preference, refusals last; `chosen` is the number
    of the first that would be tried, or None if none can run. `advice` is what to type
    for formats that no backend opens, and for an accelerator that one leaves idle.
    """

    card: ModelCard
    candidates: tuple[Candidate, ...]
    chosen: int | None
    set_aside: tuple[SetAside, ...] = ()
    failures: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        card: ModelCard,
        negotiation: Negotiation,
        registry: Registry,
        chosen: int | None = None,
        failures: Sequence[str] = (),
    ) -> Explanation:
        """The explanation of a negotiation; `chosen` is what was opened in the end."""
        if chosen is None and negotiation.order:
            chosen = negotiation.options.index(negotiation.order[0])
        return cls(
            card=card,
            candidates=negotiation.candidates,
            chosen=chosen,
            set_aside=registry.set_aside,
            failures=tuple(failures),
            advice=(*advice(card, registry), *negotiation.advice),
        )

    @property
    def best(self) -> Candidate | None:
        """What runs, or would; None if nothing can."""
        return None if self.chosen is None else self.candidates[self.chosen]

    def __str__(self) -> str:
        card = self.card
        title = f"{card.id}: {card.task}, {card.architecture}"
        title += f", licence {card.license}" if card.license else ""
        header = ("", "backend", "device", "precision", "format", "verdict")
        rows = [header, *(self._row(*pair) for pair in enumerate(self.candidates))]
        lines = [title, *_table(rows)]
        if self.chosen is None:
            lines += ["nothing here can run it"]
        lines += self.advice
        lines += [f"failed: {failure}" for failure in self.failures]
        lines += [plugin.complaint for plugin in self.set_aside]
        return "\n".join(lines)

    def _row(self, number: int, candidate: Candidate) -> tuple[str, ...]:
        verdict: str = candidate.verdict
        verdict += f": {candidate.reason}" if candidate.reason else ""
        return (
            "->" if number == self.chosen else "",
            candidate.backend,
            candidate.device or "-",
            candidate.precision or "-",
            candidate.format or "-",
            verdict,
        )


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows with their columns aligned; the last column keeps its own length."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    return [
        "  ".join(
            [*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]
        ).rstrip()
        for row in rows
    ]
