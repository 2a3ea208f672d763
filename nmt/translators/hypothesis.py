"""The translation of a text, whichever translator it comes from."""

from collections.abc import Sequence
from dataclasses import dataclass

from nmt.decoding.alignment import TokenAttention


@dataclass(frozen=True)
class Hypothesis:
    """One translation of a text."""

    text: str
    score: float
    """log_prob divided by the length penalty; hypotheses are ranked by it."""
    log_prob: float | None
    """Sum of the tokens' log-probabilities (nats), EOS included; None if an older export does not return it."""
    tokens: Sequence[str] = ()
    """SentencePiece tokens without EOS; empty if an export returns the text alone."""
    is_finished: bool | None = True
    """False if the length limit cut the hypothesis off before its EOS; None if an export returns the text alone."""
    attention: Sequence[TokenAttention] = ()
    """Attention of the tokens, one entry per part of the text, if it was requested; see `alignment.align`."""


@dataclass(frozen=True)
class Translation:
    """A text and its translations, with everything known about them."""

    source: str
    hypotheses: Sequence[Hypothesis]
    """At least one, best first; no two have the same text."""
    is_truncated: bool = False
    """Whether the end of the source was not read, because it was longer than an export reads."""
    warnings: Sequence[str] = ()
    """What a reader of the translation should know, such as that it was cut off."""

    @property
    def best(self) -> Hypothesis:
        """The best hypothesis."""
        return self.hypotheses[0]

    @property
    def text(self) -> str:
        """Text of the best hypothesis."""
        return self.best.text

    @property
    def score(self) -> float:
        """Score of the best hypothesis."""
        return self.best.score

    @property
    def log_prob(self) -> float | None:
        """Log-probability of the best hypothesis."""
        return self.best.log_prob


def join_hypotheses(parts: Sequence[Sequence[Hypothesis]], n_best: int = 1) -> list[Hypothesis]:
    """Joins the hypotheses of a line's parts to hypotheses of the line: best with best, second with second.

    A part with fewer hypotheses contributes its last one to the remaining ranks. The score of a line is the mean of its
    parts' scores, its log-probability the sum of theirs.
    """
    if not parts:
        return [Hypothesis("", 0.0, 0.0)]
    if len(parts) == 1:
        return list(parts[0])
    ranks = range(min(n_best, max(len(part) for part in parts)))
    rows = [[part[min(rank, len(part) - 1)] for part in parts] for rank in ranks]
    return [merge_parts(" ".join(part.text for part in row), row) for row in rows]


def merge_parts(text: str, parts: Sequence[Hypothesis]) -> Hypothesis:
    """Returns the hypothesis of a whole text, given its translation and the hypotheses of its parts."""
    log_probs = [part.log_prob for part in parts if part.log_prob is not None]
    return Hypothesis(
        text,
        sum(part.score for part in parts) / max(1, len(parts)),
        sum(log_probs) if len(log_probs) == len(parts) else None,
        tuple(token for part in parts for token in part.tokens),
        None if any(part.is_finished is None for part in parts) else all(part.is_finished for part in parts),
        tuple(attention for part in parts for attention in part.attention),
    )
