"""Florence-2: one model that answers prompts about pictures, in words and in places."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs
import numpy as np

from inference_models import (
    Architecture,
    Array,
    Bundle,
    Facts,
    Frame,
    InvalidInput,
    InvalidOption,
    ModelCard,
    Operations,
    Session,
    TensorSpec,
    hookimpl,
)
from inference_models.generation import Decoding, Rules, generate
from inference_models_florence2 import folders, layout, tasks
from inference_models_florence2.beams import Beams
from inference_models_florence2.model import Florence2Model
from inference_models_florence2.tokens import Tokens

_TRIAL_TOKENS = 8
Signature = tuple[Mapping[str, TensorSpec], Mapping[str, TensorSpec]]


def _to_prompts(given: Any) -> str | tuple[str, ...]:
    if isinstance(given, str):
        return given
    prompts = tuple(given) if isinstance(given, Sequence) else ()
    if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise InvalidOption(
            f"prompt {given!r:.100} is neither a text nor a list of some"
        )
    return prompts


@attrs.frozen
class Florence2Options(Decoding):
    """What a call may set: the prompt, and how its answer is generated.

    A prompt is a task such as "<OD>", with its input behind it where it takes one, or a
    text. `skip_special_tokens=False` keeps `<s>` and `</s>` in answers. `on_text` is
    called with each piece of an answer as it is decided, and the number of its prompt.
    """

    prompt: str | tuple[str, ...] = attrs.field(
        default="<DETAILED_CAPTION>", converter=_to_prompts
    )
    skip_special_tokens: bool = True
    on_text: Callable[[int, str], object] | None = None


class Florence2(Architecture[Florence2Options]):
    """Xiao et al., "Florence-2", arXiv:2311.06242, as transformers has it.

    Graph `vision`: "pixel_values" (B, 3, H, W) -> "image_features" (B, T, D); graph
    `encoder`: these and a prompt's "input_ids" and "attention_mask" (B, L) -> states;
    graph `decoder`: a token of each beam, "input_ids" and "order" (B, K), and states ->
    "logits" (B, K, V) and longer states. The config holds `config.json`'s
    "vision_config" and "text_config", and "generation", of `generation_config.json`.
    """

    name = "florence2"
    aliases = ("florence-2",)
    Options = Florence2Options
    Model = Florence2Model
    image_input = ("vision", "pixel_values")

    @classmethod
    def claims(cls, facts: Facts) -> ModelCard | None:
        """A folder of transformers with `Florence2ForConditionalGeneration`."""
        return folders.card_of(facts, cls.name)

    def modules(self, loaded: Any = None) -> Mapping[str, Any]:
        """The three networks: new ones, or with the tensors of what was loaded."""
        from inference_models_florence2.network import networks

        return networks(self.bundle.config, loaded)

    def weights(self, graph: str, tensors: dict[str, Any]) -> dict[str, Any]:
        """A graph's tensors, out of all under transformers' names."""
        return layout.tensors_of(graph, tensors)

    def signature(self, graph: str) -> Signature:
        """Inputs and outputs of a graph, in order."""
        size = self.preprocessing.size
        if size is None:
            raise InvalidInput("Florence-2 takes images of one size; the card has none")
        return layout.signature(graph, self.bundle.config, size)

    @cached_property
    def tokens(self) -> Tokens:
        """The tokenizer, from the artifact's own files."""
        folder = self.bundle.folder
        return Tokens.read(folder)

    @cached_property
    def rules(self) -> Rules:
        """How this model's texts begin and end."""
        return Rules.from_config(folders.generation(self.bundle))

    def encode(
        self, sessions: Mapping[str, Session], inputs: dict[str, Array]
    ) -> dict[str, Array]:
        """Pixels -> image features; features are left as they are."""
        if "image_features" in inputs:
            return inputs
        return sessions["vision"](**inputs)

    def forward(
        self,
        sessions: Mapping[str, Session],
        inputs: dict[str, Array],
        options: Florence2Options,
        ops: Operations,
    ) -> dict[str, Array]:
        """ "tokens" int64 (B, T), padded, and "scores", the first tokens' logits."""
        features = self.encode(sessions, inputs)["image_features"]
        words, mask = self._words(options.prompt, len(features))
        states = sessions["encoder"](
            input_ids=words, image_features=features, attention_mask=mask
        )
        step = Watched(Beams(sessions["decoder"], states, len(words), ops))
        found = generate(
            step, len(words), self.rules, options, self._streams(options, len(words))
        )
        longest = max((len(each.tokens) for each in found), default=0)
        tokens = np.full((len(found), longest), self.rules.pad, np.int64)
        for row, each in zip(tokens, found, strict=True):
            row[: len(each.tokens)] = each.tokens
        return {"tokens": tokens, "image_features": features, "scores": step.scores}

    def postprocess(
        self,
        outputs: dict[str, Array],
        frames: Sequence[Frame],
        options: Florence2Options,
        ops: Operations,
    ) -> list[str]:
        """The text of each answer."""
        special = not options.skip_special_tokens
        return [self.tokens.decode(row, special) for row in outputs["tokens"]]

    @property
    def trial(self) -> Florence2Options:
        """A few tokens tell whether a derived artifact runs as its source."""
        return Florence2Options(max_new_tokens=_TRIAL_TOKENS)
