"""The tokenizer of a model's folder, beside that of transformers on the same files."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inference_models import InvalidOption, InvalidWeights
from inference_models_florence2 import tokens
from inference_models_florence2.tasks import TASKS
from inference_models_florence2.tokens import Stream, Tokens

from .bart import bart, blingfire
from .florence_folders import write_settings, write_tokenizer, write_vocabulary

TEXTS = [
    "",
    " ",
    "a",
    "What does the image describe?",
    "  two spaces before, and two behind  ",
    "line\nafter\r\n\nline\tand tab",
    "Locate the phrases in the caption: A green car,<loc_0><loc_999>, parked.",
    "<loc_12> <loc_13>\n<loc_14>",
    "<od>car</od><and><sep> <poly></poly>",
    "a <mask> b  <mask>",
    "<s>of its own</s><pad>",
    "<loc_1000> <loc_01> < loc_1> <LOC_1> <loc_1",
    "naïve café, Ünïcödé, 中文字, русский, العربية",
    "emoji 🙂👩‍👩‍👧🏳️‍🌈 and é (combined)",
    "null \0, replaced \ufffd, spaces\u00a0\u2003\u2028kept",
    "it's we'll 1234567890 $5.00 & 30%",
    "x" * 2000,
]
KINDS = {
    "whole": write_tokenizer,
    "described": lambda folder: write_vocabulary(folder, described=True),
    "named": lambda folder: write_vocabulary(folder, described=False),
}


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param)
    KINDS[request.param](path)
    return path


@pytest.fixture(scope="module")
def read(folder):
    return Tokens.read(folder)


@pytest.fixture(scope="module")
def reference(folder):
    """The tokenizer of transformers."""
    transformers = pytest.importorskip("transformers")
    return transformers.BartTokenizer.from_pretrained(folder)


@pytest.fixture
def copy(tmp_path):
    write_tokenizer(tmp_path)
    return tmp_path


@pytest.fixture
def parts(tmp_path):
    write_vocabulary(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole")
    write_tokenizer(path)
    return Tokens.read(path)


@pytest.fixture(scope="module")
def reference_whole(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    path = tmp_path_factory.mktemp("reference")
    write_tokenizer(path)
    return transformers.BartTokenizer.from_pretrained(path)


@pytest.fixture(scope="module", params=[write_tokenizer, write_vocabulary])
def real(request, tmp_path_factory):
    """BART's real vocabulary and Florence-2's tokens, as read here and elsewhere."""
    transformers = pytest.importorskip("transformers")
    files = blingfire()
    if files is None:
        pytest.skip("blingfire, which has the vocabulary, is not installed")
    path = tmp_path_factory.mktemp("real")
    request.param(path, tokenizer=bart(files))
    return Tokens.read(path), transformers.BartTokenizer.from_pretrained(path)


def pieces_of(read, ids, special=True):
    stream = Stream(read, special)
    return [stream.push(token) for token in ids], stream.rest()


# Encoding


@pytest.mark.parametrize("text", TEXTS)
def test_a_prompt_has_the_tokens_of_transformers(read, reference, text):
    expected = reference(f"<s>{text}</s>", add_special_tokens=False)["input_ids"]

    assert read.encode(text) == expected


@settings(max_examples=200, deadline=None)
@given(st.text().filter(lambda text: "<" not in text))
def test_any_prompt_comes_back_as_it_was(whole, text):
    assert whole.decode(whole.encode(text)) == text


def test_the_processor_of_transformers_makes_the_same_of_prompts(tmp_path):
    transformers = pytest.importorskip("transformers")
    write_tokenizer(tmp_path)
    write_settings(tmp_path, 64)
    processor = transformers.AutoProcessor.from_pretrained(tmp_path)
    texts = [text for text in TEXTS if "<image>" not in text]
    picture = Image.new("RGB", (80, 60))

    found = processor([picture] * len(texts), texts, padding=True, return_tensors="np")
    features = processor.num_image_tokens
    ids, mask = Tokens.read(tmp_path).batch(texts)

    assert ids.tolist() == found["input_ids"][:, features:].tolist()
    assert mask.tolist() == found["attention_mask"][:, features:].tolist()


@pytest.mark.slow
def test_the_real_vocabulary_is_of_the_published_size(real):
    read, _ = real

    assert read.tokenizer.get_vocab_size() == 51_289
    assert (read.start, read.pad, read.end) == (0, 1, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello world!", [0, 31414, 232, 328, 2]),
        ("What does the image describe?", [0, 2264, 473, 5, 2274, 6190, 116, 2]),
    ],
)
def test_a_text_has_the_published_tokens(real, text, ids):
    assert real[0].encode(text) == ids


REAL = [*TEXTS, *(task.words.format(input="a green car") for task in TASKS.values())]


@pytest.mark.slow
@pytest.mark.parametrize("text", REAL)
def test_the_real_vocabulary_gives_the_tokens_of_transformers(real, text):
    read, reference = real
    expected = reference(f"<s>{text}</s>", add_special_tokens=False)["input_ids"]

    assert read.encode(text) == expected
    decoded = reference.decode(expected, clean_up_tokenization_spaces=False)
    assert read.decode(expected, special=True) == decoded


@pytest.mark.slow
def test_each_location_is_one_token(real):
    read, reference = real
    names = [f"<loc_{number}>" for number in range(1000)]

    ids = read.encode("".join(names))
    assert [0, *range(50_269, 51_269), 2] == ids
    assert reference.convert_tokens_to_ids(names) == ids[1:-1]


def test_a_batch_is_padded_behind_each_text(whole):
    ids, mask = whole.batch(["a car", "", "a"])

    lengths = [len(whole.encode(text)) for text in ("a car", "", "a")]
    assert (ids.dtype, mask.dtype) == (np.int64, np.int64)
    assert ids.shape == mask.shape == (3, max(lengths))
    assert mask.sum(axis=1).tolist() == lengths
    assert set(ids[mask == 0].tolist()) == {whole.pad}


def test_a_file_that_cuts_texts_does_not_cut_prompts(copy):
    whole = tokens.Tokenizer.from_file(str(copy / "tokenizer.json"))
    whole.enable_truncation(8)
    whole.enable_padding(length=8)
    whole.save(str(copy / "tokenizer.json"))

    read = Tokens.read(copy)

    assert len(read.encode("x y " * 20)) > 20
    assert len(read.encode("a")) == 3


@pytest.mark.parametrize("text", ["<image>", "what is in <image>?"])
def test_the_place_of_the_picture_is_refused_in_a_prompt(whole, text):
    with pytest.raises(InvalidOption, match="'<image>', which stands for the picture"):
        whole.encode(text)


def test_half_of_a_character_is_no_prompt(whole):
    with pytest.raises(InvalidOption, match="is no text"):
        whole.encode("a \ud83d cat")


# Decoding


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_have_the_text_of_transformers(read, reference, text):
    ids = [2, *read.encode(text), *read.encode("<od>car<loc_1>"), 1, 1]
    expected = reference.decode(ids, clean_up_tokenization_spaces=False)

    assert read.decode(ids, special=True) == expected
    assert read.decode(ids) == re.sub(r"</?s>|<pad>", "", expected)


@given(st.lists(st.integers(0, 1455), max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_tokens_have_the_text_of_transformers(whole, reference_whole, ids):
    expected = reference_whole.decode(ids, clean_up_tokenization_spaces=False)

    assert whole.decode(np.array(ids, np.int64), special=True) == expected


def test_locations_stay_where_ends_are_left_out(whole):
    ids = whole.encode("car<loc_5><loc_6>")

    assert whole.decode(ids) == "car<loc_5><loc_6>"
    assert whole.decode(ids, special=True) == "<s>car<loc_5><loc_6></s>"


# Streams


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("text", TEXTS)
def test_pieces_make_up_the_text(whole, text, special):
    ids = whole.encode(text)

    pieces, rest = pieces_of(whole, ids, special)

    assert "".join(pieces) + rest == whole.decode(ids, special)


@given(st.lists(st.integers(0, 1455), max_size=60))
@settings(max_examples=200, deadline=None)
def test_pieces_of_any_tokens_make_up_their_text(whole, ids):
    pieces, rest = pieces_of(whole, ids)

    assert "".join(pieces) + rest == whole.decode(ids, special=True)


def test_a_piece_comes_with_each_token_of_whole_characters(whole):
    ids = whole.encode("a green car")

    pieces, rest = pieces_of(whole, ids)

    assert pieces == [whole.decode([token], special=True) for token in ids]
    assert rest == ""


def test_a_character_of_four_tokens_is_one_piece(whole):
    ids = whole.encode("🙂")[1:-1]

    assert len(ids) == 4
    assert pieces_of(whole, ids) == (["", "", "", "🙂"], "")


def test_a_text_that_ends_amid_a_character_says_so(whole):
    ids = whole.encode("a🙂")[1:-2]

    pieces, rest = pieces_of(whole, ids)

    assert "".join(pieces) == "a"
    assert rest == "\ufffd"


# Damage


def test_a_folder_without_a_tokenizer_says_which_files_are_wanted(tmp_path):
    expected = "has neither tokenizer.json nor vocab.json and merges.txt"
    with pytest.raises(InvalidWeights, match=expected):
        Tokens.read(tmp_path)


def test_a_vocabulary_without_its_merges_is_none(parts):
    (parts / "merges.txt").unlink()

    with pytest.raises(InvalidWeights, match="has neither"):
        Tokens.read(parts)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"model": {"type": "BPE"}}',
        b"[" * 100_000,
        b'{"version": "1.0", "model": {"type": "WordLevel", "vocab": {}}}',
    ],
)
def test_a_damaged_tokenizer_is_named(copy, content):
    (copy / "tokenizer.json").write_bytes(content)

    with pytest.raises(InvalidWeights, match=r"tokenizer\.json'"):
        Tokens.read(copy)


@pytest.mark.parametrize(
    "part",
    [
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="}},
        {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
        {"decoder": {"type": "Strip", "content": "A", "start": 99, "stop": 99}},
    ],
    ids=["unreadable", "in reading", "in cutting", "in writing"],
)
def test_a_part_that_its_library_stumbles_over_is_damage(copy, part):
    path = copy / "tokenizer.json"
    found = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**found, **part}), "utf-8")

    with pytest.raises(InvalidWeights, match="cannot be read as a tokenizer"):
        Tokens.read(copy)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_a_tokenizer_that_was_cut_short_is_named(copy, keep):
    path = copy / "tokenizer.json"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])

    with pytest.raises(InvalidWeights, match=r"tokenizer\.json' cannot be read as a"):
        Tokens.read(copy)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vocab.json", b"{"),
        ("vocab.json", b"[1, 2]"),
        ("vocab.json", b'{"a": "b"}'),
        ("vocab.json", b'{"a": -1}'),
        ("vocab.json", b'{"a": 99999999999999}'),
        ("vocab.json", b'{"a": 1, "a": 2}'),
        ("merges.txt", b"\xff\xff"),
        ("merges.txt", b"#version: 0.2\na b c\n"),
        ("merges.txt", b"#version: 0.2\nalone\n"),
        ("tokenizer_config.json", b"{"),
        ("tokenizer_config.json", b'{"added_tokens_decoder": []}'),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"one": {}}}'),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"0": {"content": 1}}}'),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"x": {"content": "y"}}}'),
    ],
)
def test_each_damaged_part_is_named(parts, name, content):
    (parts / name).write_bytes(content)

    with pytest.raises(InvalidWeights, match=rf"{name.replace('.', '[.]')}'.* again"):
        Tokens.read(parts)


def test_a_merge_of_what_the_vocabulary_lacks_is_damage(parts):
    (parts / "merges.txt").write_bytes(b"#version: 0.2\n@@ @@\n")

    with pytest.raises(InvalidWeights, match="cannot be read as a tokenizer"):
        Tokens.read(parts)


def test_a_number_that_an_added_token_cannot_have_is_damage(parts):
    path = parts / "tokenizer_config.json"
    found = json.loads(path.read_text("utf-8"))
    added = found["added_tokens_decoder"]
    added["90000"] = added.pop(max(added, key=int))
    path.write_text(json.dumps(found), "utf-8")

    with pytest.raises(InvalidWeights, match=r"'<image>' .* is not its token 90000"):
        Tokens.read(parts)


def test_an_added_token_whose_number_is_a_text_is_damage(parts):
    (parts / "tokenizer_config.json").unlink()
    (parts / "added_tokens.json").write_bytes(b'{"<loc_0>": "50269"}')

    with pytest.raises(InvalidWeights, match=r"added_tokens[.]json' cannot be read"):
        Tokens.read(parts)


@pytest.mark.parametrize("first", ["#version: 0.2\n", ""])
def test_merges_of_number_signs_are_no_comments(parts, first):
    vocabulary = json.loads((parts / "vocab.json").read_text("utf-8"))
    spare = next(name for name in vocabulary if len(name) > 2 and name.isalpha())
    number = vocabulary.pop(spare)
    (parts / "vocab.json").write_text(json.dumps({**vocabulary, "##": number}), "utf-8")
    (parts / "merges.txt").write_text(f"{first}# #\n", "utf-8")

    assert Tokens.read(parts).encode("##")[1:-1] == [number]


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json", "merges.txt"])
def test_a_file_of_any_size_is_not_read(tmp_path, monkeypatch, name):
    (write_tokenizer if name == "tokenizer.json" else write_vocabulary)(tmp_path)
    monkeypatch.setattr(tokens, "_LARGEST", (tmp_path / name).stat().st_size - 1)

    with pytest.raises(InvalidWeights, match="larger than"):
        Tokens.read(tmp_path)


@pytest.mark.parametrize("name", ["<loc_0>", "<loc_500>", "<loc_999>", "<pad>", "</s>"])
def test_the_tokenizer_of_another_model_is_told_by_its_tokens(copy, name):
    path = copy / "tokenizer.json"
    path.write_text(path.read_text("utf-8").replace(f'"{name}"', '"<other>"'), "utf-8")

    with pytest.raises(InvalidWeights, match=rf"has no token '{name}'"):
        Tokens.read(copy)
