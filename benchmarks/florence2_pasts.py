"""What a text costs where its past grows by concatenation, or lies in a buffer.

Florence-2's decoder as it is hands on longer tensors with every token. The other way
takes room for the longest text at once, copies what is new into it, and looks at a view
of what is filled; where beams go on with others' pasts, what is filled is put in order
first. Both write the same tokens.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention
from turns import Call, measure

from inference_models.generation import Decoding, Rules, generate
from inference_models.interfaces import Operations
from inference_models_florence2.beams import Beams
from inference_models_florence2.layout import states, text_config
from inference_models_florence2.network import networks
from inference_models_florence2.text import chosen

TOKENS = 64
BEAMS = (1, 3)
RULES = Rules(start=2, ends=(), pad=1)


class Grown:
    """The decoder's session, without a backend around it."""

    def __init__(self, decoder: Any, config: dict[str, Any]) -> None:
        self._decoder = decoder
        self._grown, self._seen = states(config)

    def __call__(self, **inputs: Any) -> dict[str, Any]:
        """Logits of the tokens that may follow, and longer pasts."""
        names = ("state.mask", *self._grown, *self._seen)
        given = [torch.as_tensor(inputs[name]) for name in ("input_ids", "order")]
        outputs = self._decoder(*given, *(inputs[name] for name in names))
        return dict(zip(("logits", *self._grown), outputs, strict=True))


class Reserved:
    """The same decoder, whose pasts lie in buffers of the longest text's size."""

    def __init__(self, decoder: Any, first: tuple[Tensor, ...], most: int) -> None:
        self._decoder, self._most = decoder, most
        count = 2 * len(decoder.decoder.layers)
        self._visible = first[0][:, None, None, :].bool()
        self._buffers = list(first[1 : count + 1])
        self._seen = list(pairwise(first[count + 1 :]))[::2]
        self._filled = 0

    def __call__(self, tokens: np.ndarray, order: np.ndarray) -> np.ndarray:
        """Logits of the tokens that may follow, (R, V)."""
        beams = torch.as_tensor(order)[None]  # of one prompt: rows are its beams
        self._arrange(beams)
        x = self._decoder._begin(torch.as_tensor(tokens).T, self._filled)
        self._filled += 1
        for number, layer in enumerate(self._decoder.decoder.layers):
            x = self._self_attend(layer, x, *self._buffers[2 * number : 2 * number + 2])
            x = layer.feed_forward(
                layer.cross_attend(x, *self._seen[number], self._visible)
            )
        return linear(x, self._decoder.shared.weight)[0].numpy()

    def _arrange(self, beams: Tensor) -> None:
        """Each beam's buffer begins with the past that it goes on with."""
        rows, filled = beams.shape[1], self._filled
        same = torch.arange(rows)[None]
        if self._buffers[0].shape[1] != rows or self._buffers[0].shape[3] == 0:
            self._buffers = [self._reserved(old, beams) for old in self._buffers]
        elif filled and not torch.equal(beams, same):
            for buffer in self._buffers:
                view = buffer[..., :filled, :]
                view.copy_(chosen(view, beams))

    def _reserved(self, old: Tensor, beams: Tensor) -> Tensor:
        batch, _, heads, _, size = old.shape
        new = old.new_empty((batch, beams.shape[1], heads, self._most, size))
        if self._filled:
            new[..., : self._filled, :] = chosen(old, beams)[..., : self._filled, :]
        return new

    def _self_attend(self, layer: Any, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
        attn, one = layer.self_attn, x.unsqueeze(-2)
        place = torch.tensor([self._filled - 1])
        for buffer, new in zip((key, value), attn.keys_values(one), strict=True):
            buffer.index_copy_(3, place, new)
        seen = (buffer[..., : self._filled, :].flatten(0, 1) for buffer in (key, value))
        mixed = scaled_dot_product_attention(attn.query(one).flatten(0, 1), *seen)
        mixed = attn.output(mixed.unflatten(0, x.shape[:2])).squeeze(-2)
        return layer.self_attn_layer_norm(x + mixed)


def both(config: dict[str, Any], beams: int) -> list[Call]:
    """A text of one prompt with pasts that grow, and with buffers."""
    torch.manual_seed(0)
    modules = networks(config)
    encoder, decoder = (modules[name].eval() for name in ("encoder", "decoder"))
    width = text_config(config)["d_model"]
    words = torch.arange(4, 16)[None]
    features = torch.randn(1, 577, width)
    with torch.inference_mode():
        first = encoder(words, features, torch.ones_like(words))
    grown, seen = states(config)
    named = dict(zip(("state.mask", *grown, *seen), first, strict=True))
    session: Any = Grown(decoder, config)

    def growing() -> Any:
        return Beams(session, named, 1, Operations())

    def reserving() -> Any:
        return Reserved(decoder, first, TOKENS)

    return [_text_of(make, beams) for make in (growing, reserving)]


def _text_of(make: Call, beams: int) -> Call:
    decoding = Decoding(max_new_tokens=TOKENS, num_beams=beams)

    def call() -> Any:
        with torch.inference_mode():
            return generate(make(), 1, RULES, decoding)[0].tolist()

    return call


def section(config: dict[str, Any], rounds: int) -> Iterator[str]:
    """The page's part on pasts."""
    yield from ("", "## Pasts that grow, and pasts in buffers", "")
    yield (
        f"Seconds of processor time for {TOKENS} tokens of one prompt by the decoder "
        f"alone, of random weights, on one thread; medians of {rounds} rounds in which "
        "both take turns. As it is, it hands on longer tensors with every token. "
        "Buffers have room for all tokens at once: what is new is copied into them, "
        "and attention is over a view of what is filled."
    )
    yield from ("", "| beams | as it is | buffers | |", "| --- | --- | --- | --- |")
    for beams in BEAMS:
        calls = both(config, beams)
        grown, reserved = (call() for call in calls)
        if grown != reserved:
            raise SystemExit(f"with {beams} beams, both ways write other texts")
        growing, buffers = _measured(calls, rounds)
        ratio = f"{growing / buffers:.2f}×"
        yield f"| {beams} | {growing:.2f} | {buffers:.2f} | {ratio} |"


def _measured(calls: list[Call], rounds: int) -> list[float]:
    """The median of each, in seconds that other processes do not count in."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    medians = measure(calls, rounds, time.process_time)
    torch.set_num_threads(threads)
    return medians
