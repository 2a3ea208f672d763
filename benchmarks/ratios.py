"""Computes the figures of the page from timed updates and alternating runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

Sample = TypeVar("Sample")


@dataclass(frozen=True)
class Spread:
    """Median and extremes of several measurements."""

    median: float
    minimum: float
    maximum: float

    @classmethod
    def from_values(cls, values: Sequence[float]) -> "Spread":
        """Summarizes values.

        >>> Spread.from_values([3.0, 1.0, 2.0])
        Spread(median=2.0, minimum=1.0, maximum=3.0)
        """
        return cls(median(values), min(values), max(values))


def compute_speed(updates: Sequence[Sequence[float]], window: tuple[int, int]) -> float:
    """Computes target tokens per second over a window of updates, with data loading.

    Args:
        updates: for each update, the time at its end in seconds, and its target tokens without padding.
        window: two updates, counted from 1. Time runs from the end of the first to the end of the second.

    >>> compute_speed([(10.0, 100), (11.0, 100), (13.0, 200)], (1, 3))
    100.0
    """
    first, last = window
    if not 1 <= first < last <= len(updates):
        raise ValueError(f"expected a window within 1 to {len(updates)} updates, found {window}")
    seconds = updates[last - 1][0] - updates[first - 1][0]
    return sum(tokens for _, tokens in updates[first:last]) / seconds


def compute_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Divides run n of ours by run n of theirs, which came right after it.

    If the machine is slow for a while, both sides of a ratio slow down.

    >>> compute_ratio([4.0, 6.0, 5.0], [2.0, 2.0, 2.0])
    Spread(median=2.5, minimum=2.0, maximum=3.0)
    """
    if len(ours) != len(theirs):
        raise ValueError(f"expected as many runs of both, found {len(ours)} and {len(theirs)}")
    return Spread.from_values([mine / other for mine, other in zip(ours, theirs, strict=True)])


def pick_evenly(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Picks `count` samples at even intervals, including the first and the last.

    >>> pick_evenly("abcdefg", 3)
    ['a', 'd', 'g']
    """
    if len(samples) <= count:
        return list(samples)
    return [samples[round(n * (len(samples) - 1) / (count - 1))] for n in range(count)]
