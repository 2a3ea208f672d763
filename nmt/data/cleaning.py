"""Optional filters for noisy parallel text, each counted, so that nobody trains on less than they think."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from nmt.data.corpus import ParallelCorpus, split_indices
from nmt.errors import UserError

NUM_HASH_GROUPS = 16


@dataclass(frozen=True)
class CleaningReport:
    """How many pairs there were, how many are left, and how many each filter dropped.

    Attributes:
        dropped: only the filters in use, by the name of their argument and in their order.
    """

    num_pairs: int
    kept: int
    dropped: dict[str, int]

    def __str__(self) -> str:
        filters = (f"  {name}: {count:,} dropped" for name, count in self.dropped.items())
        return "\n".join([f"{self.kept:,} of {self.num_pairs:,} sentence pairs kept", *filters])


def clean(
    corpus: ParallelCorpus,
    lengths: np.ndarray,
    *,
    max_length: int | None,
    max_ratio: float | None,
    drop_identical: bool,
    drop_duplicates: bool,
) -> tuple[np.ndarray, CleaningReport]:
    """Chooses the pairs to train on. A pair counts under the first filter that drops it, in the order of the arguments.

    Args:
        corpus: the pairs, whose text is read only for the last two filters.
        lengths: int32 [num_pairs, 2], pieces of the source and of the target.
        max_length: the most pieces either side may have.
        max_ratio: how many times longer one side may be than the other, in pieces. Beside a side of no pieces every
            other is infinitely longer.
        drop_identical: whether pairs go whose two sides are the same text.
        drop_duplicates: whether pairs go that repeat an earlier pair, both sides of it.

    Returns:
        The indices of the pairs kept, int64 in rising order, and the report.

    Raises:
        UserError: no pair is left.
    """
    assert lengths.shape == (len(corpus), 2)
    kept = np.ones(len(corpus), dtype=bool)
    # Generators: each begins its work only when those before it have cleared their pairs from `kept`.
    filters: dict[str, Iterator[np.ndarray]] = {}
    if max_length is not None:
        filters["max_length"] = _find_failing(kept, partial(_is_longer, lengths, max_length))
    if max_ratio is not None:
        filters["max_ratio"] = _find_failing(kept, partial(_is_lopsided, lengths, max_ratio))
    if drop_identical:
        filters["drop_identical"] = _find_failing(kept, partial(_is_identical, corpus))
    if drop_duplicates:
        filters["drop_duplicates"] = _find_duplicates(kept, corpus)
    dropped = {name: _drop(kept, pairs) for name, pairs in filters.items()}
    report = CleaningReport(num_pairs=len(corpus), kept=int(np.count_nonzero(kept)), dropped=dropped)
    if not report.kept:
        raise UserError(f"Cleaning left no sentence pair to train on; loosen its limits.\n{report}")
    return np.flatnonzero(kept), report


def _drop(kept: np.ndarray, dropping: Iterator[np.ndarray]) -> int:
    count = 0
    for pairs in dropping:
        kept[pairs] = False
        count += len(pairs)
    return count


def _find_failing(kept: np.ndarray, fails: Callable[[np.ndarray], np.ndarray]) -> Iterator[np.ndarray]:
    """Yields the pairs still kept for which `fails`, a function of pair indices, is true."""
    for pairs in _split_kept(kept):
        yield pairs[fails(pairs)]


def _split_kept(kept: np.ndarray) -> Iterator[np.ndarray]:
    for pairs in split_indices(len(kept)):
        yield pairs[kept[pairs]]


def _is_longer(lengths: np.ndarray, max_length: int, pairs: np.ndarray) -> np.ndarray:
    return np.maximum(*lengths[pairs].T) > max_length


def _is_lopsided(lengths: np.ndarray, max_ratio: float, pairs: np.ndarray) -> np.ndarray:
    sides = lengths[pairs].T
    longer, shorter = np.maximum(*sides), np.minimum(*sides)
    return (shorter == 0) | (longer / np.maximum(shorter, 1) > max_ratio)


def _is_identical(corpus: ParallelCorpus, pairs: np.ndarray) -> np.ndarray:
    return np.array([source == target for source, target in _read_texts(corpus, pairs)], dtype=bool)


def _find_duplicates(kept: np.ndarray, corpus: ParallelCorpus) -> Iterator[np.ndarray]:
    """Yields the pairs still kept whose text an earlier one has, bucket of hashes by bucket, to spare memory."""
    hashes = np.zeros(len(kept), dtype=np.int64)
    for pairs in _split_kept(kept):
        hashes[pairs] = [hash(pair) for pair in _read_texts(corpus, pairs)]
    for bucket in range(NUM_HASH_GROUPS):
        pairs = np.concatenate([pairs[hashes[pairs] % NUM_HASH_GROUPS == bucket] for pairs in _split_kept(kept)])
        yield from _find_repeated(corpus, pairs, hashes[pairs])


def _find_repeated(corpus: ParallelCorpus, pairs: np.ndarray, hashes: np.ndarray) -> Iterator[np.ndarray]:
    """Yields those of `pairs`, in rising order, that have the text of an earlier one."""
    while len(pairs):
        _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        earlier = pairs[first[inverse]]
        later = earlier < pairs
        pairs, earlier, hashes = pairs[later], earlier[later], hashes[later]
        same = _is_same_text(corpus, pairs, earlier)
        yield pairs[same]
        # Other text with the same hash may still repeat among itself.
        pairs, hashes = pairs[~same], hashes[~same]


def _is_same_text(corpus: ParallelCorpus, pairs: np.ndarray, others: np.ndarray) -> np.ndarray:
    same = np.empty(len(pairs), dtype=bool)
    for chunk in split_indices(len(pairs)):
        texts = zip(_read_texts(corpus, pairs[chunk]), _read_texts(corpus, others[chunk]), strict=True)
        same[chunk] = [one == other for one, other in texts]
    return same


def _read_texts(corpus: ParallelCorpus, pairs: np.ndarray) -> Iterator[tuple[str, str]]:
    return zip(corpus.read_sources(pairs), corpus.read_targets(pairs), strict=True)
