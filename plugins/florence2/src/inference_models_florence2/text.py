"""Florence-2's text model: BART's encoder once, and its decoder token by token.

Lewis et al., "BART: Denoising Sequence-to-Sequence Pre-training", arXiv:1910.13461.
Parameters have transformers' names. What one call of the decoder leaves to the next is
handed on by the caller: B prompts of K beams each, whose pasts are (B, K, heads, T, D).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, relu, scaled_dot_product_attention, silu

from inference_models import InvalidCard

# BART's table of positions begins with two that no token has.
_OFFSET = 2

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": gelu,
    "relu": relu,
    "silu": silu,
}


class Attention(nn.Module):
    """The query and output projections that self- and cross-attention both have."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def query(self, x: Tensor) -> Tensor:
        """Tokens (..., L, width) -> queries (..., heads, L, D)."""
        return by_head(self.q_proj(x), self.heads)

    def output(self, mixed: Tensor) -> Tensor:
        """Attended values (..., heads, L, D) -> tokens (..., L, width)."""
        return self.out_proj(mixed.transpose(-2, -3).flatten(-2))


def by_head(x: Tensor, heads: int) -> Tensor:
    """Split channels into heads: (..., L, width) -> (..., heads, L, D)."""
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)


class SelfAttention(Attention):
    """Multi-head attention among the tokens of one text."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(..., L, width) -> keys and values (..., heads, L, D)."""
        return by_head(self.k_proj(x), self.heads), by_head(self.v_proj(x), self.heads)


class Layer(nn.Module):
    """What encoder and decoder layers share; each step is residual, then normalised."""

    def __init__(self, width: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.final_layer_norm = nn.LayerNorm(width)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        if activation not in ACTIVATIONS:
            raise InvalidCard(
                f"activation_function {activation!r:.100} is not one of "
                f"{', '.join(ACTIVATIONS)}; correct the config"
            )
        self._activation = ACTIVATIONS[activation]

    def feed_forward(self, x: Tensor) -> Tensor:
        """The feed-forward network: (..., width) -> the same shape."""
        return self.final_layer_norm(x + self.fc2(self._activation(self.fc1(x))))


class EncoderLayer(Layer):
    """Self-attention over image and prompt, and a feed-forward network."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        width = config["d_model"]
        hidden = config["encoder_ffn_dim"]
        super().__init__(width, hidden, config["activation_function"])
        self.self_attn = SelfAttention(width, config["encoder_attention_heads"])

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """(B, S, width) -> the same shape.

        `visible`, bool (B, 1, 1, S), is True for positions that may be attended to.
        """
        attn = self.self_attn
        key, value = attn.keys_values(x)
        mixed = scaled_dot_product_attention(attn.query(x), key, value, visible)
        return self.feed_forward(self.self_attn_layer_norm(x + attn.output(mixed)))


class DecoderLayer(Layer):
    """Self-attention with a key-value cache, cross-attention, feed-forward network."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        width, heads = config["d_model"], config["decoder_attention_heads"]
        hidden = config["decoder_ffn_dim"]
        super().__init__(width, hidden, config["activation_function"])
        self.self_attn = SelfAttention(width, heads)
        self.encoder_attn = Attention(width, heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(width)

    def self_attend(
        self, x: Tensor, past: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The last token of each beam attends to itself and to all before it.

        (B, K, width) and keys and values of the past, each (B, K, heads, T, D) -> the
        same shape, and keys and values (B, K, heads, T + 1, D).
        """
        attn, one = self.self_attn, x.unsqueeze(-2)
        new = attn.keys_values(one)
        key, value = (torch.cat(pair, dim=-2) for pair in zip(past, new, strict=True))
        mixed = scaled_dot_product_attention(
            attn.query(one).flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1)
        )
        mixed = attn.output(mixed.unflatten(0, x.shape[:2])).squeeze(-2)
        return self.self_attn_layer_norm(x + mixed), key, value

    def cross_attend(
        self, x: Tensor, key: Tensor, value: Tensor, visible: Tensor
    ) -> Tensor:
        """Each beam (B, K, width) attends to its prompt's image and words.

        `key` and `value` are (B, heads, S, D), and `visible` (B, 1, 1, S) is as in the
        encoder. Beams stand on the axis of tokens: so those of a prompt share its keys.
        """
        attn = self.encoder_attn
        mixed = scaled_dot_product_attention(attn.query(x), key, value, visible)
        return self.encoder_attn_layer_norm(x + attn.output(mixed))


class Stack(nn.Module):
    """Position embeddings, the normalisation of embeddings, and layers."""

    def __init__(
        self, config: Mapping[str, Any], layer: Callable[..., nn.Module], count: int
    ) -> None:
        super().__init__()
        width = config["d_model"]
        most = config["max_position_embeddings"] + _OFFSET
        self.embed_positions = nn.Embedding(most, width)
        self.layernorm_embedding = nn.LayerNorm(width)
        self.layers = nn.ModuleList(layer(config) for _ in range(count))

    def begin(self, x: Tensor, positions: Tensor) -> Tensor:
        """Tokens (..., L, width) at `positions`, int64 -> the first layer's input."""
        return self.layernorm_embedding(x + self.embed_positions(positions + _OFFSET))


class _Text(nn.Module):
    """The token embeddings, which encoder and decoder share."""

    def __init__(self, config: Mapping[str, Any], shared: nn.Embedding) -> None:
        super().__init__()
        self.shared = shared
        self.heads = config["decoder_attention_heads"]
        scaled = config.get("scale_embedding", False)
        self.scale = math.sqrt(config["d_model"]) if scaled else 1.0

    def embed(self, input_ids: Tensor) -> Tensor:
        """(B, L) -> (B, L, width)."""
        return self.shared(input_ids) * self.scale


class Encoder(_Text):
    """Image and prompt -> the mask, the empty cache and the cross-attention's keys."""

    def __init__(self, config: Mapping[str, Any], shared: nn.Embedding) -> None:
        super().__init__(config, shared)
        width, count = config["d_model"], config["decoder_layers"]
        self.encoder = Stack(config, EncoderLayer, config["encoder_layers"])
        self.cross = nn.ModuleList(KeysValues(width, self.heads) for _ in range(count))

    def forward(
        self, input_ids: Tensor, image_features: Tensor, attention_mask: Tensor
    ) -> tuple[Tensor, ...]:
        """The mask (B, S), empty pasts, and each layer's cross-attention.

        `input_ids` and `attention_mask` are int64 (B, L), `image_features` (B, T,
        width), and S = T + L. Pasts are (B, 1, heads, 0, D); of each decoder layer in
        turn, keys and values of the cross-attention are (B, heads, S, D).
        """
        ones = torch.ones_like(image_features[:, :, 0], dtype=attention_mask.dtype)
        mask = torch.cat([ones, attention_mask], dim=1)
        visible = mask[:, None, None, :].bool()
        x = torch.cat([image_features, self.embed(input_ids)], dim=1)
        x = self.encoder.begin(x, torch.arange(x.shape[1], device=x.device))
        for layer in self.encoder.layers:
            x = layer(x, visible)
        seen = [state for cross in self.cross for state in cross(x)]
        batch, width = x.shape[0], x.shape[2]
        empty = x.new_zeros((batch, 1, self.heads, 0, width // self.heads))
        return mask, *([empty] * len(seen)), *seen


class KeysValues(nn.Module):
    """The key and value projections of one decoder layer's cross-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, width) -> two of (B, heads, S, D)."""
        return by_head(self.k_proj(x), self.heads), by_head(self.v_proj(x), self.heads)


class Decoder(_Text):
    """The last token of each beam -> logits of the next, and longer pasts."""

    def __init__(self, config: Mapping[str, Any], shared: nn.Embedding) -> None:
        super().__init__(config, shared)
        self.decoder = Stack(config, DecoderLayer, config["decoder_layers"])

    def forward(
        self, input_ids: Tensor, order: Tensor, mask: Tensor, *states: Tensor
    ) -> tuple[Tensor, ...]:
        """Logits (B, K, V), then keys and values of each layer's past in turn.

        `input_ids`, int64 (B, K), are the last tokens; `order`, int64 (B, K), is the
        beam of the same prompt whose past each goes on with; `mask` is int64 (B, S).
        `states` are the pasts of J beams (B, J, heads, T, D), keys and values of each
        layer in turn, then those of the cross-attention (B, heads, S, D).
        """
        layers = self.decoder.layers
        pasts = [chosen(state, order) for state in states[: 2 * len(layers)]]
        seen = states[2 * len(layers) :]
        visible = mask[:, None, None, :].bool()
        x = self._begin(input_ids, pasts[0].shape[-2])
        grown: list[Tensor] = []
        for number, layer in enumerate(layers):
            here = slice(2 * number, 2 * number + 2)
            x, *longer = layer.self_attend(x, pasts[here])
            grown += longer
            x = layer.feed_forward(layer.cross_attend(x, *seen[here], visible))
        return linear(x, self.shared.weight), *grown

    def _begin(self, input_ids: Tensor, position: int) -> Tensor:
        positions = torch.full_like(input_ids, position)
        return self.decoder.begin(self.embed(input_ids), positions)


def chosen(past: Tensor, order: Tensor) -> Tensor:
    """The pasts (B, J, ...) of the beams that `order`, int64 (B, K), names."""
    batch, beams = past.shape[:2]
    rows = torch.arange(batch, device=order.device)[:, None] * beams + order
    return past.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, order.shape)
