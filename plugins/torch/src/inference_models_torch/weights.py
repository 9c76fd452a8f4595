"""Files of weights, read without running anything that they hold."""

from __future__ import annotations

import argparse
import pickle
import re
import tarfile
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors.torch import load_file

from inference_models import InvalidWeights, Unavailable
from inference_models_torch.archives import check_archive, is_archive
from inference_models_torch.forks import lock_across_forks
from inference_models_torch.header import SAFETENSORS, check_header, damaged
from inference_models_torch.installed import find_installed
from inference_models_torch.pickles import check_pickle, refused

# Where training code keeps the tensors, beside its arguments and its progress.
_STATE_KEYS = ("model", "state_dict")

# What training code keeps its arguments in: both only carry attributes.
_ALLOWED = [argparse.Namespace, types.SimpleNamespace]

# torch keeps one list of allowed classes for the whole process.
_ALLOWING = lock_across_forks()

# Files from before archives: three pickles about themselves, the tensors, their order.
_OLD_PICKLES = 5

# Lists that hold one another many times over are short in a file, endless as a tree.
_MOST_BESIDE = 2**20


@attrs.frozen
class Checkpoint:
    """Tensors by name, and the plain data found beside them."""

    tensors: Mapping[str, torch.Tensor]
    metadata: Mapping[str, Any]


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """A file's tensors, on the CPU and read as they are used; or `InvalidWeights`."""
    if path.suffix.lower() not in SAFETENSORS:
        return dict(read_pickle(path).tensors)
    try:
        check_header(path)
        return dict(load_file(path))
    except Exception as error:  # a hostile file chooses its class
        raise damaged(path, error) from error


def read_pickle(path: Path) -> Checkpoint:
    """A `.pth` file that holds tensors and plain data; else `InvalidWeights`."""
    refusal = find_installed().refuse_pickle()
    if refusal is not None:
        raise Unavailable(f"'{path}' is not read: {refusal}")
    try:
        return _sorted_out(path, _load(path))
    except InvalidWeights:
        raise
    except Exception as error:  # noqa: BLE001 - a hostile file chooses its class
        # Not chained: torch's own text advises to switch its safety off.
        raise _refusal(path, error) from None


def _load(path: Path) -> Any:
    archive = is_archive(path)
    if archive:
        check_archive(path)
    else:
        _check_old(path)
    with _ALLOWING, torch.serialization.safe_globals(_ALLOWED):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)


def _check_old(path: Path) -> None:
    if _is_tar(path):
        raise refused(path, "is a tar, torch's oldest format, which is not safe")
    with path.open("rb") as file:
        for _ in range(_OLD_PICKLES):
            check_pickle(path, file)


def _is_tar(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(tarfile.BLOCKSIZE)
    # Not opened: to read longer headers takes Pythons of before 2024-09 for ever.
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


def _sorted_out(path: Path, loaded: Any) -> Checkpoint:
    """The tensors of a state dict, or of one within; the rest is metadata."""
    outer = loaded if isinstance(loaded, Mapping) else {}
    keys = [key for key in _STATE_KEYS if isinstance(outer.get(key), Mapping)]
    state = outer[keys[0]] if keys else outer
    tensors = {n: v for n, v in state.items() if isinstance(v, torch.Tensor)}
    if not tensors:
        raise InvalidWeights(
            f"'{path}' holds no tensors by name{_elsewhere(outer)}; save a module's "
            "state_dict() with safetensors.torch.save_file"
        )
    _check_tensors(path, tensors)
    beside = {**outer, **state}
    for name in (*keys[:1], *tensors):
        beside.pop(name, None)
    return Checkpoint(tensors, _plain(path, beside, iter(range(_MOST_BESIDE))))


def _elsewhere(outer: Mapping[Any, Any]) -> str:
    """Where a checkpoint has tensors that are not looked for, and where they are."""
    keys = [
        f"{key!r:.80}"
        for key, value in outer.items()
        if isinstance(value, Mapping)
        and any(isinstance(tensor, torch.Tensor) for tensor in value.values())
    ]
    if not keys:
        return ""
    known = " or ".join(map(repr, _STATE_KEYS))
    return f" at its top or under {known}, but under {', '.join(keys[:3])}"


def _check_tensors(path: Path, tensors: Mapping[Any, torch.Tensor]) -> None:
    size = path.stat().st_size
    for name, tensor in tensors.items():
        if not isinstance(name, str):
            raise refused(path, f"has {type(name).__name__} {name!r:.80} for a name")
        # One number can stand for a tensor of any size.
        if tensor.nbytes > size:
            raise refused(path, f"is smaller than {name!r:.80} in it claims to be")


def _plain(path: Path, value: Any, left: Iterator[int]) -> Any:
    """Texts, numbers, lists and mappings of `value`; what else there is, is dropped."""
    if next(left, None) is None:
        raise refused(path, f"holds over {_MOST_BESIDE} values beside its tensors")
    if isinstance(value, tuple(_ALLOWED)):
        value = vars(value)
    if isinstance(value, Mapping):
        pairs = [(k, v) for k, v in value.items() if isinstance(k, str)]
        items = {k: _plain(path, v, left) for k, v in pairs}
        return {k: v for k, v in items.items() if v is not None or value[k] is None}
    if isinstance(value, (list, tuple)):
        return [_plain(path, item, left) for item in value]
    return value if isinstance(value, (bool, int, float, str)) else None


def _refusal(path: Path, error: Exception) -> InvalidWeights:
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    if found is not None:
        return refused(path, f"holds {found[1]}, which could run code")
    reason = type(error).__name__
    if not isinstance(error, pickle.UnpicklingError):
        first = str(error).partition("\n")[0].partition(". ")[0]
        reason = f"{reason}: {first}" if first else reason
    return InvalidWeights(
        f"'{path}' is damaged, or no checkpoint of torch ({reason}); fetch it again"
    )
