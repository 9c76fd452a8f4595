"""The tokenizer of a model: BART's bytes in pairs, and tokens for places and tasks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from inference_models import InvalidCard, InvalidWeights
from inference_models.strict_json import parse

TOKENIZER = "tokenizer.json"
VOCABULARY = ("vocab.json", "merges.txt")
ADDED = "added_tokens.json"

FILES = (TOKENIZER, *VOCABULARY, ADDED)
"""Files of a folder that a tokenizer may be read from."""

_LARGEST = 64_000_000  # bytes
_ENDS = ("<s>", "</s>", "<pad>")
_PLACES = ("<loc_0>", "<loc_999>")


@attrs.frozen(eq=False)
class Tokens:
    """Texts to numbers and back; `start`, `end` and `pad` are tokens of their own."""

    tokenizer: Any
    start: int
    end: int
    pad: int

    @classmethod
    def read(cls, folder: Path) -> Tokens:
        """The tokenizer of a model's folder.

        Raises `InvalidWeights` if its files are missing, damaged or another model's.
        """
        path = folder / TOKENIZER
        if path.is_file():
            tokenizer = _made(path, lambda: Tokenizer.from_str(_text(path)))
        else:
            path = folder / VOCABULARY[0]
            tokenizer = _made(path, lambda: _of_vocabulary(folder))
        missing = [t for t in (*_ENDS, *_PLACES) if tokenizer.token_to_id(t) is None]
        if missing:
            raise InvalidWeights(
                f"'{path}' has no token {missing[0]!r}; it is of another model than "
                "Florence-2"
            )
        return cls(tokenizer, *(tokenizer.token_to_id(token) for token in _ENDS))

    def encode(self, words: str) -> list[int]:
        """A text's tokens, between those that begin and end it."""
        found = self.tokenizer.encode(words, add_special_tokens=False)
        return [self.start, *found.ids, self.end]

    def batch(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of several texts, and 1 where they are: both int64 (B, L)."""
        rows = [self.encode(text) for text in texts]
        longest = max(map(len, rows), default=0)
        tokens = np.full((len(rows), longest), self.pad, np.int64)
        mask = np.zeros_like(tokens)
        for number, row in enumerate(rows):
            tokens[number, : len(row)] = row
            mask[number, : len(row)] = 1
        return tokens, mask

    def decode(self, tokens: Iterable[int], special: bool = False) -> str:
        """The text of tokens; with `special`, with those that begin, end and pad it."""
        left_out = () if special else (self.start, self.end, self.pad)
        ids = [int(token) for token in tokens if token not in left_out]
        text: str = self.tokenizer.decode(ids, skip_special_tokens=False)
        return text


class Stream:
    """A text that comes token by token, in pieces of whole characters."""

    def __init__(self, tokens: Tokens, special: bool = False) -> None:
        self._tokens = tokens
        self._special = special
        self._ids: list[int] = []
        self._shown = 0

    def push(self, token: int) -> str:
        """What is new of the text; nothing before a character's last byte came."""
        self._ids.append(token)
        text = self._tokens.decode(self._ids, self._special)
        if text.endswith("\ufffd"):
            return ""
        new = text[self._shown :]
        self._shown = len(text)
        return new


def _text(path: Path) -> str:
    if not path.is_file():
        raise InvalidWeights(
            f"{str(path.parent)!r} has neither {TOKENIZER} nor "
            f"{' and '.join(VOCABULARY)}; fetch all files of the model"
        )
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise InvalidWeights(f"'{path}' is larger than any tokenizer: {_LARGEST} bytes")
    return content.decode("utf-8")


def _made(path: Path, make: Any) -> Any:
    """A tokenizer; its library raises plain exceptions for what it cannot read."""
    try:
        return make()
    except InvalidWeights:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0][:200]
        raise InvalidWeights(
            f"'{path}' cannot be read as a tokenizer: {reason}; fetch it again"
        ) from error


def _of_vocabulary(folder: Path) -> Any:
    """The tokenizer of the two files that BART's was first written to."""
    vocabulary = _numbers(folder / VOCABULARY[0])
    lines = _text(folder / VOCABULARY[1]).split("\n")
    pairs = [line.split(" ") for line in lines if line and line[0] != "#"]
    merges = [(pair[0], pair[1]) for pair in pairs]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    added = _numbers(folder / ADDED) if (folder / ADDED).is_file() else {}
    named = [*_ENDS, "<unk>", "<mask>", *sorted(added, key=lambda name: added[name])]
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in named])
    wrong = [n for n, number in added.items() if tokenizer.token_to_id(n) != number]
    if wrong:
        raise InvalidWeights(
            f"'{folder / ADDED}' gives {wrong[0]!r} a number that does not follow the "
            "vocabulary; fetch it again"
        )
    return tokenizer


def _numbers(path: Path) -> dict[str, int]:
    try:
        found = parse(_text(path).encode(), f"'{path}'", _LARGEST).data
    except InvalidCard as error:
        raise InvalidWeights(str(error)) from error
    if not all(type(number) is int for number in found.values()):
        raise InvalidWeights(f"'{path}' is no list of tokens; fetch it again")
    return dict(found)
