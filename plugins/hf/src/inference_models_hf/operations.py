"""What surrounds a model of transformers: images as its own processors prepare them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from inference_models import Frame, Image, Operations, Preprocessing
from inference_models_torch.operations import TorchOperations


class HfOperations(TorchOperations):
    """On the CPU by Pillow, as transformers itself; on a GPU as torch does."""

    def prepare(
        self, images: Sequence[Image], spec: Preprocessing
    ) -> tuple[torch.Tensor, list[Frame]]:
        """Images -> one batch on the device, of `spec.dtype`, and a frame for each."""
        if self._resizing.type != "cpu" or spec.dtype == "bfloat16":
            return super().prepare(images, spec)
        batch, frames = Operations.prepare(self, images, spec)
        return torch.from_numpy(batch).to(self._device), frames
