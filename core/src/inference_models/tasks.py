"""The class that users hold for each task."""

from __future__ import annotations

from typing import Any

from inference_models.errors import InvalidCard, RunFailed
from inference_models.model import Model
from inference_models.results import (
    ClassificationPrediction,
    Detections,
    InstanceDetections,
    KeyPoints,
    MultiLabelClassificationPrediction,
)
from inference_models.skeletons import Skeleton, skeletons_of
from inference_models.vision_language import VisionLanguageModel


class ObjectDetectionModel(Model[list[Detections]]):
    """Returns one `Detections` an image, in a list, also for a single image."""

    task = "object-detection"


class InstanceSegmentationModel(Model[list[InstanceDetections]]):
    """Returns one `InstanceDetections` an image, in a list, also for a single image."""

    task = "instance-segmentation"


class KeyPointsDetectionModel(Model[list[KeyPoints]]):
    """Returns one `KeyPoints` an image, in a list, also for a single image."""

    task = "keypoint-detection"

    @property
    def key_points_classes(self) -> list[list[str]]:
        """By class id, a name for each of the class's points, as the card has them."""
        return [list(skeleton.names) for skeleton in self._skeletons()]

    @property
    def skeletons(self) -> list[list[tuple[int, int]]]:
        """By class id, which points a line joins: pairs of their numbers, from 0."""
        return [list(skeleton.edges) for skeleton in self._skeletons()]

    def _skeletons(self) -> list[Skeleton]:
        bundle = self._loaded.bundle
        return skeletons_of(bundle.config, len(bundle.card.labels))

    def _check_results(self, results: Any, images: int) -> None:
        """Raise `InvalidCard` where the card names points that there are not."""
        super()._check_results(results, images)
        counts = [r.xy.shape[1] for r in results if isinstance(r, KeyPoints) and len(r)]
        named = max((len(each.names) for each in self._skeletons()), default=0)
        if counts and named > min(counts):
            raise InvalidCard(
                f"the card of {self.card.id!r} names {named} points of a class, and "
                f"the network finds {min(counts)}; correct its key_points"
            )


class ClassificationModel(Model[ClassificationPrediction]):
    """Returns one `ClassificationPrediction` for all images of a call."""

    task = "classification"

    def _check_results(self, results: Any, images: int) -> None:
        """Raise `RunFailed` unless predictions are of as many images as there are."""
        super()._check_results(results, images)
        known = [r for r in results if isinstance(r, ClassificationPrediction)]
        found = sum(map(len, known))
        if found != images or len(known) < len(results):
            name = self._loaded.architecture.name
            raise RunFailed(
                f"postprocess() of architecture {name!r} returned predictions of "
                f"{found} images, and not of {images}"
            )

    def join(self, results: list[ClassificationPrediction]) -> ClassificationPrediction:
        """One prediction for the images of all parts."""
        return ClassificationPrediction.join(results)


class MultiLabelClassificationModel(Model[list[MultiLabelClassificationPrediction]]):
    """Returns one `MultiLabelClassificationPrediction` an image, in a list."""

    task = "multi-label-classification"


TASKS: dict[str, type[Model[Any]]] = {
    cls.task: cls
    for cls in (
        ObjectDetectionModel,
        InstanceSegmentationModel,
        KeyPointsDetectionModel,
        ClassificationModel,
        MultiLabelClassificationModel,
        VisionLanguageModel,
    )
    if cls.task is not None
}
"""The class of each task; a task without one gets `Model`, which returns a list."""
