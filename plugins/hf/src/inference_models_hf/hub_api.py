"""The Hub's API: one endpoint, one token, and what a repository holds at a revision."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import quote, urlsplit

import attrs

from inference_models.ask import (
    Hidden,
    Question,
    Reply,
    Terms,
    address,
    ask,
    sendable_headers,
    sendable_key,
)
from inference_models.card import File
from inference_models.errors import (
    DownloadFailed,
    Forbidden,
    InferenceModelsError,
    InvalidOption,
    ModelNotFound,
    RateLimited,
    Unauthorized,
    Unreachable,
)
from inference_models.interfaces import Access
from inference_models.store import offline
from inference_models.strict_json import Node, parse
from inference_models_hf.hub_ids import HubId, is_commit, source_of

# A renamed repository is told of by a redirect.
TERMS = Terms(largest=16_000_000, redirects=5)

_MOST_FILES = 100_000
_LARGEST_FILE = 1 << 50  # bytes
_CODE, _SAID = "x-error-code", "x-error-message"
_DISABLED = "Access to this resource is disabled."
_TOKENS = "HF_TOKEN, or log in anew (hf auth login)"


@attrs.frozen
class Hub:
    """Where the Hub is asked, and as whom.

    `switch` is the setting that switches the network off, if one does.
    """

    endpoint: str
    token: str | None = attrs.field(default=None, repr=False)
    extra: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    switch: str | None = None

    @classmethod
    def read(cls, access: Access) -> Hub:
        """From the environment as it is now, else as huggingface_hub found it.

        The token is the user's for this model, else huggingface_hub's own. Raises
        `InvalidOption` for what is no address, no token or no header, and for a query.
        """
        if access.query:
            raise InvalidOption(
                "weights_provider_extra_query_params are given, and the Hub takes "
                "none; leave them out"
            )
        from huggingface_hub import constants

        named = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
        switch = _switch()
        return cls(
            endpoint=address("HF_ENDPOINT", named, "https://huggingface.co"),
            token=_token(access, may_ask=switch is None),
            extra=sendable_headers(access.headers),
            switch=switch,
        )

    @property
    def host(self) -> str:
        """The endpoint as it is named in messages."""
        return urlsplit(self.endpoint).netloc

    def headers(self) -> dict[str, str]:
        """The headers that are for the endpoint alone."""
        bearer = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        # huggingface_hub's own headers are not used: to tell who calls, they may ask
        # the Hub for a list of programs first.
        return Hidden({"user-agent": "inference-models-hf", **self.extra, **bearer})

    def page(self, asked: HubId) -> str:
        """The page of a repository, for people."""
        return f"{self.endpoint}/{asked.repo}"


def _switch() -> str | None:
    from huggingface_hub import constants

    if offline():
        return "INFERENCE_MODELS_OFFLINE"
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return "HF_HUB_OFFLINE" if _is_on(names, constants.HF_HUB_OFFLINE) else None


def _is_on(names: tuple[str, ...], found: bool) -> bool:
    """Whether the first of these that is set says yes; as it was found if none is."""
    from huggingface_hub import constants

    said = next(filter(None, map(os.environ.get, names)), None)
    return found if said is None else said.upper() in constants.ENV_VARS_TRUE_VALUES


def _token(access: Access, may_ask: bool) -> str | None:
    if access.key:
        return sendable_key(access.key, "api_key=")
    from huggingface_hub import constants

    name = "HF_HUB_DISABLE_IMPLICIT_TOKEN"
    if _is_on((name,), constants.HF_HUB_DISABLE_IMPLICIT_TOKEN):
        return None
    found = _own_token() if may_ask else _kept_token()
    return sendable_key(found, _TOKENS) if found else None


def _own_token() -> str | None:
    """huggingface_hub's token, which it may ask for or renew over the network."""
    from huggingface_hub import get_token

    try:
        found: str | None = get_token()
    except Exception as error:  # noqa: BLE001 - of its HTTP client, of any file
        # Not chained: nobody promises that it shows no token.
        raise Unauthorized(
            f"huggingface_hub cannot get a token ({type(error).__name__}); check "
            f"HF_OIDC_RESOURCE and {_TOKENS}"
        ) from None
    return found


def _kept_token() -> str | None:
    """The token that lies here, where no network may be used to renew it."""
    from huggingface_hub import constants

    named = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN")
    if named:
        return named
    try:
        return Path(constants.HF_TOKEN_PATH).read_text("utf-8").strip()
    except (OSError, ValueError):
        return None


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
            f"{_TOKENS}"
        )
    if status == 403:
        return Forbidden(f"{said} says that the token may not read it; take another")
    if status == 429:
        after = "" if reply.wait is None else f" in {reply.wait:.0f} s"
        return RateLimited(f"{said} wants fewer requests (429); try again{after}")
    if reply.passing:
        reason = f"answered {status}" if status else f"not reached: {reply.problem}"
        return Unreachable(
            f"{said} {reason}; check the network and HF_ENDPOINT{asked.elsewhere}"
        )
    return DownloadFailed(f"{said} answered {status}, which is no answer to expect")
