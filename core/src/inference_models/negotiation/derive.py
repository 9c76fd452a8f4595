"""One artifact out of another: written by a backend, judged and kept by core."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from inference_models.card import Artifact, Bundle, File, ModelCard
from inference_models.disk import described, is_full, move_folder, remove
from inference_models.download.store import Store, explained
from inference_models.errors import InvalidWeights, Unavailable
from inference_models.images import Image
from inference_models.negotiation.derived_cache import (
    Fetch,
    Kept,
    MakeArchitecture,
    fitting,
    folder_of,
    key,
    name_of_source,
    plain,
)
from inference_models.negotiation.judging import Differs, judge
from inference_models.negotiation.options import Option
from inference_models.negotiation.routes import refusal
from inference_models.progress import Report, shown
from inference_models.registry import returned

log = logging.getLogger("inference_models")


def derived(
    store: Store,
    card: ModelCard,
    option: Option,
    fetch: Fetch,
    make: MakeArchitecture,
    pictures: Sequence[Image] = (),
    exact: bool = False,
) -> Bundle:
    """The bundle of a derived artifact: from the cache, or built and judged now.

    It is judged on `pictures`, also where it was judged before; by default on core's
    own. What is built for another machine is judged there, when it is first opened.
    `exact`: what was built for other batches does not do.
    """
    here = _is_here(option)
    before = key(store, card, make, option)
    kept = fitting(store, before, card, option, exact)

    def is_judged(kept: Kept) -> bool:
        return not here or (kept.judged and not pictures)

    if kept is not None and kept.asked == plain(card) and is_judged(kept):
        return kept.bundle()
    source = fetch(option.artifact)
    name = key(store, card, make, option)  # whatever was fetched has a known hash
    if name is None:
        raise InvalidWeights(f"{source.card.id!r} has no files to derive from")
    making = _Making(source, card, option, make, pictures, here)
    if kept is None or name != before:
        kept = fitting(store, name, card, option, exact)
    if kept is None or not is_judged(kept):
        with store.locked(name) as held:
            kept = fitting(store, name, card, option, exact)
            if kept is None:
                kept = making.build(store, name, held)
            elif not is_judged(kept):
                making.judge_now(kept)
    return kept.instead_of(source)


def _is_here(option: Option) -> bool:
    """Whether the device of a plan is one of this machine's."""
    try:
        return option.plan.device in option.backend.devices()
    except Unavailable:  # it can still build for other machines
        return False


@contextlib.contextmanager
def _begun(store: Store, name: str, alone: bool) -> Iterator[Path]:
    """Where to write; a cache that cannot be used is told with what to do about it."""
    with contextlib.ExitStack() as stack:
        with explained(store.root):
            partial = stack.enter_context(store.unfinished(name, alone))
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

    def build(self, store: Store, name: str, alone: bool) -> Kept:
        """Write, judge and keep it; nothing is kept of what fails."""
        subject = f"deriving {self.source.card.id}"
        with (
            _room(store.root),
            _begun(store, name, alone) as partial,
            shown(subject) as report,
        ):
            bundle = self._written(partial, report)
            if reason := self._refusal(bundle):
                raise InvalidWeights(f"what was derived cannot run: {reason}")
            source = self.option.artifact
            kept = Kept(
                folder=folder_of(store, name, bundle.artifact),
                key=name,
                artifact=bundle.artifact,
                judged=self.here,
                asked=plain(self.asked),
                card=plain(bundle.card),
                made_of=name_of_source(store, self.asked, self.make, source),
            )
            if self.here:
                report("comparing it with its source", 1.0)
                self._judge_or_note(bundle, kept)
            kept.write(bundle.folder)
            move_folder(bundle.folder, kept.folder)
        return kept

    def judge_now(self, kept: Kept) -> None:
        """Judge what was built elsewhere, and remove it if it is wrong."""
        bundle = kept.instead_of(self.source)
        try:
            self._judge_or_note(bundle, kept)
        except InvalidWeights as error:
            if not isinstance(error, Differs):
                remove(kept.folder)
            raise
        attrs.evolve(kept, judged=True).note()

    def _judge_or_note(self, bundle: Bundle, kept: Kept) -> None:
        """Judge it; that it differs is noted in its place, and spares a new build."""
        try:
            self._judge(bundle)
        except Differs as error:
            remove(kept.folder)
            empty = attrs.evolve(kept.artifact, files=())
            kept = attrs.evolve(kept, artifact=empty, judged=True, fault=str(error))
            kept.note()
            raise

    def _written(self, partial: Path, report: Report) -> Bundle:
        bundle, make = self.source, self.make
        for number, (deriver, form) in enumerate(self.option.steps):
            step = partial / str(number)
            step.mkdir()
            log.info("deriving %s of %r with %s", form, bundle.card.id, deriver.name)
            plan = self.option.plan
            written = deriver.derive(bundle, make(bundle), plan, step, report)
            _check_written(written, deriver.name, form)
            files = [_described(file, step) for file in written.files]
            artifact = attrs.evolve(written, files=files)
            bundle = attrs.evolve(bundle, artifact=artifact, folder=step)
        return _with_files(bundle, self.source, make(self.source).reads)

    def _refusal(self, bundle: Bundle) -> str | None:
        """Why the backend would not open here what was written for here."""
        if not self.here:
            return None
        option = self.option
        return refusal(option.backend, self.asked, bundle.artifact, option.plan)

    def _judge(self, result: Bundle) -> None:
        architecture = self.make(self.source)
        judge(self.source, result, self.option, architecture, self.pictures)


def _check_written(written: Any, deriver: str, form: str) -> None:
    """Raise for what is no artifact of the format, or lacks the file of a graph."""
    whose = f"derive() of backend {deriver!r}"
    artifact = returned(written, Artifact, whose)
    if artifact.format != form:
        raise InvalidWeights(f"{whose} wrote {artifact.format!r} in place of {form!r}")
    for entry in artifact.lost:
        raise InvalidWeights(
            f"{whose} names {entry!r} for a graph, and not among its files"
        )


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
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.file(name), path)
            files.append(described(path, name))
    return attrs.evolve(bundle, artifact=attrs.evolve(bundle.artifact, files=files))
