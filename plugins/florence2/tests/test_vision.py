"""The image encoder on a CPU, which takes a picture in strips."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from inference_models_florence2 import vision  # noqa: E402
from inference_models_florence2.layout import vision_config  # noqa: E402

from .florence_folders import TINY_VISION  # noqa: E402


@pytest.fixture
def tower():
    torch.manual_seed(0)
    return vision.Tower(vision_config({"vision_config": TINY_VISION})).eval()


@pytest.mark.parametrize("strip", [1, 1000, 4000])
@pytest.mark.parametrize("size", [(96, 96), (160, 64)])
@pytest.mark.parametrize("count", [1, 2])
def test_strips_give_what_a_picture_gives_as_a_whole(
    strip, size, count, tower, monkeypatch
):
    pixels = torch.randn(count, 3, *size)
    with torch.inference_mode():
        monkeypatch.setattr(vision, "_STRIP", 2**30)
        expected = tower(pixels)
        monkeypatch.setattr(vision, "_STRIP", strip)
        found = tower(pixels)

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("strip", [1, 2000, 2**30])
def test_strips_are_whole_windows_that_make_the_picture(strip, monkeypatch):
    monkeypatch.setattr(vision, "_STRIP", strip)
    picture = torch.randn(2, 22, 8, 16)
    strips = vision.strips(picture, 4)

    assert all(own.shape[1] % 4 == 0 for own in strips[:-1])
    assert torch.equal(torch.cat(strips, dim=1), picture)


def test_a_large_picture_is_several_strips():
    assert len(vision.strips(torch.empty(1, 192, 192, 128), 12)) > 1


def test_what_is_encoded_stays_as_it_was(tower):
    pixels = torch.randn(1, 3, 64, 64)
    before = pixels.clone()
    with torch.inference_mode():
        tower(pixels)

    assert torch.equal(pixels, before)
