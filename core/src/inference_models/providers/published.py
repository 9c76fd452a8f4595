"""A model as a publisher has it: a card among its files, or weights alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath

import attrs

from inference_models.card import Artifact, File, ModelCard
from inference_models.download.store import Store
from inference_models.errors import (
    HashMismatch,
    InvalidCard,
    InvalidOption,
    ModelNotFound,
    did_you_mean,
)
from inference_models.interfaces import Access, WeightsProvider
from inference_models.providers.claims import (
    CARD,
    is_weights,
    of_fetched_file,
    suffixes,
)
from inference_models.strict_json import parse
from inference_models.trust import Origin, check_license, kind_of, objection

_LARGEST = 16_000_000  # bytes of a card


def without_copies(names: Iterable[str]) -> list[str]:
    """Files of weights, without pickles of what is there in a safer form, too."""
    weights = sorted(filter(is_weights, names))
    safe = [name for name in weights if kind_of(name, "") != "pickle"]
    stems = {PurePosixPath(name).stem for name in safe}
    pickles = [name for name in weights if name not in safe]
    return safe + [name for name in pickles if PurePosixPath(name).stem not in stems]


@attrs.frozen
class Published:
    """All files of one version of a model, by name, and what is said of it.

    `id` is what a user types to have it, and followed by "/" and a name, one of its
    files. Each file has sources, which the provider's `request` understands, and the
    publisher's hash.
    """

    id: str
    files: Mapping[str, File]
    license: str | None = None

    def card(
        self,
        provider: WeightsProvider,
        model_id: str,
        access: Access,
        name: str | None = None,
    ) -> ModelCard:
        """The card of a model, or of the one file that is named, as `find` was asked.

        Fetches what tells what it is: the card, or else the one file of weights, if
        its licence and its kind allow that. Raises `ModelNotFound` for a file that is
        not there, `InvalidCard` where nothing tells which file is the model or its card
        wants others than are there, and what fetching and claiming raise.
        """
        if name is None and CARD in self.files:
            card = self._of_card(provider, access)
            return self._named(card, self.id)
        name = name or self._alone()
        self._check_allowed(name, provider.origin(model_id, access), access)
        card = self._of_file(name, provider, access)
        return self._named(card, f"{self.id}/{name}")

    def _named(self, card: ModelCard, model_id: str) -> ModelCard:
        license_id = self.license or card.license
        return attrs.evolve(card, id=model_id, aliases=(), license=license_id)

    def _alone(self) -> str:
        """The name of the only weights."""
        alone = without_copies(self.files)
        if len(alone) == 1:
            return alone[0]
        weights = sorted(filter(is_weights, self.files))
        if weights:
            raise InvalidCard(
                f"{self.id!r} has no {CARD}, and several files of weights: "
                f"{listed(weights)}; name one, such as {self.id}/{weights[0]}"
            )
        raise InvalidCard(
            f"{self.id!r} has no {CARD} and no weights that are read here "
            f"({', '.join(suffixes())}); it has {listed(self.files)}"
        )

    def _check_allowed(self, name: str, origin: Origin, access: Access) -> None:
        """Raise what keeps a file from being fetched to see what is in it."""
        if name not in self.files:
            near = did_you_mean(name, self.files)
            raise ModelNotFound(f"{self.id!r} has no file {name!r}{near}")
        check_license(f"{self.id}/{name}", self.license, access.consent)
        reason = objection(name, kind_of(name, ""), origin, access.consent)
        if reason is not None:
            raise InvalidOption(f"{self.id!r} cannot be loaded: {reason}")

    def _of_file(
        self, name: str, provider: WeightsProvider, access: Access
    ) -> ModelCard:
        file = attrs.evolve(self.files[name], name=PurePosixPath(name).name)
        file = held(file, access.sha256)
        return of_fetched_file(file, lambda s: provider.request(s, access), access)

    def _of_card(self, provider: WeightsProvider, access: Access) -> ModelCard:
        file, place = self.files[CARD], f"the {CARD} of {self.id!r}"
        if (file.size or 0) > _LARGEST:
            raise InvalidCard(f"{place} is larger than {_LARGEST} bytes")
        folder = Store().folder(
            Artifact("any", {"main": CARD}, [attrs.evolve(file, name=CARD)]),
            lambda source: provider.request(source, access),
        )
        return read_card(folder / CARD, place, self._of_files)

    def _of_files(self, artifact: Artifact) -> Artifact:
        """The artifact with the files that are there, and with none from elsewhere."""
        if artifact.base is not None:
            raise InvalidCard(
                f"it adapts {artifact.base!r}; a card beside its files adapts no other "
                "model"
            )
        return located(artifact, self.files.get)


def read_card(path: Path, place: str, own: Callable[[Artifact], Artifact]) -> ModelCard:
    """A card that lies among a model's files, with these as its artifacts' own.

    Raises `InvalidCard`, which begins with `place`, for one that cannot be read, and
    what `own` refuses.
    """
    node = parse(path.read_bytes(), place, _LARGEST)
    try:
        card = ModelCard.from_json(node.data)
        artifacts = [own(artifact) for artifact in card.artifacts]
    except InvalidCard as error:
        raise InvalidCard(f"{place}: {error}") from error
    return attrs.evolve(card, artifacts=artifacts)


def located(artifact: Artifact, there: Callable[[str], File | None]) -> Artifact:
    """An artifact of a card with the files beside that card, and with no others.

    `there` gives such a file by its name. Raises `InvalidCard` for one that is not
    there, or is another than the card promises.
    """
    files = (*artifact.files, *map(File, dict.fromkeys(artifact.lost)))
    return attrs.evolve(artifact, files=[_located(file, there) for file in files])


def _located(file: File, there: Callable[[str], File | None]) -> File:
    found = []
    for source in file.sources or (file.name,):
        own = there(source)
        if own is None:
            raise InvalidCard(
                f"{file.name!r} comes from {source!r:.200}, which is no file beside "
                "the card; give the plain name of one"
            )
        found.append(own)
    own = found[0]
    if not _fits(file, own):
        raise InvalidCard(
            f"{file.name!r} is another file than the card promises: its size or hash "
            "there differs"
        )
    md5, sha256 = own.md5 or file.md5, own.sha256 or file.sha256
    return attrs.evolve(own, name=file.name, md5=md5, sha256=sha256)


def _fits(promised: File, own: File) -> bool:
    """Whether a file can be the one that a card promises."""
    pairs = ((promised.size, own.size), (promised.md5, own.md5))
    alike = all(a == b for a, b in pairs if a is not None and b is not None)
    hashed = promised.sha256 is not None and own.sha256 is not None
    return alike and (
        not hashed or (own.sha256 or "").startswith(promised.sha256 or "")
    )


def held(file: File, sha256: str | None) -> File:
    """The file with the hash that the user gave, if that can be its own."""
    if sha256 is None:
        return file
    if file.sha256 is not None and not sha256.startswith(file.sha256):
        raise HashMismatch(
            f"{file.name!r} has sha256 {file.sha256} there instead of {sha256}; it is "
            "another file than you trust"
        )
    return attrs.evolve(file, sha256=sha256)


def listed(names: Iterable[str]) -> str:
    """The first five names, and how many more there are."""
    known = sorted(names)
    shown = ", ".join(repr(name[:100]) for name in known[:5]) or "no files"
    return f"{shown} and {len(known) - 5} more" if len(known) > 5 else shown
