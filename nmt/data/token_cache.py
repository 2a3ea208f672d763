"""The training corpus as token ids: the best segmentation, cached on disk, or one sampled in every epoch."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from nmt.data.batching import derive_seed
from nmt.data.corpus import DamagedCacheError, ParallelCorpus, map_array, open_growing_array, split_indices
from nmt.data.tokenizer import Tokenizer
from nmt.data.weighting import FindKeys, keep_keys

# Pairs that are sampled to estimate by how much sampling lengthens a side.
GROWTH_PAIRS = 2000
# Lengths (32 bits) and starts (64 bits) of the two sides of a pair in the cache.
PAIR_BYTES = 2 * 4 + 2 * 8


class CachedTokens:
    """The most probable tokens of both sides of every pair, mapped from files.

    Segmenting the text of a batch can take longer than a GPU needs for its update.
    """

    lengths: np.ndarray
    """int32 [pairs, 2], source and target tokens of each pair, without EOS."""

    def __init__(self, files: Sequence[Path], tokenizers: tuple[Tokenizer, Tokenizer]):
        self.tokenizers = tokenizers
        self.lengths, self._starts, self._ids = map(map_array, files)

    @classmethod
    def open(cls, corpus: ParallelCorpus, source: Tokenizer, target: Tokenizer, cache: Path) -> "CachedTokens":
        """Opens the tokens of a corpus in a cache folder. Where they are missing or damaged, the corpus is segmented.

        Raises:
            UserError: the folder cannot be written to, or the disk is full.
        """
        files = cls.find_files(corpus, source, target, cache)
        try:
            return cls(files, (source, target))
        except (OSError, DamagedCacheError):
            # Another run may write the same files at the same time. That is safe: the key names the content, and each
            # file replaces the other run's as a whole.
            _write_tokens(files, corpus, source, target)
        return cls(files, (source, target))

    @classmethod
    def find_files(cls, corpus: ParallelCorpus, source: Tokenizer, target: Tokenizer, cache: Path) -> list[Path]:
        """Returns the paths of the lengths, starts and ids of a corpus, whether they exist or not."""
        key = "-".join(name[:12] for name in (corpus.fingerprint, source.fingerprint, target.fingerprint))
        return [cache / f"{kind}.{key}.npy" for kind in ("lengths", "starts", "tokens")]

    def read_ids(self, pairs: np.ndarray, *, epoch: int, batch: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Returns the ids of both sides of these pairs, the same ones in every epoch."""
        source, target = (self._read_side(side, pairs) for side in (0, 1))
        return source, target

    def encode_side(self, side: int, texts: Sequence[str], *, keys: np.ndarray, epoch: int) -> list[list[int]]:
        """Returns the ids of other texts, as sources (side 0) or targets (side 1)."""
        return self.tokenizers[side].encode(texts)

    def _read_side(self, side: int, pairs: np.ndarray) -> list[np.ndarray]:
        starts = self._starts[pairs, side]
        ends = starts + self.lengths[pairs, side]
        return [self._ids[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


def _write_tokens(files: Sequence[Path], corpus: ParallelCorpus, source: Tokenizer, target: Tokenizer) -> None:
    """Writes three arrays: tokens of each side of each pair, where they start, and all ids one after the other."""
    # 16 bits for most vocabularies: half the disk, and half of what a batch reads.
    is_narrow = max(source.vocabulary_size, target.vocabulary_size) <= 1 << 16
    dtype = "<u2" if is_narrow else "<i4"
    written = 0
    with (
        open_growing_array(files[0], "<i4", columns=2) as append_lengths,
        open_growing_array(files[1], "<i8", columns=2) as append_starts,
        open_growing_array(files[2], dtype) as append_ids,
    ):
        for pairs in split_indices(len(corpus)):
            sides = source.encode(corpus.read_sources(pairs)), target.encode(corpus.read_targets(pairs))
            rows: Sequence[Sequence[int]] = list(chain.from_iterable(zip(*sides, strict=True)))
            sizes = np.array([len(row) for row in rows])
            ends = written + np.cumsum(sizes)
            append_lengths(sizes)
            append_starts(ends - sizes)
            append_ids(np.fromiter(chain.from_iterable(rows), dtype, int(sizes.sum())))
            written = int(ends[-1])


class SampledTokens:
    """Tokens sampled in every epoch (subword regularization, Kudo 2018): a pure function of seed, epoch and key.

    Args:
        corpus: the parallel text.
        source: tokenizer of the source side.
        target: tokenizer of the target side.
        alpha: smoothing or dropout, as in `Tokenizer.sample`.
        seed: seed of all draws.
        find_keys: returns the keys of pairs in a batch.
    """

    def __init__(
        self,
        corpus: ParallelCorpus,
        source: Tokenizer,
        target: Tokenizer,
        *,
        alpha: float,
        seed: int,
        find_keys: FindKeys = keep_keys,
    ):
        self.corpus = corpus
        self.find_keys = find_keys
        self.tokenizers = (source, target)
        self.alpha = alpha
        self.seed = seed

    def read_ids(self, pairs: np.ndarray, *, epoch: int, batch: int) -> tuple[list[list[int]], list[list[int]]]:
        """Returns the ids of both sides of these pairs, as sampled in this epoch."""
        texts = self.corpus.read_sources(pairs), self.corpus.read_targets(pairs)
        keys = self.find_keys(pairs, batch)
        source, target = (self.encode_side(side, lines, keys=keys, epoch=epoch) for side, lines in enumerate(texts))
        return source, target

    def encode_side(self, side: int, texts: Sequence[str], *, keys: np.ndarray, epoch: int) -> list[list[int]]:
        """Samples the ids of texts, as sources (side 0) or targets (side 1); `keys` are as in `Tokenizer.sample`."""
        seed = derive_seed(self.seed, epoch, side)
        return self.tokenizers[side].sample(texts, seed=seed, alpha=self.alpha, keys=keys)

    def estimate_growth(self, best_lengths: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """Estimates by what factor sampling lengthens the sides of pairs, for a plan of their batches.

        Args:
            best_lengths: int [corpus pairs, 2], tokens of the best segmentations, without EOS.
            pairs: int [N], the pairs of the corpus to plan for.

        Returns:
            float64 [2]: for source and target, the factor that nine in ten sides do not exceed, at least 1.
        """
        # The mean would leave half of the sides longer than planned. A batch is as long as the longest of them.
        some = np.random.default_rng(self.seed).choice(pairs, min(GROWTH_PAIRS, len(pairs)), replace=False)
        sides = self.read_ids(some, epoch=0, batch=0)
        lengths = np.array([[len(ids) for ids in side] for side in sides]).T
        return np.maximum(1, np.quantile((lengths + 1) / (best_lengths[some] + 1), 0.9, axis=0))  # with EOS
