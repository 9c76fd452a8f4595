"""One GPU as engines use it: its memory, and a stream of our own on it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from inference_models import Unavailable

if TYPE_CHECKING:
    from cuda.core import Buffer
    from cuda.core.utils import StridedMemoryView


# DLPack's number of CUDA memory.
_CUDA = 2

# GPUs whose memory others may read: all engines of one take it from the same pool.
_LENT: set[int] = set()


class Gpu:
    """A GPU by its number.

    What is asked of it needs `current()` around it, which makes it the calling thread's
    GPU and gives the thread its own back at the end.
    """

    def __init__(self, number: int) -> None:
        try:
            from cuda.core import Device

            self._device = Device(number)
        except Exception as error:
            raise Unavailable(
                f"cuda-core does not reach cuda:{number}: {error}; install the GPU's "
                "driver, and pip install -U cuda-core cuda-bindings"
            ) from error
        self.number = number
        with self.current():
            self._stream = self._device.create_stream()

    @property
    def place(self) -> tuple[int, int]:
        """Kind and number of the GPU, as DLPack numbers devices."""
        return _CUDA, self.number

    @property
    def stream(self) -> int:
        """Our stream, as DLPack and CUDA's runtime know it."""
        return int(self._stream.handle)

    @contextmanager
    def current(self) -> Iterator[None]:
        """The GPU is this thread's in here."""
        from cuda.bindings import driver

        _, before = driver.cuCtxGetCurrent()
        self._device.set_current()
        try:
            yield
        finally:
            driver.cuCtxSetCurrent(before)

    def lend(self) -> None:
        """Note that others may read our memory from now on, on streams of theirs."""
        _LENT.add(self.number)

    def follow_readers(self) -> None:
        """Wait until nobody reads memory any more that we may now use again.

        DLPack does not tell when others have read what they gave back, nor on which
        stream: once any memory was lent, all of the GPU's work is waited for.
        """
        if self.number in _LENT:
            self._device.sync()

    def empty(self, size: int) -> Buffer:
        """Memory of so many bytes, the caller's."""
        return self._device.allocate(size, stream=self._stream)

    def upload(self, host: np.ndarray) -> Buffer:
        """A contiguous array of the host, copied; it may be changed after `wait`."""
        buffer = self.empty(host.nbytes)
        if host.nbytes:
            buffer.copy_from(_of_host(host), stream=self._stream)
        return buffer

    def download(self, buffer: Buffer, host: np.ndarray) -> None:
        """Copy memory to a contiguous array of the host, and wait for it."""
        if host.nbytes:
            buffer.copy_to(_of_host(host), stream=self._stream)
        self.wait()

    def view(self, array: Any) -> StridedMemoryView:
        """An array of this GPU by DLPack, with the work on it before our stream."""
        return view_of(array, self.stream)

    def copied(self, view: StridedMemoryView) -> Buffer:
        """A copy of an array of this GPU whose elements lie one after the other."""
        from cuda.core import Buffer

        size = math.prod(view.shape) * view.dtype.itemsize
        source = Buffer.from_handle(view.ptr, size, owner=view)
        buffer = self.empty(size)
        buffer.copy_from(source, stream=self._stream)
        return buffer

    def wait(self) -> None:
        """Wait until all that was begun on our stream is done."""
        self._stream.sync()


class _Shared:
    """An array that offers DLPack and nothing else.

    cuda-core would read torch's tensors without DLPack, by the layout of torch's own
    structures in memory.
    """

    def __init__(self, array: Any) -> None:
        self._array = array

    def __dlpack__(self, **wishes: Any) -> Any:
        return self._array.__dlpack__(**wishes)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


def view_of(array: Any, stream: int) -> StridedMemoryView:
    """Where an array lies, and how, once the work on it is before a stream."""
    from cuda.core.utils import StridedMemoryView

    return StridedMemoryView.from_dlpack(_Shared(array), stream)


def _of_host(host: np.ndarray) -> Buffer:
    from cuda.core import Buffer

    return Buffer.from_handle(host.ctypes.data, host.nbytes, owner=host)
