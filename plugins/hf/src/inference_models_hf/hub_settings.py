"""Where the Hub is asked, and as whom: by the environment, else by huggingface_hub."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import attrs

from inference_models.download.ask import (
    Hidden,
    address,
    sendable_headers,
    sendable_key,
)
from inference_models.download.store import offline
from inference_models.errors import InvalidOption, Unauthorized
from inference_models.interfaces import Access
from inference_models_hf.hub_ids import HubId

TOKENS = "HF_TOKEN, or log in anew (hf auth login)"
"""Where a token is from that nobody gave, as messages name it."""


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
    try:
        return sendable_key(found, TOKENS) if found else None
    finally:
        del found  # whoever prints a traceback's locals sees none


def _own_token() -> str | None:
    """huggingface_hub's token, which it may ask for or renew over the network."""
    from huggingface_hub import get_token

    try:
        found: str | None = get_token()
    except Exception as error:  # noqa: BLE001 - of its HTTP client, of any file
        # Not chained: nobody promises that it shows no token.
        raise Unauthorized(
            f"huggingface_hub cannot get a token ({type(error).__name__}); check "
            f"HF_OIDC_RESOURCE and {TOKENS}"
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
