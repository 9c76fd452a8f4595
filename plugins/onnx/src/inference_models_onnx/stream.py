"""A stream of our own on an NVIDIA GPU, through the driver's library alone."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

from inference_models import Unavailable
from inference_models.hardware import driver_library

# What the driver calls a stream that no other waits for unasked, and an event that
# takes no time.
_NON_BLOCKING = 1
_WITHOUT_TIMING = 2

# CUDA's legacy default stream, as its driver and DLPack number it. DLPack's None means
# it, too.
_DEFAULT = 1


class Stream:
    """A CUDA stream on which copies run in order, behind the work on what is copied.

    It waits for single streams where they can be named, so that other libraries' work
    on other streams goes on meanwhile.
    """

    def __init__(self, number: int) -> None:
        driver = driver_library()
        if driver is None:
            raise Unavailable(
                "NVIDIA's driver library is missing; install the GPU's driver"
            )
        self._driver = driver
        device, self._context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(device), number)
        # The context that CUDA's runtime uses: it is the process's, and stays.
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)
        self._stream = ctypes.c_void_p()
        with self.current():
            self._call("cuStreamCreate", ctypes.byref(self._stream), _NON_BLOCKING)
        self._readers: set[int] = set()

    @property
    def handle(self) -> int:
        """The number that DLPack and CUDA's runtime know it by."""
        return self._stream.value or 0

    def lend(self, reader: int | None) -> None:
        """Remember a stream that outputs were given to."""
        self._readers.add(_DEFAULT if reader is None else reader)

    def follow_readers(self) -> None:
        """Put what comes next after all that reads outputs, dropped or not.

        DLPack tells nobody on which streams memory that comes back is still read. Any
        but the default one may be gone, and to name it would crash.
        """
        with self.current():
            if self._readers - {_DEFAULT}:
                self._call("cuCtxSynchronize")
            elif self._readers:
                self._follow(_DEFAULT)

    def copy(self, to: int, source: int, size: int) -> None:
        """Begin to copy bytes, between GPU and host or within one of them."""
        target, origin = ctypes.c_uint64(to), ctypes.c_uint64(source)
        if size:
            with self.current():
                length = ctypes.c_size_t(size)
                self._call("cuMemcpyAsync", target, origin, length, self._stream)

    def wait(self) -> None:
        """Wait until all that was begun here is done."""
        with self.current():
            self._call("cuStreamSynchronize", self._stream)

    def _follow(self, stream: int) -> None:
        event, other = ctypes.c_void_p(), ctypes.c_void_p(stream)
        self._call("cuEventCreate", ctypes.byref(event), _WITHOUT_TIMING)
        try:
            self._call("cuEventRecord", event, other)
            self._call("cuStreamWaitEvent", self._stream, event, 0)
        finally:
            self._call("cuEventDestroy_v2", event)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Its GPU is this thread's in here, for all libraries that ask CUDA for it."""
        self._call("cuCtxPushCurrent_v2", self._context)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._driver, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self._driver.cuGetErrorString(code, ctypes.byref(text))
            reason = (text.value or b"an unknown error").decode(errors="replace")
            raise RuntimeError(f"NVIDIA's driver says {reason} ({name}: {code})")


def stream_on(number: int) -> Stream:
    """The one stream of a GPU; threads share it, and wait for a little more."""
    if number not in _STREAMS:
        _STREAMS.setdefault(number, Stream(number))  # another thread may be first
    return _STREAMS[number]


_STREAMS: dict[int, Stream] = {}
