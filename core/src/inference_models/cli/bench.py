"""`inference-models bench ID`: what a call costs here, and whether it is right."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Annotated, Any, Optional

import numpy as np
import typer

from inference_models.auto import AutoModel
from inference_models.cli.app import (
    ApiKey,
    Backend,
    Device,
    ModelId,
    ModelType,
    Precision,
    Revision,
)
from inference_models.errors import InvalidOption, NoBackend
from inference_models.images import read_images
from inference_models.model import Model
from inference_models.negotiation.judging import PHOTOS, photo, tolerance

_WARMUP = 3

Pictures = Annotated[
    Optional[list[str]],  # noqa: UP045 - read by typer on Python 3.10
    typer.Option("--image", help="A picture; may be repeated. Else a photograph."),
]
Batch = Annotated[int, typer.Option(min=1, max=10_000, help="Images in a call.")]
Rounds = Annotated[int, typer.Option(min=1, help="Calls that are measured.")]
Verify = Annotated[
    bool,
    typer.Option("--verify", help="Compare with the CPU in float32."),
]


def command(
    model_id: ModelId,
    backend: Backend = None,
    device: Device = None,
    quantization: Precision = None,
    model_type: ModelType = None,
    revision: Revision = None,
    api_key: ApiKey = None,
    image: Pictures = None,
    batch: Batch = 1,
    rounds: Rounds = 20,
    verify: Verify = False,
) -> None:
    """Measure a model's calls; with --verify, exit with 1 if it is wrong."""
    asked: dict[str, Any] = {
        "model_type": model_type,
        "revision": revision,
        "api_key": api_key,
    }
    began = time.perf_counter()
    model = AutoModel.from_pretrained(
        model_id, backend=backend, device=device, quantization=quantization, **asked
    )
    loading = time.perf_counter() - began
    _check_task(model)
    typer.echo(f"{_where(model)}; loaded in {loading:.2f} s")
    pictures = _pictures(image, batch)
    typer.echo(_measured(model, pictures, rounds))
    if verify and not _is_right(model, asked, pictures):
        raise typer.Exit(1)


def _check_task(model: Model[Any]) -> None:
    if model.task == "vision-language":
        raise InvalidOption(
            f"{model.card.id!r} answers prompts, and bench measures models that take "
            "images alone"
        )


def _where(model: Model[Any]) -> str:
    place = f"{model.backend}, {model.device}, {model.precision}"
    return f"{model.card.id} on {place}"


def _pictures(given: list[str] | None, batch: int) -> list[Any]:
    own: list[Any] = given or [_photograph()]
    return [own[number % len(own)] for number in range(batch)]


def _photograph() -> np.ndarray:
    """The library's first photograph, as OpenCV would read it."""
    (image,) = read_images(photo(PHOTOS[0]))
    return np.ascontiguousarray(image.host()[..., ::-1])


def _measured(model: Model[Any], pictures: list[Any], rounds: int) -> str:
    """Medians; the network's time ends when its outputs are in host memory."""
    size = model.batch_size
    parts = [pictures[n : n + size] for n in range(0, len(pictures), size)]
    inputs = [model.pre_process(part)[0] for part in parts]
    call = _median(lambda: model(pictures), rounds)
    network = _median(lambda: [_outputs(model, each) for each in inputs], rounds)
    return (
        f"{call * 1e3:.2f} ms a call of {len(pictures)}, "
        f"{len(pictures) / call:.1f} images a second; network {network * 1e3:.2f} ms"
    )


def _median(call: Callable[[], Any], rounds: int) -> float:
    for _ in range(_WARMUP):
        call()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _outputs(model: Model[Any], inputs: dict[str, Any]) -> dict[str, np.ndarray]:
    host = model._loaded.operations.host
    return {name: host(array) for name, array in model.forward(inputs).items()}


def _is_right(model: Model[Any], asked: dict[str, Any], pictures: list[Any]) -> bool:
    """Whether outputs agree with a reference's, on inputs that the reference made."""
    with _reference(model, asked) as reference:
        inputs, _ = reference.pre_process(pictures)
        inputs = {n: reference._loaded.operations.host(a) for n, a in inputs.items()}
        expected, place = _outputs(reference, inputs), _where(reference)
    found = _outputs(model, _as_taken(model, inputs))
    architecture = model._loaded.architecture
    difference = architecture.difference(expected, found)
    allowed = tolerance(architecture, model.precision)
    right = difference <= allowed
    typer.echo(
        f"{'agrees with' if right else 'DIFFERS from'} {place}: {difference:.2g} of "
        f"the values, and {allowed:g} is allowed"
    )
    return right


def _as_taken(model: Model[Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """Inputs in the type that a graph in half precision may ask for."""
    if model._loaded.spec.dtype != "float16":
        return inputs
    _, name = model._loaded.architecture.image_input
    return {**inputs, name: inputs[name].astype(np.float16)}


def _reference(model: Model[Any], asked: dict[str, Any]) -> Model[Any]:
    """The same model on the CPU in full precision, by the best of the others."""
    model_id = model._loaded.recipe.model_id
    asked = {**asked, "device": "cpu", "quantization": "fp32"}
    explained = AutoModel.explain(model_id, **asked)
    own = (model.backend, model.device, model.precision)
    for candidate in explained.candidates:
        place = (candidate.backend, candidate.device, candidate.precision)
        if candidate.verdict != "refused" and place != own:
            found: Model[Any] = AutoModel.from_pretrained(
                model_id, backend=candidate.backend, **asked
            )
            return found
    raise NoBackend(
        f"nothing else here runs {model_id!r} on the CPU, to compare it with; "
        f"inference-models explain {model_id} --device cpu says why"
    )
