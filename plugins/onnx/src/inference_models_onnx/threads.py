"""How many threads a session runs on, and how they wait for work."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from inference_models.hardware import usable_cpus


@attrs.frozen
class Threads:
    """Threads of one session; those that spin wait awake for the next operator."""

    count: int
    spinning: bool


def physical_cores(root: Path = Path("/")) -> int:
    """Cores this process may use; matrix code gains nothing from more.

    0 where the system does not say, for ONNX Runtime to count them itself.
    """
    if not hasattr(os, "sched_getaffinity"):
        return 0
    cores = {_siblings(root, cpu) for cpu in os.sched_getaffinity(0)}
    return min(len(cores), usable_cpus(root))


def _siblings(root: Path, cpu: int) -> str:
    topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    try:
        return (topology / "thread_siblings_list").read_text()
    except OSError:
        return str(cpu)
