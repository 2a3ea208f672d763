"""Beam search over anything that takes a step.

B sentences, R of them still searched, K slots of the beam, N of all the slots open, V pieces in the vocabulary, L steps
at most.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nmt.backend import ops, tree
from nmt.compilation import batch_gather, gather_rows, scan
from nmt.models.queries import ActiveQueries, round_up, select_active, select_all

IMPOSSIBLE = -1e9
CHUNK = 32  # largest group of neighbours in `top_k`

LOOKAHEAD = 3
"""Pieces that an open hypothesis is granted free of charge before it is given up as too far behind a finished one."""

Step = Callable[[Any, Any, Any, ActiveQueries], tuple[Any, Any]]
"""step(ids [N], state, memory, queries) -> logits [N, V], state. Every array of the state begins with [N], every array
of the memory with [R]; the queries tell which of the R x K slots the N are."""


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
    pruning: float | None = None
    """An open hypothesis is given up where its log_prob is so far below the best open one's, or where it would score
    below a finished one even if `LOOKAHEAD` more pieces cost nothing; only where one result is wanted."""


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
    """int32 [R, K], the last piece of each."""
    log_probs: Any
    """[R, K]."""
    lengths: Any
    """int32 [R, K]."""
    finished: Any
    """bool [R, K]."""


class Rows(NamedTuple):
    """What steps do not change of the rows that are searched."""

    numbers: Any
    """int32 [R], which of the sentences they are."""
    limits: Any
    """int32 [R], most pieces of each, EOS counted."""
    memory: Any
    """What the step is given; every array begins with [R]."""


class Beam(NamedTuple):
    """What a step makes of the rows that are searched."""

    positions: Any
    """int32 [R], pieces that each has."""
    slots: Slots
    is_open: Any
    """bool [R, K], which slots go on, of rows that do."""
    queries: ActiveQueries
    """The slots that the step is asked of: those that are open, or all of them where shapes may not change."""
    trace: Any
    """int32 [R, L + 1, 2, K], what was put into each slot at each step: the slot that it continued, and the piece. What
    a row writes that has stopped at its limit goes to the place too many."""
    state: Any
    """What the step is given; every array begins with [N]."""


class Found(NamedTuple):
    """What was found for all sentences."""

    slots: Slots
    """Each [B, K]."""
    trace: Any
    """int32 [B, L + 1, 2, K]."""


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
    at_once: int | None = None,
) -> Hypotheses:
    """Finds translations with a high score.

    A hypothesis ends when its EOS is among the best continuations of a step and then keeps its slot (as in Marian), so
    that a beam of one is greedy search. A row stops when all its slots have ended, at its own limit, or when no open
    slot can win any more: as log-probabilities only fall, an open hypothesis never scores above its present one at full
    length. With `options.pruning` hopeless hypotheses are given up before (Freitag and Al-Onaizan 2017, relative
    threshold); their slots wait for better ones.

    Args:
        step: scores the next piece of every slot.
        state: of each sentence before its first piece; every array begins with [B].
        memory: what else `step` is given; every array begins with [B].
        limits: int32 [B], most pieces of each sentence, EOS counted.
        max_steps: the largest of the limits, or more.
        bos_id, eos_id: ids of BOS and EOS.
        banned_ids: ids never produced.
        options: beam and ranking.
        at_once: sentences searched side by side, of which `step` is asked of open slots alone; where a quarter has
            stopped, others take their places. Where shapes may not change from step to step, as under XLA and on JAX,
            None: all of them, to the end of the last.
    """
    pack = at_once is not None

    def started(numbers: Any) -> tuple[Beam, Rows]:
        """The sentences of these numbers before their first piece."""
        rows = Rows(
            numbers, gather_rows(limits, numbers), tree.map_structure(lambda x: gather_rows(x, numbers), memory)
        )
        first = tree.map_structure(lambda x: gather_rows(x, numbers), state)
        return _first_beam(first, rows.limits, max_steps, bos_id, options, pack), rows

    def searched(beam: Beam, rows: Rows) -> Beam:
        """Takes steps until no row goes on, or so many have stopped that it pays to put others in their places."""

        def worthwhile(*parts: Any) -> Any:
            running = ops.any(Beam(*parts).is_open, axis=1)
            return _most(running) if pack else ops.any(running)

        def advance(*parts: Any) -> tuple:
            beam = Beam(*parts)
            logits, state = step(beam.queries.gather(beam.slots.ids), beam.state, rows.memory, beam.queries)
            best = _best(beam, ops.cast(logits, "float32"), banned_ids, eos_id, options.min_length)
            running = ops.any(beam.is_open, axis=1)
            slots, parents = _continued(beam.slots, running, *best, eos_id)
            if options.pruning is not None and options.num_results == 1:
                slots = _pruned(slots, options.pruning, options.length_penalty)
            positions = beam.positions + ops.cast(running, "int32")
            is_open = _open(slots, positions, rows.limits, options)
            queries = select_active(is_open) if pack else beam.queries
            origins = queries.gather(batch_gather(beam.queries.slots, parents))
            return tuple(
                Beam(
                    positions=positions,
                    slots=slots,
                    is_open=is_open,
                    queries=queries,
                    trace=_written(beam.trace, beam.positions, parents, slots.ids),
                    state=tree.map_structure(lambda x: gather_rows(x, origins), state),
                )
            )

        return Beam(*ops.while_loop(worthwhile, advance, tuple(beam)))

    num_sentences = ops.shape(limits)[0]
    if at_once is None:
        beam, rows = started(ops.arange(num_sentences, dtype="int32"))
        beam = searched(beam, rows)
        return _ranked(Found(beam.slots, beam.trace), options)

    def search_and_refill(beam: Beam, rows: Rows, taken: Any, found: Found) -> tuple:
        beam = searched(beam, rows)
        found = tree.map_structure(
            lambda old, new: ops.scatter_update(old, rows.numbers[:, None], new), found, Found(beam.slots, beam.trace)
        )
        beam, rows = _without_stopped(beam, rows)
        more = ops.minimum(taken + at_once - ops.shape(rows.numbers)[0], num_sentences)
        beam, rows = _both((beam, rows), started(ops.arange(taken, more, dtype="int32")))
        return beam, rows, more, found

    def left(beam: Beam, rows: Rows, taken: Any, found: Found) -> Any:
        return ops.logical_or(ops.any(beam.is_open), taken < num_sentences)

    taken = ops.minimum(at_once, num_sentences)
    beam, rows = started(ops.arange(taken, dtype="int32"))
    nothing, _ = started(ops.arange(num_sentences, dtype="int32"))
    *_, found = ops.while_loop(left, search_and_refill, (beam, rows, taken, Found(nothing.slots, nothing.trace)))
    return _ranked(found, options)


def length_penalty(lengths: Any, exponent: float) -> Any:
    """((5 + length) / 6) ** exponent (Wu et al. 2016, equation 14); the length counts EOS."""
    return ((5.0 + ops.cast(lengths, "float32")) / 6.0) ** exponent


def _best(beam: Beam, logits: Any, banned_ids: Sequence[int], eos_id: int, min_length: int) -> tuple[Any, Any, Any]:
    """The K best continuations of open slots: log_probs, parents and ids, each [R, K], best first.

    Each slot's best, then the K best of those. Passes over [N, V] are what a step costs beside its matrix products; so
    penalties reach only the few candidates that so many more of let through.
    """
    beam_size, vocabulary_size = beam.is_open.shape[1], logits.shape[-1]
    penalties = np.zeros(vocabulary_size, "float32")
    penalties[list(banned_ids)] = IMPOSSIBLE
    width = min(beam_size + len({*banned_ids, eos_id}), vocabulary_size)
    probs, ids = top_k(ops.softmax(logits, axis=-1), width)  # [N, W]
    totals = ops.log(probs) + gather_rows(penalties, ids) + beam.queries.gather(beam.slots.log_probs)[:, None]
    totals = ops.where(beam.is_open[:, :, None], beam.queries.scatter(totals), 2 * IMPOSSIBLE)  # [R, K, W]
    ids = ops.cast(beam.queries.scatter(ids), "int32")
    if min_length:
        early = ops.logical_and(ids == eos_id, (beam.positions < min_length)[:, None, None])
        totals = totals + ops.where(early, IMPOSSIBLE, 0.0)
    values, places = ops.top_k(ops.reshape(totals, (-1, beam_size * width)), beam_size)
    places = ops.cast(places, "int32")
    ids = batch_gather(ops.reshape(ids, (-1, beam_size * width)), places)
    return ops.maximum(values, IMPOSSIBLE), places // width, ids


def top_k(values: Any, k: int) -> tuple[Any, Any]:
    """The k largest of values [N, V] and their places, each [N, k]; of equal ones, those that come first.

    As `ops.top_k`, which takes three times as long for a large vocabulary on CPU: the largest lie in those k chunks of
    neighbours whose own largest are the largest.
    """
    size = values.shape[1]
    chunk = max(width for width in range(1, CHUNK + 1) if size % width == 0)
    num_chunks = size // chunk
    if chunk == 1 or k * chunk >= size:
        return ops.top_k(values, k)
    chunks = ops.reshape(values, (-1, num_chunks, chunk))
    _, chosen = ops.top_k(ops.max(chunks, axis=-1), k)
    # In order, or else equal values would not come in theirs.
    chosen = -ops.top_k(-ops.cast(chosen, "int32"), k)[0]
    largest, places = ops.top_k(ops.reshape(batch_gather(chunks, chosen), (-1, k * chunk)), k)
    places = ops.cast(places, "int32")
    return largest, batch_gather(chosen, places // chunk) * chunk + places % chunk


def _first_beam(state: Any, limits: Any, max_steps: Any, bos_id: int, options: SearchOptions, pack: bool) -> Beam:
    num_rows, beam_size = ops.shape(limits)[0], options.beam_size
    size = (num_rows, beam_size)
    # All slots are equal at first: only one of them may be continued.
    first = ops.arange(beam_size) == 0
    is_open = ops.logical_and(first, limits[:, None] > 0)
    queries = select_active(is_open) if pack else select_all(num_rows, beam_size)
    slots = Slots(
        ids=ops.full(size, bos_id, "int32"),
        log_probs=ops.broadcast_to(ops.where(first, 0.0, IMPOSSIBLE), size),
        lengths=ops.zeros(size, "int32"),
        finished=ops.zeros(size, "bool"),
    )
    # Steps that are never taken leave every slot where it is.
    nothing = ops.stack([ops.arange(beam_size, dtype="int32"), ops.zeros(beam_size, "int32")])
    return Beam(
        positions=ops.zeros((num_rows,), "int32"),
        slots=slots,
        is_open=is_open,
        queries=queries,
        trace=ops.zeros((num_rows, max_steps + 1, 2, beam_size), "int32") + nothing,
        state=tree.map_structure(lambda x: gather_rows(x, queries.indices // beam_size), state),
    )


def _continued(slots: Slots, running: Any, log_probs: Any, parents: Any, ids: Any, eos_id: int) -> tuple[Slots, Any]:
    """Puts the best continuations, in order, into the slots of running rows that have not ended; all else stays.

    A row that has stopped is left alone, so that its result does not depend on how long its neighbours take.

    Returns:
        The slots, and the slot that each continues: int32 [R, K].
    """
    takes = ops.logical_and(ops.logical_not(slots.finished), running[:, None])
    one_if_taking = ops.cast(takes, "int32")
    rank = ops.maximum(ops.cumsum(one_if_taking, axis=1) - 1, 0)
    ids = ops.where(takes, batch_gather(ids, rank), 0)
    log_probs = ops.where(takes, batch_gather(log_probs, rank), slots.log_probs)
    parents = ops.where(takes, batch_gather(parents, rank), ops.arange(slots.ids.shape[1], dtype="int32"))
    # An impossible EOS ends nothing: its slot waits for a hypothesis.
    ended = ops.logical_and(ids == eos_id, log_probs > IMPOSSIBLE / 2)
    finished = ops.logical_or(slots.finished, ended)
    return Slots(ids, log_probs, slots.lengths + one_if_taking, finished), parents


def _pruned(slots: Slots, pruning: float, exponent: float) -> Slots:
    """Gives up open hypotheses that are too far behind; of a row that was left alone, nothing more."""
    open_ones = ops.where(slots.finished, IMPOSSIBLE, slots.log_probs)
    finished_scores = ops.where(slots.finished, slots.log_probs / length_penalty(slots.lengths, exponent), IMPOSSIBLE)
    hopes = slots.log_probs / length_penalty(slots.lengths + LOOKAHEAD, exponent)
    kept = ops.logical_and(
        slots.log_probs >= ops.max(open_ones, axis=1, keepdims=True) - pruning,
        hopes > ops.max(finished_scores, axis=1, keepdims=True),
    )
    return slots._replace(log_probs=ops.where(ops.logical_or(kept, slots.finished), slots.log_probs, IMPOSSIBLE))


def _written(trace: Any, positions: Any, parents: Any, ids: Any) -> Any:
    # Not slice_update: TensorFlow has only an XLA operation for it, which a stock server may not know.
    places = ops.stack([ops.arange(ops.shape(positions)[0], dtype="int32"), positions], axis=1)
    return ops.scatter_update(trace, places, ops.stack([parents, ids], axis=1))


def _most(running: Any) -> Any:
    """Whether more than three quarters of the rows go on, or would be kept for a round number."""
    return 4 * round_up(ops.sum(ops.cast(running, "int32"))) > 3 * ops.shape(running)[0]


def _without_stopped(beam: Beam, rows: Rows) -> tuple[Beam, Rows]:
    """Lets go of rows that have stopped, but for a few where that makes a round number; none of the state is theirs."""
    running = ops.any(beam.is_open, axis=1)
    going_on, stopped = (ops.cast(ops.nonzero(x)[0], "int32") for x in (running, ops.logical_not(running)))
    size = ops.shape(going_on)[0]
    kept = ops.concatenate([going_on, stopped[: round_up(size) - size]])

    def of_kept(parts: Any) -> Any:
        return tree.map_structure(lambda x: gather_rows(x, kept), parts)

    is_open = of_kept(beam.is_open)
    beam = Beam(
        positions=of_kept(beam.positions),
        slots=of_kept(beam.slots),
        is_open=is_open,
        queries=select_active(is_open),
        trace=of_kept(beam.trace),
        state=beam.state,
    )
    return beam, of_kept(rows)


def _both(first: tuple[Beam, Rows], second: tuple[Beam, Rows]) -> tuple[Beam, Rows]:
    """The rows of the first, then those of the second."""
    beam, rows = tree.map_structure(lambda x, y: ops.concatenate([x, y], axis=0), first, second)
    # Between the states of the one and of the other may stand some that are nobody's.
    before, after = first[0].queries, second[0].queries
    queries = select_active(beam.is_open)
    origins = queries.gather(ops.concatenate([before.slots, after.slots + ops.shape(before.indices)[0]], axis=0))
    return beam._replace(queries=queries, state=tree.map_structure(lambda x: gather_rows(x, origins), beam.state)), rows


def _open(slots: Slots, positions: Any, limits: Any, options: SearchOptions) -> Any:
    """Which slots [R, K] go on: the open ones of rows where one of them could become one of the results wanted."""
    scores = slots.log_probs / length_penalty(slots.lengths, options.length_penalty)
    scores = ops.where(slots.finished, scores, 2 * IMPOSSIBLE)
    if options.num_results == 1:
        worst_wanted = ops.max(scores, axis=1)
    else:
        worst_wanted = ops.top_k(scores, options.num_results)[0][:, -1]
    hopes = slots.log_probs / length_penalty(limits, options.length_penalty)[:, None]
    hope = ops.max(ops.where(slots.finished, 2 * IMPOSSIBLE, hopes), axis=1)
    running = ops.logical_and(hope > worst_wanted, positions < limits)
    # A slot whose hypothesis is impossible waits for another.
    waits = ops.logical_or(slots.finished, slots.log_probs <= IMPOSSIBLE / 2)
    return ops.logical_and(running[:, None], ops.logical_not(waits))


def _ranked(found: Found, options: SearchOptions) -> Hypotheses:
    """Reads the pieces back along the parents and sorts the slots."""
    slots = found.slots
    scores = slots.log_probs / length_penalty(slots.lengths, options.length_penalty)
    _, order = ops.top_k(ops.where(slots.finished, scores, scores + 2 * IMPOSSIBLE), slots.ids.shape[1])
    order = ops.cast(order, "int32")

    def back(carry: Any, at: Any) -> Any:
        return batch_gather(at[:, 0], carry[0]), batch_gather(at[:, 1], carry[0])

    steps = ops.transpose(found.trace[:, :-1], (1, 0, 2, 3))  # [B, L, 2, K] -> [L, B, 2, K]
    _, ids = scan(back, (order, order), steps, reverse=True, differentiable=False)
    ids = ops.transpose(ids, (1, 2, 0))  # [L, B, K] -> [B, K, L]
    lengths, log_probs, scores, finished = (
        batch_gather(x, order) for x in (slots.lengths, slots.log_probs, scores, slots.finished)
    )
    return Hypotheses(ids, lengths, log_probs, scores, finished)
