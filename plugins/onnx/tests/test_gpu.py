"""The same promises on an NVIDIA GPU."""

from __future__ import annotations

import ctypes
import gc
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx.parser
import pytest
from onnx import numpy_helper

from inference_models import Operations, Preprocessing, RunFailed, Unavailable
from inference_models.images import read_images
from inference_models.lending import operations_of
from inference_models.registry import installed
from inference_models_onnx import OnnxBackend
from inference_models_onnx.device_array import DeviceArray
from inference_models_onnx.stream import stream_on

pytestmark = pytest.mark.gpu

NETWORK = """<ir_version: 8, opset_import: ["": 17]>
    network (float[N, 3, 32, 32] input) => (float[N, 10] output) {
        filtered = Conv<pads = [1, 1, 1, 1]>(input, filters)
        positive = Relu(filtered)
        mean = GlobalAveragePool(positive)
        flat = Flatten(mean)
        output = Gemm(flat, weights)
    }"""
DOUBLE = "graph (float[N] x) => (float[N] y) { y = Add(x, x) }"
STATE = """graph (float[N, 4] input, float16[N, 2] state)
    => (float[N, 4] output, float16[N, 2] next)
    { output = Add(input, input)  next = Add(state, state) }"""
BOOL = "graph (bool[N] x) => (bool[N] y) { y = Not(x) }"
# 4 MiB for each row.
WIDE = """graph (float[N, 1] x) => (float[N, M] y)
    <int64[2] shape = {1, 1048576}> { y = Expand(x, shape) }"""
# No GPU computes determinants for ONNX Runtime.
CPU_NODE = """graph (float[N, 2, 2] x) => (float[N] y)
    { twice = Add(x, x)  y = Det(twice) }"""

# CUDA multiplies float32 with ten bits of precision, as torch's convolutions do.
TOLERANCE = 5e-3

# Long enough for all of a wrong run to be over: a tenth of a second.
SLOW = 200_000_000


@pytest.fixture
def network():
    """A small network with random weights."""
    draw = np.random.default_rng(0).standard_normal
    model = onnx.parser.parse_model(NETWORK)
    for name, shape in {"filters": (16, 3, 3, 3), "weights": (16, 10)}.items():
        array = draw(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def images(batch, seed=0):
    return np.random.default_rng(seed).random((batch, 3, 32, 32), np.float32)


def free_memory():
    stream, free, total = stream_on(0), ctypes.c_size_t(), ctypes.c_size_t()
    with stream.current():
        stream._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    return free.value


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_gives_what_the_cpu_gives(start, network, cuda, batch, cuda_graph):
    expected = start(network)(input=images(batch))["output"]
    session = start(network, device=cuda, cuda_graph=cuda_graph)

    for _ in range(3):
        output = session(input=images(batch))["output"]
        assert isinstance(output, DeviceArray)
        np.testing.assert_allclose(output.cpu(), expected, rtol=1e-3, atol=TOLERANCE)


def test_arrays_of_the_host_and_of_the_device_give_the_same(
    start, network, torch, cuda
):
    session = start(network, device=cuda)
    batch = images(4)
    by_host = session(input=batch)["output"].cpu()
    by_device = session(input=torch.from_numpy(batch).to(cuda))["output"].cpu()

    assert np.array_equal(by_host, by_device)


def test_outputs_stay_on_the_gpu_and_are_taken_there(start, cuda):
    session = start(STATE, device=cuda)
    ones = {"input": np.ones((1, 4), "f4"), "state": np.ones((1, 2), "f2")}
    first = session(**ones)
    second = session(input=first["output"], state=first["next"])

    assert second["output"].__dlpack_device__() == (2, 0)
    assert second["output"].cpu().tolist() == [[4] * 4]
    assert Operations().host(second["next"]).tolist() == [[4, 4]]


def test_a_tensor_on_the_gpu_stays_there(start, torch, cuda):
    session = start(STATE, device=cuda)
    state = torch.ones(1, 2, dtype=torch.float16, device=cuda)
    first = session(input=torch.ones(1, 4, device=cuda), state=state)
    output = torch.from_dlpack(first["output"])

    assert str(output.device) == cuda
    assert output.tolist() == [[2] * 4]


def test_bfloat16_goes_in_and_out(start, torch, cuda):
    graph = """graph (bfloat16[N] x) => (bfloat16[N] y)
        { wide = Cast<to = 1>(x)  twice = Add(wide, wide)  y = Cast<to = 16>(twice) }"""
    session = start(graph, device=cuda)
    x = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)

    for place in ("cpu", cuda):
        output = session(x=x.to(place))["y"]
        assert Operations().host(output).tolist() == [3, -4]
        assert torch.from_dlpack(output).tolist() == [3, -4]


def test_booleans_go_in_and_out(start, torch, cuda):
    session = start(BOOL, device=cuda)
    x = torch.tensor([True, False])

    for given in (x, x.to(cuda), x.numpy()):
        assert session(x=given)["y"].cpu().tolist() == [False, True]


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_work_of_another_stream_is_waited_for(start, torch, cuda, cuda_graph):
    session = start(DOUBLE, device=cuda, cuda_graph=cuda_graph)
    for _ in range(3):
        with torch.cuda.stream(torch.cuda.Stream(cuda)):
            x = torch.zeros(1 << 20, device=cuda)
            torch.cuda._sleep(SLOW)
            x.add_(1)
            y = torch.from_dlpack(session(x=x)["y"])

        assert (y == 2).all()


@pytest.mark.parametrize("on_side", [False, True])
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_a_dropped_output_is_not_written_to_while_it_is_read(
    start, torch, cuda, on_side, cuda_graph
):
    session = start(DOUBLE, device=cuda, cuda_graph=cuda_graph)
    ones, twos = (torch.full((1 << 20,), v, device=cuda) for v in (1.0, 2.0))
    for x in (ones, twos, ones):
        session(x=x)
    side = torch.cuda.Stream(cuda) if on_side else torch.cuda.default_stream(cuda)
    with torch.cuda.stream(side):
        y = torch.from_dlpack(session(x=ones)["y"])
        torch.cuda._sleep(SLOW)
        read = y.clone()
        del y
    for _ in range(3):
        session(x=twos)
    torch.cuda.synchronize(cuda)

    assert (read == 2).all()


def test_too_large_a_batch_is_named_and_the_session_works_on(start, cuda):
    session = start(WIDE, device=cuda)
    with pytest.raises(RunFailed, match="cuda:0 has too little memory for a batch of"):
        session(x=np.ones((1 << 18, 1), np.float32))
    output = session(x=np.ones((2, 1), np.float32))["y"]

    assert output.shape == (2, 1 << 20)
    assert (output.cpu() == 1).all()


def test_loads_and_closes_leave_the_memory_as_it_was(start, network, cuda):
    left = []
    for _ in range(20):
        session = start(network, device=cuda)
        wide = start(WIDE, device=cuda)
        session(input=images(8))
        wide(x=np.ones((64, 1), np.float32))
        session.close()
        wide.close()
        gc.collect()
        left.append(free_memory())

    # A run of the wide graph takes 256 MiB; libraries may load something at first.
    assert max(left[2:]) - min(left[2:]) < 2**25


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_threads_get_what_a_single_caller_gets(start, network, cuda, cuda_graph):
    session = start(network, device=cuda, cuda_graph=cuda_graph)
    batches = [images(4, seed) for seed in range(8)]
    session(input=batches[0])
    expected = [session(input=batch)["output"].cpu() for batch in batches]

    def call(number):
        outputs = [session(input=batches[number])["output"] for _ in range(50)]
        return all(np.array_equal(o.cpu(), expected[number]) for o in outputs)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(8)))


def test_a_recorded_network_gives_what_it_gives_otherwise(start, network, cuda):
    plain = start(network, device=cuda)
    recorded = start(network, device=cuda, cuda_graph=True)
    for batch in (1, 4, 1, 4, 2, 1):
        for seed in range(3):
            given = images(batch, seed)
            expected = plain(input=given)["output"].cpu()
            found = recorded(input=given)["output"].cpu()

            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=TOLERANCE)


def test_a_recorded_network_writes_to_nothing_that_it_returned(start, network, cuda):
    session = start(network, device=cuda, cuda_graph=True)
    kept = [session(input=images(2, seed))["output"] for seed in range(5)]
    before = [output.cpu() for output in kept]
    session(input=images(2, 9))

    assert all(np.array_equal(o.cpu(), b) for o, b in zip(kept, before, strict=True))
    assert not np.array_equal(before[3], before[4])


def test_a_graph_with_nodes_on_the_cpu_cannot_be_recorded(start, cuda):
    with pytest.raises(Unavailable, match=r"cannot run as a CUDA graph: .*cuda_graph="):
        start(CPU_NODE, device=cuda, cuda_graph=True)


def test_nodes_on_the_cpu_are_told_of(start, cuda, caplog):
    caplog.set_level(logging.INFO, "inference_models")
    session = start(CPU_NODE, device=cuda)
    output = session(x=np.eye(2, dtype=np.float32)[None])["y"]

    (told,) = (
        r for r in caplog.records if "record of where nodes run" in r.getMessage()
    )
    assert told.levelname == "WARNING"
    assert "1 Det" in told.getMessage()
    assert output.cpu().tolist() == [4]


def test_nothing_is_told_of_a_network_that_is_all_on_the_gpu(
    start, network, cuda, caplog
):
    caplog.set_level(logging.INFO, "inference_models")
    start(network, device=cuda)

    assert not caplog.records


def test_torch_prepares_images_on_the_gpu_for_a_session(start, network, torch, cuda):
    pytest.importorskip("inference_models_torch")
    operations = operations_of(OnnxBackend(), cuda, installed())
    spec = Preprocessing(size=(32, 32))
    pixels = np.random.default_rng(0).integers(0, 256, (57, 81, 3), np.uint8)
    batch, _ = operations.prepare(read_images(pixels), spec)
    expected, _ = Operations().prepare(read_images(pixels), spec)
    output = start(network, device=cuda)(input=batch)["output"]
    joined = operations.join([output, output])

    assert str(batch.device) == cuda
    assert np.abs(operations.host(batch) - expected).max() <= 2.01 / 255
    assert str(joined.device) == cuda
    assert np.array_equal(operations.host(joined)[1:], operations.host(output))
