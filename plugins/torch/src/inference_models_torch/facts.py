"""What a file of weights tells about itself; nothing in it is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

from inference_models import Facts, InvalidWeights, TensorSpec

SAFETENSORS = (".safetensors",)
PICKLES = (".pth", ".pt", ".ckpt")

# Room for 100,000 tensors. The format allows 100 MB, which Python makes 2 GB of.
_LONGEST_HEADER = 2**24

_DTYPES = {
    "BF16": "bfloat16",
    "BOOL": "bool",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}


def read_facts(path: Path) -> Facts | None:
    """Tensors and plain metadata; None for a file of another kind.

    Raises `InvalidWeights` for a file that is damaged, or holds more than data.
    """
    suffix = path.suffix.lower()
    if suffix not in (*SAFETENSORS, *PICKLES) or not path.is_file():
        return None
    return _of_safetensors(path) if suffix in SAFETENSORS else _of_pickle(path)


def _of_safetensors(path: Path) -> Facts:
    try:
        with safe_open(path, framework="np") as file:
            tensors = {name: _spec(file.get_slice(name)) for name in file.keys()}  # noqa: SIM118 - no mapping
            metadata = dict(file.metadata() or {})
        check_header(path)
    except Exception as error:  # a hostile file chooses its class
        raise damaged(path, error) from error
    return Facts("torch", tensors, metadata)


def _spec(tensor: Any) -> TensorSpec:
    dtype = tensor.get_dtype()
    return TensorSpec(_DTYPES.get(dtype, dtype.lower()), tensor.get_shape())


def check_header(path: Path) -> None:
    """`ValueError` for a name that a readable `.safetensors` file gives twice.

    The format forbids it, its reader takes the last, and others may take the first.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST_HEADER:
            raise ValueError(f"its header has {length} bytes, as no tensors need")
        json.loads(file.read(length), object_pairs_hook=_without_repetition)


def _without_repetition(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise ValueError(f"it has {name!r:.80} twice")
        seen.add(name)


def _of_pickle(path: Path) -> Facts:
    from inference_models_torch.weights import read_pickle

    checkpoint = read_pickle(path)
    tensors = {
        name: TensorSpec(str(tensor.dtype).removeprefix("torch."), tensor.shape)
        for name, tensor in checkpoint.tensors.items()
    }
    return Facts("torch", tensors, checkpoint.metadata)


def damaged(path: Path, error: Exception) -> InvalidWeights:
    """What to raise for a file that its own reader rejects."""
    reason = str(error).partition("\n")[0]
    return InvalidWeights(
        f"'{path}' is no whole {path.suffix} file: {reason}; fetch it again"
    )
