"""Florence-2: one model that answers prompts about pictures, in words and in places."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from inference_models import (
    Architecture,
    Array,
    Bundle,
    Facts,
    Frame,
    InvalidCard,
    InvalidInput,
    InvalidOption,
    ModelCard,
    Operations,
    Session,
    TensorSpec,
    hookimpl,
)
from inference_models.generation import Decoding, Rules, Step, generate
from inference_models_florence2 import folders, layout, tasks
from inference_models_florence2.beams import Beams
from inference_models_florence2.model import Florence2Model
from inference_models_florence2.tokens import FILES, TOKENIZER, Stream, Tokens, padded

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
    called with a prompt's number, from 0 in each sixteen, and each piece of its answer
    as that is decided.
    """

    prompt: str | tuple[str, ...] = attrs.field(
        default="<DETAILED_CAPTION>", converter=_to_prompts
    )
    skip_special_tokens: bool = attrs.field(
        default=True, validator=attrs.validators.instance_of(bool)
    )
    on_text: Callable[[int, str], object] | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(attrs.validators.is_callable()),
    )


@attrs.frozen
class _Trial(Florence2Options):
    """Options of a run that is compared with another: a few steps, and their logits."""

    max_new_tokens: int = 8


class Florence2(Architecture[Florence2Options]):
    """Xiao et al., "Florence-2", arXiv:2311.06242, as transformers has it.

    Graph `vision`: "pixel_values" (B, 3, H, W) -> "image_features" (B, T, D); graph
    `encoder`: these and a prompt's "input_ids" and "attention_mask" (B, L) -> states;
    graph `decoder`: a token of each beam, "input_ids" and "order" (B, K), and states ->
    "logits" (B, K, V) and longer states. The config holds `config.json`'s
    "vision_config" and "text_config", and "generation", of `generation_config.json`.
    """

    name = "florence2"
    tasks = ("vision-language",)
    aliases = ("florence-2",)
    Options = Florence2Options
    Model = Florence2Model
    reads = (*FILES, *folders.SETTINGS)
    image_input = ("vision", "pixel_values")
    elsewhere = folders.ELSEWHERE

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self.tokens = Tokens.read(bundle.file(TOKENIZER).parent)
        self.rules = Rules.from_config(folders.generation(bundle))
        self.banned = folders.banned(bundle)

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
        return layout.signature(graph, self.bundle.config, self._size)

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
        """Generate an answer to each prompt: "tokens", int64 (B, T), padded at the end.

        A trial, by which a derived model is compared with its source, also returns
        "image_features" and "scores", the logits (B, T, V) of each step.
        """
        most = self._most(options.max_new_tokens)
        features = self.encode(sessions, inputs)["image_features"]
        words, mask = self._words(options.prompt, len(features))
        states = sessions["encoder"](
            input_ids=words, image_features=features, attention_mask=mask
        )
        beams = Beams(sessions["decoder"], states, len(words), ops)
        kept: list[np.ndarray] = []
        is_trial = isinstance(options, _Trial)
        step = _kept_by(beams, kept) if is_trial else beams
        follow = _Followers(self.tokens, options)
        chosen = attrs.evolve(options, max_new_tokens=most)
        told = follow if options.on_text is not None else None
        found = generate(step, len(words), self.rules, chosen, told)
        follow.end()
        outputs: dict[str, Array] = {"tokens": padded(found, self.rules.pad)}
        if is_trial:
            outputs |= {"image_features": features, "scores": np.stack(kept, axis=1)}
        return outputs

    def postprocess(
        self,
        outputs: dict[str, Array],
        frames: Sequence[Frame],
        options: Florence2Options,
        ops: Operations,
    ) -> list[str]:
        """The text of each answer."""
        special = not options.skip_special_tokens
        rows = (_unpadded(row, self.rules.ends) for row in outputs["tokens"])
        texts = (self.tokens.decode(row, special) for row in rows)
        return [text if special else text.strip() for text in texts]

    @property
    def trial(self) -> Florence2Options:
        """A few steps tell whether a derived artifact runs as its source."""
        return _Trial()

    def difference(
        self, expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]
    ) -> float:
        """As for any model, up to and with the step at which an answer first differs.

        Rounding may exchange two tokens that are nearly equal, and what follows is then
        the continuation of another text.
        """
        same = expected["tokens"] == found["tokens"]
        counts = 1 + np.minimum.accumulate(same, axis=1).sum(axis=1)
        shown = np.arange(expected["scores"].shape[1]) < counts[:, None]
        compared = [
            {"image_features": run["image_features"], "scores": run["scores"][shown]}
            for run in (expected, found)
        ]
        return super().difference(*compared)

    def _words(
        self, prompt: str | tuple[str, ...], count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and attention mask of `count` prompts, both int64 (B, L)."""
        prompts = [prompt] * count if isinstance(prompt, str) else list(prompt)
        if len(prompts) != count:
            raise InvalidInput(
                f"there are {len(prompts)} prompts for {count} images; give one prompt "
                "for all, or one for each"
            )
        tokens, mask = self.tokens.batch([tasks.words(each) for each in prompts])
        most = self._positions - layout.positions(self.bundle.config, self._size)
        if tokens.shape[1] > most:
            raise InvalidInput(
                f"a prompt has {tokens.shape[1]} tokens, and with its image the model "
                f"takes {most}; shorten it"
            )
        return tokens, mask

    def _most(self, asked: int) -> int:
        """How many tokens an answer may have; by default one for each position."""
        default = attrs.fields(Florence2Options).max_new_tokens.default
        if asked > self._positions and asked != default:
            raise InvalidOption(
                f"max_new_tokens {asked} is more than the {self._positions} that this "
                "model can write; give that many or fewer, or leave it out"
            )
        return min(asked, self._positions)

    @property
    def _positions(self) -> int:
        text = layout.text_config(self.bundle.config)
        return int(text["max_position_embeddings"])

    @property
    def _size(self) -> tuple[int, int]:
        size = self.preprocessing.size
        if size is None:
            raise InvalidCard(
                f"the card of {self.card.id!r} has no image size; Florence-2 needs one"
            )
        return size


def _unpadded(row: np.ndarray, ends: Sequence[int]) -> np.ndarray:
    """One answer of a batch, up to and with the token that ends it."""
    last = np.flatnonzero(np.isin(row, ends))[:1]
    return row[: last[0] + 1] if len(last) else row


def _kept_by(step: Step, kept: list[np.ndarray]) -> Step:
    """A step that also appends its logits to `kept`."""

    def call(tokens: np.ndarray, order: np.ndarray) -> np.ndarray:
        kept.append(step(tokens, order))
        return kept[-1]

    return call


class _Followers:
    """Calls `on_text` with each prompt's text, piece by piece as its tokens come."""

    def __init__(self, tokens: Tokens, options: Florence2Options) -> None:
        self._tokens = tokens
        self._options = options
        self._streams: dict[int, Stream] = {}

    def __call__(self, prompt: int, token: int) -> None:
        special = not self._options.skip_special_tokens
        stream = self._streams.setdefault(prompt, Stream(self._tokens, special))
        self._tell(prompt, stream.push(token))

    def end(self) -> None:
        """Tell the rest of texts that end in the middle of a character."""
        for prompt, stream in self._streams.items():
            self._tell(prompt, stream.rest())

    def _tell(self, prompt: int, piece: str) -> None:
        if piece and self._options.on_text is not None:
            self._options.on_text(prompt, piece)


@hookimpl
def architectures() -> list[type[Architecture[Any]]]:
    """What this pack adds."""
    return [Florence2]
