"""Computer-vision models behind one interface, on whatever hardware there is.

    from inference_models import AutoModel

    model = AutoModel.from_pretrained("yolox-nano")
    predictions = model(image)

Names are imported on first use: importing the package itself loads next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference_models.activations import sigmoid, softmax
    from inference_models.auto import AutoModel
    from inference_models.boxes import (
        cxcywh_to_xyxy,
        nms,
    )
    from inference_models.card import (
        Artifact,
        Bundle,
        Facts,
        File,
        ModelCard,
        Plan,
        TensorSpec,
        distinct_labels,
    )
    from inference_models.errors import (
        DownloadFailed,
        Forbidden,
        HashMismatch,
        InferenceModelsError,
        InvalidCard,
        InvalidInput,
        InvalidOption,
        InvalidWeights,
        LicenseNotAllowed,
        MissingDependency,
        ModelClosed,
        ModelNotFound,
        NoBackend,
        Offline,
        PaymentRequired,
        RateLimited,
        RunFailed,
        Unauthorized,
        Unavailable,
        Unreachable,
        UsagePaused,
    )
    from inference_models.frame import Frame
    from inference_models.hookspecs import hookimpl
    from inference_models.images import (
        Array,
        Image,
    )
    from inference_models.inputs import check_inputs, host_array
    from inference_models.interfaces import (
        Access,
        Architecture,
        Backend,
        ConfidenceOptions,
        NoOptions,
        Operations,
        Session,
        WeightsProvider,
        check_share,
    )
    from inference_models.model import Model
    from inference_models.negotiation.explain import Explanation
    from inference_models.negotiation.options import Candidate
    from inference_models.preprocess import Preprocessing
    from inference_models.ranking import highest
    from inference_models.results import (
        ClassificationPrediction,
        Detections,
        InstanceDetections,
        KeyPoints,
        MultiLabelClassificationPrediction,
    )
    from inference_models.scores import Scores
    from inference_models.tasks import (
        ClassificationModel,
        InstanceSegmentationModel,
        KeyPointsDetectionModel,
        MultiLabelClassificationModel,
        ObjectDetectionModel,
    )
    from inference_models.vision_language import Encoding, VisionLanguageModel

_HOMES = {
    "Access": "interfaces",
    "Architecture": "interfaces",
    "Array": "images",
    "Artifact": "card",
    "AutoModel": "auto",
    "Backend": "interfaces",
    "Bundle": "card",
    "Candidate": "negotiation.options",
    "ClassificationModel": "tasks",
    "ClassificationPrediction": "results",
    "ConfidenceOptions": "interfaces",
    "Detections": "results",
    "DownloadFailed": "errors",
    "Encoding": "vision_language",
    "Explanation": "negotiation.explain",
    "Facts": "card",
    "File": "card",
    "Forbidden": "errors",
    "Frame": "frame",
    "HashMismatch": "errors",
    "Image": "images",
    "InferenceModelsError": "errors",
    "InstanceDetections": "results",
    "InstanceSegmentationModel": "tasks",
    "InvalidCard": "errors",
    "InvalidInput": "errors",
    "InvalidOption": "errors",
    "InvalidWeights": "errors",
    "KeyPoints": "results",
    "KeyPointsDetectionModel": "tasks",
    "LicenseNotAllowed": "errors",
    "MissingDependency": "errors",
    "Model": "model",
    "ModelCard": "card",
    "ModelClosed": "errors",
    "ModelNotFound": "errors",
    "MultiLabelClassificationModel": "tasks",
    "MultiLabelClassificationPrediction": "results",
    "NoBackend": "errors",
    "NoOptions": "interfaces",
    "ObjectDetectionModel": "tasks",
    "Offline": "errors",
    "Operations": "interfaces",
    "PaymentRequired": "errors",
    "Plan": "card",
    "Preprocessing": "preprocess",
    "RateLimited": "errors",
    "RunFailed": "errors",
    "Scores": "scores",
    "Session": "interfaces",
    "TensorSpec": "card",
    "Unauthorized": "errors",
    "Unavailable": "errors",
    "Unreachable": "errors",
    "UsagePaused": "errors",
    "VisionLanguageModel": "vision_language",
    "WeightsProvider": "interfaces",
    "check_inputs": "inputs",
    "check_share": "interfaces",
    "cxcywh_to_xyxy": "boxes",
    "distinct_labels": "card",
    "highest": "ranking",
    "hookimpl": "hookspecs",
    "host_array": "inputs",
    "nms": "boxes",
    "sigmoid": "activations",
    "softmax": "activations",
}

__all__ = [
    "Access",
    "Architecture",
    "Array",
    "Artifact",
    "AutoModel",
    "Backend",
    "Bundle",
    "Candidate",
    "ClassificationModel",
    "ClassificationPrediction",
    "ConfidenceOptions",
    "Detections",
    "DownloadFailed",
    "Encoding",
    "Explanation",
    "Facts",
    "File",
    "Forbidden",
    "Frame",
    "HashMismatch",
    "Image",
    "InferenceModelsError",
    "InstanceDetections",
    "InstanceSegmentationModel",
    "InvalidCard",
    "InvalidInput",
    "InvalidOption",
    "InvalidWeights",
    "KeyPoints",
    "KeyPointsDetectionModel",
    "LicenseNotAllowed",
    "MissingDependency",
    "Model",
    "ModelCard",
    "ModelClosed",
    "ModelNotFound",
    "MultiLabelClassificationModel",
    "MultiLabelClassificationPrediction",
    "NoBackend",
    "NoOptions",
    "ObjectDetectionModel",
    "Offline",
    "Operations",
    "PaymentRequired",
    "Plan",
    "Preprocessing",
    "RateLimited",
    "RunFailed",
    "Scores",
    "Session",
    "TensorSpec",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
    "UsagePaused",
    "VisionLanguageModel",
    "WeightsProvider",
    "check_inputs",
    "check_share",
    "cxcywh_to_xyxy",
    "distinct_labels",
    "highest",
    "hookimpl",
    "host_array",
    "nms",
    "sigmoid",
    "softmax",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"inference_models.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
