"""TensorRT's and the GPU's part of a session, played in host memory.

A session hands addresses to a context and waits for a stream. Here the addresses are
the host's, and the context computes the toy of core's test kit where they point.
"""

from __future__ import annotations

import contextlib
import ctypes

import numpy as np

from inference_models.testing import ToyArchitecture

_KINDS = {"float32": "FLOAT", "float16": "HALF", "int64": "INT64", "bfloat16": "BF16"}


class Memory:
    """Memory with an address, as cuda-core's buffers are."""

    def __init__(self, array):
        self.array = array
        self.handle = array.ctypes.data
        self.size = array.nbytes


class HostGpu:
    """`Gpu` without one; `told` are the calls whose order matters."""

    number, place = 0, (2, 0)
    stream = 7

    def __init__(self):
        self.told = []
        self.largest = 2**40

    @contextlib.contextmanager
    def current(self):
        self.told.append("enter")
        yield
        self.told.append("leave")

    def lend(self):
        self.told.append("lend")

    def follow_readers(self):
        self.told.append("follow readers")

    def empty(self, size):
        if size > self.largest:
            raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory")
        return Memory(np.zeros(size, np.uint8))

    def upload(self, host):
        self.told.append("upload")
        return Memory(host.copy())

    def download(self, buffer, host):
        ctypes.memmove(host.ctypes.data, buffer.handle, host.nbytes)

    def view(self, array):
        self.told.append("view")
        return array

    def copied(self, view):
        self.told.append("copied")
        return Memory(view.array.copy())

    def wait(self):
        self.told.append("wait")


class OnGpu:
    """An array that says that it lies on a GPU, and how; its memory is the host's."""

    def __init__(self, array, number=0):
        self.array, self._number = array, number
        self.shape, self.dtype = array.shape, array.dtype
        self.strides = tuple(step // array.itemsize for step in array.strides)
        self.ptr = array.ctypes.data

    def __dlpack_device__(self):
        return 2, self._number

    def cpu(self):
        return self.array


class Tensor:
    """A tensor of an engine: whether it goes in, its type, its shape."""

    def __init__(self, is_input, dtype, *shape):
        self.is_input, self.dtype, self.shape = is_input, dtype, shape


TOY = {
    "input": Tensor(True, "float32", -1, 3, 8, 8),
    "output": Tensor(False, "float32", -1, 3),
}


class Engine:
    """`ICudaEngine`, and its one context in the same object."""

    def __init__(self, trt, tensors=None, most=16, location="DEVICE"):
        self._trt = trt
        self._tensors = dict(tensors or TOY)
        self._most = most
        self._location = location
        self._batch = 0
        self._addresses = {}
        self.runs = self.takes_addresses = True
        self.on_run = lambda: None

    @property
    def num_io_tensors(self):
        return len(self._tensors)

    def get_tensor_name(self, number):
        return list(self._tensors)[number]

    def get_tensor_location(self, name):
        return getattr(self._trt.TensorLocation, self._location)

    def get_tensor_mode(self, name):
        is_input = self._tensors[name].is_input
        return (
            self._trt.TensorIOMode.INPUT
            if is_input
            else (self._trt.TensorIOMode.OUTPUT)
        )

    def get_tensor_dtype(self, name):
        return getattr(self._trt.DataType, _KINDS[self._tensors[name].dtype])

    def get_tensor_shape(self, name):
        shape = self._tensors[name].shape
        return tuple(self._batch if self._batch and s == -1 else s for s in shape)

    def get_tensor_profile_shape(self, name, profile):
        rest = self._tensors[name].shape[1:]
        return [(size, *rest) for size in (1, 2, self._most)]

    def set_input_shape(self, name, shape):
        if not 1 <= shape[0] <= self._most:
            return False
        self._batch = shape[0]
        return True

    def set_tensor_address(self, name, address):
        self._addresses[name] = address
        return self.takes_addresses

    def execute_async_v3(self, stream):
        self.on_run()
        if self.runs:
            given = _at(self._addresses["input"], (self._batch, 3, 8, 8))
            _at(self._addresses["output"], (self._batch, 3))[:] = (
                ToyArchitecture.expected(given)
            )
        return self.runs


def _at(address, shape):
    size = int(np.prod(shape)) * 4
    raw = (ctypes.c_char * size).from_address(address)
    return np.frombuffer(raw, np.float32).reshape(shape)
