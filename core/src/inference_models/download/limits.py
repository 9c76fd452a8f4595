"""How long a download is waited for, and the failure that another try may not meet."""

from __future__ import annotations

import attrs

from inference_models.errors import DownloadFailed, Unreachable


@attrs.frozen
class Limits:
    """How long a download is waited for; seconds, but where it says otherwise."""

    connect: float = 15.0
    answer: float = 120.0
    """Until the body begins, redirects and all."""
    idle: float = 60.0
    """Without a single byte."""
    grace: float = 300.0
    """Before a try has to have been as fast as `slowest`."""
    slowest: float = 10_000.0
    """Bytes a second, on average over one try."""
    tries: int = 4
    """Of one source; a try that brings a resumable download on is not counted."""
    pause: float = 1.0
    """After the first failed try; it doubles with each."""
    longest_pause: float = 60.0
    """Whatever a server asks for with `Retry-After`."""
    redirects: int = 10
    patience: float = 300.0
    """With another process that fetches the same file, and brings it on by nothing."""
    connections: int = 4
    """At most, for a large file that comes slowly over one."""


class Transient(DownloadFailed):
    """A failure that the next try may not meet; `kind` is what it is after the last.

    `wait` is what the server asked for (seconds), and `restart` says that what was kept
    of earlier tries does not fit what the server has now.
    """

    def __init__(
        self,
        reason: str,
        wait: float | None = None,
        restart: bool = False,
        kind: type[DownloadFailed] = Unreachable,
    ) -> None:
        super().__init__(reason)
        self.kind = kind
        self.wait = wait
        self.restart = restart
