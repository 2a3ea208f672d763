"""Which sentences are translated together, and in which shapes a search is compiled."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nmt.compilation import compiles_each_shape
from nmt.data.batching import pad

# More rows bring little speed and cost memory: the logits of a step are [rows, beam, vocabulary].
MAX_ROWS = 128
# Widths that sentences are padded to where their shape is compiled by XLA.
WIDTHS = np.array([8, 12, 16, 20, 24, 28, 32, 40, 48, 64, 96, 128])
# XLA takes one to two seconds to compile a shape; so many sentences of it repay them.
REPAID_AFTER = 1000
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
    """Sorts sentences into groups of like length; remembers how many of each width there have been.

    Args:
        batch_tokens: source pieces of a group, padding counted.
        xla: whether XLA is to be considered.
    """

    def __init__(self, batch_tokens: int, *, xla: bool):
        self.batch_tokens = batch_tokens
        self.xla = xla
        self.seen: Counter[int] = Counter()

    def groups(self, lengths: Sequence[int]) -> Iterator[Group]:
        """Yields groups in which every sentence stands once; `lengths` [N] count EOS."""
        order = sorted(range(len(lengths)), key=lambda n: lengths[n])
        plain: list[int] = []
        for width, members in _by_width(order, lengths):
            rows = _most_rows(self.batch_tokens, width)
            self.seen[width] += len(members)
            repaid = self.xla and width <= WIDTHS[-1] and self.seen[width] >= REPAID_AFTER
            whole = len(members) // rows * rows if repaid else 0
            for start in range(0, whole, rows):
                yield Group(members[start : start + rows], (rows, width))
            plain += members[whole:]
        yield from self._cut(plain, lengths)

    def _cut(self, order: Sequence[int], lengths: Sequence[int]) -> Iterator[Group]:
        """Cuts sentences in order, shortest first, where a group would grow too large."""
        members: list[int] = []
        for n in order:
            if len(members) >= _most_rows(self.batch_tokens, lengths[n]):
                yield Group(members, None)
                members = []
            members.append(n)
        if members:
            yield Group(members, None)


class ShapedGrouping:
    """Sorts sentences into groups of few shapes, for JAX, which compiles each of them.

    Args:
        batch_tokens: source pieces of a group, padding counted.
    """

    def __init__(self, batch_tokens: int):
        self.batch_tokens = batch_tokens

    def groups(self, lengths: Sequence[int]) -> Iterator[Group]:
        """Yields groups in which every sentence stands once; `lengths` [N] count EOS."""
        by_width: dict[int, list[int]] = {}
        for n in sorted(range(len(lengths)), key=lambda n: lengths[n]):
            by_width.setdefault(_doubled_width(lengths[n]), []).append(n)
        left_over: list[int] = []
        for width, members in by_width.items():
            # What fills no batch moves on to the next width.
            members = left_over + members
            rows = _most_rows(self.batch_tokens, width)
            full = len(members) // rows * rows
            for start in range(0, full, rows):
                yield Group(members[start : start + rows], (rows, width))
            left_over = members[full:]
        if left_over:
            rows = next((few for few in FEW_ROWS if len(left_over) <= few < rows), rows)
            yield Group(left_over, (rows, width))


def make_grouping(batch_tokens: int, *, xla: bool) -> Grouping | ShapedGrouping:
    """The grouping for the backend; `xla` is whether XLA is to be considered where there is a choice."""
    return ShapedGrouping(batch_tokens) if compiles_each_shape() else Grouping(batch_tokens, xla=xla)


def _most_rows(batch_tokens: int, width: int) -> int:
    return max(1, min(MAX_ROWS, batch_tokens // width))


def _doubled_width(length: int) -> int:
    width = NARROWEST
    while width < length:
        width *= 2
    return width


def _by_width(order: Sequence[int], lengths: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Sentences by the width that they would be padded to, shortest first; beyond the widths, by their own length."""
    widths: dict[int, list[int]] = {}
    for n in order:
        place = int(np.searchsorted(WIDTHS, lengths[n]))
        width = int(WIDTHS[place]) if place < len(WIDTHS) else lengths[n]
        widths.setdefault(width, []).append(n)
    yield from widths.items()
