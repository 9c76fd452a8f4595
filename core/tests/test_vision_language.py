"""Prompts about images, which are encoded once however much is asked."""

from __future__ import annotations

import gc
import shutil
import weakref
from pathlib import Path

import attrs
import numpy as np
import pytest

from inference_models import (
    AutoModel,
    Encoding,
    InvalidInput,
    InvalidOption,
    ModelClosed,
    VisionLanguageModel,
    registry,
)

from .distributions import install, only


def grey(level, size=(3, 4)):
    return np.full((*size, 3), level, np.uint8)


GREYS = [grey(level) for level in range(40)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder in which the distribution acme-words is installed."""
    site = tmp_path_factory.mktemp("words")
    shutil.copy(Path(__file__).with_name("acme_words.py"), site)
    (site / "acme_words.txt").write_text("weights", "utf-8")
    install(site, "acme-words", {"words": "acme_words"})
    return site


@pytest.fixture
def words(site, monkeypatch):
    """The module of acme-words, which is the only plugin beside core's own."""
    monkeypatch.syspath_prepend(site)
    only(monkeypatch, "acme-words")
    import acme_words

    acme_words.runs.clear()
    acme_words.joins.clear()
    yield acme_words
    registry.refresh()


@pytest.fixture
def model(words):
    return AutoModel.from_pretrained("acme-words", batch_size=4)


def encoded(words):
    """How many images each run of the vision graph had."""
    return [count for graph, count in words.runs if graph == "vision"]


def asked(words):
    return [count for graph, count in words.runs if graph == "text"]


# What is asked of what


def test_the_task_has_its_class(model):
    assert type(model) is VisionLanguageModel
    assert model.task == "vision-language"


def test_a_single_image_has_one_answer(model):
    assert model.prompt(grey(3), "level?") == ["level? 6"]


def test_one_prompt_is_for_all_images(model):
    assert model.prompt(GREYS[:3], "level?") == ["level? 0", "level? 2", "level? 4"]


def test_several_prompts_are_for_one_image_each(model):
    assert model.prompt(GREYS[1:4], ["a", "b", "c"]) == ["a 2", "b 4", "c 6"]


def test_one_prompt_in_a_list_is_for_one_image(model):
    assert model.prompt([grey(3)], ["a"]) == ["a 6"]


def test_several_prompts_on_a_single_image_encode_it_once(model, words):
    answers = model.prompt(grey(3), ["a", "b", "c"])

    assert answers == ["a 6", "b 6", "c 6"]
    assert words.runs == [("vision", 1), ("text", 3)]


def test_more_prompts_on_an_image_than_a_batch_keep_their_order(model, words):
    prompts = [f"p{number}" for number in range(37)]

    answers = model.prompt(grey(3), prompts)

    assert answers == [f"{prompt} 6" for prompt in prompts]
    assert encoded(words) == [1]
    assert asked(words) == [16, 16, 5]


def test_without_a_prompt_the_architectures_own_is_asked(model):
    assert model(GREYS[:2]) == ["how grey? 0", "how grey? 2"]


def test_a_call_takes_a_prompt_too(model):
    assert model(GREYS[:2], prompt="level?") == ["level? 0", "level? 2"]
    assert model(GREYS[:2], prompt=["a", "b"]) == ["a 0", "b 2"]


def test_options_are_the_architectures(model):
    assert model.prompt(grey(3), "level?", loud=True) == ["LEVEL? 6"]


def test_the_order_of_colours_is_heeded(model):
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 30

    for order in ("rgb", "bgr"):
        encoding = model.encode(red, input_color_format=order)
        assert model.prompt(encoding, "a") == ["a 20"]
        assert model.prompt(red, "a", input_color_format=order) == ["a 20"]


@pytest.mark.parametrize("prompt", ["a", []])
def test_no_image_is_told(model, words, prompt):
    with pytest.raises(InvalidInput, match="there is no image"):
        model.prompt([], prompt)
    assert words.runs == []


# Counts


@pytest.mark.parametrize(("images", "prompts"), [(3, 2), (2, 3), (3, 1), (2, 0)])
def test_prompts_of_another_number_are_refused(model, words, images, prompts):
    with pytest.raises(
        InvalidInput, match=f"there are {prompts} prompts for {images} images; give one"
    ):
        model.prompt(GREYS[:images], ["a"] * prompts)
    assert asked(words) == []


def test_prompts_of_another_number_than_what_was_encoded_are_refused(model):
    encoding = model.encode(GREYS[:3])

    with pytest.raises(InvalidInput, match="there are 2 prompts for 3 images"):
        model.prompt(encoding, ["a", "b"])


# What is wrong is told first


@pytest.mark.parametrize("prompt", ["a", ["a", "b"]])
def test_a_wrong_option_is_told_before_anything_is_encoded(model, words, prompt):
    with pytest.raises(InvalidOption, match="no option 'lout'; did you mean 'loud'"):
        model.prompt(GREYS[:2], prompt, lout=True)
    assert words.runs == []


@pytest.mark.parametrize("prompt", [5, ["a", 5], [None, "a"], b"ab"])
def test_a_prompt_that_is_no_text_is_told_before_anything_is_encoded(
    model, words, prompt
):
    with pytest.raises(InvalidOption, match="is neither a text nor a list of some"):
        model.prompt(GREYS[:2], prompt)
    assert words.runs == []


def test_a_closed_model_encodes_nothing(model, words):
    model.close()

    with pytest.raises(ModelClosed):
        model.encode(grey(3))
    assert words.runs == []


# What was encoded


def test_an_encoding_has_the_frames_of_its_images(model):
    images = [grey(0, (3, 4)), grey(1, (5, 6))]

    encoding = model.encode(images)

    assert isinstance(encoding, Encoding)
    assert [(f.height, f.width) for f in encoding.frames] == [(3, 4), (5, 6)]
    assert len(encoding) == 2


@pytest.mark.parametrize("prompt", ["a", [f"p{number}" for number in range(6)]])
def test_an_encoding_has_the_answers_of_its_images(model, prompt):
    encoding = model.encode(GREYS[:6])

    assert model.prompt(encoding, prompt) == model.prompt(GREYS[:6], prompt)


@pytest.mark.parametrize("prompt", ["a", [f"p{number}" for number in range(6)]])
def test_what_was_encoded_is_not_encoded_again(model, words, prompt):
    encoding = model.encode(GREYS[:6])
    words.runs.clear()

    for _ in range(2):
        model.prompt(encoding, prompt)

    assert words.runs == [("text", 6)] * 2


def test_an_encoding_needs_no_prompt_either(model):
    encoding = model.encode(GREYS[:2])

    assert model(encoding) == ["how grey? 0", "how grey? 2"]


def test_several_prompts_are_asked_of_the_encoding_of_one_image(model):
    encoding = model.encode(grey(3))

    assert model.prompt(encoding, ["a", "b"]) == ["a 6", "b 6"]


def test_an_encoding_is_its_own(model):
    encoding = model.encode(GREYS[:2])

    assert model.encode(encoding) is encoding


@pytest.mark.parametrize("prompt", [None, "a", ["a", "b"]])
def test_an_encoding_of_another_model_is_refused(model, words, prompt):
    encoding = AutoModel.from_pretrained("acme-poems").encode(GREYS[:2])
    words.runs.clear()

    with pytest.raises(InvalidInput, match=r"of another loaded model, .*'acme-poems'"):
        model.prompt(encoding, prompt)
    with pytest.raises(InvalidInput, match=r"give <.*'acme-words'.*> the images, or"):
        model.encode(encoding)
    assert words.runs == []


def test_a_model_that_is_loaded_twice_is_two(model):
    again = AutoModel.from_pretrained("acme-words", batch_size=4)

    with pytest.raises(InvalidInput, match="of another loaded model"):
        again.prompt(model.encode(GREYS[:2]), "a")


def test_an_encoding_does_not_keep_its_model(model):
    own = AutoModel.from_pretrained("acme-words", batch_size=4)
    encoding, gone = own.encode(GREYS[:2]), weakref.ref(own)
    del own
    gc.collect()

    assert len(encoding) == 2
    assert gone() is None


# Batches


def test_images_are_encoded_in_batches(model, words):
    encoding = model.encode(GREYS[:10])

    assert encoded(words) == [4, 4, 2]
    assert [len(part.frames) for part in encoding.parts] == [4, 4, 2]


def test_more_images_than_a_batch_keep_their_order(model, words):
    answers = model.prompt(GREYS, "a")

    assert answers == [f"a {2 * level}" for level in range(40)]
    assert encoded(words) == [4] * 10
    assert asked(words) == [16, 16, 8]


def test_more_images_than_a_batch_keep_their_prompts(model):
    prompts = [f"p{level}" for level in range(40)]

    answers = model.prompt(GREYS, prompts)

    assert answers == [f"p{level} {2 * level}" for level in range(40)]


def test_images_may_be_generated(model):
    assert model.prompt((image for image in GREYS[:6]), "a") == [
        f"a {2 * level}" for level in range(6)
    ]


def test_a_batch_is_answered_before_the_next_is_encoded(model, words):
    model.prompt(GREYS[:18], "a")

    expected = [*[("vision", 4)] * 4, ("text", 16), ("vision", 2), ("text", 2)]
    assert words.runs == expected


def test_rows_of_several_parts_are_joined_by_the_device(model, words):
    model.prompt(GREYS[:10], "a")

    assert words.joins == [[4, 4, 2]]


def test_a_part_that_two_questions_share_is_divided(model, words):
    first, second = model.encode(GREYS[:3]), model.encode(GREYS[3:6])
    parts = (*first.parts, *second.parts)
    whole = attrs.evolve(first, parts=parts * 3)

    answers = model.prompt(whole, "a")

    assert answers == [f"a {2 * level}" for level in range(6)] * 3
    assert words.joins == [[3, 3, 3, 3, 3, 1], [2]]


# A class of its own


def test_an_architecture_may_have_a_class_of_its_own(words):
    model = AutoModel.from_pretrained("acme-poems")

    assert type(model) is words.OwnModel
    assert model.poem(grey(3)) == "roses 6\nviolets 6"
    assert encoded(words) == [1]


def test_a_class_of_its_own_is_still_of_its_task(words):
    model = VisionLanguageModel.from_pretrained("acme-poems")

    assert isinstance(model, words.OwnModel)
