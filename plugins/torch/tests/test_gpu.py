"""The same promises on an NVIDIA GPU."""

import numpy as np
import pytest
import torch

from inference_models import Preprocessing, prepare
from inference_models.images import read_images
from inference_models_torch import TorchBackend

pytestmark = pytest.mark.gpu

BATCH = np.random.default_rng(0).random((3, 3, 32, 32), np.float32)


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 5e-3), ("fp16", 0.02), ("bf16", 0.1)]
)
def test_gives_what_the_cpu_gives(workshop, precision, tolerance):
    session = workshop.session(workshop.safetensors(), precision, "cuda:0")
    output = session(input=BATCH)["output"]

    assert output.device.type == "cuda"
    found = TorchBackend().operations("cuda:0").host(output)
    np.testing.assert_allclose(found, workshop.reference(BATCH), atol=tolerance)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("grayscale", [True, False])
def test_prepares_as_the_host_does(interpolation, antialias, grayscale):
    spec = Preprocessing(
        size=(31, 47),
        resize="letterbox",
        interpolation=interpolation,
        antialias=antialias,
        grayscale=grayscale,
    )
    pixels = np.random.default_rng(0).integers(0, 256, (57, 81, 3), np.uint8)
    tensor = torch.from_numpy(pixels[:, :, ::-1].copy()).permute(2, 0, 1)
    ops = TorchBackend().operations("cuda:0")
    expected, _ = prepare.prepare(read_images(pixels), spec)
    batch, _ = ops.prepare(read_images(pixels), spec)
    same, _ = ops.prepare(read_images(tensor.cuda()), spec)

    assert batch.device.type == "cuda"
    assert torch.equal(batch, same)
    assert np.abs(ops.host(batch) - expected).max() <= 2.01 / 255


def test_shrinks_more_than_its_kernel_can():
    ops = TorchBackend().operations("cuda:0")
    pixels = np.full((1, 20_000, 3), 9, np.uint8)
    batch, _ = ops.prepare(read_images(pixels), Preprocessing(size=(1, 8)))

    assert pytest.approx(batch.max().item() * 255) == 9


def test_says_which_batch_was_too_large(workshop):
    session = workshop.session(workshop.safetensors(), "fp32", "cuda:0")
    huge = torch.empty(1, device="cuda:0").expand(2**21, 3, 1024, 1024)

    with pytest.raises(Exception, match="too little memory for a batch of 2097152"):
        session(input=huge)
