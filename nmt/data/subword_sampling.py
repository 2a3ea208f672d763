"""Subword sampling: a segmentation drawn at random, the same one for the same random numbers, in every process.

SentencePiece samples too, but since 0.2.2 its generator gives other draws in every process, whatever its seed.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

# Kudo (2018, section 3.2) finds 64 of the best segmentations as good as all of them.
NUM_CANDIDATES = 64
SPACE = "▁"


class SubwordSampler:
    """Draws segmentations of one SentencePiece model.

    Args:
        processor: the model's SentencePieceProcessor.
        is_bpe: whether it is of byte-pair encoding, else of the unigram kind.
        user_symbols: pieces that are always kept whole.
    """

    def __init__(self, processor: Any, *, is_bpe: bool, user_symbols: Sequence[str]):
        self.processor = processor
        self.is_bpe = is_bpe
        self.user_symbols = sorted(user_symbols, key=len, reverse=True)

    def draw(self, text: str, *, alpha: float, random: np.random.Generator) -> list[int]:
        """The ids of one line; `alpha` as in `Tokenizer.sample`."""
        return self._draw_merges(text, alpha, random) if self.is_bpe else self._draw_from_best(text, alpha, random)

    @cached_property
    def scores(self) -> np.ndarray:
        """float64 [number of pieces]: log-probabilities, or for BPE ranks of merges, higher ones first."""
        size = self.processor.get_piece_size()
        return np.array([self.processor.get_score(piece) for piece in range(size)])

    @cached_property
    def _ranks(self) -> dict[str, float]:
        ordinary = [n for n in range(len(self.scores)) if not self._is_special(n)]
        return {self.processor.id_to_piece(n): self.scores[n] for n in ordinary}

    @cached_property
    def _words_are_apart(self) -> bool:
        return not any(SPACE in piece.lstrip(SPACE) for piece in self._ranks)

    def _is_special(self, piece: int) -> bool:
        processor = self.processor
        return processor.is_control(piece) or processor.is_unknown(piece) or processor.is_byte(piece)

    def _draw_from_best(self, text: str, alpha: float, random: np.random.Generator) -> list[int]:
        """One of the most probable segmentations, with its probability to the power of `alpha` (Kudo 2018)."""
        share = random.random()
        candidates = self.processor.nbest_encode_as_ids(text, nbest_size=NUM_CANDIDATES)
        if not candidates or not candidates[0]:
            return []
        log_probs = alpha * np.array([self.scores[ids].sum() for ids in candidates])
        reached = np.cumsum(np.exp(log_probs - log_probs.max()))
        return candidates[int(np.searchsorted(reached, share * reached[-1], side="right"))]

    def _draw_merges(self, text: str, alpha: float, random: np.random.Generator) -> list[int]:
        """Merges in order of rank, but drops each candidate of each round with probability `alpha` (Provilkov 2020)."""
        symbols = list(self._split_symbols(self.processor.normalize(text)))
        ids: list[int] = []
        for word in self._split_words(symbols):
            while pairs := self._draw_candidates(word, alpha, random):
                _, first = max(pairs, key=lambda pair: (pair[0], -pair[1]))
                word[first : first + 2] = [word[first] + word[first + 1]]
            ids += [piece for symbol in word for piece in self._spell(symbol)]
        return _join_unknowns(ids, self.processor.unk_id())

    def _draw_candidates(self, word: list[str], alpha: float, random: np.random.Generator) -> list[tuple[float, int]]:
        joined = [(self._ranks.get(a + b), n) for n, (a, b) in enumerate(pairwise(word))]
        possible = [(rank, n) for rank, n in joined if rank is not None]
        kept = random.random(len(possible)) >= alpha
        return [pair for pair, keep in zip(possible, kept, strict=True) if keep]

    def _split_symbols(self, text: str) -> Iterator[str]:
        """Characters, and user symbols in one piece."""
        place = 0
        while place < len(text):
            whole = next((symbol for symbol in self.user_symbols if text.startswith(symbol, place)), text[place])
            yield whole
            place += len(whole)

    def _split_words(self, symbols: list[str]) -> list[list[str]]:
        """Cuts before every space, where no piece reaches over one: merging is quadratic in the length."""
        if not self._words_are_apart:
            return [symbols]
        words: list[list[str]] = []
        for n, symbol in enumerate(symbols):
            if not words or (symbol.startswith(SPACE) and not symbols[n - 1].endswith(SPACE)):
                words.append([])
            words[-1].append(symbol)
        return words

    def _spell(self, symbol: str) -> list[int]:
        if symbol in self._ranks:
            return [self.processor.piece_to_id(symbol)]
        spelt = [self.processor.piece_to_id(f"<0x{byte:02X}>") for byte in symbol.encode()]
        unknown = self.processor.unk_id()
        return [unknown] if unknown in spelt else spelt


def _join_unknowns(ids: list[int], unknown: int) -> list[int]:
    """A run of unknown characters is one unknown piece, as in SentencePiece."""
    return [piece for n, piece in enumerate(ids) if piece != unknown or n == 0 or ids[n - 1] != unknown]
