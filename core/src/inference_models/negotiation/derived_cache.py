"""What was derived and is kept: what of, for whom, and whether it is of use here.

It lies in `derived/<name>/`, and its manifest says what it is: the key of what it was
made of, and what it `needs` of a machine. One model can so have several, for several
machines that share a cache, or for several sizes of batches.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs

from inference_models.card import Artifact, Batch, Bundle, ModelCard, structure
from inference_models.disk import (
    hash_file,
    last_written,
    note_use,
    write_atomically,
)
from inference_models.download.store import Store
from inference_models.errors import InferenceModelsError, told
from inference_models.interfaces import Architecture
from inference_models.negotiation.judging import tolerance
from inference_models.negotiation.options import Cached, Option
from inference_models.negotiation.routes import chain, refusal, usable
from inference_models.registry import Registry, installed
from inference_models.trust import kind_of

log = logging.getLogger("inference_models")

Fetch = Callable[[Artifact], Bundle]
MakeArchitecture = type[Architecture[Any]]

_MANIFEST = "artifact.json"


@attrs.frozen
class Kept:
    """What was derived, as its manifest describes it."""

    folder: Path
    key: str
    artifact: Artifact
    judged: bool
    """False for what was built for another machine and has not run on it yet."""
    asked: Any
    card: Any
    made_of: str | None = None
    """Names its source, as `name_of_source` does."""
    fault: str = ""
    """Why it was discarded: it differs from its source, and its files are gone."""

    def bundle(self) -> Bundle:
        """As something to open."""
        return Bundle(ModelCard.from_json(self.card), self.artifact, self.folder)

    def instead_of(self, source: Bundle) -> Bundle:
        """As something to open, with what is known of its source."""
        return attrs.evolve(source, artifact=self.artifact, folder=self.folder)

    @property
    def used(self) -> float:
        """When it was used last; 0 if it was removed since it was read."""
        return last_written(self.folder / _MANIFEST)

    @property
    def is_there(self) -> bool:
        """Whether its files are, in their sizes."""
        paths = {file: self.folder / file.name for file in self.artifact.files}
        return all(
            path.is_file() and file.size in (None, path.stat().st_size)
            for file, path in paths.items()
        )

    @property
    def is_intact(self) -> bool:
        """Whether files of native code are those that were written."""
        return self.is_there and all(
            file.sha256 in (None, hash_file(self.folder / file.name))
            for file in self.artifact.files
            if kind_of(file.name, self.artifact.format) == "engine"
        )

    def write(self, folder: Path) -> None:
        """Write its manifest, with the complete card beside the one asked for."""
        data = attrs.asdict(self, filter=attrs.filters.exclude("folder"))
        write_atomically(folder / _MANIFEST, json.dumps(data).encode())

    def note(self) -> None:
        """Keep what judging found; a cache that is only read is judged at each load."""
        try:
            self.write(self.folder)
        except OSError as error:
            log.debug("what was judged is not noted: %s", error)


@attrs.frozen
class Left:
    """What was derived by backends that are not here now, and its source."""

    source: Artifact
    _kept: Kept

    @property
    def artifact(self) -> Artifact:
        """What a backend that is here may open."""
        return self._kept.artifact

    def bundle(self, card: ModelCard, fetch: Fetch) -> Bundle:
        """As something to open; its source is read where the card was another."""
        note_use(self._kept.folder / _MANIFEST)
        if self._kept.asked == plain(card):
            return self._kept.bundle()
        return self._kept.instead_of(fetch(self.source))


def key(
    store: Store, card: ModelCard, make: MakeArchitecture, option: Option
) -> str | None:
    """A hash that names what an option derives; None while a source's hash is unknown.

    It changes with the source, the derivers and their code, the backend that opens
    the result, the precision, and how far the result may differ from its source.
    """
    made_of = name_of_source(store, card, make, option.artifact)
    precision = option.plan.precision
    steps = [(_version(b.name, type(b)), form) for b, form in option.steps]
    opener = option.backend.name  # each is judged for itself
    facts = [made_of, steps, opener, precision, tolerance(make, precision)]
    return None if made_of is None else _digest(facts)


def name_of_source(
    store: Store, card: ModelCard, make: MakeArchitecture, artifact: Artifact
) -> str | None:
    """A hash of a source's files, and of all else that a derivation reads of it."""
    digests = [store.digest(file) for file in artifact.files]
    if not digests or None in digests:
        return None
    facts = {
        "source": sorted(map(str, digests)),
        "graphs": dict(artifact.graphs),
        "architecture": [
            _version(card.architecture, make),
            card.task,
            len(card.labels),
        ],
        "base": artifact.base,
        "config": {**card.config, **artifact.config},
    }
    return _digest(facts)


def _digest(facts: Any) -> str:
    text = json.dumps(facts, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()


def _version(name: str, cls: type[Any]) -> str:
    """A plugin's class with its version and code, so that a new one derives anew."""
    package = _package(cls.__module__)
    plugins = [p for p in installed().plugins if _package(p.module) == package]
    versions = sorted({f"{plugin.distribution} {plugin.version}" for plugin in plugins})
    return f"{name}: {', '.join(versions)} {_code(package)}"


@functools.cache
def _code(package: str) -> str:
    """A hash of a package's sources, which its author edits under one version."""
    module = sys.modules.get(package)
    folders = [Path(folder) for folder in getattr(module, "__path__", ())]
    paths = [path for folder in folders for path in folder.rglob("*.py")]
    if not folders and (file := getattr(module, "__file__", None)):
        paths = [Path(file)]
    there = filter(Path.is_file, paths)  # an editor's lock may be a link to nothing
    texts = [path.read_bytes().replace(b"\r\n", b"\n") for path in there]
    return _digest(sorted(hashlib.sha256(text).hexdigest() for text in texts))[:16]


def _package(module: str) -> str:
    return module.partition(".")[0]


def cached(
    store: Store, card: ModelCard, make: MakeArchitecture, option: Option
) -> Cached:
    """Whether the cache holds what an option derives, and why what it has is no use.

    The key takes the hashes of sources, so it is made only if anything was derived.
    """
    name = key(store, card, make, option) if _manifests(store) else None
    found = [] if name is None else list(_all_kept(store, name))
    reasons = {kept.folder: _misfit(kept, card, option) for kept in found}
    faults = [kept.fault for kept in found if reasons[kept.folder] is None]
    if "" in faults:
        return Cached(True)
    if faults:
        return Cached(fault=faults[0])
    return Cached(misfit="; ".join(dict.fromkeys(filter(None, reasons.values()))))


def left(
    store: Store, card: ModelCard, make: MakeArchitecture, registry: Registry
) -> list[Left]:
    """What was derived of a card by backends that are not here now.

    It runs as what the card has ready does, since it was judged where it was made.
    """
    backends = [cls() for cls in registry.backends.values()]
    return [
        Left(source, kept)
        for kept in _manifested(store, json.dumps(card.architecture))
        for source in usable(card)
        if kept.judged and not kept.fault
        if not chain(source.format, [kept.artifact.format], backends)
        if kept.made_of == name_of_source(store, card, make, source) and kept.is_intact
    ]


def _manifests(store: Store) -> list[Path]:
    try:
        return sorted((store.root / "derived").glob(f"*/{_MANIFEST}"))
    except PermissionError:  # whoever needs the cache of another user is told there
        return []


def _all_kept(store: Store, name: str) -> Iterator[Kept]:
    """All that was derived under one key."""
    return (kept for kept in _manifested(store, name) if kept.key == name)


def _manifested(store: Store, words: str) -> Iterator[Kept]:
    """All whose manifests hold these words; manifests that are damaged are left out."""
    for manifest in _manifests(store):
        with contextlib.suppress(
            OSError,
            ValueError,
            KeyError,
            TypeError,
            RecursionError,
            InferenceModelsError,
        ):
            text = manifest.read_text("utf-8")
            kept = _read(manifest.parent, json.loads(text)) if words in text else None
            if kept and kept.folder == folder_of(store, kept.key, kept.artifact):
                yield kept


def _read(folder: Path, data: Any) -> Kept:
    return Kept(
        folder=folder,
        key=data["key"],
        artifact=structure(Artifact, data["artifact"]),
        judged=data["judged"] is True,
        asked=data["asked"],
        card=data["card"],
        made_of=data.get("made_of"),
        fault=str(data.get("fault", "")),
    )


def _misfit(
    kept: Kept, card: ModelCard, option: Option, exact: bool = False
) -> str | None:
    """Why something in the cache is not what an option wants; None if it is."""
    artifact, plan = kept.artifact, option.plan
    if not kept.is_there:
        return "what was built is damaged"
    if not _covers(artifact.batch, plan.batch, exact):
        return f"what was built is for batches of {artifact.batch}"
    try:
        reason = refusal(option.backend, card, artifact, plan)
    except Exception as error:  # noqa: BLE001 - a plugin's fault must not stop the others
        reason = f"refuse() failed: {told(error)}"
    return reason and f"what was built does not fit: {reason}"


def _covers(built: Batch | None, wanted: Batch | None, exact: bool) -> bool:
    if built is None or wanted is None:
        return True
    if exact:
        return built == wanted
    return built[0] <= wanted[0] and wanted[2] <= built[2]


def fitting(
    store: Store,
    name: str | None,
    card: ModelCard,
    option: Option,
    exact: bool = False,
) -> Kept | None:
    """What in the cache fits, its native code intact; that used last, if several do.

    What was built for the very batches that are wanted comes first; with `exact`,
    nothing else does.
    """
    wanted = option.plan.batch
    found = [] if name is None else list(_all_kept(store, name))
    found.sort(key=lambda kept: (kept.artifact.batch != wanted, -kept.used))
    for kept in found:
        fits = not kept.fault and _misfit(kept, card, option, exact) is None
        if fits and kept.is_intact:
            note_use(kept.folder / _MANIFEST)
            return kept
    return None


def folder_of(store: Store, name: str, artifact: Artifact) -> Path:
    """Where it is kept: each machine's and each range of batches has its own."""
    own = _digest([name, artifact.needs, artifact.batch])
    return store.root / "derived" / own


def plain(card: ModelCard) -> Any:
    """A card as its JSON comes back."""
    return json.loads(json.dumps(card.to_json()))
