"""The same promises on an NVIDIA GPU."""

import gc
import itertools
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from inference_models import ModelClosed, Preprocessing, RunFailed, TensorSpec, prepare
from inference_models.images import read_images
from inference_models_torch import TorchBackend
from inference_models_torch.mixer import mixer
from inference_models_torch.session import TorchSession

from .pictures import (
    IMAGENET,
    RANDOM,
    STEPS,
    grey_levels,
    in_every_mode,
    levels_apart,
    picture,
    resized,
)

pytestmark = pytest.mark.gpu

DEVICE = "cuda:0"
BATCH = RANDOM.random((3, 3, 32, 32), np.float32)
IMAGES = {"x": TensorSpec("float32", ("batch", 3, "height", "width"))}
OUTPUT = {"y": TensorSpec("float32", ("batch", 3, "height", "width"))}
MEGABYTE = 2**20


@pytest.fixture
def ops():
    return TorchBackend().operations(DEVICE)


def session_of(module, graphs=8):
    module = module.to(DEVICE).eval()
    return TorchSession(module, (IMAGES, OUTPUT), DEVICE, torch.float32, False, graphs)


def recordings(session):
    """Shapes that are replayed."""
    return [s for s, known in session._graphs._known.items() if hasattr(known, "graph")]


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("graphs", [0, 8])
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 5e-3), ("fp16", 0.02), ("bf16", 0.1)]
)
def test_gives_what_the_cpu_gives(
    workshop, precision, tolerance, graphs, channels_last
):
    settings = {"graphs": graphs, "channels_last": channels_last}
    session = workshop.session(workshop.safetensors(), precision, DEVICE, **settings)
    for batch in [BATCH, BATCH[:1], BATCH + 1, BATCH[:1] + 1, BATCH, BATCH]:
        output = session(input=batch)["output"]
        found = TorchBackend().operations(DEVICE).host(output)

        assert output.device.type == "cuda"
        np.testing.assert_allclose(found, workshop.reference(batch), atol=tolerance)


PICTURES = [picture(57, 81), picture(57, 181), picture(9, 9)]


def check(ops, spec):
    pictures = read_images(PICTURES)
    expected, frames = prepare.prepare(pictures, spec)
    batch, found = ops.prepare(pictures, spec)

    assert found == frames
    assert batch.device.type == "cuda"
    assert batch.is_contiguous()
    assert str(batch.dtype).removeprefix("torch.") == spec.dtype
    apart = np.abs(grey_levels(ops.host(batch), spec) - grey_levels(expected, spec))
    assert apart.max() <= levels_apart(spec)


def in_steps(ops, monkeypatch):
    monkeypatch.setattr("inference_models_torch.operations.mixer", lambda _: None)
    return ops


@pytest.mark.parametrize("way", ["one kernel", "in steps"])
@in_every_mode
def test_prepares_as_the_host_does(
    way, resize, interpolation, antialias, ops, monkeypatch
):
    ops = in_steps(ops, monkeypatch) if way == "in steps" else ops
    for size in ((31, 47), (90, 200)):
        check(ops, resized(size, resize, interpolation, antialias, **IMAGENET))


@pytest.mark.parametrize("way", ["one kernel", "in steps"])
@pytest.mark.parametrize("changes", STEPS, ids=str)
def test_prepares_as_the_host_does_in_every_other_step(way, changes, ops, monkeypatch):
    ops = in_steps(ops, monkeypatch) if way == "in steps" else ops
    check(ops, Preprocessing(**{"size": (24, 40), **changes}))


@pytest.mark.parametrize("contrast", ["contrast-stretching", "histogram-equalization"])
def test_prepares_contrast_as_the_host_does(contrast, ops):
    pytest.importorskip("skimage")
    check(ops, Preprocessing(size=(24, 40), contrast=contrast))


FORMS = [
    "upside down",
    "channels turned",
    "part of another",
    "four channels",
    "float",
    "tensor",
    "on the GPU",
    "float on the GPU",
    "channels last on the GPU",
]


def forms(image):
    """The same pixels in every form that users hold."""
    padded = np.zeros((image.shape[0] + 3, image.shape[1] + 5, 3), np.uint8)
    padded[1:-2, 2:-3] = image
    rgb = np.ascontiguousarray(image[:, :, ::-1])
    tensor = torch.from_numpy(rgb.transpose(2, 0, 1).copy())
    return {
        "upside down": np.ascontiguousarray(image[::-1])[::-1],
        "channels turned": rgb[:, :, ::-1],
        "part of another": padded[1:-2, 2:-3],
        "four channels": np.dstack([image, image[:, :, :1]]),
        "float": image.astype(np.float32) / 255,
        "tensor": tensor,
        "on the GPU": tensor.to(DEVICE),
        "float on the GPU": tensor.to(DEVICE).float() / 255,
        "channels last on the GPU": torch.from_numpy(rgb).to(DEVICE).permute(2, 0, 1),
    }


@pytest.mark.parametrize("form", FORMS)
def test_the_same_pixels_in_any_form_give_the_same_bits(form, ops):
    image = picture(37, 53)
    for changes in ({}, {"crop": (10, 10, 90, 90)}, {"grayscale": True}):
        spec = Preprocessing(size=(24, 40), **IMAGENET, **changes)
        expected, _ = ops.prepare(read_images([image] * 2), spec)
        batch, _ = ops.prepare(read_images([forms(image)[form]] * 2), spec)

        assert torch.equal(expected, batch)


def test_a_large_image_is_uploaded_in_pieces_and_whole(ops):
    image = RANDOM.integers(0, 256, (3000, 2001, 3), np.uint8)
    spec = Preprocessing(size=None, dtype="uint8", layout="NHWC", color="bgr")
    batch, _ = ops.prepare(read_images(image), spec)

    assert np.array_equal(image, ops.host(batch[0]))


def test_an_image_may_be_written_to_once_it_is_prepared(ops):
    image = np.full((1500, 2000, 3), 7, np.uint8)
    spec = Preprocessing(size=None, dtype="uint8")
    torch.cuda._sleep(10**8)
    batch, _ = ops.prepare(read_images(image), spec)
    image[:] = 0

    assert (batch == 7).all()


def test_images_are_prepared_by_one_kernel_here():
    assert mixer(torch.device(DEVICE)) is not None


@pytest.mark.parametrize("way", ["one kernel", "in steps"])
def test_shrinks_more_than_any_window_holds(way, ops, monkeypatch):
    ops = in_steps(ops, monkeypatch) if way == "in steps" else ops
    pixels = np.full((1, 20_000, 3), 9, np.uint8)
    batch, _ = ops.prepare(read_images(pixels), Preprocessing(size=(1, 8)))

    assert pytest.approx(batch.max().item() * 255) == 9


def test_waits_for_nothing_until_results_are_read(workshop, ops):
    session = workshop.session(workshop.safetensors(), "fp16", DEVICE)
    spec = Preprocessing(size=(32, 32), dtype="float16")
    images = read_images([picture(300, 500)] * 2)
    for _ in range(3):
        session(input=ops.prepare(images, spec)[0])
    try:
        torch.cuda.set_sync_debug_mode("error")
        batch, _ = ops.prepare(images, spec)
        output = session(input=batch)["output"]
    finally:
        torch.cuda.set_sync_debug_mode("default")

    assert ops.host(output).shape == (2, 5)


def test_replays_what_it_recorded():
    session = session_of(nn.Conv2d(3, 3, 3, padding=1))
    inputs = [torch.rand(2, 3, 16, 16, device=DEVICE) for _ in range(5)]
    eager = session_of(session._module, graphs=0)
    found = [session(x=each)["y"] for each in inputs]

    assert len(recordings(session)) == 1
    assert all(map(torch.equal, [eager(x=each)["y"] for each in inputs], found))


def test_what_is_replayed_is_the_callers():
    session = session_of(nn.Conv2d(3, 3, 1))
    given = torch.rand(1, 3, 8, 8, device=DEVICE)
    first, second, third = (session(x=given)["y"] for _ in range(3))
    kept = second.clone()
    third += 1

    assert torch.equal(kept, second)
    assert torch.equal(first, second)
    assert torch.equal(kept, session(x=given)["y"])


def test_records_the_shapes_used_most_lately():
    session = session_of(nn.ReLU(), graphs=2)
    for side in (8, 8, 16, 16, 8, 24, 24):
        session(x=torch.zeros(1, 3, side, side))

    assert [shapes[0][0][-1] for shapes in recordings(session)] == [8, 24]


def test_records_again_after_all_recordings_went():
    session = session_of(nn.ReLU(), graphs=2)
    for side in (8, 8, 16, 24, 24, 24):
        found = session(x=torch.ones(1, 3, side, side))["y"]
        assert found.sum().item() == 3 * side**2

    assert [shapes[0][0][-1] for shapes in recordings(session)] == [24]


def test_what_was_recorded_in_inference_mode_runs_outside_of_it():
    session = session_of(nn.ReLU())
    given = torch.ones(1, 3, 8, 8, device=DEVICE)
    with torch.inference_mode():
        for _ in range(2):
            session(x=given)

    assert session(x=given * 3)["y"].mean().item() == 3


class Waits(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum().item() > 0 else x


def test_what_cannot_be_recorded_runs_without(caplog):
    session = session_of(Waits())
    given = torch.ones(1, 3, 8, 8, device=DEVICE)
    with caplog.at_level(logging.INFO, "inference_models"):
        found = [session(x=each)["y"] for each in (given, given, -given, given)]

    assert [each.mean().item() for each in found] == [2, 2, -1, 2]
    assert caplog.text.count("runs without CUDA graphs") == 1


class WaitsLate(nn.Module):
    def forward(self, x):
        return x * torch.ones(2**27, device=x.device).sum().item()


def test_a_recording_that_fails_gives_its_memory_back():
    session = session_of(WaitsLate())
    given = torch.zeros(1, 3, 8, 8, device=DEVICE)
    session(x=given)
    before = free()
    session(x=given)

    assert before - free() <= 8 * MEGABYTE


def test_a_wrong_input_leaves_recordings_as_they_are():
    session = session_of(nn.Conv2d(3, 3, 1))
    given = torch.ones(1, 3, 8, 8, device=DEVICE)
    expected = [session(x=given)["y"] for _ in range(3)][-1]
    for _ in range(3):
        with pytest.raises(Exception, match="the network cannot take"):
            session(x=torch.ones(1, 4, 8, 8, device=DEVICE))

    assert torch.equal(expected, session(x=given)["y"])
    assert len(recordings(session)) == 1


def test_what_another_stream_makes_is_waited_for_where_it_is_made(ops, workshop):
    session = workshop.session(workshop.safetensors(), "fp32", DEVICE)
    source = torch.from_numpy(RANDOM.integers(0, 256, (3, 64, 64), np.uint8)).to(DEVICE)
    spec = Preprocessing(size=(32, 32))
    run = [session(input=ops.prepare(read_images(source), spec)[0]) for _ in range(3)]
    expected = ops.host(run[-1]["output"])
    torch.cuda.synchronize()

    for _ in range(3):
        image = torch.zeros_like(source)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            torch.cuda._sleep(10**8)
            image.copy_(source, non_blocking=True)
            batch, _ = ops.prepare(read_images(image), spec)
            found = ops.host(session(input=batch)["output"])
        assert np.array_equal(expected, found)


class Delayed:
    """A producer of DLPack that fills its memory late, on a stream of its own."""

    def __init__(self, source):
        self.stream = torch.cuda.Stream()
        self.made = torch.zeros_like(source)
        self.shape, self.dtype, self.source = source.shape, source.dtype, source

    def start(self):
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            torch.cuda._sleep(10**8)
            self.made.copy_(self.source, non_blocking=True)

    def __dlpack__(self, *, stream=None, **settings):
        with torch.cuda.stream(self.stream):
            return self.made.__dlpack__(stream=stream)

    def __dlpack_device__(self):
        return self.made.__dlpack_device__()


def test_another_librarys_stream_is_waited_for_by_dlpack(workshop):
    session = workshop.session(workshop.safetensors(), "fp32", DEVICE)
    source = torch.from_numpy(BATCH).to(DEVICE)
    expected = [session(input=source)["output"] for _ in range(3)][-1]
    torch.cuda.synchronize()
    late = Delayed(source)
    late.start()

    assert torch.equal(expected, session(input=late)["output"])


def test_threads_get_what_one_alone_gets(workshop, ops):
    session = workshop.session(workshop.safetensors(), "fp16", DEVICE)
    spec = Preprocessing(size=(32, 32), dtype="float16")
    images = [read_images([picture(60 + n, 80)] * (1 + n % 3)) for n in range(8)]

    def run(number):
        return ops.host(session(input=ops.prepare(images[number], spec)[0])["output"])

    for number in range(8):
        run(number)
    expected = [run(number) for number in range(8)]

    def check_thousand(number):
        return all(
            np.array_equal(expected[which], run(which))
            for which in itertools.islice(itertools.cycle(range(8)), number, 1000)
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(check_thousand, range(8)))


def test_threads_on_streams_of_their_own_get_the_same(workshop, ops):
    session = workshop.session(workshop.safetensors(), "fp16", DEVICE)
    batches = [torch.rand(2, 3, 32, 32, device=DEVICE).half() for _ in range(4)]
    expected = [[session(input=b)["output"] for b in batches] for _ in range(2)][-1]
    torch.cuda.synchronize()

    def run(number):
        with torch.cuda.stream(torch.cuda.Stream()):
            found = [session(input=batches[number])["output"] for _ in range(200)]
            torch.cuda.current_stream().synchronize()
        return all(torch.equal(expected[number], each) for each in found)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(4)))


def free():
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(DEVICE)[0]


class Large(nn.Module):
    """512 MB of weights, which share their part of the memory with nothing else."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(
            torch.ones(2**27, device=DEVICE), requires_grad=False
        )

    def forward(self, x):
        return x * self.weight.sum()


def test_fifty_loads_and_closes_leave_the_memory_as_it_was():
    given = torch.ones(1, 3, 8, 8, device=DEVICE)

    def once():
        session = session_of(Large())
        for _ in range(3):
            session(x=given)
        session.close()

    once()
    before = free()
    for _ in range(50):
        once()

    assert before - free() <= 8 * MEGABYTE


def test_close_gives_memory_back_at_once():
    free()
    session = session_of(Large())
    session(x=torch.ones(1, 3, 8, 8, device=DEVICE))
    before = torch.cuda.mem_get_info(DEVICE)[0]
    session.close()

    assert torch.cuda.mem_get_info(DEVICE)[0] - before >= 500 * MEGABYTE
    with pytest.raises(ModelClosed):
        session(x=torch.ones(1, 3, 8, 8))


def test_what_nobody_holds_gives_its_memory_back():
    free()
    session = session_of(Large())
    for _ in range(3):
        session(x=torch.ones(1, 3, 8, 8, device=DEVICE))
    before = torch.cuda.mem_get_info(DEVICE)[0]
    del session
    gc.collect()

    assert torch.cuda.mem_get_info(DEVICE)[0] - before >= 500 * MEGABYTE


@pytest.mark.parametrize("graphs", [0, 8])
def test_says_which_batch_was_too_large_and_works_after_it(workshop, graphs):
    session = workshop.session(workshop.safetensors(), "fp32", DEVICE, graphs=graphs)
    expected = [session(input=BATCH)["output"] for _ in range(3)][-1]
    huge = torch.empty(1, device=DEVICE).expand(2**21, 3, 1024, 1024)
    for _ in range(2):
        with pytest.raises(RunFailed, match="too little memory for a batch of 2097152"):
            session(input=huge)

    assert torch.equal(expected, session(input=BATCH)["output"])


class Hungry(nn.Module):
    """Holds three tenths of the GPU's memory for each image, until the run ends."""

    def forward(self, x):
        size = torch.cuda.mem_get_info(DEVICE)[1] * 3 // 10
        held = [torch.empty(size, dtype=torch.uint8, device=DEVICE) for _ in x]
        return x + len(held) - len(x)


@pytest.mark.parametrize("graphs", [0, 8])
def test_a_smaller_batch_runs_while_the_error_of_a_larger_is_handled(graphs):
    free()
    session = session_of(Hungry(), graphs)
    for _ in range(2):
        try:
            session(x=torch.ones(9, 3, 8, 8, device=DEVICE))
        except RunFailed:
            found = session(x=torch.ones(2, 3, 8, 8, device=DEVICE))["y"]
            assert found.mean().item() == 1
        else:
            pytest.fail("there was memory for nine")


def test_says_which_images_were_too_many(ops):
    images = read_images([np.zeros((8, 8, 3), np.uint8)] * 2000)
    with pytest.raises(RunFailed, match="too little memory for a batch of 2000"):
        ops.prepare(images, Preprocessing(size=(8192, 8192)))


def test_compiled_code_gives_the_same(workshop):
    path = workshop.safetensors()
    session = workshop.session(path, "fp32", DEVICE, compiled=True)
    for batch in (BATCH, BATCH, BATCH, BATCH[:1]):
        found = session(input=batch)["output"].cpu().numpy()
        np.testing.assert_allclose(found, workshop.reference(batch), atol=5e-3)
