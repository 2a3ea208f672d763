"""Beam search over anything that takes a step.

B sentences, R of them still searched, K slots of the beam, V pieces in the vocabulary, L steps at most.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from keras import ops, tree

from nmt.compilation import recurrence

IMPOSSIBLE = -1e9
CHUNK = 32  # largest group of neighbours in `top_k`

Step = Callable[[Any, Any, Any], tuple[Any, Any]]
"""step(ids [R, K], state, memory) -> logits [R, K, V], state. Every array of the state begins with [R, K], every array
of the memory with [R]."""


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


class Slots(NamedTuple):
    """The hypotheses of some rows."""

    ids: Any
    """int32 [B, K], the last piece of each."""
    log_probs: Any
    """[B, K]."""
    lengths: Any
    """int32 [B, K]."""
    finished: Any
    """bool [B, K]."""


class Beam(NamedTuple):
    """What the loop carries from one step to the next."""

    position: Any
    """int32, steps done."""
    slots: Slots
    """Of all rows."""
    pieces: Any
    """int32 [L, B, K], the piece put into a slot at each step."""
    parents: Any
    """int32 [L, B, K], the slot that it continued."""
    rows: Any
    """int32 [R], the rows that state and memory are of."""
    state: Any
    memory: Any


def beam_search(
    step: Step,
    state: Any,
    memory: Any,
    *,
    limits: Any,
    max_steps: Any,
    bos_id: int,
    eos_id: int,
    banned_ids: Sequence[int],
    options: SearchOptions,
    drop_rows: bool = False,
) -> Hypotheses:
    """Finds translations with a high score.

    A hypothesis ends when its EOS is among the best continuations of a step and then keeps its slot (as in Marian), so
    that a beam of one is greedy search. A row stops when all its slots have ended, at its own limit, or when no open
    slot can win any more: as log-probabilities only fall, an open hypothesis never scores above its present one at full
    length.

    Args:
        step: scores the next piece of every slot.
        state: what `step` is first given; every array begins with [B, K].
        memory: what else `step` is given; every array begins with [B].
        limits: int32 [B], most pieces of each row, EOS counted.
        max_steps: the largest of the limits, or more.
        bos_id, eos_id: ids of BOS and EOS.
        banned_ids: ids never produced.
        options: beam and ranking.
        drop_rows: spare `step` the rows that have stopped, once they are a quarter of its rows; where shapes may change
            from step to step, hence neither under XLA nor on JAX.
    """
    size = (ops.shape(limits)[0], options.beam_size)
    first = ops.arange(options.beam_size) == 0
    beam = Beam(
        position=ops.zeros((), "int32"),
        slots=Slots(
            ids=ops.full(size, bos_id, "int32"),
            # All slots are equal at first: only one of them may be continued.
            log_probs=ops.broadcast_to(ops.where(first, 0.0, IMPOSSIBLE), size),
            lengths=ops.zeros(size, "int32"),
            finished=ops.zeros(size, "bool"),
        ),
        pieces=ops.zeros((max_steps, *size), "int32"),
        # Steps that are never taken leave every slot where it is.
        parents=ops.zeros((max_steps, *size), "int32") + ops.arange(options.beam_size, dtype="int32"),
        rows=ops.arange(size[0], dtype="int32"),
        state=state,
        memory=memory,
    )

    def unfinished(*parts: Any) -> Any:
        beam = Beam(*parts)
        running = _running_rows(beam.slots, beam.position, limits, options)
        return ops.logical_and(beam.position < max_steps, ops.any(running))

    def advance(*parts: Any) -> tuple:
        beam = Beam(*parts)
        slots, limits_here = tree.map_structure(lambda x: ops.take(x, beam.rows, axis=0), (beam.slots, limits))
        logits, state = step(slots.ids, beam.state, beam.memory)
        penalties = _penalties(logits.shape[-1], banned_ids)
        early = ops.where(beam.position < options.min_length, IMPOSSIBLE, 0.0)
        penalties = penalties + early * ops.one_hot(eos_id, logits.shape[-1], dtype="float32")
        best = _best(ops.cast(logits, "float32"), penalties, len(set(banned_ids)) + 1, slots.log_probs, slots.finished)
        running = _running_rows(slots, beam.position, limits_here, options)
        slots, parents = _continued(slots, running, *best, eos_id)
        beam = _recorded(beam, slots, parents)
        if not drop_rows:
            return tuple(beam._replace(state=tree.map_structure(lambda x: _reordered(x, parents), state)))
        running = _running_rows(slots, beam.position, limits_here, options)
        return tuple(_without_stopped(beam._replace(state=state), parents, running))

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
    if chunk == 1 or k * chunk >= size:
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


def _continued(slots: Slots, running: Any, log_probs: Any, parents: Any, ids: Any, eos_id: int) -> tuple[Slots, Any]:
    """Puts the best continuations, in order, into the open slots of running rows; all else stays as it is.

    A row that has stopped is left alone, so that its result does not depend on how long its neighbours take.

    Returns:
        The slots, and the slot that each continues: int32 [R, K].
    """
    beam_size = slots.ids.shape[1]
    is_open = ops.logical_and(ops.logical_not(slots.finished), running[:, None])
    rank = ops.maximum(ops.cumsum(ops.cast(is_open, "int32"), axis=1) - 1, 0)

    def choose(new: Any, old: Any) -> Any:
        return ops.where(is_open, ops.take_along_axis(new, rank, axis=1), old)

    own_slots = ops.broadcast_to(ops.arange(beam_size, dtype="int32"), ops.shape(rank))
    ids = choose(ids, ops.zeros_like(slots.ids))
    log_probs = choose(log_probs, slots.log_probs)
    # An impossible EOS ends nothing: its slot waits for a hypothesis.
    ended = ops.logical_and(ids == eos_id, log_probs > IMPOSSIBLE / 2)
    lengths = slots.lengths + ops.cast(is_open, "int32")
    finished = ops.logical_or(slots.finished, ops.logical_and(is_open, ended))
    return Slots(ids, log_probs, lengths, finished), choose(parents, own_slots)


def _recorded(beam: Beam, slots: Slots, parents: Any) -> Beam:
    """Takes down what a step did to the rows that are still searched."""
    rows = beam.rows[:, None]
    # Not slice_update: TensorFlow has only an XLA operation for it, which a stock server may not know.
    at = ops.concatenate([ops.zeros_like(rows) + beam.position, rows], axis=1)
    return beam._replace(
        position=beam.position + 1,
        slots=tree.map_structure(lambda all_rows, some: ops.scatter_update(all_rows, rows, some), beam.slots, slots),
        pieces=ops.scatter_update(beam.pieces, at, slots.ids),
        parents=ops.scatter_update(beam.parents, at, parents),
    )


def _without_stopped(beam: Beam, parents: Any, running: Any) -> Beam:
    """Orders the state by parents [R, K], and lets go of rows that do not run any more, running [R], if they are many.

    The state is copied anyway; the memory, which is larger, only when rows go.
    """
    num_running = ops.sum(ops.cast(running, "int32"))
    worthwhile = 4 * num_running <= 3 * ops.shape(running)[0]
    kept = ops.cast(ops.nonzero(ops.logical_or(running, ops.logical_not(worthwhile)))[0], "int32")
    parents = ops.take(parents, kept, axis=0)

    def fewer() -> Any:
        return tree.map_structure(lambda x: ops.take(x, kept, axis=0), beam.memory)

    return beam._replace(
        rows=ops.take(beam.rows, kept, axis=0),
        state=tree.map_structure(lambda x: _reordered(x, parents, kept), beam.state),
        memory=ops.cond(worthwhile, fewer, lambda: beam.memory),
    )


def _reordered(x: Any, parents: Any, rows: Any = None) -> Any:
    """Takes from x [R, K, ...] the slots that parents [R, K] name, of all rows or of these."""
    num_slots = x.shape[1]
    rows = ops.arange(ops.shape(parents)[0], dtype="int32") if rows is None else rows
    flat = ops.reshape(x, (-1, *x.shape[2:]))
    taken = ops.take(flat, rows[:, None] * num_slots + parents, axis=0)
    return ops.reshape(taken, (-1, num_slots, *x.shape[2:]))


def _running_rows(slots: Slots, position: Any, limits: Any, options: SearchOptions) -> Any:
    """Which rows [R] still have a slot that could become one of the results wanted."""
    is_open = ops.logical_not(slots.finished)
    scores = slots.log_probs / length_penalty(slots.lengths, options.length_penalty)
    best_finished, _ = ops.top_k(ops.where(slots.finished, scores, 2 * IMPOSSIBLE), options.num_results)
    hopes = slots.log_probs / length_penalty(limits, options.length_penalty)[:, None]
    hope = ops.max(ops.where(is_open, hopes, 2 * IMPOSSIBLE), axis=1)
    can_win = hope > best_finished[:, -1]
    return ops.logical_and(can_win, position < limits)


def _ranked(beam: Beam, options: SearchOptions) -> Hypotheses:
    """Reads the pieces back along the parents and sorts the slots."""
    slots = beam.slots
    beam_size = slots.ids.shape[1]
    scores = slots.log_probs / length_penalty(slots.lengths, options.length_penalty)
    _, order = ops.top_k(ops.where(slots.finished, scores, scores + 2 * IMPOSSIBLE), beam_size)
    order = ops.cast(order, "int32")

    def back(carry: Any, at: Any) -> Any:
        slots, (pieces, parents) = carry[0], at
        return ops.take_along_axis(parents, slots, axis=1), ops.take_along_axis(pieces, slots, axis=1)

    _, ids = recurrence(back, (order, order), (beam.pieces, beam.parents), reverse=True, differentiable=False)
    ids = ops.transpose(ids, (1, 2, 0))  # [L, B, K] -> [B, K, L]
    columns = (slots.lengths, slots.log_probs, scores, slots.finished)
    lengths, log_probs, scores, finished = (ops.take_along_axis(x, order, axis=1) for x in columns)
    return Hypotheses(ids, lengths, log_probs, scores, finished)
