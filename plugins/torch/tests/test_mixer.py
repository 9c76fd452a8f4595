"""What the GPU's mixer keeps, with CUDA simulated on the host."""

from __future__ import annotations

import contextlib
import sys
from types import SimpleNamespace

import pytest
import torch

from inference_models import Preprocessing
from inference_models.preprocess import place
from inference_models_torch.mixer import Mixer

SPEC = Preprocessing(size=(4, 6))


class Table:
    """A table on the GPU, which knows the streams that it may not be freed before."""

    def __init__(self):
        self.streams = []

    def record_stream(self, stream):
        self.streams.append(stream)


@pytest.fixture
def mixed(monkeypatch):
    """The tables of each run of the kernel, which is not run."""
    runs = []

    def mix(_, __, tables, affine, *rest, **named):
        runs.append([*tables, affine])

    kernel = SimpleNamespace(mix=mix)
    monkeypatch.setitem(sys.modules, "inference_models_torch.fused", kernel)
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    for name in ("_make_table", "_make_affine"):
        monkeypatch.setattr(Mixer, name, lambda *_: Table())
    return runs


def lay(mixer: Mixer) -> None:
    pixels = torch.zeros((3, 8, 9), dtype=torch.uint8)
    mixer.lay(torch.zeros(3, 4, 6), pixels, "rgb", SPEC, place(SPEC, 8, 9))


def test_tables_are_kept_until_each_stream_that_reads_them_has(mixed, monkeypatch):
    mixer, streams = Mixer(torch.device("cuda", 0)), ["first", "second"]
    for stream in streams:
        monkeypatch.setattr(torch.cuda, "current_stream", lambda _, s=stream: s)
        lay(mixer)

    first, second = mixed
    assert first == second
    assert [table.streams for table in first] == [streams] * 3
