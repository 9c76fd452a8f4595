"""What is done, and said, where a device's memory is used up."""

from __future__ import annotations

import re

import torch

from inference_models import RunFailed
from inference_models.errors import out_of_memory

# What the CPU's allocator says, and CUDA and its libraries beside torch's own.
_NO_MEMORY = re.compile(r"allocate memory|out of memory|_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a run failed since its device has too little memory."""
    known = isinstance(error, torch.OutOfMemoryError)
    return known or _NO_MEMORY.search(str(error)) is not None


def ran_out(device: torch.device, batch: int, error: BaseException) -> RunFailed:
    """The error to raise for another; what that and torch hold is given back first."""
    failure = out_of_memory(device, batch, error)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return failure
