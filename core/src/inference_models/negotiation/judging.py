"""Whether a derived artifact gives what its source gives, on real pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from inference_models.batching import Sessions, fitted, wrapped
from inference_models.card import Bundle, Plan
from inference_models.errors import InferenceModelsError, InvalidWeights, Unavailable
from inference_models.images import Image, read_images
from inference_models.interfaces import Architecture, Backend, Operations
from inference_models.lending import devices_of, operations_of
from inference_models.negotiation.hints import install_hint
from inference_models.negotiation.options import Option
from inference_models.registry import installed

PHOTOS = ("astronaut.jpg", "coffee.jpg")


class Differs(InvalidWeights):
    """What was derived runs, and gives something else than its source."""


def judge(
    source: Bundle,
    result: Bundle,
    option: Option,
    architecture: Architecture[Any],
    pictures: Sequence[Image],
) -> None:
    """Raise `InvalidWeights` unless both give the same outputs on the pictures.

    Without pictures they are compared on the library's own photographs.
    """
    images = pictures or read_images([photo(name) for name in PHOTOS])
    plan = Plan("cpu", source.artifact.precision)
    reader = _reader(option, source.artifact.format)
    expected = _outputs(reader, source, architecture, plan, images)
    form = result.artifact.format
    try:
        found = _outputs(option.backend, result, architecture, option.plan, images)
    except InferenceModelsError as error:
        raise InvalidWeights(
            f"the derived {form} does not run: {error}; it was discarded"
        ) from error
    _check_shapes(form, expected, found)
    precision = option.plan.precision
    difference = architecture.difference(expected, found)
    if not difference <= tolerance(architecture, precision):
        raise Differs(
            f"the derived {form} differs from its source by {difference:.3g} of its "
            f"values, in {precision}; it was discarded"
        )


def tolerance(
    architecture: Architecture[Any] | type[Architecture[Any]], precision: str
) -> float:
    """The largest difference from its source that an artifact may have.

    A precision that nobody names may differ no more than fp32.
    """
    known = {**Architecture.tolerances, **architecture.tolerances}
    return known.get(precision, known["fp32"])


def photo(name: str) -> bytes:
    """One of the library's own photographs, as a file's content."""
    from importlib import resources

    return (resources.files("inference_models") / "photos" / name).read_bytes()


def _check_all_ran(sessions: Sessions, architecture: Architecture[Any]) -> None:
    """Raise `InvalidWeights` for a graph that nothing would be known of."""
    for graph, session in sessions.items():
        if not session.has_run:
            raise InvalidWeights(
                f"graph {graph!r} cannot be compared with its source: it was not run "
                f"with the options in `trial` of architecture {architecture.name!r}, "
                "which have to run every graph"
            )


def _check_shapes(
    form: str, expected: dict[str, np.ndarray], found: dict[str, np.ndarray]
) -> None:
    for name, array in expected.items():
        if name not in found or found[name].shape != array.shape:
            raise InvalidWeights(
                f"the derived {form} has no output {name!r} of shape {array.shape}; it "
                "was discarded"
            )


def _reader(option: Option, form: str) -> Backend:
    """A backend that runs the source on the CPU: who derived from it, or the best."""
    deriver = option.steps[0][0]
    if form in deriver.formats:
        return deriver
    for cls in sorted(installed().backends.values(), key=lambda cls: -cls.rank):
        if form in cls.formats and "cpu" in devices_of(reader := cls()):
            return reader
    hint = install_hint("format", form, installed())
    raise Unavailable(
        f"what is built is compared with its source, and nothing here runs {form} on "
        f"the CPU; {hint or 'install a backend for it'}"
    )


def _outputs(
    backend: Backend,
    bundle: Bundle,
    architecture: Architecture[Any],
    plan: Plan,
    images: Sequence[Image],
) -> dict[str, np.ndarray]:
    host = operations_of(backend, plan.device, installed()).host
    opened = backend.open(bundle, architecture, plan)
    try:
        sessions = wrapped(opened, bundle.artifact.rename, bundle.artifact.batch, host)
        spec, options = fitted(architecture, sessions), architecture.trial
        inputs, _ = architecture.preprocess(images, options, Operations(), spec)
        outputs = architecture.forward(sessions, inputs, options, Operations())
        _check_all_ran(sessions, architecture)
        return {name: host(array) for name, array in outputs.items()}
    finally:
        for session in opened.values():
            session.close()
