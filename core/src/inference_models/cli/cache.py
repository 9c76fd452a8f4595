"""`inference-models cache`: what lies here, and how to check, remove and carry it."""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from inference_models.card import ModelCard
from inference_models.cli.app import ApiKey, ModelType, Revision
from inference_models.download import archive, cache
from inference_models.download.answers import (
    content_of,
    imported_name,
    known,
    remembered_as,
)
from inference_models.download.sources import scheme
from inference_models.download.store import Store, explained, in_place
from inference_models.errors import InvalidOption, ModelNotFound
from inference_models.interfaces import Access
from inference_models.negotiation import find
from inference_models.registry import installed
from inference_models.trust import Consent

command = typer.Typer(
    name="cache",
    help="Show, verify, remove, export and import what was fetched and derived.",
    no_args_is_help=True,
    add_completion=False,
)

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}

Largest = Annotated[str, typer.Option("--max-size", help="Such as 500MB or 2GB.")]
Name = Annotated[
    str, typer.Argument(help="A name that ls shows, or 8 first digits of a hash.")
]
Ids = Annotated[list[str], typer.Argument(help="Ids of models that were downloaded.")]
Archive = Annotated[Path, typer.Argument(help="The file that carries the models.")]
Derived = Annotated[
    bool,
    typer.Option(
        help="Take what was derived on the other machine too. It may be native code: "
        "do so only if you trust that machine."
    ),
]


@command.command()
def ls() -> None:
    """List what can be loaded from the cache, most recently used first."""
    with _cache() as store:
        ids = _ids(store)
        lines = [_line(kept, ids) for kept in cache.inventory(store)]
        total = cache.size(store)
    for line in lines:
        typer.echo(line)
    typer.echo(f"{_shown(total)} in {store.root}")


@command.command()
def verify() -> None:
    """Hash every file; what is damaged is removed, and fetched again when needed."""
    with _cache() as store:
        damaged = cache.verify(store)
        whole = len(cache.inventory(store))
    for line in damaged:
        typer.echo(f"{line} and is removed; loading its model fetches it again")
    typer.echo(f"whole bundles and derived artifacts: {whole}")
    if damaged:
        raise typer.Exit(1)


@command.command()
def rm(name: Name) -> None:
    """Remove a model, what is listed by this name, or has a hash that begins so."""
    is_hash = re.fullmatch(r"[0-9a-f]{8,64}", name)
    with _cache() as store:
        gone = cache.matching(store, name) if is_hash else _named(store, name)
        if not gone:
            raise _nothing(name)
        cache.delete(store, gone)
    typer.echo(f"removed {_shown(sum(kept.size for kept in gone))}")


@command.command()
def prune(max_size: Largest) -> None:
    """Remove what was used longest ago, until the rest is small enough."""
    with _cache() as store:
        gone = cache.prune(store, _bytes(max_size))
        total = cache.size(store)
    typer.echo(f"removed bundles and derived artifacts: {len(gone)}")
    typer.echo(f"{_shown(total)} in {store.root}")


@command.command()
def export(
    file: Archive,
    ids: Ids,
    model_type: ModelType = None,
    revision: Revision = None,
    api_key: ApiKey = None,
) -> None:
    """Write downloaded models to one file, for a machine without a network."""
    store = Store()
    # What is consented to is said where it is loaded.
    consent = Consent(untrusted=True)
    access = Access(api_key, revision, model_type=model_type, consent=consent)
    files = dict(pair for name in ids for pair in _files(store, name, access))
    size = archive.export(file, files)
    typer.echo(f"wrote {_shown(size)} to {file}; import it with")
    typer.echo(f"  inference-models cache import {file.name}")


@command.command("import")
def import_(file: Archive, derived: Derived = False) -> None:
    """Take models from a file that `export` wrote, after checking all of it."""
    if not file.is_file():
        raise InvalidOption(f"there is no file {str(file)!r}")
    left_out = archive.take(file, Store(), derived)
    typer.echo(f"took {file}")
    if left_out:
        typer.echo(
            f"left out what was derived ({len(left_out)}), which may be native code; "
            "--derived takes it from a machine that you trust"
        )


def _line(kept: cache.Entry, ids: Mapping[str, str]) -> str:
    date = time.strftime("%Y-%m-%d", time.localtime(kept.used))
    what = _what(kept, ids)
    return f"{kept.key[:12]}  {_shown(kept.size):>9}  {date}  {kept.kind:<7}  {what}"


def _what(kept: cache.Entry, ids: Mapping[str, str]) -> str:
    return _name(kept, ids) + (f" ({kept.form})" if kept.form else "")


def _name(kept: cache.Entry, ids: Mapping[str, str]) -> str:
    """What a model is listed by: its id, or where none is known its files."""
    return kept.model or ids.get(kept.key) or ", ".join(kept.names)


@contextlib.contextmanager
def _cache() -> Iterator[Store]:
    """The cache, whose faults are told in a sentence; those of the output are not."""
    store = Store()
    with explained(store.root):
        yield store


def _named(store: Store, name: str) -> list[cache.Entry]:
    """What is listed by a name, with its form or without; else a model's."""
    ids = _ids(store)
    listed = [
        kept
        for kept in cache.inventory(store)
        if name in (_name(kept, ids), _what(kept, ids))
    ]
    return listed or _kept(store, find.find(name, installed(), Access(), None).card)


def _kept(store: Store, card: ModelCard) -> list[cache.Entry]:
    keys = set(_keys(store, card))
    return [
        kept
        for kept in cache.inventory(store)
        if kept.key in keys or kept.model == card.id
    ]


def _keys(store: Store, card: ModelCard) -> Iterator[str]:
    """The keys of a card's bundles; files that are used in their place have none."""
    for artifact in card.artifacts:
        sources = [source for file in artifact.files for source in file.sources[:1]]
        if not any(scheme(source) == "file" for source in sources):
            pairs = store.pairs(artifact)
            if pairs:
                yield store.bundle(pairs).name


def _ids(store: Store) -> dict[str, str]:
    """The ids of the bundles whose cards are installed or remembered here."""
    listed = (provider.models() for provider in find.providers(installed()))
    cards = itertools.chain(known(store.root), *listed)
    return {key: card.id for card in cards for key in _keys(store, card)}


def _files(
    store: Store, model_id: str, access: Access
) -> Iterator[tuple[str, archive.Content]]:
    """All files that belong to a model, by their names in a cache.

    The card goes along: where it came from cannot be asked on the other machine.
    """
    found = find.find(model_id, installed(), access, None)
    card = found.card
    asked = remembered_as(found.name, found.access)
    name = imported_name(found.provider.name, asked)
    yield f"imported/{name}", content_of(card)
    kept = _kept(store, card)
    if not any(one.kind == "bundle" for one in kept):
        raise ModelNotFound(_not_kept(card))
    for one in kept:
        for name, digest in zip(one.names, one.digests, strict=False):
            yield f"blobs/{digest}", one.folder / name
        if one.kind == "derived":
            for name in one.names:
                yield f"derived/{one.key}/{name}", one.folder / name
    for artifact in card.artifacts:
        for file in artifact.files:
            record = store.record(file)
            if record.is_file():
                yield f"records/{record.name}", record


def _not_kept(card: ModelCard) -> str:
    folders = filter(None, (in_place(each.files) for each in card.artifacts))
    folder = next(folders, None)
    if folder is None:
        return (
            f"the weights of {card.id!r} are not in the cache; inference-models "
            "download fetches them"
        )
    return (
        f"the weights of {card.id!r} lie in {str(folder)!r}, and not in the cache; "
        "copy that folder, or install what it is a part of there"
    )


def _nothing(name: str) -> ModelNotFound:
    return ModelNotFound(
        f"nothing of {name!r} is in the cache; inference-models cache ls shows what "
        "is, and inference-models download fetches a model"
    )


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip().upper())
    if match is None:
        raise InvalidOption(f"size {text!r} is not a number of bytes, such as 2GB")
    return int(float(match[1]) * _UNITS[match[2]])


def _shown(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
