"""Texts token by token: greedy, by beams or sampled, with any decoder behind it.

The rules and their order are those of transformers' `generate`, so that a model gives
the same tokens here. Vaswani et al., arXiv:1706.03762, has the beam search; nucleus
sampling (`top_p`) is of Holtzman et al., arXiv:1904.09751.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Literal

import attrs
import numpy as np

from inference_models.errors import InvalidCard, InvalidOption, no_numbers
from inference_models.ranking import highest

Step = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Tokens (R, 1) and the rows of the call before that they go on with, int64 (R,), in
the first call the numbers of prompts -> logits float (R, V) of the next tokens."""

OnToken = Callable[[int, int], object]
"""Is told the number of a prompt and its next token, as soon as that is decided."""

_NEVER = np.float32(-1e9)

_UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "bad_words_ids": (None,),
    "begin_suppress_tokens": (None,),
    "constraints": (None,),
    "diversity_penalty": (None, 0.0),
    "dola_layers": (None,),
    "encoder_no_repeat_ngram_size": (None, 0),
    "encoder_repetition_penalty": (None, 1.0),
    "epsilon_cutoff": (None, 0.0),
    "eta_cutoff": (None, 0.0),
    "exponential_decay_length_penalty": (None,),
    "force_words_ids": (None,),
    "guidance_scale": (None, 1.0),
    "max_time": (None,),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "min_p": (None, 0.0),
    "num_beam_groups": (None, 1),
    "num_return_sequences": (None, 1),
    "penalty_alpha": (None,),
    "remove_invalid_values": (None, False),
    "renormalize_logits": (None, False),
    "repetition_penalty": (None, 1.0),
    "sequence_bias": (None,),
    "stop_strings": (None,),
    "suppress_tokens": (None,),
    "token_healing": (None, False),
    "top_h": (None,),
    "typical_p": (None, 1.0),
    "watermarking_config": (None,),
}
"""Settings that change tokens and are not followed here, with values that do not.

What a call sets itself (`max_length`, `num_beams`, `temperature` and the like), and how
a text is computed (caches, assistants that guess ahead), is passed over.
"""

_WIDEST = 100
"""Above any number of beams that is meant: each has logits and a past of its own."""

_STEEPEST = 10
"""Above any `length_penalty` that is meant: float32 holds such powers of lengths."""


def _is_number(value: Any, kind: Any) -> bool:
    """Whether it is a number of a kind, which truth values are not."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _check_whole(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not _is_number(value, Integral) or value < 1:
        raise InvalidOption(f"{attribute.name} {value!r} is not a whole number above 0")


def _check_beams(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    _check_whole(instance, attribute, value)
    if value > _WIDEST:
        raise InvalidOption(
            f"num_beams {value} is more than {_WIDEST}; 3 to 10 are usual"
        )


def _check_share(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not _is_number(value, Real):
        raise InvalidOption(f"{attribute.name} {value!r} is not a number")
    if not 0 < value <= 1:
        raise InvalidOption(f"{attribute.name} {value!r} is not above 0 and up to 1")


def _check_temperature(
    instance: Any, attribute: attrs.Attribute[Any], value: Any
) -> None:
    if isinstance(value, np.floating):
        value = value.item()  # halves have no 1e6
    if not _is_number(value, Real) or not 0 < value < 1e6:
        raise InvalidOption(f"{attribute.name} {value!r} is not a number above 0")


def _check_seed(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and (not _is_number(value, Integral) or value < 0):
        raise InvalidOption(f"{attribute.name} {value!r} is not a whole number from 0")


def _check_drawn(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value != attribute.default and not instance.do_sample:
        raise InvalidOption(
            f"{attribute.name} {value} says how tokens are drawn, and none are; add "
            "do_sample=True"
        )


@attrs.frozen(kw_only=True)
class Decoding:
    """What a call may set: greedy by default, `num_beams` for a beam search.

    `do_sample` draws each token at random instead: from the `top_k` likeliest, cut down
    to the fewest that together have the probability `top_p`, after logits were divided
    by `temperature`, all three of which need it; `seed` makes that repeatable.
    """

    max_new_tokens: int = attrs.field(default=1024, validator=_check_whole)
    num_beams: int = attrs.field(default=1, validator=_check_beams)
    do_sample: bool = attrs.field(
        default=False, validator=attrs.validators.instance_of(bool)
    )
    temperature: float = attrs.field(
        default=1.0, validator=[_check_temperature, _check_drawn]
    )
    top_k: int = attrs.field(default=50, validator=[_check_whole, _check_drawn])
    top_p: float = attrs.field(default=1.0, validator=[_check_share, _check_drawn])
    seed: int | None = attrs.field(default=None, validator=_check_seed)

    def __attrs_post_init__(self) -> None:
        if self.do_sample and self.num_beams > 1:
            raise InvalidOption("do_sample=True draws one text; leave num_beams at 1")


@attrs.frozen(kw_only=True)
class Rules:
    """How texts of a model begin and end: what its `generation_config.json` says.

    A text begins with `start`, which is not returned, and ends with any of `ends`;
    `forced_first` and `forced_last` stand at its beginning, and where it is cut off.
    """

    start: int
    ends: tuple[int, ...]
    pad: int
    forced_first: int | None = None
    forced_last: tuple[int, ...] = ()
    no_repeat_ngram_size: int = 0
    early_stopping: bool | Literal["never"] = False
    length_penalty: float = 1.0

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Rules:
        """The rules that a `generation_config.json`, or a model's config, has.

        Raises `InvalidCard` for settings that are missing, of a wrong kind, or that
        would change the tokens and are not followed here.
        """
        for name, neutral in _UNSUPPORTED.items():
            if config.get(name) not in neutral:
                raise InvalidCard(
                    f"the model generates with {name} {config[name]!r:.100}, which is "
                    "not supported; remove it from its generation_config.json"
                )
        ends = _tokens(config, "eos_token_id")
        first = _tokens(config, "forced_bos_token_id")
        start = _tokens(config, "decoder_start_token_id") or _tokens(
            config, "bos_token_id"
        )
        if len(start) != 1 or len(first) > 1 or not ends:
            raise InvalidCard(
                "the model does not say how its texts begin and end; its "
                "generation_config.json needs decoder_start_token_id and eos_token_id"
            )
        return cls(
            start=start[0],
            ends=ends,
            pad=(*_tokens(config, "pad_token_id"), ends[0])[0],
            forced_first=first[0] if first else None,
            forced_last=_tokens(config, "forced_eos_token_id"),
            no_repeat_ngram_size=_number(config, "no_repeat_ngram_size", 0, int, 99),
            early_stopping=_early(config.get("early_stopping")),
            length_penalty=_number(
                config, "length_penalty", 1.0, (int, float), _STEEPEST
            ),
        )


def _tokens(config: Mapping[str, Any], name: str) -> tuple[int, ...]:
    """The numbers of the tokens that a setting names: none, one or several."""
    value = config.get(name)
    if value is None:
        return ()
    tokens = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if not all(type(token) is int and 0 <= token < 2**31 for token in tokens):
        raise InvalidCard(f"{name} {value!r:.100} is no token's number")
    return tokens


def _number(
    config: Mapping[str, Any], name: str, default: Any, kind: Any, most: int
) -> Any:
    value = config.get(name)
    if value is None:
        return default
    if not _is_number(value, kind) or not -most < value < most:
        raise InvalidCard(f"{name} {value!r:.100} is no number that can be meant")
    return value


def _early(value: Any) -> bool | Literal["never"]:
    if value is None:
        return False
    if isinstance(value, bool):
        return value
    if value == "never":
        return "never"
    raise InvalidCard(f"early_stopping {value!r:.100} is neither a bool nor 'never'")


def generate(
    step: Step,
    prompts: int,
    rules: Rules,
    decoding: Decoding,
    on_token: OnToken | None = None,
) -> list[np.ndarray]:
    """The tokens of a text for each prompt, int64 (T,), with the one that ends it.

    Of equally likely tokens the first is taken. Raises `InvalidOption` for `on_token`
    with beams, which are not decided before the end, and `RunFailed` for logits that
    are no numbers. The room for `max_new_tokens` is taken at once, so a pack gives no
    more than its model has positions.
    """
    if decoding.num_beams > 1:
        if on_token is not None:
            raise InvalidOption(
                "a beam search decides nothing before its end, and cannot be followed "
                "token by token; leave num_beams at 1"
            )
        return _Search(step, prompts, rules, decoding).run()
    return _one_by_one(step, prompts, rules, decoding, on_token)


def _one_by_one(
    step: Step,
    prompts: int,
    rules: Rules,
    decoding: Decoding,
    on_token: OnToken | None,
) -> list[np.ndarray]:
    rng = np.random.default_rng(decoding.seed)
    rows = np.arange(prompts, dtype=np.int64)
    texts = np.full((prompts, decoding.max_new_tokens + 1), rules.pad, np.int64)
    texts[:, 0] = rules.start
    lengths = np.zeros(prompts, np.int64)
    is_open = np.ones(prompts, bool)
    for count in range(1, decoding.max_new_tokens + 1):
        scores = _checked(step(texts[:, count - 1 : count], rows))
        _rule_out(rules, scores, texts[:, :count], decoding.max_new_tokens)
        chosen = (
            _drawn(scores, decoding, rng) if decoding.do_sample else scores.argmax(1)
        )
        texts[is_open, count] = chosen[is_open]
        lengths += is_open
        if on_token is not None:
            for row in np.flatnonzero(is_open):
                on_token(int(row), int(chosen[row]))
        is_open &= ~np.isin(chosen, rules.ends)
        if not is_open.any():
            break
    return [text[1 : length + 1] for text, length in zip(texts, lengths, strict=True)]


def _checked(logits: np.ndarray) -> np.ndarray:
    """Logits of our own, float32; `RunFailed` if one is NaN or inf, or all are -inf."""
    scores = np.array(logits, np.float32)
    if not np.isfinite(scores.max(axis=1)).all():
        raise no_numbers()
    return scores


def _rule_out(rules: Rules, scores: np.ndarray, texts: np.ndarray, most: int) -> None:
    """Rule out, in place, what may not come next: `scores` (R, V) for texts (R, T)."""
    count = texts.shape[1]
    _ban_repeats(scores, texts, rules.no_repeat_ngram_size)
    if count == 1 and rules.forced_first is not None:
        _allow_only(scores, [rules.forced_first])
    if count == most and rules.forced_last:
        _allow_only(scores, rules.forced_last)


def _allow_only(scores: np.ndarray, tokens: Sequence[int]) -> None:
    scores[:] = -np.inf
    scores[:, list(tokens)] = 0


def _ban_repeats(scores: np.ndarray, texts: np.ndarray, size: int) -> None:
    """Rule out tokens that would end a run of `size` tokens that a text has already."""
    starts = texts.shape[1] - size + 1
    if size < 1 or starts < 1:
        return
    match = np.ones((len(texts), starts), bool)
    for place in range(size - 1):
        last = texts[:, starts + place]
        match &= texts[:, place : place + starts] == last[:, None]
    rows, found = np.nonzero(match)
    scores[rows, texts[rows, found + size - 1]] = -np.inf


def _drawn(
    scores: np.ndarray, decoding: Decoding, rng: np.random.Generator
) -> np.ndarray:
    """One token a row, by chance."""
    chances = rng.random(len(scores))
    pairs = zip(scores, chances, strict=True)
    return np.array([_draw(row, chance, decoding) for row, chance in pairs], np.int64)


def _draw(row: np.ndarray, chance: float, decoding: Decoding) -> int:
    """The token at a chance from 0 to 1 among those that may be drawn."""
    if row.max() == -np.inf:
        return 0  # where all is banned, as argmax has it
    least = row[highest(row, decoding.top_k)[-1]]
    likely = np.flatnonzero(row >= least)
    likely = likely[np.argsort(row[likely], kind="stable")]
    temperature = max(float(decoding.temperature), 1e-30)  # below it is 0
    shares = _softmax(row[likely], temperature)
    first = np.searchsorted(np.cumsum(shares)[:-1], 1 - decoding.top_p, side="right")
    sums = np.cumsum(shares[first:])
    place = np.searchsorted(sums, chance * sums[-1], side="right")
    return int(likely[first + place])


def _softmax(ascending: np.ndarray, temperature: float) -> np.ndarray:
    scores = ascending.astype(np.float64)
    shares = np.exp((scores - scores[-1]) / temperature)
    return np.asarray(shares / shares.sum())


def _to_log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logits (R, V) to the logarithms of probabilities, in place."""
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logits


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    """Columns of the highest `scores` of each row, highest first, (B, count)."""
    return np.stack([highest(row, count) for row in scores])


@attrs.define
class _Beams:
    """Texts (B, K, 1 + N) of B prompts, their scores and lengths, (B, K)."""

    texts: np.ndarray
    scores: np.ndarray
    lengths: np.ndarray

    @classmethod
    def none(cls, shape: tuple[int, int, int], pad: int) -> _Beams:
        """Empty places: their scores are so low that any real beam replaces them."""
        scores = np.full(shape[:2], _NEVER, np.float32)
        return cls(np.full(shape, pad, np.int64), scores, np.zeros(shape[:2], np.int64))

    def chosen(self, columns: np.ndarray) -> _Beams:
        """The beams of each prompt in these columns, (B, M)."""
        return _Beams(
            np.take_along_axis(self.texts, columns[:, :, None], axis=1),
            np.take_along_axis(self.scores, columns, axis=1),
            np.take_along_axis(self.lengths, columns, axis=1),
        )

    def beside(self, other: _Beams) -> _Beams:
        """These beams of each prompt, followed by others of it."""
        return _Beams(
            np.concatenate([self.texts, other.texts], axis=1),
            np.concatenate([self.scores, other.scores], axis=1),
            np.concatenate([self.lengths, other.lengths], axis=1),
        )


class _Search:
    """A beam search over all prompts at once."""

    def __init__(
        self, step: Step, prompts: int, rules: Rules, decoding: Decoding
    ) -> None:
        self._step, self._rules = step, rules
        self._prompts, self._width = prompts, decoding.num_beams
        self._most = decoding.max_new_tokens
        shape = (prompts, self._width, self._most + 1)
        self._running = _Beams.none(shape, rules.pad)
        self._running.scores[:, 0] = 0
        self._running.texts[:, :, 0] = rules.start
        self._ended = _Beams.none(shape, rules.pad)
        self._has_ended = np.zeros((prompts, self._width), bool)
        self._may_improve = np.ones((prompts, 1), bool)
        # All beams of a prompt begin alike: one row is enough for them.
        self._order = np.arange(prompts, dtype=np.int64)

    def run(self) -> list[np.ndarray]:
        """The best text of each prompt."""
        for count in range(1, self._most + 1):
            if not self._go_on(count):
                break
        best = zip(self._ended.texts[:, 0], self._ended.lengths[:, 0], strict=True)
        return [text[1 : length + 1] for text, length in best]

    def _go_on(self, count: int) -> bool:
        """Add one token to all beams; whether another may follow."""
        longer, parents = self._longer(count)
        last = longer.texts[:, :, count]
        stops = np.isin(last, self._rules.ends) | (count >= self._most)
        self._keep_running(longer, parents, stops)
        self._keep_ended(longer, stops, count)
        self._may_improve &= self._could_improve(count)
        is_full = self._has_ended.all() and self._rules.early_stopping is True
        return bool(self._may_improve.any() and not is_full and not stops.all())

    def _longer(self, count: int) -> tuple[_Beams, np.ndarray]:
        """The best continuations, and the beam that each goes on with.

        They are more than the beams that go on, since some of them may end.
        """
        texts = self._running.texts[:, :, :count].reshape(-1, count)
        rows = len(self._order)
        last = texts[:: len(texts) // rows, -1:]
        scores = _to_log_softmax(_checked(self._step(last, self._order)))
        if rows < len(texts):
            scores = np.repeat(scores, self._width, axis=0)
        _rule_out(self._rules, scores, texts, self._most)
        vocabulary = scores.shape[1]
        scores += self._running.scores.reshape(-1, 1)
        totals = scores.reshape(self._prompts, -1)
        keep = max(2, 1 + len(self._rules.ends)) * self._width
        found = _best(totals, min(keep, totals.shape[1]))
        parents = found // vocabulary
        longer = self._running.chosen(parents)
        longer.texts[:, :, count] = found % vocabulary
        longer.scores = np.take_along_axis(totals, found, axis=1)
        longer.lengths[:] = count
        return longer, parents

    def _keep_running(
        self, longer: _Beams, parents: np.ndarray, stops: np.ndarray
    ) -> None:
        scores = longer.scores + stops * _NEVER
        chosen = _best(scores, self._width)
        self._running = longer.chosen(chosen)
        self._running.scores = np.take_along_axis(scores, chosen, axis=1)
        if len(self._order) == self._prompts:  # the first call had one row a prompt
            first = np.arange(self._prompts, dtype=np.int64)
            self._order = np.repeat(first, self._width)
            return
        own = np.take_along_axis(parents, chosen, axis=1)
        first = np.arange(self._prompts, dtype=np.int64)[:, None] * self._width
        self._order = (own + first).reshape(-1)

    def _keep_ended(self, longer: _Beams, stops: np.ndarray, count: int) -> None:
        """Keep the best that ended; only the `num_beams` best continuations may end."""
        ends = stops & (np.arange(stops.shape[1]) < self._width)
        scores = self._penalised(longer.scores, count)
        if self._rules.early_stopping is True:
            scores = scores + self._has_ended.all(axis=1, keepdims=True) * _NEVER
        scores = scores + ~self._may_improve * _NEVER + ~ends * _NEVER
        all_of_them = self._ended.beside(attrs.evolve(longer, scores=scores))
        chosen = _best(all_of_them.scores, self._width)
        self._ended = all_of_them.chosen(chosen)
        has_ended = np.concatenate([self._has_ended, ends], axis=1)
        self._has_ended = np.take_along_axis(has_ended, chosen, axis=1)

    def _could_improve(self, count: int) -> np.ndarray:
        """Whether a running beam might still be better than the worst that ended."""
        penalty, early = self._rules.length_penalty, self._rules.early_stopping
        length = self._most if early == "never" and penalty > 0 else count
        best = self._penalised(self._running.scores[:, :1], length)
        lowest = self._ended.scores.min(axis=1, keepdims=True)
        worst = np.where(self._has_ended, lowest, _NEVER)
        return np.asarray((best > worst).any(axis=1, keepdims=True))

    def _penalised(self, scores: np.ndarray, length: int) -> np.ndarray:
        with np.errstate(over="ignore"):
            return np.asarray(scores / np.float32(length**self._rules.length_penalty))
