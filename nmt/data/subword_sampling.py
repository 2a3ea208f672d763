"""Subword sampling: segmentations drawn at random, the same ones in every process for the same random numbers.

SentencePiece samples too, but since 0.2.2 its generator gives other draws in every process, whatever its seed.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

# Kudo (2018, section 3.2) finds the 64 best segmentations as good as all of them.
NUM_CANDIDATES = 64
SPACE = "▁"


class SubwordSampler:
    """Draws segmentations with a SentencePiece model.

    Args:
        processor: SentencePieceProcessor of the model.
        is_bpe: whether the model is byte-pair encoding; otherwise it is unigram.
        user_symbols: strings that are always one token.
    """

    def __init__(self, processor: Any, *, is_bpe: bool, user_symbols: Sequence[str]):
        self.processor = processor
        self.is_bpe = is_bpe
        # Longest first, so that a symbol is found before another one that it begins with.
        self.user_symbols = sorted(user_symbols, key=len, reverse=True)

    def draw(self, text: str, *, alpha: float, random: np.random.Generator) -> list[int]:
        """Returns the token ids of one line; `alpha` as in `Tokenizer.sample`."""
        return self._draw_merges(text, alpha, random) if self.is_bpe else self._draw_from_best(text, alpha, random)

    def _draw_from_best(self, text: str, alpha: float, random: np.random.Generator) -> list[int]:
        """Draws one of the best segmentations, with its probability to the power of `alpha` (Kudo 2018)."""
        share = random.random()
        candidates = self.processor.nbest_encode_as_ids(text, nbest_size=NUM_CANDIDATES)
        if not candidates or not candidates[0]:
            return []
        log_probs = alpha * np.array([self.scores[ids].sum() for ids in candidates])
        # Relative to the largest, because exp of a long line's log-probability is 0.
        cumulative = np.cumsum(np.exp(log_probs - log_probs.max()))
        return candidates[int(np.searchsorted(cumulative, share * cumulative[-1], side="right"))]

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
        return _join_unknowns(ids, self.processor.unk_id())

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

    def _spell(self, symbol: str) -> list[int]:
        """Returns the id of a token, or else the ids of its bytes, or else unknown."""
        if symbol in self._ranks:
            return [self.processor.piece_to_id(symbol)]
        spelled = [self.processor.piece_to_id(f"<0x{byte:02X}>") for byte in symbol.encode()]
        unknown = self.processor.unk_id()
        return [unknown] if unknown in spelled else spelled

    @cached_property
    def scores(self) -> np.ndarray:
        """float64 [vocabulary size]: log-probabilities, or for BPE the ranks of merges; higher ranks merge first."""
        size = self.processor.get_piece_size()
        return np.array([self.processor.get_score(token_id) for token_id in range(size)])

    @cached_property
    def _ranks(self) -> dict[str, float]:
        ordinary = [n for n in range(len(self.scores)) if not self._is_special(n)]
        return {self.processor.id_to_piece(n): self.scores[n] for n in ordinary}

    @cached_property
    def _words_are_separate(self) -> bool:
        return not any(SPACE in token.lstrip(SPACE) for token in self._ranks)

    def _is_special(self, token_id: int) -> bool:
        processor = self.processor
        return processor.is_control(token_id) or processor.is_unknown(token_id) or processor.is_byte(token_id)


def _join_unknowns(ids: list[int], unknown: int) -> list[int]:
    """Makes a run of unknown characters one unknown token, as SentencePiece does."""
    return [token_id for n, token_id in enumerate(ids) if token_id != unknown or n == 0 or ids[n - 1] != unknown]
