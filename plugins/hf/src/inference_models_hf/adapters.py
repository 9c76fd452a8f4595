"""Low-rank adapters (LoRA), merged by peft into the model that they adapt.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv:2106.09685.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from inference_models import InvalidCard, InvalidWeights
from inference_models.errors import first_line
from inference_models.strict_json import Node, parse_file
from inference_models_hf.folder import ADAPTER, ADAPTER_WEIGHTS
from inference_models_torch.header import check_header
from inference_models_torch.modules import listed, within_files

_LARGEST = 1_000_000
_HIGHEST_RANK = 2**31 - 1
_MOST_NAMES = 1000
_MOST_SAVED = 100
# Where peft takes a name for a regular expression, "^" means that it is the whole one.
_NAME = re.compile(r"\^?[A-Za-z0-9_.-]{1,500}")
_FOLLOWED = (
    "alpha_pattern",
    "bias",
    "fan_in_fan_out",
    "layers_to_transform",
    "lora_alpha",
    "modules_to_save",
    "r",
    "rank_pattern",
    "task_type",
    "use_dora",
    "use_rslora",
)
"""Settings that say what the weights of an adapter mean; peft checks their values."""
_MEANINGLESS = (
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "init_lora_weights",
    "loftq_config",
    "lora_dropout",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "target_modules",
)
"""Settings of training, and what is read apart from the rest. `qalora_group_size` is
always written, and `use_qalora`, which alone gives it a meaning, is refused."""


def with_adapter(model: nn.Module, folder: Path) -> nn.Module:
    """The model with a folder's adapter added to its weights.

    Raises `InvalidWeights` for one that is damaged, of another model, or of a kind that
    is not read here.
    """
    import peft
    from safetensors.torch import load_file

    try:
        settings = _settings(folder / ADAPTER)
        check_header(folder / ADAPTER_WEIGHTS)
        tensors = load_file(folder / ADAPTER_WEIGHTS)
        with within_files([folder / ADAPTER_WEIGHTS], len(tensors)):
            adapted = peft.get_peft_model(model, peft.LoraConfig(**settings))
        _check_names(tensors, peft.get_peft_model_state_dict(adapted))
        peft.set_peft_model_state_dict(adapted, tensors)
        merged: nn.Module = adapted.merge_and_unload(safe_merge=True)
    except (InvalidCard, InvalidWeights) as error:
        raise InvalidWeights(str(error)) from error
    except Exception as error:
        reason = first_line(error)
        raise InvalidWeights(
            f"the adapter in {str(folder)!r} does not fit its base: {reason}; is it of "
            "another model?"
        ) from error
    return merged.eval().requires_grad_(False)


def _settings(path: Path) -> dict[str, Any]:
    """What peft is told; everything else that means something is refused."""
    config = parse_file(path, _LARGEST)
    if config.data.get("peft_type") != "LORA":
        raise config.wrong("peft_type", "is not 'LORA', the kind that is read here")
    for key, value in config.data.items():
        if value and key not in (*_FOLLOWED, *_MEANINGLESS):
            raise config.wrong(
                key, "changes what the adapter means, and is not followed"
            )
    _check_values(config)
    given = {k: v for k, v in config.data.items() if v is not None}
    followed = {k: v for k, v in given.items() if k in _FOLLOWED}
    return {**followed, "target_modules": _targets(config), "inference_mode": True}


def _check_values(config: Node) -> None:
    """Raise `InvalidCard` for numbers that are none, and names that no module has."""
    config.whole("r", 1, _HIGHEST_RANK)
    config.number("lora_alpha", -1e9, 1e9)
    saved = config.values("modules_to_save", _MOST_SAVED)
    _check_modules(config, "modules_to_save", saved)
    for key in ("alpha_pattern", "rank_pattern"):
        pattern = config.maybe_node(key) or Node({}, config.place)
        _check_modules(config, key, pattern.data)
        for name in pattern.data:
            pattern.number(name, -1e9, 1e9)


def _targets(config: Node) -> Any:
    """Names of modules, or "all-linear"."""
    given = config.data.get("target_modules")
    if given == "all-linear":
        return given
    if not isinstance(given, list):
        raise config.wrong(
            "target_modules", "is neither a list of names nor 'all-linear'"
        )
    _check_modules(config, "target_modules", given)
    return given


def _check_modules(config: Node, key: str, names: Collection[Any]) -> None:
    """Raise `InvalidCard` for what cannot be names of modules.

    peft also takes regular expressions, which could take for ever to be matched.
    """
    if len(names) > _MOST_NAMES:
        raise config.wrong(key, f"names {len(names)} modules, more than {_MOST_NAMES}")
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise config.wrong(
                key,
                f"has {str(name)[:60]!r}, which is no name of a module; regular "
                "expressions are not followed",
            )


def _check_names(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for what, names in (
        ("lacks", wanted.keys() - given.keys()),
        ("has unknown", given.keys() - wanted.keys()),
    ):
        if problem := listed(what, names):
            raise InvalidWeights(f"the adapter {problem}; is it of another model?")
