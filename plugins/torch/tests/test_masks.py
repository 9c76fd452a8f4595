"""Masks as torch works them out: those of the host, but for rounding at their edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inference_models import Frame, Preprocessing
from inference_models.preprocess import place
from inference_models_torch import masks
from inference_models_torch.masks import masks_to_original


def frame_of(**changes) -> Frame:
    return place(Preprocessing(**{"size": (32, 48), **changes}), 37, 53).frame


FRAMES = {
    "stretch": frame_of(),
    "letterbox": frame_of(resize="letterbox"),
    "a cut centre": frame_of(resize="center-crop"),
    "a crop": frame_of(crop=(10, 25, 70, 95)),
    "a padded crop": frame_of(crop=(20, 40, 80, 60), resize="letterbox"),
    "far larger": Frame(1080, 1920, 312, 312, 1920 / 312, 1080 / 312),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_masks_are_those_of_the_host(frame, dtype):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 8, 12, generator=generator).to(dtype)
    found = masks_to_original(logits, frame)
    levels = frame.maps_to_original(logits.numpy(), outside=-1)
    is_clear = np.abs(levels) > 1e-3

    assert (found.dtype, found.shape) == (np.bool_, levels.shape)
    np.testing.assert_array_equal(found[is_clear], (levels > 0)[is_clear])
    assert is_clear.mean() > 0.99


def test_a_stretched_mask_is_where_torch_interpolates_it():
    """As the official post-processing of detectors with masks does."""
    logits = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0))
    levels = torch.nn.functional.interpolate(logits[None], (37, 53), mode="bilinear")[0]
    frame = frame_of(size=(64, 64))
    is_clear = levels.abs().numpy() > 1e-4

    for found in (
        masks_to_original(logits, frame),
        frame.masks_to_original(logits.numpy()),
    ):
        np.testing.assert_array_equal(found[is_clear], (levels > 0).numpy()[is_clear])


def test_no_masks_are_none_of_the_photos_size(monkeypatch):
    monkeypatch.delattr(masks, "_grid")  # which is worked out for nothing
    found = masks_to_original(torch.empty(0, 8, 12), FRAMES["a crop"])

    assert found.shape == (0, 37, 53)


def test_masks_are_worked_out_a_few_at_a_time(monkeypatch):
    logits = torch.randn(5, 8, 12, generator=torch.Generator().manual_seed(0))
    at_once = masks_to_original(logits, FRAMES["stretch"])
    monkeypatch.setattr(masks, "_AT_ONCE", 2 * 37 * 53)
    sizes = []
    sample = masks.grid_sample
    monkeypatch.setattr(
        masks,
        "grid_sample",
        lambda part, *given, **named: (
            sizes.append(part.shape[1]) or sample(part, *given, **named)
        ),
    )

    np.testing.assert_array_equal(masks_to_original(logits, FRAMES["stretch"]), at_once)
    assert sizes == [2, 2, 1]
