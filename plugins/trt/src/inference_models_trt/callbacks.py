"""What TensorRT calls while it works: a logger, and a monitor of its progress."""

from __future__ import annotations

import logging

from inference_models_trt.phases import Phases
from inference_models_trt.runtime import trt

log = logging.getLogger("inference_models")


class Logger(trt.ILogger):
    """Writes what TensorRT says to our log, and keeps its first error for messages."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.told = ""
        """The first error, in one line; empty if there was none."""

    def log(self, severity: trt.ILogger.Severity, message: str) -> None:
        """Called by TensorRT, in any thread."""
        if severity <= trt.ILogger.ERROR:
            self.told = self.told or " ".join(message.split())
        if severity <= trt.ILogger.WARNING:
            log.debug("TensorRT: %s", message)

    @property
    def reason(self) -> str:
        """The first error, or that there was none."""
        return self.told or "it gives no reason"


class Monitor(trt.IProgressMonitor):
    """Tells `Phases` of each phase of a build and of its steps."""

    def __init__(self, phases: Phases) -> None:
        trt.IProgressMonitor.__init__(self)
        self._phases = phases

    def phase_start(
        self, phase_name: str, parent_phase: str | None, num_steps: int
    ) -> None:
        """A phase begins."""
        self._phases.start(phase_name, parent_phase, num_steps)

    def step_complete(self, phase_name: str, step: int) -> bool:
        """A step is done; False ends the build."""
        return self._phases.step(phase_name, step)

    def phase_finish(self, phase_name: str) -> None:
        """A phase ends."""
        self._phases.finish(phase_name)
