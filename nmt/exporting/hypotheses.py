"""In the graph of an export: the hypotheses that a request gets; in Python, `nmt.translators.candidates` chooses them.

Shapes: N texts of a request, n hypotheses per text, S source tokens and T target tokens, EOS included.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nmt.data.tokenizer import EOS_ID
from nmt.decoding.beam_search import IMPOSSIBLE, Hypotheses
from nmt.process import silence_stderr
from nmt.translators.checks import LEAST_ATTENTION

with silence_stderr():
    import tensorflow as tf


class NBest(NamedTuple):
    """The best hypotheses of each text, no two of which have the same text, or samples."""

    texts: Any
    """string [N, n]; "" in columns without a hypothesis."""
    scores: Any
    """float32 [N, n]; -1e9 in columns without a hypothesis."""
    log_probs: Any
    """float32 [N, n]; -1e9 in columns without a hypothesis."""
    counts: Any
    """int32 [N], the number of hypotheses, at least 1."""
    ids: Any
    """int32 [N, n, T], each ended by EOS unless the length limit cut it off, and padded with 0."""


def make_blank(num_texts: Any, n_best: int, num_steps: Any) -> NBest:
    """Returns the hypotheses of blank texts: one each, "", with score 0."""
    scores = tf.tile(tf.where(tf.range(n_best) == 0, 0.0, IMPOSSIBLE)[None], [num_texts, 1])
    return NBest(
        texts=tf.fill([num_texts, n_best], ""),
        scores=scores,
        log_probs=scores,
        counts=tf.ones([num_texts], tf.int32),
        ids=tf.zeros([num_texts, n_best, num_steps], tf.int32),
    )


def drop_duplicates(found: Hypotheses, detokenize: Callable, n_best: int, *, is_sampled: bool = False) -> NBest:
    """Returns the first hypotheses with different texts, since several segmentations may spell the same text.

    Args:
        found: K slots per sentence, best first.
        detokenize: from ragged ids to strings.
        n_best: at most K.
    """
    beam_size, num_steps = found.ids.shape[1], tf.shape(found.ids)[2]
    ids = tf.where(tf.sequence_mask(found.lengths, num_steps), found.ids, 0)
    rows = tf.RaggedTensor.from_tensor(tf.reshape(ids, [-1, num_steps]), tf.reshape(found.lengths, [-1]))
    texts = tf.reshape(detokenize(rows), [-1, beam_size])
    same = tf.equal(texts[:, :, None], texts[:, None, :]) & found.exists[:, None, :]
    better = np.tri(beam_size, k=-1, dtype=bool)
    is_new = found.exists if is_sampled else found.exists & ~tf.reduce_any(same & better, axis=2)
    # A stable sort moves the new ones to the front and keeps their order.
    slots = tf.argsort(tf.cast(~is_new, tf.int32), axis=1, stable=True)[:, :n_best]
    columns = (tf.gather(x, slots, batch_dims=1) for x in (is_new, texts, found.scores, found.log_probs, ids))
    return _blank_others(*columns)


def put_first(best: NBest, others: NBest, n_best: int) -> NBest:
    """Returns the n best of each text, beginning with the best one; others must not score above it.

    Args:
        best: one hypothesis per text.
        others: K hypotheses per text, best first.
        n_best: at most K + 1.
    """
    # `nmt.translators.candidates.put_first` does the same in Python.
    ranks = tf.range(others.texts.shape[1])
    is_other = (ranks < others.counts[:, None]) & (others.texts != best.texts) & (others.scores <= best.scores)
    is_kept = tf.concat([best.counts[:, None] > 0, is_other], axis=1)
    slots = tf.argsort(tf.cast(~is_kept, tf.int32), axis=1, stable=True)[:, :n_best]
    joined = (
        tf.concat([getattr(best, name), getattr(others, name)], axis=1)
        for name in ("texts", "scores", "log_probs", "ids")
    )
    return _blank_others(*(tf.gather(x, slots, batch_dims=1) for x in (is_kept, *joined)))


def find_finished(best: NBest) -> Any:
    """Returns which hypotheses exist and were not cut off, bool [N, n]. The translation of a blank text has no EOS."""
    has_end = tf.reduce_any(tf.equal(best.ids, EOS_ID), axis=2) | ~tf.reduce_any(best.ids != 0, axis=2)
    return has_end & (best.scores > IMPOSSIBLE / 2)


def measure_coverage(attention: Any, source: Any, target: Any) -> Any:
    """Returns the share of source tokens that received attention: float32 [N, n].

    Args:
        attention: float32 [N, n, T, S].
        source: int32 [N, S], each row ended by EOS, which does not count, and padded with 0.
        target: int32 [N, n, T], whose EOS does not count either.
    """
    is_token = (source != 0) & (source != EOS_ID)
    received = tf.reduce_sum(tf.where((target != EOS_ID)[..., None], attention, 0.0), axis=2)  # [N, n, S]
    num_covered = tf.reduce_sum(tf.cast(is_token[:, None] & (received >= LEAST_ATTENTION), tf.float32), axis=2)
    num_tokens = tf.reduce_sum(tf.cast(is_token, tf.float32), axis=1)[:, None]
    return tf.where(tf.equal(num_tokens, 0.0), 1.0, num_covered / tf.maximum(num_tokens, 1.0))


def _blank_others(is_kept: Any, texts: Any, scores: Any, log_probs: Any, ids: Any) -> NBest:
    """Returns hypotheses [N, n, ...]; those that are not kept, which are in the last columns, become blank."""
    return NBest(
        tf.where(is_kept, texts, ""),
        tf.where(is_kept, scores, IMPOSSIBLE),
        tf.where(is_kept, log_probs, IMPOSSIBLE),
        tf.reduce_sum(tf.cast(is_kept, tf.int32), axis=1),
        tf.where(is_kept[:, :, None], ids, 0),
    )


def count_tokens(ids: Any) -> Any:
    """Returns the number of tokens before the padding, int32 [...], of ids [..., T]."""
    return tf.reduce_sum(tf.cast(ids != 0, tf.int32), axis=-1)
