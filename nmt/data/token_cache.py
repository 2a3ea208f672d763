"""The training text in pieces: the best segmentation, made once and kept on disk, or one drawn anew every time."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np

from nmt.data.batching import derive_seed
from nmt.data.corpus import CHUNK_PAIRS, ParallelCorpus
from nmt.data.tokenizer import Tokenizer
from nmt.files import written_aside


class CachedTokens:
    """The most probable pieces of both sides of every pair, mapped from files, so that a batch need not segment.

    A GPU learns from a batch in less time than its text takes to segment.
    """

    lengths: np.ndarray
    """int32 [pairs, 2], pieces of source and target, EOS not counted."""

    def __init__(self, lengths: Path, starts: Path, ids: Path):
        self.lengths, self._starts, mapped = (np.load(path, mmap_mode="r") for path in (lengths, starts, ids))
        self._ids = mapped.view(np.ndarray)  # a memmap takes long to slice

    @classmethod
    def open(cls, corpus: ParallelCorpus, source: Tokenizer, target: Tokenizer, cache: Path) -> "CachedTokens":
        """Finds the pieces of a corpus in a cache folder, or segments it, also where a file there was cut short.

        Raises:
            UserError: the folder cannot be written to, or the disk is full.
        """
        key = "-".join(name[:12] for name in (corpus.fingerprint, source.fingerprint, target.fingerprint))
        files = [cache / f"{kind}.{key}.npy" for kind in ("lengths", "starts", "pieces")]
        try:
            return cls(*files)
        except (OSError, ValueError):
            # Another run may do the same at the same time: whose files come last, they say the same.
            with written_aside(files[0]) as lengths, written_aside(files[1]) as starts, written_aside(files[2]) as ids:
                _write_tokens(lengths, starts, ids, corpus, source, target)
        return cls(*files)

    def read_ids(self, pairs: np.ndarray, *, epoch: int, batch: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The pieces of both sides of some pairs, the same in every epoch."""
        source, target = (self._read_side(side, pairs) for side in (0, 1))
        return source, target

    def _read_side(self, side: int, pairs: np.ndarray) -> list[np.ndarray]:
        starts = self._starts[pairs, side]
        ends = starts + self.lengths[pairs, side]
        return [self._ids[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


class SampledTokens:
    """Pieces drawn at random (subword regularisation, Kudo 2018): a pure function of seed, epoch and batch.

    Args:
        corpus: the parallel text.
        source, target: its tokenizers.
        alpha: smoothing, as in `Tokenizer.sample`.
        seed: of all draws.
    """

    def __init__(self, corpus: ParallelCorpus, source: Tokenizer, target: Tokenizer, *, alpha: float, seed: int):
        self.corpus = corpus
        self.tokenizers = (source, target)
        self.alpha = alpha
        self.seed = seed

    def read_ids(self, pairs: np.ndarray, *, epoch: int, batch: int) -> tuple[list[list[int]], list[list[int]]]:
        """Pieces of both sides of some pairs, as drawn for a batch of an epoch."""
        texts = self.corpus.read_sources(pairs), self.corpus.read_targets(pairs)
        source, target = (
            tokenizer.sample(lines, seed=derive_seed(self.seed, epoch, batch, side), alpha=self.alpha)
            for side, (tokenizer, lines) in enumerate(zip(self.tokenizers, texts, strict=True))
        )
        return source, target


def chunks(corpus: ParallelCorpus) -> Iterator[np.ndarray]:
    """The indices of all pairs, some at a time."""
    for start in range(0, len(corpus), CHUNK_PAIRS):
        yield np.arange(start, min(start + CHUNK_PAIRS, len(corpus)))


def _write_tokens(
    lengths: Path, starts: Path, ids: Path, corpus: ParallelCorpus, source: Tokenizer, target: Tokenizer
) -> None:
    """Writes, pair by pair, how many pieces source and target have, where they begin, and the pieces."""
    narrow = max(source.vocabulary_size, target.vocabulary_size) <= 1 << 16
    dtype = np.dtype("<u2" if narrow else "<i4")
    written = 0
    # As they come: a mapping that is written to would die of a full disk.
    with lengths.open("wb") as lengths_file, starts.open("wb") as starts_file, ids.open("wb") as ids_file:
        _write_header(lengths_file, np.dtype("<i4"), (len(corpus), 2))
        _write_header(starts_file, np.dtype("<i8"), (len(corpus), 2))
        _write_header(ids_file, dtype, (0,))
        for pairs in chunks(corpus):
            sides = source.encode(corpus.read_sources(pairs)), target.encode(corpus.read_targets(pairs))
            rows: Sequence[Sequence[int]] = list(chain.from_iterable(zip(*sides, strict=True)))
            sizes = np.array([len(row) for row in rows], dtype="<i4")
            ends = written + np.cumsum(sizes, dtype="<i8")
            lengths_file.write(sizes.data)
            starts_file.write((ends - sizes).data)
            ids_file.write(np.fromiter(chain.from_iterable(rows), dtype, int(sizes.sum())).data)
            written = int(ends[-1])
        ids_file.seek(0)
        _write_header(ids_file, dtype, (written,))


def _write_header(file: BinaryIO, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """Begins an array of NumPy's format; the header of another shape is as long."""
    np.lib.format.write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": shape})
