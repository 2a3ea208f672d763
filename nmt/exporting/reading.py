"""Text as a model reads it, whatever bytes a client sends.

N texts, L pieces of the longest, EOS counted.
"""

import sys
from typing import Any, NamedTuple

from nmt.data.tokenizer import EOS_ID
from nmt.exporting.parts import longest
from nmt.process import silenced

with silenced():
    import tensorflow as tf

# Python's idea of blank, which is wider than RE2's \s.
BLANK = "[" + "".join(chr(code) for code in range(sys.maxunicode) if chr(code).isspace()) + "]*"


class Pieces(NamedTuple):
    """Texts in pieces."""

    ids: Any
    """int32 [N, L], each row ended by EOS and padded with 0."""
    lengths: Any
    """int32 [N], EOS counted."""
    truncated: Any
    """bool [N], whether the end of the text was cut off."""


def read(text: Any, tokenizer: Any, *, max_characters: int, max_pieces: int) -> Pieces:
    """Divides texts into pieces.

    Args:
        text: string [N]; bytes that are no UTF-8 come to be U+FFFD.
        tokenizer: tensorflow-text's.
        max_characters: read of each; the rest is cut off.
        max_pieces: kept of each, EOS not counted; the rest is cut off.
    """
    text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
    start = tf.strings.substr(text, 0, max_characters, unit="UTF8_CHAR")
    pieces = tokenizer.tokenize(start)
    kept = pieces[:, :max_pieces]
    cut = (tf.strings.length(text) > tf.strings.length(start)) | (pieces.row_lengths() > kept.row_lengths())
    lengths = tf.cast(kept.row_lengths(), tf.int32) + 1
    ends = tf.fill([tf.size(text), 1], EOS_ID)
    # Of a stated width, or a request without a text would fail.
    ids = tf.concat([kept, ends], axis=1).to_tensor(shape=[None, max_pieces + 1])
    return Pieces(ids[:, : longest(lengths)], lengths, cut)


def without_blank(pieces: Pieces, text: Any) -> Pieces:
    """Takes out texts of white space alone, which come to be of length 0, and not truncated."""
    blank = tf.strings.regex_full_match(text, BLANK)
    lengths = tf.where(blank | tf.equal(pieces.lengths, 1), 0, pieces.lengths)
    ids = tf.where(tf.equal(lengths, 0)[:, None], 0, pieces.ids)
    return Pieces(ids[:, : longest(lengths)], lengths, pieces.truncated & ~blank)
