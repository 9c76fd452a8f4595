"""What surrounds a network, on torch's devices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from inference_models import Array, Frame, Image, Operations, Preprocessing
from inference_models.prepare import LUMA, equalize
from inference_models.preprocess import Placement, place_batch
from inference_models_torch.arrays import as_tensor
from inference_models_torch.masks import masks_to_original
from inference_models_torch.memory import ran_out
from inference_models_torch.mixer import mixer
from inference_models_torch.resize import resize
from inference_models_torch.upload import upload


class TorchOperations(Operations):
    """The host's operations in torch: on a GPU from the upload on, else on the CPU."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        on_gpu = self._device.type == "cuda"
        self._resizing = self._device if on_gpu else torch.device("cpu")

    def prepare(
        self, images: Sequence[Image], spec: Preprocessing
    ) -> tuple[torch.Tensor, list[Frame]]:
        """Images -> one batch on the device, of `spec.dtype`, and a frame for each."""
        places, canvas = place_batch(spec, [(i.height, i.width) for i in images])
        try:
            batch = self._prepare(images, spec, places, canvas)
        except torch.OutOfMemoryError as error:
            raise ran_out(self._device, len(images), error) from error
        return batch, [place.frame for place in places]

    def _prepare(
        self,
        images: Sequence[Image],
        spec: Preprocessing,
        places: Sequence[Placement],
        canvas: tuple[int, int],
    ) -> torch.Tensor:
        fused = mixer(self._resizing) if self._resizing.type == "cuda" else None
        dtype = getattr(torch, spec.dtype)
        working = dtype if fused or spec.dtype == "uint8" else torch.float32
        batch, planes = self._new_batch(len(images), canvas, spec, working)
        lay = fused.lay if fused else _lay_in_steps
        for own, image, place in zip(planes, images, places, strict=True):
            lay(own, *_pixels(image, spec, place, self._resizing), spec, place)
        return batch.to(self._device, dtype)

    def _new_batch(
        self,
        count: int,
        canvas: tuple[int, int],
        spec: Preprocessing,
        dtype: torch.dtype,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """An empty batch in its layout, and the same memory as (N, 3, H, W)."""
        nhwc = spec.layout == "NHWC"
        shape = (count, *canvas, 3) if nhwc else (count, 3, *canvas)
        batch = torch.empty(shape, dtype=dtype, device=self._resizing)
        return batch, batch.permute(0, 3, 1, 2) if nhwc else batch

    def join(self, arrays: Sequence[Array]) -> Array:
        """Tensors of one output as one batch, where they are."""
        if len(arrays) == 1:
            return arrays[0]
        return torch.cat([as_tensor(array) for array in arrays])

    def host(self, array: Array) -> np.ndarray:
        """Any array as numpy; half precisions arrive as float32."""
        if not isinstance(array, torch.Tensor):
            return super().host(array)
        if array.dtype in (torch.float16, torch.bfloat16):
            array = array.float()
        return np.asarray(array.detach().cpu().numpy())

    def hosts(self, arrays: Sequence[Array]) -> list[np.ndarray]:
        """As `host` gives each; from a GPU by one copy, for which the host waits."""
        if len(arrays) > 1 and all(map(_is_float_on_gpu, arrays)):
            return _at_once(arrays)
        return super().hosts(arrays)

    def masks(
        self, logits: Array, chosen: Sequence[np.ndarray], frames: Sequence[Frame]
    ) -> list[np.ndarray]:
        """As the host's; a GPU works them out, and only those chosen are copied."""
        if self._device.type != "cuda":
            return super().masks(logits, chosen, frames)
        own_logits = as_tensor(logits).to(self._device)
        numbers = [torch.as_tensor(some, device=self._device) for some in chosen]
        triples = zip(own_logits, numbers, frames, strict=True)
        try:
            return [masks_to_original(own[some], frame) for own, some, frame in triples]
        except torch.OutOfMemoryError as error:
            raise ran_out(self._device, len(frames), error) from error


def _is_float_on_gpu(array: Array) -> bool:
    return (
        isinstance(array, torch.Tensor)
        and array.is_cuda
        and array.dtype in (torch.float32, torch.float16, torch.bfloat16)
    )


def _at_once(tensors: Sequence[torch.Tensor]) -> list[np.ndarray]:
    """Tensors of at most 32 bits on the host, in float32 and in one piece of memory."""
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors]).float().cpu()
    parts = flat.split([tensor.numel() for tensor in tensors])
    pairs = zip(parts, tensors, strict=True)
    return [part.view(tensor.shape).numpy() for part, tensor in pairs]


def _pixels(
    image: Image, spec: Preprocessing, place: Placement, device: torch.device
) -> tuple[torch.Tensor, str]:
    """uint8 (C, h, w) of one or three channels, cut out and uploaded; their order."""
    top, left, bottom, right = place.source
    color: str = image.color
    if spec.contrast is not None:
        # scikit-image has no such thing for tensors.
        equalized = equalize(image.host()[top:bottom, left:right], spec.contrast)
        return upload(as_tensor(equalized).permute(2, 0, 1), device), color
    whole, color = _view(image)
    return upload(_eight_bit(whole[:, top:bottom, left:right]), device), color


def _lay_in_steps(
    planes: torch.Tensor,
    pixels: torch.Tensor,
    color: str,
    spec: Preprocessing,
    place: Placement,
) -> None:
    """Resize uint8 (C, h, w), and write them to where they belong on `planes`."""
    if spec.grayscale:
        pixels = _gray(pixels, color)
    for size in (place.intermediate, place.resized):
        if size is not None and size != tuple(pixels.shape[1:]):
            pixels = resize(pixels, size, spec)
    _lay(_native(planes), _native(pixels), color, spec, place)


def _view(image: Image) -> tuple[torch.Tensor, str]:
    """The image's own memory as (C, H, W), and the order of its channels."""
    array, color = image.pixels, image.color
    if image.layout == "HWC" and array.ndim == 3 and array.strides[2] < 0:
        # torch has no negative strides; turning back what `[..., ::-1]` did is free.
        array = array[:, :, :3][:, :, ::-1]
        color = "rgb" if color == "bgr" else "bgr"
    pixels = as_tensor(array)
    if pixels.ndim == 2:
        return pixels[None], color
    if image.layout == "HWC":
        return pixels.permute(2, 0, 1), color
    return pixels[:3], color


def _eight_bit(pixels: torch.Tensor) -> torch.Tensor:
    if pixels.dtype == torch.uint8:
        return pixels
    return pixels.to(torch.float32).mul(255).round_().to(torch.uint8)


def _gray(pixels: torch.Tensor, color: str) -> torch.Tensor:
    if len(pixels) == 1:
        return pixels
    luma = torch.full(pixels.shape[1:], 0x8000, dtype=torch.int32, device=pixels.device)
    for channel, weight in zip(pixels, LUMA[color], strict=False):
        luma.add_(channel, alpha=weight)
    return (luma >> 16).to(torch.uint8)[None]


def _native(tensor: torch.Tensor) -> Array:
    """The same memory in NumPy if it is the host's.

    torch would wake its pool of threads for each of a dozen steps that take 0.1 ms,
    which costs far more than it gains where other processes want the CPUs too.
    """
    return tensor.numpy() if tensor.device.type == "cpu" else tensor


def _lay(
    planes: Array, pixels: Array, color: str, spec: Preprocessing, place: Placement
) -> None:
    """Write pixels (C, h, w) to where they belong on `planes` (3, H, W), normalised.

    Both are NumPy's, or both are tensors: what is done to them reads the same.
    """
    seen_rows, seen_columns = place.seen
    pixels, (top, left) = pixels[:, seen_rows, seen_columns], place.corner
    multiply, add = spec.affine
    padded = tuple(pixels.shape[1:]) != place.canvas
    if padded and spec.resize == "letterbox-reflect":
        pixels, top, left, padded = _reflect(pixels, place), 0, 0, False
    rows, columns = pixels.shape[1:]
    order = (0, 1, 2) if color == spec.color else (2, 1, 0)
    for plane, channel, factor, term in zip(planes, order, multiply, add, strict=True):
        if padded:
            plane[:] = float(spec.padding_value * factor + term)
        target = plane[top : top + rows, left : left + columns]
        target[:] = pixels[channel if len(pixels) > 1 else 0]
        if spec.dtype != "uint8":
            target *= float(factor)
            target += float(term)


def _reflect(pixels: Array, place: Placement) -> Array:
    """The cut pixels, mirrored at their edges until they fill the canvas."""
    rows, columns = (
        np.pad(np.arange(length), (before, whole - before - length), mode="reflect")
        for length, before, whole in zip(
            pixels.shape[1:], place.offset, place.canvas, strict=True
        )
    )
    return pixels[:, rows][:, :, columns]
