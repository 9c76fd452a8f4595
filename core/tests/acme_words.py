"""A third party's plugin: a model that says of grey pictures how grey they are.

Its graph "vision" makes the mean of each picture, and "text" doubles it, so that tests
can say what an answer is, and see how often and with how much each graph was run.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from inference_models import (
    Architecture,
    Artifact,
    Backend,
    File,
    ModelCard,
    Operations,
    Session,
    TensorSpec,
    VisionLanguageModel,
    hookimpl,
)

WEIGHTS = Path(__file__).with_name("acme_words.txt")
PICTURES = TensorSpec("float32", ("batch", 3, 2, 2))
LEVELS = TensorSpec("float32", ("batch",))

runs: list[tuple[str, int]] = []
"""Each graph that ran, and with how many rows."""
joins: list[list[int]] = []
"""The rows of the arrays that each call of `Operations.join` had."""


class Vision(Session):
    inputs, outputs = {"pixels": PICTURES}, {"levels": LEVELS}

    def __call__(self, **inputs):
        runs.append(("vision", len(inputs["pixels"])))
        return {"levels": inputs["pixels"].mean(axis=(1, 2, 3))}


class Text(Session):
    inputs, outputs = {"levels": LEVELS}, {"doubled": LEVELS}

    def __call__(self, **inputs):
        runs.append(("text", len(inputs["levels"])))
        return {"doubled": 2 * inputs["levels"]}


class Counted(Operations):
    """The host's operations, which write down what they join."""

    def join(self, arrays):
        joins.append([len(array) for array in arrays])
        return super().join(arrays)


class WordsBackend(Backend):
    name, formats = "acme-words", ("words",)

    def devices(self):
        return ["cpu"]

    def open(self, bundle, architecture, plan):
        return {"vision": Vision(), "text": Text()}

    def operations(self, device):
        return Counted()


@attrs.frozen
class WordsOptions:
    prompt: str | list[str] = "how grey?"
    loud: bool = False


class Words(Architecture):
    """Answers each prompt with itself and twice the level of its picture."""

    name = "acme-words"
    Options = WordsOptions
    image_input = ("vision", "pixels")

    @classmethod
    def cards(cls):
        yield card(cls.name)

    def encode(self, sessions, inputs):
        return inputs if "levels" in inputs else sessions["vision"](**inputs)

    def forward(self, sessions, inputs, options, ops):
        return sessions["text"](**self.encode(sessions, inputs))

    def postprocess(self, outputs, frames, options, ops):
        doubled = ops.host(outputs["doubled"])
        alike = isinstance(options.prompt, str)
        prompts = [options.prompt] * len(doubled) if alike else options.prompt
        pairs = zip(prompts, doubled, strict=True)
        answers = [f"{prompt} {round(float(value))}" for prompt, value in pairs]
        return [answer.upper() for answer in answers] if options.loud else answers


class OwnModel(VisionLanguageModel):
    """What users hold of `Poems`."""

    def poem(self, image):
        return "\n".join(self.prompt(image, ["roses", "violets"]))


class Poems(Words):
    name = "acme-poems"
    Model = OwnModel


def card(name):
    """A card of the weights beside this module."""
    artifact = Artifact(
        format="words",
        graphs={"vision": WEIGHTS.name, "text": WEIGHTS.name},
        files=(File(WEIGHTS.name, (WEIGHTS.as_uri(),)),),
    )
    return ModelCard(
        id=name,
        architecture=name,
        task="vision-language",
        artifacts=(artifact,),
        config={"preprocessing": {"size": [2, 2], "scale": 1.0}},
        license="MIT",
    )


@hookimpl
def backends():
    return [WordsBackend]


@hookimpl
def architectures():
    return [Words, Poems]
