"""YOLOX's decoding, on outputs made up here."""

from __future__ import annotations

import numpy as np
import pytest

from inference_models import Facts, RunFailed, TensorSpec
from inference_models.testing import ArchitectureTests
from yolox_models import STRIDES, Yolox

CELLS = sum((416 // stride) ** 2 for stride in STRIDES)


def scene(*boxes: tuple[int, int, float, float]) -> np.ndarray:
    """One image's output (CELLS, 85) with (cell, class, objectness, score) set."""
    cells = np.zeros((CELLS, 85), np.float32)
    for cell, class_id, objectness, score in boxes:
        cells[cell, 2:4] = np.log(4)
        cells[cell, 4], cells[cell, 5 + class_id] = objectness, score
    return cells


class TestYolox(ArchitectureTests):
    architecture = Yolox

    @pytest.fixture
    def outputs(self) -> dict[str, np.ndarray]:
        first = scene((0, 0, 0.9, 0.9), (1, 0, 0.8, 0.8), (2000, 15, 1.0, 0.5))
        return {"output": np.stack([first, scene((3500, 79, 1.0, 1.0))])}

    @pytest.fixture
    def facts(self) -> Facts:
        tensors = {
            "images": TensorSpec("float32", (1, 3, 416, 416)),
            "output": TensorSpec("float32", (1, CELLS, 12)),
        }
        return Facts("onnx", tensors)


def detections(cells: np.ndarray, tmp_path, **options):
    from inference_models import Bundle, Operations
    from inference_models.preprocess import place

    (card,) = Yolox.cards()
    model = Yolox(Bundle(card, card.artifacts[0], tmp_path))
    frame = place(model.preprocessing, 208, 416).frame
    chosen = Yolox.Options(**options)
    (found,) = model.postprocess({"output": cells[None]}, [frame], chosen, Operations())
    return found


def test_a_box_lies_where_its_cell_and_stride_say(tmp_path):
    # Cell 53 of the finest grid is column 1 of row 1; sizes are exp(log 4) strides.
    found = detections(scene((53, 2, 1.0, 0.5)), tmp_path)

    assert found.names == ["car"]
    assert found.confidence.tolist() == [0.5]
    np.testing.assert_allclose(found.xyxy, [[0, 0, 24, 24]], atol=1e-4)


def test_of_overlapping_boxes_of_a_class_the_surest_stays(tmp_path):
    cells = scene((500, 0, 1.0, 0.8), (501, 0, 1.0, 0.9), (502, 1, 1.0, 0.7))

    assert detections(cells, tmp_path, iou=0.3).names == ["person", "bicycle"]
    assert len(detections(cells, tmp_path, iou=1.0)) == 3


def test_no_more_boxes_come_than_are_asked_for(tmp_path):
    cells = scene((0, 0, 1.0, 0.8), (1000, 1, 1.0, 0.9), (2000, 2, 1.0, 0.7))

    assert detections(cells, tmp_path, max_detections=2).names == ["bicycle", "person"]


def test_a_box_that_is_no_numbers_never_comes(tmp_path):
    cells = scene((0, 0, 1.0, 0.8), (1000, 1, 1.0, 0.9))
    cells[1000, 0] = np.nan

    assert detections(cells, tmp_path).names == ["person"]


def test_a_network_that_gives_no_numbers_is_told(tmp_path):
    with pytest.raises(RunFailed, match="scores are not numbers"):
        detections(np.full((CELLS, 85), np.nan, np.float32), tmp_path)


@pytest.mark.parametrize("value", ["10", 10.5, float("inf")])
def test_a_number_of_boxes_is_whole(value, tmp_path):
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        detections(scene(), tmp_path, max_detections=value)


def test_claims_a_file_with_as_many_classes_as_it_has():
    tensors = {
        "images": TensorSpec("float32", (1, 3, 416, 416)),
        "output": TensorSpec("float32", (1, CELLS, 12)),
    }
    card = Yolox.claims(Facts("onnx", tensors))

    assert card is not None
    assert len(card.labels) == 7


def test_claims_no_file_whose_cells_do_not_fit():
    tensors = {
        "images": TensorSpec("float32", (1, 3, 640, 640)),
        "output": TensorSpec("float32", (1, CELLS, 12)),
    }

    assert Yolox.claims(Facts("onnx", tensors)) is None
