"""The tokenizer of a model: BART's byte-level BPE, with added tokens for locations.

Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units",
arXiv:1508.07909; on bytes as in Radford et al., "Language Models are Unsupervised
Multitask Learners", 2019.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from inference_models import InvalidCard, InvalidOption, InvalidWeights
from inference_models.errors import first_line
from inference_models.strict_json import Node, parse

TOKENIZER = "tokenizer.json"
VOCABULARY = "vocab.json"
MERGES = "merges.txt"
ADDED = "added_tokens.json"
SETTINGS = "tokenizer_config.json"

FILES = (TOKENIZER, VOCABULARY, MERGES, ADDED, SETTINGS)
"""Files of a folder that a tokenizer may be read from."""

_LARGEST = 64_000_000  # bytes
_MOST_ADDED = 100_000
_ENDS = ("<s>", "</s>", "<pad>")
_IMAGE = "<image>"
_MASK = "<mask>"
_PLACES = tuple(f"<loc_{number}>" for number in range(1000))
_TRIAL = "A photo of 2 cats."
_CUT = "\ufffd"  # what stands for bytes that are no whole character


@attrs.frozen(eq=False)
class Tokens:
    """Texts to token ids and back.

    `start`, `end` and `pad` are the ids of `<s>`, `</s>` and `<pad>`.
    """

    tokenizer: Any
    start: int
    end: int
    pad: int

    @classmethod
    def read(cls, folder: Path) -> Tokens:
        """The tokenizer of a model's folder.

        Raises `InvalidWeights` if its files are missing, damaged or another model's.
        """
        path = _source(folder)
        tokenizer = _whole(path) if path.name == TOKENIZER else _of_parts(folder)
        wanted = (*_ENDS, *_PLACES)
        missing = [name for name in wanted if tokenizer.token_to_id(name) is None]
        if missing:
            raise InvalidWeights(
                f"'{path}' has no token {missing[0]!r}; it is of another model than "
                "Florence-2"
            )
        # A file may keep what its training cut and padded texts to.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return cls(tokenizer, *(tokenizer.token_to_id(name) for name in _ENDS))

    def encode(self, words: str) -> list[int]:
        """A text's tokens, between those that begin and end it.

        Raises `InvalidOption` for a text that is none in Unicode, and for "<image>",
        in whose places the model has the image's own features.
        """
        if _IMAGE in words:
            raise InvalidOption(
                f"prompt {words!r:.100} has {_IMAGE!r}, which stands for the picture "
                "itself; leave it out"
            )
        try:
            words.encode()
        except UnicodeEncodeError as error:
            raise InvalidOption(f"prompt {words!r:.100} is no text: {error}") from error
        found = self.tokenizer.encode(words, add_special_tokens=False)
        return [self.start, *found.ids, self.end]

    def batch(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of several texts, and 1 where they are: both int64 (B, L)."""
        rows = [self.encode(text) for text in texts]
        mask = padded([[1] * len(row) for row in rows], 0)
        return padded(rows, self.pad), mask

    def decode(self, tokens: Iterable[int], special: bool = False) -> str:
        """The text of tokens; with `special`, with those that begin, end and pad it."""
        left_out = () if special else (self.start, self.end, self.pad)
        ids = [int(token) for token in tokens if token not in left_out]
        text: str = self.tokenizer.decode(ids, skip_special_tokens=False)
        return text


def padded(rows: Sequence[Sequence[int] | np.ndarray], pad: int) -> np.ndarray:
    """Rows of several lengths as one array int64 (B, L), with `pad` behind each."""
    longest = max(map(len, rows), default=0)
    batch = np.full((len(rows), longest), pad, np.int64)
    for filled, row in zip(batch, rows, strict=True):
        filled[: len(row)] = row
    return batch


class Stream:
    """A text that comes token by token, in pieces of whole characters."""

    def __init__(self, tokens: Tokens, special: bool) -> None:
        self._tokens = tokens
        self._special = special
        self._held: list[int] = []

    def push(self, token: int) -> str:
        """What is new of the text; nothing before a character's last byte came."""
        self._held.append(token)
        text = self._tokens.decode(self._held, self._special)
        if text.endswith(_CUT):
            return ""
        self._held.clear()
        return text

    def rest(self) -> str:
        """What a text that ends amid a character has of it."""
        text = self._tokens.decode(self._held, self._special)
        self._held.clear()
        return text


def _source(folder: Path) -> Path:
    """The file to read first: the whole tokenizer, else its vocabulary."""
    whole, vocabulary = folder / TOKENIZER, folder / VOCABULARY
    if whole.is_file():
        return whole
    if vocabulary.is_file() and (folder / MERGES).is_file():
        return vocabulary
    raise InvalidWeights(
        f"'{folder}' has neither {TOKENIZER} nor {VOCABULARY} and {MERGES}; fetch all "
        "files of the model"
    )


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise InvalidWeights(f"'{path}' cannot be read: {error.strerror}") from error
    if len(content) > _LARGEST:
        raise InvalidWeights(f"'{path}' is larger than any tokenizer: {_LARGEST} bytes")
    return content


def _text(path: Path) -> str:
    try:
        return _content(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _damaged(path, error) from error


def _json(path: Path) -> Node:
    try:
        return parse(_content(path), f"'{path}'", _LARGEST)
    except InvalidCard as error:
        raise InvalidWeights(f"{error}; fetch it again") from error


def _damaged(path: Path, reason: object) -> InvalidWeights:
    line = first_line(reason, 200)
    return InvalidWeights(
        f"'{path}' cannot be read as a tokenizer: {line}; fetch it again"
    )


def _whole(path: Path) -> Any:
    """The tokenizer of one file, tried on a text: some damage shows only then."""
    text = _text(path)
    try:
        tokenizer = Tokenizer.from_str(text)
        tokenizer.decode(tokenizer.encode(_TRIAL, add_special_tokens=False).ids)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of Rust is no Exception
        raise _damaged(path, error) from error
    return tokenizer


def _of_parts(folder: Path) -> Any:
    """The tokenizer of a folder with `vocab.json` and `merges.txt`, the older form."""
    path = folder / VOCABULARY
    vocabulary, merges = _numbers(path), list(_merges(folder / MERGES))
    try:
        tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    except Exception as error:
        raise _damaged(path, error) from error
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    added = _added(folder)
    tokenizer.add_special_tokens([added[number] for number in sorted(added)])
    for number, token in added.items():
        if tokenizer.token_to_id(token.content) != number:
            name = token.content[:60]
            raise _damaged(path, f"{name!r} beside it is not its token {number}")
    return tokenizer


def _merges(path: Path) -> Iterator[tuple[str, str]]:
    """BPE's merges in order, a pair a line; the first line may name a version."""
    for number, line in enumerate(_text(path).split("\n")):
        pair = line.rstrip("\r").split(" ")
        if pair == [""] or (number == 0 and line.startswith("#version")):
            continue
        if len(pair) != 2:
            raise _damaged(path, f"line {number + 1} is no pair")
        yield pair[0], pair[1]


def _added(folder: Path) -> dict[int, AddedToken]:
    """Added tokens by id: the tokenizer looks for them before it splits a text."""
    settings = folder / SETTINGS
    if settings.is_file() and "added_tokens_decoder" in (found := _json(settings)).data:
        return _described(settings, found)
    path = folder / ADDED
    named = _numbers(path) if path.is_file() else {}
    known = _numbers(folder / VOCABULARY)
    ends = (*_ENDS, "<unk>", _MASK)
    named.update((name, known[name]) for name in ends if name in known)
    return {
        number: AddedToken(name, lstrip=name == _MASK, normalized=False, special=True)
        for name, number in named.items()
    }


def _described(path: Path, settings: Node) -> dict[int, AddedToken]:
    try:
        tokens = settings.node("added_tokens_decoder")
        if len(tokens.data) > _MOST_ADDED:
            raise tokens.wrong("tokens", f"are more than {_MOST_ADDED}")
        read = {key: tokens.node(key) for key in tokens.data}
        return {int(key): _read_token(node) for key, node in read.items()}
    except (InvalidCard, ValueError) as error:
        raise _damaged(path, error) from error


def _read_token(node: Node) -> AddedToken:
    return AddedToken(
        node.text("content"),
        lstrip=node.flag("lstrip"),
        rstrip=node.flag("rstrip"),
        single_word=node.flag("single_word"),
        normalized=False,
        special=True,
    )


def _numbers(path: Path) -> dict[str, int]:
    found = _json(path).data
    if not all(type(number) is int for number in found.values()):
        raise _damaged(path, "it holds more than tokens and their numbers")
    return dict(found)
