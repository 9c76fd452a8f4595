"""What Florence-2 was trained to do: its tasks, and the words that ask for each."""

from __future__ import annotations

import re
from typing import Literal

import attrs

from inference_models import InvalidOption
from inference_models.errors import did_you_mean

Answer = Literal["text", "boxes", "phrases", "regions", "polygons", "quads"]
"""What a text holds: only words, boxes with labels (or, where it draws them, polygons),
boxes of phrases of a caption, boxes without labels, polygons, or quads around words."""

_INPUT = "{input}"
_PHRASE = "a green car"
_REGION = "<loc_0><loc_0><loc_499><loc_499>"


@attrs.frozen
class Task:
    """A token that users write, the words it stands for, and the kind of answer."""

    token: str
    words: str
    answer: Answer

    @property
    def takes_input(self) -> bool:
        """Whether a text belongs behind the token: a phrase, or a region."""
        return _INPUT in self.words


_ALL = (
    Task("<CAPTION>", "What does the image describe?", "text"),
    Task(
        "<DETAILED_CAPTION>", "Describe in detail what is shown in the image.", "text"
    ),
    Task(
        "<MORE_DETAILED_CAPTION>",
        "Describe with a paragraph what is shown in the image.",
        "text",
    ),
    Task("<OCR>", "What is the text in the image?", "text"),
    Task("<OCR_WITH_REGION>", "What is the text in the image, with regions?", "quads"),
    Task("<OD>", "Locate the objects with category name in the image.", "boxes"),
    Task(
        "<DENSE_REGION_CAPTION>",
        "Locate the objects in the image, with their descriptions.",
        "boxes",
    ),
    Task("<REGION_PROPOSAL>", "Locate the region proposals in the image.", "regions"),
    Task("<OPEN_VOCABULARY_DETECTION>", "Locate {input} in the image.", "boxes"),
    Task(
        "<CAPTION_TO_PHRASE_GROUNDING>",
        "Locate the phrases in the caption: {input}",
        "phrases",
    ),
    Task(
        "<REFERRING_EXPRESSION_SEGMENTATION>",
        "Locate {input} in the image with mask",
        "polygons",
    ),
    Task(
        "<REGION_TO_SEGMENTATION>",
        "What is the polygon mask of region {input}",
        "polygons",
    ),
    Task("<REGION_TO_CATEGORY>", "What is the region {input}?", "text"),
    Task("<REGION_TO_DESCRIPTION>", "What does the region {input} describe?", "text"),
    Task("<REGION_TO_OCR>", "What text is in the region {input}?", "text"),
)

TASKS: dict[str, Task] = {task.token: task for task in _ALL}

WISH = "<MORE_DETAILED_CAPTION>"
"""The task of a free text that asks for a description."""

_SUBJECT = r"(the|this|that|an?) (image|picture|photo\w*|scene)"
_WISHES = (
    r"\b(describe|description|caption)\b",
    rf"\bwhat( is|.s) (shown |seen |visible )?(in|on) {_SUBJECT}",
    rf"\bwhat does {_SUBJECT} (show|depict|contain|describe)",
    r"\bwhat (do|can) you see\b",
    r"\bwhat( is|.s) (happening|going on)\b",
)
_WISHED = re.compile("|".join(_WISHES), re.IGNORECASE)
_TRAINED = re.compile(
    "|".join(re.escape(task.words).replace(r"\{input\}", ".+") for task in _ALL),
    re.DOTALL,
)
_TYPED = re.compile(r"<[A-Z][A-Z_]*>")


def find(prompt: str) -> Task | None:
    """The task whose token a prompt holds; None for a free text.

    Raises `InvalidOption` for several tokens, and for one that is no task's.
    """
    found = [task for task in _ALL if task.token in prompt]
    if len(found) > 1:
        tokens = " and ".join(task.token for task in found)
        raise InvalidOption(
            f"prompt {prompt!r:.200} has {tokens}; ask for one at a time"
        )
    typed = _TYPED.match(prompt.strip())
    if typed and not found:
        raise InvalidOption(
            f"there is no task {typed[0]!r}; tasks are {', '.join(TASKS)}"
            f"{did_you_mean(typed[0], TASKS)}"
        )
    return found[0] if found else None


def words(prompt: str) -> str:
    """What is tokenised for a prompt.

    A task's token stands for its words, with the text beside it where the task takes
    one: "<OD>", "<CAPTION_TO_PHRASE_GROUNDING>a green car". A free text that asks for a
    description becomes the words of `<MORE_DETAILED_CAPTION>`, as the model was trained
    on fixed phrases alone: one with "describe", "description" or "caption", "what is
    in" (or "on") or "what does … show" of an image, picture, photo or scene, "what do
    you see", "what is happening". Every other text is passed as it is, and so is one in
    the words of a task. Raises `InvalidOption` for a prompt that is empty, a task
    without the text it needs, and a text beside a task that takes none.
    """
    task = find(prompt)
    if task is not None:
        return _filled(task, prompt.replace(task.token, "").strip())
    text = prompt.strip()
    if not text:
        raise InvalidOption(
            "the prompt is empty; give a task such as '<OD>', or a text"
        )
    asks = _WISHED.search(text) and not _TRAINED.fullmatch(text)
    return TASKS[WISH].words if asks else prompt


def _filled(task: Task, given: str) -> str:
    if given and not task.takes_input:
        raise InvalidOption(
            f"{task.token} takes no text beside it, and {given!r:.200} is there; write "
            f"{task.token!r} alone"
        )
    if task.takes_input and not given:
        example = _REGION if "region" in task.words else _PHRASE
        raise InvalidOption(
            f"{task.token} needs a text behind it; write it as in "
            f"{task.token + example!r}"
        )
    return task.words.replace(_INPUT, given)
