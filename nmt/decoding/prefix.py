"""Prefixes: the search allows only translations that begin with them.

All words of a prefix but the last have the tokens of the tokenizer. The last word may continue and then have other
tokens: those of "Geschichten" need not begin with those of "Gesch". So the model chooses the tokens of the last word
itself, among all that spell its characters and possibly more.

B sentences, R of them still searched, N slots that take a step, P tokens and C bytes of a prefix, V tokens in the
vocabulary, U bytes of its longest token, rounded up to words of four.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nmt.backend import ops
from nmt.compilation import batch_gather, gather_rows, has_static_shapes
from nmt.decoding.beam_search import IMPOSSIBLE, Step
from nmt.decoding.grouping import round_to_bucket_width
from nmt.decoding.spelling import SPACE, WORD_BYTES, Prefix, Spellings
from nmt.models.queries import ActiveQueries

PLACES = np.array([1 << 8 * place for place in range(WORD_BYTES)], "uint32").view("int32")


class Prefixes(NamedTuple):
    """The prefixes of several sentences, as a search reads them."""

    ids: Any
    """int32 [B, P], padded with 0; see `Prefix.ids`."""
    ending: Any
    """int32 [B, C], bytes padded with 0; see `Prefix.ending`."""

    @property
    def lengths(self) -> Any:
        """int32 [B], the tokens of each and the bytes after them: the most tokens that spell it."""
        return _count(self.ids) + _count(self.ending)

    @property
    def max_length(self) -> Any:
        """The most that `lengths` can be."""
        return ops.shape(self.ids)[1] + ops.shape(self.ending)[1]


def pad_prefixes(prefixes: Sequence[Prefix]) -> Prefixes:
    """Returns the arrays of prefixes."""
    return Prefixes(pad_zeros([one.ids for one in prefixes]), pad_zeros([[*one.ending] for one in prefixes]))


def pad_zeros(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Returns rows padded with 0, int32 [rows, at least 1]; with static shapes, the width is one of few."""
    width = max(1, *map(len, rows), 1)
    padded = np.zeros((len(rows), round_to_bucket_width(width) if has_static_shapes() else width), "int32")
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = row
    return padded


def require_prefixes(
    step: Step,
    state: Any,
    memory: Any,
    *,
    prefixes: Prefixes,
    spellings: Spellings,
    eos_id: int,
    is_normalized: bool,
    only_next: bool = False,
) -> tuple[Step, Any, Any]:
    """Returns a step that allows only the translations that begin with a prefix, its first state and its memory.

    The tokens keep their log-probabilities.

    Args:
        step: returns logits, or log-probabilities.
        state: the first state of that step; the first axis of every array is B.
        memory: of that step; the first axis of every array is B.
        prefixes: one per sentence, perhaps an empty one.
        spellings: of the target tokens.
        eos_id: id of EOS.
        is_normalized: whether the step returns log-probabilities.
        only_next: whether translations end with the first token that goes beyond the prefix, or completes it, and have
            the log-probability of what follows `Prefix.ids`. After an empty ending, that is one more token, or a space
            and one more token, since scripts without spaces have a space at the beginning only, which no text shows.

    Returns:
        A step that returns log-probabilities (see `is_normalized` of `beam_search`), its first state and its memory.
    """
    ending = ops.pad(prefixes.ending, [[0, 0], [0, spellings.bytes.shape[1]]])
    is_space = np.array([token == SPACE for token in spellings.tokens])

    def take_step(ids: Any, state: Any, memory: Any, queries: ActiveQueries) -> tuple[Any, Any]:
        (its_ids, its_ending), memory = memory
        place, state = state
        rows = queries.indices // queries.slots.shape[1]
        its_ids, its_ending = gather_rows(its_ids, rows), gather_rows(its_ending, rows)
        num_ids, num_bytes = _count(its_ids), _count(its_ending)
        # The place is a number of tokens up to the ending, and of bytes from there on; before BOS it is -1.
        step_sizes = gather_rows(spellings.sizes, ids)
        if only_next:
            is_nothing = ops.logical_and(gather_rows(is_space, ids), num_bytes == 0)
            step_sizes = ops.where(is_nothing, 0, step_sizes)
        place = ops.where(place < num_ids, place + 1, place + step_sizes)
        logits, state = step(ids, state, memory, queries)
        logits = ops.cast(logits, "float32")
        log_probs = logits if is_normalized else ops.log_softmax(logits, axis=-1)
        is_forced = place < num_ids
        forced = batch_gather(its_ids, ops.clip(place, 0, ops.shape(its_ids)[1] - 1)[:, None])
        offset = ops.maximum(place - num_ids, 0)
        is_ending = ops.logical_and(ops.logical_not(is_forced), offset < num_bytes)
        tokens = ops.arange(log_probs.shape[-1], dtype="int32")
        allowed = ops.where(is_forced[:, None], tokens == forced, ops.logical_not(is_ending)[:, None])
        # The comparison with all tokens is slow, so steps after the end of all prefixes skip it.
        allowed = ops.cond(
            ops.any(is_ending),
            lambda: ops.logical_or(
                allowed,
                ops.logical_and(is_ending[:, None], _match(its_ending, ops.minimum(offset, num_bytes), spellings)),
            ),
            lambda: allowed,
        )
        # `no_repeat_ngram` must not make a prefix impossible.
        is_blocked = ops.logical_and(is_forced[:, None], log_probs < IMPOSSIBLE / 2)
        if only_next:
            is_done = ops.logical_not(ops.logical_or(is_forced, is_ending))
            is_done = ops.logical_and(is_done, offset >= ops.maximum(num_bytes, 1))
            allowed = ops.where(is_done[:, None], tokens == eos_id, allowed)
            is_blocked = ops.logical_or(is_forced, is_done)[:, None]
        log_probs = ops.where(is_blocked, 0.0, log_probs)
        return ops.where(allowed, log_probs, 2 * IMPOSSIBLE), (place, state)

    before = ops.full((ops.shape(prefixes.ids)[0],), -1, "int32")
    return take_step, (before, state), ((prefixes.ids, ending), memory)


def _match(ending: Any, offset: Any, spellings: Spellings) -> Any:
    """Returns which tokens spell the rest of an ending or a part of it, or go on where it ends: bool [N, V].

    Args:
        ending: int32 [N, C + U], padded with 0.
        offset: int32 [N], where the rest begins.
        spellings: of the tokens.
    """
    width = spellings.bytes.shape[1]
    rest = batch_gather(ending, offset[:, None] + ops.arange(width, dtype="int32"))  # [N, U]
    here, there = _pack(rest), _pack(spellings.bytes)
    here_mask, there_mask = (_pack(ops.where(x != 0, 255, 0)) for x in (rest, spellings.bytes))
    is_match = (spellings.sizes > 0)[None]
    for word in range(width // WORD_BYTES):
        differs = ops.bitwise_xor(here[:, word, None], there[:, word])
        differs = ops.bitwise_and(differs, ops.bitwise_and(here_mask[:, word, None], there_mask[:, word]))
        is_match = ops.logical_and(is_match, differs == 0)
    return is_match


def _pack(values: Any) -> Any:
    """Packs four bytes into each number, int32 [X, U] -> [X, U / 4]: a fourth of the numbers to compare."""
    words = ops.reshape(values, (-1, values.shape[1] // WORD_BYTES, WORD_BYTES))
    return ops.sum(words * PLACES, axis=-1)


def _count(values: Any) -> Any:
    return ops.sum(ops.cast(ops.not_equal(values, 0), "int32"), axis=1)
