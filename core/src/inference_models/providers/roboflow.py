"""Models of Roboflow: `project/3`, `workspace/project/3`, and its public ids."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

from inference_models.card import Bundle, ModelCard
from inference_models.download.answers import Answers
from inference_models.download.store import offline
from inference_models.errors import (
    DownloadFailed,
    ModelNotFound,
    RateLimited,
    Unreachable,
)
from inference_models.interfaces import Access, WeightsProvider
from inference_models.providers.roboflow_api import TERMS, Server, fresh_url, pages
from inference_models.providers.roboflow_files import completed
from inference_models.providers.roboflow_packages import card_of, file_of

log = logging.getLogger("inference_models")

_WORD = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}"
_OWN = re.compile(rf"({_WORD}/)?{_WORD}/\d{{1,9}}")
_BARE = re.compile(_WORD)
_FILE = re.compile(r".*\.[A-Za-z]+")


class RoboflowProvider(WeightsProvider):
    """Asks Roboflow's weights API, and remembers its last answer of each model.

    The remembered answer, which is of the same server and API key, stands in where no
    answer can be had: offline without a word; where the server is down, answers
    nonsense, or refuses the key (401, 403), with one warning. It says where files are
    and what they must be, so that files in the cache are enough to run; one that has
    to be fetched needs the API again, and fails with the API's own reason. Any other
    refusal (402, 404, 423) stands.
    """

    name = "roboflow"
    order = 20
    takes_key = True

    def find(self, model_id: str, access: Access) -> ModelCard | None:
        """The card of a model; None for what is no id here, or no bare id of Roboflow.

        A bare id is as certain to be Roboflow's as a project where it alone is asked.
        Raises `ModelNotFound` for a project that is not there, `Offline`, the
        `DownloadFailed` of a status (`Unauthorized` …), `InvalidCard` for an answer
        that cannot be read, and `InvalidOption` for a wrong address in the environment.
        """
        own = _OWN.fullmatch(model_id) is not None
        bare = _BARE.fullmatch(model_id) and not _FILE.fullmatch(model_id)
        if not own and not bare:
            return None
        server = Server.read(access)
        answers = _answers(server)
        if own or access.alone or answers.read(model_id) is not None:
            return answers.latest(
                model_id,
                access,
                lambda anew: _card(server, model_id, TERMS.tries if anew else 1),
            )
        return None if offline() else _asked_bare(server, model_id)

    def request(self, source: str, access: Access) -> tuple[str, Mapping[str, str]]:
        """A file's address, signed just now; the key is not sent there."""
        model_id, package, handle = file_of(source)
        return fresh_url(Server.read(access), model_id, package, handle), {}

    def complete(self, bundle: Bundle) -> Bundle:
        """Labels, preprocessing and batch from the package's own files."""
        return completed(bundle)


def _answers(server: Server) -> Answers:
    return Answers(RoboflowProvider.name, server.host, server.key)


def _asked_bare(server: Server, model_id: str) -> ModelCard | None:
    """The card of a public id; None for a name that is likely a slip of the pen."""
    try:
        card = _card(server, model_id, tries=1)
    except ModelNotFound:
        return None
    except (Unreachable, RateLimited) as error:
        # Who has no key likely means no model of Roboflow.
        level = logging.INFO if server.key is None else logging.WARNING
        log.log(level, "%s may be unknown for this reason alone: %s", model_id, error)
        return None
    except DownloadFailed:
        if server.key is not None:
            raise
        return None
    _answers(server).write(model_id, card)
    return card


def _card(server: Server, model_id: str, tries: int) -> ModelCard:
    return card_of(pages(server, model_id, tries), server.host)
