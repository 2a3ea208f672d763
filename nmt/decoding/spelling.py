"""Prefixes in tokens and bytes. Without Keras, which an export for LiteRT translates without.

V tokens in the vocabulary, U bytes of its longest token, rounded up to words of four.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nmt.data.tokenizer import UNK_ID, Tokenizer

SPACE = "▁".encode()
# Largest number of tokens at the end of a prefix that the model chooses itself: text without spaces has no last word.
MAX_OPEN_TOKENS = 12
WORD_BYTES = 4
MAX_PHRASE_TOKENS = 16
"""Tokens of a required phrase, at most."""


@dataclass(frozen=True)
class Prefix:
    """The beginning of a translation."""

    text: str = ""
    ids: Sequence[int] = ()
    """Tokens that the translation begins with."""
    ending: bytes = b""
    """Bytes with which the next tokens begin: the last word, with ▁ for a space."""
    decoded: str = ""
    """Decoded text of both, which may differ from `text` in spaces and forms of characters."""

    def join(self, decoded: str) -> str:
        """Returns a text that begins with the prefix, letter by letter, given that of the tokens of a translation."""
        return self.text + decoded[len(self.decoded) :]


class Spellings:
    """The bytes of all tokens.

    Args:
        tokens: the bytes of each token; none for special tokens.
    """

    def __init__(self, tokens: Sequence[bytes]):
        self.tokens = tokens

    @cached_property
    def sizes(self) -> np.ndarray:
        """int32 [V], number of bytes."""
        return np.array([len(token) for token in self.tokens], "int32")

    @cached_property
    def bytes(self) -> np.ndarray:
        """int32 [V, U], padded with 0."""
        width = max(WORD_BYTES, -int(self.sizes.max()) // WORD_BYTES * -WORD_BYTES)
        return np.array([[*token, *bytes(width - len(token))] for token in self.tokens], "int32")


def read_prefix(text: str, tokenizer: Tokenizer, spellings: Spellings) -> Prefix:
    """Divides a prefix into tokens and an ending.

    `nmt.exporting.demands.split_prefixes` does the same in TensorFlow operations.
    """
    bare = text.rstrip()
    [ids] = tokenizer.encode([bare])
    if not ids:
        return Prefix(text)
    start = len(ids)
    if bare == text:
        start = max(0, start - MAX_OPEN_TOKENS)
        words = [n for n, one in enumerate(ids) if spellings.tokens[one].startswith(SPACE)]
        unknown = [n + 1 for n, one in enumerate(ids) if one == UNK_ID]  # unk spells nothing that could be compared
        start = max(start, *words[-1:], *unknown[-1:], 0)
    ending = b"".join(spellings.tokens[one] for one in ids[start:]) if bare == text else SPACE
    decoded = tokenizer.decode([ids])[0] + ("" if bare == text else " ")
    return Prefix(text, ids[:start], ending, decoded)
