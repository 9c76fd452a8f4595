"""The three networks of a Florence-2, which share the vectors of its tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from inference_models_florence2.layout import tensors_of, text_config, vision_config
from inference_models_florence2.text import Decoder, Encoder
from inference_models_florence2.vision import Vision


def networks(config: Mapping[str, Any], loaded: Any = None) -> dict[str, nn.Module]:
    """Modules by graph; with the tensors of transformers' model, if there is one."""
    text = text_config(config)
    shared = nn.Embedding(text["vocab_size"], text["d_model"])
    modules: dict[str, nn.Module] = {
        "vision": Vision(vision_config(config)),
        "encoder": Encoder(text, shared),
        "decoder": Decoder(text, shared),
    }
    if loaded is not None:
        tensors = loaded.state_dict()
        for graph, module in modules.items():
            module.load_state_dict(tensors_of(graph, tensors), assign=True)
    return modules
