"""Sessions on an NVIDIA GPU."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import attrs
import numpy as np
import pytest

from inference_models import InvalidWeights, Plan, Unavailable
from inference_models.testing import ToyArchitecture
from inference_models_trt import TrtBackend
from inference_models_trt.gpu import Gpu

pytestmark = pytest.mark.gpu


def batch_of(count, seed=0):
    values = np.random.default_rng(seed).random((count, 3, 8, 8))
    return values.astype(np.float32)


@pytest.fixture
def device():
    """The first GPU for which TensorRT is installed."""
    try:
        return TrtBackend().devices()[0]
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def bundle(toy, device, tmp_path):
    source, folder = toy(), tmp_path / "engine"
    folder.mkdir()
    plan, architecture = Plan(device, "fp32", (1, 2, 16)), ToyArchitecture(source)
    artifact = TrtBackend().derive(
        source, architecture, plan, folder, lambda what, share: None
    )
    return attrs.evolve(source, artifact=artifact, folder=folder)


@pytest.fixture
def session(bundle, device):
    architecture = ToyArchitecture(bundle)
    sessions = TrtBackend().open(bundle, architecture, Plan(device, "fp32"))
    yield sessions["main"]
    sessions["main"].close()


def check(output, batch):
    np.testing.assert_allclose(output, ToyArchitecture.expected(batch), atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 7, 16])
def test_an_engine_computes_what_its_source_does(session, count):
    check(session(input=batch_of(count))["output"].cpu(), batch_of(count))


def test_an_engine_that_was_cut_off_is_invalid_weights(bundle, device):
    content = bundle.path().read_bytes()
    bundle.path().write_bytes(content[: len(content) // 2])
    with pytest.raises(InvalidWeights, match="TensorRT cannot open"):
        TrtBackend().open(bundle, ToyArchitecture(bundle), Plan(device, "fp32"))


def test_inputs_on_the_gpu_are_read_there_when_they_are_made(session, device):
    torch = pytest.importorskip("torch")
    ready = torch.from_numpy(batch_of(2)).to(device)
    stream = torch.cuda.Stream(device)
    with torch.cuda.stream(stream):
        late = torch.zeros((2, 3, 8, 8), device=device)
        torch.cuda._sleep(200_000_000)
        late.copy_(ready)  # from the host, torch would wait for it
        output = session(input=late)["output"]

    check(output.cpu(), batch_of(2))


def test_memory_of_any_alignment_is_read(session, device):
    torch = pytest.importorskip("torch")
    memory = torch.zeros(2 * 3 * 8 * 8 + 1, device=device)
    memory[1:] = torch.from_numpy(batch_of(2)).flatten()
    output = session(input=memory[1:].view(2, 3, 8, 8))["output"]

    check(output.cpu(), batch_of(2))


def test_outputs_are_shared_by_dlpack_and_can_be_written_to(session):
    torch = pytest.importorskip("torch")
    tensor = torch.from_dlpack(session(input=batch_of(2))["output"])
    check(tensor.cpu().numpy(), batch_of(2))
    tensor[...] = 7
    output = session(input=batch_of(2))["output"]

    assert (tensor == 7).all()
    check(output.cpu(), batch_of(2))


def test_memory_that_is_still_read_is_not_written_by_the_next_run(session, device):
    torch = pytest.importorskip("torch")
    stream = torch.cuda.Stream(device)
    with torch.cuda.stream(stream):
        tensor = torch.from_dlpack(session(input=batch_of(2))["output"])
        torch.cuda._sleep(200_000_000)
        seen = tensor + 0
        del tensor
    for seed in range(1, 9):
        session(input=batch_of(2, seed))
    stream.synchronize()

    check(seen.cpu().numpy(), batch_of(2))


def test_a_thread_keeps_the_gpu_that_it_had(session):
    from cuda.bindings import driver

    _, before = driver.cuCtxGetCurrent()
    session(input=batch_of(1))
    _, after = driver.cuCtxGetCurrent()

    assert int(before) == int(after)


def test_eight_threads_get_what_one_gets(session):
    batches = [batch_of(number % 16 + 1, number) for number in range(8)]
    alone = [session(input=batch)["output"].cpu() for batch in batches]

    def calls(number):
        return [session(input=batches[number])["output"].cpu() for _ in range(100)]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(calls, range(8)))
    for outputs, expected in zip(found, alone, strict=True):
        for output in outputs:
            np.testing.assert_array_equal(output, expected)


def test_loading_and_closing_gives_memory_back(bundle, device):
    from cuda.bindings import driver

    free = []
    for _ in range(20):
        (session,) = (
            TrtBackend()
            .open(bundle, ToyArchitecture(bundle), Plan(device, "fp32"))
            .values()
        )
        session(input=batch_of(16))
        session.close()
        del session
        gc.collect()
        with Gpu(0).current():  # the driver tells it of a thread's own GPU alone
            free.append(driver.cuMemGetInfo()[1])

    assert min(free[5:]) >= min(free[:5]) - 2**22
