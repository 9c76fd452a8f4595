"""What a Florence-2's configuration says: sizes, states, and each graph's tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from inference_models import InvalidCard, TensorSpec

_TEXT = "model.language_model."
_VISION = ("model.vision_tower.", "model.multi_modal_projector.")
# Other names of `shared.weight`, and BART's bias of logits: the networks have neither.
_TIED = re.compile(r"(en|de)coder\.embed_tokens\.|lm_head\.|final_logits_bias")
_CROSS = re.compile(r"decoder\.layers\.(\d+)\.encoder_attn\.([kv]_proj\..+)")

_VISION_DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "depths": [1, 1, 9, 1],
    "patch_size": [7, 3, 3, 3],
    "patch_stride": [4, 2, 2, 2],
    "patch_padding": [3, 1, 1, 1],
    "patch_prenorm": [False, True, True, True],
    "embed_dim": [128, 256, 512, 1024],
    "num_heads": [4, 8, 16, 32],
    "num_groups": [4, 8, 16, 32],
    "window_size": 12,
    "mlp_ratio": 4.0,
    "qkv_bias": True,
    "activation_function": "gelu",
    "projection_dim": 1024,
    "max_temporal_embeddings": 100,
    "max_position_embeddings": 50,
}
_TEXT_DEFAULTS: dict[str, Any] = {
    "vocab_size": 50265,
    "max_position_embeddings": 1024,
    "encoder_layers": 12,
    "encoder_ffn_dim": 4096,
    "encoder_attention_heads": 16,
    "decoder_layers": 12,
    "decoder_ffn_dim": 4096,
    "decoder_attention_heads": 16,
    "activation_function": "gelu",
    "d_model": 1024,
    "scale_embedding": False,
}


def vision_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The image encoder's settings, complete; `InvalidCard` for what cannot be."""
    return _complete(config, "vision_config", _VISION_DEFAULTS)


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The text model's settings, complete; `InvalidCard` for what cannot be."""
    return _complete(config, "text_config", _TEXT_DEFAULTS)


def given_of(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The settings under a key as they are; `InvalidCard` for what is no mapping."""
    given = config.get(key, {})
    if not isinstance(given, Mapping):
        raise InvalidCard(f"{key} {given!r:.100} is no mapping; correct the config")
    return given


def _complete(
    config: Mapping[str, Any], key: str, defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings under a key, those that transformers leaves out filled in."""
    given = given_of(config, key)
    known = {name: given.get(name, value) for name, value in defaults.items()}
    for name, value in known.items():
        if not _is_like(value, defaults[name], least=int(name != "patch_padding")):
            raise InvalidCard(
                f"{key} has {name} {value!r:.100}, where {defaults[name]!r} would fit; "
                "correct the config"
            )
    lengths = {len(value) for value in known.values() if isinstance(value, list)}
    if len(lengths) > 1:
        raise InvalidCard(
            f"{key} has lists of {', '.join(map(str, sorted(lengths)))} values, where "
            "each has one for each stage; correct the config"
        )
    return known


def _is_like(value: Any, example: Any, least: int) -> bool:
    """Whether a setting has the type of an example, and numbers a plausible size."""
    if isinstance(example, list):
        several = isinstance(value, list | tuple) and len(value) > 0
        return several and all(_is_like(item, example[0], least) for item in value)
    if isinstance(example, bool | str):
        return isinstance(value, type(example))
    number = int if isinstance(example, int) else int | float
    is_number = isinstance(value, number) and not isinstance(value, bool)
    return is_number and least <= value <= 1_000_000


def states(config: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Names of the states: the self-attention's caches, and the cross-attention's.

    The first grow by a token with each step, the others stay as the encoder made them.
    """
    layers = range(text_config(config)["decoder_layers"])
    pairs = [(layer, kind) for layer in layers for kind in ("key", "value")]
    grown = [f"state.{kind}.{layer}" for layer, kind in pairs]
    return grown, [f"state.cross_{kind}.{layer}" for layer, kind in pairs]


def tensors_of(graph: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a graph under its module's names, out of all under transformers'."""
    if graph == "vision":
        return {
            name.removeprefix("model."): tensor
            for name, tensor in tensors.items()
            if name.startswith(_VISION)
        }
    text = {
        name.removeprefix(_TEXT): tensor
        for name, tensor in tensors.items()
        if name.startswith(_TEXT)
    }
    named = {_text_name(graph, name): tensor for name, tensor in text.items()}
    return {name: tensor for name, tensor in named.items() if name is not None}


def _text_name(graph: str, name: str) -> str | None:
    """A tensor's name in the module of a graph; None if it is not of it."""
    if name == "shared.weight":
        return name
    if _TIED.match(name):
        return None
    cross = _CROSS.fullmatch(name)
    if cross:
        return f"cross.{cross[1]}.{cross[2]}" if graph == "encoder" else None
    return name if name.startswith(f"{graph}.") else None


def signature(
    graph: str, config: Mapping[str, Any], size: tuple[int, int]
) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
    """Inputs and outputs of a graph, in order; `size` is the image's."""
    text = text_config(config)
    width, heads = text["d_model"], text["decoder_attention_heads"]
    images = TensorSpec("float32", ("batch", positions(config, size), width))
    grown, stay = states(config)
    mask = {"state.mask": TensorSpec("int64", ("batch", "source"))}
    seen = TensorSpec("float32", ("batch", heads, "source", width // heads))
    if graph == "vision":
        pixels = TensorSpec("float32", ("batch", 3, *size))
        return {"pixel_values": pixels}, {"image_features": images}
    if graph == "encoder":
        words = TensorSpec("int64", ("batch", "words"))
        inputs = {"input_ids": words, "image_features": images, "attention_mask": words}
        empty = TensorSpec("float32", ("batch", 1, heads, 0, width // heads))
        return inputs, {
            **mask,
            **dict.fromkeys(grown, empty),
            **dict.fromkeys(stay, seen),
        }
    beams = TensorSpec("int64", ("batch", "beams"))
    past = TensorSpec("float32", ("batch", "before", heads, "past", width // heads))
    longer = TensorSpec("float32", ("batch", "beams", heads, "longer", width // heads))
    logits = TensorSpec("float32", ("batch", "beams", text["vocab_size"]))
    inputs = {"input_ids": beams, "order": beams, **mask}
    inputs |= {**dict.fromkeys(grown, past), **dict.fromkeys(stay, seen)}
    return inputs, {"logits": logits, **dict.fromkeys(grown, longer)}


def positions(config: Mapping[str, Any], size: tuple[int, int]) -> int:
    """How many features stand for an image of this (height, width)."""
    vision = vision_config(config)
    height, width = size
    for stride, kernel, padding in zip(
        vision["patch_stride"],
        vision["patch_size"],
        vision["patch_padding"],
        strict=True,
    ):
        height = (height + 2 * padding - kernel) // stride + 1
        width = (width + 2 * padding - kernel) // stride + 1
    return 1 + height * width
