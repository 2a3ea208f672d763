"""Queries of a search, of which most rows need fewer and fewer."""

from typing import Any, NamedTuple

from keras import ops

from nmt.compilation import lookup

FEW = 16
"""More queries are rounded up to a multiple of so many: on a CPU, TensorFlow prepares products anew for every number of
rows, which takes time, and keeps what it has prepared."""


class Queries(NamedTuple):
    """Which of the B x Q queries of a batch are asked: N of them, packed into the first axis.

    What costs most of a step, products by matrices, is the same for every query and takes them packed; attention wants
    them where their memory is, which is spread.
    """

    asked: Any
    """int32 [N], which they are, counted row by row; then perhaps a few zeros, for nothing."""
    places: Any
    """int32 [B, Q], where each stands among those that are asked; any place where it is none of them."""

    def spread(self, packed: Any) -> Any:
        """Puts [N, ...] into rows, [B, Q, ...]; where nothing is asked, there stands anything."""
        return lookup(packed, self.places)

    def pack(self, rows: Any) -> Any:
        """Takes from rows [B, Q, ...] those that are asked, [N, ...]."""
        return lookup(ops.reshape(rows, (-1, *rows.shape[2:])), self.asked)


def all_queries(num_rows: Any, num_queries: int) -> Queries:
    """All of them, where shapes may not change from step to step."""
    asked = ops.arange(num_rows * num_queries, dtype="int32")
    return Queries(asked, ops.reshape(asked, (-1, num_queries)))


def queries_where(asked: Any) -> Queries:
    """Those that a mask [B, Q] marks, and as many more as make their number round."""
    flat = ops.reshape(asked, (-1,))
    places = ops.maximum(ops.cumsum(ops.cast(flat, "int32")) - 1, 0)
    found = ops.cast(ops.nonzero(flat)[0], "int32")
    size = ops.shape(found)[0]
    missing = ops.where(size > FEW, -size % FEW, 0)
    found = ops.concatenate([found, ops.zeros((missing,), "int32")])
    return Queries(found, ops.reshape(places, (-1, asked.shape[1])))
