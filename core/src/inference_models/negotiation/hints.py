"""What to type for a plugin that is not installed."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

from inference_models.card import ModelCard
from inference_models.registry import Registry


@functools.cache
def _hints() -> dict[str, dict[str, str]]:
    from importlib import resources

    text = resources.files("inference_models").joinpath("first_party.json").read_text()
    hints: dict[str, dict[str, str]] = json.loads(text)
    return hints


def install_hint(kind: str, name: str, registry: Registry) -> str | None:
    """What to type for a first-party plugin; None for names that are not ours.

    One that is installed, and was set aside, needs something else than pip.
    """
    command = _hints()[kind].get(name)
    if command is None:
        return None
    distribution = command.strip('"').partition("[")[0]
    if any(plugin.distribution == distribution for plugin in registry.set_aside):
        return f"{distribution} is installed, and was set aside"
    return f"pip install {command}"


def known_suffixes() -> tuple[str, ...]:
    """Suffixes of weights that first-party backends read, here or not."""
    return tuple(_hints()["suffix"])


def hint_for_file(path: Path, registry: Registry) -> str | None:
    """What to type for a file of weights that no installed backend is for."""
    form = _hints()["suffix"].get(path.suffix.lower(), "")
    read = any(form in cls.formats for cls in registry.backends.values())
    return None if read else install_hint("format", form, registry)


def hint_for_id(name: str, registry: Registry) -> str | None:
    """What to type for ids of this form, whose first-party provider is not here."""
    there = {plugin.distribution for plugin in registry.plugins}
    for pattern, distribution in _hints()["id"].items():
        if re.fullmatch(pattern, name) and distribution not in there:
            return f"pip install {distribution}"
    return None


def advice(card: ModelCard, registry: Registry) -> list[str]:
    """What to type for formats of the card that no installed backend opens.

    Artifacts that nothing can use are listed with their reasons.
    """
    read = {form for cls in registry.backends.values() for form in cls.formats}
    reasons = [(a.format, a.unsupported) for a in card.artifacts]
    lines = [f"{form} is left out: {reason}" for form, reason in reasons if reason]
    for form in dict.fromkeys(form for form, reason in reasons if reason is None):
        if form not in read:
            hint = install_hint("format", form, registry)
            missing = f"no installed plugin offers format {form!r}"
            lines.append(f"{missing}; {hint}" if hint else missing)
    return lines
