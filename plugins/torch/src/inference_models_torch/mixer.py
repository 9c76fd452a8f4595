"""Preprocessing on an NVIDIA GPU by one kernel an image, from tables kept there."""

from __future__ import annotations

import functools
import logging
from importlib.util import find_spec

import numpy as np
import torch

from inference_models import Preprocessing
from inference_models.errors import first_line
from inference_models.preprocess import Placement
from inference_models_torch.taps import PADDING, Axis, axes, plain_axes, table

log = logging.getLogger("inference_models")

# Tables of as many lengths; the largest are a few hundred kilobytes.
_TABLES = 128


class Mixer:
    """Resizes, crops, pads, normalises and lays out uint8 pixels, all at once."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._table = functools.lru_cache(_TABLES)(self._make_table)
        self._affine = functools.lru_cache(_TABLES)(self._make_affine)

    def lay(
        self,
        planes: torch.Tensor,
        pixels: torch.Tensor,
        color: str,
        spec: Preprocessing,
        place: Placement,
    ) -> None:
        """Write uint8 (C, h, w) to where they belong on `planes` (3, H, W)."""
        between = place.intermediate
        if between is not None and between != tuple(pixels.shape[1:]):
            pixels, color = self._resized(pixels, color, spec, between), spec.color
        rows, columns = axes(tuple(pixels.shape[1:]), place, spec)
        self._mix(pixels, planes, (rows, columns), color, spec)

    def _resized(
        self,
        pixels: torch.Tensor,
        color: str,
        spec: Preprocessing,
        size: tuple[int, int],
    ) -> torch.Tensor:
        made = torch.empty((*size, 3), dtype=torch.uint8, device=self._device)
        made = made.permute(2, 0, 1)
        tables = plain_axes(tuple(pixels.shape[1:]), size, spec)
        self._mix(pixels, made, tables, color, spec, plain=True)
        return made

    def _mix(
        self,
        source: torch.Tensor,
        planes: torch.Tensor,
        wanted: tuple[Axis, Axis],
        color: str,
        spec: Preprocessing,
        plain: bool = False,
    ) -> None:
        from inference_models_torch.fused import mix

        gray = spec.grayscale and len(source) > 1
        rows, columns = map(self._table, wanted)
        affine = self._affine(None if plain else spec)
        # Triton launches on the thread's GPU, wherever the tensors are.
        with torch.cuda.device(self._device):
            mix(
                source,
                planes,
                (rows, columns),
                affine,
                float(spec.padding_value),
                turned=color == "bgr" if gray else color != spec.color,
                gray=gray,
                stepwise=spec.antialias,
                none=PADDING,
            )
        self._outlive(rows, columns, affine)

    def _outlive(self, *tables: torch.Tensor) -> None:
        """Have what is forgotten later keep its memory until this stream has read it.

        torch lets the stream that a tensor was made on use its memory again at once.
        """
        if self._device.type == "cuda":
            stream = torch.cuda.current_stream(self._device)
            for each in tables:
                each.record_stream(stream)

    def _make_table(self, axis: Axis) -> torch.Tensor:
        return torch.from_numpy(table(axis)).to(self._device)

    def _make_affine(self, spec: Preprocessing | None) -> torch.Tensor:
        pair = spec.affine if spec else (np.ones(3), np.zeros(3))
        values = np.concatenate(pair).astype(np.float32)
        return torch.from_numpy(values).to(self._device)


@functools.cache
def mixer(device: torch.device) -> Mixer | None:
    """The GPU's mixer, tried once; None, with a warning, where Triton cannot run."""
    try:
        made = Mixer(device)
        _try(made, device)
    except Exception as error:  # noqa: BLE001 - Triton compiles, and fails in many ways
        reason = first_line(error)
        what = "Triton is not installed" if find_spec("triton") is None else reason
        log.warning(
            "images are prepared on %s in many steps instead of one, since %s; "
            "pip install triton, and a C compiler, make it faster",
            device,
            what,
        )
        return None
    return made


def _try(made: Mixer, device: torch.device) -> None:
    pixels = torch.zeros((1, 2, 2), dtype=torch.uint8, device=device)
    axis = Axis(2, 1, 0, 1, "bilinear", True, False)
    planes = torch.empty((3, 1, 1), device=device)
    made._mix(pixels, planes, (axis, axis), "rgb", Preprocessing(size=(1, 1)))
