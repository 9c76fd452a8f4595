"""Texts token by token, out of logits that a test writes down."""

from __future__ import annotations

import warnings
from itertools import pairwise, product

import attrs
import numpy as np
import pytest

from inference_models import InvalidCard, InvalidOption, RunFailed
from inference_models.generation import Decoding, Rules, generate

START, END, PAD = 7, 6, 5
SIZE = 8
RULES = Rules(start=START, ends=(END,), pad=PAD)
CONFIG = {
    "bos_token_id": 0,
    "decoder_start_token_id": 2,
    "early_stopping": True,
    "eos_token_id": 2,
    "forced_bos_token_id": 0,
    "forced_eos_token_id": 2,
    "no_repeat_ngram_size": 3,
    "num_beams": 3,
    "pad_token_id": 1,
    "transformers_version": "5.0.0",
}


def logits(**shares):
    """Log-probabilities of tokens by number, such as `_3=0.5`; of others, almost 0."""
    row = np.full(SIZE, 1e-9, np.float32)
    for name, share in shares.items():
        row[int(name[1:])] = share
    return np.log(row)


class Scripted:
    """A step that keeps its own past by `order`, and asks a function of the texts."""

    def __init__(self, function):
        self.function = function
        self.texts: list[tuple[int, ...]] = []
        self.prompts: list[int] = []
        self.calls: list[tuple[list[int], list[int]]] = []

    def __call__(self, tokens, order):
        self.calls.append((tokens[:, 0].tolist(), order.tolist()))
        if len(self.calls) == 1:
            self.prompts, past = order.tolist(), [()] * len(order)
        else:
            self.prompts = [self.prompts[row] for row in order]
            past = [self.texts[row] for row in order]
        self.texts = [
            (*text, int(token)) for text, token in zip(past, tokens[:, 0], strict=True)
        ]
        pairs = zip(self.prompts, self.texts, strict=True)
        return np.stack([self.function(prompt, text[1:]) for prompt, text in pairs])


def saying(*texts):
    """A step that would have each prompt say its text, and then end it."""

    def following(prompt, text):
        rest = [*texts[prompt], END][len(text) :]
        return logits(**{f"_{(*rest, END)[0]}": 1})

    return Scripted(following)


def tree(shares):
    """A step that knows the shares of what follows a text."""
    return Scripted(lambda _, text: logits(**shares.get(text, {f"_{END}": 1})))


def always(*row):
    """A step that scores the same tokens each time."""
    padded = np.array([*row, *[-np.inf] * (SIZE - len(row))], np.float32)
    return Scripted(lambda prompt, text: padded)


def texts_of(step, prompts=1, rules=RULES, on_token=None, **options):
    found = generate(step, prompts, rules, Decoding(**options), on_token)
    return [text.tolist() for text in found]


def rules(**changes):
    return attrs.evolve(RULES, **changes)


# Greedy


def test_the_likeliest_token_follows():
    step = saying([3, 1, 2, END])

    assert texts_of(step) == [[3, 1, 2, END]]


def test_of_equally_likely_tokens_the_first_follows():
    step = always(0, 2, 1, 2, 2)

    assert texts_of(step, max_new_tokens=2) == [[1, 1]]


def test_the_first_call_has_the_start_and_the_numbers_of_prompts():
    step = saying([END], [END], [END])

    texts_of(step, 3)

    assert step.calls == [([START] * 3, [0, 1, 2])]


def test_texts_are_of_int64():
    (text,) = generate(saying([3, END]), 1, RULES, Decoding())

    assert (np.int64, (2,)) == (text.dtype, text.shape)


def test_a_text_ends_at_any_of_the_end_tokens():
    step = saying([3, 2, END], [1, END])

    assert texts_of(step, 2, rules(ends=(END, 2))) == [[3, 2], [1, END]]


def test_nothing_is_asked_after_the_last_text_has_ended():
    step = saying([3, END], [3, 1, 2, END])

    texts_of(step, 2)

    assert len(step.calls) == 4


def test_a_text_that_ended_is_padded_while_others_go_on():
    step = saying([END], [3, 1, END])

    texts = texts_of(step, 2)

    assert texts == [[END], [3, 1, END]]
    assert [tokens for tokens, _ in step.calls] == [[START, START], [END, 3], [PAD, 1]]


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True}])
def test_one_new_token_is_one_step(options):
    step = saying([3, 1, END])

    texts = texts_of(step, max_new_tokens=1, **options)

    assert texts == [[3]]
    assert len(step.calls) == 1


@pytest.mark.parametrize("beams", [1, 2])
def test_a_forced_token_comes_first(beams):
    step = saying([3, 1, END])

    texts = texts_of(step, rules=rules(forced_first=0), num_beams=beams)

    assert texts == [[0, 1, END]]


@pytest.mark.parametrize("beams", [1, 2])
def test_a_forced_token_comes_last_where_a_text_is_cut_off(beams):
    step = saying([3, 1, 2, 3, 1])

    texts = texts_of(
        step, rules=rules(forced_last=(END,)), max_new_tokens=4, num_beams=beams
    )

    assert texts == [[3, 1, 2, END]]


@pytest.mark.parametrize("beams", [1, 2])
def test_a_text_that_ends_before_is_not_forced(beams):
    step = saying([3, END])

    texts = texts_of(
        step, rules=rules(forced_last=(2,)), max_new_tokens=4, num_beams=beams
    )

    assert texts == [[3, END]]


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, [3, 3, 3, 3, 3]), (1, [3, 2, 1, 0, 4]), (2, [3, 3, 2, 3, 1])],
)
def test_so_many_tokens_in_a_row_do_not_come_a_second_time(size, expected):
    step = always(1, 2, 3, 4, 0)

    texts = texts_of(step, rules=rules(no_repeat_ngram_size=size), max_new_tokens=5)

    assert [expected] == texts


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_beam_search_repeats_nothing_either(size):
    step = always(1, 2, 3, 4, 0)

    (text,) = texts_of(
        step, rules=rules(no_repeat_ngram_size=size), max_new_tokens=5, num_beams=3
    )

    grams = [tuple(text[at : at + size]) for at in range(len(text) - size + 1)]
    assert len(set(grams)) == len(grams)


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"do_sample": True}])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_told(options, value):
    step = always(1, value, 2)

    with pytest.raises(RunFailed, match=r"scores are not numbers.*quantization='fp32'"):
        texts_of(step, **options)


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"do_sample": True}])
def test_scores_that_allow_no_token_are_told(options):
    step = always(-np.inf)

    with pytest.raises(RunFailed, match="scores are not numbers"):
        texts_of(step, **options)


@pytest.mark.parametrize("options", [{}, {"do_sample": True, "seed": 0}])
def test_where_all_has_been_said_the_first_token_follows(options):
    step = always(2, 1)

    (text,) = texts_of(
        step, rules=rules(no_repeat_ngram_size=1), max_new_tokens=4, **options
    )

    assert sorted(text[:2]) == [0, 1]
    assert text[2:] == [0, 0]


def test_what_a_step_returned_is_left_as_it_was():
    row = np.zeros((1, SIZE), np.float32)

    texts_of(lambda *_: row, rules=rules(forced_first=END))

    assert not row.any()


def test_scores_of_half_precision_are_taken():
    step = Scripted(lambda _, text: logits(_3=1).astype(np.float16))

    assert texts_of(step, max_new_tokens=2) == [[3, 3]]


# Following token by token


def test_each_token_is_told_in_order_while_its_text_is_open():
    told = []

    texts_of(
        saying([3, END], [1, 2, END], [END]),
        3,
        on_token=lambda *pair: told.append(pair),
    )

    assert told == [(0, 3), (1, 1), (2, END), (0, END), (1, 2), (1, END)]


def test_tokens_are_told_before_the_next_step():
    step, counts = saying([3, 1, END]), []

    texts_of(step, on_token=lambda *_: counts.append(len(step.calls)))

    assert counts == [1, 2, 3]


def test_who_is_told_may_end_it():
    step = saying([3, 1, 2, END])

    def stop(prompt, token):
        if token == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        texts_of(step, on_token=stop)
    assert len(step.calls) == 2


def test_beams_cannot_be_followed():
    step = saying([END])

    with pytest.raises(InvalidOption, match="leave num_beams at 1"):
        texts_of(step, num_beams=2, on_token=print)
    assert step.calls == []


# Beams

GARDEN = {
    (): {"_1": 0.6, "_2": 0.4},
    (1,): {"_3": 0.4, "_4": 0.35, "_0": 0.25},
    (2,): {"_3": 0.9, "_4": 0.1},
}
"""A likelier first token than that of the likeliest text, (2, 3)."""


def test_greedy_takes_the_likelier_beginning():
    assert texts_of(tree(GARDEN)) == [[1, 3, END]]


@pytest.mark.parametrize("beams", [2, 3, 5])
def test_beams_find_the_likelier_text(beams):
    assert texts_of(tree(GARDEN), num_beams=beams) == [[2, 3, END]]


def test_more_beams_than_anyone_means_are_refused():
    assert Decoding(num_beams=100).num_beams == 100
    with pytest.raises(InvalidOption, match="num_beams 101 is more than 100; 3 to 10"):
        Decoding(num_beams=101)


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", 0.5), ("top_k", 3), ("top_p", 0.9)]
)
def test_how_tokens_are_drawn_is_said_where_they_are_drawn(name, value):
    with pytest.raises(InvalidOption, match=f"{name} {value} .*; add do_sample=True"):
        Decoding(**{name: value})


def test_as_many_beams_as_there_are_texts_find_the_likeliest():
    rng = np.random.default_rng(5)
    places = [text for count in range(3) for text in product(range(3), repeat=count)]
    scores = {place: rng.dirichlet(np.ones(3)) for place in places}
    step = tree(
        {p: dict(zip(("_0", "_1", "_2"), s, strict=True)) for p, s in scores.items()}
    )

    def share(text):
        return np.prod([scores[text[:at]][token] for at, token in enumerate(text)])

    best = max(product(range(3), repeat=3), key=share)
    assert [[*best, END]] == texts_of(step, num_beams=27)


def test_each_prompt_has_its_own_beams():
    turned = {(): {"_1": 0.9, "_2": 0.1}, (1,): {"_0": 1}}
    shares = [GARDEN, turned]
    step = Scripted(
        lambda prompt, text: logits(**shares[prompt].get(text, {f"_{END}": 1}))
    )

    assert texts_of(step, 2, num_beams=2) == [[2, 3, END], [1, 0, END]]


@pytest.mark.parametrize("beams", [2, 3, 7])
def test_of_equally_likely_texts_beams_find_the_first(beams):
    end = 5000
    tokens, seen = np.zeros(end + 1, np.float32), []
    tokens[::7] = 1

    def step(last, order):
        seen.append(last[:, 0].tolist())
        return np.tile(tokens, (len(order), 1))

    found = texts_of(
        step, rules=rules(start=end, ends=(end,)), max_new_tokens=2, num_beams=beams
    )

    assert found == [[0, 0]]
    assert seen[1] == list(range(0, 7 * beams, 7))


@pytest.mark.parametrize("beams", [1, 2, 4])
def test_the_order_names_rows_of_the_call_before(beams):
    step = saying([3, 1, END], [2, END], [1, 4, 3, END])

    texts_of(step, 3, num_beams=beams)

    heights = [len(tokens) for tokens, _ in step.calls]
    assert [3, *[3 * beams] * (len(heights) - 1)] == heights
    for before, (_, order) in zip([3, *heights], step.calls, strict=False):
        assert set(order) <= set(range(before))
    assert step.prompts == np.repeat([0, 1, 2], beams).tolist()


def test_beams_go_on_from_the_texts_that_the_order_names():
    shares = GARDEN | {(2, 3): {"_0": 1}, (2, 3, 0): {"_1": 1}}
    step, seen = tree(shares), []
    known = step.function

    def watched(prompt, text):
        seen.append(text)
        return known(prompt, text)

    step.function = watched
    (text,) = texts_of(step, num_beams=3)

    assert text == [2, 3, 0, 1, END]
    for shorter, longer in pairwise([text[:count] for count in range(len(text))]):
        assert tuple(shorter) in seen
        assert tuple(longer) in seen


@pytest.mark.parametrize(
    ("penalty", "expected"), [(-2.0, [END]), (0.0, [END]), (2.0, [3, 3, END])]
)
def test_a_length_penalty_above_0_is_for_longer_texts(penalty, expected):
    shares = {(): {f"_{END}": 0.6, "_3": 0.4}, (3,): {"_3": 0.9, "_0": 0.1}}

    texts = texts_of(tree(shares), rules=rules(length_penalty=penalty), num_beams=2)

    assert [expected] == texts


@pytest.mark.parametrize("penalty", [-9.9, 9, 9.9])
def test_the_steepest_length_penalty_warns_of_nothing(penalty):
    step = always(1.0, 2.0, 1.5, 0.5)
    steep = Rules.from_config(
        {"bos_token_id": START, "eos_token_id": END, "length_penalty": penalty}
    )

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        texts = texts_of(step, rules=steep, num_beams=2, max_new_tokens=500)
    assert len(texts) == 1


def test_early_stopping_ends_with_as_many_texts_as_beams():
    shares = {
        (): {f"_{END}": 0.5, "_3": 0.5},
        (3,): {f"_{END}": 0.5, "_3": 0.5},
        (3, 3): {"_3": 1},
        (3, 3, 3): {"_3": 1},
    }
    early, late = tree(shares), tree(shares)

    texts_of(early, rules=rules(early_stopping=True, length_penalty=2.0), num_beams=2)
    texts_of(late, rules=rules(early_stopping="never", length_penalty=2.0), num_beams=2)

    assert len(early.calls) == 2
    assert len(late.calls) > 2


def test_more_beams_than_tokens_are_no_fault():
    step = Scripted(lambda _, text: np.log(np.array([0.6, 0.4], np.float32)))
    tiny = Rules(start=0, ends=(1,), pad=1, length_penalty=0.0)

    texts = texts_of(step, rules=tiny, num_beams=9, max_new_tokens=3)

    assert texts == [[1]]


# By chance

SCORES = (0.0, 1.0, 2.0, -1.0, 0.5)


def drawn(count=4000, scores=SCORES, **options):
    """How often each token is drawn, as a share."""
    options = {"do_sample": True, "max_new_tokens": 1, "seed": 3} | options
    tokens = np.concatenate(texts_of(always(*scores), count, **options))
    return np.bincount(tokens, minlength=SIZE)[: len(scores)] / count


def softmax(scores, temperature=1.0):
    shares = np.exp(np.asarray(scores) / temperature)
    return shares / shares.sum()


def distance(found, expected, count=4000):
    """Pearson's chi-square, of 4 degrees of freedom: 23.5 once in 10,000."""
    return count * (np.square(found - expected) / expected).sum()


def test_the_same_seed_draws_the_same_text():
    options = {"do_sample": True, "seed": 11, "max_new_tokens": 40}

    first, second = (texts_of(always(*SCORES), 2, **options) for _ in range(2))

    assert first == second
    assert first[0] != first[1]


def test_other_seeds_draw_other_texts():
    options = {"do_sample": True, "max_new_tokens": 40}

    texts = [texts_of(always(*SCORES), seed=seed, **options) for seed in range(5)]

    assert len({tuple(text) for (text,) in texts}) == 5


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_come_as_often_as_is_likely(temperature):
    found = drawn(temperature=temperature)

    assert distance(found, softmax(SCORES, temperature)) < 23.5


def test_only_the_likeliest_are_drawn():
    found = drawn(top_k=2)

    expected = np.array([0, *softmax(SCORES[1:3]), 0, 0])
    assert np.flatnonzero(found).tolist() == [1, 2]
    assert found == pytest.approx(expected, abs=0.03)


def test_all_that_are_as_likely_as_the_last_of_them_are_drawn():
    found = drawn(scores=(0.0, 1.0, 1.0, 2.0, 1.0), top_k=2)

    assert np.flatnonzero(found).tolist() == [1, 2, 3, 4]


def test_of_many_tokens_the_likeliest_are_drawn():
    scores = np.random.default_rng(2).permutation(1000).astype(np.float32) / 500
    rows = np.tile(scores, (4000, 1))

    texts = texts_of(
        lambda *_: rows, 4000, do_sample=True, seed=3, max_new_tokens=1, top_k=5
    )

    tokens = np.argsort(-scores)[:5]
    found = np.bincount(np.concatenate(texts), minlength=1000)[tokens] / 4000
    assert distance(found, softmax(scores[tokens])) < 23.5


def test_as_many_are_drawn_as_the_probability_takes():
    least = softmax(SCORES)[2] + 0.01  # the first does not reach it, the second does

    found = drawn(top_p=float(least))

    assert np.flatnonzero(found).tolist() == [1, 2]


@pytest.mark.parametrize(
    "options",
    [{"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-4}, {"temperature": 1e-60}],
)
def test_so_narrow_a_choice_is_greedy(options):
    step = Scripted(
        lambda _, text: logits(_3=0.5, _2=0.4) if len(text) else logits(_1=0.4, _2=0.3)
    )

    texts = texts_of(step, do_sample=True, seed=0, max_new_tokens=5, **options)

    assert texts == [[1, 3, 3, 3, 3]]


def test_what_is_drawn_is_forced_too():
    forced = rules(forced_first=4, forced_last=(END,))

    (text,) = texts_of(
        always(*SCORES), rules=forced, do_sample=True, seed=0, max_new_tokens=5
    )

    assert (len(text), text[0], text[-1]) == (5, 4, END)


# What a call may set


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *product(
            ("max_new_tokens", "num_beams", "top_k"), (0, -1, True, 1.5, "2", None)
        ),
        *product(("temperature",), (0, -1.0, True, "1", None, np.nan, np.inf)),
        *product(("top_p",), (0, -0.1, 1.5, True, "1", None, np.nan)),
        *product(("seed",), (-1, 1.5, True, "1")),
    ],
)
def test_a_setting_that_cannot_be_is_told(name, value):
    with pytest.raises(InvalidOption, match=f"^{name} {value!r} is not "):
        Decoding(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", np.int64(3)),
        ("temperature", np.float32(0.5)),
        ("temperature", np.float16(0.5)),
        ("top_p", np.float64(0.5)),
        ("seed", np.uint8(3)),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_setting_may_be_a_number_of_numpy(name, value):
    assert getattr(Decoding(**{name: value, "do_sample": True}), name) == value


def test_beams_are_not_drawn():
    with pytest.raises(InvalidOption, match="leave num_beams at 1"):
        Decoding(do_sample=True, num_beams=2)


def test_whether_to_draw_is_a_bool():
    with pytest.raises(TypeError, match="do_sample"):
        Decoding(do_sample=1)


# What a model's files say


def test_rules_are_read_of_what_is_published():
    expected = Rules(
        start=2,
        ends=(2,),
        pad=1,
        forced_first=0,
        forced_last=(2,),
        no_repeat_ngram_size=3,
        early_stopping=True,
        length_penalty=1.0,
    )

    assert expected == Rules.from_config(CONFIG)


def test_the_least_that_is_published_is_enough():
    expected = Rules(start=0, ends=(2,), pad=2)

    assert expected == Rules.from_config({"bos_token_id": 0, "eos_token_id": 2})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"eos_token_id": [2, 5]}, {"ends": (2, 5)}),
        ({"eos_token_id": [5, 2], "pad_token_id": None}, {"ends": (5, 2), "pad": 5}),
        ({"decoder_start_token_id": [4]}, {"start": 4}),
        ({"decoder_start_token_id": None}, {"start": 0}),
        ({"decoder_start_token_id": 0, "bos_token_id": 4}, {"start": 0}),
        ({"forced_bos_token_id": None}, {"forced_first": None}),
        ({"forced_eos_token_id": [2, 3]}, {"forced_last": (2, 3)}),
        ({"early_stopping": None}, {"early_stopping": False}),
        ({"early_stopping": "never"}, {"early_stopping": "never"}),
        ({"length_penalty": 2}, {"length_penalty": 2}),
        ({"no_repeat_ngram_size": None}, {"no_repeat_ngram_size": 0}),
    ],
)
def test_each_rule_is_read(changes, expected):
    published = Rules.from_config(CONFIG)

    assert attrs.evolve(published, **expected) == Rules.from_config(CONFIG | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"eos_token_id": None},
        {"eos_token_id": []},
        {"decoder_start_token_id": None, "bos_token_id": None},
        {"decoder_start_token_id": [2, 3]},
        {"forced_bos_token_id": [0, 1]},
    ],
)
def test_a_model_that_does_not_say_how_its_texts_begin_and_end_is_refused(changes):
    with pytest.raises(InvalidCard, match="needs decoder_start_token_id and eos_token"):
        Rules.from_config(CONFIG | changes)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bad_words_ids", [[3]]),
        ("begin_suppress_tokens", [3]),
        ("constraints", ["a word"]),
        ("diversity_penalty", 0.5),
        ("dola_layers", "high"),
        ("encoder_no_repeat_ngram_size", 2),
        ("encoder_repetition_penalty", 1.2),
        ("epsilon_cutoff", 3e-4),
        ("eta_cutoff", 3e-4),
        ("exponential_decay_length_penalty", [5, 1.2]),
        ("force_words_ids", [[3]]),
        ("guidance_scale", 1.5),
        ("max_time", 1.5),
        ("min_length", 5),
        ("min_new_tokens", 5),
        ("min_p", 0.1),
        ("num_beam_groups", 2),
        ("num_return_sequences", 2),
        ("penalty_alpha", 0.6),
        ("remove_invalid_values", True),
        ("renormalize_logits", True),
        ("repetition_penalty", 1.2),
        ("sequence_bias", [[[3], 1.0]]),
        ("stop_strings", ["."]),
        ("suppress_tokens", [3]),
        ("token_healing", True),
        ("top_h", 0.4),
        ("typical_p", 0.9),
        ("watermarking_config", {"bias": 2.5}),
    ],
)
def test_a_setting_that_changes_tokens_and_is_not_followed_is_refused(name, value):
    with pytest.raises(InvalidCard, match=f"generates with {name} .*not supported"):
        Rules.from_config(CONFIG | {name: value})


def test_settings_that_change_nothing_are_no_hindrance():
    neutral = {
        "bad_words_ids": None,
        "max_length": 20,
        "min_length": 0,
        "renormalize_logits": False,
        "repetition_penalty": 1.0,
        "typical_p": 1.0,
        "use_cache": True,
    }

    assert Rules.from_config(CONFIG) == Rules.from_config(CONFIG | neutral)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *product(("eos_token_id", "pad_token_id"), (-1, 2**31, "2", True, 1.0, [None])),
        *product(("forced_eos_token_id",), ({}, [[2]])),
        *product(("no_repeat_ngram_size",), (1.5, "3", True, 99, [3])),
        *product(("length_penalty",), ("1", True, np.nan, np.inf, -10, 10)),
        *product(("early_stopping",), (1, "always", [])),
    ],
)
def test_a_setting_of_a_wrong_kind_is_refused(name, value):
    with pytest.raises(InvalidCard, match=name):
        Rules.from_config(CONFIG | {name: value})
