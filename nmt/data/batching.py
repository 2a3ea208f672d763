"""Batches: which sentence pairs form batch k of epoch e, and the padded arrays made of them.

The order of the data is a pure function of (seed, epoch). A run therefore resumes exactly from two numbers, its epoch
and its batch.

Shapes: N sentence pairs; B rows in a batch; S and T tokens in its longest source and target, EOS included.
"""

import hashlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from nmt.data.tokenizer import EOS_ID, PAD_ID
from nmt.data.weighting import CorpusShares, WeightedDraw

NUM_BUCKETS = 12
# Pairs are shuffled, and then sorted by length within pools of this many batches. Larger pools need less padding.
BATCHES_PER_POOL = 48
# Sorted exactly, a pair would have nearly the same neighbours in every epoch. So target lengths are compared in ranges
# of TARGET_RANGE tokens, and source lengths with up to SOURCE_NOISE tokens of noise. Large pools and the alternating
# order make up for the padding that this adds (`python -m benchmarks.batch_plan`).
TARGET_RANGE, SOURCE_NOISE = 3, 2.0
# Longer pairs are counted in steps of several tokens, since the table of all pairs of lengths grows with their square.
MAX_TABLE_SIDE = 2048
POOL_DRAW = 3  # part of the seeds of pools, which sets their draws apart from all others

Item = TypeVar("Item")


class BatchPlan:
    """Assigns sentence pairs to batches, epoch by epoch.

    Pairs are grouped into buckets of similar length and cut into batches within their bucket, so that little of a
    batch is padding. The last batch of a bucket is filled with pairs of the next smaller one.

    Args:
        lengths: int [N, 2], source and target tokens of each pair, EOS included; N is at least 1.
        by: what `size` counts: sentence pairs, or target tokens with their padding.
        size: largest size of a batch.
        seed: seed of the order.
        shares: how many pairs of each corpus an epoch has; None for every pair once.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        *,
        by: Literal["tokens", "sentences"],
        size: int,
        seed: int,
        shares: CorpusShares | None = None,
    ):
        self.lengths = lengths
        self.seed = seed
        self.buckets = fit_buckets(lengths)
        self.bucket_ids = self.buckets.assign(lengths)
        self.rows = [size if by == "sentences" else max(1, size // int(length)) for length in self.buckets.target]
        self._draw = None if shares is None else WeightedDraw(shares, self.bucket_ids, len(self.rows), seed=seed)
        counts = self._draw.count_places() if self._draw else np.bincount(self.bucket_ids, minlength=len(self.rows))
        self._cuts = _cut_batches(counts, self.rows)
        # The last epoch and its batches. In one object, because several threads draw epochs.
        self._drawn: tuple[int, EpochBatches] | None = None

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """Rows, source length and target length of a full batch of each bucket."""
        return list(zip(self.rows, self.buckets.source.tolist(), self.buckets.target.tolist(), strict=True))

    @property
    def num_batches(self) -> int:
        """Number of batches in an epoch."""
        return len(self._cuts)

    def draw_epoch(self, epoch: int) -> "EpochBatches":
        """Returns the batches of an epoch, counted from 0.

        Every pair is in exactly one batch, unless corpora have weights.
        """
        drawn = self._drawn
        if drawn is None or epoch != drawn[0]:
            drawn = self._drawn = epoch, self._order(epoch)
        return drawn[1]

    def _order(self, epoch: int) -> "EpochBatches":
        random = np.random.default_rng([self.seed, epoch])
        pairs = self._draw.draw_epoch(epoch) if self._draw else np.arange(len(self.lengths), dtype=np.int32)
        order = random.permutation(pairs)
        bucket_ids = self.bucket_ids[order]
        # The same as a stable argsort by bucket, in a fraction of its memory.
        order = np.concatenate([order[bucket_ids == bucket] for bucket in range(len(self.rows))])
        cut_order = random.permutation(self.num_batches)
        return EpochBatches(self.lengths, order, self._cuts, cut_order, seed=(self.seed, epoch))


class EpochBatches(Sequence[np.ndarray]):
    """The batches of one epoch, each an array of pair indices.

    A pool is sorted when the first of its batches is requested, so that an epoch of millions of pairs starts at once.

    Args:
        lengths: int [N, 2], of each pair.
        order: int [N], the pairs in the order in which they are cut.
        cuts: int [number of batches, 4], from `_cut_batches`.
        cut_order: int [number of batches], the cut that each batch takes.
        seed: seed of the plan and epoch.
    """

    def __init__(
        self, lengths: np.ndarray, order: np.ndarray, cuts: np.ndarray, cut_order: np.ndarray, *, seed: tuple[int, int]
    ):
        self._lengths, self._order, self._cuts, self._cut_order = lengths, order, cuts, cut_order
        self._seed = seed
        self._pools: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._cut_order)

    def __getitem__(self, index: Any) -> Any:
        first, last, start, end = self._cuts[self._cut_order[index]].tolist()
        pool = self._pools.get(start)
        if pool is None:
            pool = self._order[start:end]
            pool = pool[_sort_roughly(self._lengths[pool], np.random.default_rng([*self._seed, start, POOL_DRAW]))]
            self._pools[start] = pool
        return pool[first - start : last - start]


def _sort_roughly(lengths: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Sorts pairs by target length and then by source length, each with a tolerance: int [N] for lengths [N, 2]."""
    ranges = (lengths[:, 1] + random.integers(TARGET_RANGE)) // TARGET_RANGE
    source = lengths[:, 0] + SOURCE_NOISE * random.random(len(lengths))
    # Up and down in turn, so that a batch across two ranges holds long sources of both or short ones of both.
    return np.lexsort([np.where(ranges % 2, source, -source), ranges])


def _cut_batches(counts: np.ndarray, rows: Sequence[int]) -> np.ndarray:
    """Cuts pairs that are ordered by bucket into batches.

    Args:
        counts: int [number of buckets], pairs in each bucket.
        rows: rows of a full batch of each bucket.

    Returns:
        int64 [number of batches, 4]: start and end of the batch, then start and end of its pool; longest pairs first.
    """
    total = end = int(counts.sum())
    num_batches = []
    for first, size in reversed(list(zip(np.cumsum(counts) - counts, rows, strict=True))):
        # The last batch of a bucket is filled with pairs of the next smaller one, which fit into it.
        num_batches.append(max(0, -((first - end) // size)))
        end -= num_batches[-1] * size
    sizes = _spread_rest(np.repeat(rows[::-1], num_batches), total)
    ends = total - np.cumsum(sizes) + sizes
    # Pools do not cross buckets; the last pool of a bucket is smaller.
    numbers = np.concatenate([np.arange(count) // BATCHES_PER_POOL for count in num_batches])
    buckets = np.repeat(np.arange(len(rows)), num_batches)
    is_first = np.diff(buckets * (len(sizes) + 1) + numbers, prepend=-1) != 0
    pools = np.cumsum(is_first) - 1
    pool_ends = ends[is_first]
    pool_starts = np.append(pool_ends[1:], 0)
    return np.stack([ends - sizes, ends, pool_starts[pools], pool_ends[pools]], axis=1)


def _spread_rest(sizes: np.ndarray, total: int) -> np.ndarray:
    """Shrinks the last batches evenly, so that all batches together hold a number of pairs.

    Only the batches at the end that have the same size shrink. A single small batch would get as large an update as a
    full one.

    Args:
        sizes: int [number of batches], the sizes of full batches, with room for `total` pairs and less than one batch
            to spare.
        total: number of pairs.
    """
    start = int(np.flatnonzero(np.append(True, sizes != sizes[-1]))[-1])
    left, count = total - int(sizes[:start].sum()), len(sizes) - start
    return np.append(sizes[:start], left // count + (np.arange(count) < left % count))


@dataclass(frozen=True)
class Buckets:
    """A chain of shapes (source length, target length), each at least as large on both sides as the one before.

    A pair belongs to the first bucket that holds both of its sides. Where a function is compiled per shape, the number
    of buckets bounds the number of compilations.
    """

    source: np.ndarray
    """int64 [number of buckets], largest source length, ascending."""
    target: np.ndarray
    """int64 [number of buckets], largest target length, ascending."""

    def assign(self, lengths: np.ndarray) -> np.ndarray:
        """Returns the bucket of each pair: int8 [N] for lengths [N, 2]; the number of buckets where none is large
        enough."""
        sides = zip((self.source, self.target), lengths.T, strict=True)
        # A table over all lengths, then one lookup per pair: for millions of pairs ten times as fast as searching.
        tables = [(np.searchsorted(chain, np.arange(side.max() + 1)).astype(np.int8), side) for chain, side in sides]
        return np.maximum(*(table[side] for table, side in tables))


def fit_buckets(lengths: np.ndarray, num_buckets: int = NUM_BUCKETS) -> Buckets:
    """Finds buckets that pad pairs of these lengths [N, 2] little, by coordinate descent from quantiles.

    Returns:
        At most `num_buckets` buckets; the last one holds every pair.
    """
    unit = -(-int(lengths.max()) // MAX_TABLE_SIDE)
    within = _count_within(lengths, unit)
    shares = np.linspace(0, 1, num_buckets + 1)[1:]
    # The start: on each side alone, the shortest length that holds such a share of the pairs. The margin keeps a share
    # that is exact in theory from being missed by a rounding error.
    chain = np.stack([np.searchsorted(side / len(lengths), shares - 1e-12) for side in (within[:, -1], within[-1])], 1)
    cost = _count_padded(chain, within)
    improved = True
    while improved:
        improved = False
        for candidate in _vary(chain):
            candidate_cost = _count_padded(candidate, within)
            if candidate_cost < cost:
                chain, cost, improved = candidate, candidate_cost, True
    chain = np.minimum(unit * np.unique(chain, axis=0), lengths.max(axis=0))
    return Buckets(chain[:, 0], chain[:, 1])


def _count_within(lengths: np.ndarray, unit: int) -> np.ndarray:
    """Counts the pairs with at most s source and t target tokens: int64 [longest source + 1, longest target + 1].

    Lengths are counted in units of several tokens, rounded up.
    """
    shape = tuple(-(-int(side.max()) // unit) + 1 for side in lengths.T)
    cells = np.zeros(shape[0] * shape[1], dtype=np.int64)
    for start in range(0, len(lengths), 1 << 20):  # bounds the memory needed besides the lengths themselves
        chunk = lengths[start : start + (1 << 20)].astype(np.int64)
        if unit > 1:
            chunk = -(-chunk // unit)
        cells += np.bincount(chunk[:, 0] * shape[1] + chunk[:, 1], minlength=len(cells))
    return cells.reshape(shape).cumsum(axis=0).cumsum(axis=1)


def _vary(chain: np.ndarray) -> Iterator[np.ndarray]:
    """Yields chains with one bucket a little larger or smaller; the last bucket must hold every pair and stays."""
    for n in range(len(chain) - 1):
        for change in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (2, 0), (0, 2), (-2, 0), (0, -2)):
            candidate = chain.copy()
            candidate[n] += change
            if (np.diff(candidate, axis=0) >= 0).all() and (candidate[n] >= 1).all():
                yield candidate


def _count_padded(chain: np.ndarray, within: np.ndarray) -> int:
    """Counts source and target tokens, padding included, if each pair is padded to its bucket."""
    # The pairs that a bucket holds and the bucket before it does not.
    members = np.diff(within[chain[:, 0], chain[:, 1]], prepend=0)
    return int((chain.sum(axis=1) * members).sum())


class TokenizedCorpus(Protocol):
    """A parallel corpus as token ids (`nmt.data.token_cache`)."""

    def read_ids(
        self, pairs: np.ndarray, *, epoch: int, batch: int
    ) -> tuple[Sequence[Sequence[int] | np.ndarray], Sequence[Sequence[int] | np.ndarray]]:
        """Returns the ids of the sources and of the targets of these pairs, without EOS, for a batch."""


class AttentionGuide(Protocol):
    """What the attention of target tokens should be (`nmt.data.word_alignments`)."""

    def __call__(
        self,
        examples: np.ndarray,
        epoch: int,
        sources: Sequence[Sequence[int] | np.ndarray],
        targets: Sequence[Sequence[int] | np.ndarray],
    ) -> Sequence[np.ndarray | None]:
        """Returns for each example float32 [T, S], given its ids without EOS; None if nothing is known."""


@dataclass(frozen=True)
class Batch:
    """The padded rows of one update."""

    epoch: int
    """Counted from 0."""
    index: int
    """Number of the batch within its epoch, counted from 0."""
    source: np.ndarray
    """int32 [B, S], each row ended by EOS and padded with 0."""
    target: np.ndarray
    """int32 [B, T], each row ended by EOS and padded with 0."""
    weights: np.ndarray
    """float32 [B], those of the sentence pairs, usually 1, and 0 for rows that only fill the batch."""
    alignment: np.ndarray | None = None
    """float32 [B, T, S], what the attention of each target token should be. Rows sum to 1, or to 0 where that is not
    known. None unless alignments guide the attention."""
    pairs: np.ndarray | None = None
    """int [P, 1 or 2], the pairs of the corpus in each row but those that fill the batch; None if that is not asked."""

    @property
    def num_target_tokens(self) -> int:
        """Target tokens with EOS, without padding and filling rows."""
        return int(np.count_nonzero(self.target[self.weights > 0]))

    def pad_rows(self, multiple: int) -> "Batch":
        """Returns the batch with rows of weight 0, which hold nothing but EOS, up to a multiple of rows."""
        filling = -len(self.weights) % multiple
        if not filling:
            return self
        rows: list[list[int]] = [[]] * filling
        source, target = (np.concatenate([ids, pad(rows, ids.shape[1])]) for ids in (self.source, self.target))
        weights = np.concatenate([self.weights, np.zeros(filling, np.float32)])
        alignment = self.alignment
        if alignment is not None:
            alignment = np.concatenate([alignment, np.zeros((filling, *alignment.shape[1:]), np.float32)])
        return Batch(self.epoch, self.index, source, target, weights, alignment, self.pairs)


class BatchLoader:
    """Makes the padded batches of a plan, from any (epoch, batch) on, without end.

    Args:
        tokenized: the corpus as token ids.
        kept: int [N], the corpus index of each pair of the plan.
        plan: which pairs form which batch.
        weigh: returns the weights of these examples in an epoch, float32; None weighs all alike.
        guide: makes the alignments of batches; None makes none.
        find_pairs: returns the pairs of the corpus that these examples have in an epoch; None leaves them out.
        multiple: rows are filled up to a multiple of this, the number of replicas times micro-batches.
        pad_to_buckets: pads to the bucket instead of to the longest row, and fills up to a full batch. For backends
            that compile a function for each shape.
    """

    def __init__(
        self,
        tokenized: TokenizedCorpus,
        kept: np.ndarray,
        plan: BatchPlan,
        *,
        weigh: Callable[[np.ndarray, int], np.ndarray] | None = None,
        guide: AttentionGuide | None = None,
        find_pairs: Callable[[np.ndarray, int], np.ndarray] | None = None,
        multiple: int = 1,
        pad_to_buckets: bool = False,
    ):
        self.tokenized = tokenized
        self.kept = kept
        self.plan = plan
        self.weigh = weigh
        self.guide = guide
        self.find_pairs = find_pairs
        self.multiple = multiple
        self.pad_to_buckets = pad_to_buckets

    def stream_batches(self, epoch: int, index: int) -> Iterator[Batch]:
        """Yields batches from (epoch, index) on, epoch after epoch."""
        while True:
            for k in range(index, self.plan.num_batches):
                yield self.load_batch(epoch, k)
            epoch, index = epoch + 1, 0

    def load_batch(self, epoch: int, index: int) -> Batch:
        """Makes one batch, the same one whenever seed, epoch and index are the same."""
        members = self.plan.draw_epoch(epoch)[index]
        ids = self.tokenized.read_ids(self.kept[members], epoch=epoch, batch=index)
        rows, *widths = self._choose_shape(members, ids) if self.pad_to_buckets else (len(members), 0, 0)
        source, target = (pad(side, width) for side, width in zip(ids, widths, strict=True))
        weights = self.weigh(self.kept[members], epoch) if self.weigh else np.ones(len(members), np.float32)
        alignment = None
        if self.guide:
            matrices = self.guide(self.kept[members], epoch, *ids)
            alignment = _pad_matrices(matrices, (target.shape[1], source.shape[1]))
        pairs = self.find_pairs(self.kept[members], epoch) if self.find_pairs else None
        batch = Batch(epoch, index, source, target, weights, alignment, pairs)
        return batch.pad_rows(rows).pad_rows(self.multiple)

    def _choose_shape(
        self, members: np.ndarray, ids: Iterable[Iterable[Sequence[int] | np.ndarray]]
    ) -> tuple[int, int, int]:
        """Returns rows, source length and target length of the smallest bucket that holds a batch.

        Subword sampling can yield more tokens than were planned and may need a larger bucket. Beyond the largest one,
        lengths double, so that few shapes are added.
        """
        planned = int(self.plan.bucket_ids[members].max())
        longest = np.array([[max(map(len, side)) + 1 for side in ids]])
        buckets = self.plan.buckets
        bucket, scale = max(planned, int(buckets.assign(longest)[0])), 1
        if bucket == len(buckets.source):
            bucket, excess = bucket - 1, longest / [[buckets.source[-1], buckets.target[-1]]]
            scale = 2 ** int(np.ceil(np.log2(excess.max())))
        # The rows stay those of the plan, so that a batch holds as many pairs as without sampling.
        return self.plan.rows[planned], scale * int(buckets.source[bucket]), scale * int(buckets.target[bucket])


def pad(ids: Sequence[Sequence[int] | np.ndarray], width: int = 0) -> np.ndarray:
    """Appends EOS to each row and pads on the right: int32 [B, longest row], or [B, width] if that is more."""
    width = max([width, *(len(row) + 1 for row in ids)])
    padded = np.full((len(ids), width), PAD_ID, dtype=np.int32)
    for n, row in enumerate(ids):
        padded[n, : len(row)] = row
        padded[n, len(row)] = EOS_ID
    return padded


def _pad_matrices(matrices: Sequence[np.ndarray | None], shape: tuple[int, int]) -> np.ndarray:
    """Pads matrices with zeros to one shape: float32 [B, *shape]."""
    padded = np.zeros((len(matrices), *shape), np.float32)
    for place, matrix in zip(padded, matrices, strict=True):
        if matrix is not None:
            place[: matrix.shape[0], : matrix.shape[1]] = matrix
    return padded


def split_chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yields lists of `size` items, in order; the last one may be shorter. Reads no further than what it yields.

    >>> list(split_chunks("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    items = iter(items)
    while chunk := list(islice(items, size)):
        yield chunk


def prefetch(items: Iterable[Item], depth: int = 4) -> Iterator[Item]:
    """Yields items that a background thread makes, up to `depth` ahead; its exceptions are raised here."""
    ready: queue.Queue = queue.Queue(depth)
    stopped = threading.Event()

    def put(entry: object) -> bool:
        # A plain put would block for ever if the consumer stops reading while the queue is full.
        while not stopped.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((None, StopIteration()))
        except BaseException as error:
            put((None, error))

    threading.Thread(target=produce, daemon=True, name="prefetch").start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item
    finally:
        stopped.set()


def derive_seed(*numbers: int) -> int:
    """Hashes numbers into one seed from 0 to 2**31 - 3.

    A sum would give (update 1, replica 2) and (update 2, replica 1) the same seed.
    """
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    # Keras takes seeds modulo 2**31 - 2.
    return int.from_bytes(digest, "little") % (2**31 - 2)
