"""Beam search over tables of made-up probabilities, without any model."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from keras import ops

from nmt.compilation import compile_function
from nmt.config.schema import SearchSettings
from nmt.decoding.beam_search import LOOKAHEAD, Hypotheses, beam_search, top_k
from nmt.models.queries import ActiveQueries

PAD, BOS, EOS, A, B = range(5)
V = 5
BANNED = (PAD, BOS)
LONGEST = 4  # tokens, EOS counted, of the searches over random tables
# All that fits into four tokens: 1 + 2 + 4 + 8 finished hypotheses and 16 unfinished ones.
WHOLE_SPACE = 31

PENALTIES = pytest.mark.parametrize("length_penalty", [0.0, 0.6, 1.7])


class Found(NamedTuple):
    """One hypothesis: its tokens without EOS."""

    ids: tuple[int, ...]
    log_prob: float
    finished: bool

    @property
    def length(self) -> int:
        return len(self.ids) + self.finished

    def score(self, length_penalty: float) -> float:
        return self.log_prob / ((5 + self.length) / 6) ** length_penalty


def random_tables(count: int, seed: int = 1) -> np.ndarray:
    """Logits of the next token after every prefix: [count, prefix, V]; a prefix is its ids read as digits."""
    random = np.random.default_rng(seed)
    return random.normal(scale=1.5, size=(count, V**LONGEST, V)).astype("float32")


def table_of(after: dict[int, dict[int, float]], longest: int = LONGEST) -> np.ndarray:
    """The same for probabilities that depend on the last token alone: [1, prefix, V]."""
    probabilities = np.full((V, V), 1e-20)
    for last, row in after.items():
        assert sum(row.values()) == pytest.approx(1)
        for token, probability in row.items():
            probabilities[last, token] = probability
    return np.log(probabilities).astype("float32")[np.arange(V**longest) % V][None]


def table_step(tables: np.ndarray) -> Any:
    """The step of a search whose state is, for each slot, the number of its table and the prefix read so far."""
    logits = ops.convert_to_tensor(tables.reshape(-1, V))

    def step(ids: Any, prefix: Any, rows: Any, queries: ActiveQueries) -> tuple[Any, Any]:
        prefix = prefix * V + ids
        table = ops.take(rows, queries.indices // queries.slots.shape[1])
        return ops.take(logits, table * tables.shape[1] + prefix, axis=0), prefix

    return step


def start(rows: Any) -> tuple[Any, Any]:
    """State and memory of a search: prefixes [B], and the numbers [B] of the tables."""
    rows = ops.cast(rows, "int32")
    return ops.zeros_like(rows), rows


def searched(
    tables: np.ndarray,
    *,
    limits: Sequence[int] | None = None,
    rows: Sequence[int] | None = None,
    max_steps: int | None = None,
    step: Any = None,
    state: Any = None,
    banned_ids: Sequence[int] = BANNED,
    n_best: int = 1,
    max_active: int | None = None,
    is_normalized: bool = False,
    **settings: Any,
) -> Hypotheses:
    """Searches each table, or the ones whose numbers are in `rows`, in one batch; without pruning by default."""
    rows = range(len(tables)) if rows is None else rows
    limits = [LONGEST] * len(rows) if limits is None else limits
    first, memory = start(np.array(rows))
    found = beam_search(
        step or table_step(tables),
        first if state is None else state,
        memory,
        limits=ops.convert_to_tensor(np.array(limits, "int32")),
        max_steps=max_steps or max(limits),
        bos_id=BOS,
        eos_id=EOS,
        banned_ids=banned_ids,
        settings=SearchSettings().model_copy(update={"pruning_threshold": 0.0, **settings}),
        n_best=n_best,
        max_active=max_active,
        is_normalized=is_normalized,
    )
    return Hypotheses(*(ops.convert_to_numpy(x) for x in found))


def found_in(hypotheses: Hypotheses, row: int = 0) -> list[Found]:
    """What stands in one row of the result, in order, without slots that hold nothing."""
    found = []
    for ids, length, log_prob, _, finished in zip(*(part[row] for part in hypotheses), strict=True):
        if log_prob > -1e8:
            assert not ids[length:].any()
            assert (ids[length - 1] == EOS) == finished
            found.append(Found(tuple(map(int, ids[: length - finished])), float(log_prob), bool(finished)))
    return found


def best(hypotheses: Hypotheses) -> Found:
    return found_in(hypotheses)[0]


def log_prob_of(table: np.ndarray, ids: Sequence[int]) -> float:
    """Forced decoding: the sum of what the table says about each token after those before it."""
    prefix, total = 0, 0.0
    for last, token in itertools.pairwise([BOS, *ids]):
        prefix = prefix * V + last
        logits = table[prefix].astype("float64")
        total += logits[token] - np.log(np.exp(logits).sum())
    return total


def plain_search(
    table: np.ndarray,
    *,
    beam_size: int,
    length_penalty: float,
    min_length: int = 0,
    limit: int = LONGEST,
    pruning: float | None = None,
    log_prob: Callable[[np.ndarray, Sequence[int]], float] = log_prob_of,
) -> list[Found]:
    """Beam search on lists, which always runs to the limit. A finished hypothesis keeps its slot.

    The empty hypothesis has no slot, but a rank in the end.
    """

    def promising(one: Found, ended: list[Found], open_ones: list[Found]) -> bool:
        hope = one.log_prob / ((5 + one.length + LOOKAHEAD) / 6) ** length_penalty
        behind = max(other.log_prob for other in open_ones) - one.log_prob
        return behind <= pruning and all(hope > other.score(length_penalty) for other in ended)

    empty = [] if min_length or beam_size == 1 else [Found((), log_prob(table, [EOS]), True)]
    ended: list[Found] = []
    open_ones = [Found((), 0.0, False)]
    for position in range(limit):
        tokens = [A, B] if position < max(min_length, int(beam_size > 1)) else [EOS, A, B]
        reached = [(*one.ids, token) for one in open_ones for token in tokens]
        scored = sorted(((log_prob(table, ids), ids) for ids in reached), reverse=True)[: beam_size - len(ended)]
        scored = [(total, ids) for total, ids in scored if total > -math.inf]
        ended += [Found(ids[:-1], total, True) for total, ids in scored if ids[-1] == EOS]
        open_ones = [Found(ids, total, False) for total, ids in scored if ids[-1] != EOS]
        if pruning is not None:
            open_ones = [one for one in open_ones if promising(one, empty + ended, open_ones)]
    return ranked(ended, open_ones, empty, length_penalty)[:beam_size]


def ranked(ended: list[Found], cut_off: list[Found], empty: list[Found], length_penalty: float) -> list[Found]:
    """Ranks finished, then unfinished hypotheses by score. The empty one comes before the first that scores lower."""
    rows = [sorted(group, key=lambda one: -one.score(length_penalty)) for group in (ended, cut_off)]
    if not empty:
        return rows[0] + rows[1]
    score = empty[0].score(length_penalty)
    for row in rows:
        for n, one in enumerate(row):
            if one.score(length_penalty) < score:
                row.insert(n, empty[0])
                return rows[0] + rows[1]
    return rows[0] + rows[1] + empty


def everything(
    table: np.ndarray,
    length_penalty: float,
    min_length: int = 0,
    log_prob: Callable[[np.ndarray, Sequence[int]], float] = log_prob_of,
) -> list[Found]:
    """Every hypothesis that is possible."""
    texts = [ids for length in range(LONGEST + 1) for ids in itertools.product([A, B], repeat=length)]
    ended = [Found(ids, log_prob(table, [*ids, EOS]), True) for ids in texts if min_length <= len(ids) < LONGEST]
    cut_off = [Found(ids, log_prob(table, ids), False) for ids in texts if len(ids) == LONGEST]
    ended, cut_off = ([one for one in group if one.log_prob > -math.inf] for group in (ended, cut_off))
    empty = [one for one in ended if not one.ids]
    return ranked([one for one in ended if one.ids], cut_off, empty, length_penalty)


def assert_same(found: list[Found], expected: list[Found]) -> None:
    assert [(one.ids, one.finished) for one in found] == [(one.ids, one.finished) for one in expected]
    np.testing.assert_allclose([one.log_prob for one in found], [one.log_prob for one in expected], atol=1e-5)


NEXT = {BOS: {A: 0.6, B: 0.4}, A: {EOS: 0.4, A: 0.35, B: 0.25}, B: {EOS: 0.9, A: 0.05, B: 0.05}}


def test_beam_of_two_finds_what_greedy_misses() -> None:
    assert best(searched(table_of(NEXT), beam_size=1)).ids == (A,)
    found = best(searched(table_of(NEXT), beam_size=2))
    assert found.ids == (B,)
    assert found.log_prob == pytest.approx(math.log(0.4 * 0.9))


def test_beam_of_one_is_greedy() -> None:
    tables = random_tables(7)
    found = searched(tables, beam_size=1)
    for row, table in enumerate(tables):
        ids: list[int] = []
        while len(ids) < LONGEST and EOS not in ids:
            prefix = int("".join(map(str, [BOS, *ids])), V)
            ids.append(max([EOS, A, B], key=lambda token: table[prefix, token]))
        assert found.ids[row, 0, : len(ids)].tolist() == ids


@PENALTIES
@pytest.mark.parametrize("min_length", [0, 2])
def test_a_beam_as_wide_as_the_space_equals_brute_force(length_penalty: float, min_length: int) -> None:
    tables = random_tables(5)
    settings: dict[str, Any] = {"length_penalty": length_penalty, "min_length": min_length}
    found = searched(tables, beam_size=WHOLE_SPACE, n_best=WHOLE_SPACE, **settings)
    for row, table in enumerate(tables):
        assert_same(found_in(found, row), everything(table, **settings))


@pytest.mark.parametrize(
    ("beam_size", "length_penalty", "min_length"),
    [(2, 0.0, 0), (2, 1.7, 1), (3, 0.6, 0), (3, 0.0, 1), (5, 1.7, 0), (5, 0.6, 1)],
)
def test_equals_a_search_in_plain_lists(beam_size: int, length_penalty: float, min_length: int) -> None:
    tables = random_tables(11, seed=beam_size)
    settings: dict[str, Any] = {"beam_size": beam_size, "length_penalty": length_penalty, "min_length": min_length}
    found = searched(tables, n_best=beam_size, **settings)
    for row, table in enumerate(tables):
        assert_same(found_in(found, row), plain_search(table, **settings))


@PENALTIES
@pytest.mark.parametrize("n_best", [1, 2])
def test_an_early_stop_loses_nothing(n_best: int, length_penalty: float) -> None:
    tables = random_tables(23)
    settings: dict[str, Any] = {"beam_size": 5, "length_penalty": length_penalty}
    found = searched(tables, n_best=n_best, **settings)
    for row, table in enumerate(tables):
        expected = plain_search(table, **settings)
        assert_same(found_in(found, row)[:n_best], expected[:n_best])


@pytest.mark.parametrize("max_active", [None, 3, 50])
@pytest.mark.parametrize(("pruning", "length_penalty"), [(0.2, 1.0), (1.0, 1.0), (1.0, 1.7)])
def test_pruning_equals_a_pruned_search_in_plain_lists(
    pruning: float, length_penalty: float, max_active: int | None
) -> None:
    tables = random_tables(40, seed=3)
    settings: dict[str, Any] = {"beam_size": 4, "length_penalty": length_penalty}
    found = searched(tables, max_active=max_active, pruning_threshold=pruning, **settings)
    changed = 0
    for row, table in enumerate(tables):
        expected = plain_search(table, pruning=pruning, **settings)
        assert_same(found_in(found, row)[:1], expected[:1])
        changed += expected[0].ids != plain_search(table, **settings)[0].ids
    assert changed  # or else it was not tried where it matters


def forced_table() -> np.ndarray:
    """After "A", nearly everything is EOS, and a second "A" is e ** -6. "B" is e ** -4 at first, then likely."""
    first, low = math.exp(-4), math.exp(-6)
    return table_of({BOS: {A: 1 - first, B: first}, A: {EOS: 1 - low, A: low}, B: {B: 0.8, EOS: 0.2}})


@pytest.mark.parametrize(("min_length", "expected"), [(0, (A,)), (1, (A,)), (2, (B, B)), (3, (B, B, B))])
def test_nothing_is_pruned_with_a_minimum_length(min_length: int, expected: tuple[int, ...]) -> None:
    # A minimum of two makes "A" pay 6 nats for what does not fit it. Pruned by then, "B" would have cost 4 alone.
    settings: dict[str, Any] = {"beam_size": 3, "length_penalty": 0.0, "min_length": min_length}
    pruned, plain = (searched(forced_table(), pruning_threshold=threshold, **settings) for threshold in (3.0, 0.0))
    assert best(pruned) == best(plain)
    assert best(pruned).ids == expected


@pytest.mark.parametrize("min_length", [1, 3])
def test_a_threshold_changes_nothing_with_a_minimum_length(min_length: int) -> None:
    tables = 2 * random_tables(20, seed=5)
    settings: dict[str, Any] = {"beam_size": 4, "min_length": min_length}
    for one, other in zip(
        searched(tables, pruning_threshold=0.5, **settings), searched(tables, **settings), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_the_empty_hypothesis_takes_no_slot_and_is_ranked_like_the_others() -> None:
    # EOS is the second-best first token, and far behind what else there is.
    table = table_of({BOS: {A: 0.9, EOS: 0.06, B: 0.04}, A: {EOS: 0.6, A: 0.4}, B: {EOS: 1}})
    settings: dict[str, Any] = {"beam_size": 2, "n_best": 2, "length_penalty": 0.0}
    assert [one.ids for one in found_in(searched(table, **settings))] == [(A,), (A, A)]
    # At a limit of one token nothing else ends. The text that was cut off is still the better translation.
    assert found_in(searched(table, limits=[1], **settings)) == [
        Found((A,), pytest.approx(math.log(0.9)), False),
        Found((), pytest.approx(math.log(0.06)), True),
    ]
    likely = table_of({BOS: {A: 0.6, EOS: 0.3, B: 0.1}, A: {EOS: 0.7, A: 0.3}, B: {EOS: 1}})
    assert [one.ids for one in found_in(searched(likely, **settings))] == [(A,), ()]
    assert [one.ids for one in found_in(searched(likely, min_length=1, **settings))] == [(A,), (A, A)]


@pytest.mark.parametrize("gap", [50.0, 100.0, 1000.0])
def test_a_hypothesis_far_behind_the_best_one_keeps_its_log_probability(gap: float) -> None:
    # The softmax of a token 104 nats behind is 0 in float32.
    table = np.full((1, V**LONGEST, V), -1e5, "float32")
    table[0, BOS, [A, B]] = 0, -gap
    table[0, BOS * V + A, EOS] = table[0, BOS * V + B, EOS] = 0
    found = found_in(searched(table, limits=[2], beam_size=2, n_best=2, length_penalty=0.0))
    assert found == [Found((A,), pytest.approx(0, abs=1e-6), True), Found((B,), pytest.approx(-gap), True)]


def test_many_results_are_not_pruned() -> None:
    tables = random_tables(5)
    pruned = searched(tables, beam_size=4, n_best=2, pruning_threshold=0.1)
    for one, other in zip(pruned, searched(tables, beam_size=4, n_best=2), strict=True):
        np.testing.assert_array_equal(one, other)


def test_hypotheses_that_are_given_up_take_no_more_steps() -> None:
    # "B" is e ** 2.2 times less likely than "A", and so is all that begins with it.
    table, sizes = table_of({BOS: {A: 0.9, B: 0.1}, A: {A: 0.999, EOS: 0.001}, B: {B: 1}}), []
    plain = table_step(table)

    def step(ids: Any, state: Any, memory: Any, queries: ActiveQueries) -> Any:
        sizes.append(int(ops.shape(ids)[0]))
        return plain(ids, state, memory, queries)

    for pruning, expected in [(0.0, [1, 2, 2, 2]), (2.5, [1, 2, 2, 2]), (2.0, [1, 1, 1, 1])]:
        sizes.clear()
        searched(table, step=step, max_active=1, beam_size=2, pruning_threshold=pruning)
        assert sizes == expected


def steps_taken(table: np.ndarray, limit: int, **options: Any) -> int:
    """How often the search asks for the next tokens."""
    taken, step = [], table_step(table)

    def counted(*args: Any) -> Any:
        taken.append(args)
        return step(*args)

    searched(table, limits=[limit], step=counted, **options)
    return len(taken)


def test_stops_once_every_slot_has_ended() -> None:
    certain = table_of({BOS: {A: 1}, A: {EOS: 1}}, longest=7)
    assert steps_taken(certain, limit=7, beam_size=1) == 2


def test_stops_once_no_open_slot_can_win() -> None:
    # "A" and EOS: 0.81. At the second step "B" has 0.1, of which no more than 0.1 can be left; all the same it is open.
    table = table_of({BOS: {A: 0.9, B: 0.1}, A: {EOS: 0.9, A: 0.1}, B: {B: 1}}, longest=7)
    settings: dict[str, Any] = {"limit": 7, "beam_size": 2, "length_penalty": 0.0}
    assert steps_taken(table, n_best=1, **settings) == 2
    assert steps_taken(table, n_best=2, **settings) == 7


def test_a_long_hypothesis_may_still_win_after_a_short_one_has_ended() -> None:
    # EOS alone: log 0.5 over ((5 + 1) / 6) ** 1. Six times A and EOS: log 0.45 over ((5 + 7) / 6) ** 1.
    def after(prefix: int) -> dict[int, float]:
        return {EOS: 0.5, A: 0.45, B: 0.05} if prefix == BOS else {EOS: 1e-9, A: 1 - 1e-9}

    table = np.full((V**7, V), -50.0, "float32")
    prefix = 0
    for last in [BOS] + [A] * 6:
        prefix = prefix * V + last
        for token, probability in after(prefix).items():
            table[prefix, token] = math.log(probability)
    table[prefix, EOS], table[prefix, A] = 0.0, -50.0
    found = found_in(searched(table[None], limits=[7], beam_size=2, length_penalty=1.0))
    assert [one.ids for one in found] == [(A,) * 6, ()]
    assert found[0].log_prob == pytest.approx(math.log(0.45), abs=1e-5)
    assert best(searched(table[None], limits=[7], beam_size=2, length_penalty=0.0)).ids == ()


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_the_score_is_the_log_probability_over_the_penalty_of_wu(exponent: float) -> None:
    found = searched(table_of(NEXT), beam_size=2, length_penalty=exponent)
    # "B" and EOS are two tokens: (5 + 2) / 6.
    assert found.scores[0, 0] == pytest.approx(math.log(0.36) / (7 / 6) ** exponent)


@PENALTIES
def test_the_best_of_many_fall_in_score_and_differ(length_penalty: float) -> None:
    found = searched(random_tables(13), beam_size=7, length_penalty=length_penalty, n_best=7)
    for row in range(13):
        has_text = (found.lengths[row] > 1) | ~found.finished[row]
        finished, scores = found.finished[row][has_text], found.scores[row][has_text]
        assert (np.diff(finished.astype(int)) <= 0).all()
        assert (np.diff(scores[finished]) <= 0).all()
        assert (np.diff(scores[~finished]) <= 0).all()
        hypotheses = found_in(found, row)
        assert len({(one.ids, one.finished) for one in hypotheses}) == len(hypotheses) == 7


def test_forced_decoding_of_a_result_gives_back_its_log_prob() -> None:
    tables = random_tables(13)
    found = searched(tables, beam_size=3, n_best=3)
    for row, table in enumerate(tables):
        for one in found_in(found, row):
            ids = [*one.ids, EOS] if one.finished else one.ids
            assert one.log_prob == pytest.approx(log_prob_of(table, ids), abs=1e-5)


@pytest.mark.parametrize("max_active", [None, 3, 20, 50])  # more and fewer than what is rounded up
@pytest.mark.parametrize("n_best", [1, 3])
def test_a_batch_equals_its_sentences_one_by_one(n_best: int, max_active: int | None) -> None:
    tables = random_tables(7)
    rows, limits = [*range(7)] * 6, [4, 1, 3, 2, 4, 4, 3] * 6
    together = searched(tables, rows=rows, limits=limits, beam_size=3, n_best=n_best, max_active=max_active)
    alone = [searched(tables, rows=[row], limits=[limits[row]], beam_size=3, n_best=n_best) for row in range(7)]
    for place, (row, limit) in enumerate(zip(rows, limits, strict=True)):
        assert (together.ids[place, :, limit:] == 0).all()
        np.testing.assert_array_equal(together.ids[place, :, :limit], alone[row].ids[0])
        for joint, single in zip(together[1:], alone[row][1:], strict=True):
            # A sum may be rounded otherwise where it is one of more.
            np.testing.assert_allclose(joint[place], single[0], rtol=1e-6)


def test_rows_that_have_stopped_take_no_more_steps() -> None:
    tables, limits, sizes = random_tables(8), [1, 1, 2, 2, 2, 3, 4, 4], []
    plain = table_step(tables)

    def step(ids: Any, state: Any, memory: Any, queries: ActiveQueries) -> Any:
        sizes.append((int(ops.shape(memory)[0]), int(ops.shape(ids)[0])))
        return plain(ids, state, memory, queries)

    endless = (*BANNED, EOS)
    searched(tables, limits=limits, step=step, max_active=8, banned_ids=endless, beam_size=3, n_best=3)
    # The first step continues one hypothesis a row, the second two.
    assert sizes == [(8, 8), (6, 12), (3, 9), (2, 6)]


def test_others_take_the_places_of_sentences_that_have_stopped() -> None:
    tables, limits, sizes = random_tables(8), [1, 4, 4, 4, 2, 2, 1, 1], []
    plain = table_step(tables)

    def step(ids: Any, state: Any, memory: Any, queries: ActiveQueries) -> Any:
        sizes.append((ops.convert_to_numpy(memory).tolist(), int(ops.shape(ids)[0])))
        return plain(ids, state, memory, queries)

    endless = (*BANNED, EOS)
    found = searched(tables, limits=limits, step=step, max_active=4, banned_ids=endless, beam_size=3, n_best=3)
    assert sizes == [
        ([0, 1, 2, 3], 4),
        ([1, 2, 3, 4], 7),  # two hypotheses of each that has taken a step, and one of the new sentence
        ([1, 2, 3, 4], 11),
        ([1, 2, 3, 5], 10),
        ([5, 6, 7], 4),
    ]
    together = searched(tables, limits=limits, banned_ids=endless, beam_size=3, n_best=3)
    for one, other in zip(found, together, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_room_for_more_steps_changes_nothing() -> None:
    tables, limits = random_tables(5), [2, 4, 3, 4, 1]
    tight = searched(tables, limits=limits, beam_size=3, n_best=3)
    roomy = searched(tables, limits=limits, beam_size=3, n_best=3, max_steps=11)
    np.testing.assert_array_equal(roomy.ids, np.pad(tight.ids, ((0, 0), (0, 0), (0, 7))))
    for one, other in zip(roomy[1:], tight[1:], strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_eos_before_the_limit_all_tokens_are_returned() -> None:
    table = table_of({BOS: {A: 0.7, B: 0.3}, A: {B: 0.8, A: 0.2}, B: {A: 0.6, B: 0.4}})
    found = searched(table, beam_size=2)
    assert not found.finished.any()
    assert found.lengths.tolist() == [[LONGEST, LONGEST]]
    assert best(found).ids == (A, B, A, B)
    assert best(found).log_prob == pytest.approx(math.log(0.7 * 0.8 * 0.6 * 0.8))


def test_an_unfinished_hypothesis_comes_after_finished_ones() -> None:
    # At a limit of two tokens, "A A" has 0.81 and "B" with EOS 0.1.
    table = table_of({BOS: {A: 0.9, B: 0.1}, A: {A: 0.9, B: 0.1}, B: {EOS: 1}})
    found = found_in(searched(table, limits=[2], beam_size=2))
    assert [(one.ids, one.finished) for one in found] == [((B,), True), ((A, A), False)]
    assert found[1].log_prob > found[0].log_prob


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_the_limit_counts_eos(limit: int) -> None:
    table = table_of({BOS: {A: 0.8, EOS: 0.2}, A: {A: 0.8, EOS: 0.2}})
    found = found_in(searched(table, limits=[limit], beam_size=WHOLE_SPACE, n_best=WHOLE_SPACE))
    assert max(one.length for one in found) == limit
    assert (A,) * (limit - 1) in [one.ids for one in found if one.finished]


@pytest.mark.parametrize("min_length", [0, 1, 3])
def test_the_minimum_does_not_count_eos(min_length: int) -> None:
    always_ends = table_of({last: {EOS: 0.98, A: 0.02} for last in (BOS, A)})
    found = best(searched(always_ends, beam_size=2, min_length=min_length, length_penalty=0.0))
    assert found.ids == (A,) * min_length
    assert found.finished


@pytest.mark.parametrize("beam_size", [1, 3, WHOLE_SPACE])
def test_banned_ids_never_appear_and_keep_their_probability(beam_size: int) -> None:
    greater = random_tables(5)
    greater[:, :, [PAD, BOS, A]] += 9
    found = searched(greater, beam_size=beam_size, banned_ids=[PAD, BOS, A], n_best=beam_size)
    for row, table in enumerate(greater):
        hypotheses = found_in(found, row)
        assert hypotheses
        for one in hypotheses:
            assert set(one.ids) <= {B}
            ids = [*one.ids, EOS] if one.finished else one.ids
            assert one.log_prob == pytest.approx(log_prob_of(table, ids), rel=1e-5)


def test_slots_without_a_hypothesis_come_last() -> None:
    # All that two tokens allow is "", "A" and the unfinished "A A", to which the table gives 0.4 times 0.1.
    table = table_of({BOS: {EOS: 0.6, A: 0.4}, A: {EOS: 0.9, A: 0.1}})
    settings: dict[str, Any] = {"banned_ids": [PAD, BOS, B], "limits": [2], "length_penalty": 0.0}
    found = searched(table, beam_size=7, n_best=7, **settings)
    assert [one.ids for one in found_in(found)] == [(), (A,), (A, A)]
    assert (found.log_probs[0, 3:] < -1e8).all()
    assert not found.finished[0, 3:].any()


@pytest.mark.parametrize(("size", "k"), [(4000, 8), (8000, 1), (601, 5), (96, 3), (7, 7), (64, 2)])
def test_selection_by_chunks_equals_a_stable_sort(size: int, k: int) -> None:
    values = np.random.default_rng(size).integers(0, 50, (6, size)).astype("float32")  # with many equal ones
    largest, places = top_k(values, k)
    expected = np.argsort(-values, axis=-1, kind="stable")[..., :k]
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_array_equal(largest, np.take_along_axis(values, expected, axis=-1))


@pytest.mark.parametrize("max_active", [None, 3, 50])
def test_compiled_search_equals_eager_search(max_active: int | None) -> None:
    tables, limits = random_tables(5), [4, 2, 4, 3, 4]
    settings = SearchSettings(beam_size=3)

    def search(rows: Any) -> Any:
        """Row, limit, and padding up to the number of steps."""
        return beam_search(
            table_step(tables),
            *start(rows[:, 0]),
            limits=rows[:, 1],
            max_steps=ops.shape(rows)[1],
            bos_id=BOS,
            eos_id=EOS,
            banned_ids=BANNED,
            settings=settings,
            n_best=2,
            max_active=max_active,
        )

    run = compile_function(search, [], num_inputs=1)
    for count, width in [(5, 4), (2, 7)]:
        rows = np.zeros((count, width), "int32")
        rows[:, 0], rows[:, 1] = np.arange(count), limits[:count]
        found = [ops.convert_to_numpy(x) for x in run(ops.convert_to_tensor(rows))]
        eager = searched(tables, rows=range(count), limits=limits[:count], max_steps=width, beam_size=3, n_best=2)
        for exact in (0, 1, 4):
            np.testing.assert_array_equal(found[exact], eager[exact])
        for close in (2, 3):
            np.testing.assert_allclose(found[close], eager[close], atol=1e-5)


def test_the_state_may_be_any_nest_of_any_type() -> None:
    """Each part is put in the order of the slots, as the prefixes of the tables are."""
    tables = random_tables(3)
    plain = table_step(tables)

    def step(ids: Any, state: dict[str, Any], memory: Any, queries: ActiveQueries) -> Any:
        logits, prefix = plain(ids, state["prefix"], memory, queries)
        digits = ops.concatenate([state["digits"][:, 1:], ops.cast(ids, "float16")[:, None]], axis=1)
        read = ops.sum(ops.cast(digits, "int32") * ops.convert_to_tensor(V ** np.arange(6, -1, -1), "int32"), axis=1)
        return ops.where((read == prefix)[:, None], logits, float("nan")), {"prefix": prefix, "digits": digits}

    prefix, memory = start(np.arange(3))
    state = {"prefix": prefix, "digits": ops.zeros((3, 7), "float16")}
    ids: dict[str, Any] = {"max_steps": LONGEST, "bos_id": BOS, "eos_id": EOS, "banned_ids": BANNED}
    limits = ops.full((3,), LONGEST, "int32")
    found = beam_search(
        step, state, memory, limits=limits, settings=SearchSettings(beam_size=3, pruning_threshold=0.0), **ids
    )
    expected = searched(tables, beam_size=3)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(found.ids), expected.ids)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(found.log_probs), expected.log_probs)
