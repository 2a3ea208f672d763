"""Weights of corpora and of sentence pairs: `data.train[].weight` and `data.train[].weights`.

The weight of a corpus sets how often its examples are read.

Every epoch takes the same number of examples from a corpus and, to within one, from each of its buckets of similar
length, so the number of batches and their shapes stay the same. Which examples are drawn is a function of (seed,
epoch): a bucket is read round by round, in a new random order in every round, and each epoch continues where the
previous one stopped. After any number of epochs, all examples of a corpus have been read equally often, to within one.

Shapes: N examples, of which M are drawn per epoch, some of them several times.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nmt.data.corpus import ParallelCorpus, TextFile, split_indices
from nmt.errors import UserError
from nmt.files import compute_digest

WEIGHT_DRAW = 4  # part of the seeds of rounds, which sets their draws apart from all others
MAX_SENTENCE_WEIGHT = 1000

FindKeys = Callable[[np.ndarray, int], np.ndarray]
"""Returns for each pair of a batch the number by which its draws differ from those of others in the same epoch."""


@dataclass(frozen=True)
class CorpusShares:
    """How many examples of each corpus an epoch has."""

    corpora: np.ndarray
    """int [N], the corpus of each example."""
    counts: Sequence[int]
    """Examples drawn from each corpus in an epoch."""


class WeightedDraw:
    """Draws the examples of each epoch.

    Args:
        shares: how many examples come from each corpus.
        bucket_ids: int [N], the bucket of each example, from 0.
        num_buckets: number of buckets.
        seed: seed of all draws.
    """

    def __init__(self, shares: CorpusShares, bucket_ids: np.ndarray, num_buckets: int, *, seed: int):
        self.counts = shares.counts
        self.seed = seed
        self._members = []
        self._sizes = []
        for corpus in range(len(shares.counts)):
            members = np.flatnonzero(shares.corpora == corpus).astype(np.int32)
            buckets = bucket_ids[members]
            self._members.append(members[np.argsort(buckets, kind="stable")])
            self._sizes.append(np.bincount(buckets, minlength=num_buckets))

    def count_places(self) -> np.ndarray:
        """Returns for how many examples of each bucket a plan needs room: int64 [number of buckets], M together.

        An epoch has at most so many examples in a bucket and all larger ones together. If it has fewer, examples of
        the next smaller bucket take their places, into which they fit.
        """
        upwards = np.zeros(len(self._sizes[0]) + 1, dtype=np.int64)
        for sizes, count in zip(self._sizes, self.counts, strict=True):
            if total := int(sizes.sum()):
                whole, rest = divmod(count, total)
                at_least = np.cumsum(sizes[::-1])[::-1]  # examples in this bucket and all larger ones
                upwards[:-1] += at_least * whole - (-at_least * rest // total)
        return upwards[:-1] - upwards[1:]

    def draw_epoch(self, epoch: int) -> np.ndarray:
        """Returns the examples of an epoch, counted from 0: int32 [M], ordered by corpus and bucket."""
        return np.concatenate([part for corpus in range(len(self.counts)) for part in self._draw(corpus, epoch)])

    def _draw(self, corpus: int, epoch: int) -> Iterator[np.ndarray]:
        members, sizes, count = self._members[corpus], self._sizes[corpus], self.counts[corpus]
        before, after = (_count_draws(len(members), count, epochs) for epochs in (epoch, epoch + 1))
        ends = np.cumsum(sizes)
        for bucket in np.flatnonzero(sizes):
            place = slice(ends[bucket] - sizes[bucket], ends[bucket])
            start = int(before[place].sum())
            seed = (self.seed, corpus, int(bucket))
            yield _read_rounds(members[place], start, int(after[place].sum()) - start, seed)


def keep_keys(pairs: np.ndarray, batch: int) -> np.ndarray:
    """Returns the pairs themselves as keys of draws, where an epoch reads none of them twice."""
    return pairs


def tell_copies_apart(pairs: np.ndarray, batch: int) -> np.ndarray:
    """Returns keys of draws that differ between the copies of a pair in an epoch: int64 [B] for pairs [B] of a batch.

    >>> tell_copies_apart(np.array([7, 5, 7]), 0).tolist()
    [7, 5, 4294967303]
    """
    order = np.argsort(pairs, kind="stable")
    copies = np.empty(len(pairs), np.int64)
    copies[order] = np.arange(len(pairs)) - np.searchsorted(pairs[order], pairs[order])
    # 32 bits for the pair and 10 for its copies in a batch, of which there are no more than the largest weight.
    return pairs + ((batch << 10) + copies << 32)


def _count_draws(size: int, count: int, epochs: int) -> np.ndarray:
    """Counts the draws of each rank in the first epochs, if an epoch draws `count` of `size` examples evenly.

    In any epoch the ranks from a to b are drawn (b - a) count / size times, rounded up or down. In any number of
    epochs, so is each rank.

    Returns:
        int64 [size].
    """
    ranks = np.arange(size, dtype=np.int64)
    whole, rest = divmod(count, max(1, size))
    return epochs * whole + (ranks + epochs) * rest // size - ranks * rest // size


def _read_rounds(members: np.ndarray, start: int, count: int, seed: tuple[int, ...]) -> np.ndarray:
    """Reads `count` places from `start` on of an endless row, in which all members follow, in a new order per round."""
    first, end = start // len(members), -(-(start + count) // len(members))
    rounds = [np.random.default_rng([*seed, number, WEIGHT_DRAW]).permutation(members) for number in range(first, end)]
    return np.concatenate([*rounds, members[:0]])[start - first * len(members) :][:count]


@dataclass(frozen=True)
class SentenceWeights:
    """A factor for the loss of each pair."""

    values: np.ndarray
    """float32 [pairs of the corpus]; 1 in corpora without weights."""
    fingerprint: str
    """Digest of all files."""

    @classmethod
    def read(cls, paths: Sequence[Path | None], corpus: ParallelCorpus, cache: Path) -> "SentenceWeights":
        """Reads the files of a corpus, one number per line.

        Args:
            paths: a file for each pair of files that the corpus consists of; None for none.
            corpus: the pairs.
            cache: folder for the line indexes.

        Raises:
            UserError: a file is missing, a line is not a number in the allowed range, or the number of lines differs
                from that of the pairs.
        """
        pairs = np.arange(len(corpus))
        corpora, lines = corpus.find_corpora(pairs), corpus.find_lines(pairs)
        values = np.ones(len(corpus), np.float32)
        digests = []
        for number, path in enumerate(paths):
            if path is not None:
                text = TextFile.open(path, cache)
                if len(text) != (count := corpus.count_lines(number)):
                    raise UserError(
                        f"data.train.{number}.weights: expected a number for each of the {count:,} lines of the "
                        f"corpus, found {len(text):,} lines in {path}."
                    )
                here = corpora == number
                values[here] = _read_numbers(text)[lines[here]]
                digests.append(text.fingerprint)
        return cls(values, compute_digest("".join(digests).encode()))


def _read_numbers(text: TextFile) -> np.ndarray:
    """Returns the number on each line: float32.

    Raises:
        UserError: a line is not a number above 0, or larger than `MAX_SENTENCE_WEIGHT`.
    """
    numbers = np.empty(len(text), np.float32)
    for rows in split_indices(len(text)):
        lines = text.read_lines(rows)
        with np.errstate(over="ignore"):  # refused below
            numbers[rows] = [_parse(line) for line in lines]
        for bad in np.flatnonzero(~((numbers[rows] > 0) & (numbers[rows] <= MAX_SENTENCE_WEIGHT)))[:1]:
            raise UserError(
                f"{text.path}:{rows[bad] + 1}: expected a weight above 0 and at most {MAX_SENTENCE_WEIGHT:,}, found "
                f"{lines[bad][:40]!r}."
            )
    return numbers


def _parse(line: str) -> float:
    try:
        return float(line)
    except ValueError:
        return float("nan")
