"""Which sentences are translated together, and in which shapes a search is worth compiling by XLA."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

# More rows bring little speed and cost memory: the logits of a step are [rows, beam, vocabulary].
MAX_ROWS = 128
# Widths that sentences are padded to where their shape is compiled by XLA.
WIDTHS = np.array([8, 12, 16, 20, 24, 28, 32, 40, 48, 64, 96, 128])
# XLA takes one to two seconds to compile a shape; so many sentences of it repay them.
REPAID_AFTER = 1000


@dataclass(frozen=True)
class Group:
    """Sentences translated at once."""

    members: list[int]
    shape: tuple[int, int] | None
    """Rows and width to pad to for XLA, or None for the graph that takes every shape."""


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
            rows = self._rows(width)
            self.seen[width] += len(members)
            repaid = self.xla and width <= WIDTHS[-1] and self.seen[width] >= REPAID_AFTER
            whole = len(members) // rows * rows if repaid else 0
            for start in range(0, whole, rows):
                yield Group(members[start : start + rows], (rows, width))
            plain += members[whole:]
        yield from self._cut(plain, lengths)

    def _rows(self, width: int) -> int:
        return max(1, min(MAX_ROWS, self.batch_tokens // width))

    def _cut(self, order: Sequence[int], lengths: Sequence[int]) -> Iterator[Group]:
        """Cuts sentences in order, shortest first, where a group would grow too large."""
        members: list[int] = []
        for n in order:
            if len(members) >= self._rows(lengths[n]):
                yield Group(members, None)
                members = []
            members.append(n)
        if members:
            yield Group(members, None)


def _by_width(order: Sequence[int], lengths: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Sentences by the width that they would be padded to, shortest first; beyond the widths, by their own length."""
    widths: dict[int, list[int]] = {}
    for n in order:
        place = int(np.searchsorted(WIDTHS, lengths[n]))
        width = int(WIDTHS[place]) if place < len(WIDTHS) else lengths[n]
        widths.setdefault(width, []).append(n)
    yield from widths.items()
