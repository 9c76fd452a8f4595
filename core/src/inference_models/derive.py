"""One artifact out of another: written by a backend, judged and kept by core."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from inference_models.batching import wrapped
from inference_models.card import (
    Artifact,
    Bundle,
    File,
    ModelCard,
    Plan,
    structure,
)
from inference_models.disk import hash_file, move_folder
from inference_models.errors import InferenceModelsError, InvalidWeights
from inference_models.images import Array, read_images
from inference_models.interfaces import Architecture, Backend, Operations
from inference_models.negotiate import Option
from inference_models.progress import shown
from inference_models.registry import installed
from inference_models.store import Store

log = logging.getLogger("inference_models")

Fetch = Callable[[Artifact], Bundle]
MakeArchitecture = Callable[[Bundle], Architecture[Any]]

TOLERANCES = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 5e-2, "int8": 0.1}
"""Largest `Architecture.difference` to the source, by precision."""

_PICTURES = 4

_MANIFEST = "artifact.json"


def key(store: Store, card: ModelCard, option: Option) -> str | None:
    """Names what an option derives; None while the source's hashes are not known."""
    digests = [store.digest(file) for file in option.artifact.files]
    if not digests or None in digests:
        return None
    facts = {
        "source": sorted(map(str, digests)),
        "graphs": dict(option.artifact.graphs),
        "architecture": [card.architecture, card.task, len(card.labels)],
        "base": option.artifact.base,
        "config": {**card.config, **option.artifact.config},
        "steps": [(_version(backend), form) for backend, form in option.steps],
        "plan": [option.plan.precision, option.plan.batch],
    }
    text = json.dumps(facts, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()


def _version(backend: Backend) -> str:
    """The deriver with its version, so that a new one derives anew."""
    package = _package(type(backend).__module__)
    plugins = [p for p in installed().plugins if _package(p.module) == package]
    versions = sorted({f"{plugin.distribution} {plugin.version}" for plugin in plugins})
    return f"{backend.name}: {', '.join(versions)}"


def _package(module: str) -> str:
    return module.partition(".")[0]


def is_built(store: Store, card: ModelCard, option: Option) -> bool:
    """Whether the cache holds what this option derives."""
    name = key(store, card, option)
    return name is not None and _is_whole(_folder(store, name))


def derived(
    store: Store,
    card: ModelCard,
    option: Option,
    fetch: Fetch,
    make: MakeArchitecture,
) -> Bundle:
    """The bundle of a derived artifact: from the cache, or built and judged now."""
    if option.built and (kept := _kept(store, card, option)) is not None:
        return kept
    source = fetch(option.artifact)
    name = key(store, card, option)  # whatever was fetched has a known hash
    if name is None:
        raise InvalidWeights(f"{source.card.id!r} has no files to derive from")
    folder = _folder(store, name)
    if not _is_whole(folder):
        with store.locked(name):
            if not _is_whole(folder):
                _build(store, card, option, source, make, folder)
    artifact, _ = _manifest(folder)
    return attrs.evolve(source, artifact=artifact, folder=folder)


def _folder(store: Store, name: str) -> Path:
    return store.root / "derived" / name


def _is_whole(folder: Path) -> bool:
    """The manifest is written last, and the folder moved to its place after that."""
    return (folder / _MANIFEST).is_file()


def _build(
    store: Store,
    card: ModelCard,
    option: Option,
    source: Bundle,
    make: MakeArchitecture,
    folder: Path,
) -> None:
    reader = option.steps[0][0]
    with store.unfinished() as partial, shown(f"deriving {card.id}") as report:
        bundle = source
        for number, (deriver, form) in enumerate(option.steps):
            step = partial / str(number)
            step.mkdir(parents=True)
            log.info("deriving %s of %r with %s", form, source.card.id, deriver.name)
            artifact = deriver.derive(bundle, make(bundle), option.plan, step, report)
            bundle = attrs.evolve(bundle, artifact=artifact, folder=step)
        bundle = _with_files(bundle, source, make(source).reads)
        report("comparing it with its source", 1.0)
        _judge(source, reader, bundle, option, make(source))
        _write_manifest(bundle, card)
        move_folder(bundle.folder, folder)


def _with_files(bundle: Bundle, source: Bundle, names: Iterable[str]) -> Bundle:
    """The bundle with those files of another that are there."""
    files = list(bundle.artifact.files)
    for name in names:
        if source.file(name).is_file():
            path = bundle.folder / name
            shutil.copyfile(source.file(name), path)
            files.append(File(name, size=path.stat().st_size, sha256=hash_file(path)))
    return attrs.evolve(bundle, artifact=attrs.evolve(bundle.artifact, files=files))


def _judge(
    source: Bundle,
    reader: Backend,
    result: Bundle,
    option: Option,
    architecture: Architecture[Any],
) -> None:
    """Raise `InvalidWeights` unless both give the same outputs on a real input."""
    inputs, _ = architecture.preprocess(
        read_images([picture(480, 640, seed) for seed in range(_PICTURES)]),
        architecture.trial,
        Operations(),
        architecture.preprocessing,
    )
    plan = Plan("cpu", source.artifact.precision)
    expected = _outputs(reader, source, architecture, plan, inputs)
    form = result.artifact.format
    try:
        found = _outputs(option.backend, result, architecture, option.plan, inputs)
    except InferenceModelsError as error:
        raise InvalidWeights(
            f"the derived {form} does not run: {error}; it was discarded"
        ) from error
    for name, array in expected.items():
        if name not in found or found[name].shape != array.shape:
            raise InvalidWeights(
                f"the derived {form} has no output {name!r} of shape {array.shape}; it "
                "was discarded"
            )
    difference = architecture.difference(expected, found)
    if not difference <= TOLERANCES[option.plan.precision]:
        raise InvalidWeights(
            f"the derived {form} differs from its source by {difference:.3g} of its "
            f"values, in {option.plan.precision}; it was discarded"
        )


def _outputs(
    backend: Backend,
    bundle: Bundle,
    architecture: Architecture[Any],
    plan: Plan,
    inputs: dict[str, Array],
) -> dict[str, np.ndarray]:
    opened = backend.open(bundle, architecture, plan)
    host = backend.operations(plan.device).host
    sessions = wrapped(opened, bundle.artifact.rename, bundle.artifact.batch, host)
    try:
        outputs = architecture.forward(
            sessions, dict(inputs), architecture.trial, Operations()
        )
        return {name: host(array) for name, array in outputs.items()}
    finally:
        for session in sessions.values():
            session.close()


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Ramps, edges and grain in uint8 (H, W, 3); the same ones every time."""
    rows, columns = np.mgrid[0:height, 0:width]
    checks = (rows // 3 + columns // 5) % 2
    planes = [columns * 200 / width, rows * 200 / height, checks * 200]
    grain = np.random.default_rng(seed).integers(0, 56, (height, width, 3))
    return np.asarray(np.stack(planes, axis=-1) + grain).astype(np.uint8)


def _write_manifest(bundle: Bundle, asked: ModelCard) -> None:
    """What was derived, and the complete card that belongs to the one asked for."""
    data = {
        "artifact": attrs.asdict(bundle.artifact),
        "asked": asked.to_json(),
        "card": bundle.card.to_json(),
    }
    (bundle.folder / _MANIFEST).write_text(json.dumps(data), "utf-8")


def _kept(store: Store, asked: ModelCard, option: Option) -> Bundle | None:
    """What was derived for this very card: its source is not needed again."""
    name = key(store, asked, option)
    if name is None:
        return None
    folder = _folder(store, name)
    artifact, data = _manifest(folder)
    if data.get("asked") != json.loads(json.dumps(asked.to_json())):
        return None
    return Bundle(ModelCard.from_json(data.get("card")), artifact, folder)


def _manifest(folder: Path) -> tuple[Artifact, dict[str, Any]]:
    """What lies in a folder, whose files are there, and all that its manifest says."""
    try:
        data: dict[str, Any] = json.loads((folder / _MANIFEST).read_text("utf-8"))
        artifact = structure(Artifact, data["artifact"])
    except (OSError, ValueError, KeyError, TypeError, InferenceModelsError) as error:
        raise InvalidWeights(
            f"what was derived in {str(folder)!r} cannot be read: {error}; remove it"
        ) from error
    for file in artifact.files:
        _check_present(folder, file)
    return artifact, data


def _check_present(folder: Path, file: File) -> None:
    path = folder / file.name
    if not path.is_file() or file.size not in (None, path.stat().st_size):
        raise InvalidWeights(f"{str(path)!r} is damaged; remove its folder")
