"""What a search found, as texts that differ.

N texts, n hypotheses of each, T target pieces, EOS counted.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nmt.decoding.beam_search import IMPOSSIBLE, Hypotheses
from nmt.process import silenced

with silenced():
    import tensorflow as tf


class Found(NamedTuple):
    """The best hypotheses of each text, no two of them with the same text."""

    texts: Any
    """string [N, n]; "" beyond the hypotheses there are."""
    scores: Any
    """float32 [N, n], log_probs over the length penalty; -1e9 beyond the hypotheses there are."""
    log_probs: Any
    """float32 [N, n]."""
    counts: Any
    """int32 [N], how many hypotheses there are, at least one."""
    ids: Any
    """int32 [N, n, T], each ended by EOS, unless the length limit cut it off, and padded with 0."""


def distinct(found: Hypotheses, detokenize: Callable, num_best: int) -> Found:
    """The first hypotheses with different texts: several segmentations may spell one.

    Args:
        found: K slots a sentence, best first.
        detokenize: ragged ids to strings.
        num_best: at most K.
    """
    beam_size, num_steps = found.ids.shape[1], tf.shape(found.ids)[2]
    ids = tf.where(tf.sequence_mask(found.lengths, num_steps), found.ids, 0)
    rows = tf.RaggedTensor.from_tensor(tf.reshape(ids, [-1, num_steps]), tf.reshape(found.lengths, [-1]))
    texts = tf.reshape(detokenize(rows), [-1, beam_size])
    # Fewer hypotheses exist than slots where the vocabulary or the length limit is tiny.
    exists = found.log_probs > IMPOSSIBLE / 2
    same = tf.equal(texts[:, :, None], texts[:, None, :]) & exists[:, None, :]
    better = np.tri(beam_size, k=-1, dtype=bool)
    is_new = exists & ~tf.reduce_any(same & better, axis=2)
    places = tf.argsort(tf.cast(~is_new, tf.int32), axis=1, stable=True)[:, :num_best]
    texts, scores, log_probs, ids, is_new = (
        tf.gather(x, places, batch_dims=1) for x in (texts, found.scores, found.log_probs, ids, is_new)
    )
    return Found(
        tf.where(is_new, texts, ""),
        tf.where(is_new, scores, IMPOSSIBLE),
        tf.where(is_new, log_probs, IMPOSSIBLE),
        tf.reduce_sum(tf.cast(is_new, tf.int32), axis=1),
        tf.where(is_new[:, :, None], ids, 0),
    )
