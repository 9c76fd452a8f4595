"""The class that users hold for each task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inference_models.errors import RunFailed
from inference_models.model import Model
from inference_models.results import (
    ClassificationPrediction,
    Detections,
    MultiLabelClassificationPrediction,
)
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
        ClassificationModel,
        MultiLabelClassificationModel,
        VisionLanguageModel,
    )
    if cls.task is not None
}
"""The class of each task; a task without one gets `Model`, which returns a list."""
