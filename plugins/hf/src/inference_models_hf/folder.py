"""What a folder of transformers tells of its model, without its weights or its code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from inference_models import Facts, InvalidCard, InvalidWeights, distinct_labels
from inference_models.download.store import offline
from inference_models.strict_json import Node, parse_file
from inference_models_hf.processor import preprocessing_of

CONFIG = "config.json"
PROCESSOR = "preprocessor_config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = "pytorch_model.bin"

ADAPTER = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

METADATA = (CONFIG, PROCESSOR, INDEX)
"""The files that are read to learn what a model is."""

_OWN_KERNELS = {"eager", "sdpa"}
"""Implementations of attention and of experts that are a part of torch."""

_FETCHED = {"cache_dir", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay"}
"""Arguments of timm that have it read other files."""

_LARGEST = 16_000_000  # bytes; a config names up to some thousand classes
_MOST_SHARDS = 1000


def read_folder(folder: Path) -> Facts | None:
    """The facts of a model's folder; None if it is none of transformers.

    Metadata: `config`, as its file has it; `class`, the model's in transformers;
    `labels` by column, None for a column without a name; `preprocessing`, fields of
    `Preprocessing`; `files`, what a model needs; `unsupported`, why it cannot be run,
    if so; and `about`, all that in short. An adapter has `adapts`, its base's name, and
    of these `files`, `unsupported` and `about`. Raises `InvalidWeights` for a file that
    cannot be read.
    """
    if (folder / ADAPTER).is_file() and not (folder / CONFIG).is_file():
        return _adapter(folder)
    config = _read(folder / CONFIG)
    if config is None or not {"architectures", "model_type"} & set(config.data):
        return None
    try:
        name = _class_name(config)
        labels = distinct_labels(_labels(config))
        weights = list(_weights(folder))
        unsupported = objection(folder, config.data) or _pickled(folder, weights)
    except InvalidCard as error:
        raise InvalidWeights(str(error)) from error
    fields, problem = _preprocessing(folder)
    there = [file for file in METADATA if (folder / file).is_file()]
    metadata = {
        "config": dict(config.data),
        "class": name,
        "labels": labels,
        "preprocessing": fields,
        "files": [*there, *weights],
        "unsupported": unsupported or problem,
        "about": f"whose config names {name!r}",
    }
    return Facts("hf", {}, metadata)


def _adapter(folder: Path) -> Facts:
    """The facts of weights that adapt another model; that one's name is `adapts`."""
    config = _read(folder / ADAPTER)
    try:
        base = config.maybe_text("base_model_name_or_path") if config else None
    except InvalidCard as error:
        raise InvalidWeights(str(error)) from error
    there = (folder / ADAPTER_WEIGHTS).is_file()
    lacks = f"it has no {ADAPTER_WEIGHTS}, which holds an adapter's weights"
    metadata = {
        "adapts": base,
        "files": [ADAPTER, ADAPTER_WEIGHTS],
        "unsupported": None if there else lacks,
        "about": f"which adapts {base!r}",
    }
    return Facts("hf", {}, metadata)


def read_config(folder: Path) -> Mapping[str, Any]:
    """The config of a model's folder; `InvalidWeights` where there is none to read."""
    config = _read(folder / CONFIG)
    if config is None:
        raise InvalidWeights(f"{str(folder)!r} has no file {CONFIG}")
    return config.data


def _read(path: Path) -> Node | None:
    if not path.is_file():
        return None
    try:
        return parse_file(path, _LARGEST)
    except InvalidCard as error:
        raise InvalidWeights(str(error)) from error


def _class_name(config: Node) -> str:
    names = config.texts("architectures", 10)
    return names[0] if names else config.text("model_type")


def _weights(folder: Path) -> Iterator[str]:
    """The names of the files of tensors: one, or the shards that an index names."""
    index = _read(folder / INDEX)
    if index is None:
        yield WEIGHTS
        return
    shards = dict.fromkeys(index.node("weight_map").data.values())
    if len(shards) > _MOST_SHARDS:
        raise index.wrong("weight_map", f"names more than {_MOST_SHARDS} files")
    for shard in shards:
        plain = isinstance(shard, str) and Path(shard).name == shard
        if not plain or not shard.endswith(".safetensors"):
            raise index.wrong("weight_map", "names what is no .safetensors file beside")
        yield shard


def objection(folder: Path, config: Mapping[str, Any]) -> str | None:
    """Why a model is refused by which transformers would go beyond its own files."""
    if (folder / ADAPTER).exists():
        return (
            f"it has {ADAPTER!r} beside its {CONFIG}, by which transformers changes "
            "the weights, or takes those of another model; move it elsewhere"
        )
    return wants_code(config) or _wants_another(config)


def wants_code(config: Mapping[str, Any]) -> str | None:
    """Why a model is refused whose config has code run that is not installed.

    transformers fetches kernels of native code by the names that a config gives for
    attention and experts, and for some kinds of quantised weights.
    """
    for key in ("auto_map", "trust_remote_code"):
        if config.get(key):
            return (
                f"its {CONFIG} has {key!r}: it wants code of its own to be run, and no "
                "code of a model's files ever is; choose a model that is a part of "
                "transformers"
            )
    for key, value in (pair for part in parts_of(config) for pair in part.items()):
        if _names_kernel(key, value):
            return (
                f"its {CONFIG} has {key!r}, by which transformers may fetch native "
                "code; take it out of the file, or choose another model"
            )
    return None


def _wants_another(config: Mapping[str, Any]) -> str | None:
    """Why a model is refused whose config names another that would be fetched.

    transformers looks on the Hub for a backbone that is a name without a config, and
    timm for one with a prefix such as "hf-hub:". A name of timm with settings beside it
    is looked for there first, also offline. timm also reads a checkpoint whose path it
    is given, and older ones run what a pickle there says.
    """
    for part in parts_of(config):
        named = {key: part.get(key) for key in ("backbone", "architecture")}
        for key, name in named.items():
            if isinstance(name, str) and not re.fullmatch(r"[\w.-]+", name):
                return _of_another(key)
        is_alone = named["backbone"] is not None and part.get("backbone_config") is None
        of_timm = part.get("use_timm_backbone") in (None, True)
        if is_alone and (not of_timm or (offline() and part.get("backbone_kwargs"))):
            return _of_another("backbone")
        arguments = part.get("model_args")
        if isinstance(arguments, Mapping) and _FETCHED & set(arguments):
            return _of_another("model_args")
    return None


def _of_another(key: str) -> str:
    return (
        f"its {CONFIG} has {key!r}, by which transformers may fetch another model's "
        "files; write its 'backbone_config' there instead, or choose another model"
    )


def parts_of(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All mappings in a config, itself first."""
    return (value for value in _within(config) if isinstance(value, Mapping))


def _names_kernel(key: str, value: Any) -> bool:
    if key == "quantization_config":
        return bool(value)
    named = {each for each in _within(value) if isinstance(each, str)}
    return "_implementation" in key and not named <= _OWN_KERNELS


def _within(value: Any) -> Iterator[Any]:
    """A value of a config and all that is in it, however deep."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        yield each
        if isinstance(each, Mapping):
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


def _pickled(folder: Path, weights: list[str]) -> str | None:
    """Why a model is refused whose only weights are pickles."""
    here = any((folder / name).is_file() for name in weights)
    if here or not (folder / PICKLED).is_file():
        return None
    return (
        f"its weights are {PICKLED!r} alone, a pickle, which can say what is run when "
        "it is read; write them as safetensors with transformers' save_pretrained()"
    )


def _preprocessing(folder: Path) -> tuple[dict[str, Any] | None, str | None]:
    """Fields of `Preprocessing`, or why there are none."""
    try:
        config = _read(folder / PROCESSOR)
        if config is None:
            return None, f"it has no {PROCESSOR}, which says how images are prepared"
        return preprocessing_of(config), None
    except (InvalidCard, InvalidWeights) as error:
        reason = str(error).removeprefix(f"{str(folder / PROCESSOR)!r}: ")
        return None, f"its images cannot be prepared here: {PROCESSOR}: {reason}"


def _labels(config: Node) -> list[str | None]:
    """Class names by column; "N/A" and what has no name are none.

    `id2label`, else as many as transformers itself makes up.
    """
    named = config.maybe_node("id2label")
    if named is None:
        count = config.whole("num_labels", 1, 100_000) or 2
        return [f"LABEL_{column}" for column in range(count)]
    by_column = {_column(named, key): named.maybe_text(key) for key in named.data}
    if sorted(by_column) != list(range(len(by_column))):
        raise config.wrong("id2label", "does not count its classes from 0 on")
    names = [by_column[column] for column in range(len(by_column))]
    return [None if name == "N/A" else name for name in names]


def _column(named: Node, key: str) -> int:
    if not key.isascii() or not key.isdigit() or len(key) > 6:
        raise named.wrong(key, "is no number of a class")
    return int(key)
