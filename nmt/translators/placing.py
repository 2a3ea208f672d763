"""Puts the elements of a text around the same words of its translation, by attention; see `nmt.translators.markup`."""

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

from nmt.decoding.alignment import align
from nmt.translators.hypothesis import Hypothesis

Span = tuple[int, int]

MIN_ATTENTION = 0.1  # to an element, of the word that attends to it most; with less, its words were left out


@dataclass
class Node:
    """An element within a segment, or a place in it: a comment, a void element, a code."""

    opening: str
    start: int
    end: int = -1
    """Where its text starts and ends in the text of the segment; equal if it has none."""
    closing: str = ""
    is_kept: bool = False
    """Whether `opening` is all of it, and stands for its text."""
    space: str = ""
    """White space after an element without text, which the text does not have twice."""
    children: list["Node"] = field(default_factory=list)


@dataclass(frozen=True)
class Segment:
    """Text that is translated as a whole, and the elements in it."""

    text: str
    nodes: Sequence[Node]

    def put_tags(self, translation: Hypothesis) -> str:
        """Returns the translation as HTML, with the elements of the text."""
        return _Placing(self.text, translation).write(self.nodes, (0, len(self.text)), (0, len(translation.text)))


class _Placing:
    """Finds the places of the elements of a text in its translation.

    S and T are the words of both, as `align` finds them.
    """

    def __init__(self, text: str, translation: Hypothesis):
        self._text, self._target = text, translation.text
        self._is_copy = text == translation.text
        found = align(text, translation.text, () if self._is_copy else translation.attention)
        self._source_words = [(word.start, word.end) for word in found.source]
        self._words = [(word.start, word.end) for word in found.target]
        self._weights = np.zeros((len(self._words), len(self._source_words)))
        for row, word in zip(self._weights, found.target, strict=True):
            row[word.first : word.first + len(word.weights)] = word.weights
        # [T], the source word that each target word attends to most; -1 for none.
        self._links = np.full(len(self._words), -1)
        if self._source_words:
            self._links = np.where(self._weights.any(axis=1), self._weights.argmax(axis=1), -1)

    def write(self, nodes: Sequence[Node], source: Span, target: Span) -> str:
        """Returns part of the translation as HTML.

        Args:
            nodes: the elements in it.
            source, target: where the part lies in the text and in its translation.
        """
        spans = [(node.start, node.end) for node in nodes] if self._is_copy else self._place(nodes, source, target)
        written, at = [], target[0]
        for (start, end), _, node in sorted(zip(spans, range(len(nodes)), nodes, strict=True), key=lambda one: one[:2]):
            written.append(escape(self._target[at:start], quote=False))
            written.append(self._write_node(node, (start, end)))
            at = end
        return "".join((*written, escape(self._target[at : target[1]], quote=False)))

    def _write_node(self, node: Node, span: Span) -> str:
        start, end = span
        if not node.is_kept:
            inner = self.write(node.children, (node.start, node.end), span)
            return node.opening + inner + node.closing + node.space
        if node.start < node.end and start == end:  # its text has no translation to stand in place of
            before = " " if self._target[:start][-1:].isalnum() else ""
            after = " " if self._target[end : end + 1].isalnum() else ""
            return before + node.opening + after
        return node.opening + node.space

    def _place(self, nodes: Sequence[Node], source: Span, target: Span) -> list[Span]:
        """Returns the span of each element in the translation; no two overlap."""
        wanted = {n: self._measure(node) for n, node in enumerate(nodes) if self._get_text(node)}
        is_free = np.zeros(len(self._target), bool)
        is_free[slice(*target)] = True
        found: dict[int, Span] = {}
        # Those with the clearest place come first.
        for n in sorted(wanted, key=lambda n: -np.maximum(wanted[n] - 0.5, 0).sum()):
            is_all = len(wanted) == 1 and not self._has_text_beside(nodes[n], source)
            span = target if is_all else self._find_span(nodes[n], wanted[n], is_free)
            if span:
                found[n] = span
                is_free[slice(*span)] = False
        taken = [(nodes[n], span) for n, span in found.items()]
        return [
            found[n] if n in found else self._find_point(node.start, source, target, taken)
            for n, node in enumerate(nodes)
        ]

    def _get_text(self, node: Node) -> str:
        return self._text[node.start : node.end].strip()

    def _has_text_beside(self, node: Node, span: Span) -> bool:
        return bool((self._text[span[0] : node.start] + self._text[node.end : span[1]]).strip())

    def _measure(self, node: Node) -> np.ndarray:
        """Returns the attention of each target word to the words of an element: [T]."""
        shares = [
            max(0, min(end, node.end) - max(start, node.start)) / max(1, end - start)
            for start, end in self._source_words
        ]
        return self._weights @ np.array(shares)

    def _find_span(self, node: Node, attention: np.ndarray, is_free: np.ndarray) -> Span | None:
        """Returns the part of the translation that belongs to an element; None if there is none.

        Args:
            node: has text.
            attention: to its words, [T].
            is_free: bool for each character of the translation.
        """
        if (node.is_kept or not attention.any()) and (copy := self._find_copy(self._get_text(node), is_free)):
            return copy
        interval = find_interval(
            (attention - 0.5).tolist(), [bool(is_free[start:end].all()) for start, end in self._words]
        )
        if interval is None:
            return None
        first, last = interval
        if attention[first : last + 1].max() < (0.5 if node.is_kept else MIN_ATTENTION):
            return None
        return self._words[first][0], self._words[last][1]

    def _find_copy(self, text: str, is_free: np.ndarray) -> Span | None:
        """Returns where the translation has a text, as whole words."""
        for found in re.finditer(rf"(?<!\w){re.escape(text)}(?!\w)", self._target):
            if is_free[slice(*found.span())].all():
                return found.span()
        return None

    def _find_point(self, at: int, source: Span, target: Span, taken: Sequence[tuple[Node, Span]]) -> Span:
        """Returns the place of an element without text, outside of what others take."""
        place = self._find_neighbour(at, source, target)
        for node, (start, end) in taken:
            if start < place < end:
                place = start if at <= node.start else end
        return place, place

    def _find_neighbour(self, at: int, source: Span, target: Span) -> int:
        if not self._text[source[0] : at].strip():
            return target[0]
        if not self._text[at : source[1]].strip():
            return target[1]
        following = bisect_left(self._source_words, (at, 0))
        inside = [n for n, word in enumerate(self._words) if target[0] <= word[0] and word[1] <= target[1]]
        before = [self._words[n][0] for n in inside if self._links[n] == following]
        after = [self._words[n][1] for n in inside if self._links[n] == following - 1]
        # What stands right after a word, and not right before one, follows it.
        if before and not (after and self._text[at].isspace() and not self._text[at - 1].isspace()):
            return before[0]
        earlier = [self._words[n][1] for n in inside if 0 <= self._links[n] < following]
        return (after or earlier or [target[0]])[-1]


def find_interval(gains: Sequence[float], free: Sequence[bool]) -> Span | None:
    """Returns first and last place of the interval of free places with the largest sum; None if no place is free.

    Of several, the longest one is returned (Kadane's algorithm).
    """
    best: tuple[float, int] | None = None
    found: Span | None = None
    total, start = 0.0, 0
    for place, (gain, is_free) in enumerate(zip(gains, free, strict=True)):
        if not is_free:
            total, start = 0.0, place + 1
            continue
        if total < 0:
            total, start = 0.0, place
        total += gain
        if best is None or (total, place - start) > best:
            best, found = (total, place - start), (start, place)
    return found
