"""Alignment of whitespace words, in the Pharaoh format and as a matrix, from the attention between tokens.

S and T are the words of a source text and of its translation.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nmt.decoding.alignment import TokenAttention, align

WORD = re.compile(r"\S+")  # as str.split()


@dataclass(frozen=True)
class WordLinks:
    """The attention between the words of two texts."""

    source: Sequence[str]
    target: Sequence[str]
    weights: np.ndarray
    """float64 [T, S]: the attention of each target word to the source words. A row sums to 1, or to 0 if the word was
    not translated from anything, such as an address that stands alone and was copied."""

    @property
    def links(self) -> list[tuple[int, int]]:
        """Source and target words that are linked, by their numbers: each target word to what it attends to most."""
        linked = np.flatnonzero(self.weights.sum(axis=1)).tolist()
        return sorted((int(np.argmax(self.weights[target])), target) for target in linked)

    def as_pharaoh(self) -> str:
        """Returns the links as `0-0 1-2`, by source and then by target word."""
        return " ".join(f"{source}-{target}" for source, target in self.links)

    def as_record(self) -> dict[str, Any]:
        """Returns the words, the links and the matrix (4 decimals) for JSON."""
        return {
            "source": list(self.source),
            "target": list(self.target),
            "links": self.links,
            "weights": np.round(self.weights, 4).tolist(),
        }


def align_words(source: str, target: str, parts: Sequence[TokenAttention]) -> WordLinks:
    """Returns the alignment of the words that white space separates.

    `align` finds smaller words, in which punctuation stands alone. The attention of a whitespace word is the mean over
    those in it, weighted by their number of characters, so that letters count more than a full stop. It is summed over
    those in each source word.

    Args:
        source, target, parts: as for `align`.
    """
    found = align(source, target, parts)
    sources, targets = ([word.span() for word in WORD.finditer(text)] for text in (source, target))
    of_source = _find_owners([word.start for word in found.source], sources)
    of_target = _find_owners([word.start for word in found.target], targets)
    weights = np.zeros((len(targets), len(sources)))
    for word, owner in zip(found.target, of_target, strict=True):
        columns = of_source[word.first : word.first + len(word.weights)]
        np.add.at(weights[owner], columns, np.array(word.weights) * (word.end - word.start))
    totals = weights.sum(axis=1, keepdims=True)
    return WordLinks(source.split(), target.split(), weights / np.where(totals > 0, totals, 1))


def _find_owners(starts: Sequence[int], spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """Returns the number of the span in which each start lies; starts and spans are in order."""
    return np.searchsorted([start for start, _ in spans], starts, side="right") - 1
