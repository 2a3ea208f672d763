"""What a search found, as text: hypotheses of a sentence, and alternatives for its next word.

`nmt.exporting.hypotheses` and `nmt.exporting.demands` do the same in the graph of an export.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nmt.data.tokenizer import Tokenizer
from nmt.decoding.beam_search import IMPOSSIBLE
from nmt.decoding.spelling import Prefix


class Candidate(NamedTuple):
    """A hypothesis of a search."""

    text: str
    score: float
    log_prob: float
    ids: np.ndarray
    """Without EOS."""
    is_finished: bool


def read_row(
    tokenizer: Tokenizer, n_best: int, is_sampled: bool, prefix: Prefix, row: Sequence[tuple]
) -> list[Candidate]:
    """Returns the first hypotheses of a sentence with different texts, since several segmentations may spell one.

    Samples are returned as they were drawn. If there is no hypothesis at all, as where `no_repeat_ngram` forbids the
    last word of a prefix, the prefix alone is returned, as a hypothesis that was cut off.

    `nmt.exporting.hypotheses.drop_duplicates` does the same in TensorFlow operations, for all sentences at once.
    """
    by_text: dict[str | int, Candidate] = {}
    for ids, length, log_prob, score, is_finished, exists in row:
        if exists and len(by_text) < n_best:
            tokens = ids[: length - is_finished]
            text = prefix.join(tokenizer.decode(tokens[None])[0])
            key = len(by_text) if is_sampled else text
            by_text.setdefault(key, Candidate(text, float(score), float(log_prob), tokens, bool(is_finished)))
    nothing = Candidate(prefix.text, IMPOSSIBLE, IMPOSSIBLE, np.zeros(0, "int32"), False)
    return list(by_text.values()) or [nothing]


def put_first(best: Candidate, others: list[Candidate], n_best: int) -> list[Candidate]:
    """Returns n hypotheses that begin with the best one; others must not score above it."""
    # `nmt.exporting.hypotheses.put_first` does the same in TensorFlow operations.
    rest = [one for one in others if one.text != best.text and one.score <= best.score]
    return [best, *rest[: n_best - 1]]


class Alternative(NamedTuple):
    """A token that may follow a prefix."""

    prefix: Prefix
    """That of the text up to and including the token."""
    probability: float
    is_open: bool
    """Whether a translation goes on after it."""


def make_alternative(tokenizer: Tokenizer, prefix: Prefix, tokens: list[int], log_prob: float) -> Alternative:
    """Returns an alternative, given the tokens from the beginning of the translation."""
    [decoded] = tokenizer.decode([tokens])
    is_open = bool(prefix.ending) or len(tokens) > len(prefix.ids)
    return Alternative(Prefix(prefix.join(decoded), tokens, b"", decoded), math.exp(log_prob), is_open)


def rank_alternatives(found: Sequence[Alternative], n: int) -> list[Alternative]:
    """Returns the n most probable texts. Several segmentations of one count together.

    Without tokens that are a part of a character, which has no text.
    """
    by_text: dict[tuple[str, bool], Alternative] = {}
    for one in found:
        if not one.prefix.text.endswith("\ufffd"):
            key = (one.prefix.text, one.is_open)
            known = by_text.setdefault(key, one._replace(probability=0.0))
            by_text[key] = known._replace(probability=known.probability + one.probability)
    return sorted(by_text.values(), key=lambda one: -one.probability)[:n]
