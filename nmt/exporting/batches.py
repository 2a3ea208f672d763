"""In the graph of an export: texts to tokens, and batches of texts of similar length.

Shapes: N texts of a request, of which B are translated at once; L tokens of a text, EOS included.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nmt.backend import tree
from nmt.data.tokenizer import EOS_ID, Tokenizer
from nmt.exporting.demands import BLANK
from nmt.process import silence_stderr

with silence_stderr():
    import tensorflow as tf

# Texts with at most this many tokens share a batch. In a batch with longer texts, none is over twice as long as the
# shortest, so that padding at most doubles the work.
SHORT_TEXT = 32


class Tokens(NamedTuple):
    """Tokens of texts."""

    ids: Any
    """int32 [N, L], each row ended by EOS and padded with 0."""
    lengths: Any
    """int32 [N], EOS included."""
    truncated: Any
    """bool [N], whether the end of the text was cut off."""


def find_continuations(tokenizer: Tokenizer) -> np.ndarray:
    """Returns which ids are bytes that continue a character of UTF-8, bool [V]."""
    tokens = (tokenizer.get_token(one) for one in range(tokenizer.vocabulary_size))
    return np.array([re.fullmatch("<0x[89AB][0-9A-F]>", token) is not None for token in tokens])


def tokenize(text: Any, tokenizer: Any, *, max_characters: int, max_tokens: int, continuations: np.ndarray) -> Tokens:
    """Tokenizes texts, and truncates those that are too long, never inside a character.

    Args:
        text: string [N]; U+FFFD replaces invalid UTF-8.
        tokenizer: of tensorflow-text.
        max_characters: read of each text.
        max_tokens: kept of each text, without EOS.
        continuations: see `find_continuations`.
    """
    text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
    beginning = tf.strings.substr(text, 0, max_characters, unit="UTF8_CHAR")
    tokens = tokenizer.tokenize(beginning)
    # One more than is kept: if that one continues a character, so do those before it, back to its first byte.
    ids = tokens.to_tensor(shape=[None, max_tokens + 1])
    last_start = tf.reduce_max(tf.where(tf.gather(continuations, ids), 0, tf.range(max_tokens + 1)), axis=1)
    kept = tf.RaggedTensor.from_tensor(ids, tf.minimum(tf.cast(tokens.row_lengths(), tf.int32), last_start))
    truncated = (tf.strings.length(text) > tf.strings.length(beginning)) | (tokens.row_lengths() > kept.row_lengths())
    lengths = tf.cast(kept.row_lengths(), tf.int32) + 1
    ends = tf.fill([tf.size(text), 1], EOS_ID)
    # The width must be given, because without it a request of no texts fails.
    ids = tf.concat([kept, ends], axis=1).to_tensor(shape=[None, max_tokens + 1])
    return Tokens(ids[:, : get_longest(lengths)], lengths, truncated)


def drop_blank(tokens: Tokens, text: Any) -> Tokens:
    """Gives blank texts the length 0, and marks none of them as truncated."""
    blank = tf.strings.regex_full_match(text, BLANK + "*")
    # Texts whose characters the tokenizer all removes, such as control characters, have EOS alone.
    lengths = tf.where(blank | tf.equal(tokens.lengths, 1), 0, tokens.lengths)
    ids = tf.where(tf.equal(lengths, 0)[:, None], 0, tokens.ids)
    return Tokens(ids[:, : get_longest(lengths)], lengths, tokens.truncated & ~blank)


def map_in_batches(function: Callable, results: Any, lengths: Any, *, max_batch: int, batch_tokens: int) -> Any:
    """Computes the results of rows in batches of similar lengths; rows of length 0 keep their initial results.

    Args:
        function: returns a nest of tensors [B, ...], given int32 [B], the indices of the rows.
        results: such a nest [N, ...], the initial results.
        lengths: int32 [N], in tokens.
        max_batch, batch_tokens: see `count_next_batch`.
    """
    order = tf.argsort(lengths, stable=True)
    sorted_lengths = tf.gather(lengths, order)

    def advance(start: Any, results: Any) -> tuple:
        size = count_next_batch(sorted_lengths[start:], max_batch=max_batch, batch_tokens=batch_tokens)
        rows = order[start : start + size]
        pairs = zip(tree.flatten(results), tree.flatten(function(rows)), strict=True)
        updated = [tf.tensor_scatter_nd_update(whole, rows[:, None], part) for whole, part in pairs]
        return start + size, tree.pack_sequence_as(results, updated)

    num_empty = tf.reduce_sum(tf.cast(tf.equal(lengths, 0), tf.int32))
    # One batch at a time: parallel iterations would need the memory of several.
    _, results = tf.while_loop(
        lambda start, _: start < tf.size(order), advance, (num_empty, results), parallel_iterations=1
    )
    return results


def count_next_batch(lengths: Any, *, max_batch: int, batch_tokens: int) -> Any:
    """Returns how many of the next texts to translate together, at least one.

    Args:
        lengths: int32 [at least 1], ascending, in tokens.
        max_batch: maximum number of texts.
        batch_tokens: maximum number of tokens, padding included, unless one text alone has more.
    """
    lengths = lengths[:max_batch]
    is_similar = lengths <= tf.maximum(SHORT_TEXT, 2 * lengths[0])
    fits = (tf.range(tf.size(lengths)) + 1) * lengths <= batch_tokens
    return tf.maximum(1, tf.reduce_sum(tf.cast(is_similar & fits, tf.int32)))


def gather_trimmed(ids: Any, lengths: Any, rows: Any) -> Any:
    """Returns rows [B] of ids [N, L], without the columns in which all of them are padding."""
    return tf.gather(ids, rows)[:, : get_longest(tf.gather(lengths, rows))]


def get_longest(lengths: Any) -> Any:
    """Returns the maximum of lengths of any shape, or 0 if there are none."""
    return tf.reduce_max(tf.concat([[0], tf.reshape(lengths, [-1])], axis=0))


def pad_to(x: Any, sizes: list) -> Any:
    """Pads the last axes of x with zeros to these sizes."""
    num_others = len(x.shape) - len(sizes)
    after = tf.concat([tf.zeros([num_others], tf.int32), tf.stack(sizes) - tf.shape(x)[num_others:]], axis=0)
    return tf.pad(x, tf.stack([tf.zeros_like(after), after], axis=1))
