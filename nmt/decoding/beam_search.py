"""Beam search over anything that takes a step.

B sentences, K slots of the beam, V pieces in the vocabulary, L steps at most.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from keras import ops, tree

from nmt.compilation import recurrence

IMPOSSIBLE = -1e9
CHUNK = 32  # largest group of neighbours in `top_k`

Step = Callable[[Any, Any], tuple[Any, Any]]
"""step(ids [B, K], state) -> logits [B, K, V], state. Every array of the state begins with [B, K]."""


@dataclass(frozen=True)
class SearchOptions:
    """How hypotheses are searched and ranked."""

    beam_size: int = 5
    length_penalty: float = 1.0
    """Exponent of the length penalty (Wu et al. 2016, equation 14)."""
    min_length: int = 0
    """Fewest pieces, EOS not counted."""
    num_results: int = 1
    """Hypotheses wanted a sentence: the search may stop once no open one can be among them."""


class Hypotheses(NamedTuple):
    """What was found, best first: finished ones by score, then unfinished ones by score."""

    ids: Any
    """int32 [B, K, L], without BOS; after EOS, 0."""
    lengths: Any
    """int32 [B, K], EOS counted."""
    log_probs: Any
    """[B, K], sums of natural-log piece probabilities; about -1e9 where fewer than K hypotheses exist."""
    scores: Any
    """[B, K], log_probs over the length penalty."""
    finished: Any
    """bool [B, K], False where the length limit cut a hypothesis off before its EOS."""


class Beam(NamedTuple):
    """What the loop carries from one step to the next."""

    position: Any
    """int32, steps done."""
    ids: Any
    """int32 [B, K], the last piece of each slot."""
    log_probs: Any
    """[B, K]."""
    lengths: Any
    """int32 [B, K]."""
    finished: Any
    """bool [B, K]."""
    pieces: Any
    """int32 [L, B, K], the piece put into a slot at each step."""
    parents: Any
    """int32 [L, B, K], the slot that it continued."""
    state: Any


def beam_search(
    step: Step,
    state: Any,
    *,
    limits: Any,
    max_steps: Any,
    bos_id: int,
    eos_id: int,
    banned_ids: Sequence[int],
    options: SearchOptions,
) -> Hypotheses:
    """Finds translations with a high score.

    A hypothesis ends when its EOS is among the best continuations of a step and then keeps its slot (as in Marian), so
    that a beam of one is greedy search. A row stops when all its slots have ended, at its own limit, or when no open
    slot can win any more: as log-probabilities only fall, an open hypothesis never scores above its present one at full
    length.

    Args:
        step: scores the next piece of every slot.
        state: what `step` is first given; every array begins with [B, K].
        limits: int32 [B], most pieces of each row, EOS counted.
        max_steps: the largest of the limits, or more.
        bos_id, eos_id: ids of BOS and EOS.
        banned_ids: ids never produced.
        options: beam and ranking.
    """
    size = (ops.shape(limits)[0], options.beam_size)
    first = ops.arange(options.beam_size) == 0
    beam = Beam(
        position=ops.zeros((), "int32"),
        ids=ops.full(size, bos_id, "int32"),
        # All slots are equal at first: only one of them may be continued.
        log_probs=ops.broadcast_to(ops.where(first, 0.0, IMPOSSIBLE), size),
        lengths=ops.zeros(size, "int32"),
        finished=ops.zeros(size, "bool"),
        pieces=ops.zeros((max_steps, *size), "int32"),
        # Steps that are never taken leave every slot where it is.
        parents=ops.zeros((max_steps, *size), "int32") + ops.arange(options.beam_size, dtype="int32"),
        state=state,
    )

    def unfinished(*parts: Any) -> Any:
        beam = Beam(*parts)
        return ops.logical_and(beam.position < max_steps, ops.any(_running_rows(beam, limits, options)))

    def advance(*parts: Any) -> tuple:
        beam = Beam(*parts)
        logits, state = step(beam.ids, beam.state)
        penalties = _penalties(logits.shape[-1], banned_ids)
        early = ops.where(beam.position < options.min_length, IMPOSSIBLE, 0.0)
        penalties = penalties + early * ops.one_hot(eos_id, logits.shape[-1], dtype="float32")
        log_probs, parents, ids = _best(
            ops.cast(logits, "float32"), penalties, len(set(banned_ids)) + 1, beam.log_probs, beam.finished
        )
        running = _running_rows(beam, limits, options)
        return tuple(_continued(beam, state, running, log_probs, parents, ids, eos_id))

    beam = Beam(*ops.while_loop(unfinished, advance, tuple(beam)))
    return _ranked(beam, options)


def length_penalty(lengths: Any, exponent: float) -> Any:
    """((5 + length) / 6) ** exponent (Wu et al. 2016, equation 14); the length counts EOS."""
    return ((5.0 + ops.cast(lengths, "float32")) / 6.0) ** exponent


def _penalties(vocabulary_size: int, banned_ids: Sequence[int]) -> Any:
    banned = ops.convert_to_tensor(sorted(set(banned_ids)), "int32")
    return ops.sum(ops.one_hot(banned, vocabulary_size, dtype="float32"), axis=0) * IMPOSSIBLE


def _best(logits: Any, penalties: Any, num_penalised: int, log_probs: Any, finished: Any) -> tuple[Any, Any, Any]:
    """The K best continuations of open slots: log_probs, parents and ids, each [B, K], best first.

    Each slot's best, then the K best of those. Passes over [B, K, V] are what a step costs beside its matrix products;
    so penalties, of which there are `num_penalised`, reach only the few candidates that so many more of let through.
    """
    beam_size, vocabulary_size = log_probs.shape[1], logits.shape[-1]
    width = min(beam_size + num_penalised, vocabulary_size)
    probs, ids = top_k(ops.softmax(logits, axis=-1), width)  # [B, K, W]
    totals = ops.log(probs) + ops.take(penalties, ids, axis=0) + log_probs[:, :, None]
    totals = ops.where(finished[:, :, None], 2 * IMPOSSIBLE, totals)
    totals = ops.reshape(totals, (-1, beam_size * width))  # [B, K, W] -> [B, K * W]
    values, places = ops.top_k(totals, beam_size)
    ids = ops.take_along_axis(ops.reshape(ids, (-1, beam_size * width)), places, axis=1)
    return ops.maximum(values, IMPOSSIBLE), ops.cast(places // width, "int32"), ops.cast(ids, "int32")


def top_k(values: Any, k: int) -> tuple[Any, Any]:
    """The k largest of values [B, K, V] and their places, each [B, K, k]; of equal ones, those that come first.

    As `ops.top_k`, which takes three times as long for a large vocabulary on CPU: the largest lie in those k chunks of
    neighbours whose own largest are the largest.
    """
    num_slots, size = values.shape[1:]
    chunk = max(width for width in range(1, CHUNK + 1) if size % width == 0)
    num_chunks = size // chunk
    if k * chunk >= size:
        return ops.top_k(values, k)
    chunks = ops.reshape(values, (-1, num_chunks, chunk))
    _, chosen = ops.top_k(ops.max(chunks, axis=-1), k)
    chosen = ops.sort(ops.cast(chosen, "int32"), axis=-1)  # or else equal values would not come in their order
    first_chunk = ops.arange(ops.shape(chunks)[0], dtype="int32")[:, None] * num_chunks
    candidates = ops.take(ops.reshape(chunks, (-1, chunk)), first_chunk + chosen, axis=0)
    largest, places = ops.top_k(ops.reshape(candidates, (-1, k * chunk)), k)
    places = ops.cast(places, "int32")
    places = ops.take_along_axis(chosen, places // chunk, axis=1) * chunk + places % chunk
    return ops.reshape(largest, (-1, num_slots, k)), ops.reshape(places, (-1, num_slots, k))


def _continued(beam: Beam, state: Any, running: Any, log_probs: Any, parents: Any, ids: Any, eos_id: int) -> Beam:
    """Puts the best continuations, in order, into the open slots of running rows; all else stays as it is.

    A row that has stopped is left alone, so that its result does not depend on how long its neighbours take.
    """
    beam_size = beam.ids.shape[1]
    is_open = ops.logical_and(ops.logical_not(beam.finished), running[:, None])
    rank = ops.maximum(ops.cumsum(ops.cast(is_open, "int32"), axis=1) - 1, 0)

    def choose(new: Any, old: Any) -> Any:
        return ops.where(is_open, ops.take_along_axis(new, rank, axis=1), old)

    own_slots = ops.broadcast_to(ops.arange(beam_size, dtype="int32"), ops.shape(rank))
    parents = choose(parents, own_slots)
    ids = choose(ids, ops.zeros_like(beam.ids))
    log_probs = choose(log_probs, beam.log_probs)
    # An impossible EOS ends nothing: its slot waits for a hypothesis.
    ended = ops.logical_and(ids == eos_id, log_probs > IMPOSSIBLE / 2)
    # Not slice_update: TensorFlow has only an XLA operation for it, which a stock server may not know.
    at = ops.reshape(beam.position, (1, 1))
    return Beam(
        position=beam.position + 1,
        ids=ids,
        log_probs=log_probs,
        lengths=beam.lengths + ops.cast(is_open, "int32"),
        finished=ops.logical_or(beam.finished, ops.logical_and(is_open, ended)),
        pieces=ops.scatter_update(beam.pieces, at, ids[None]),
        parents=ops.scatter_update(beam.parents, at, parents[None]),
        state=tree.map_structure(lambda x: _reordered(x, parents), state),
    )


def _reordered(x: Any, parents: Any) -> Any:
    """Takes from x [B, K, ...] the slots that parents [B, K] name."""
    num_slots = x.shape[1]
    rows = ops.arange(ops.shape(parents)[0], dtype="int32")[:, None] * num_slots + parents
    flat = ops.reshape(x, (-1, *x.shape[2:]))
    return ops.reshape(ops.take(flat, rows, axis=0), (-1, num_slots, *x.shape[2:]))


def _running_rows(beam: Beam, limits: Any, options: SearchOptions) -> Any:
    """Which rows [B] still have a slot that could become one of the results wanted."""
    is_open = ops.logical_not(beam.finished)
    scores = beam.log_probs / length_penalty(beam.lengths, options.length_penalty)
    best_finished, _ = ops.top_k(ops.where(beam.finished, scores, 2 * IMPOSSIBLE), options.num_results)
    hopes = beam.log_probs / length_penalty(limits, options.length_penalty)[:, None]
    hope = ops.max(ops.where(is_open, hopes, 2 * IMPOSSIBLE), axis=1)
    can_win = hope > best_finished[:, -1]
    return ops.logical_and(can_win, beam.position < limits)


def _ranked(beam: Beam, options: SearchOptions) -> Hypotheses:
    """Reads the pieces back along the parents and sorts the slots."""
    beam_size = beam.ids.shape[1]
    scores = beam.log_probs / length_penalty(beam.lengths, options.length_penalty)
    _, order = ops.top_k(ops.where(beam.finished, scores, scores + 2 * IMPOSSIBLE), beam_size)
    order = ops.cast(order, "int32")

    def back(carry: Any, at: Any) -> Any:
        slots, (pieces, parents) = carry[0], at
        return ops.take_along_axis(parents, slots, axis=1), ops.take_along_axis(pieces, slots, axis=1)

    _, ids = recurrence(back, (order, order), (beam.pieces, beam.parents), reverse=True, differentiable=False)
    ids = ops.transpose(ids, (1, 2, 0))  # [L, B, K] -> [B, K, L]
    columns = (beam.lengths, beam.log_probs, scores, beam.finished)
    lengths, log_probs, scores, finished = (ops.take_along_axis(x, order, axis=1) for x in columns)
    return Hypotheses(ids, lengths, log_probs, scores, finished)
