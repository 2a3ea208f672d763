"""Joins sentence pairs into training examples of two sentences, so that a model learns to translate longer texts.

Which pairs are joined differs from epoch to epoch and is a pure function of (seed, epoch). The lengths of the examples
are the same in every epoch, because a pair changes places only with pairs of the same lengths. So the plan of the
batches, their number and the limits on lengths stay the same as well.

Shapes: N sentence pairs; M examples, each of one pair or two.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from nmt.data.corpus import ParallelCorpus
from nmt.data.tokenizer import Tokenizer
from nmt.data.weighting import FindKeys, keep_keys

# Parts of the seeds of places and of epochs, which set their draws apart from those of the batches.
PLACES_DRAW, EPOCH_DRAW = 1, 2
NO_PAIR = -1
# Number of joined examples that are tokenized as a whole to compare their ids with those of the parts, and the share
# that must agree.
CHECKED_EXAMPLES, EQUAL_SHARE = 500, 0.99


class JoinPlan:
    """Assigns pairs to examples, epoch by epoch.

    Args:
        lengths: int [N, 2], tokens of both sides of each pair, without EOS.
        share: share of the examples that consist of two pairs, below 1. There are fewer if too few pairs fit together.
        max_length: largest number of tokens of either side of two pairs together.
        seed: seed of all draws.
        corpora: int [N], the corpus of each pair, if only pairs of the same corpus may be joined and change places.
    """

    def __init__(
        self, lengths: np.ndarray, *, share: float, max_length: int, seed: int, corpora: np.ndarray | None = None
    ):
        self.seed = seed
        self._groups = _group_equal(lengths if corpora is None else np.column_stack([lengths, corpora]))
        self._by_group = np.argsort(self._groups, kind="stable").astype(np.int32)
        self._places = _pair_places(
            lengths[self._by_group],
            count=round(len(lengths) * share / (1 + share)),
            max_length=max_length,
            random=np.random.default_rng([seed, PLACES_DRAW]),
            corpora=None if corpora is None else corpora[self._by_group],
        )
        # The last epoch and its examples. In one object, because several threads draw epochs.
        self._drawn = -1, self._places

    def __len__(self) -> int:
        return len(self._places)

    @property
    def num_joined(self) -> int:
        """Number of examples that consist of two pairs. They come first."""
        return int(np.count_nonzero(self._places[:, 1] != NO_PAIR))

    def draw_epoch(self, epoch: int) -> np.ndarray:
        """Returns the pairs of each example: int32 [M, 2]; the second one is NO_PAIR in examples of one pair.

        Every pair is in exactly one example.
        """
        drawn = self._drawn
        if epoch != drawn[0]:
            order = np.random.default_rng([self.seed, epoch, EPOCH_DRAW]).permutation(len(self._groups))
            # Place by place, a pair drawn from the group that the place belongs to.
            pairs = order[np.argsort(self._groups[order], kind="stable")].astype(np.int32)
            drawn = self._drawn = epoch, _look_up(pairs, self._places)
        return drawn[1]

    def find_corpora(self, corpora: np.ndarray) -> np.ndarray:
        """Returns the corpus of each example: int [M], given those of the pairs [N] that the plan was made with."""
        return corpora[_look_up(self._by_group, self._places)[:, 0]]

    def add_lengths(self, lengths: np.ndarray) -> np.ndarray:
        """Returns the lengths of the examples: [M, 2], given those of the pairs [N, 2], both with EOS.

        Pairs of equal lengths in this plan must have equal lengths here, too. Text that is joined before it is
        segmented can have a token more or less.
        """
        first, second = _look_up(self._by_group, self._places).T
        added = lengths[first].astype(np.int32)
        is_joined = second != NO_PAIR
        added[is_joined] += lengths[second[is_joined]] - 1
        return added.astype(np.int16) if added.max() <= np.iinfo(np.int16).max else added


def _group_equal(columns: np.ndarray) -> np.ndarray:
    """Numbers the groups of pairs that agree in all columns [N, C]: an unsigned integer for each pair [N]."""
    keys = np.zeros(len(columns), dtype=np.int64)
    for column in columns.T:
        keys = keys * (int(column.max()) + 1) + column
    _, groups = np.unique(keys, return_inverse=True)
    # NumPy sorts numbers of 16 bits in linear time.
    return groups.astype(np.min_scalar_type(int(groups.max())))


def _pair_places(
    lengths: np.ndarray, *, count: int, max_length: int, random: np.random.Generator, corpora: np.ndarray | None
) -> np.ndarray:
    """Draws which places share an example: int32 [M, 2], given lengths [N, 2] and corpora [N] of the places."""
    order = random.permutation(np.arange(len(lengths), dtype=np.int32))
    if corpora is not None:
        order = order[np.argsort(corpora[order], kind="stable")]
    candidates = order[: len(order) // 2 * 2].reshape(-1, 2)
    fits = (lengths[candidates[:, 0]] + lengths[candidates[:, 1]] <= max_length).all(axis=1)
    if corpora is not None:
        fits &= corpora[candidates[:, 0]] == corpora[candidates[:, 1]]
        mixed = random.permutation(len(candidates))  # otherwise the first corpora would have most of the places
        candidates, fits = candidates[mixed], fits[mixed]
    joined = candidates[fits][:count]
    is_single = np.ones(len(lengths), dtype=bool)
    is_single[joined] = False
    first = np.flatnonzero(is_single).astype(np.int32)
    return np.concatenate([joined, np.stack([first, np.full_like(first, NO_PAIR)], axis=1)])


def _look_up(pairs: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.where(places == NO_PAIR, NO_PAIR, pairs[places])


class SegmentedCorpus(Protocol):
    """A corpus as token ids that can also segment other text in the same way (`nmt.data.token_cache`)."""

    def read_ids(
        self, pairs: np.ndarray, *, epoch: int, batch: int
    ) -> tuple[Sequence[Sequence[int] | np.ndarray], Sequence[Sequence[int] | np.ndarray]]:
        """Returns the ids of the sources and of the targets of these pairs, without EOS."""

    def encode_side(
        self, side: int, texts: Sequence[str], *, keys: np.ndarray, epoch: int
    ) -> Sequence[Sequence[int] | np.ndarray]:
        """Returns the ids of texts as sources (side 0) or targets (side 1), without EOS."""


class JoinedTokens:
    """The examples of a plan as token ids.

    The ids of two sentences are joined where that gives the ids of the joined text, which a sample shows: SentencePiece
    marks the start of every word, and so that of a text, by "▁", and its tokens usually end where words do. Otherwise
    the text is joined and segmented, which takes longer: in Chinese and Japanese, where no space stands between two
    sentences, and with tokenizers that put several words into one token or add no "▁" to the start.

    Args:
        tokens: the corpus as token ids.
        corpus: its text.
        tokenizers: of source and target.
        kept: int [N], the corpus index of each pair of the plan.
        plan: which pairs form which example.
        separators: text between two sentences, for source and target.
        find_keys: returns the keys of the first pairs of joined examples in a batch, with which their text is sampled.
    """

    def __init__(
        self,
        tokens: SegmentedCorpus,
        corpus: ParallelCorpus,
        tokenizers: tuple[Tokenizer, Tokenizer],
        *,
        kept: np.ndarray,
        plan: JoinPlan,
        separators: tuple[str, str],
        find_keys: FindKeys = keep_keys,
    ):
        self.tokens, self.corpus, self.kept, self.plan = tokens, corpus, kept, plan
        self.separators, self.find_keys = separators, find_keys
        self._joins_ids = [self._equals_joined_text(side, tokenizer) for side, tokenizer in enumerate(tokenizers)]

    def read_ids(
        self, pairs: np.ndarray, *, epoch: int, batch: int
    ) -> tuple[list[Sequence[int] | np.ndarray], list[Sequence[int] | np.ndarray]]:
        """Returns the ids of both sides of these examples, as they are joined in this epoch."""
        first, second = self.plan.draw_epoch(epoch)[pairs].T
        is_joined = second != NO_PAIR
        read = self.kept[np.concatenate([first, second[is_joined]])]
        sides = self.tokens.read_ids(read, epoch=epoch, batch=batch)
        joined = np.flatnonzero(is_joined)
        firsts, seconds = read[joined], read[len(pairs) :]
        keys = self.find_keys(firsts, batch)
        source, target = (self._join(side, ids, joined, firsts, seconds, keys, epoch) for side, ids in enumerate(sides))
        return source, target

    def read_sources(self, examples: np.ndarray, epoch: int = 0) -> list[str]:
        """Returns the source text of these examples, as they are joined in an epoch."""
        return self._read_side(0, examples, epoch)

    def read_texts(self, examples: np.ndarray, epoch: int) -> tuple[list[str], list[str]]:
        """Returns the text of both sides of these examples, as they are joined in an epoch."""
        return self._read_side(0, examples, epoch), self._read_side(1, examples, epoch)

    def average(self, values: np.ndarray, examples: np.ndarray, epoch: int) -> np.ndarray:
        """Returns the mean of the values of each example's pairs, given the values of all pairs of the corpus."""
        first, second = self.plan.draw_epoch(epoch)[examples].T
        return (values[self.kept[first]] + values[self.kept[np.where(second == NO_PAIR, first, second)]]) / 2

    def find_pairs(self, examples: np.ndarray, epoch: int) -> np.ndarray:
        """Returns the pairs of the corpus that these examples consist of in an epoch: int [B, 2], or NO_PAIR."""
        pairs = self.plan.draw_epoch(epoch)[examples]
        return np.where(pairs == NO_PAIR, NO_PAIR, self.kept[pairs])

    def _read_side(self, side: int, examples: np.ndarray, epoch: int) -> list[str]:
        first, second = self.plan.draw_epoch(epoch)[examples].T
        read = self.corpus.read_targets if side else self.corpus.read_sources
        texts = read(self.kept[first])
        joined = np.flatnonzero(second != NO_PAIR)
        for place, text in zip(joined, read(self.kept[second[joined]]), strict=True):
            texts[place] += self.separators[side] + text
        return texts

    def _join(
        self,
        side: int,
        ids: Sequence[Sequence[int] | np.ndarray],
        joined: np.ndarray,
        first: np.ndarray,
        second: np.ndarray,
        keys: np.ndarray,
        epoch: int,
    ) -> list[Sequence[int] | np.ndarray]:
        """Returns the ids of one side of examples.

        Args:
            side: 0 for sources, 1 for targets.
            ids: of the first pair of each example, followed by those of the second pairs.
            joined: int [J], the examples that have two pairs.
            first: int [J], the corpus index of their first pairs.
            second: int [J], that of their second pairs.
            keys: int [J], of the draws of sampled text.
            epoch: in which text is sampled.
        """
        rows = list(ids[: len(ids) - len(joined)])
        if self._joins_ids[side]:
            for place, others in zip(joined, ids[len(rows) :], strict=True):
                rows[place] = np.concatenate([np.asarray(rows[place], np.int32), np.asarray(others, np.int32)])
        else:
            texts = self._join_texts(side, first, second)
            for place, row in zip(joined, self.tokens.encode_side(side, texts, keys=keys, epoch=epoch), strict=True):
                rows[place] = row
        return rows

    def _join_texts(self, side: int, first: np.ndarray, second: np.ndarray) -> list[str]:
        read = self.corpus.read_targets if side else self.corpus.read_sources
        return [self.separators[side].join(pair) for pair in zip(read(first), read(second), strict=True)]

    def _equals_joined_text(self, side: int, tokenizer: Tokenizer) -> bool:
        """Returns whether the ids of two texts, one after the other, are those of the joined text."""
        sample = self.kept[self.plan.draw_epoch(0)[: min(CHECKED_EXAMPLES, self.plan.num_joined)]]
        read = self.corpus.read_targets if side else self.corpus.read_sources
        parts = [tokenizer.encode(read(pairs)) for pairs in sample.T]
        whole = tokenizer.encode(self._join_texts(side, *sample.T))
        equal = sum(one + other == both for one, other, both in zip(*parts, whole, strict=True))
        return equal >= EQUAL_SHARE * len(sample)
