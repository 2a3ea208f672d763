"""Which sentences form batch k of epoch e, and the padded arrays made of them.

The order is a pure function of (seed, epoch): its whole state is two numbers, so that resuming is exact and costs
nothing. N pairs, B rows, S and T the longest source and target of a batch, in pieces with EOS.
"""

import hashlib
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from nmt.data.tokenizer import EOS_ID, PAD_ID

NUM_BUCKETS = 12
# Batches whose sentences are sorted together before they are cut: enough that a batch's lengths are nearly equal, few
# enough that its neighbours in length change from epoch to epoch.
BATCHES_PER_POOL = 16

Item = TypeVar("Item")


class BatchPlan:
    """The batches of every epoch, as pair indices.

    Args:
        lengths: int [N, 2], source and target pieces of each pair, EOS counted; N is at least 1.
        by: what `size` counts: sentences, or target pieces with their padding.
        size: of a batch.
        seed: of the order.
    """

    def __init__(self, lengths: np.ndarray, *, by: Literal["tokens", "sentences"], size: int, seed: int):
        self.lengths = lengths
        self.seed = seed
        self.buckets = fit_buckets(lengths)
        self.bucket_ids = self.buckets.assign(lengths)
        self.rows = [size if by == "sentences" else max(1, size // int(length)) for length in self.buckets.target]
        self._cuts = _cut_batches(np.bincount(self.bucket_ids, minlength=len(self.rows)), self.rows)
        self._epoch = -1
        self._batches: EpochBatches | None = None

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """Rows, source and target length of full batches, padded to the buckets."""
        return list(zip(self.rows, self.buckets.source.tolist(), self.buckets.target.tolist(), strict=True))

    @property
    def num_batches(self) -> int:
        """The number of batches of an epoch."""
        return len(self._cuts)

    def draw_epoch(self, epoch: int) -> "EpochBatches":
        """The batches of an epoch; every pair stands in exactly one."""
        if self._batches is None or epoch != self._epoch:
            self._batches, self._epoch = self._draw(np.random.default_rng([self.seed, epoch])), epoch
        return self._batches

    def _draw(self, random: np.random.Generator) -> "EpochBatches":
        order = random.permutation(np.arange(len(self.lengths), dtype=np.int32))
        bucket_ids = self.bucket_ids[order]
        # A stable sort in a small part of the memory that argsort takes.
        order = np.concatenate([order[bucket_ids == bucket] for bucket in range(len(self.rows))])
        return EpochBatches(self.lengths, order, self._cuts, random.permutation(self.num_batches))


class EpochBatches(Sequence[np.ndarray]):
    """The pair indices of each batch of an epoch, sorted when they are asked for: an epoch of millions begins at once.

    Args:
        lengths: int [N, 2], of each pair.
        order: int [N], the pairs in the order in which they are cut.
        cuts: of `_cut_batches`.
        cut_order: int [number of batches], which cut each batch is.
    """

    def __init__(self, lengths: np.ndarray, order: np.ndarray, cuts: np.ndarray, cut_order: np.ndarray):
        self._lengths, self._order, self._cuts, self._cut_order = lengths, order, cuts, cut_order
        self._pools: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._cut_order)

    def __getitem__(self, index: Any) -> Any:
        first, last, start, end = self._cuts[self._cut_order[index]].tolist()
        pool = self._pools.get(start)
        if pool is None:
            pool = self._order[start:end]
            pool = pool[np.lexsort(self._lengths[pool].T)]  # by target length, then by source length
            self._pools[start] = pool
        return pool[first - start : last - start]


def _cut_batches(counts: np.ndarray, rows: Sequence[int]) -> np.ndarray:
    """How pairs that stand sorted by their shapes are cut into batches.

    Args:
        counts: int [number of shapes], pairs of each shape.
        rows: of a batch of each shape.

    Returns:
        int64 [number of batches, 4]: where a batch begins and ends, and where the pool begins and ends that is sorted
        before it is cut.
    """
    found: list[np.ndarray] = []
    start = 0
    for end, size in zip(np.cumsum(counts).tolist(), rows, strict=True):
        # What fills no batch of its own shape moves on to the next larger one.
        full = start + (end - start) // size * size
        first = np.arange(start, full, size)
        pool = start + (first - start) // (BATCHES_PER_POOL * size) * (BATCHES_PER_POOL * size)
        found.append(np.stack([first, first + size, pool, np.minimum(pool + BATCHES_PER_POOL * size, full)], axis=1))
        start = full
    if start < end:
        found.append(np.array([[start, end, start, end]]))
    return np.concatenate(found)


@dataclass(frozen=True)
class Buckets:
    """A chain of shapes (source length, target length), each at least as long on both sides as the one before.

    A pair goes into the first shape that holds it, so that a function compiled a shape is compiled a bounded number of
    times.
    """

    source: np.ndarray
    """int64 [number of shapes], rising."""
    target: np.ndarray
    """int64 [number of shapes], rising."""

    def assign(self, lengths: np.ndarray) -> np.ndarray:
        """The place in the chain, int8 [N], of pairs with lengths [N, 2]."""
        sides = zip((self.source, self.target), lengths.T, strict=True)
        # Looked up by length: of millions of pairs in a tenth of the time that searching takes.
        of_length = [(np.searchsorted(chain, np.arange(side.max() + 1)).astype(np.int8), side) for chain, side in sides]
        return np.maximum(*(first[side] for first, side in of_length))


def fit_buckets(lengths: np.ndarray, num_buckets: int = NUM_BUCKETS) -> Buckets:
    """Finds a chain of shapes that pads pairs of these lengths [N, 2] little, by coordinate descent from quantiles."""
    within = _count_within(lengths)
    shares = np.linspace(0, 1, num_buckets + 1)[1:]
    # Of sources of any target, and of targets of any source, the smallest lengths that such shares do not exceed.
    chain = np.stack([np.searchsorted(side / len(lengths), shares - 1e-12) for side in (within[:, -1], within[-1])], 1)
    cost = _count_padded(chain, within)
    improved = True
    while improved:
        improved = False
        for candidate in _vary(chain):
            candidate_cost = _count_padded(candidate, within)
            if candidate_cost < cost:
                chain, cost, improved = candidate, candidate_cost, True
    chain = np.unique(chain, axis=0)
    return Buckets(chain[:, 0], chain[:, 1])


def _count_within(lengths: np.ndarray) -> np.ndarray:
    """How many pairs have at most so many source and at most so many target pieces: int64 [S + 1, T + 1]."""
    shape = tuple(int(side.max()) + 1 for side in lengths.T)
    cells = np.zeros(shape[0] * shape[1], dtype=np.int64)
    for start in range(0, len(lengths), 1 << 20):  # bounds what is held in memory beside the lengths themselves
        chunk = lengths[start : start + (1 << 20)].astype(np.int64)
        cells += np.bincount(chunk[:, 0] * shape[1] + chunk[:, 1], minlength=len(cells))
    return cells.reshape(shape).cumsum(axis=0).cumsum(axis=1)


def _vary(chain: np.ndarray) -> Iterator[np.ndarray]:
    """Chains with one shape, but never the largest, a little longer or shorter; each starts from the best so far."""
    for n in range(len(chain) - 1):
        for change in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (2, 0), (0, 2), (-2, 0), (0, -2)):
            candidate = chain.copy()
            candidate[n] += change
            if (np.diff(candidate, axis=0) >= 0).all() and (candidate[n] >= 1).all():
                yield candidate


def _count_padded(chain: np.ndarray, within: np.ndarray) -> int:
    # What a shape holds and the one before it does not.
    members = np.diff(within[chain[:, 0], chain[:, 1]], prepend=0)
    return int((chain.sum(axis=1) * members).sum())


class TokenizedCorpus(Protocol):
    """Says the pieces of pairs (nmt/data/pieces.py)."""

    def read_ids(
        self, pairs: np.ndarray, *, epoch: int, batch: int
    ) -> tuple[Sequence[Sequence[int] | np.ndarray], Sequence[Sequence[int] | np.ndarray]]:
        """The ids of the sources and of the targets of some pairs of the corpus, without EOS, for a batch."""


@dataclass(frozen=True)
class Batch:
    """The padded rows of one update."""

    epoch: int
    """Counted from 0."""
    index: int
    """Place within the epoch, from 0."""
    source: np.ndarray
    """int32 [B, S], each row ended by EOS and padded with 0."""
    target: np.ndarray
    """int32 [B, T], each row ended by EOS and padded with 0."""
    weights: np.ndarray
    """float32 [B], 0 for rows that only fill the batch up."""

    @property
    def num_target_tokens(self) -> int:
        """Real target pieces, EOS counted, padding and filling rows not."""
        return int(np.count_nonzero(self.target[self.weights > 0]))

    def pad_rows(self, multiple: int) -> "Batch":
        """The same batch with rows of weight zero, which hold nothing but EOS, up to a multiple of rows."""
        filling = -len(self.weights) % multiple
        if not filling:
            return self
        rows: list[list[int]] = [[]] * filling
        source, target = (np.concatenate([ids, pad(rows, ids.shape[1])]) for ids in (self.source, self.target))
        weights = np.concatenate([self.weights, np.zeros(filling, np.float32)])
        return Batch(self.epoch, self.index, source, target, weights)


class BatchLoader:
    """Makes the padded batches of a plan, from any (epoch, batch) on, without end.

    Args:
        tokenized: the corpus in pieces.
        kept: indices into the corpus of the pairs that the plan numbers from 0.
        plan: which pairs form which batch.
        multiple: rows are filled up to a multiple of this, the number of replicas times micro-batches.
        pad_to_buckets: pad to the plan's shapes instead of to the longest row, and fill rows up to a full batch, where
            a function is compiled a shape.
    """

    def __init__(
        self,
        tokenized: TokenizedCorpus,
        kept: np.ndarray,
        plan: BatchPlan,
        *,
        multiple: int = 1,
        pad_to_buckets: bool = False,
    ):
        self.tokenized = tokenized
        self.kept = kept
        self.plan = plan
        self.multiple = multiple
        self.pad_to_buckets = pad_to_buckets

    def load_batch(self, epoch: int, index: int) -> Batch:
        """Makes one batch: the same one whenever seed, epoch and index are the same."""
        members = self.plan.draw_epoch(epoch)[index]
        ids = self.tokenized.read_ids(self.kept[members], epoch=epoch, batch=index)
        rows, *widths = self._choose_shape(members, ids) if self.pad_to_buckets else (len(members), 0, 0)
        source, target = (pad(side, width) for side, width in zip(ids, widths, strict=True))
        batch = Batch(epoch, index, source, target, np.ones(len(members), np.float32))
        return batch.pad_rows(rows).pad_rows(self.multiple)

    def stream_batches(self, epoch: int, index: int) -> Iterator[Batch]:
        """Yields batches from (epoch, index) on, epoch after epoch."""
        while True:
            for k in range(index, self.plan.num_batches):
                yield self.load_batch(epoch, k)
            epoch, index = epoch + 1, 0

    def _choose_shape(
        self, members: np.ndarray, ids: Iterable[Iterable[Sequence[int] | np.ndarray]]
    ) -> tuple[int, int, int]:
        """Rows, source length and target length of the smallest shape of the plan that holds a batch.

        Sampled pieces are more than the plan counted, and may need a larger shape: beyond the largest, its double.
        """
        planned = int(self.plan.bucket_ids[members].max())
        longest = np.array([[max(map(len, side)) + 1 for side in ids]])
        buckets = self.plan.buckets
        place, scale = max(planned, int(buckets.assign(longest)[0])), 1
        if place == len(buckets.source):
            place, excess = place - 1, longest / [[buckets.source[-1], buckets.target[-1]]]
            scale = 2 ** int(np.ceil(np.log2(excess.max())))
        return self.plan.rows[planned], scale * int(buckets.source[place]), scale * int(buckets.target[place])


def pad(ids: Sequence[Sequence[int] | np.ndarray], width: int = 0) -> np.ndarray:
    """Ends each row of ids by EOS and pads it on the right: int32 [B, longest row], or [B, width] if that is more."""
    width = max([width, *(len(row) + 1 for row in ids)])
    padded = np.full((len(ids), width), PAD_ID, dtype=np.int32)
    for n, row in enumerate(ids):
        padded[n, : len(row)] = row
        padded[n, len(row)] = EOS_ID
    return padded


def prefetch(items: Iterable[Item], depth: int = 4) -> Iterator[Item]:
    """Yields items that a background thread makes up to `depth` ahead; what it raises is raised here."""
    ready: queue.Queue = queue.Queue(depth)
    stopped = threading.Event()

    def put(entry: object) -> bool:
        while not stopped.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((None, StopIteration()))
        except BaseException as error:
            put((None, error))

    threading.Thread(target=work, daemon=True, name="prefetch").start()
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
    """One seed below 2**31 - 2 of several numbers, none of whose changes cancels another's (a hash, not a sum)."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    # Keras takes seeds modulo 2**31 - 2.
    return int.from_bytes(digest, "little") % (2**31 - 2)
