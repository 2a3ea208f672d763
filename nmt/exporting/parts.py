"""A request worked off in parts of texts of like length, so that memory is bounded and a long text holds nobody up.

N texts of a request, B of them in a part, L positions of the longest.
"""

from collections.abc import Callable
from typing import Any

from nmt.process import silenced

with silenced():
    import tensorflow as tf
    from keras import tree

# Texts up to so many pieces are taken together; longer ones with those up to twice as long as the shortest.
SHORT = 32


def in_parts(lengths: Any, work: Callable, answers: Any, *, max_batch: int, batch_tokens: int) -> Any:
    """Puts what `work(rows)` returns into those rows of `answers`, part by part, but for rows of length 0.

    Args:
        lengths: int32 [N], in pieces.
        work: takes int32 [B], the numbers of the rows, and returns a nest of tensors [B, ...].
        answers: such a nest [N, ...].
        max_batch, batch_tokens: of `part_size`.
    """
    order = tf.argsort(lengths, stable=True)
    sorted_lengths = tf.gather(lengths, order)

    def advance(start: Any, answers: Any) -> tuple:
        rows = order[start : start + part_size(sorted_lengths[start:], max_batch=max_batch, batch_tokens=batch_tokens)]
        parts = zip(tree.flatten(answers), tree.flatten(work(rows)), strict=True)
        after = [tf.tensor_scatter_nd_update(whole, rows[:, None], part) for whole, part in parts]
        return start + tf.size(rows), tree.pack_sequence_as(answers, after)

    num_empty = tf.reduce_sum(tf.cast(tf.equal(lengths, 0), tf.int32))
    # One part at a time, or memory is not bounded.
    return tf.while_loop(lambda start, _: start < tf.size(order), advance, (num_empty, answers), parallel_iterations=1)[
        1
    ]


def part_size(lengths: Any, *, max_batch: int, batch_tokens: int) -> Any:
    """How many of the next texts are taken together.

    Args:
        lengths: int32 [at least 1], ascending, in pieces.
        max_batch: most texts.
        batch_tokens: most pieces, padding counted, unless one text alone has more.
    """
    lengths = lengths[:max_batch]
    alike = lengths <= tf.maximum(SHORT, 2 * lengths[0])
    fits = (tf.range(tf.size(lengths)) + 1) * lengths <= batch_tokens
    return tf.maximum(1, tf.reduce_sum(tf.cast(alike & fits, tf.int32)))


def rows_of(ids: Any, lengths: Any, rows: Any) -> Any:
    """Takes rows [B] of ids [N, L], without the columns that only other rows need."""
    return tf.gather(ids, rows)[:, : longest(tf.gather(lengths, rows))]


def longest(lengths: Any) -> Any:
    """The largest of any lengths; 0 of none."""
    return tf.reduce_max(tf.concat([[0], tf.reshape(lengths, [-1])], axis=0))


def padded(x: Any, sizes: list) -> Any:
    """Fills the last axes of x up with zeros to these sizes."""
    num_others = len(x.shape) - len(sizes)
    after = tf.concat([tf.zeros([num_others], tf.int32), tf.stack(sizes) - tf.shape(x)[num_others:]], axis=0)
    return tf.pad(x, tf.stack([tf.zeros_like(after), after], axis=1))
