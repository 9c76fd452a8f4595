"""How far a build is, from the phases that TensorRT enters, walks through and ends."""

from __future__ import annotations

import threading

import attrs

from inference_models.progress import Report


@attrs.define
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Phases:
    """The phases of a build that have begun, which may nest and repeat; thread-safe.

    TensorRT tells of inner phases only as they begin, which would take progress back:
    the share that is reported, 0 to 1, never falls.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._open: dict[str, _Phase] = {}
        self._share = 0.0
        self._lock = threading.Lock()
        self.stop = False
        """Set to end the build at its next step."""
        self.failure: BaseException | None = None
        """What a report raised; it must not pass through native code."""

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase of so many steps begins, within its parent."""
        with self._lock:
            self._open[name] = _Phase(parent, max(steps, 1))

    def step(self, name: str, step: int) -> bool:
        """A step, counted from 0, is done; False if the build is to end."""
        with self._lock:
            if name in self._open:
                self._open[name].done = step + 1
            self._tell(name)
            return not self.stop

    def finish(self, name: str) -> None:
        """A phase ends, with all its steps or by being stopped."""
        with self._lock:
            self._open.pop(name, None)

    def _tell(self, name: str) -> None:
        roots = [key for key, phase in self._open.items() if phase.parent is None]
        shares = [self._share_of(root) for root in roots]
        self._share = max([self._share, *shares])
        try:
            self._report(f"building the engine: {name.lower()}", self._share)
        except BaseException as error:  # noqa: BLE001 - raised again by who builds
            self.failure, self.stop = self.failure or error, True

    def _share_of(self, name: str, depth: int = 0) -> float:
        phase = self._open[name]
        inner = [key for key, p in self._open.items() if p.parent == name != key]
        begun = max((self._share_of(key, depth + 1) for key in inner), default=0.0)
        return min(1.0, (phase.done + begun) / phase.steps) if depth < 32 else 0.0
