"""What a file of weights tells about itself; nothing in it is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import safe_open

from inference_models import Facts, TensorSpec
from inference_models_torch.header import SAFETENSORS, check_header, damaged

PICKLES = (".pth", ".pt", ".ckpt")

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
        check_header(path)
        with safe_open(path, framework="np") as file:
            tensors = {name: _spec(file.get_slice(name)) for name in file.keys()}  # noqa: SIM118 - no mapping
            metadata = dict(file.metadata() or {})
    except Exception as error:  # a hostile file chooses its class
        raise damaged(path, error) from error
    return Facts("torch", tensors, metadata)


def _spec(tensor: Any) -> TensorSpec:
    dtype = tensor.get_dtype()
    return TensorSpec(_DTYPES.get(dtype, dtype.lower()), tensor.get_shape())


def _of_pickle(path: Path) -> Facts:
    from inference_models_torch.weights import read_pickle

    checkpoint = read_pickle(path)
    tensors = {
        name: TensorSpec(str(tensor.dtype).removeprefix("torch."), tensor.shape)
        for name, tensor in checkpoint.tensors.items()
    }
    return Facts("torch", tensors, checkpoint.metadata)
