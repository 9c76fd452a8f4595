"""What the first bytes of an engine say, before anything runs of it."""

from __future__ import annotations

from pathlib import Path

import attrs

# Major, minor and patch version are a byte each from here on, as NVIDIA says:
# https://github.com/NVIDIA/TensorRT/issues/3073
_VERSION = slice(24, 27)


@attrs.frozen
class Header:
    """Which TensorRT wrote an engine: its module, and its version such as 10.13.0."""

    module: str
    version: str


def read_header(path: Path) -> Header | None:
    """The header of an engine, or None for any other file."""
    with path.open("rb") as file:
        start = file.read(_VERSION.stop)
    if start[1:4] != b"trt" or len(start) < _VERSION.stop:
        return None
    module = "tensorrt_rtx" if start[:1] == b"v" else "tensorrt"
    return Header(module, ".".join(map(str, start[_VERSION])))
