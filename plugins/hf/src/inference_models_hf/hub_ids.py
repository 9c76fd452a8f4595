"""Ids of the Hub: `org/name`, a revision, and a path to one file of weights."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import attrs

from inference_models.errors import DownloadFailed, InvalidOption
from inference_models.providers.claims import is_weights

_NAME = r"\w(?:[\w.-]{0,94}\w)?"
_REPO = rf"{_NAME}/{_NAME}"
# These revisions have slashes of their own; in others a slash is written %2F.
_REFS = r"refs/(?:pr/\d+|convert/[\w.-]+)"
_ID = re.compile(rf"({_REPO})(?:@({_REFS}|[^/@]+))?(?:/(.+))?", re.ASCII)
_REVISION = re.compile(r"\w[\w.+-]*(?:/[\w.+-]+)*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SOURCE = re.compile(rf"hf://({_REPO})@([0-9a-f]{{40}})/(.+)", re.ASCII)


@attrs.frozen
class HubId:
    """What is asked for: a repository, its revision, and the path of a file in it."""

    repo: str
    revision: str | None = None
    path: str | None = None

    @classmethod
    def read(cls, model_id: str, revision: str | None = None) -> HubId | None:
        """An id, and what the user says of it beside; None for what is no id here.

        Raises `InvalidOption` for a revision that is none, or that is another than the
        one in the id.
        """
        match = _ID.fullmatch(model_id)
        if match is None or not _is_repo(match[1]):
            return None
        written, path = match[2], match[3]
        written = None if written is None else unquote(written)
        if written is not None and not _is_revision(written):
            return None
        if path is not None and not _is_path(path):
            return None
        return cls(match[1], _agreed(model_id, written, revision), path)

    def __str__(self) -> str:
        revision = self.revision or ""
        if not re.fullmatch(_REFS, revision, re.ASCII):
            revision = revision.replace("/", "%2F")
        at = f"@{revision}" if revision else ""
        return f"{self.repo}{at}" + (f"/{self.path}" if self.path else "")

    @property
    def elsewhere(self) -> str:
        """What is to be said of an id that may have been meant as a path here."""
        written = f"{self.repo}/{self.path}" if self.path else self.repo
        if Path(written).exists():
            return ""
        return f"; there is no file or folder {written!r} here either"

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a full commit, and so always the same files."""
        return is_commit(self.revision or "")


def is_commit(text: str) -> bool:
    """Whether a text is the full id of a commit."""
    return _COMMIT.fullmatch(text) is not None


def source_of(repo: str, commit: str, path: str) -> str:
    """The source of a file of the Hub, the same for every endpoint."""
    return f"hf://{repo}@{commit}/{path}"


def file_of(source: str) -> tuple[str, str, str]:
    """Repository, commit and path of a source; `DownloadFailed` if it names none."""
    match = _SOURCE.fullmatch(source)
    if match is None:
        raise DownloadFailed(f"{source!r} is no file of the Hub at a commit")
    return match[1], match[2], match[3]


def _is_repo(text: str) -> bool:
    return not re.search(r"--|\.\.|\.git$", text)


def _is_revision(text: str) -> bool:
    return bool(_REVISION.fullmatch(text)) and ".." not in text and len(text) <= 250


def _is_path(text: str) -> bool:
    plain = text.isprintable() and "\\" not in text
    parts = text.split("/")
    within = not {"", ".", ".."}.intersection(parts)
    return plain and within and is_weights(text)


def _agreed(model_id: str, written: str | None, given: str | None) -> str | None:
    if given is None:
        return written
    if not isinstance(given, str) or not _is_revision(given):
        raise InvalidOption(
            f"revision {given!r} is no branch, tag or commit; give one such as 'main'"
        )
    if written not in (None, given):
        raise InvalidOption(
            f"{model_id!r} and revision={given!r} name different revisions; leave one "
            "out"
        )
    return given
