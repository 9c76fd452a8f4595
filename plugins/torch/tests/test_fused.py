"""The kernel that prepares images on NVIDIA GPUs, on a machine that has none.

Triton's interpreter runs it, where TRITON_INTERPRET=1 says so before Triton is
imported; and its compiler needs no GPU.
"""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from inference_models import Preprocessing, prepare
from inference_models.images import read_images
from inference_models_torch import TorchBackend
from inference_models_torch.mixer import Mixer

from .pictures import (
    IMAGENET,
    STEPS,
    grey_levels,
    in_every_mode,
    levels_apart,
    picture,
    resized,
)

pytest.importorskip("triton", reason="needs Triton: python3 dev.py kernels")

PICTURES = [picture(19, 27), picture(19, 60), picture(9, 9)]
CAPABILITIES = [75, 80, 86, 89, 90, 100, 120]


@pytest.fixture
def ops(monkeypatch):
    """The operations of the CPU, with the kernel in place of their steps."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("needs TRITON_INTERPRET=1: python3 dev.py kernels")
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    lay = Mixer(torch.device("cpu")).lay
    monkeypatch.setattr("inference_models_torch.operations._lay_in_steps", lay)
    return TorchBackend().operations("cpu")


def check(ops, spec):
    pictures = read_images(PICTURES)
    expected, frames = prepare.prepare(pictures, spec)
    batch, found = ops.prepare(pictures, spec)

    assert found == frames
    apart = np.abs(grey_levels(ops.host(batch), spec) - grey_levels(expected, spec))
    assert apart.max() <= levels_apart(spec)


@in_every_mode
def test_prepares_as_the_host_does(resize, interpolation, antialias, ops):
    for size in ((11, 15), (30, 66)):
        check(ops, resized(size, resize, interpolation, antialias, **IMAGENET))


@pytest.mark.parametrize("changes", STEPS, ids=str)
def test_prepares_as_the_host_does_in_every_other_step(changes, ops):
    check(ops, Preprocessing(**{"size": (12, 20), **changes}))


@pytest.mark.parametrize("grayscale", [False, True])
def test_mixed_orders_of_channels_are_told_apart(grayscale, ops):
    image = picture(19, 27)
    rgb = torch.from_numpy(image[:, :, ::-1].transpose(2, 0, 1).copy())
    spec = Preprocessing(size=(12, 20), grayscale=grayscale)
    batch, _ = ops.prepare(read_images([image, rgb]), spec)

    assert torch.equal(batch[0], batch[1])


@pytest.fixture(scope="module")
def compiled():
    """Names of instruction sets, by kind of GPU and type of what is written."""
    script = Path(__file__).with_name("compile_kernel.py")
    usual = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, script, *map(str, CAPABILITIES)],
        capture_output=True,
        text=True,
        env=usual,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16", "u8"])
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_compiles_for_every_kind_of_gpu(capability, dtype, compiled):
    assert compiled[f"{capability} {dtype}"].startswith(f"sm_{capability}")
