"""The class that users hold for each task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inference_models.errors import RunFailed
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

if TYPE_CHECKING:
    from inference_models.images import Color


class ObjectDetectionModel(Model):
    """Returns one `Detections` an image, in a list, also for a single image."""

    task = "object-detection"

    if TYPE_CHECKING:

        def __call__(
            self,
            images: Any,
            *,
            input_color_format: Color | None = None,
            **options: Any,
        ) -> list[Detections]:
            """Boxes of each image; options as the architecture's."""


class InstanceSegmentationModel(Model):
    """Returns one `InstanceDetections` an image, in a list, also for a single image."""

    task = "instance-segmentation"

    if TYPE_CHECKING:

        def __call__(
            self,
            images: Any,
            *,
            input_color_format: Color | None = None,
            **options: Any,
        ) -> list[InstanceDetections]:
            """Boxes and masks of each image; options as the architecture's."""


class KeyPointsDetectionModel(Model):
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

    if TYPE_CHECKING:

        def __call__(
            self,
            images: Any,
            *,
            input_color_format: Color | None = None,
            **options: Any,
        ) -> list[KeyPoints]:
            """Things and their points; options as the architecture's."""


class ClassificationModel(Model):
    """Returns one `ClassificationPrediction` for all images of a call."""

    task = "classification"

    if TYPE_CHECKING:

        def __call__(
            self,
            images: Any,
            *,
            input_color_format: Color | None = None,
            **options: Any,
        ) -> ClassificationPrediction:
            """One prediction for all images."""

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


class MultiLabelClassificationModel(Model):
    """Returns one `MultiLabelClassificationPrediction` an image, in a list."""

    task = "multi-label-classification"

    if TYPE_CHECKING:

        def __call__(
            self,
            images: Any,
            *,
            input_color_format: Color | None = None,
            **options: Any,
        ) -> list[MultiLabelClassificationPrediction]:
            """The classes of each image."""


TASKS: dict[str, type[Model]] = {
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
