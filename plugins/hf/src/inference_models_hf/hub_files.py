"""What a repository of the Hub is: a card, a folder of a framework, or one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import attrs

from inference_models.card import Artifact, File, ModelCard
from inference_models.download.sources import Request
from inference_models.download.store import Store
from inference_models.errors import (
    InvalidCard,
    InvalidOption,
    InvalidWeights,
    ModelNotFound,
    did_you_mean,
)
from inference_models.interfaces import Access
from inference_models.providers.claims import (
    CARD,
    is_weights,
    of_fetched_file,
    of_folder,
    reads,
    suffixes,
    with_files,
)
from inference_models.providers.published import (
    held,
    listed,
    located,
    read_card,
    without_copies,
)
from inference_models.trust import Origin, check_license, kind_of, objection
from inference_models_hf.folder import CONFIG, INDEX, METADATA
from inference_models_hf.folder import WEIGHTS as TENSORS
from inference_models_hf.hub_api import Repository
from inference_models_hf.hub_ids import HubId

_LARGEST = 16_000_000  # bytes of a file that tells what a model is
_PICKLED = (".bin", ".h5", ".msgpack")
_BESIDE = (".json", ".txt", ".model", ".jinja", ".tiktoken")
"""Suffixes of what inference may need beside weights: settings and tokenizers."""


@attrs.frozen
class Asked:
    """What was asked for, what the Hub has of it, and how its files are fetched."""

    id: HubId
    repository: Repository
    request: Request
    access: Access
    origin: Origin


def card_of(asked: Asked) -> ModelCard:
    """The card of a repository, or of the one file of it that is named.

    Fetches what tells what the model is: small files, but for a file of weights that
    stands alone. Raises `InvalidCard` where it cannot be told, `InvalidWeights` for
    weights that nothing here reads, `ModelNotFound` for a file that is not there, and
    `DownloadFailed`.
    """
    card = _card(asked)
    license_id = asked.repository.license or card.license
    return attrs.evolve(card, id=str(asked.id), aliases=(), license=license_id)


def _card(asked: Asked) -> ModelCard:
    there = asked.repository.entries
    if asked.id.path is not None:
        return _of_file(asked, asked.id.path)
    if CARD in there:
        return _of_card(asked)
    has_tensors = TENSORS in there or INDEX in there
    card = _of_folder(asked) if CONFIG in there and has_tensors else None
    if card is not None:
        return card
    alone = _alone(asked.repository)
    if len(alone) != 1:
        raise _untold(asked)
    return _of_file(asked, alone[0])


# One file


def _of_file(asked: Asked, path: str) -> ModelCard:
    if path not in asked.repository.entries:
        near = did_you_mean(path, _weights(asked.repository))
        raise ModelNotFound(
            f"{asked.id.repo!r} has no file {path!r} at {asked.repository.commit}{near}"
        )
    check_license(str(asked.id), asked.repository.license, asked.access.consent)
    _check_trusted(asked, path)
    file = held(asked.repository.file(path), asked.access.sha256)
    alone = attrs.evolve(file, name=PurePosixPath(path).name)
    return of_fetched_file(alone, asked.request, asked.access)


def _check_trusted(asked: Asked, path: str) -> None:
    """Raise `InvalidOption` for a file that may not be loaded, before it is fetched."""
    reason = objection(path, kind_of(path, ""), asked.origin, asked.access.consent)
    if reason is None:
        return
    now = f" (it is {asked.repository.commit!r} now)"
    raise InvalidOption(
        f"{str(asked.id)!r} cannot be loaded: {reason}"
        + (now if asked.origin == "unpinned" else "")
    )


def _weights(repository: Repository) -> list[str]:
    names = sorted(repository.entries)
    return [n for n in names if is_weights(n)]


def _alone(repository: Repository) -> list[str]:
    """Weights in no folder, without pickles of what is there in a safer form, too."""
    return without_copies(name for name in repository.entries if "/" not in name)


def _untold(asked: Asked) -> InvalidCard | InvalidWeights:
    found = _weights(asked.repository)
    pickled = [n for n in asked.repository.top() if n.endswith(_PICKLED)]
    if not found and pickled:
        return InvalidWeights(
            f"{str(asked.id)!r} has no weights but {listed(pickled)}, which are not "
            "read from the Hub: such files can say what is run when they are read. Ask "
            "its owner for safetensors, or write them with transformers' "
            "save_pretrained() and give that folder"
        )
    if not found:
        known = ", ".join(suffixes())
        return InvalidCard(
            f"{str(asked.id)!r} has no weights that are read here ({known}); it has "
            f"{listed(asked.repository.top())}"
        )
    example = attrs.evolve(asked.id, path=found[0])
    return InvalidCard(
        f"{str(asked.id)!r} has no {CARD}, and its files do not tell which of them is "
        f"the model: {listed(found)}; name one, such as hf://{example}"
    )


# A card


def _of_card(asked: Asked) -> ModelCard:
    path = _small_files(asked, [CARD]) / CARD
    place = f"the {CARD} of {str(asked.id)!r}"
    return read_card(path, place, lambda each: _of_files(asked.repository, each))


def _of_files(repository: Repository, artifact: Artifact) -> Artifact:
    own = located(artifact, lambda n: _file(repository, n))
    base = None if artifact.base is None else _base(artifact.base)
    return attrs.evolve(own, base=base)


def _file(repository: Repository, name: str) -> File | None:
    return repository.file(name) if name in repository.entries else None


def _base(base: str) -> str:
    """The id of a model of the Hub that is adapted, for the Hub alone."""
    known = HubId.read(base.removeprefix("hf://"))
    if known is None or known.path is not None:
        raise InvalidCard(
            f"base {base!r} is no id of a model of the Hub, such as 'org/name'"
        )
    return f"hf://{known}"


# A folder


def _of_folder(asked: Asked) -> ModelCard | None:
    """The card of a framework's folder; None if nothing here reads such folders."""
    there = asked.repository.entries
    names = [n for n in METADATA if n in there and not _spare(n, asked.repository)]
    folder = _small_files(asked, names)
    try:
        card = of_folder(folder)
    except InvalidWeights as error:
        told = str(error).replace(repr(str(folder)), repr(str(asked.id)))
        raise InvalidWeights(told) from error
    if card is None:
        return None
    card = with_files(card, [name for name in reads(card) if name in there])
    artifacts = [_filled(asked, each, names) for each in card.artifacts]
    return attrs.evolve(card, artifacts=artifacts)


def _filled(asked: Asked, artifact: Artifact, metadata: Sequence[str]) -> Artifact:
    """The artifact with the files that its claim names, else all that it may need."""
    named = [file.name for file in artifact.files]
    needed = named or _needed(asked.repository, metadata)
    files = [_checked(asked, name) for name in needed]
    return attrs.evolve(artifact, files=files)


def _spare(name: str, repository: Repository) -> bool:
    """Whether a file is an index of shards beside the same weights in one file."""
    return name == INDEX and TENSORS in repository.entries


def _needed(repository: Repository, metadata: Sequence[str]) -> list[str]:
    """What inference may need of a folder whose claim does not say."""
    beside = [
        name
        for name in repository.top()
        if name.endswith(_BESIDE)
        and (name in metadata or not name.endswith(".index.json"))
    ]
    shards = [n for n in repository.top() if n.endswith(".safetensors")]
    return [*beside, *([TENSORS] if TENSORS in repository.entries else shards)]


def _checked(asked: Asked, name: str) -> File:
    if name not in asked.repository.entries:
        raise InvalidWeights(
            f"{str(asked.id)!r} lacks {name!r}, which its model needs; ask its owner "
            "for it, or take another revision"
        )
    if not name.endswith((*_BESIDE, ".safetensors")):
        raise InvalidWeights(
            f"{str(asked.id)!r} names {name!r}, which is no file of tensors or settings"
        )
    return asked.repository.file(name)


def _small_files(asked: Asked, names: Sequence[str]) -> Path:
    """A folder with small files of the repository, fetched and checked."""
    files = [asked.repository.file(name) for name in names]
    for file in files:
        if (file.size or 0) > _LARGEST:
            raise InvalidCard(
                f"{file.name!r} of {str(asked.id)!r} is larger than {_LARGEST} bytes"
            )
    graphs = {"main": names[0]}
    return Store().folder(Artifact("any", graphs, files), asked.request)
