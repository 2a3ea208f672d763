"""Breaks the scores of systems down by length of sentences, by frequency of words, and by sentence.

The tables are those of compare-mt (Neubig et al. 2019). Words are those of sacreBLEU's tokenizer for the language.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sacrebleu.metrics import CHRF

from nmt.evaluation.metrics import bleu, make_bleu

LENGTHS = (1, 6, 11, 16, 21, 31, 41, 61)  # words at which a group of sentences begins
FREQUENCIES = (0, 1, 2, 5, 10, 100, 1000)  # occurrences at which a group of words begins


@dataclass(frozen=True)
class LengthGroup:
    """Sentences of similar length."""

    shortest: int
    longest: int | None
    """Length in words; None if there is no limit."""
    sentences: int
    bleu: list[float]
    """BLEU of each system on these sentences."""
    length_ratio: list[float | None]
    """Words of each system's translations per word of the reference; None if the references have no words."""


@dataclass(frozen=True)
class FrequencyGroup:
    """Words of similar frequency."""

    rarest: int
    commonest: int | None
    """Number of occurrences; None if there is no limit."""
    words: int
    """Number of such words in the references that are closest to the baseline's translations."""
    f1: list[float | None]
    """For each system, the harmonic mean of precision and recall of these words, in percent; None if neither its
    translations nor the references that are closest to them have such words."""


@dataclass(frozen=True)
class Change:
    """A sentence that two systems translate differently."""

    line: int
    """Number of the line, from 1."""
    difference: float
    """chrF of the system's translation minus that of the baseline's, from -100 to 100."""


class Breakdown:
    """A test set with its references, on which systems are compared.

    Several references: every translation is compared with the one that is closest to it by chrF, except for BLEU,
    which uses all of them.
    """

    def __init__(
        self, systems: Sequence[Sequence[str]], *references: Sequence[str], target_language: str | None
    ) -> None:
        """Reads all systems once.

        Args:
            systems: translations of each system, one per line; the first system is the baseline.
            *references: human translations, one per line.
            target_language: see `nmt.evaluation.metrics.score`.
        """
        self._language = target_language
        self._tokenize: Callable[[str], str] = make_bleu(target_language).tokenizer
        self._systems = systems
        self._references = references
        self._reference_words = [[self._split(line) for line in reference] for reference in references]
        self._system_words = [[self._split(line) for line in system] for system in systems]
        metric = CHRF()
        by_reference = [
            [
                [metric.sentence_score(*pair).score for pair in zip(system, zip(lines), strict=True)]
                for lines in references
            ]
            for system in systems
        ]
        # Axes: system, line, reference.
        scores = [list(zip(*of_system, strict=True)) for of_system in by_reference]
        self._chrf = [[max(line) for line in system] for system in scores]
        self._closest = [[line.index(max(line)) for line in system] for system in scores]

    def score_by_length(self) -> list[LengthGroup]:
        """Returns the scores of sentences by the length of the first reference, without groups that have none."""
        lengths = [len(words) for words in self._reference_words[0]]
        groups = []
        for shortest, longest in _make_ranges(LENGTHS):
            lines = [line for line, length in enumerate(lengths) if _is_within(max(length, 1), shortest, longest)]
            if lines:
                groups.append(self._score_lines(lines, shortest, longest))
        return groups

    def score_by_frequency(self, training_text: Iterable[str] | None = None) -> list[FrequencyGroup]:
        """Returns how well words are translated, by their frequency.

        A word of a translation is right if the reference has it, no matter where; each occurrence counts once.

        Args:
            training_text: lines of target text in which words are counted; None counts those of the first reference.

        Returns:
            The groups that have a word in the references, from rare to common.
        """
        lines = map(self._split, training_text) if training_text is not None else self._reference_words[0]
        frequencies = Counter(word for words in lines for word in words)
        found = [self._count_matches(system, frequencies) for system in range(len(self._systems))]
        groups = []
        for number, (rarest, commonest) in enumerate(_make_ranges(FREQUENCIES)):
            if any(one.expected[number] for one in found):
                scores = [one.compute_f1(number) for one in found]
                groups.append(FrequencyGroup(rarest, commonest, found[0].expected[number], scores))
        return groups

    def find_changes(self, system: int) -> list[Change]:
        """Returns the sentences that a system translates differently from the baseline, from most improved to worst."""
        changes = [
            Change(line + 1, self._chrf[system][line] - self._chrf[0][line])
            for line, (ours, theirs) in enumerate(zip(self._systems[system], self._systems[0], strict=True))
            if ours != theirs
        ]
        return sorted(changes, key=lambda change: -change.difference)

    def _split(self, line: str) -> list[str]:
        return self._tokenize(line).split()

    def _score_lines(self, lines: list[int], shortest: int, longest: int | None) -> LengthGroup:
        scores: list[float] = []
        ratios: list[float | None] = []
        for number, system in enumerate(self._systems):
            references = [[reference[line] for line in lines] for reference in self._references]
            scores.append(bleu([system[line] for line in lines], *references, target_language=self._language))
            closest = [self._get_closest_words(number, line) for line in lines]
            ours = sum(len(self._system_words[number][line]) for line in lines)
            theirs = sum(map(len, closest))
            ratios.append(ours / theirs if theirs else None)
        return LengthGroup(shortest, longest, len(lines), scores, ratios)

    def _get_closest_words(self, system: int, line: int) -> list[str]:
        return self._reference_words[self._closest[system][line]][line]

    def _count_matches(self, system: int, frequencies: Counter[str]) -> "_Matches":
        found = _Matches(*([0] * len(FREQUENCIES) for _ in range(3)))
        for line, words in enumerate(self._system_words[system]):
            ours, theirs = Counter(words), Counter(self._get_closest_words(system, line))
            for counts, totals in ((ours, found.produced), (theirs, found.expected), (ours & theirs, found.right)):
                for word, count in counts.items():
                    totals[_find_range(FREQUENCIES, frequencies[word])] += count
        return found


@dataclass(frozen=True)
class _Matches:
    """Words of each group of frequencies: those of the translations, those of the references, and those of both."""

    produced: list[int]
    expected: list[int]
    right: list[int]

    def compute_f1(self, group: int) -> float | None:
        total = self.produced[group] + self.expected[group]
        return 200 * self.right[group] / total if total else None


def _make_ranges(starts: Sequence[int]) -> list[tuple[int, int | None]]:
    """Returns the first and last number of each group; None for no limit.

    >>> _make_ranges((1, 6, 11))
    [(1, 5), (6, 10), (11, None)]
    """
    return [(start, end - 1 if end else None) for start, end in zip(starts, [*starts[1:], None], strict=True)]


def _is_within(number: int, first: int, last: int | None) -> bool:
    return first <= number and (last is None or number <= last)


def _find_range(starts: Sequence[int], number: int) -> int:
    """Returns the index of the group that a number belongs to."""
    return sum(number >= start for start in starts) - 1
