"""Tokens of the loop in core, beside those of transformers' `generate`."""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
import pytest

from inference_models.generation import Decoding, Rules, generate

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

START, PAD, PROMPTS, VOCABULARY = 2, 1, 3, 50
SEEDS = range(4)
LENGTHS = (2, 1, 12)
CUTS = (
    {},
    {"forced_bos_token_id": 0},
    {"forced_eos_token_id": 2},
    {"forced_bos_token_id": 0, "forced_eos_token_id": 2},
)
SETTINGS = [
    {"no_repeat_ngram_size": size, "eos_token_id": ends} | cut
    for size, ends, cut in product((0, 3), (2, [2, 5]), CUTS)
]
STOPPING = list(product((True, False, "never"), (1.0, 0.0, 2.0, -1.0)))


@pytest.fixture(autouse=True)
def _one_thread():
    """Networks this small are slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def of_beams():
    """Every way to stop with every setting, over beams, lengths and models in turn."""
    for number, (settings, stopping) in enumerate(product(SETTINGS, STOPPING)):
        early, penalty = stopping
        rules = settings | {"early_stopping": early, "length_penalty": penalty}
        most = LENGTHS[number % 5 % 3] if number % 2 else 12
        yield number % len(SEEDS), 3 + number // 3 % 2, most, rules


def of_one():
    """Every setting without beams."""
    for number, (settings, most) in enumerate(product(SETTINGS, (1, 12))):
        yield number % len(SEEDS), 1, most, settings


@cache
def network(seed):
    """A tiny BART whose texts differ, and end now and then; and its prompts.

    In double precision what it keeps of a text makes no difference to rounding, which
    would exchange texts that are as likely to six digits.
    """
    torch.manual_seed(seed)
    sides = ("encoder", "decoder")
    config = transformers.BartConfig(
        vocab_size=VOCABULARY,
        d_model=16,
        max_position_embeddings=64,
        encoder_layers=1,
        decoder_layers=2,
        **{f"{side}_attention_heads": 2 for side in sides},
        **{f"{side}_ffn_dim": 32 for side in sides},
    )
    model = transformers.BartForConditionalGeneration(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.6)
        model.final_logits_bias[:, 2] = 2.0
    words = torch.randint(3, VOCABULARY, (PROMPTS, 6))
    mask = torch.ones_like(words)
    mask[1, 4:] = 0
    return model, words, mask


class Decoder:
    """BART's decoder as a step, with whole texts in place of what it keeps."""

    def __init__(self, seed):
        self.model, words, self.mask = network(seed)
        with torch.inference_mode():
            encoded = self.model.model.encoder(
                input_ids=words, attention_mask=self.mask
            )
        self.states, self.texts = encoded.last_hidden_state, None

    def __call__(self, tokens, order):
        self.states, self.mask = self.states[order], self.mask[order]
        past = tokens[:, :0] if self.texts is None else self.texts[order]
        self.texts = np.concatenate([past, tokens], axis=1)
        with torch.inference_mode():
            outputs = self.model(
                encoder_outputs=(self.states,),
                attention_mask=self.mask,
                decoder_input_ids=torch.from_numpy(self.texts),
            )
        return outputs.logits[:, -1].numpy()


def expected(seed, beams, most, settings):
    """Texts of transformers, with what they start with and are padded with."""
    model, words, mask = network(seed)
    config = transformers.GenerationConfig(
        **settings, num_beams=beams, max_new_tokens=most, do_sample=False
    )
    model.generation_config = config
    with torch.inference_mode():
        texts = model.generate(
            input_ids=words, attention_mask=mask, generation_config=config
        )
    return texts.tolist()


def padded(texts):
    longest = max(map(len, texts))
    rows = [[START, *text.tolist()] for text in texts]
    return [row + [PAD] * (longest + 1 - len(row)) for row in rows]


def name(case):
    seed, beams, most, settings = case
    return f"{seed}-{beams}-{most}-" + "-".join(map(str, settings.values()))


@pytest.mark.parametrize("case", [*of_one(), *of_beams()], ids=name)
def test_tokens_are_those_of_transformers(case):
    seed, beams, most, settings = case
    published = settings | {
        "bos_token_id": 0,
        "decoder_start_token_id": START,
        "pad_token_id": PAD,
    }

    found = generate(
        Decoder(seed),
        PROMPTS,
        Rules.from_config(published),
        Decoding(num_beams=beams, max_new_tokens=most),
    )

    assert padded(found) == expected(seed, beams, most, published)
