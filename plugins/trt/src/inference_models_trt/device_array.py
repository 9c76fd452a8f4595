"""What an engine returns: an array on the GPU, which speaks DLPack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from inference_models_trt.gpu import Gpu

if TYPE_CHECKING:
    from cuda.core import Buffer


class DeviceArray:
    """An output in the GPU's memory: computed when it is returned, and the caller's."""

    def __init__(
        self, gpu: Gpu, buffer: Buffer, shape: tuple[int, ...], dtype: np.dtype
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self._gpu = gpu
        self._buffer = buffer

    @property
    def address(self) -> int:
        """The address in the GPU's memory."""
        return int(self._buffer.handle)

    def __repr__(self) -> str:
        return f"DeviceArray({self.dtype}, {self.shape}, 'cuda:{self._gpu.number}')"

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Share the memory; it is ready on every stream, as runs wait for their end."""
        from cuda.core.utils import StridedMemoryView

        self._gpu.lend()
        view = StridedMemoryView.from_buffer(
            self._buffer, shape=self.shape, dtype=self.dtype
        )
        return view.__dlpack__(
            stream=stream, max_version=max_version, dl_device=dl_device, copy=copy
        )

    def __dlpack_device__(self) -> tuple[int, int]:
        """Kind and number of the device, as DLPack numbers them."""
        return self._gpu.place

    def cpu(self) -> np.ndarray:
        """A copy in host memory."""
        host = np.empty(self.shape, self.dtype)
        with self._gpu.current():
            self._gpu.download(self._buffer, host)
        return host
