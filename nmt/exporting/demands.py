"""Prefixes and phrases in the graph of an export: what `nmt.translators.demands` does in Python, in TensorFlow.

N texts of a request, C phrases per text, T tokens per phrase, U bytes of the longest token.
"""

import sys
from typing import Any, NamedTuple

import numpy as np

from nmt.data.tokenizer import EOS_ID, UNK_ID, Tokenizer
from nmt.decoding.beam_search import Hypotheses
from nmt.decoding.prefix import Prefixes
from nmt.decoding.spelling import MAX_OPEN_TOKENS, MAX_PHRASE_TOKENS, SPACE, Spellings
from nmt.process import silence_stderr
from nmt.translators.sentences import IS_UNSPACED

with silence_stderr():
    import tensorflow as tf

# What Python considers blank, which is more than RE2's \s.
BLANK = "[" + "".join(chr(code) for code in range(sys.maxunicode) if chr(code).isspace()) + "]"
SEPARATOR = "\t"
"""What separates the phrases of a text."""


class SplitPrefixes(NamedTuple):
    """Prefixes of texts."""

    texts: Any
    """string [N], as they were given."""
    tokens: Prefixes
    decoded: Any
    """string [N], decoded text of the tokens."""

    def join(self, decoded: Any) -> Any:
        """Returns texts that begin with the prefixes, string [N, K], given those of the tokens of translations."""
        length = tf.strings.length(self.decoded, unit="UTF8_CHAR")[:, None]
        whole = tf.strings.length(decoded, unit="UTF8_CHAR")
        start = tf.minimum(length, whole)
        return self.texts[:, None] + tf.strings.substr(decoded, start, whole - start, unit="UTF8_CHAR")

    def select(self, rows: Any) -> "SplitPrefixes":
        """Returns the prefixes with these numbers."""
        return tf.nest.map_structure(lambda x: tf.gather(x, rows), self)


def split_prefixes(text: Any, tokenizer: Any, spellings: Spellings) -> SplitPrefixes:
    """Divides prefixes into tokens and endings; see `nmt.decoding.spelling.read_prefix`.

    Args:
        text: string [N], valid UTF-8.
        tokenizer: of tensorflow-text.
        spellings: of its tokens.
    """
    bare = tf.strings.regex_replace(text, BLANK + r"+\z", "", replace_global=False)
    rows = tokenizer.tokenize(bare)
    lengths = tf.cast(rows.row_lengths(), tf.int32)
    ids = rows.to_tensor(shape=[None, None])
    places = tf.range(tf.shape(ids)[1])
    is_token = places < lengths[:, None]
    starts_word = np.array([token.startswith(SPACE) for token in spellings.tokens])
    word = tf.where(is_token & tf.gather(starts_word, ids), places, 0)
    unknown = tf.where(is_token & tf.equal(ids, UNK_ID), places + 1, 0)
    start = tf.maximum(lengths - MAX_OPEN_TOKENS, 0)
    start = tf.maximum(start, _get_last(tf.maximum(word, unknown)))
    is_open = tf.equal(bare, text)
    start = tf.where(is_open, start, lengths)
    is_blank = tf.equal(lengths, 0)
    decoded = tokenizer.detokenize(rows) + tf.where(is_open | is_blank, "", " ")
    # The bytes of the last tokens, or those of a space, without the padding between them.
    tail = tf.where((is_token & (places >= start[:, None]))[..., None], tf.gather(spellings.bytes, ids), 0)
    tail = tf.reshape(tail, [tf.shape(ids)[0], tf.shape(ids)[1] * spellings.bytes.shape[1]])
    space = tf.where((is_open | is_blank)[:, None], 0, np.array([[*SPACE]], "int32"))
    ending = tf.concat([space, tail], axis=1)
    tokens = Prefixes(
        _as_matrix(tf.RaggedTensor.from_tensor(ids, start)), _as_matrix(tf.ragged.boolean_mask(ending, ending != 0))
    )
    return SplitPrefixes(text, tokens, decoded)


def encode_phrases(text: Any, tokenizer: Any, python_tokenizer: Tokenizer) -> Any:
    """Returns the tokens of phrases, int32 [N, C * T], padded with 0; see `nmt.translators.demands.encode_phrase`.

    Args:
        text: string [N], valid UTF-8, the phrases of each text between separators.
        tokenizer: of tensorflow-text.
        python_tokenizer: the same.
    """
    phrases = tf.strings.split(text, SEPARATOR)
    flat = tf.strings.strip(phrases.flat_values)
    ids = tokenizer.tokenize(flat)
    is_space = np.array([python_tokenizer.get_token(one) == "▁" for one in range(python_tokenizer.vocabulary_size)])
    first = ids[:, :1].to_tensor(default_value=EOS_ID, shape=[None, 1])[:, 0]
    starts = tf.cast(
        tf.gather(is_space, first) & tf.strings.regex_full_match(flat, IS_UNSPACED.pattern + ".*"), tf.int32
    )
    lengths = tf.cast(ids.row_lengths(), tf.int32) - starts
    most = f"a phrase has more than {MAX_PHRASE_TOKENS} tokens"
    with tf.control_dependencies([tf.debugging.assert_less_equal(lengths, MAX_PHRASE_TOKENS, most)]):
        wide = ids.to_tensor(shape=[None, MAX_PHRASE_TOKENS + 1])
    narrow = tf.where(tf.equal(starts, 1)[:, None], wide[:, 1:], wide[:, :-1])
    # What the tokenizer cannot spell would be written as ⁇.
    narrow = tf.where(tf.reduce_any(tf.equal(narrow, UNK_ID), axis=1, keepdims=True), 0, narrow)
    rows = tf.RaggedTensor.from_row_splits(narrow, phrases.row_splits, validate=False).to_tensor()
    rows = tf.pad(rows, [[0, 0], [0, 1], [0, 0]])  # so that there is one phrase at least, an empty one
    return tf.reshape(rows, [tf.shape(rows)[0], tf.shape(rows)[1] * MAX_PHRASE_TOKENS])


def _as_matrix(rows: Any) -> Any:
    """Returns ragged rows padded with 0, int32 [N, at least 1]."""
    return tf.pad(rows.to_tensor(shape=[None, None]), [[0, 0], [0, 1]])


def _get_last(places: Any) -> Any:
    """Returns the maximum of each row, int32 [N, L] -> [N]; 0 of rows without any."""
    return tf.reduce_max(tf.pad(places, [[0, 0], [0, 1]]), axis=1)


class Alternatives(NamedTuple):
    """The n most probable alternatives for the next word after a prefix, of each text."""

    texts: Any
    """string [N, n], "" in columns without one."""
    probabilities: Any
    """float32 [N, n]; 0 in columns without one."""
    ids: Any
    """int32 [N, n, L], the tokens of the texts, padded with 0."""
    is_open: Any
    """bool [N, n], whether a translation can continue after it."""
    exists: Any
    """bool [N, n]."""


def rank_alternatives(found: Hypotheses, prefixes: SplitPrefixes, detokenize: Any, n: int) -> Alternatives:
    """Returns the n most probable texts; see `nmt.translators.candidates.rank_alternatives`.

    Args:
        found: K slots per text, of a search for what comes next.
        prefixes: of the texts.
        detokenize: from ragged ids to strings.
        n: at most K.
    """
    num_slots, num_steps = found.ids.shape[1], tf.shape(found.ids)[2]
    lengths = found.lengths - tf.cast(found.finished, tf.int32)
    ids = tf.where(tf.sequence_mask(lengths, num_steps), found.ids, 0)
    rows = tf.RaggedTensor.from_tensor(tf.reshape(ids, [-1, num_steps]), tf.reshape(lengths, [-1]))
    texts = prefixes.join(tf.reshape(detokenize(rows), [-1, num_slots]))
    num_ids = tf.reduce_sum(tf.cast(prefixes.tokens.ids != 0, tf.int32), axis=1)
    is_open = tf.reduce_any(prefixes.tokens.ending != 0, axis=1)[:, None] | (lengths > num_ids[:, None])
    same = tf.equal(texts[:, :, None], texts[:, None]) & tf.equal(is_open[:, :, None], is_open[:, None])
    same &= found.exists[:, None]
    probabilities = tf.exp(found.log_probs)
    totals = tf.reduce_sum(tf.where(same, probabilities[:, None], 0.0), axis=2)
    is_new = found.exists & ~tf.reduce_any(same & np.tri(num_slots, k=-1, dtype=bool), axis=2)
    is_new &= ~tf.strings.regex_full_match(texts, "(?s).*\ufffd")  # a part of a character
    totals, slots = tf.math.top_k(tf.where(is_new, totals, -1.0), n)
    exists, texts, ids, is_open = (tf.gather(x, slots, batch_dims=1) for x in (is_new, texts, ids, is_open))
    return Alternatives(tf.where(exists, texts, ""), tf.where(exists, totals, 0.0), ids, is_open, exists)
