from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from inference_models import Operations, Preprocessing
from inference_models.images import read_images

# The bfloat16 output has all be device arrays, on the CPU too.
GRAPH = """graph (float[N, 2] x)
    => (float[N, 2] y, bfloat16[N, 2] half, bool[N, 2] low)
    <float zero = {0}>
    { y = Add(x, x)  half = Cast<to = 16>(x)  low = Less(x, zero) }"""

NUMBERS = np.array([[1.5, -2.0], [0.25, 3.0]], np.float32)
EXPECTED = {
    "y": (NUMBERS * 2).tolist(),
    "half": NUMBERS.tolist(),
    "low": (NUMBERS < 0).tolist(),
}


@pytest.fixture
def outputs(start):
    return start(GRAPH)(x=NUMBERS)


@pytest.fixture
def in_torch():
    pytest.importorskip("torch")
    operations = pytest.importorskip("inference_models_torch.operations")
    return operations.TorchOperations("cpu")


@pytest.fixture(params=["host", "torch"])
def operations(request):
    if request.param == "host":
        return Operations()
    return request.getfixturevalue("in_torch")


def test_the_cpu_keeps_the_hosts_operations_and_imports_nothing():
    code = (
        "import sys, inference_models_onnx as plugin\n"
        "from inference_models.lending import operations_of\n"
        "from inference_models.registry import installed\n"
        "operations = operations_of(plugin.OnnxBackend(), 'cpu', installed())\n"
        "print(type(operations).__name__, 'torch' in sys.modules)\n"
    )
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert found == "Operations False\n"


@pytest.mark.parametrize("name", EXPECTED)
def test_outputs_of_a_session_arrive_at_the_host(operations, outputs, name):
    found = operations.host(outputs[name])

    assert isinstance(found, np.ndarray)
    assert found.tolist() == EXPECTED[name]
    assert found.dtype == ("bool" if name == "low" else "float32")


@pytest.mark.parametrize("name", EXPECTED)
def test_batches_of_one_output_are_joined(operations, outputs, name):
    joined = operations.join([outputs[name], outputs[name]])
    found = operations.host(joined)

    assert found.tolist() == EXPECTED[name] * 2
    assert found.dtype == ("bool" if name == "low" else "float32")


def test_a_single_batch_is_not_touched(operations, outputs):
    assert operations.join([outputs["y"]]) is outputs["y"]


def test_torchs_tensors_arrive_at_the_host(in_torch):
    torch = pytest.importorskip("torch")
    half = torch.tensor([1.5, -2.0], dtype=torch.float16)

    assert in_torch.host(half).tolist() == [1.5, -2.0]


def test_images_are_prepared_by_torch(in_torch):
    spec = Preprocessing(size=(8, 8))
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    batch, frames = in_torch.prepare(read_images(pixels), spec)
    expected, _ = Operations().prepare(read_images(pixels), spec)

    assert type(batch).__module__ == "torch"
    assert len(frames) == 1
    np.testing.assert_allclose(in_torch.host(batch), expected, atol=2.01 / 255)


def test_bfloat16_arrives_at_the_host_without_torch(outputs):
    assert Operations().host(outputs["half"]).tolist() == NUMBERS.tolist()
