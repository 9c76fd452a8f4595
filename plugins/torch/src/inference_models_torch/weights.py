"""Files of weights, read without running anything that they hold."""

from __future__ import annotations

import argparse
import re
import threading
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
        return _sorted_out(_load(path))
    except InvalidWeights as error:
        raise InvalidWeights(f"'{path}' {error}") from error.__cause__
    except Exception as error:  # noqa: BLE001 - a hostile file chooses what is raised
        raise _refusal(path, error) from error


def _load(path: Path) -> Any:
    archive = zipfile.is_zipfile(path)
    if archive and _is_compressed(path):
        # torch stores entries as they are: who compresses them may hide their size.
        raise InvalidWeights("is compressed, which no checkpoint of torch is")
    with _ALLOWING, torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)


def _is_compressed(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(e.compress_type != zipfile.ZIP_STORED for e in archive.infolist())


def _sorted_out(loaded: Any) -> Checkpoint:
    state, beside = loaded, {}
    for key in _STATE_KEYS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            state, beside = loaded[key], loaded
            break
    if not isinstance(state, Mapping):
        raise InvalidWeights(f"holds {type(state).__name__}, not tensors by name")
    tensors = {n: v for n, v in state.items() if isinstance(v, torch.Tensor)}
    if not tensors:
        raise InvalidWeights("holds no tensors by name")
    rest = {name: value for name, value in beside.items() if value is not state}
    return Checkpoint(tensors, _plain({**rest, **_without(state, tensors)}))


def _without(state: Mapping[str, Any], tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name not in tensors}


def _plain(value: Any) -> Any:
    """Texts, numbers, lists and mappings of `value`; what else there is, is dropped."""
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    if isinstance(value, Mapping):
        items = {k: _plain(v) for k, v in value.items() if isinstance(k, str)}
        return {k: v for k, v in items.items() if v is not None or value[k] is None}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (bool, int, float, str)) else None


def _refusal(path: Path, error: Exception) -> InvalidWeights:
    """What to raise for `error`; torch's own text would advise to switch safety off."""
    text = str(error)
    found = re.search(r"GLOBAL ([\w.]+)", text)
    if found is not None:
        return InvalidWeights(
            f"'{path}' holds {found[1]}, which could run code, and is not loaded; save "
            "its state_dict() with safetensors.torch.save_file"
        )
    if "TorchScript" in text:
        return InvalidWeights(
            f"'{path}' is a TorchScript program, which is code, and is not loaded; save "
            "its state_dict() with safetensors.torch.save_file"
        )
    return damaged(path, error)
