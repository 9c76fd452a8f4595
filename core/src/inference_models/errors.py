"""What can go wrong, as a tree with one root.

Each message is one sentence with the value, what is possible, and what to type.

    InferenceModelsError
    ├── ModelNotFound        no provider knows the id
    ├── InvalidCard          a card, or the folder it lies in, says something impossible
    ├── InvalidWeights       a file of weights is damaged, foreign or of another size
    ├── LicenseNotAllowed    a model's licence is none of those that the user allows
    ├── NoBackend            nothing installed here can run the model
    ├── DownloadFailed       a file could not be fetched
    │   ├── HashMismatch     what arrived is not what the card promised
    │   ├── Offline          the network was needed, and is switched off
    │   ├── Unreachable      a server did not answer, or failed itself (5xx)
    │   ├── Unauthorized     a key is missing, wrong or expired (401)
    │   ├── PaymentRequired  the account's plan does not cover the model (402)
    │   ├── Forbidden        the key may not use the model (403)
    │   ├── UsagePaused      the account's usage is paused (423)
    │   └── RateLimited      too many requests; ask again later (429)
    ├── InvalidInput         an image that cannot be used
    ├── InvalidOption        an option or parameter that does not fit (a TypeError)
    ├── RunFailed            the runtime failed in the middle of a call
    ├── MissingDependency    an optional library is wanted and not installed
    ├── Unavailable          a backend's word for "not on this machine"
    └── ModelClosed          the model was used after `close()`
"""

from __future__ import annotations

import contextlib
import re
import traceback
from collections.abc import Iterable, Iterator


class InferenceModelsError(Exception):
    """Root of every error this library raises on purpose."""


class ModelNotFound(InferenceModelsError):
    """No weights provider knows the id; the nearest known ones are named."""


class InvalidCard(InferenceModelsError):
    """A model card, or the folder it lies in, says something impossible."""


class InvalidWeights(InferenceModelsError):
    """A file of weights is damaged, of another architecture or of another size."""


class LicenseNotAllowed(InferenceModelsError):
    """A model's licence, or its lack of one, is not among `allow_licenses`."""


class NoBackend(InferenceModelsError):
    """No installed backend can run the model as asked; one line per refusal."""


class DownloadFailed(InferenceModelsError):
    """A file could not be fetched from any of its sources."""


class HashMismatch(DownloadFailed):
    """The bytes that arrived are not those the card promised; they were discarded."""


class Offline(DownloadFailed):
    """A file is not in the cache, and the network is switched off."""


class Unreachable(DownloadFailed):
    """A server cannot be reached, is too slow, or fails itself (such as 503)."""


class Unauthorized(DownloadFailed):
    """A key is missing, wrong or expired (401)."""


class PaymentRequired(DownloadFailed):
    """The plan of the account does not cover the model (402)."""


class Forbidden(DownloadFailed):
    """The key is known and may not use the model (403)."""


class UsagePaused(DownloadFailed):
    """The account's usage is paused (423)."""


class RateLimited(DownloadFailed):
    """The server wants fewer requests (429); the message says when to ask again."""


class InvalidInput(InferenceModelsError):
    """An image, or what was given in its place, cannot be used."""


class InvalidOption(InferenceModelsError, TypeError):
    """A parameter or option that does not exist, or a value that it cannot take."""


class RunFailed(InferenceModelsError):
    """The runtime failed during a call: out of memory, or a fault of the device."""


class MissingDependency(InferenceModelsError):
    """An optional library is needed for this call and is not installed."""


class Unavailable(InferenceModelsError):
    """Something is missing here: one sentence says what it is, and what to type."""


class ModelClosed(InferenceModelsError):
    """The model was used after `close()`."""


_MOST_COMPARED = 2000
"""Words; to compare one with another takes up to some milliseconds."""


def told(error: BaseException) -> str:
    """An error in words: one of these as it is, and a stranger's with its kind."""
    if isinstance(error, InferenceModelsError):
        return str(error)
    return f"{type(error).__name__}: {error}".rstrip(": ")


def first_line(error: object, longest: int = 300) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    line = str(error).strip().partition("\n")[0][:longest]
    return line or type(error).__name__


@contextlib.contextmanager
def faults_of(whose: str, outputs: Iterable[str] = ()) -> Iterator[None]:
    """A stranger's error within as a `RunFailed` that says whose it is.

    Beside a name that is not there it lists the outputs among which it was sought.
    """
    try:
        yield
    except InferenceModelsError:
        raise
    except Exception as error:
        seeks = isinstance(error, KeyError) and outputs
        hint = f"; the outputs are {', '.join(map(repr, outputs))}" if seeks else ""
        raise RunFailed(f"{whose} failed: {told(error)}{hint}") from error


def let_go(error: BaseException) -> None:
    """Free what the frames hold that an error, and those behind it, came through.

    Whoever holds an error holds its traceback, and with that all tensors of a network.
    """
    seen: set[int] = set()
    behind: list[BaseException | None] = [error]
    while behind:
        each = behind.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            traceback.clear_frames(each.__traceback__)
            behind += [each.__cause__, each.__context__]


def out_of_memory(device: object, batch: int, error: BaseException) -> RunFailed:
    """What to raise where a batch is too large for its device, which let go of it."""
    let_go(error)
    return RunFailed(
        f"{device} has too little memory for a batch of {batch}; load the model with a "
        "smaller batch_size"
    )


def no_numbers() -> RunFailed:
    """What to raise where a network's scores are NaN or infinite."""
    return RunFailed(
        "the network's scores are not numbers; its weights may be damaged, or too "
        "large for this precision; try quantization='fp32'"
    )


def shown_name(name: str, longest: int) -> str:
    """A stranger's name as it is, unless it is too long for a message or garbles it."""
    plain = len(name) <= longest and name.isprintable()
    return name if plain else f"{name[:longest]!a}"


def shown_url(url: str) -> str:
    """A URL without user, query and fragment, which may hold secrets."""
    bare = re.split(r"[?#]", url, maxsplit=1)[0]
    return re.sub(r"(?i)^([a-z][a-z0-9+.-]*://)[^/]*@", r"\1", bare)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x' or 'y'?"` for the nearest known words, else `""`."""
    from difflib import get_close_matches

    spelt = {name.lower(): name for name in sorted(set(known))}
    if len(spelt) > _MOST_COMPARED:
        return ""
    near = get_close_matches(word.lower(), spelt, n=3, cutoff=0.6)
    words = [repr(spelt[name]) for name in near]
    return f"; did you mean {' or '.join(words)}?" if words else ""
