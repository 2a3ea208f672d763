"""The active queries of a beam search: the only thing that models know of search.

A query is one slot of one sentence's beam. Most slots of a batch end before the last one does, so a step of the decoder
computes only those that are still active. This module stays with the models because attention needs both layouts: its
queries are packed like everything else in a step, but they attend to the memory of their own sentence. The search
decides which queries are active (nmt/decoding/beam_search.py); the layers only pass these objects on.

B sentences, Q queries per sentence, N active queries of all sentences, H heads, D units per head. An ellipsis stands
for any number of axes.
"""

from typing import Any, NamedTuple

from nmt.backend import ops
from nmt.compilation import gather_rows

SIZE_MULTIPLE = 16


def round_up(size: Any) -> Any:
    """Rounds sizes above `SIZE_MULTIPLE` up to a multiple of it; int32 [...] -> int32 [...]."""
    # For every new size of a product, oneDNN prepares a primitive on the CPU, which takes time, and TensorFlow caches
    # it, which takes memory. So there should be few sizes.
    return ops.where(size > SIZE_MULTIPLE, size + -size % SIZE_MULTIPLE, size)


class ActiveQueries(NamedTuple):
    """Which N of the B * Q queries of a batch are computed, and where each of them is.

    The products by matrices, which cost most of a step, take the active queries packed into the first axis, [N, ...].
    Attention takes them in rows beside the memory of their sentence, [B, Q, ...].
    """

    indices: Any
    """int32 [N], the place of each active query in the flattened [B * Q], in ascending order. If the number was rounded
    up, zeros follow: query 0 is computed again, and nothing reads the result."""
    slots: Any
    """int32 [B, Q], the inverse: where each query is among the N; arbitrary, but valid, for inactive queries."""

    def scatter(self, packed: Any) -> Any:
        """Moves packed queries to their rows, [N, ...] -> [B, Q, ...]. Inactive queries get arbitrary values."""
        return gather_rows(packed, self.slots)  # by a gather, which needs no tensor of zeros to write into

    def gather(self, rows: Any) -> Any:
        """Packs the active queries of rows, [B, Q, ...] -> [N, ...]."""
        return gather_rows(ops.reshape(rows, (-1, *rows.shape[2:])), self.indices)  # [B * Q, ...] -> [N, ...]

    def scatter_heads(self, packed: Any) -> Any:
        """Moves packed queries to their rows with the heads first, [N, H, D] -> [B, H, Q, D]."""
        # What transposing the result of `scatter` gives. oneDNN takes 50 µs to start a transposition, longer than
        # everything else that few queries need.
        _, num_heads, units = packed.shape
        slots = self.slots[:, None, :] * num_heads + ops.arange(num_heads, dtype="int32")[:, None]  # [B, H, Q]
        return gather_rows(ops.reshape(packed, (-1, units)), slots)  # [N * H, D] -> [B, H, Q, D]

    def gather_heads(self, rows: Any) -> Any:
        """Packs the active queries of rows with the heads first, [B, H, Q, D] -> [N, H, D]."""
        _, num_heads, num_queries, units = rows.shape
        # The place of head 0 of each query in the flattened [B * H * Q]; the other heads follow Q places apart.
        first = self.indices // num_queries * (num_heads * num_queries) + self.indices % num_queries
        places = first[:, None] + num_queries * ops.arange(num_heads, dtype="int32")  # [N, H]
        return gather_rows(ops.reshape(rows, (-1, units)), places)  # [B * H * Q, D] -> [N, H, D]


def select_all(num_rows: Any, num_queries: int) -> ActiveQueries:
    """Returns all queries as active, N = B * Q, for backends where shapes must not change from step to step.

    Args:
        num_rows: B, a number or an int32 scalar.
        num_queries: Q.
    """
    indices = ops.arange(num_rows * num_queries, dtype="int32")
    return ActiveQueries(indices, ops.reshape(indices, (-1, num_queries)))


def select_active(is_active: Any) -> ActiveQueries:
    """Returns the queries that a mask bool [B, Q] marks, their number rounded up (see `round_up`)."""
    flat = ops.reshape(is_active, (-1,))
    # Each active query comes after as many others as the running count says; the maximum keeps slots valid before the
    # first one.
    slots = ops.maximum(ops.cumsum(ops.cast(flat, "int32")) - 1, 0)
    indices = ops.cast(ops.nonzero(flat)[0], "int32")
    size = ops.shape(indices)[0]
    indices = ops.concatenate([indices, ops.zeros((round_up(size) - size,), "int32")])
    return ActiveQueries(indices, ops.reshape(slots, (-1, is_active.shape[1])))
