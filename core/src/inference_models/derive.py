"""One artifact out of another: written by a backend, judged and kept by core.

What is kept lies in `derived/<name>/`, and its manifest says what it is: the key of
what it was made of, and what it `needs` of a machine. One model can so have several,
for several machines that share a cache, or for several sizes of batches.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from inference_models.card import (
    Artifact,
    Batch,
    Bundle,
    File,
    ModelCard,
    structure,
)
from inference_models.disk import (
    described,
    hash_file,
    is_full,
    move_folder,
    note_use,
    remove,
    write_atomically,
)
from inference_models.errors import InferenceModelsError, InvalidWeights, Unavailable
from inference_models.images import Image
from inference_models.interfaces import Architecture
from inference_models.judging import Differs, judge, tolerance
from inference_models.options import Cached, Option
from inference_models.progress import Report, shown
from inference_models.registry import Registry, installed
from inference_models.routes import chain, usable
from inference_models.store import Store, explained
from inference_models.trust import kind_of

log = logging.getLogger("inference_models")

Fetch = Callable[[Artifact], Bundle]
MakeArchitecture = type[Architecture[Any]]

_MANIFEST = "artifact.json"


@attrs.frozen
class _Kept:
    """What was derived, as its manifest describes it."""

    folder: Path
    key: str
    artifact: Artifact
    judged: bool
    """False for what was built for another machine and has not run on it yet."""
    asked: Any
    card: Any
    made_of: str | None = None
    """Names its source, as `_made_of` does."""
    fault: str = ""
    """Why it was discarded: it differs from its source, and its files are gone."""

    def bundle(self) -> Bundle:
        """As something to open."""
        return Bundle(ModelCard.from_json(self.card), self.artifact, self.folder)

    def instead_of(self, source: Bundle) -> Bundle:
        """As something to open, with what is known of its source."""
        return attrs.evolve(source, artifact=self.artifact, folder=self.folder)

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


@attrs.frozen
class Left:
    """What was derived by backends that are not here now, and its source."""

    source: Artifact
    _kept: _Kept

    @property
    def artifact(self) -> Artifact:
        """What a backend that is here may open."""
        return self._kept.artifact

    def bundle(self, card: ModelCard, fetch: Fetch) -> Bundle:
        """As something to open; its source is read where the card was another."""
        note_use(self._kept.folder / _MANIFEST)
        if self._kept.asked == _plain(card):
            return self._kept.bundle()
        return self._kept.instead_of(fetch(self.source))


def key(
    store: Store, card: ModelCard, make: MakeArchitecture, option: Option
) -> str | None:
    """Names what an option derives, from what, for whom, and how far both may differ.

    None while a source's hash is not known.
    """
    made_of = _made_of(store, card, make, option.artifact)
    precision = option.plan.precision
    steps = [(_version(b.name, type(b)), form) for b, form in option.steps]
    opener = option.backend.name  # each is judged for itself
    facts = [made_of, steps, opener, precision, tolerance(make, precision)]
    return None if made_of is None else _digest(facts)


def _made_of(
    store: Store, card: ModelCard, make: MakeArchitecture, artifact: Artifact
) -> str | None:
    """Names a source, and all that its derivation reads of it."""
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
    """A plugin's class with its version, so that a new one derives anew."""
    package = _package(cls.__module__)
    plugins = [p for p in installed().plugins if _package(p.module) == package]
    versions = sorted({f"{plugin.distribution} {plugin.version}" for plugin in plugins})
    return f"{name}: {', '.join(versions)}"


def _package(module: str) -> str:
    return module.partition(".")[0]


def cached(
    store: Store, card: ModelCard, make: MakeArchitecture, option: Option
) -> Cached:
    """Whether the cache holds what an option derives, and why what it has is no use.

    Sources on this machine are hashed for it, which is left where nothing was derived.
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
        if kept.made_of == _made_of(store, card, make, source) and kept.is_intact
    ]


def derived(
    store: Store,
    card: ModelCard,
    option: Option,
    fetch: Fetch,
    make: MakeArchitecture,
    pictures: Sequence[Image] = (),
) -> Bundle:
    """The bundle of a derived artifact: from the cache, or built and judged now.

    It is judged on `pictures`, by default on core's own. What is built for another
    machine is judged there, when it is first opened.
    """
    here = _is_here(option)
    before = key(store, card, make, option)
    kept = _fitting(store, before, card, option)
    if kept is not None and kept.asked == _plain(card) and (kept.judged or not here):
        return kept.bundle()
    source = fetch(option.artifact)
    name = key(store, card, make, option)  # whatever was fetched has a known hash
    if name is None:
        raise InvalidWeights(f"{source.card.id!r} has no files to derive from")
    making = _Making(source, card, option, make, pictures, here)
    if kept is None or name != before:
        kept = _fitting(store, name, card, option)
    if kept is None or (here and not kept.judged):
        with store.locked(name):
            kept = _fitting(store, name, card, option) or making.build(store, name)
            if here and not kept.judged:
                making.judge_now(kept)
    return kept.instead_of(source)


def _is_here(option: Option) -> bool:
    """Whether the device of a plan is one of this machine's."""
    try:
        return option.plan.device in option.backend.devices()
    except Unavailable:  # it can still build for other machines
        return False


def _manifests(store: Store) -> list[Path]:
    try:
        return sorted((store.root / "derived").glob(f"*/{_MANIFEST}"))
    except PermissionError:  # whoever needs the cache of another user is told there
        return []


def _all_kept(store: Store, name: str) -> Iterator[_Kept]:
    """All that was derived under one key."""
    return (kept for kept in _manifested(store, name) if kept.key == name)


def _manifested(store: Store, words: str) -> Iterator[_Kept]:
    """All whose manifests hold these words; what cannot be read is built anew."""
    for manifest in _manifests(store):
        with contextlib.suppress(
            OSError, ValueError, KeyError, TypeError, InferenceModelsError
        ):
            text = manifest.read_text("utf-8")
            kept = _read(manifest.parent, json.loads(text)) if words in text else None
            if kept and kept.folder == _folder(store, kept.key, kept.artifact):
                yield kept


def _read(folder: Path, data: Any) -> _Kept:
    return _Kept(
        folder,
        data["key"],
        structure(Artifact, data["artifact"]),
        data["judged"] is True,
        data["asked"],
        data["card"],
        data.get("made_of"),
        str(data.get("fault", "")),
    )


def _misfit(kept: _Kept, card: ModelCard, option: Option) -> str | None:
    """Why something in the cache is not what an option wants; None if it is."""
    artifact, plan = kept.artifact, option.plan
    if not kept.is_there:
        return "what was built is damaged"
    if not _covers(artifact.batch, plan.batch):
        return f"what was built is for batches of {artifact.batch}"
    try:
        reason = option.backend.refuse(card, artifact, plan)
    except Exception as error:  # noqa: BLE001 - a plugin's fault must not stop the others
        reason = f"refuse() failed: {type(error).__name__}: {error}"
    return reason and f"what was built does not fit: {reason}"


def _covers(built: Batch | None, wanted: Batch | None) -> bool:
    if built is None or wanted is None:
        return True
    return built[0] <= wanted[0] and wanted[2] <= built[2]


def _fitting(
    store: Store, name: str | None, card: ModelCard, option: Option
) -> _Kept | None:
    """The first in the cache that fits, and whose native code is intact."""
    for kept in () if name is None else _all_kept(store, name):
        fits = not kept.fault and _misfit(kept, card, option) is None
        if fits and kept.is_intact:
            note_use(kept.folder / _MANIFEST)
            return kept
    return None


@contextlib.contextmanager
def _begun(store: Store) -> Iterator[Path]:
    """Where to write; a cache that cannot be used is told with what to do about it."""
    with contextlib.ExitStack() as stack:
        with explained(store.root):
            partial = stack.enter_context(store.unfinished())
            partial.mkdir()
        yield partial


@contextlib.contextmanager
def _room(root: Path) -> Iterator[None]:
    """Say what to do where the cache has no room; other errors are the deriver's."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        with explained(root):
            raise


@attrs.frozen
class _Making:
    """One derivation: what is read, what is wanted, and where it is to run."""

    source: Bundle
    asked: ModelCard
    option: Option
    make: MakeArchitecture
    pictures: Sequence[Image]
    here: bool

    def build(self, store: Store, name: str) -> _Kept:
        """Write, judge and keep it; nothing is kept of what fails."""
        subject = f"deriving {self.source.card.id}"
        with (
            _room(store.root),
            _begun(store) as partial,
            shown(subject) as report,
        ):
            bundle = self._written(partial, report)
            if reason := self._refusal(bundle):
                raise InvalidWeights(f"what was derived cannot run: {reason}")
            kept = _Kept(
                _folder(store, name, bundle.artifact),
                name,
                bundle.artifact,
                self.here,
                _plain(self.asked),
                _plain(bundle.card),
                _made_of(store, self.asked, self.make, self.option.artifact),
            )
            if self.here:
                report("comparing it with its source", 1.0)
                self._judge_or_note(bundle, kept)
            _write_manifest(bundle.folder, kept)
            move_folder(bundle.folder, kept.folder)
        return kept

    def judge_now(self, kept: _Kept) -> None:
        """Judge what was built elsewhere, and remove it if it is wrong."""
        bundle = kept.instead_of(self.source)
        try:
            self._judge_or_note(bundle, kept)
        except InvalidWeights as error:
            if not isinstance(error, Differs):
                remove(kept.folder)
            raise
        _note(attrs.evolve(kept, judged=True))

    def _judge_or_note(self, bundle: Bundle, kept: _Kept) -> None:
        """Judge it; that it differs is noted in its place, so that it is built once."""
        try:
            self._judge(bundle)
        except Differs as error:
            remove(kept.folder)
            empty = attrs.evolve(kept.artifact, files=())
            noted = attrs.evolve(kept, artifact=empty, judged=True, fault=str(error))
            _note(noted)
            raise

    def _written(self, partial: Path, report: Report) -> Bundle:
        bundle, make = self.source, self.make
        for number, (deriver, form) in enumerate(self.option.steps):
            step = partial / str(number)
            step.mkdir()
            log.info("deriving %s of %r with %s", form, bundle.card.id, deriver.name)
            plan = self.option.plan
            written = deriver.derive(bundle, make(bundle), plan, step, report)
            files = [_described(file, step) for file in written.files]
            artifact = attrs.evolve(written, files=files)
            bundle = attrs.evolve(bundle, artifact=artifact, folder=step)
        return _with_files(bundle, self.source, make(self.source).reads)

    def _refusal(self, bundle: Bundle) -> str | None:
        """Why the backend would not open here what was written for here."""
        if not self.here:
            return None
        option = self.option
        return option.backend.refuse(self.asked, bundle.artifact, option.plan)

    def _judge(self, result: Bundle) -> None:
        architecture = self.make(self.source)
        judge(self.source, result, self.option, architecture, self.pictures)


def _described(file: File, folder: Path) -> File:
    """A file that was written, with the size and the hash that its deriver left out."""
    path = folder / file.name
    if not path.is_file():
        raise InvalidWeights(
            f"what was derived names {file.name!r}, which is not there"
        )
    if file.size is None or file.sha256 is None:
        return described(path, file.name)
    return file


def _with_files(bundle: Bundle, source: Bundle, names: Iterable[str]) -> Bundle:
    """The bundle with those files of another that are there."""
    files = list(bundle.artifact.files)
    for name in names:
        if source.file(name).is_file():
            path = bundle.folder / name
            shutil.copyfile(source.file(name), path)
            files.append(described(path, name))
    return attrs.evolve(bundle, artifact=attrs.evolve(bundle.artifact, files=files))


def _folder(store: Store, name: str, artifact: Artifact) -> Path:
    """Where it is kept: each machine's and each range of batches has its own."""
    own = _digest([name, artifact.needs, artifact.batch])
    return store.root / "derived" / own


def _write_manifest(folder: Path, kept: _Kept) -> None:
    """What was derived, and the complete card that belongs to the one asked for."""
    data = {
        "key": kept.key,
        "artifact": attrs.asdict(kept.artifact),
        "judged": kept.judged,
        "asked": kept.asked,
        "card": kept.card,
        "made_of": kept.made_of,
        "fault": kept.fault,
    }
    write_atomically(folder / _MANIFEST, json.dumps(data).encode())


def _note(kept: _Kept) -> None:
    """Keep what judging found; a cache that is only read is judged at each load."""
    try:
        _write_manifest(kept.folder, kept)
    except OSError as error:
        log.debug("what was judged is not noted: %s", error)


def _plain(card: ModelCard) -> Any:
    """A card as its JSON comes back."""
    return json.loads(json.dumps(card.to_json()))
