"""Subword sampling: segmentations drawn at random, the same ones in every process for the same seed.

SentencePiece samples too, but since 0.2.2 its generator gives other draws in every process, whatever its seed.
"""

import math
import re
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

SPACE = "▁"
# A word with more segmentations is drawn from its lattice, token by token, because a table would take too much memory.
MAX_TABLE_SIZE = 256
# Longer words are lines without spaces, as in Japanese. They hardly ever occur twice, so that they are not cached.
MAX_CACHED_LENGTH = 50
# Segmentations in all cached tables plus arcs in all cached lattices, some 160 bytes each. German Multi30k needs
# 1,250,000. Where they do not fit, most of the time is spent on finding those of rare words.
MAX_CACHED = 2_000_000
# Lines whose words are kept, some 600 bytes each. Splitting a line takes almost as long as drawing its words.
MAX_CACHED_LINES = 200_000
# What SentencePiece takes off the lowest log-probability of a token for an unknown character.
UNKNOWN_PENALTY = 10.0
MASK_64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Table:
    """All segmentations of a word."""

    cumulative: list[float]
    """Their probabilities, added up; the last sum, which is 1, is left out."""
    segmentations: list[tuple[int, ...]]

    def draw(self, number: int) -> tuple[int, ...]:
        """Draws one segmentation; `number` consists of 64 random bits."""
        return self.segmentations[bisect(self.cumulative, number * 2**-64)]


@dataclass(frozen=True, slots=True)
class Lattice:
    """The arcs by which each position of a word, after its start, is reached; an arc is one token."""

    cumulative: list[list[float]]
    """Probabilities that the token before this position is that of each arc, added up; the last sum is left out."""
    arcs: list[list[tuple[int, tuple[int, ...]]]]
    """Where the token starts, and its id, or the ids of its bytes."""

    @property
    def num_segmentations(self) -> int:
        """The number of paths from start to end."""
        counts = [1]
        for arcs in self.arcs:
            counts.append(sum(counts[start] for start, _ in arcs))
        return counts[-1]

    @property
    def num_arcs(self) -> int:
        """The number of arcs at all positions."""
        return sum(map(len, self.arcs))

    def draw(self, number: int) -> list[int]:
        """Draws one segmentation from the end to the start (Kudo 2018, section 3.3); `number`: 64 random bits."""
        tokens: list[tuple[int, ...]] = []
        end = len(self.arcs)
        while end:
            end, ids = self.arcs[end - 1][bisect(self.cumulative[end - 1], number * 2**-64)]
            tokens.append(ids)
            number = _mix(number)
        return [token_id for ids in reversed(tokens) for token_id in ids]

    def list_segmentations(self) -> Table:
        """Lists all segmentations with their probabilities."""
        # For each position, all ways to reach it.
        probabilities: list[list[float]] = [[1.0]]
        segmentations: list[list[tuple[int, ...]]] = [[()]]
        for cumulative, arcs in zip(self.cumulative, self.arcs, strict=True):
            shares = [high - low for low, high in pairwise([0.0, *cumulative, 1.0])]
            probabilities.append(
                [
                    share * before
                    for share, (start, _) in zip(shares, arcs, strict=True)
                    for before in probabilities[start]
                ]
            )
            segmentations.append([before + ids for start, ids in arcs for before in segmentations[start]])
        return Table(list(accumulate(probabilities[-1]))[:-1], segmentations[-1])


class SubwordSampler:
    """Draws segmentations with a SentencePiece model.

    Those of a unigram model come from all segmentations of a line, word by word unless a token contains a space in its
    middle. The distribution is the same, and the segmentations of most words are found only once.

    Args:
        processor: SentencePieceProcessor of the model.
        is_bpe: whether the model is byte-pair encoding; otherwise it is unigram.
        user_symbols: strings that are always one token.
    """

    # SentencePiece's 64 best segmentations of a line (`nbest_encode_as_ids`) are all close to the best one: they made
    # German text 10 % longer at an alpha of 0.1, where all segmentations make it 98 % longer. They also took some ten
    # times as long.

    def __init__(self, processor: Any, *, is_bpe: bool, user_symbols: Sequence[str]):
        self.processor = processor
        self.is_bpe = is_bpe
        # Longest first, so that a symbol is found before another one that it begins with.
        self.user_symbols = sorted(user_symbols, key=len, reverse=True)
        # What words are drawn from, for each alpha.
        self._cached: defaultdict[float, dict[str, Table | Lattice]] = defaultdict(dict)
        self._cached_size = 0
        self._lines: dict[str, list[str]] = {}
        # The words of cached lines, so that equal words are one string.
        self._words: dict[str, str] = {}

    def draw(
        self, texts: Sequence[str], keys: Sequence[int] | np.ndarray, *, seed: int, alpha: float
    ) -> list[list[int]]:
        """Returns the token ids of lines, each a function of its text, its key, the seed and `alpha`.

        Arguments are those of `Tokenizer.sample`.
        """
        if self.is_bpe:
            generators = (np.random.default_rng([seed, int(key)]) for key in keys)
            return [self._draw_merges(text, alpha, random) for text, random in zip(texts, generators, strict=True)]
        lines = [self._split_line(text) for text in texts]
        numbers = iter(draw_numbers(seed, keys, [len(words) for words in lines]).tolist())
        return [self._draw_words(words, numbers, alpha) for words in lines]

    def _split_line(self, text: str) -> list[str]:
        """Normalizes a line and returns its words, from the cache if it has been read before."""
        if (words := self._lines.get(text)) is None:
            words = self._word_pattern.findall(self.processor.normalize(text))
            if len(self._lines) < MAX_CACHED_LINES:
                self._lines[text] = [self._words.setdefault(word, word) for word in words]
        return words

    def _draw_words(self, words: list[str], numbers: Iterator[int], alpha: float) -> list[int]:
        """Draws each word with the next of the numbers, of 64 random bits each."""
        cached = self._cached[alpha]
        ids: list[int] = []
        for word in words:
            drawn_from = cached.get(word) or self._find_segmentations(word, alpha)
            ids += drawn_from.draw(next(numbers))
        return _join_unknowns(ids, self._unknown_id)

    def _find_segmentations(self, word: str, alpha: float) -> Table | Lattice:
        """Returns the segmentations of a word as a table, or as a lattice if there are many, and caches them."""
        found: Table | Lattice
        found = lattice = self._build_lattice(word, alpha)
        size = lattice.num_arcs
        if len(word) > MAX_CACHED_LENGTH:
            return lattice
        if (count := lattice.num_segmentations) <= MAX_TABLE_SIZE:
            found, size = lattice.list_segmentations(), count
        if self._cached_size + size > MAX_CACHED:
            # Frequent words return soon. Finding the words of longest disuse would cost time at every draw.
            self._cached.clear()
            self._cached_size = 0
        self._cached[alpha][word] = found
        self._cached_size += size
        return found

    def _build_lattice(self, word: str, alpha: float) -> Lattice:
        """Gives each segmentation its probability to the power of `alpha`, normalized (Kudo 2018, equation 8)."""
        if word in self.user_symbols:
            return Lattice([[]], [[(0, self._spell(word))]])
        # The forward algorithm: for each position, the logarithm of the sum over all ways to reach it.
        log_sums = [0.0]
        lattice = Lattice([], [])
        for end in range(1, len(word) + 1):
            arcs, log_probs = [], []
            for start in range(max(0, end - self._longest_token), end):
                token = word[start:end]
                score = self._ranks.get(token)
                if score is None and len(token) > 1:
                    continue
                arcs.append((start, self._spell(token)))
                log_probs.append(log_sums[start] + alpha * (self._unknown_score if score is None else score))
            largest = max(log_probs)
            *sums, total = accumulate(math.exp(log_prob - largest) for log_prob in log_probs)
            log_sums.append(largest + math.log(total))
            lattice.cumulative.append([weight / total for weight in sums])
            lattice.arcs.append(arcs)
        return lattice

    def _draw_merges(self, text: str, alpha: float, random: np.random.Generator) -> list[int]:
        """Merges by rank, but drops each candidate in each round with probability `alpha` (Provilkov et al. 2020)."""
        symbols = list(self._split_symbols(self.processor.normalize(text)))
        ids: list[int] = []
        for word in self._split_words(symbols):
            while pairs := self._draw_candidates(word, alpha, random):
                # The highest rank, and the leftmost place among equal ranks, as in SentencePiece.
                _, first = max(pairs, key=lambda pair: (pair[0], -pair[1]))
                word[first : first + 2] = [word[first] + word[first + 1]]
            ids += [token_id for symbol in word for token_id in self._spell(symbol)]
        return _join_unknowns(ids, self._unknown_id)

    def _draw_candidates(self, word: list[str], alpha: float, random: np.random.Generator) -> list[tuple[float, int]]:
        """Returns rank and place of each possible merge that is not dropped in this round."""
        joined = [(self._ranks.get(a + b), n) for n, (a, b) in enumerate(pairwise(word))]
        possible = [(rank, n) for rank, n in joined if rank is not None]
        kept = random.random(len(possible)) >= alpha
        return [pair for pair, keep in zip(possible, kept, strict=True) if keep]

    def _split_symbols(self, text: str) -> Iterator[str]:
        """Yields the characters of a text, but user symbols as a whole."""
        place = 0
        while place < len(text):
            whole = next((symbol for symbol in self.user_symbols if text.startswith(symbol, place)), text[place])
            yield whole
            place += len(whole)

    def _split_words(self, symbols: list[str]) -> list[list[str]]:
        """Splits before each space, unless a token contains one in its middle: merging takes quadratic time."""
        if not self._words_are_separate:
            return [symbols]
        words: list[list[str]] = []
        for n, symbol in enumerate(symbols):
            if not words or (symbol.startswith(SPACE) and not symbols[n - 1].endswith(SPACE)):
                words.append([])
            words[-1].append(symbol)
        return words

    def _spell(self, symbol: str) -> tuple[int, ...]:
        """Returns the id of a token, or else the ids of its bytes, or else unknown."""
        if (token_id := self._ids.get(symbol)) is not None:
            return (token_id,)
        spelled = tuple(self.processor.piece_to_id(f"<0x{byte:02X}>") for byte in symbol.encode())
        return (self._unknown_id,) if self._unknown_id in spelled else spelled

    @cached_property
    def scores(self) -> np.ndarray:
        """float64 [vocabulary size]: log-probabilities, or for BPE the ranks of merges; higher ranks merge first."""
        size = self.processor.get_piece_size()
        return np.array([self.processor.get_score(token_id) for token_id in range(size)])

    @cached_property
    def _ids(self) -> dict[str, int]:
        ordinary = (n for n in range(len(self.scores)) if not self._is_special(n))
        return {self.processor.id_to_piece(n): n for n in ordinary}

    @cached_property
    def _ranks(self) -> dict[str, float]:
        return {token: float(self.scores[token_id]) for token, token_id in self._ids.items()}

    @cached_property
    def _unknown_id(self) -> int:
        return self.processor.unk_id()

    @cached_property
    def _unknown_score(self) -> float:
        return min(self._ranks.values(), default=0.0) - UNKNOWN_PENALTY

    @cached_property
    def _longest_token(self) -> int:
        return max(map(len, self._ranks), default=1)

    @cached_property
    def _words_are_separate(self) -> bool:
        return not any(SPACE in token.lstrip(SPACE) for token in self._ranks)

    @cached_property
    def _word_pattern(self) -> re.Pattern[str]:
        """Finds user symbols, and what is between them: words with the spaces before them, or all of it."""
        symbols = "|".join(map(re.escape, self.user_symbols))
        character = f"[^{SPACE}]" if self._words_are_separate else "."
        if symbols:
            character = f"(?:(?!{symbols}){character})"
        spaces = f"{SPACE}*" if self._words_are_separate else ""
        parts = [symbols, f"{spaces}{character}+", f"{SPACE}+"]
        return re.compile("|".join(part for part in parts if part), re.DOTALL)

    def _is_special(self, token_id: int) -> bool:
        processor = self.processor
        return processor.is_control(token_id) or processor.is_unknown(token_id) or processor.is_byte(token_id)


def draw_numbers(seed: int, keys: Sequence[int] | np.ndarray, num_words: Sequence[int] | np.ndarray) -> np.ndarray:
    """Draws 64 random bits for each word of each line: a function of the seed, the line's key and the word's place.

    Args:
        seed: 0 or more.
        keys: a number for each line, 0 or more.
        num_words: of each line.

    Returns:
        uint64 [number of words of all lines].
    """
    # A generator for each line would take longer to make than the line to draw.
    counts = np.array(num_words, dtype=np.int64)
    places = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    lines = _mix_array(np.array(keys, dtype=np.uint64) + np.uint64(_mix(seed)))
    return _mix_array(np.repeat(lines, counts) + places.astype(np.uint64))


def _mix(number: int) -> int:
    """Hashes a number as one step of SplitMix64 (Steele et al. 2014) does: 64 bits."""
    number = (number + 0x9E3779B97F4A7C15) & MASK_64
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & MASK_64
    number = (number ^ number >> 27) * 0x94D049BB133111EB & MASK_64
    return number ^ number >> 31


def _mix_array(numbers: np.ndarray) -> np.ndarray:
    """Does what `_mix` does to each of uint64 numbers [N], whose sums and products wrap around without a mask."""
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ numbers >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ numbers >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return numbers ^ numbers >> np.uint64(31)


def _join_unknowns(ids: list[int], unknown: int) -> list[int]:
    """Makes a run of unknown characters one unknown token, as SentencePiece does."""
    if unknown not in ids:
        return ids
    return [token_id for n, token_id in enumerate(ids) if token_id != unknown or n == 0 or ids[n - 1] != unknown]
