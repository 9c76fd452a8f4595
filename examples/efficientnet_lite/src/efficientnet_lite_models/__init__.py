"""EfficientNet-Lite as a third-party pack: one architecture, and one public card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inference_models import (
    Architecture,
    ClassificationPrediction,
    Frame,
    NoOptions,
    Operations,
    hookimpl,
)


class EfficientNetLite(Architecture[NoOptions]):
    """EfficientNet-Lite0: Tan and Le, arXiv:1905.11946, without squeeze-excitation.

    Graph `main`: "input" (B, 3, 224, 224) -> "output" (B, C), logits.
    """

    name = "efficientnet-lite"
    tasks = ("classification",)

    def modules(self, loaded: Any = None) -> Mapping[str, Any]:
        """The network, with one logit a label."""
        from efficientnet_lite_models.network import EfficientNetLite0

        return {"main": EfficientNetLite0(len(self.card.labels))}

    def postprocess(
        self,
        outputs: dict[str, Any],
        frames: Sequence[Frame],
        options: NoOptions,
        ops: Operations,
    ) -> list[ClassificationPrediction]:
        """One prediction for the batch."""
        logits = self.columns(ops.host(outputs["output"]), hidden=-np.inf)
        return [ClassificationPrediction.from_logits(logits, self.class_names)]


@hookimpl
def architectures() -> list[type[Architecture[Any]]]:
    """What this pack adds."""
    return [EfficientNetLite]
