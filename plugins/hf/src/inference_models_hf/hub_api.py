"""The Hub's API: what a repository holds at a revision, and what a refusal means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from urllib.parse import quote

import attrs

from inference_models.card import File
from inference_models.download.ask import Question, Reply, Terms, ask, refusal
from inference_models.errors import (
    DownloadFailed,
    Forbidden,
    InferenceModelsError,
    ModelNotFound,
    Unauthorized,
)
from inference_models.strict_json import Node, parse
from inference_models_hf.hub_ids import HubId, is_commit, source_of
from inference_models_hf.hub_settings import TOKENS, Hub

# A renamed repository is told of by a redirect.
TERMS = Terms(largest=16_000_000, redirects=5)

_MOST_FILES = 100_000
_LARGEST_FILE = 1 << 50  # bytes
_CODE, _SAID = "x-error-code", "x-error-message"
_DISABLED = "Access to this resource is disabled."


@attrs.frozen
class Repository:
    """What the Hub says of a repository at one commit; `entries` are its files."""

    id: str
    commit: str
    license: str | None
    is_gated: bool
    is_open: bool
    """Whether anybody may read it, without a token."""
    entries: Mapping[str, Node] = attrs.field(repr=False)

    def file(self, path: str) -> File:
        """A file under its own name, held to the hash that the Hub gives."""
        entry = self.entries[path]
        lfs = entry.maybe_node("lfs")
        size = (lfs or entry).whole("size", 0, _LARGEST_FILE)
        if size is None:
            raise (lfs or entry).wrong("size", "is missing")
        key, holder = ("blobId", entry) if lfs is None else ("sha256", lfs)
        digest = holder.text(key)
        if len(digest) != (40 if lfs is None else 64):
            raise holder.wrong(key, "is no hash of a file")
        return File(
            path,
            (source_of(self.id, self.commit, path),),
            size=size,
            sha256=digest if lfs is not None else None,
            git_sha1=digest if lfs is None else None,
        )

    def top(self) -> list[str]:
        """The names of the files that lie in no folder, sorted."""
        return sorted(name for name in self.entries if "/" not in name)


def repository(hub: Hub, asked: HubId, tries: int) -> Repository:
    """What the Hub says of a repository, after so many tries at most.

    Raises `ModelNotFound`, `InvalidCard` for what cannot be read, or the
    `DownloadFailed` of its status.
    """
    url = f"{hub.endpoint}/api/models/{asked.repo}"
    if asked.revision is not None:
        url += f"/revision/{quote(asked.revision, safe='')}"
    question = Question(f"{url}?blobs=true", hub.headers())
    terms = attrs.evolve(TERMS, tries=tries)
    reply = ask(question, hub.host, terms, (_CODE, _SAID))
    if reply.status != 200:
        raise _refusal(hub, asked, reply)
    place = f"the answer of {hub.host} for {str(asked)!r}"
    return _read(parse(reply.content, place, TERMS.largest), hub, asked)


def _read(node: Node, hub: Hub, asked: HubId) -> Repository:
    if node.flag("disabled"):
        raise _disabled(hub, asked)
    commit = node.text("sha")
    if not is_commit(commit):
        raise node.wrong("sha", "is no commit of 40 lower-case hexadecimal digits")
    if asked.is_pinned and commit != asked.revision:
        raise node.wrong("sha", f"is {commit!r}, another commit than was asked for")
    gated = _is_gated(node)
    return Repository(
        id=asked.repo,
        commit=commit,
        license=_license(node),
        is_gated=gated,
        is_open=not gated and not node.flag("private"),
        entries=_entries(node),
    )


def _is_gated(node: Node) -> bool:
    if isinstance(node.data.get("gated"), bool):
        return node.flag("gated")
    return node.choice("gated", {"auto": True, "manual": True}) or False


def _license(node: Node) -> str | None:
    """That of the model card; several are all to be kept to. None if it names none."""
    card = node.maybe_node("cardData")
    if card is None or card.data.get("license") is None:
        prefix = "license:"
        tags = (tag for tag in node.texts("tags", 10_000) if tag.startswith(prefix))
        return next((tag.removeprefix(prefix) for tag in tags), None) or None
    if isinstance(card.data["license"], list):
        return " AND ".join(card.texts("license", 20)) or None
    return card.text("license")


def _entries(node: Node) -> dict[str, Node]:
    if "siblings" not in node.data:
        raise node.wrong("siblings", "is missing")
    found: dict[str, Node] = {}
    for entry in node.nodes("siblings", _MOST_FILES):
        name = entry.text("rfilename")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise entry.wrong("rfilename", f"{name[:60]!r} leaves the repository")
        if name in found:
            raise entry.wrong("rfilename", f"{name[:60]!r} is there more than once")
        found[name] = entry
    return found


def refused(hub: Hub, asked: HubId, error: DownloadFailed) -> DownloadFailed:
    """A refusal of a gated repository's file, as one of its repository."""
    return Forbidden(f"{_gated(hub, asked)} ({type(error).__name__})")


def _gated(hub: Hub, asked: HubId) -> str:
    has = "is not one of an account" if hub.token else "is missing, of an account"
    return (
        f"{str(asked)!r} is gated, and a token {has} that accepted its terms; accept "
        f"them at {hub.page(asked)}, and give that account's token: {_giving(asked)}"
    )


def _giving(asked: HubId) -> str:
    return f"set HF_TOKEN, log in (hf auth login), or give hf://{asked} with api_key="


def _disabled(hub: Hub, asked: HubId) -> DownloadFailed:
    return Forbidden(
        f"{str(asked)!r} is disabled by {hub.host}; {hub.page(asked)} may say why"
    )


def _refusal(hub: Hub, asked: HubId, reply: Reply) -> InferenceModelsError:
    """The error that a status is, as the Hub means it."""
    status, code = reply.status, reply.headers.get(_CODE)
    if code == "GatedRepo":
        return Forbidden(_gated(hub, asked))
    if reply.headers.get(_SAID) == _DISABLED:
        return _disabled(hub, asked)
    if code == "RevisionNotFound":
        return ModelNotFound(
            f"{asked.repo!r} has no revision {asked.revision or 'main'!r} at "
            f"{hub.host}; {hub.page(asked)}/commits lists them"
        )
    # It answers 401 of what is not there, too, to whoever has no token.
    unseen = status == 404 or (status == 401 and hub.token is None)
    if code == "RepoNotFound" or unseen:
        whose = "model that this token may see" if hub.token else "public model"
        return ModelNotFound(
            f"{hub.host} has no {whose} of the id {str(asked)!r}; if it is private, "
            f"{_giving(asked)}{asked.elsewhere}"
        )
    return _of_status(hub, asked, reply)


def _of_status(hub: Hub, asked: HubId, reply: Reply) -> InferenceModelsError:
    said = f"{hub.host} was asked for {str(asked)!r} and"
    status = reply.status
    if status == 401:
        return Unauthorized(
            f"{said} refused the token, which may have expired; check api_key= or "
            f"{TOKENS}"
        )
    if status == 403:
        return Forbidden(f"{said} says that the token may not read it; take another")
    return refusal(reply, said, f"HF_ENDPOINT{asked.elsewhere}")
