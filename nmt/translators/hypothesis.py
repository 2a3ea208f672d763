"""What a line was translated to, whatever translated it."""

from collections.abc import Sequence
from dataclasses import dataclass

from nmt.decoding.alignment import Attended

WINDOW = 4096  # lines sorted by length together, and held in memory at once


@dataclass(frozen=True)
class Hypothesis:
    """One translation of a line."""

    text: str
    score: float
    """log_prob over the length penalty; what ranking uses."""
    log_prob: float
    """Sum of the pieces' natural-log probabilities, EOS counted."""
    attended: Sequence[Attended] = ()
    """What its pieces attended to, for each part of the line, if that was asked for; see `alignment.align`."""


def joined(parts: list[list[Hypothesis]], num_best: int = 1) -> list[Hypothesis]:
    """The hypotheses of a whole line from those of its parts: best with best, second with second."""
    if not parts:
        return [Hypothesis("", 0.0, 0.0)]
    if len(parts) == 1:
        return parts[0]
    rank = range(min(num_best, max(len(part) for part in parts)))
    chosen = [[part[min(n, len(part) - 1)] for part in parts] for n in rank]
    return [
        Hypothesis(
            " ".join(h.text for h in row),
            sum(h.score for h in row) / len(row),
            sum(h.log_prob for h in row),
            tuple(part for h in row for part in h.attended),
        )
        for row in chosen
    ]
