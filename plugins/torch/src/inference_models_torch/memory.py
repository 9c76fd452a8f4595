"""What is done, and said, where a device's memory is used up."""

from __future__ import annotations

import torch

from inference_models import RunFailed
from inference_models.errors import out_of_memory


def ran_out(device: torch.device, batch: int) -> RunFailed:
    """The error to raise; what torch keeps for later is given back first."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return out_of_memory(device, batch)
