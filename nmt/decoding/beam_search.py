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

Draw = Callable[[Any, Any, Any], tuple[Any, Any]]
"""draw(logits [N, V], rows [N], positions [N]) -> the next token of each slot, int32 [N, 1], and its log-probability
[N, 1]."""


class Hypotheses(NamedTuple):
    """Hypotheses of each sentence, best first; see `rank_hypotheses`."""

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
    """int32 [R], which of the B sentences they are, or of the B x samples."""
    limits: Any
    """int32 [R], maximum length of each, EOS included."""
    limit_penalties: Any
    """[R], the length penalty at the limit."""
    memory: Any
    """Memory of the step function; every array begins with [R]."""


class Beam(NamedTuple):
    """What steps change of the rows."""

    positions: Any
    """int32 [R], number of steps taken."""
    slots: Slots
    empty: Any
    """[R], log-probability of the empty hypothesis, which takes no slot; 2 IMPOSSIBLE if there is none."""
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
    empty: Any
    """[B]."""
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
    is_normalized: bool = False,
    draw: Draw | None = None,
    num_samples: int = 1,
    phrases: Any = None,
) -> Hypotheses:
    """Searches for the hypotheses with the highest scores.

    A hypothesis is finished when its EOS is among the K best continuations of a step. It then keeps its slot (as in
    Marian), so that a beam of one is greedy search. A row stops when all its slots are finished, at its length limit,
    or when no open slot can win any more. Since log-probabilities only fall, an open hypothesis never scores above its
    present log-probability at full length, so stopping early loses nothing.

    The empty hypothesis takes no slot, except in a beam of one: EOS is often among the best first tokens, though far
    behind, and would keep a slot from a translation to the end. It is ranked at the end, by `rank_hypotheses`.

    Pruning may lose a hypothesis (Freitag and Al-Onaizan 2017, relative threshold): the slot of a pruned one waits for
    a better one. Nothing is pruned with a minimum length: a hypothesis that should have ended is forced to go on with
    unlikely tokens, so the best one at present may soon be far behind.

    With `draw`, the tokens of a hypothesis are drawn instead of searched for. A sample is a beam of one by itself.

    Args:
        step: scores the next token of every slot.
        state: of each sentence before its first token; every array begins with [B].
        memory: what else `step` is given; every array begins with [B].
        limits: int32 [B], maximum length of each sentence, EOS included.
        max_steps: the largest of the limits, or more.
        bos_id, eos_id: ids of BOS and EOS.
        banned_ids: ids that are never produced.
        settings: beam size, length penalty, minimum length and, if n_best is 1, pruning. All but the beam size may be
            scalar tensors.
        n_best: hypotheses wanted per sentence, at most the beam size: a row stops once no open one can be among them.
        max_active: how many sentences to search at a time. `step` then computes open slots only, and new sentences take
            the place of finished ones as soon as a quarter has stopped. None searches all of them to the end of the
            last, as static shapes require (JAX, XLA).
        is_normalized: whether `step` returns log-probabilities, which need not be those of all tokens together, instead
            of logits.
        draw: see `nmt.decoding.sampling`; the beam size is 1 then.
        num_samples: hypotheses drawn per sentence.
        phrases: what translations must contain, `nmt.decoding.phrases.Phrases`, whose step and memory are given, too.
            Hypotheses of sentences with phrases are not pruned.

    Returns:
        The hypotheses of each sentence; of each sample, [B x samples, 1, ...], if they are drawn.
    """
    is_packed = max_active is not None
    has_slot_for_empty = settings.beam_size == 1
    prunes = n_best == 1 and draw is None and not is_zero(settings.pruning_threshold)
    keeps_all = ops.logical_or(settings.pruning_threshold == 0, settings.min_length > 0)
    # The first step that may choose EOS, and the step after which there is an empty hypothesis, if any.
    end_from = settings.min_length if has_slot_for_empty else ops.maximum(settings.min_length, 1)
    empty_at = ops.where(settings.min_length > 0, -1, 0)

    def keeps_all_of(rows: Rows) -> Any:
        if phrases is None:
            return keeps_all
        # Those that contain most of the phrases are often far behind.
        return ops.logical_or(keeps_all, (gather_rows(phrases.lengths, rows.numbers) > 0)[:, None])

    def select(candidates: Candidates, counts: Any) -> tuple[Any, Any, Any]:
        return _select_best(candidates) if phrases is None else phrases.select(candidates, counts)

    def start_sentences(numbers: Any) -> tuple[Beam, Rows]:
        sentences = numbers if draw is None else numbers // num_samples
        its_limits = gather_rows(limits, sentences)
        limit_penalties = settings.get_length_penalty(ops.cast(its_limits, "float32"))
        rows = Rows(numbers, its_limits, limit_penalties, _gather_all(memory, sentences))
        first = _gather_all(state, sentences)
        return _first_beam(first, rows.limits, max_steps, bos_id, settings.beam_size, is_packed), rows

    def take_steps(beam: Beam, rows: Rows) -> Beam:
        """Takes steps until no row continues, or until so many have stopped that it pays to replace them."""

        def is_worthwhile(*parts: Any) -> Any:
            running = ops.any(Beam(*parts).is_open, axis=1)
            return _worth_continuing(running) if is_packed else ops.any(running)

        def advance(*parts: Any) -> tuple:
            beam = Beam(*parts)
            logits, state = step(beam.queries.gather(beam.slots.ids), beam.state, rows.memory, beam.queries)
            logits = ops.cast(logits, "float32")
            if draw is None:
                ids, log_probs = _find_best(logits, settings.beam_size, banned_ids, eos_id, is_normalized)
            else:
                places = (beam.queries.gather(x[:, None]) for x in (rows.numbers, beam.positions))
                ids, log_probs = draw(logits, *places)
            if phrases is not None:
                ids, log_probs = phrases.add_following(ids, log_probs, logits, state, rows.memory, beam.queries)
            candidates = _score_continuations(beam, ids, log_probs)
            counts = None
            if phrases is not None:
                counts, has_all = phrases.count_tokens(ids, state, rows.memory, beam.queries)
                candidates = phrases.drop_unmet(candidates, has_all, eos_id, is_last=beam.positions + 1 >= rows.limits)
            empty = beam.empty
            if not is_zero(end_from):
                is_early_end = ops.logical_and(candidates.ids == eos_id, (beam.positions < end_from)[:, None, None])
                if not has_slot_for_empty:
                    ended = ops.max(ops.where(is_early_end, candidates.log_probs, 2 * IMPOSSIBLE), axis=(1, 2))
                    empty = ops.where(beam.positions == empty_at, ended, empty)
                candidates = candidates.drop(is_early_end)
            running = ops.any(beam.is_open, axis=1)
            slots, parents = _extend(beam.slots, running, *select(candidates, counts), eos_id)
            positions = beam.positions + ops.cast(running, "int32")
            ended_scores = _score_ended(slots, empty, settings)
            if prunes:
                slots = _prune(slots, ended_scores, keeps_all_of(rows), settings)
            is_open = _open_slots(slots, ended_scores, positions, rows, n_best)
            queries = select_active(is_open) if is_packed else beam.queries
            origins = queries.gather(batch_gather(beam.queries.slots, parents))
            return tuple(
                Beam(
                    positions=positions,
                    slots=slots,
                    empty=empty,
                    is_open=is_open,
                    queries=queries,
                    trace=_write_trace(beam.trace, beam.positions, parents, slots.ids),
                    state=_gather_all(state, origins),
                )
            )

        return Beam(*ops.while_loop(is_worthwhile, advance, tuple(beam)))

    def rank(found: Found) -> Hypotheses:
        hypotheses = _read_trace(found, settings)
        if has_slot_for_empty:
            return hypotheses
        ranked = rank_hypotheses(_append_empty(hypotheses, found.empty, eos_id))
        return Hypotheses(*(part[:, : settings.beam_size] for part in ranked))

    num_sentences = ops.shape(limits)[0] * num_samples
    if max_active is None:
        beam, rows = start_sentences(ops.arange(num_sentences, dtype="int32"))
        beam = take_steps(beam, rows)
        return rank(Found(beam.slots, beam.empty, beam.trace))

    def search_and_refill(beam: Beam, rows: Rows, num_started: Any, found: Found) -> tuple:
        beam = take_steps(beam, rows)
        # Rows that go on are written as well, and again when they have stopped.
        found = tree.map_structure(
            lambda old, new: ops.scatter_update(old, rows.numbers[:, None], new),
            found,
            Found(beam.slots, beam.empty, beam.trace),
        )
        beam, rows = _drop_stopped(beam, rows)
        end = ops.minimum(num_started + max_active - ops.shape(rows.numbers)[0], num_sentences)
        beam, rows = _concat((beam, rows), start_sentences(ops.arange(num_started, end, dtype="int32")))
        return beam, rows, end, found

    def is_unfinished(beam: Beam, rows: Rows, num_started: Any, found: Found) -> Any:
        return ops.logical_or(ops.any(beam.is_open), num_started < num_sentences)

    num_started = ops.minimum(max_active, num_sentences)
    beam, rows = start_sentences(ops.arange(num_started, dtype="int32"))
    blank, _ = start_sentences(ops.arange(num_sentences, dtype="int32"))
    loop_state = (beam, rows, num_started, Found(blank.slots, blank.empty, blank.trace))
    *_, found = ops.while_loop(is_unfinished, search_and_refill, loop_state)
    return rank(found)


def score_hypotheses(log_probs: Any, lengths: Any, settings: SearchSettings) -> Any:
    """Returns log-probabilities divided by the length penalty; lengths count EOS."""
    return log_probs / settings.get_length_penalty(ops.cast(lengths, "float32"))


def is_zero(number: Any) -> bool:
    """Returns whether a setting is known to be 0; a tensor may be anything."""
    return isinstance(number, int | float) and number == 0


def is_one(number: Any) -> bool:
    """Returns whether a setting is known to be 1; a tensor may be anything."""
    return isinstance(number, int | float) and number == 1


class Candidates(NamedTuple):
    """The W best continuations of each slot."""

    log_probs: Any
    """[R, K, W], about IMPOSSIBLE or below where a slot is not open or a token is not allowed."""
    ids: Any
    """int32 [R, K, W]."""

    def drop(self, is_dropped: Any) -> "Candidates":
        """Makes candidates impossible, given by a bool [R, K, W]."""
        return self._replace(log_probs=ops.where(is_dropped, 2 * IMPOSSIBLE, self.log_probs))


def _find_best(
    logits: Any, beam_size: int, banned_ids: Sequence[int], eos_id: int, is_normalized: bool
) -> tuple[Any, Any]:
    """Returns the W best next tokens of each slot, best first, and their log-probabilities, both [N, W].

    Passes over [N, V] are the main cost of a step besides its matrix products, so banned ids and a premature EOS are
    excluded among the candidates only. W is so large that K candidates remain even if all of these are among them.
    """
    vocabulary_size = logits.shape[-1]
    penalties = np.zeros(vocabulary_size, "float32")
    penalties[list(banned_ids)] = IMPOSSIBLE
    width = min(beam_size + len({*banned_ids, eos_id}), vocabulary_size)
    values, ids = top_k(logits, width)
    if is_normalized:
        return ids, values + gather_rows(penalties, ids)
    # From the probability of the best token alone, which never underflows: the logarithm of a softmax is -inf where a
    # token is 87 nats behind. A log-softmax of all tokens would pass over [N, V] more often.
    first = ops.log(batch_gather(ops.softmax(logits, axis=-1), ids[:, :1]))  # [N, 1]
    return ids, values - values[:, :1] + first + gather_rows(penalties, ids)


def _score_continuations(beam: Beam, ids: Any, log_probs: Any) -> Candidates:
    """Returns the continuations of each slot, given W next tokens [N, W] and their log-probabilities."""
    totals = log_probs + beam.queries.gather(beam.slots.log_probs)[:, None]
    totals = ops.where(beam.is_open[:, :, None], beam.queries.scatter(totals), 2 * IMPOSSIBLE)  # [N, W] -> [R, K, W]
    return Candidates(totals, ops.cast(beam.queries.scatter(ids), "int32"))


def _select_best(candidates: Candidates) -> tuple[Any, Any, Any]:
    """Returns the K best continuations of all slots of a row, best first: log_probs, parents and ids, each [R, K]."""
    _, beam_size, width = candidates.ids.shape
    values, indices = ops.top_k(ops.reshape(candidates.log_probs, (-1, beam_size * width)), beam_size)
    indices = ops.cast(indices, "int32")
    ids = batch_gather(ops.reshape(candidates.ids, (-1, beam_size * width)), indices)
    return ops.maximum(values, IMPOSSIBLE), indices // width, ids


def top_k(values: Any, k: int) -> tuple[Any, Any]:
    """Returns the k largest of values [N, V] and their indices, each [N, k]; the first ones among equals.

    Same as `ops.top_k`, which takes three times as long for a large vocabulary on CPU. The k largest values lie in the
    k chunks of neighbours with the largest maxima, so that only these chunks need sorting.
    """
    size = values.shape[1]
    chunk = choose_chunk(size)
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


def choose_chunk(size: int) -> int:
    """Returns the largest number of neighbours, at most `CHUNK`, that divides `size` values into equal chunks."""
    return max(width for width in range(1, CHUNK + 1) if size % width == 0)


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
        empty=ops.full((num_rows,), 2 * IMPOSSIBLE, "float32"),
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


def _score_ended(slots: Slots, empty: Any, settings: SearchSettings) -> Any:
    """Returns the scores of finished hypotheses, the empty one last, [R, K + 1]; others have 2 IMPOSSIBLE."""
    scores = ops.where(slots.finished, score_hypotheses(slots.log_probs, slots.lengths, settings), 2 * IMPOSSIBLE)
    # The length penalty of a single token is 1, whatever its exponent.
    return ops.concatenate([scores, empty[:, None]], axis=1)


def _prune(slots: Slots, ended_scores: Any, keeps_all: Any, settings: SearchSettings) -> Slots:
    """Makes open hypotheses impossible that are too far behind the best open or finished one of their row.

    Args:
        slots: the hypotheses.
        ended_scores: from `_score_ended`.
        keeps_all: bool, whether nothing is pruned, or bool [R, 1].
        settings: length penalty and threshold.
    """
    open_log_probs = ops.where(slots.finished, IMPOSSIBLE, slots.log_probs)
    hopes = score_hypotheses(slots.log_probs, slots.lengths + LOOKAHEAD, settings)
    is_kept = ops.logical_and(
        slots.log_probs >= ops.max(open_log_probs, axis=1, keepdims=True) - settings.pruning_threshold,
        hopes > ops.max(ended_scores, axis=1, keepdims=True),
    )
    is_kept = ops.logical_or(is_kept, ops.logical_or(slots.finished, keeps_all))
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
        empty=gather_rows(beam.empty, kept),
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


def _open_slots(slots: Slots, ended_scores: Any, positions: Any, rows: Rows, n_best: int) -> Any:
    """Returns which slots [R, K] are extended: the open ones of rows in which one of them may enter the n best."""
    worst_wanted = ops.max(ended_scores, axis=1) if n_best == 1 else ops.top_k(ended_scores, n_best)[0][:, -1]
    hopes = slots.log_probs / rows.limit_penalties[:, None]
    hope = ops.max(ops.where(slots.finished, 2 * IMPOSSIBLE, hopes), axis=1)
    is_running = ops.logical_and(hope > worst_wanted, positions < rows.limits)
    # A slot with an impossible hypothesis waits for another one.
    is_waiting = ops.logical_or(slots.finished, slots.log_probs <= IMPOSSIBLE / 2)
    return ops.logical_and(is_running[:, None], ops.logical_not(is_waiting))


def rank_hypotheses(hypotheses: Hypotheses) -> Hypotheses:
    """Sorts the hypotheses of each sentence: finished ones by score, then unfinished ones by score.

    The empty hypothesis is finished, but must not take the place of a text that the length limit cut off. Unless it
    scores above a finished one, it is sorted among the unfinished ones.
    """
    scores, num_slots = hypotheses.scores, hypotheses.scores.shape[1]
    is_empty = ops.logical_and(hypotheses.finished, hypotheses.lengths == 1)
    is_text = ops.logical_and(hypotheses.finished, ops.logical_not(is_empty))
    empty = ops.max(ops.where(is_empty, scores, 2 * IMPOSSIBLE), axis=1, keepdims=True)
    is_above = ops.any(ops.logical_and(is_text, scores < empty), axis=1, keepdims=True)
    is_first = ops.logical_or(is_text, ops.logical_and(is_empty, is_above))
    by_score = ops.cast(ops.top_k(scores, num_slots)[1], "int32")
    # A large number added to the scores of the others would round them.
    ranks = ops.where(batch_gather(is_first, by_score), 0, num_slots) + ops.arange(num_slots, dtype="int32")
    order = batch_gather(by_score, ops.cast(ops.top_k(-ranks, num_slots)[1], "int32"))
    return Hypotheses(*(batch_gather(part, order) for part in hypotheses))


def _append_empty(hypotheses: Hypotheses, log_probs: Any, eos_id: int) -> Hypotheses:
    """Adds the empty hypothesis to the K of each sentence, [B, K + 1, ...].

    Args:
        hypotheses: each [B, K, ...].
        log_probs: [B], of the empty hypothesis; 2 IMPOSSIBLE if there is none.
        eos_id: id of EOS.
    """
    ids, log_probs = hypotheses.ids[:, :1], log_probs[:, None]
    eos = ops.where(ops.arange(ops.shape(ids)[2], dtype="int32") == 0, eos_id, 0)
    empty = Hypotheses(
        ids=ops.broadcast_to(eos, ops.shape(ids)),
        lengths=ops.ones_like(hypotheses.lengths[:, :1]),
        log_probs=log_probs,
        scores=log_probs,  # the length penalty of a single token is 1
        finished=log_probs > IMPOSSIBLE / 2,
    )
    return Hypotheses(*(ops.concatenate(parts, axis=1) for parts in zip(hypotheses, empty, strict=True)))


def _read_trace(found: Found, settings: SearchSettings) -> Hypotheses:
    """Reads the tokens of the slots along the trace, from the last to the first."""
    slots = found.slots

    def follow(slot: Any, at: Any) -> Any:
        return batch_gather(at[:, 0], slot[0]), batch_gather(at[:, 1], slot[0])

    steps = ops.transpose(found.trace[:, :-1], (1, 0, 2, 3))  # [B, L, 2, K] -> [L, B, 2, K]
    last = ops.arange(slots.ids.shape[1], dtype="int32") + ops.zeros_like(slots.ids)
    _, ids = scan(follow, (last, last), steps, reverse=True, differentiable=False)
    ids = ops.transpose(ids, (1, 2, 0))  # [L, B, K] -> [B, K, L]
    scores = score_hypotheses(slots.log_probs, slots.lengths, settings)
    return Hypotheses(ids, slots.lengths, slots.log_probs, scores, slots.finished)


def _gather_all(arrays: Any, indices: Any) -> Any:
    """Takes rows of every array in a nest."""
    return tree.map_structure(lambda x: gather_rows(x, indices), arrays)
