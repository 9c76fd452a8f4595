"""What a device says when its memory is used up."""

from __future__ import annotations

import torch

from inference_models import RunFailed


def out_of_memory(device: torch.device, batch: int) -> RunFailed:
    """The error to raise; what torch keeps for later is given back first."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return RunFailed(
        f"{device} has too little memory for a batch of {batch}; load the model with a "
        "smaller batch_size"
    )
