"""Beam search over any step function.

B sentences, R of them still searched (rows), K slots of the beam, N open slots of all rows, V tokens in the vocabulary,
L steps at most, W candidates per slot.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nmt.backend import ops, tree
from nmt.compilation import batch_gather, gather_rows, scan
from nmt.config.schema import SearchSettings
from nmt.models.queries import ActiveQueries, round_up, select_active, select_all

# Log-probability of what does not exist or is banned. Finite, since the difference of infinities is NaN.
IMPOSSIBLE = -1e9
CHUNK = 32  # most neighbours per chunk in `top_k`

LOOKAHEAD = 3
"""Tokens at no cost that an open hypothesis is granted before it is pruned as too far behind a finished one."""

Step = Callable[[Any, Any, Any, ActiveQueries], tuple[Any, Any]]
"""step(ids [N], state, memory, queries) -> logits [N, V], state. The first axis of every array is N in the state, and R
in the memory; the queries say which of the R x K slots the N are."""


class Hypotheses(NamedTuple):
    """Hypotheses of each sentence, best first: finished ones by score, then unfinished ones by score."""

    ids: Any
    """int32 [B, K, L], without BOS; 0 after EOS."""
    lengths: Any
    """int32 [B, K], EOS included."""
    log_probs: Any
    """[B, K], sums of the tokens' log-probabilities (nats); about -1e9 in slots without a hypothesis."""
    scores: Any
    """[B, K], log_probs divided by the length penalty, and with a coverage penalty that is added."""
    finished: Any
    """bool [B, K], False where the length limit cut a hypothesis off before its EOS."""

    @property
    def exists(self) -> Any:
        """bool [B, K], False in slots without a hypothesis: a tiny vocabulary or length limit allows fewer than K."""
        return self.log_probs > IMPOSSIBLE / 2


class Slots(NamedTuple):
    """Hypotheses of some rows."""

    ids: Any
    """int32 [R, K], the last token of each."""
    log_probs: Any
    """[R, K]."""
    lengths: Any
    """int32 [R, K]."""
    finished: Any
    """bool [R, K]."""


class Rows(NamedTuple):
    """What steps do not change of the rows."""

    numbers: Any
    """int32 [R], which of the B sentences they are."""
    limits: Any
    """int32 [R], maximum length of each, EOS included."""
    memory: Any
    """Memory of the step function; every array begins with [R]."""


class Beam(NamedTuple):
    """What steps change of the rows."""

    positions: Any
    """int32 [R], number of steps taken."""
    slots: Slots
    is_open: Any
    """bool [R, K], which slots are still extended; none in a row that has stopped."""
    queries: ActiveQueries
    """The slots that the step function computes: the open ones, or all of them where shapes are static."""
    trace: Any
    """int32 [R, L + 1, 2, K], what went into each slot at each step: the slot that it extends (0), and its token (1). A
    row that has stopped at its limit writes to position L, which is never read."""
    state: Any
    """State of the step function; every array begins with [N]."""


class Found(NamedTuple):
    """Results of all sentences."""

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
    settings: SearchSettings,
    n_best: int = 1,
    max_active: int | None = None,
) -> Hypotheses:
    """Searches for the hypotheses with the highest scores.

    A hypothesis is finished when its EOS is among the K best continuations of a step. It then keeps its slot (as in
    Marian), so that a beam of one is greedy search. A row stops when all its slots are finished, at its length limit,
    or when no open slot can win any more. Since log-probabilities only fall, an open hypothesis never scores above its
    present log-probability at full length, so stopping early loses nothing. Pruning may lose a hypothesis (Freitag and
    Al-Onaizan 2017, relative threshold): the slot of a pruned one waits for a better one.

    Args:
        step: scores the next token of every slot.
        state: of each sentence before its first token; every array begins with [B].
        memory: what else `step` is given; every array begins with [B].
        limits: int32 [B], maximum length of each sentence, EOS included.
        max_steps: the largest of the limits, or more.
        bos_id, eos_id: ids of BOS and EOS.
        banned_ids: ids that are never produced.
        settings: beam size, length penalty, minimum length and, if n_best is 1, pruning.
        n_best: hypotheses wanted per sentence, at most the beam size: a row stops once no open one can be among them.
        max_active: how many sentences to search at a time. `step` then computes open slots only, and new sentences take
            the place of finished ones as soon as a quarter has stopped. None searches all of them to the end of the
            last, as static shapes require (JAX, XLA).
    """
    is_packed = max_active is not None
    prunes = settings.pruning_threshold > 0 and n_best == 1

    def start_sentences(numbers: Any) -> tuple[Beam, Rows]:
        rows = Rows(numbers, gather_rows(limits, numbers), _gather_all(memory, numbers))
        first = _gather_all(state, numbers)
        return _first_beam(first, rows.limits, max_steps, bos_id, settings.beam_size, is_packed), rows

    def take_steps(beam: Beam, rows: Rows) -> Beam:
        """Takes steps until no row continues, or until so many have stopped that it pays to replace them."""

        def is_worthwhile(*parts: Any) -> Any:
            running = ops.any(Beam(*parts).is_open, axis=1)
            return _worth_continuing(running) if is_packed else ops.any(running)

        def advance(*parts: Any) -> tuple:
            beam = Beam(*parts)
            logits, state = step(beam.queries.gather(beam.slots.ids), beam.state, rows.memory, beam.queries)
            top = _top_continuations(beam, ops.cast(logits, "float32"), banned_ids, eos_id, settings.min_length)
            running = ops.any(beam.is_open, axis=1)
            slots, parents = _extend(beam.slots, running, *top, eos_id)
            if prunes:
                slots = _prune(slots, settings)
            positions = beam.positions + ops.cast(running, "int32")
            is_open = _open_slots(slots, positions, rows.limits, settings, n_best)
            queries = select_active(is_open) if is_packed else beam.queries
            origins = queries.gather(batch_gather(beam.queries.slots, parents))
            return tuple(
                Beam(
                    positions=positions,
                    slots=slots,
                    is_open=is_open,
                    queries=queries,
                    trace=_write_trace(beam.trace, beam.positions, parents, slots.ids),
                    state=_gather_all(state, origins),
                )
            )

        return Beam(*ops.while_loop(is_worthwhile, advance, tuple(beam)))

    num_sentences = ops.shape(limits)[0]
    if max_active is None:
        beam, rows = start_sentences(ops.arange(num_sentences, dtype="int32"))
        beam = take_steps(beam, rows)
        return _rank(Found(beam.slots, beam.trace), settings)

    def search_and_refill(beam: Beam, rows: Rows, num_started: Any, found: Found) -> tuple:
        beam = take_steps(beam, rows)
        # Rows that go on are written as well, and again when they have stopped.
        found = tree.map_structure(
            lambda old, new: ops.scatter_update(old, rows.numbers[:, None], new), found, Found(beam.slots, beam.trace)
        )
        beam, rows = _drop_stopped(beam, rows)
        end = ops.minimum(num_started + max_active - ops.shape(rows.numbers)[0], num_sentences)
        beam, rows = _concat((beam, rows), start_sentences(ops.arange(num_started, end, dtype="int32")))
        return beam, rows, end, found

    def is_unfinished(beam: Beam, rows: Rows, num_started: Any, found: Found) -> Any:
        return ops.logical_or(ops.any(beam.is_open), num_started < num_sentences)

    num_started = ops.minimum(max_active, num_sentences)
    beam, rows = start_sentences(ops.arange(num_started, dtype="int32"))
    empty, _ = start_sentences(ops.arange(num_sentences, dtype="int32"))
    loop_state = (beam, rows, num_started, Found(empty.slots, empty.trace))
    *_, found = ops.while_loop(is_unfinished, search_and_refill, loop_state)
    return _rank(found, settings)


def score_hypotheses(log_probs: Any, lengths: Any, settings: SearchSettings) -> Any:
    """Returns log-probabilities divided by the length penalty; lengths count EOS."""
    return log_probs / settings.get_length_penalty(ops.cast(lengths, "float32"))


def _top_continuations(
    beam: Beam, logits: Any, banned_ids: Sequence[int], eos_id: int, min_length: int
) -> tuple[Any, Any, Any]:
    """Returns the K best continuations of open slots, best first: log_probs, parents and ids, each [R, K].

    They are the K best of the W best of each slot. Passes over [N, V] are the main cost of a step besides its matrix
    products, so banned ids and a premature EOS are penalized among the candidates only. W is so large that K candidates
    remain even if all penalized ids are among them.
    """
    beam_size, vocabulary_size = beam.is_open.shape[1], logits.shape[-1]
    penalties = np.zeros(vocabulary_size, "float32")
    penalties[list(banned_ids)] = IMPOSSIBLE
    width = min(beam_size + len({*banned_ids, eos_id}), vocabulary_size)
    probs, ids = top_k(ops.softmax(logits, axis=-1), width)  # [N, W]
    totals = ops.log(probs) + gather_rows(penalties, ids) + beam.queries.gather(beam.slots.log_probs)[:, None]
    totals = ops.where(beam.is_open[:, :, None], beam.queries.scatter(totals), 2 * IMPOSSIBLE)  # [N, W] -> [R, K, W]
    ids = ops.cast(beam.queries.scatter(ids), "int32")
    if min_length:
        is_early = ops.logical_and(ids == eos_id, (beam.positions < min_length)[:, None, None])
        totals = totals + ops.where(is_early, IMPOSSIBLE, 0.0)
    values, indices = ops.top_k(ops.reshape(totals, (-1, beam_size * width)), beam_size)
    indices = ops.cast(indices, "int32")
    ids = batch_gather(ops.reshape(ids, (-1, beam_size * width)), indices)
    return ops.maximum(values, IMPOSSIBLE), indices // width, ids


def top_k(values: Any, k: int) -> tuple[Any, Any]:
    """Returns the k largest of values [N, V] and their indices, each [N, k]; the first ones among equals.

    Same as `ops.top_k`, which takes three times as long for a large vocabulary on CPU. The k largest values lie in the
    k chunks of neighbours with the largest maxima, so that only these chunks need sorting.
    """
    size = values.shape[1]
    chunk = max(width for width in range(1, CHUNK + 1) if size % width == 0)
    num_chunks = size // chunk
    if chunk == 1 or k * chunk >= size:
        return ops.top_k(values, k)
    chunks = ops.reshape(values, (-1, num_chunks, chunk))
    _, chosen = ops.top_k(ops.max(chunks, axis=-1), k)
    # In ascending order, or equal values would not keep theirs.
    chosen = -ops.top_k(-ops.cast(chosen, "int32"), k)[0]
    largest, indices = ops.top_k(ops.reshape(batch_gather(chunks, chosen), (-1, k * chunk)), k)
    indices = ops.cast(indices, "int32")
    return largest, batch_gather(chosen, indices // chunk) * chunk + indices % chunk


def _first_beam(state: Any, limits: Any, max_steps: Any, bos_id: int, beam_size: int, is_packed: bool) -> Beam:
    num_rows = ops.shape(limits)[0]
    size = (num_rows, beam_size)
    # All slots are equal at first, so only one of them may be extended.
    is_first = ops.arange(beam_size) == 0
    is_open = ops.logical_and(is_first, limits[:, None] > 0)
    queries = select_active(is_open) if is_packed else select_all(num_rows, beam_size)
    slots = Slots(
        ids=ops.full(size, bos_id, "int32"),
        log_probs=ops.broadcast_to(ops.where(is_first, 0.0, IMPOSSIBLE), size),
        lengths=ops.zeros(size, "int32"),
        finished=ops.zeros(size, "bool"),
    )
    # Steps that are never taken leave every slot as it is.
    no_step = ops.stack([ops.arange(beam_size, dtype="int32"), ops.zeros(beam_size, "int32")])
    return Beam(
        positions=ops.zeros((num_rows,), "int32"),
        slots=slots,
        is_open=is_open,
        queries=queries,
        trace=ops.zeros((num_rows, max_steps + 1, 2, beam_size), "int32") + no_step,
        state=_gather_all(state, queries.indices // beam_size),
    )


def _extend(slots: Slots, running: Any, log_probs: Any, parents: Any, ids: Any, eos_id: int) -> tuple[Slots, Any]:
    """Puts the best continuations, in order, into the unfinished slots of running rows.

    Finished slots and rows that have stopped stay as they are, so that the result of a row does not depend on how long
    its neighbours take.

    Returns:
        The slots, and the slot that each of them extends, int32 [R, K].
    """
    is_free = ops.logical_and(ops.logical_not(slots.finished), running[:, None])
    one_if_free = ops.cast(is_free, "int32")
    rank = ops.maximum(ops.cumsum(one_if_free, axis=1) - 1, 0)
    ids = ops.where(is_free, batch_gather(ids, rank), 0)
    log_probs = ops.where(is_free, batch_gather(log_probs, rank), slots.log_probs)
    parents = ops.where(is_free, batch_gather(parents, rank), ops.arange(slots.ids.shape[1], dtype="int32"))
    # An impossible EOS finishes nothing: its slot waits for a hypothesis.
    is_eos = ops.logical_and(ids == eos_id, log_probs > IMPOSSIBLE / 2)
    return Slots(ids, log_probs, slots.lengths + one_if_free, ops.logical_or(slots.finished, is_eos)), parents


def _prune(slots: Slots, settings: SearchSettings) -> Slots:
    """Makes open hypotheses impossible that are too far behind the best open or finished one of their row."""
    open_log_probs = ops.where(slots.finished, IMPOSSIBLE, slots.log_probs)
    scores = score_hypotheses(slots.log_probs, slots.lengths, settings)
    finished_scores = ops.where(slots.finished, scores, IMPOSSIBLE)
    hopes = score_hypotheses(slots.log_probs, slots.lengths + LOOKAHEAD, settings)
    is_kept = ops.logical_and(
        slots.log_probs >= ops.max(open_log_probs, axis=1, keepdims=True) - settings.pruning_threshold,
        hopes > ops.max(finished_scores, axis=1, keepdims=True),
    )
    is_kept = ops.logical_or(is_kept, slots.finished)
    return slots._replace(log_probs=ops.where(is_kept, slots.log_probs, IMPOSSIBLE))


def _write_trace(trace: Any, positions: Any, parents: Any, ids: Any) -> Any:
    # Not slice_update: TensorFlow implements it with an XLA operation, which a stock server may not have.
    indices = ops.stack([ops.arange(ops.shape(positions)[0], dtype="int32"), positions], axis=1)
    return ops.scatter_update(trace, indices, ops.stack([parents, ids], axis=1))


def _worth_continuing(running: Any) -> Any:
    """Returns whether more than three quarters of the rows are running, or would be kept to make a round number."""
    return 4 * round_up(ops.sum(ops.cast(running, "int32"))) > 3 * ops.shape(running)[0]


def _drop_stopped(beam: Beam, rows: Rows) -> tuple[Beam, Rows]:
    """Removes the rows that have stopped, except a few that make a round number; see `round_up`.

    The state needs no change: it has no entries of rows without open slots.
    """
    is_running = ops.any(beam.is_open, axis=1)
    running, stopped = (ops.cast(ops.nonzero(x)[0], "int32") for x in (is_running, ops.logical_not(is_running)))
    size = ops.shape(running)[0]
    kept = ops.concatenate([running, stopped[: round_up(size) - size]])
    is_open = gather_rows(beam.is_open, kept)
    beam = Beam(
        positions=gather_rows(beam.positions, kept),
        slots=_gather_all(beam.slots, kept),
        is_open=is_open,
        queries=select_active(is_open),
        trace=gather_rows(beam.trace, kept),
        state=beam.state,
    )
    return beam, _gather_all(rows, kept)


def _concat(first: tuple[Beam, Rows], second: tuple[Beam, Rows]) -> tuple[Beam, Rows]:
    """Returns the rows of the first followed by those of the second."""
    beam, rows = tree.map_structure(lambda x, y: ops.concatenate([x, y], axis=0), first, second)
    # The first state may end with entries that only make a round number, so the second one's may have to move.
    before, after = first[0].queries, second[0].queries
    queries = select_active(beam.is_open)
    origins = queries.gather(ops.concatenate([before.slots, after.slots + ops.shape(before.indices)[0]], axis=0))
    return beam._replace(queries=queries, state=_gather_all(beam.state, origins)), rows


def _open_slots(slots: Slots, positions: Any, limits: Any, settings: SearchSettings, n_best: int) -> Any:
    """Returns which slots [R, K] are extended: the open ones of rows in which one of them may enter the n best."""
    scores = score_hypotheses(slots.log_probs, slots.lengths, settings)
    scores = ops.where(slots.finished, scores, 2 * IMPOSSIBLE)
    worst_wanted = ops.max(scores, axis=1) if n_best == 1 else ops.top_k(scores, n_best)[0][:, -1]
    hopes = slots.log_probs / settings.get_length_penalty(ops.cast(limits, "float32"))[:, None]
    hope = ops.max(ops.where(slots.finished, 2 * IMPOSSIBLE, hopes), axis=1)
    is_running = ops.logical_and(hope > worst_wanted, positions < limits)
    # A slot with an impossible hypothesis waits for another one.
    is_waiting = ops.logical_or(slots.finished, slots.log_probs <= IMPOSSIBLE / 2)
    return ops.logical_and(is_running[:, None], ops.logical_not(is_waiting))


def _rank(found: Found, settings: SearchSettings) -> Hypotheses:
    """Sorts the slots by score and reads their tokens along the trace, from the last to the first."""
    slots = found.slots
    scores = score_hypotheses(slots.log_probs, slots.lengths, settings)
    _, order = ops.top_k(ops.where(slots.finished, scores, scores + 2 * IMPOSSIBLE), slots.ids.shape[1])
    order = ops.cast(order, "int32")

    def follow(carry: Any, at: Any) -> Any:
        return batch_gather(at[:, 0], carry[0]), batch_gather(at[:, 1], carry[0])

    steps = ops.transpose(found.trace[:, :-1], (1, 0, 2, 3))  # [B, L, 2, K] -> [L, B, 2, K]
    _, ids = scan(follow, (order, order), steps, reverse=True, differentiable=False)
    ids = ops.transpose(ids, (1, 2, 0))  # [L, B, K] -> [B, K, L]
    lengths, log_probs, scores, finished = (
        batch_gather(x, order) for x in (slots.lengths, slots.log_probs, scores, slots.finished)
    )
    return Hypotheses(ids, lengths, log_probs, scores, finished)


def _gather_all(arrays: Any, indices: Any) -> Any:
    """Takes rows of every array in a nest."""
    return tree.map_structure(lambda x: gather_rows(x, indices), arrays)
