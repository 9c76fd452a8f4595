"""What is asked of the model for what a user writes."""

from __future__ import annotations

import pytest

from inference_models import InvalidOption
from inference_models_florence2.tasks import TASKS, find, words

WITH_INPUT = [token for token, task in TASKS.items() if task.takes_input]
WITHOUT = [token for token in TASKS if token not in WITH_INPUT]
DESCRIPTION = "Describe with a paragraph what is shown in the image."


@pytest.fixture(scope="module")
def reference():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from .reference import processor

    return processor()


def test_there_are_fifteen_tasks():
    assert (len(WITHOUT), len(WITH_INPUT)) == (8, 7)


def test_the_tasks_are_those_of_transformers(reference):
    known = reference.task_prompts_without_inputs | reference.task_prompts_with_input

    assert {token: task.words for token, task in TASKS.items()} == known


KINDS = {
    "pure_text": "text",
    "ocr": "quads",
    "description_with_bboxes": "boxes",
    "description_with_bboxes_or_polygons": "boxes",
    "phrase_grounding": "phrases",
    "polygons": "polygons",
    "bboxes": "regions",
}


def test_answers_are_those_of_transformers(reference):
    known = reference.tasks_answer_post_processing_type

    assert {token: task.answer for token, task in TASKS.items()} == {
        token: KINDS[kind] for token, kind in known.items()
    }


@pytest.mark.parametrize(
    "prompt",
    [
        *WITHOUT,
        *[f"{token}a green car" for token in WITH_INPUT],
        *[f"{token} <loc_1><loc_2><loc_3><loc_4> " for token in WITH_INPUT],
        "a {input} of <CAPTION_TO_PHRASE_GROUNDING>",
        "how many cars are there",
    ],
)
def test_prompts_become_the_words_that_transformers_makes(reference, prompt):
    assert [words(prompt)] == reference._construct_prompts(prompt)


def test_a_token_stands_for_its_words():
    assert words("<OD>") == "Locate the objects with category name in the image."
    assert words("\n<OD> ") == words("<OD>")


def test_an_input_takes_its_place_among_the_words():
    assert words("<CAPTION_TO_PHRASE_GROUNDING>a green car") == (
        "Locate the phrases in the caption: a green car"
    )


@pytest.mark.parametrize("token", TASKS)
def test_the_task_of_a_prompt_is_found(token):
    assert find(f"{token}a car") == TASKS[token]


@pytest.mark.parametrize(
    "prompt",
    [
        "Describe the image contents",
        "describe this.",
        "Give me a detailed description of the photo",
        "Write a caption",
        "What is in the image?",
        "What's in this picture?",
        "what is shown in the photograph",
        "What does the image show?",
        "What do you see?",
        "What is happening here?",
    ],
)
def test_a_wish_for_a_description_gives_one(prompt):
    assert words(prompt) == DESCRIPTION


@pytest.mark.parametrize(
    "prompt",
    [
        "What does the image describe?",
        "Describe in detail what is shown in the image.",
        "What does the region <loc_1><loc_2><loc_3><loc_4> describe?",
        "Locate the phrases in the caption: a photo with a description",
        "What is the text in the image?",
        "What color is the car in the image?",
        "how many people",
        "<od>",
        "what is on the table",
    ],
)
def test_any_other_text_is_passed_as_it_is(prompt):
    assert words(prompt) == prompt


@pytest.mark.parametrize("token", WITHOUT)
def test_a_text_beside_a_task_that_takes_none_is_refused(token):
    with pytest.raises(
        InvalidOption, match=f"{token} takes no text beside it, and 'a c"
    ):
        words(f"{token}a car")


@pytest.mark.parametrize("token", WITH_INPUT)
def test_a_task_without_the_text_it_needs_is_refused_with_an_example(token):
    with pytest.raises(InvalidOption, match=f"{token} needs a text .* '{token}[a<]"):
        words(f"{token} ")


@pytest.mark.parametrize("prompt", ["", " \n"])
def test_an_empty_prompt_is_refused(prompt):
    with pytest.raises(InvalidOption, match="the prompt is empty"):
        words(prompt)


def test_two_tasks_at_once_are_refused():
    with pytest.raises(InvalidOption, match="has <CAPTION> and <OD>; ask for one"):
        words("<OD><CAPTION>")


def test_a_task_that_is_none_is_refused_with_the_nearest():
    near = "no task '<DETAIL_CAPTION>'; tasks are .*; did you mean '<DETAILED_CAPTION>'"
    with pytest.raises(InvalidOption, match=near):
        words("<DETAIL_CAPTION>")
