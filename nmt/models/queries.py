"""Queries of a search, of which most rows need fewer and fewer."""

from typing import Any, NamedTuple

from nmt.backend import ops
from nmt.compilation import gather_rows

SIZE_MULTIPLE = 16


def round_up(size: Any) -> Any:
    """A size, if it is more than a few, as a multiple of `SIZE_MULTIPLE`.

    On a CPU, TensorFlow prepares products anew for every size, which takes time, and keeps what it has prepared, which
    takes memory: so let there be few sizes.
    """
    return ops.where(size > SIZE_MULTIPLE, size + -size % SIZE_MULTIPLE, size)


class ActiveQueries(NamedTuple):
    """Which of the B x Q queries of a batch are asked: N of them, packed into the first axis.

    What costs most of a step, products by matrices, is the same for every query and takes them packed; attention wants
    them where their memory is, which is spread.
    """

    indices: Any
    """int32 [N], which they are, counted row by row; then perhaps a few zeros, for nothing."""
    slots: Any
    """int32 [B, Q], where each stands among those that are asked; any place where it is none of them."""

    def scatter(self, packed: Any) -> Any:
        """Puts [N, ...] into rows, [B, Q, ...]; where nothing is asked, there stands anything."""
        return gather_rows(packed, self.slots)

    def gather(self, rows: Any) -> Any:
        """Takes from rows [B, Q, ...] those that are asked, [N, ...]."""
        return gather_rows(ops.reshape(rows, (-1, *rows.shape[2:])), self.indices)

    def scatter_heads(self, packed: Any) -> Any:
        """Puts [N, H, D] into rows by heads, [B, H, Q, D]: what transposing `scatter` gives, without transposing, which
        takes TensorFlow longer than all else that few queries need."""
        _, num_heads, units = packed.shape
        places = self.slots[:, None, :] * num_heads + ops.arange(num_heads, dtype="int32")[:, None]
        return gather_rows(ops.reshape(packed, (-1, units)), places)

    def gather_heads(self, rows: Any) -> Any:
        """Takes from rows by heads [B, H, Q, D] those that are asked, [N, H, D]."""
        _, num_heads, num_queries, units = rows.shape
        first = self.indices // num_queries * (num_heads * num_queries) + self.indices % num_queries
        places = first[:, None] + num_queries * ops.arange(num_heads, dtype="int32")
        return gather_rows(ops.reshape(rows, (-1, units)), places)


def select_all(num_rows: Any, num_queries: int) -> ActiveQueries:
    """All of them, where shapes may not change from step to step."""
    asked = ops.arange(num_rows * num_queries, dtype="int32")
    return ActiveQueries(asked, ops.reshape(asked, (-1, num_queries)))


def select_active(asked: Any) -> ActiveQueries:
    """Those that a mask [B, Q] marks, and as many more as make their number round."""
    flat = ops.reshape(asked, (-1,))
    places = ops.maximum(ops.cumsum(ops.cast(flat, "int32")) - 1, 0)
    found = ops.cast(ops.nonzero(flat)[0], "int32")
    size = ops.shape(found)[0]
    found = ops.concatenate([found, ops.zeros((round_up(size) - size,), "int32")])
    return ActiveQueries(found, ops.reshape(places, (-1, asked.shape[1])))
