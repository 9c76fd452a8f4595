"""Files of weights, read without running anything that they hold."""

from __future__ import annotations

import argparse
import pickle
import re
import threading
import types
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from inference_models import InvalidWeights, Unavailable
from inference_models_torch.facts import SAFETENSORS, damaged
from inference_models_torch.installed import find_installed

# Where training code keeps the tensors, beside its arguments and its progress.
_STATE_KEYS = ("model", "state_dict")

# What training code keeps its arguments in: both only carry attributes.
_ALLOWED = [argparse.Namespace, types.SimpleNamespace]

# torch keeps one list of allowed classes for the whole process.
_ALLOWING = threading.Lock()


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
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
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
    archive = zipfile.is_zipfile(path)
    if archive and _is_compressed(path):
        # torch stores entries as they are; compressed ones can hide how large they get.
        raise InvalidWeights(
            f"'{path}' is compressed, which torch's files are not; save its "
            "state_dict() with safetensors.torch.save_file"
        )
    with _ALLOWING, torch.serialization.safe_globals(_ALLOWED):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)


def _is_compressed(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(e.compress_type != zipfile.ZIP_STORED for e in archive.infolist())


def _sorted_out(path: Path, loaded: Any) -> Checkpoint:
    """The tensors of a state dict, or of one within; the rest is metadata."""
    outer = loaded if isinstance(loaded, Mapping) else {}
    keys = [key for key in _STATE_KEYS if isinstance(outer.get(key), Mapping)]
    state = outer[keys[0]] if keys else outer
    tensors = {n: v for n, v in state.items() if isinstance(v, torch.Tensor)}
    if not tensors:
        raise InvalidWeights(
            f"'{path}' holds no tensors by name; save a module's state_dict() with "
            "safetensors.torch.save_file"
        )
    beside = {**outer, **state}
    for name in (*keys[:1], *tensors):
        beside.pop(name, None)
    return Checkpoint(tensors, _plain(beside))


def _plain(value: Any) -> Any:
    """Texts, numbers, lists and mappings of `value`; what else there is, is dropped."""
    if isinstance(value, tuple(_ALLOWED)):
        value = vars(value)
    if isinstance(value, Mapping):
        items = {k: _plain(v) for k, v in value.items() if isinstance(k, str)}
        return {k: v for k, v in items.items() if v is not None or value[k] is None}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (bool, int, float, str)) else None


def _refusal(path: Path, error: Exception) -> InvalidWeights:
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    if found is not None:
        code = found[1]
    elif "TorchScript" in str(error):
        code = "a TorchScript program"
    else:
        return _unreadable(path, error)
    return InvalidWeights(
        f"'{path}' holds {code}, which could run code, and is not loaded; save its "
        "state_dict() with safetensors.torch.save_file"
    )


def _unreadable(path: Path, error: Exception) -> InvalidWeights:
    reason = type(error).__name__
    if not isinstance(error, pickle.UnpicklingError):
        reason = f"{reason}: {str(error).partition('. ')[0]}"
    return InvalidWeights(
        f"'{path}' is damaged, or no checkpoint of torch ({reason}); fetch it again"
    )
