"""What TensorRT measured in earlier builds, kept in a file so that it is not again."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from inference_models.disk import write_atomically

if TYPE_CHECKING:
    import tensorrt as trt

log = logging.getLogger("inference_models")


def load_timings(
    config: trt.IBuilderConfig, path: Path | None
) -> trt.ITimingCache | None:
    """Let a build begin with what the file holds; a damaged one is as good as none."""
    if path is None:
        return None
    content = b""
    with contextlib.suppress(OSError):
        content = path.read_bytes()
    for known in (content, b""):
        with contextlib.suppress(RuntimeError, TypeError, ValueError):
            cache = config.create_timing_cache(known)
            if cache is not None and config.set_timing_cache(cache, False):
                return cache
        log.debug("TensorRT does not take the timings in '%s'", path)
    return None


def save_timings(cache: trt.ITimingCache | None, path: Path | None) -> None:
    """Keep what was measured; that there is no room for it does not end a build."""
    if cache is None or path is None:
        return
    try:
        write_atomically(path, bytes(cache.serialize()))
    except OSError as error:
        log.debug("the timings cannot be kept in '%s': %s", path, error)
