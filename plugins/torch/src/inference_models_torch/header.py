"""The header of a `.safetensors` file, which names its tensors."""

from __future__ import annotations

import json
from pathlib import Path

from inference_models import InvalidWeights
from inference_models.errors import first_line
from inference_models.strict_json import without_repeats

SAFETENSORS = (".safetensors",)

# Room for 100,000 tensors. The format allows 100 MB, which Python makes 2 GB of.
_LONGEST_HEADER = 2**24


def check_header(path: Path) -> None:
    """`ValueError` for a name that a `.safetensors` file gives twice, and for no JSON.

    The format forbids it, its reader takes the last, and others may take the first.
    To be called before the format's own reader, which takes headers of any length.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST_HEADER:
            raise ValueError(f"its header has {length} bytes, as no tensors need")
        json.loads(file.read(length), object_pairs_hook=without_repeats)


def damaged(path: Path, error: Exception) -> InvalidWeights:
    """What to raise for a file that its own reader rejects."""
    reason = first_line(error)
    return InvalidWeights(
        f"'{path}' is no whole {path.suffix} file: {reason}; fetch it again"
    )
