"""BART's real vocabulary, out of the files that blingfire has for RoBERTa and GPT-2.

Both models split words as GPT-2 does, and BART's tokens have RoBERTa's numbers. The
files have the bytes of each token by its number; GPT-2's numbers are the order in which
pairs were joined, which is all that its merges are.
"""

from __future__ import annotations

import struct
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import RobertaProcessing

from .florence_folders import MARKS, MORE_MARKS

SIZES = {"gpt2": 50_257, "roberta": 50_265}
_BYTES = 256
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")


def blingfire() -> Path | None:
    """Where the package lies, which is not imported: it loads a library."""
    spec = find_spec("blingfire")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def bart(folder: Path) -> Tokenizer:
    """Its tokenizer, with the tokens that Florence-2 adds in their published order."""
    written = _written_as()
    merges = list(_merges(_tokens(folder, "gpt2")))
    tokens = _tokens(folder, "roberta")
    names = [_name(token, written) for token in tokens]
    for place, byte in zip(_repeated(tokens), range(4), strict=True):
        names[place] = written[byte]
    vocabulary = {name: number for number, name in enumerate(names[:-1])}
    pairs = [(_name(a, written), _name(b, written)) for a, b in merges]
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(_SPECIAL))
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    places = [f"<loc_{number}>" for number in range(1000)]
    added = [*MARKS, *places, *MORE_MARKS]
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in added])
    tokenizer.post_processor = RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    return tokenizer


def _tokens(folder: Path, model: str) -> list[bytes]:
    """A model's tokens as bytes, by number.

    The file has a header, how many tokens there are, where each begins and the last one
    ends, and then all of them.
    """
    content = (folder / f"{model}.i2w").read_bytes()
    count = SIZES[model]
    words = struct.unpack_from(f"<{len(content) // 4}I", content)
    first = words.index(count) + 1
    begins = words[first : first + count + 1]
    texts = content[4 * (first + count + 1) :]
    return [texts[start:end] for start, end in pairwise(begins)]


def _repeated(tokens: list[bytes]) -> list[int]:
    """Where bytes 0 to 3 are, which the file writes as blanks, as it does the first.

    Nothing tells which is which; no text has them.
    """
    return [number for number, token in enumerate(tokens) if token == b" "][1:]


def _merges(tokens: list[bytes]) -> list[tuple[bytes, bytes]]:
    """Pairs in the order in which they are joined; each makes one token."""
    ranks: dict[tuple[bytes, bytes], int] = {}
    for token in tokens[_BYTES:-1]:  # the last one ends texts
        pieces = [bytes([byte]) for byte in token]
        while len(pieces) > 2:
            best = min(pairwise(pieces), key=lambda pair: ranks.get(pair, len(tokens)))
            pieces = list(_joined(pieces, best))
        ranks[pieces[0], pieces[1]] = len(ranks)
    return list(ranks)


def _joined(pieces: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    joined: list[bytes] = []
    place = 0
    while place < len(pieces):
        size = 2 if tuple(pieces[place : place + 2]) == pair else 1
        joined.append(b"".join(pieces[place : place + size]))
        place += size
    return joined


def _written_as() -> list[str]:
    """The letter that stands for each byte: its own if it is seen, else a new one."""
    seen = {*range(33, 127), *range(161, 173), *range(174, 256)}
    unseen = [byte for byte in range(_BYTES) if byte not in seen]
    return [
        chr(byte if byte in seen else _BYTES + unseen.index(byte))
        for byte in range(_BYTES)
    ]


def _name(token: bytes, written: list[str]) -> str:
    return "".join(written[byte] for byte in token)
