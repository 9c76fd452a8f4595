"""The backend that runs ONNX files with OpenVINO, on the CPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from inference_models import (
    Architecture,
    Artifact,
    Backend,
    Bundle,
    ModelCard,
    Plan,
    Session,
    Unavailable,
    hookimpl,
)
from inference_models.interfaces import check_at_least_one


@attrs.frozen
class OpenVinoBackend(Backend):
    """`threads` is how many a call uses; None: as many as OpenVINO chooses."""

    name = "openvino"
    formats = ("onnx",)
    rank = 50  # for those who name it: ONNX Runtime's has 100

    threads: int | None = attrs.field(default=None, validator=check_at_least_one)

    def devices(self) -> Sequence[str]:
        """The CPU, where OpenVINO is installed."""
        if importlib.util.find_spec("openvino") is None:
            raise Unavailable("OpenVINO is not installed; type: pip install openvino")
        return ["cpu"]

    def precisions(self, artifact: Artifact, device: str) -> Sequence[str]:
        """Single precision, for weights in half precision, too."""
        return ["fp32"]

    def refuse(self, card: ModelCard, artifact: Artifact, plan: Plan) -> str | None:
        """Weights whose numbers NumPy does not have, or that are quantized."""
        if artifact.precision in ("fp32", "fp16"):
            return None
        return (
            f"the weights are in {artifact.precision}, and this backend runs fp32 and "
            "fp16; name another backend"
        )

    def open(
        self, bundle: Bundle, architecture: Architecture[Any], plan: Plan
    ) -> Mapping[str, Session]:
        """Compile the file of each graph."""
        from inference_models_openvino.session import OpenVinoSession

        graphs = bundle.artifact.graphs
        return {g: OpenVinoSession(bundle.path(g), self.threads) for g in graphs}


@hookimpl
def backends() -> list[type[Backend]]:
    """The classes that this distribution brings."""
    return [OpenVinoBackend]
