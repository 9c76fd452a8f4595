"""torch's one pool of threads, which all models of a process share."""

from __future__ import annotations

import functools
import os
import sys

import torch

from inference_models import Unavailable
from inference_models.hardware import usable_cpus


def limit_threads(wanted: int | None) -> None:
    """Set the number of threads, or keep it within this process's share of the CPUs.

    torch counts the processors it may run on and not the quota of its container.
    Raises `Unavailable` for several in a process that was forked from one with a pool.
    """
    if _owner() != os.getpid() and wanted not in (None, 1):
        raise Unavailable(
            f"torch cannot have {wanted} threads in a process that was forked from one "
            "with a model; leave threads out, or start it with multiprocessing's "
            "'spawn'"
        )
    current = torch.get_num_threads()
    count = wanted or min(current, usable_cpus())
    if count != current:
        torch.set_num_threads(count)


@functools.cache
def _owner() -> int:
    """The process that has the pool; one that is forked from it is left with 1 thread.

    The others do not come along, and GCC's OpenMP would wait for them for ever.
    """
    if sys.platform != "win32":
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
    return os.getpid()
