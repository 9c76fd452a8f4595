"""Models of the Hugging Face Hub: `org/name`, its revisions, and files of weights."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from inference_models.card import ModelCard
from inference_models.download.answers import Answers, latest, remembered_as
from inference_models.errors import (
    Forbidden,
    InvalidOption,
    Offline,
    Unauthorized,
)
from inference_models.interfaces import Access, WeightsProvider
from inference_models.trust import Origin
from inference_models_hf.hub_api import TERMS, refused, repository
from inference_models_hf.hub_files import Asked, card_of
from inference_models_hf.hub_ids import HubId, file_of
from inference_models_hf.hub_settings import Hub


class HubProvider(WeightsProvider):
    """Asks the Hub what a repository holds, and remembers its last answer of each.

    All files are those of the commit that the answer names, and held to the hashes
    that it gives. The remembered answer stands in as that of other providers does:
    offline without a word, else with one warning. It is of the same endpoint and token,
    or of no token where anybody may read the repository. What the Hub says of the model
    itself (404) stands.
    """

    name = "hf"
    order = 200  # after all others: any two names with a slash may be its own
    takes_revision = True

    def find(self, model_id: str, access: Access) -> ModelCard | None:
        """The card of a model; None for what is no id of the Hub.

        Raises `ModelNotFound`, `Offline`, the `DownloadFailed` of a status
        (`Unauthorized` …), `InvalidCard` for an answer that cannot be read or a
        repository that does not tell what it is, `InvalidWeights` for weights that
        nothing here reads, and `InvalidOption` for a wrong setting or revision.
        """
        asked = HubId.read(model_id, access.revision)
        if asked is None:
            return None
        _check_names_file(asked, access)
        hub = Hub.read(access)
        remembered = _remembered(hub, asked, access)
        if hub.switch is None:
            return latest(
                str(asked), remembered, lambda anew: self._ask(hub, asked, access, anew)
            )
        if remembered is None:
            raise Offline(
                f"{hub.switch} is set, and {str(asked)!r} was not loaded here before "
                f"with this token; load it once with a network{asked.elsewhere}"
            )
        return remembered

    def request(self, source: str, access: Access) -> tuple[str, Mapping[str, str]]:
        """The address of a file at its commit, and the headers for the endpoint."""
        from huggingface_hub import hf_hub_url

        repo, commit, path = file_of(source)
        hub = Hub.read(access)
        if hub.switch is not None:
            raise Offline(f"{hub.switch} is set")
        url = hf_hub_url(repo, path, revision=commit, endpoint=hub.endpoint)
        return url, hub.headers()

    def origin(self, model_id: str, access: Access) -> Origin:
        """The Hub, of a full commit; the user, of a file by hash; else nobody."""
        asked = HubId.read(model_id, access.revision)
        if access.sha256 is not None:
            return "pinned"
        return "publisher" if asked is not None and asked.is_pinned else "unpinned"

    def _ask(self, hub: Hub, asked: HubId, access: Access, anew: bool) -> ModelCard:
        found = repository(hub, asked, TERMS.tries if anew else 1)
        origin = self.origin(str(asked), access)

        def request(source: str) -> tuple[str, Mapping[str, str]]:
            return self.request(source, access)

        try:
            card = card_of(Asked(asked, found, request, access, origin))
        except (Unauthorized, Forbidden) as error:
            if not found.is_gated:
                raise
            raise refused(hub, asked, error) from error
        answers = _answers(hub, None if found.is_open else hub.token)
        answers.write(_name(asked, access), card)
        return card


def _check_names_file(asked: HubId, access: Access) -> None:
    """Raise `InvalidOption` for what is said of a file where none is named."""
    given = {"model_type": access.model_type, "sha256": access.sha256}
    for parameter, value in given.items():
        if value is not None and asked.path is None:
            raise InvalidOption(
                f"{parameter}={value!r} says what one file is; name the file, as in "
                f"hf://{asked}/path/to/weights.onnx"
            )


def _answers(hub: Hub, token: str | None) -> Answers:
    return Answers(HubProvider.name, hub.endpoint, token)


def _name(asked: HubId, access: Access) -> str:
    """What a model is remembered as: its id has the revision already."""
    return remembered_as(str(asked), attrs.evolve(access, revision=None))


def _remembered(hub: Hub, asked: HubId, access: Access) -> ModelCard | None:
    """What is known of a model by this token's right, or by anybody's.

    A card of another file than the user trusts is not what is asked for.
    """
    key = _name(asked, access)
    card = _answers(hub, hub.token).read(key) or _answers(hub, None).read(key)
    if card is None or access.sha256 is None:
        return card
    files = [file for artifact in card.artifacts for file in artifact.files]
    return card if all(file.sha256 == access.sha256 for file in files) else None
