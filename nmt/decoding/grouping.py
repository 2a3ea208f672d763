"""Which sentences are translated together, and in which shapes a search is compiled."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nmt.compilation import has_static_shapes
from nmt.config.schema import DecodingConfig, SearchSettings
from nmt.data.batching import pad
from nmt.models.queries import SIZE_MULTIPLE

# More bring little speed and cost memory: the logits of a step are [queries, vocabulary].
MAX_QUERIES = 640
# Where shapes may change, a search fills the places of sentences that are done: it is given so many times what it works
# on side by side, so that it seldom runs short of others.
REFILLS = 8
# Where every shape must be compiled, widths are this and its doubles, and what fills no batch is padded to so few rows.
# A search takes as many steps as its translations are long, so that wide padding costs it little.
NARROWEST = 16
FEW_ROWS = (1, 16)


@dataclass(frozen=True)
class Group:
    """Sentences translated at once."""

    members: list[int]
    shape: tuple[int, int] | None
    """Rows and width to pad to, or None for the graph that takes every shape."""

    def padded(self, ids: Sequence[Sequence[int]]) -> np.ndarray:
        """The members' ids, each row ended by EOS; rows beyond them hold nothing else: int32 [rows, width]."""
        rows, width = self.shape or (len(self.members), 0)
        return pad([*(ids[n] for n in self.members), *[[]] * (rows - len(self.members))], width)


class Grouping:
    """Sorts sentences into groups of like length, for a graph that takes every shape.

    Their sizes are round all the same, for the reason that `round_up` gives: what is too many goes to the next group.

    Args:
        batch_tokens: source pieces of a group, padding counted.
        max_rows: sentences of a group.
    """

    def __init__(self, batch_tokens: int, max_rows: int):
        self.batch_tokens = batch_tokens
        self.max_rows = max_rows

    def groups(self, lengths: Sequence[int]) -> Iterator[Group]:
        """Yields groups in which every sentence stands once, shortest first; `lengths` [N] count EOS."""
        members: list[int] = []
        for n in sorted(range(len(lengths)), key=lambda n: lengths[n]):
            while len(members) >= _most_rows(self.batch_tokens, lengths[n], self.max_rows):
                size = len(members) // SIZE_MULTIPLE * SIZE_MULTIPLE or len(members)
                yield Group(members[:size], None)
                members = members[size:]
            members.append(n)
        if members:
            yield Group(members, None)


class ShapedGrouping:
    """Sorts sentences into groups of few shapes, for JAX, which compiles each of them.

    Args:
        batch_tokens: source pieces of a group, padding counted.
        max_rows: sentences of a group.
    """

    def __init__(self, batch_tokens: int, max_rows: int):
        self.batch_tokens = batch_tokens
        self.max_rows = max_rows

    def groups(self, lengths: Sequence[int]) -> Iterator[Group]:
        """Yields groups in which every sentence stands once; `lengths` [N] count EOS."""
        by_width: dict[int, list[int]] = {}
        for n in sorted(range(len(lengths)), key=lambda n: lengths[n]):
            by_width.setdefault(doubled_width(lengths[n]), []).append(n)
        left_over: list[int] = []
        for width, members in by_width.items():
            # What fills no batch moves on to the next width.
            members = left_over + members
            rows = _most_rows(self.batch_tokens, width, self.max_rows)
            full = len(members) // rows * rows
            for start in range(0, full, rows):
                yield Group(members[start : start + rows], (rows, width))
            left_over = members[full:]
        if left_over:
            rows = next((few for few in FEW_ROWS if len(left_over) <= few < rows), rows)
            yield Group(left_over, (rows, width))


def make_grouping(batch_tokens: int, max_rows: int) -> Grouping | ShapedGrouping:
    """The grouping for the backend, of what one graph or another computes from beginning to end."""
    return (ShapedGrouping if has_static_shapes() else Grouping)(batch_tokens, max_rows)


def make_search_grouping(settings: DecodingConfig) -> Grouping | ShapedGrouping:
    """Returns the grouping for the backend and a search with these settings."""
    return make_grouping(settings.batch_tokens, choose_max_active(settings) * (1 if has_static_shapes() else REFILLS))


def choose_max_active(settings: SearchSettings) -> int:
    """Returns how many sentences to search at a time."""
    return max(1, MAX_QUERIES // settings.beam_size)


def _most_rows(batch_tokens: int, width: int, max_rows: int) -> int:
    return max(1, min(max_rows, batch_tokens // width))


def doubled_width(length: int) -> int:
    """The least width that holds so many pieces, of those that searches are compiled for on JAX."""
    width = NARROWEST
    while width < length:
        width *= 2
    return width
