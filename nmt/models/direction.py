"""The order in which a model predicts target tokens.

B sentences, T target positions. An ellipsis stands for any number of axes.
"""

from typing import Any

from nmt.backend import ops
from nmt.compilation import batch_gather
from nmt.data.tokenizer import EOS_ID, PAD_ID


def reverse_targets(ids: Any, values: Any = None) -> Any:
    """Reverses the tokens before EOS in each row: from reading order to that of a right-to-left model, or back.

    Args:
        ids: int [..., T], rows that may end with EOS and are padded with 0.
        values: [..., T, ...], what belongs to each token, moved as its token; None moves the ids themselves.
    """
    values = ids if values is None else values
    is_token = ops.logical_and(ops.not_equal(ids, PAD_ID), ops.not_equal(ids, EOS_ID))
    counts = ops.sum(ops.cast(is_token, "int32"), axis=-1, keepdims=True)
    places = ops.arange(ops.shape(ids)[-1], dtype="int32")
    places = ops.where(places < counts, counts - 1 - places, places)  # [..., T]
    shape = ops.shape(values)
    rows = ops.reshape(values, (-1, *shape[len(ids.shape) - 1 :]))
    moved = batch_gather(rows, ops.reshape(places, (-1, ops.shape(ids)[-1])))
    return ops.reshape(moved, shape)
