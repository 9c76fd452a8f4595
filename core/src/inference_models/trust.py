"""What may be loaded from where: one table of origins and kinds of files, and licences.

A file of numbers is harmless wherever it comes from. A pickle says what is run when it
is read: loaders hold it to tensors, and somebody has to vouch for it. Programs and
engines are run as they are, which takes the user's word; loose code never is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

import attrs

from inference_models.card import Artifact, ModelCard
from inference_models.errors import InvalidOption, LicenseNotAllowed

Origin = Literal["card", "pinned", "publisher", "unpinned", "local"]
"""Who vouches for the bytes of a file:

card       an installed pack, or a folder of cards, with the hashes that it gives
pinned     the user, who gave its sha256
publisher  a provider that gives the hash of exactly this version
unpinned   nobody: what lies there may be another file tomorrow
local      the user, who gave its path
"""

Kind = Literal[
    "tensors", "onnx", "onnx-external", "pickle", "torch-script", "engine", "code"
]
Verdict = Literal["allow", "ask", "refuse"]

ORIGINS: tuple[Origin, ...] = ("card", "pinned", "publisher", "unpinned", "local")

TABLE: dict[Kind, tuple[Verdict, Verdict, Verdict, Verdict, Verdict]] = {
    # from           card      pinned    publisher unpinned  local
    "tensors":       ("allow", "allow", "allow", "allow", "allow"),
    "onnx":          ("allow", "allow", "allow", "allow", "allow"),
    "onnx-external": ("allow", "allow", "allow", "allow", "allow"),
    "pickle":        ("allow", "allow", "allow", "refuse", "allow"),
    "torch-script":  ("ask", "ask", "ask", "refuse", "ask"),
    "engine":        ("ask", "ask", "ask", "refuse", "ask"),
    "code":          ("refuse", "refuse", "refuse", "refuse", "refuse"),
}  # fmt: skip
"""The most dangerous kinds last. "ask" takes `allow_untrusted_packages=True`."""

_SUFFIXES: dict[str, Kind] = {
    **dict.fromkeys((".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle"), "pickle"),
    **dict.fromkeys((".torchscript", ".ptl"), "torch-script"),
    **dict.fromkeys((".engine", ".plan", ".trt"), "engine"),
    **dict.fromkeys((".py", ".pyc", ".pyd", ".so", ".dll", ".dylib"), "code"),
}
_FORMATS: dict[str, Kind] = {
    "onnx": "onnx",
    "torch-script": "torch-script",
    "trt": "engine",
}
_DANGERS: dict[Kind, str] = {
    "pickle": "is a pickle, which can say what is run when it is read",
    "torch-script": "is a program, which is run as it is",
    "engine": "is an engine, which is native code",
    "code": "is code, and no code of a model's files is ever run",
}


@attrs.frozen
class Consent:
    """What the user allows: licences (None: any), and kinds that are asked for."""

    licenses: tuple[str, ...] | None = None
    untrusted: bool = False

    @classmethod
    def read(cls, licenses: Sequence[str] | None, untrusted: bool) -> Consent:
        """From arguments of `from_pretrained`; `InvalidOption` for a wrong one."""
        if not isinstance(untrusted, bool):
            raise InvalidOption(
                f"allow_untrusted_packages {untrusted!r} is neither True nor False"
            )
        if licenses is None:
            return cls(None, untrusted)
        is_one = isinstance(licenses, str) or getattr(licenses, "ndim", 1) == 0
        several = not is_one and isinstance(licenses, Iterable)
        named: list[Any] = list(licenses) if several else [licenses]
        if not all(isinstance(name, str) for name in named):
            raise InvalidOption(
                f"allow_licenses {licenses!r} is no list of identifiers, such as "
                "['Apache-2.0', 'MIT']"
            )
        return cls(tuple(named), untrusted)


def check_license(model_id: str, license_id: str | None, consent: Consent) -> None:
    """Raise `LicenseNotAllowed` unless a licence is one that the user allows."""
    if consent.licenses is None:
        return
    allowed = {name.casefold() for name in consent.licenses}
    if license_id is not None and license_id.casefold() in allowed:
        return
    has = f"has the licence {license_id!r}" if license_id else "says no licence"
    listed = ", ".join(map(repr, consent.licenses)) or "none"
    raise LicenseNotAllowed(
        f"{model_id!r} {has}, and allow_licenses has {listed}; add it there if you "
        "may use it, or choose another model"
    )


def kind_of(name: str, form: str, is_entry: bool = True) -> Kind:
    """The kind of a file: by its suffix, or else, of a graph's entry, by its format."""
    suffix = PurePosixPath(name).suffix.lower()
    if form == "onnx" and not is_entry and suffix in ("", ".bin", ".data"):
        return "onnx-external"  # raw tensors beside a graph
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    return _FORMATS.get(form, "tensors") if is_entry else "tensors"


def verdict(kind: Kind, origin: Origin) -> Verdict:
    """What the table says."""
    return TABLE[kind][ORIGINS.index(origin)]


def objection(name: str, kind: Kind, origin: Origin, consent: Consent) -> str | None:
    """Why a file may not be loaded, and what to do about it; None if it may."""
    found = verdict(kind, origin)
    if found == "allow" or (found == "ask" and consent.untrusted):
        return None
    sentence = f"{name!r} {_DANGERS[kind]}"
    if found == "ask":
        return f"{sentence}; allow_untrusted_packages=True says that you trust it"
    if kind == "code":
        return sentence
    return (
        f"{sentence}, and what lies there may be another file tomorrow; say which you "
        "trust: sha256= of a file, or revision= with a full commit"
    )


def vetted(card: ModelCard, origin: Origin, consent: Consent) -> ModelCard:
    """The card, in which artifacts that may not be loaded say why they are not."""
    return attrs.evolve(
        card, artifacts=tuple(_vetted(a, origin, consent) for a in card.artifacts)
    )


def _vetted(artifact: Artifact, origin: Origin, consent: Consent) -> Artifact:
    objections = (
        objection(name, kind, origin, consent) for name, kind in _kinds(artifact)
    )
    return artifact.refused(next(filter(None, objections), None))


def _kinds(artifact: Artifact) -> Iterator[tuple[str, Kind]]:
    """Each file of an artifact with its kind, entries of graphs first."""
    entries = {name for name in artifact.graphs.values() if name != "."}
    for name in sorted(entries):
        yield name, kind_of(name, artifact.format)
    for file in artifact.files:
        if file.name not in entries:
            yield file.name, kind_of(file.name, artifact.format, is_entry=False)
