"""What is kept of recorded runs, with CUDA's part played on the host."""

import contextlib
import gc
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from inference_models import TensorSpec
from inference_models_torch import graphs
from inference_models_torch.session import TorchSession

CPU = torch.device("cpu")
SPEC = {"x": TensorSpec("float32", ("batch", 2))}


class Cuda:
    """CUDA's streams and torch's pools, as strict with those as torch is."""

    def __init__(self):
        self.users = Counter()
        self.capturing = None

    def graph_pool_handle(self):
        return (0, len(self.users) + 1)

    def begin(self, pool):
        # torch raises the same for a pool that no graph holds any more.
        assert pool not in self.users or self.users[pool] > 0
        self.users[pool] += 1

    def end(self, _, pool):
        if self.capturing is None:
            raise RuntimeError("endAllocatePool: not currently recording")
        self.capturing = None

    def release(self, _, pool):
        assert self.users[pool] > 0
        self.users[pool] -= 1


class Stream:
    def wait_event(self, event):
        """All work is done at once."""

    def wait_stream(self, stream):
        """All work is done at once."""


class Event:
    def record(self, stream):
        """All work is done at once."""

    def synchronize(self):
        """All work is done at once."""


def graph_of(cuda, version):
    """The class of graphs of one torch."""

    class Graph:
        ended = False

        def capture_begin(self, pool, capture_error_mode):
            cuda.begin(pool)
            cuda.capturing, self.runs, self.used = self, [], pool

        def capture_end(self):
            fails = any(run is None for run in self.runs)
            if not fails or version != "2.12":
                cuda.end(0, self.used)
            self.ended = not fails or version == "2.14"
            if fails:
                raise RuntimeError("operation failed due to an earlier error")

        def pool(self):
            return self.used

        def replay(self):
            with torch.inference_mode():
                for run in self.runs:
                    run()

        def __del__(self):
            if self.ended:
                cuda.release(0, self.used)

    return Graph


@pytest.fixture(params=["2.12", "2.13", "2.14"])
def version(request):
    """torch's, whose graphs do ever more of what is to be done where they fail."""
    return request.param


@pytest.fixture(autouse=True)
def cuda(monkeypatch, version):
    cuda = Cuda()

    played = {
        "CUDAGraph": graph_of(cuda, version),
        "Event": Event,
        "Stream": lambda device: Stream(),
        "current_device": lambda: 0,
        "current_stream": lambda device: Stream(),
        "graph_pool_handle": cuda.graph_pool_handle,
        "mem_get_info": lambda device: (2**30, 2**30),
        "memory_reserved": lambda device: 0,
        "stream": lambda stream: contextlib.nullcontext(),
    }
    for name, value in played.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", cuda.end)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", cuda.release)
    monkeypatch.setattr(graphs, "_TURNS", {})
    monkeypatch.setattr(graphs, "_graphs_give_back", lambda: version == "2.14")
    return cuda


class Doubles(nn.Module):
    """Tells a graph that records it what to do again."""

    def __init__(self, cuda, meanwhile=lambda: None):
        super().__init__()
        self.cuda, self.meanwhile = cuda, meanwhile

    def forward(self, x):
        y = x * 2
        if self.cuda.capturing is not None:
            self.meanwhile()
            self.cuda.capturing.runs.append(lambda: y.copy_(x * 2))
        return y


def ones(count):
    return torch.ones(count, 2)


def test_recordings_share_their_memory(cuda):
    made = graphs.Graphs(Doubles(cuda), CPU, most=2)
    found = [made([ones(count)]) for count in (1, 1, 2, 2)]

    assert [tuple(each.shape) for each in found if each is not None] == [(1, 2), (2, 2)]
    assert list(cuda.users.values()) == [2]


def test_a_shape_is_recorded_after_all_recordings_went(cuda):
    made = graphs.Graphs(Doubles(cuda), CPU, most=2)
    for count in (1, 1, 2, 3):
        made([ones(count)])
    found = [made([ones(3) * n]) for n in (1, 2)]

    assert [each.mean().item() for each in found] == [2, 4]
    assert sum(cuda.users.values()) == 1


def test_what_is_replayed_was_laid_once(cuda):
    def laid(tensor):
        layouts.append(tensor.shape)
        return tensor.t().contiguous().t()

    layouts, doubles = [], Doubles(cuda)
    made = graphs.Graphs(doubles, CPU, most=2, lay=laid)
    for _ in range(4):
        made([ones(3)])
    (recording,) = made._known.values()

    assert layouts == [(3, 2)]
    assert recording.inputs[0].stride() == (1, 3)


def test_a_stream_waits_for_the_run_that_failed_before_its_recording(cuda, monkeypatch):
    def fail(x):
        raise ValueError("of the module")

    waits = []
    monkeypatch.setattr(Stream, "wait_stream", lambda *streams: waits.append(streams))
    made = graphs.Graphs(fail, CPU, most=2)
    made([ones(1)])
    with pytest.raises(ValueError, match="of the module"):
        made([ones(1)])

    assert len(waits) == 2


@pytest.mark.parametrize("error", [RuntimeError, torch.OutOfMemoryError])
def test_a_recording_that_fails_gives_its_memory_back(cuda, error):
    def fail():
        cuda.capturing.runs.append(None)
        raise error("of the device")

    made = graphs.Graphs(Doubles(cuda, fail), CPU, most=2)
    found = [made([ones(1)]) for _ in range(3)]

    assert found == [None] * 3
    assert sum(cuda.users.values()) == 0
    assert cuda.capturing is None


@pytest.mark.parametrize("breaks", [True, False])
def test_an_interrupted_recording_gives_its_memory_back(cuda, breaks):
    def interrupt():
        if breaks:
            cuda.capturing.runs.append(None)
        raise KeyboardInterrupt

    made = graphs.Graphs(Doubles(cuda, interrupt), CPU, most=2)
    made([ones(1)])
    with pytest.raises(KeyboardInterrupt):
        made([ones(1)])
    gc.collect()

    assert sum(cuda.users.values()) == 0
    assert cuda.capturing is None


def test_a_module_may_return_more_than_is_kept(cuda):
    class More(Doubles):
        def forward(self, x):
            return {"x": super().forward(x), "aside": None, "count": 3}

    def named(returned):
        return {"y": returned["x"]}

    made = graphs.Graphs(More(cuda), CPU, most=2, named=named)
    found = [made([ones(1)]) for _ in range(3)]

    assert found[0] is None
    assert [each["y"].tolist() for each in found[1:]] == [[[2, 2]]] * 2


def test_only_what_was_recorded_is_waited_for_before_it_goes(cuda, monkeypatch):
    waits = []
    monkeypatch.setattr(Event, "synchronize", lambda _: waits.append(1))
    made = graphs.Graphs(Doubles(cuda), CPU, most=2)
    for count in (1, 2, 3):
        made([ones(count)])
    assert waits == []

    for count in (3, 4, 5):
        made([ones(count)])
    assert waits == [1]


@pytest.mark.parametrize("known", [True, False])
def test_torchs_header_tells_what_its_graphs_give_back(known, tmp_path, monkeypatch):
    monkeypatch.undo()
    header = tmp_path / "include/ATen/cuda/CUDAGraph.h"
    header.parent.mkdir(parents=True)
    header.write_text("bool allocated_pool_ = false;" if known else "", "utf-8")
    monkeypatch.setattr(torch, "__file__", str(tmp_path / "__init__.py"))

    assert graphs._graphs_give_back() == known


def test_without_a_header_no_memory_is_given_back_twice(tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(torch, "__file__", str(tmp_path / "__init__.py"))

    assert graphs._graphs_give_back()


def test_what_was_recorded_in_inference_mode_runs_outside_of_it(cuda):
    made = graphs.Graphs(Doubles(cuda), CPU, most=2)
    with torch.inference_mode():
        for _ in range(2):
            made([ones(1)])
    found = made([ones(1) * 3])

    assert found.tolist() == [[6, 6]]


def test_a_session_that_is_collected_during_a_turn_is_closed_after_it(cuda):
    found = []

    def collect():
        session = TorchSession(
            Doubles(cuda), (SPEC, SPEC), "cuda:0", torch.float32, False, graphs=2
        )
        session.itself = session
        found.append(session._graphs)
        del session
        gc.collect()
        found.append(found[0]._module)

    made = graphs.Graphs(Doubles(cuda, collect), torch.device("cuda:0"), most=2)
    thread = threading.Thread(
        target=lambda: [made([ones(1)]) for _ in range(2)], daemon=True
    )
    thread.start()
    thread.join(20)

    assert not thread.is_alive()
    assert found[1] is not None
    assert found[0]._module is None


def test_threads_that_come_first_at_the_same_time_share_their_turns(monkeypatch):
    both = threading.Barrier(2)
    monkeypatch.setattr(
        torch.cuda, "Stream", lambda device: (both.wait(5), Stream())[1]
    )
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(graphs._turn, [CPU] * 2)

    assert first is second
