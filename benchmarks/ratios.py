"""From clocked updates and alternating runs to the figures of the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

Sample = TypeVar("Sample")


@dataclass(frozen=True)
class Spread:
    """Several measurements of one thing."""

    median: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """
        >>> Spread.of([3.0, 1.0, 2.0])
        Spread(median=2.0, minimum=1.0, maximum=3.0)
        """
        return cls(median(values), min(values), max(values))


def pieces_per_second(updates: Sequence[Sequence[float]], window: tuple[int, int]) -> float:
    """Target pieces a second over a window of updates, loading of data included.

    Args:
        updates: of each update, the moment when it was done, in seconds, and its real target pieces.
        window: the clock starts when the first of these is done and stops when the second is; they count from 1.

    >>> pieces_per_second([(10.0, 100), (11.0, 100), (13.0, 200)], (1, 3))
    100.0
    """
    first, last = window
    if not 1 <= first < last <= len(updates):
        raise ValueError(f"expected a window within 1 to {len(updates)} updates, found {window}")
    seconds = updates[last - 1][0] - updates[first - 1][0]
    return sum(pieces for _, pieces in updates[first:last]) / seconds


def alternating_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """How many times ours theirs is, run by run: run n of ours with run n of theirs, which came right after it.

    What slows the machine down for a while then slows down both sides of one ratio.

    >>> alternating_ratio([4.0, 6.0, 5.0], [2.0, 2.0, 2.0])
    Spread(median=2.5, minimum=2.0, maximum=3.0)
    """
    if len(ours) != len(theirs):
        raise ValueError(f"expected as many runs of both, found {len(ours)} and {len(theirs)}")
    return Spread.of([mine / other for mine, other in zip(ours, theirs, strict=True)])


def evenly(samples: Sequence[Sample], count: int) -> list[Sample]:
    """So many of the samples, evenly over their places, the first and the last among them.

    >>> evenly("abcdefg", 3)
    ['a', 'd', 'g']
    """
    if len(samples) <= count:
        return list(samples)
    return [samples[round(n * (len(samples) - 1) / (count - 1))] for n in range(count)]
