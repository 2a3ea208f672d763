"""Optional filters for noisy parallel text. Every pair that a filter drops is counted and reported."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from nmt.data.corpus import ParallelCorpus, split_indices
from nmt.errors import UserError

# Duplicates are looked for in one group of hashes after the other, which bounds the memory that sorting takes.
NUM_HASH_GROUPS = 16
KEPT = -1  # the verdict on a pair that no filter drops


@dataclass(frozen=True)
class CleaningReport:
    """What cleaning kept and dropped.

    Attributes:
        num_pairs: sentence pairs before cleaning.
        kept: sentence pairs after it.
        dropped: pairs that each filter in use dropped, by the name of its argument, in the order of the filters.
    """

    num_pairs: int
    kept: int
    dropped: dict[str, int]

    @classmethod
    def count(cls, names: Sequence[str], verdicts: np.ndarray) -> "CleaningReport":
        """Counts the verdicts of `find_verdicts`."""
        dropped = {name: int(np.count_nonzero(verdicts == place)) for place, name in enumerate(names)}
        return cls(len(verdicts), int(np.count_nonzero(verdicts == KEPT)), dropped)

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
    """Selects the pairs to train on. A pair counts for the first filter that drops it, in the order of the arguments.

    Args:
        corpus: the pairs; their text is read for the last two filters only.
        lengths: int32 [num_pairs, 2], tokens of source and target.
        max_length: largest number of tokens on either side.
        max_ratio: largest ratio between the longer and the shorter side, in tokens. A pair with a side of no tokens is
            always dropped.
        drop_identical: drops pairs whose two sides are the same text.
        drop_duplicates: drops pairs that repeat both sides of an earlier pair.

    Returns:
        The indices of the pairs kept, int64 in ascending order, and the report.

    Raises:
        UserError: no pair is left.
    """
    names, verdicts = find_verdicts(
        corpus,
        lengths,
        max_length=max_length,
        max_ratio=max_ratio,
        drop_identical=drop_identical,
        drop_duplicates=drop_duplicates,
    )
    report = CleaningReport.count(names, verdicts)
    if not report.kept:
        raise UserError(f"Cleaning left no sentence pair to train on. Relax its limits.\n{report}")
    return np.flatnonzero(verdicts == KEPT), report


def find_verdicts(
    corpus: ParallelCorpus,
    lengths: np.ndarray,
    *,
    max_length: int | None,
    max_ratio: float | None,
    drop_identical: bool,
    drop_duplicates: bool,
) -> tuple[list[str], np.ndarray]:
    """Applies the filters of `clean`, whose arguments it has.

    Returns:
        The names of the filters in use, and for each pair KEPT or the place of the name of the filter that drops it:
        int8 [num_pairs].
    """
    assert lengths.shape == (len(corpus), 2)
    verdicts = np.full(len(corpus), KEPT, np.int8)
    # Generators, so that each filter starts after those before it have given their verdicts.
    filters: dict[str, Iterator[np.ndarray]] = {}
    if max_length is not None:
        filters["max_length"] = _find_failing(verdicts, partial(_is_longer, lengths, max_length))
    if max_ratio is not None:
        filters["max_ratio"] = _find_failing(verdicts, partial(_is_lopsided, lengths, max_ratio))
    if drop_identical:
        filters["drop_identical"] = _find_failing(verdicts, partial(_is_identical, corpus))
    if drop_duplicates:
        filters["drop_duplicates"] = _find_duplicates(verdicts, corpus)
    for place, dropping in enumerate(filters.values()):
        for pairs in dropping:
            verdicts[pairs] = place
    return list(filters), verdicts


def _find_failing(verdicts: np.ndarray, fails: Callable[[np.ndarray], np.ndarray]) -> Iterator[np.ndarray]:
    """Yields the pairs still kept for which `fails`, a function of pair indices, is true."""
    for pairs in _split_kept(verdicts):
        yield pairs[fails(pairs)]


def _split_kept(verdicts: np.ndarray) -> Iterator[np.ndarray]:
    for pairs in split_indices(len(verdicts)):
        yield pairs[verdicts[pairs] == KEPT]


def _is_longer(lengths: np.ndarray, max_length: int, pairs: np.ndarray) -> np.ndarray:
    return np.maximum(*lengths[pairs].T) > max_length


def _is_lopsided(lengths: np.ndarray, max_ratio: float, pairs: np.ndarray) -> np.ndarray:
    sides = lengths[pairs].T
    longer, shorter = np.maximum(*sides), np.minimum(*sides)
    # A quotient, because max_ratio * shorter can round to less than the limit that the user wrote.
    return (shorter == 0) | (longer / np.maximum(shorter, 1) > max_ratio)


def _is_identical(corpus: ParallelCorpus, pairs: np.ndarray) -> np.ndarray:
    return np.array([source == target for source, target in _read_texts(corpus, pairs)], dtype=bool)


def _find_duplicates(verdicts: np.ndarray, corpus: ParallelCorpus) -> Iterator[np.ndarray]:
    """Yields the pairs still kept that repeat an earlier one."""
    hashes = np.zeros(len(verdicts), dtype=np.int64)
    for pairs in _split_kept(verdicts):
        hashes[pairs] = [hash(pair) for pair in _read_texts(corpus, pairs)]
    for group in range(NUM_HASH_GROUPS):
        pairs = np.concatenate([pairs[hashes[pairs] % NUM_HASH_GROUPS == group] for pairs in _split_kept(verdicts)])
        yield from _find_repeated(corpus, pairs, hashes[pairs])


def _find_repeated(corpus: ParallelCorpus, pairs: np.ndarray, hashes: np.ndarray) -> Iterator[np.ndarray]:
    """Yields those of `pairs`, in ascending order, that have the text of an earlier one."""
    while len(pairs):
        _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        earlier = pairs[first[inverse]]
        later = earlier < pairs
        pairs, earlier, hashes = pairs[later], earlier[later], hashes[later]
        same = _is_same_text(corpus, pairs, earlier)
        yield pairs[same]
        # Pairs with the same hash but another text than the first may still repeat each other.
        pairs, hashes = pairs[~same], hashes[~same]


def _is_same_text(corpus: ParallelCorpus, pairs: np.ndarray, others: np.ndarray) -> np.ndarray:
    same = np.empty(len(pairs), dtype=bool)
    for chunk in split_indices(len(pairs)):
        texts = zip(_read_texts(corpus, pairs[chunk]), _read_texts(corpus, others[chunk]), strict=True)
        same[chunk] = [one == other for one, other in texts]
    return same


def _read_texts(corpus: ParallelCorpus, pairs: np.ndarray) -> Iterator[tuple[str, str]]:
    return zip(corpus.read_sources(pairs), corpus.read_targets(pairs), strict=True)
