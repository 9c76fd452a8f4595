"""What is known of a model: its card, its artifacts, and what became of them here."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import attrs

from inference_models.errors import InvalidCard, InvalidOption, did_you_mean

Batch = tuple[int, int, int]
"""The fewest images of a run, the best number and the most."""

T = TypeVar("T")

_HASHES = {
    "sha256": (range(8, 65), "8 to 64"),
    "md5": (range(32, 33), "32"),
    "git_sha1": (range(40, 41), "40"),
}
# Names that Windows keeps for devices, in any folder and with any suffix. It takes a
# raised digit for a digit, and cuts off spaces and dots at the end of a name.
_DEVICE_NAMES = re.compile(
    r"(?i)^(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[\d¹²³]) *(\..*)?$"
)


def _safe_name(_: Any, attribute: attrs.Attribute[Any], name: Any) -> None:
    if not isinstance(name, str):
        raise InvalidCard(f"file name {name!r:.200} is not a text")
    path = PurePosixPath(name)
    parts = path.parts
    if (
        not parts
        or not _is_encodable(name)
        or path.is_absolute()
        or any(part.endswith((".", " ")) for part in parts)  # ".." too
        or re.search(r"[\\:\x00-\x1f]", name)
        or any(_DEVICE_NAMES.match(part) for part in parts)
        or any(len(part.encode()) > 200 for part in parts)  # file systems count bytes
        or len(name.encode()) > 1000  # and have room for 4096 with all folders above
    ):
        raise InvalidCard(
            f"file name {name!r:.200} is not allowed; use a relative name with "
            "forward slashes and without '..', such as 'weights.onnx'"
        )


def _is_encodable(name: str) -> bool:
    try:
        return bool(name.encode())
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold
        return False


def _distinct(_: Any, attribute: attrs.Attribute[Any], files: tuple[File, ...]) -> None:
    """Refuse names that are one file for some file system, or a file and a folder.

    Such systems ignore case, or whether an accent is a character of its own.
    """
    names = sorted(map(_spelt_once, files))
    for name, following in itertools.pairwise(names):
        # With the lowest character for a slash, what is in a folder follows its name.
        if following == name or following.startswith(f"{name}\0"):
            shown = name.replace("\0", "/")
            raise InvalidCard(
                f"an artifact lists its file {shown!r:.200} more than once, or as a "
                "folder"
            )


def _spelt_once(file: File) -> str:
    name = unicodedata.normalize("NFC", str(PurePosixPath(file.name)).casefold())
    return name.replace("/", "\0")


def _entries(instance: Any, attribute: attrs.Attribute[Any], graphs: Any) -> None:
    _texts_by_name(instance, attribute, graphs)
    for entry in graphs.values():
        if entry != ".":
            _safe_name(instance, attribute, entry)


def _texts_by_name(_: Any, attribute: attrs.Attribute[Any], mapping: Any) -> None:
    for name, value in mapping.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            raise InvalidCard(
                f"{attribute.name} must map texts to texts, not {name!r:.200} to "
                f"{value!r:.200}"
            )


def _texts(_: Any, attribute: attrs.Attribute[Any], values: tuple[Any, ...]) -> None:
    strange = [value for value in values if not isinstance(value, str)]
    if strange:
        raise InvalidCard(
            f"{attribute.name} holds {strange[0]!r:.200}, which is not a text"
        )


def _hexadecimal(
    file: File, attribute: attrs.Attribute[str], value: str | None
) -> None:
    lengths, words = _HASHES[attribute.name]
    if value is None or (
        len(value) in lengths and re.fullmatch(r"[0-9a-f]+", value) is not None
    ):
        return
    raise InvalidCard(
        f"{attribute.name} {value!r:.80} of {file.name!r:.200} is not {words} "
        "lower-case hexadecimal digits"
    )


def _with_size(file: File, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if value is not None and file.size is None:
        raise InvalidCard(
            f"{file.name!r:.200} has a git_sha1 and no size, which is in it"
        )


def _batch(_: Any, attribute: attrs.Attribute[Any], value: Batch | None) -> None:
    if value is None:
        return
    whole = all(isinstance(n, int) and not isinstance(n, bool) for n in value)
    if not whole or len(value) != 3 or not 1 <= value[0] <= value[1] <= value[2]:
        raise InvalidCard(
            f"batch {value!r:.200} is not (min, best, max) with 1 <= min <= best <= max"
        )


# Converters with types of their own: mypy cannot tell what a bare `tuple` takes.
def _to_batch(value: Sequence[int] | None) -> Batch | None:
    return None if value is None else tuple(value)  # type: ignore[return-value]


def _to_texts(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


def _to_labels(values: Iterable[str | None]) -> tuple[str | None, ...]:
    return tuple(None if value == "" else value for value in values)


def _to_shape(values: Iterable[int | str]) -> tuple[int | str, ...]:
    return tuple(values)


@attrs.frozen
class File:
    """One file of an artifact.

    `sources` are tried in order and hold no secret: `https://…`, `file://…`, or
    `wheel://<distribution>/<version>/<path within the wheel>`. `sha256` may be a
    prefix of at least 8 digits as publishers give it; such a prefix, an `md5`, or
    `git_sha1`, git's id of a file of that `size` (bytes), detects damage, and the full
    hash of the first download is then recorded and enforced. A file from a network
    needs one of these hashes; `size` alone is none. Raises `InvalidCard` for a name
    that leaves its folder.
    """

    name: str = attrs.field(validator=_safe_name)
    sources: tuple[str, ...] = attrs.field(
        default=(), converter=_to_texts, validator=_texts
    )
    size: int | None = None
    sha256: str | None = attrs.field(default=None, validator=_hexadecimal)
    md5: str | None = attrs.field(default=None, validator=_hexadecimal)
    git_sha1: str | None = attrs.field(
        default=None, validator=[_hexadecimal, _with_size]
    )

    @property
    def is_hashed(self) -> bool:
        """Whether there is any hash to hold its bytes to."""
        return any((self.sha256, self.md5, self.git_sha1))


def _to_files(values: Sequence[File | Mapping[str, Any]]) -> tuple[File, ...]:
    return tuple(v if isinstance(v, File) else structure(File, v) for v in values)


@attrs.frozen
class Artifact:
    """One model's weights in one format: files, some of them entries of named graphs.

    `graphs` maps a graph's name to its entry file in the folder ("." is the folder).
    `batch` is (min, best, max), or None for any size. `rename` maps a tensor's name in
    the file, or "#1" for the second output, to the architecture's name. `needs` is what
    a backend's `refuse` checks (opset, versions). `config` is laid over the card's.
    `base` is the id of the model that these weights adapt.
    """

    format: str
    graphs: Mapping[str, str] = attrs.field(validator=_entries)
    files: tuple[File, ...] = attrs.field(
        default=(), converter=_to_files, validator=_distinct
    )
    precision: str = "fp32"
    batch: Batch | None = attrs.field(
        default=None, converter=_to_batch, validator=_batch
    )
    rename: Mapping[str, str] = attrs.field(factory=dict, validator=_texts_by_name)
    needs: Mapping[str, Any] = attrs.field(factory=dict)
    config: Mapping[str, Any] = attrs.field(factory=dict)
    base: str | None = None

    @property
    def lost(self) -> list[str]:
        """The entries of graphs that are none of its files."""
        known = {".", *(file.name for file in self.files)}
        return [entry for entry in self.graphs.values() if entry not in known]

    @property
    def unsupported(self) -> str | None:
        """Why nothing can use it, as its `needs` say; None if nothing is said."""
        reason = self.needs.get("unsupported")
        return None if reason is None else str(reason)

    def refused(self, reason: str | None) -> Artifact:
        """The same, with why nothing can use it; the first reason stays."""
        if reason is None or self.unsupported is not None:
            return self
        return attrs.evolve(self, needs={**self.needs, "unsupported": reason})


def _to_artifacts(values: Sequence[Any]) -> tuple[Artifact, ...]:
    return tuple(
        v if isinstance(v, Artifact) else structure(Artifact, v) for v in values
    )


def _unique(_: Any, attribute: attrs.Attribute[Any], labels: tuple[Any, ...]) -> None:
    strange = [label for label in labels if not isinstance(label, (str, type(None)))]
    if strange:
        raise InvalidCard(f"label {strange[0]!r:.200} is neither a text nor null")
    if labels and set(labels) == {None}:
        raise InvalidCard("labels are all null, so nothing would ever be returned")
    counts = Counter(label for label in labels if label)
    repeated = [label for label, count in counts.items() if count > 1]
    if repeated:
        raise InvalidCard(
            f"labels repeat {', '.join(map(repr, repeated[:3])):.500}; names must be "
            "unique, so that a class can be looked up by name"
        )


@attrs.frozen
class ModelCard:
    """What is known before weights are fetched.

    `labels[i]` names output column i; None, which "" means too, is a column that is
    never returned. Names are unique. `config` is plain data; core reads its keys
    "preprocessing", "confidence" and "key_points", and the architecture the rest.
    `license` is an SPDX identifier.
    """

    id: str
    architecture: str
    task: str
    artifacts: tuple[Artifact, ...] = attrs.field(converter=_to_artifacts)
    labels: tuple[str | None, ...] = attrs.field(
        default=(), converter=_to_labels, validator=_unique
    )
    config: Mapping[str, Any] = attrs.field(factory=dict)
    license: str | None = None
    aliases: tuple[str, ...] = attrs.field(
        default=(), converter=_to_texts, validator=_texts
    )

    @property
    def class_names(self) -> list[str]:
        """Names by class id; a column that is never returned is `""`."""
        return [label or "" for label in self.labels]

    @classmethod
    def from_json(cls, data: Any) -> ModelCard:
        """Make a card from parsed JSON; `InvalidCard` names a wrong or unknown key."""
        return structure(cls, data)

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads again."""
        return attrs.asdict(
            self, filter=_differs_from_default, value_serializer=_as_list
        )


def distinct_labels(names: Sequence[str | None]) -> tuple[str | None, ...]:
    """Class names with the column added where one repeats, so that each is one class.

    None and "" name no class, and are None.
    """
    taken = {name for name in names if name}
    seen: set[str] = set()
    labels: list[str | None] = []
    for column, given in enumerate(names):
        name = given
        while name and (name in seen or (name != given and name in taken)):
            name = f"{name} ({column})"
        seen.update([name] if name else ())
        labels.append(name or None)
    return tuple(labels)


def relabelled(card: ModelCard, labels: Sequence[str | None]) -> ModelCard:
    """The card with other labels, one for each of those that it has, if it has any.

    What it recommends by the name of a class is then by the new name.
    """
    labels = tuple(labels)
    if card.labels and len(labels) != len(card.labels):
        raise InvalidOption(
            f"labels has {len(labels)} names, and {card.id!r} has {len(card.labels)} "
            "columns; give a name for each, or None for one that is never returned"
        )
    if labels and not any(labels):
        raise InvalidOption("labels names no class, so nothing could be returned")
    names = dict(zip(card.labels, labels, strict=False))
    artifacts = [
        attrs.evolve(artifact, config=_renamed(artifact.config, names))
        for artifact in card.artifacts
    ]
    config = _renamed(card.config, names)
    try:
        return attrs.evolve(card, labels=labels, artifacts=artifacts, config=config)
    except InvalidCard as error:
        raise InvalidOption(f"labels cannot be used: {error}") from error


def _renamed(
    config: Mapping[str, Any], names: Mapping[str | None, str | None]
) -> dict[str, Any]:
    """A config whose "confidence" has the classes' new names."""
    known = config.get("confidence")
    if not isinstance(known, Mapping):
        return dict(config)
    return {**config, "confidence": {k: _by_name(v, names) for k, v in known.items()}}


def _by_name(value: Any, names: Mapping[str | None, str | None]) -> Any:
    if not isinstance(value, Mapping):
        return value
    renamed = {names.get(name, name): number for name, number in value.items()}
    return {name: number for name, number in renamed.items() if name is not None}


@attrs.frozen
class Bundle:
    """An artifact on disk. The card is complete: labels and preprocessing are final.

    `folder` holds real files or hard links, under their own names.
    """

    card: ModelCard
    artifact: Artifact
    folder: Path
    base: Bundle | None = None

    @property
    def config(self) -> dict[str, Any]:
        """The card's configuration with the artifact's laid over it.

        What an adapter does not say is as its base has it.
        """
        base = self.base.config if self.base is not None else {}
        return {**base, **self.card.config, **self.artifact.config}

    def file(self, name: str) -> Path:
        """A file beside weights: the artifact's own, or else its base's."""
        own = self.folder / name
        if self.base is None or own.is_file():
            return own
        return self.base.file(name)

    def path(self, graph: str = "main") -> Path:
        """The entry file of a graph; `InvalidCard` if there is no such graph."""
        if graph not in self.artifact.graphs:
            raise InvalidCard(
                f"{self.card.id!r} has no graph {graph!r}; it has "
                f"{', '.join(sorted(self.artifact.graphs))}"
            )
        return self.folder / self.artifact.graphs[graph]


@attrs.frozen
class Plan:
    """What negotiation decided: device ("cpu", "cuda:0"), precision, batch or None."""

    device: str
    precision: str
    batch: Batch | None = None


@attrs.frozen
class TensorSpec:
    """NumPy dtype name ("bfloat16" too) and shape; a string names a free size."""

    dtype: str
    shape: tuple[int | str, ...] = attrs.field(converter=_to_shape)


@attrs.frozen
class Facts:
    """What a file tells without being run: tensor specs by name, plain metadata."""

    format: str
    tensors: Mapping[str, TensorSpec]
    metadata: Mapping[str, Any] = attrs.field(factory=dict)


def _as_list(_: Any, attribute: Any, value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _differs_from_default(attribute: attrs.Attribute[Any], value: Any) -> bool:
    default = attribute.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        default = default.factory()  # type: ignore[union-attr]
    return bool(value != default)


_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "text": (lambda v: isinstance(v, str) and v != "", "a text"),
    "list": (lambda v: isinstance(v, (list, tuple)), "a list"),
    "mapping": (lambda v: isinstance(v, Mapping), "a mapping"),
    "size": (
        lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= 0,
        "a number of bytes",
    ),
}
_KINDS = {
    **dict.fromkeys(
        ["id", "architecture", "task", "name", "format", "precision"], "text"
    ),
    **dict.fromkeys(["base", "license", "sha256", "md5", "git_sha1"], "text"),
    **dict.fromkeys(
        ["artifacts", "labels", "files", "sources", "aliases", "batch"], "list"
    ),
    **dict.fromkeys(["graphs", "rename", "needs", "config"], "mapping"),
    "size": "size",
}


def structure(cls: type[T], data: Any) -> T:
    """Make an attrs class from parsed JSON, with errors that name the key."""
    if not isinstance(data, Mapping):
        raise InvalidCard(
            f"{cls.__name__} must be a mapping, not {type(data).__name__}"
        )
    fields: dict[str, Any] = attrs.fields_dict(cls)  # type: ignore[arg-type]
    for key, value in data.items():
        if key not in fields:
            near = did_you_mean(str(key), fields)
            raise InvalidCard(f"{cls.__name__} has no field {key!r:.200}{near}")
        holds, kind = _CHECKS[_KINDS[key]]
        if not holds(value) and not (value is None and fields[key].default is None):
            raise InvalidCard(
                f"{cls.__name__}.{key} must be {kind}, not {value!r:.200}"
            )
    missing = sorted(
        name
        for name, field in fields.items()
        if field.default is attrs.NOTHING and name not in data
    )
    if missing:
        raise InvalidCard(f"{cls.__name__} lacks {', '.join(map(repr, missing))}")
    return cls(**data)
