"""Runs of a module on an NVIDIA GPU, recorded once for a shape and then replayed.

A network of a few hundred kernels takes the CPU longer to launch than the GPU to run
at small batches; a CUDA graph launches them all at once.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from inference_models.errors import first_line
from inference_models_torch.memory import is_out_of_memory

log = logging.getLogger("inference_models")

# What recorded runs may hold of a GPU's memory, as one part in so many.
_SHARE = 4

_TURNS: dict[torch.device, _Turn] = {}

Shapes = tuple[tuple[torch.Size, torch.dtype], ...]


@attrs.frozen(eq=False)
class Recording:
    """A CUDA graph, the tensors that it reads, and the outputs that it writes."""

    graph: torch.cuda.CUDAGraph
    inputs: Sequence[Tensor]
    returned: Any


def _turn(device: torch.device) -> _Turn:
    """What lets one graph at a time run on a device.

    The graphs of a module share a pool of memory, and all graphs cuBLAS's workspace.
    """
    if device not in _TURNS:
        made = _Turn(threading.Lock(), torch.cuda.Event(), torch.cuda.Stream(device))
        _TURNS.setdefault(device, made)  # another thread may have been first
    return _TURNS[device]


@attrs.frozen(eq=False)
class _Turn:
    lock: threading.Lock
    done: torch.cuda.Event
    """Recorded on the stream that took the last turn."""
    recording: torch.cuda.Stream
    """On which runs are recorded: cuBLAS keeps memory for each stream that it sees."""
    later: deque[Callable[[], None]] = attrs.field(factory=deque)
    """What is to be done between turns."""

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        try:
            with self.lock:
                yield
        finally:
            self.catch_up()

    def catch_up(self) -> None:
        """Do what was left, unless a turn is taken, whose end sees to it."""
        while self.later and not self.lock.locked():
            try:
                work = self.later.popleft()
            except IndexError:  # another thread has it
                return
            work()


def between_turns(device: torch.device, work: Callable[[], None]) -> None:
    """Do something when no graph runs or is recorded on a device: now, or soon.

    Python may collect garbage at any time, in the thread of a turn, too.
    """
    turn = _turn(device)
    turn.later.append(work)
    turn.catch_up()


class Graphs:
    """CUDA graphs of one module, for the `most` input shapes used most recently.

    A shape is recorded when it comes a second time, from inputs in the memory format
    that `lay` gives them. Of what the module returns, that is kept which `named` takes
    from it. Where that is not possible, and where recordings would hold more than a
    quarter of the GPU's memory, the module runs without a graph.
    """

    def __init__(
        self,
        module: nn.Module,
        device: torch.device,
        most: int,
        lay: Callable[[Tensor], Tensor] = lambda tensor: tensor,
        named: Callable[[Any], Any] = lambda returned: returned,
    ) -> None:
        self._module: nn.Module | None = module
        self._device, self._most, self._lay = device, most, lay
        self._named = named
        self._turn = _turn(device)
        self._known: OrderedDict[Shapes, Recording | _Mark] = OrderedDict()
        self._held = 0

    def __call__(self, tensors: Sequence[Tensor]) -> Any:
        """A copy of what the module returns; None where there is no graph of the shape.

        Inputs are read, and results written, on the current stream.
        """
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in tensors)
        with self._turn.taken():
            recording = self._find(shapes, tensors)
            if recording is None:
                return None
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(self._turn.done)
            for own, tensor in zip(recording.inputs, tensors, strict=True):
                own.copy_(tensor)
            recording.graph.replay()
            returned = _copied(recording.returned)
            self._turn.done.record(stream)
        return returned

    def forget(self) -> None:
        """Give back the memory of all recordings."""
        with self._turn.taken():
            self._forget()

    def close(self) -> None:
        """Give back all memory, and record nothing from now on."""
        with self._turn.taken():
            self._close()

    def _forget(self) -> None:
        # What still runs must end before its memory is another's.
        self._turn.done.synchronize()
        self._known.clear()
        self._held = 0

    def _close(self) -> None:
        self._forget()
        self._module = None

    def _find(self, shapes: Shapes, tensors: Sequence[Tensor]) -> Recording | None:
        if self._module is None:
            return None
        found = self._known.get(shapes)
        if found is None:
            self._known[shapes] = _Mark.ONCE
        elif found is _Mark.ONCE:
            self._known[shapes] = self._record(self._module, tensors)
        self._known.move_to_end(shapes)
        if len(self._known) > self._most:
            oldest = next(iter(self._known))
            if isinstance(self._known[oldest], Recording):
                self._turn.done.synchronize()
            del self._known[oldest]
        known = self._known[shapes]
        return known if isinstance(known, Recording) else None

    def _record(
        self, module: nn.Module, tensors: Sequence[Tensor]
    ) -> Recording | _Mark:
        name, before = type(module).__name__, torch.cuda.memory_reserved(self._device)
        try:
            recording = self._try_to_record(module, tensors)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            self._forget()
            return _Mark.NEVER
        except _Unrecordable as error:
            log.info("%s runs without CUDA graphs: %s", name, error)
            self._close()
            return _Mark.NEVER
        self._held += torch.cuda.memory_reserved(self._device) - before
        if self._held <= torch.cuda.mem_get_info(self._device)[1] // _SHARE:
            return recording
        log.info("%s: CUDA graphs would hold %d MB", name, self._held >> 20)
        self._forget()
        return _Mark.NEVER

    def _try_to_record(self, module: nn.Module, tensors: Sequence[Tensor]) -> Recording:
        def run(*inputs: Tensor) -> Any:
            return self._named(module(*inputs))

        # Those made in inference mode, which the caller may be in, can't be written to.
        with torch.inference_mode(False):
            inputs = [self._lay(tensor).clone() for tensor in tensors]
        current = torch.cuda.current_stream(self._device)
        stream = self._turn.recording
        current.wait_event(self._turn.done)
        stream.wait_stream(current)
        try:
            with torch.cuda.stream(stream), torch.inference_mode():
                run(*inputs)  # what libraries set up on a stream is not recorded
                return _recorded(self._choose_pool(), run, inputs)
        finally:
            current.wait_stream(stream)

    def _choose_pool(self) -> Any:
        """The memory pool of the recordings, or a new one if there are none.

        torch does not reuse a pool that no graph holds any more.
        """
        for known in self._known.values():
            if isinstance(known, Recording):
                return known.graph.pool()
        self._held = 0
        return torch.cuda.graph_pool_handle()


class _Mark(enum.Enum):
    """Why a shape has no recording."""

    ONCE = "seen once"
    NEVER = "cannot be recorded"


class _Unrecordable(Exception):
    """A module does what a graph cannot hold, such as waiting for the GPU."""


def _recorded(
    pool: Any, run: Callable[..., Any], inputs: Sequence[Tensor]
) -> Recording:
    graph = torch.cuda.CUDAGraph()
    # Other threads may allocate meanwhile; what they do is not recorded.
    graph.capture_begin(pool=pool, capture_error_mode="thread_local")
    try:
        returned = run(*inputs)
        graph.capture_end()
    except BaseException as error:  # also an interrupt must not leave it going on
        _abandon(graph, pool)
        if is_out_of_memory(error) or not isinstance(error, Exception):
            raise
        raise _Unrecordable(first_line(error)) from error
    return Recording(graph, inputs, returned)


def _abandon(graph: torch.cuda.CUDAGraph, pool: Any) -> None:
    try:
        graph.capture_end()
    except RuntimeError:  # says again that it failed
        _give_back(pool)


def _give_back(pool: Any) -> None:
    """Tell the allocator that a recording is over, and that its graph holds no pool.

    torch before 2.13 does neither where a recording cannot end, and 2.13 only the
    first. Later ones do both, and do not survive being told again.
    """
    device = torch.cuda.current_device()
    with contextlib.suppress(RuntimeError):
        torch._C._cuda_endAllocateToPool(device, pool)
    if not _graphs_give_back():
        torch._C._cuda_releasePool(device, pool)


def _graphs_give_back() -> bool:
    """Whether torch's graphs know of a pool that they hold without having ended.

    Its header says so, as fixes come to branches in any order. Without one they may.
    """
    header = Path(torch.__file__).parent / "include/ATen/cuda/CUDAGraph.h"
    try:
        return "allocated_pool_" in header.read_text("utf-8")
    except OSError:
        return True


def _copied(returned: Any) -> Any:
    """The tensors that a module returned, in memory of their own."""
    if isinstance(returned, Tensor):
        return returned.clone()
    if isinstance(returned, Mapping):
        return {name: _copied(value) for name, value in returned.items()}
    return [_copied(value) for value in returned]
