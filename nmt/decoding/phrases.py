"""Phrases that translations must contain: constraints of the search (Hokamp and Liu 2017; Post and Vilar 2018).

B sentences, R of them still searched, N slots that take a step, K slots of the beam, W candidates per slot, C phrases
per sentence of up to T tokens each.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nmt.backend import ops
from nmt.compilation import batch_gather, gather_rows, has_static_shapes
from nmt.decoding.beam_search import IMPOSSIBLE, Candidates, Step
from nmt.decoding.grouping import round_to_bucket_width
from nmt.decoding.spelling import MAX_PHRASE_TOKENS
from nmt.models.queries import ActiveQueries


class Progress(NamedTuple):
    """How much of the phrases each hypothesis contains."""

    met: Any
    """bool [N, C], which phrases it contains."""
    begun: Any
    """bool [N, C, T], at l whether it ends with the first l + 1 tokens of the phrase."""


class Phrases:
    """Phrases of the sentences of one search.

    A beam is divided between hypotheses that contain much and little of the phrases (dynamic beam allocation, Post and
    Vilar 2018): first come the best ones with each number of tokens, most tokens first, then the second best ones, and
    so on. A hypothesis may end once it contains all phrases.

    Args:
        ids: int32 [B, C * T], the tokens of each phrase, padded with 0; see `pad_phrases`.
    """

    def __init__(self, ids: Any):
        self.ids = ops.reshape(ids, (-1, ops.shape(ids)[1] // MAX_PHRASE_TOKENS, MAX_PHRASE_TOKENS))

    @property
    def lengths(self) -> Any:
        """int32 [B], the tokens of all phrases of each sentence."""
        return ops.sum(_count(self.ids), axis=1)

    @property
    def max_length(self) -> Any:
        """The most that `lengths` can be."""
        return ops.shape(self.ids)[1] * MAX_PHRASE_TOKENS

    def require(self, step: Step, state: Any, memory: Any, *, is_normalized: bool) -> tuple[Step, Any, Any]:
        """Returns a step that remembers the progress of each hypothesis, its first state and its memory.

        The other methods take the state after that step, and its memory.

        Args:
            step: returns logits, or log-probabilities.
            state, memory: of that step; the first axis of every array is B.
            is_normalized: whether the step returns log-probabilities, as the new one does.
        """

        def take_step(ids: Any, state: Any, memory: Any, queries: ActiveQueries) -> tuple[Any, Any]:
            phrases, memory = memory
            progress, state = state
            its = _select_rows(phrases, queries)
            begun = ops.logical_and(_shift(progress.begun), ids[:, None, None] == its)
            met = ops.logical_or(progress.met, ops.any(ops.logical_and(begun, _find_last(its)), axis=2))
            logits, state = step(ids, state, memory, queries)
            logits = ops.cast(logits, "float32")
            return logits if is_normalized else ops.log_softmax(logits, axis=-1), (Progress(met, begun), state)

        nothing = ops.zeros_like(self.ids) != 0
        first = Progress(ops.any(nothing, axis=2), nothing)
        return take_step, (first, state), (self.ids, memory)

    def add_following(
        self, ids: Any, log_probs: Any, scores: Any, state: Any, memory: Any, queries: ActiveQueries
    ) -> tuple:
        """Adds the next token of each phrase that a hypothesis lacks to its candidates.

        Args:
            ids: int32 [N, W], the candidates.
            log_probs: [N, W], of the candidates.
            scores: [N, V], log-probabilities of all tokens.
            state, memory: of the step.
            queries: of the step.

        Returns:
            Candidates and their log-probabilities, both [N, W + C].
        """
        progress, its = state[0], _select_rows(memory[0], queries)
        place = _measure(progress.begun)  # where the next token is; a phrase that has just been met has none
        following = ops.sum(ops.where(ops.arange(MAX_PHRASE_TOKENS) == place[..., None], its, 0), axis=2)
        is_known = ops.any(following[:, :, None] == ids[:, None], axis=2)
        # Another phrase may go on with the same token.
        is_repeated = ops.logical_and(
            following[:, :, None] == following[:, None], _find_earlier(ops.shape(following)[1])
        )
        is_useless = ops.logical_or(progress.met, ops.logical_or(is_known, ops.any(is_repeated, axis=2)))
        is_useless = ops.logical_or(is_useless, following == 0)
        found = ops.where(is_useless, 2 * IMPOSSIBLE, batch_gather(scores, following))
        return ops.concatenate([ids, following], axis=1), ops.concatenate([log_probs, found], axis=1)

    def count_tokens(self, ids: Any, state: Any, memory: Any, queries: ActiveQueries) -> tuple[Any, Any]:
        """Counts the tokens of phrases that hypotheses have with each candidate.

        Args:
            ids: int32 [N, W], the candidates.
            state, memory: of the step.
            queries: of the step.

        Returns:
            int32 [R, K, W], and bool [R, K, W], whether all phrases are met.
        """
        progress, its = state[0], _select_rows(memory[0], queries)
        begun = ops.logical_and(_shift(progress.begun)[:, None], ids[..., None, None] == its[:, None])  # [N, W, C, T]
        met = ops.logical_or(progress.met[:, None], ops.any(ops.logical_and(begun, _find_last(its)[:, None]), axis=3))
        lengths = _count(its)[:, None]
        begun_most = ops.max(ops.where(met, 0, _measure(begun)), axis=2)
        counts = ops.sum(ops.where(met, lengths, 0), axis=2) + begun_most
        has_all = ops.all(ops.logical_or(met, lengths == 0), axis=2)
        return queries.scatter(counts), queries.scatter(has_all)

    def drop_unmet(self, candidates: Candidates, has_all: Any, eos_id: int, *, is_last: Any) -> Candidates:
        """Makes an end impossible that leaves a phrase out.

        In the last step that the length limit allows, all candidates that leave one out become impossible, unless all
        of them do.

        Args:
            candidates: of each slot.
            has_all: bool [R, K, W], from `count_tokens`.
            eos_id: id of EOS.
            is_last: bool [R].
        """
        may_choose = ops.any(ops.logical_and(has_all, candidates.log_probs > IMPOSSIBLE / 2), axis=(1, 2))
        is_end = ops.logical_or(candidates.ids == eos_id, ops.logical_and(is_last, may_choose)[:, None, None])
        return candidates.drop(ops.logical_and(is_end, ops.logical_not(has_all)))

    def select(self, candidates: Candidates, counts: Any) -> tuple[Any, Any, Any]:
        """Returns K of the continuations of all slots of a row.

        Args:
            candidates: of each slot.
            counts: int32 [R, K, W], from `count_tokens`.

        Returns:
            log_probs, parents and ids, each [R, K].
        """
        _, beam_size, width = ops.shape(candidates.ids)
        size = beam_size * width
        counts, values = (ops.reshape(x, (-1, size)) for x in (counts, candidates.log_probs))
        # By count, and among equal counts by log-probability. Two sorts: to compare all pairs takes gigabytes at the
        # largest beam size.
        places = ops.arange(size, dtype="int32")
        order = _sort(values)
        order = batch_gather(order, _sort(batch_gather(counts, order) * size - places))
        counts, values = batch_gather(counts, order), batch_gather(values, order)
        is_first = ops.concatenate([ops.ones_like(counts[:, :1]) > 0, counts[:, 1:] != counts[:, :-1]], axis=1)
        firsts = -ops.top_k(-ops.where(is_first, places, size), size)[0]
        ranks = places - batch_gather(firsts, ops.cumsum(ops.cast(is_first, "int32"), axis=1) - 1)
        ranks = ops.where(values > IMPOSSIBLE / 2, ranks, size)
        chosen = ops.cast(ops.top_k(counts - ranks * (ops.max(counts) + 1), beam_size)[1], "int32")
        indices = batch_gather(order, chosen)
        ids = batch_gather(ops.reshape(candidates.ids, (-1, size)), indices)
        return ops.maximum(batch_gather(values, chosen), IMPOSSIBLE), indices // width, ids


def pad_phrases(rows: Sequence[Sequence[Sequence[int]]]) -> np.ndarray:
    """Returns the phrases of each sentence as int32 [B, C * T], padded with 0; with static shapes, C is one of few.

    Args:
        rows: the phrases of each sentence, each of 1 to `MAX_PHRASE_TOKENS` ids.
    """
    count = max(1, *map(len, rows), 1)
    count = round_to_bucket_width(count) if has_static_shapes() else count
    ids = np.zeros((len(rows), count, MAX_PHRASE_TOKENS), "int32")
    for place, phrases in zip(ids, rows, strict=True):
        for number, phrase in enumerate(phrases):
            place[number, : len(phrase)] = phrase
    return ids.reshape(len(rows), -1)


def _select_rows(phrases: Any, queries: ActiveQueries) -> Any:
    """Returns the phrases of each query, [B, C, T] -> [N, C, T]."""
    return gather_rows(phrases, queries.indices // queries.slots.shape[1])


def _shift(begun: Any) -> Any:
    """Moves marks to the next tokens, [..., T]; every phrase may begin anywhere."""
    return ops.concatenate([ops.ones_like(begun[..., :1]), begun[..., :-1]], axis=-1)


def _find_last(ids: Any) -> Any:
    """Returns which tokens are the last ones of phrases [..., T]."""
    return ops.arange(MAX_PHRASE_TOKENS, dtype="int32") == _count(ids)[..., None] - 1


def _measure(begun: Any) -> Any:
    """Returns how many tokens of each phrase a hypothesis ends with, at most: bool [..., T] -> int32 [...]."""
    return ops.max(ops.where(begun, ops.arange(1, MAX_PHRASE_TOKENS + 1, dtype="int32"), 0), axis=-1)


def _count(ids: Any) -> Any:
    return ops.sum(ops.cast(ops.not_equal(ids, 0), "int32"), axis=-1)


def _sort(values: Any) -> Any:
    """Returns the places of values [R, X] in descending order, int32; the first ones among equals come first."""
    return ops.cast(ops.top_k(values, ops.shape(values)[1])[1], "int32")


def _find_earlier(size: Any) -> Any:
    """Returns which of the places [size] in the second axis come before that in the first, bool [size, size]."""
    places = ops.arange(size, dtype="int32")
    return places[:, None] > places
