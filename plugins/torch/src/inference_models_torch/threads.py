"""torch's one pool of threads, which all models of a process share."""

from __future__ import annotations

import torch

from inference_models.hardware import usable_cpus


def limit_threads(wanted: int | None) -> None:
    """Set the number of threads, or keep it within this process's share of the CPUs.

    torch counts the processors it may run on and not the quota of its container.
    """
    current = torch.get_num_threads()
    count = wanted or min(current, usable_cpus())
    if count != current:
        torch.set_num_threads(count)
