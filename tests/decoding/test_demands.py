"""Prefixes and phrases that translations must have, against all that is possible and a search in plain Python."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from keras import ops
from test_beam_search import (
    BOS,
    EOS,
    LONGEST,
    PAD,
    WHOLE_SPACE,
    A,
    B,
    Found,
    assert_same,
    everything,
    found_in,
    log_prob_of,
    random_tables,
    ranked,
    start,
    table_step,
)

from nmt.config.schema import SearchSettings
from nmt.decoding.beam_search import Hypotheses, beam_search
from nmt.decoding.phrases import Phrases, pad_phrases
from nmt.decoding.prefix import pad_prefixes, require_prefixes
from nmt.decoding.spelling import SPACE, Prefix, Spellings

SPELLINGS = Spellings([b"", b"", b"", b"x", b"xx"])  # of A and B
PREFIXES = [
    Prefix(),
    Prefix("-", [A]),
    Prefix("-", [B, A]),
    Prefix("-", [], b"xxx"),
    Prefix("-", [B], b"xx"),
    Prefix("-", [], b"x"),
    Prefix("-", [A], b"xxx"),
]
PHRASES: list[list[list[int]]] = [
    [],
    [[A, A]],
    [[A, A, B]],
    [[A, B], [B, B]],
    [[B]],
    [[A, B, A], [A]],
]


def run(
    tables: np.ndarray, *, prefixes: Any = None, phrases: Any = None, max_active: int | None, **options: Any
) -> Any:
    """Searches each table, with what is demanded of each."""
    settings = {"pruning_threshold": 0.0, "length_penalty": 0.6, **options}
    only_next = settings.pop("only_next", False)
    state, memory = start(np.arange(len(tables)))
    step, is_normalized = table_step(tables), False
    if prefixes is not None:
        step, state, memory = require_prefixes(
            step,
            state,
            memory,
            prefixes=pad_prefixes(prefixes),
            spellings=SPELLINGS,
            eos_id=EOS,
            is_normalized=False,
            only_next=only_next,
        )
        is_normalized = True
    if phrases is not None:
        phrases = Phrases(ops.convert_to_tensor(pad_phrases(phrases)))
        step, state, memory = phrases.require(step, state, memory, is_normalized=is_normalized)
        is_normalized = True
    found = beam_search(
        step,
        state,
        memory,
        limits=ops.full((len(tables),), LONGEST, "int32"),
        max_steps=LONGEST,
        bos_id=BOS,
        eos_id=EOS,
        banned_ids=(PAD, BOS),
        settings=SearchSettings(**settings),
        n_best=settings["beam_size"],
        max_active=max_active,
        is_normalized=is_normalized,
        phrases=phrases,
    )
    return Hypotheses(*(ops.convert_to_numpy(x) for x in found))


def begins(ids: Sequence[int], prefix: Prefix) -> bool:
    """Whether tokens begin with those of a prefix and go on with its bytes."""
    count = len(prefix.ids)
    rest = b"".join(SPELLINGS.tokens[one] for one in ids[count:])
    return list(ids[:count]) == list(prefix.ids) and rest.startswith(prefix.ending)


@pytest.mark.parametrize("max_active", [None, 3])
def test_all_that_begins_with_a_prefix_is_found_and_nothing_else(max_active: int | None) -> None:
    tables = random_tables(len(PREFIXES))
    found = run(tables, prefixes=PREFIXES, max_active=max_active, beam_size=WHOLE_SPACE)
    for row, (table, prefix) in enumerate(zip(tables, PREFIXES, strict=True)):
        expected = [one for one in everything(table, 0.6) if begins(one.ids, prefix)]
        assert expected
        if prefix.text:  # without the place of the empty hypothesis, ranks are those of scores
            expected = ranked(*([one for one in expected if one.finished is end] for end in (True, False)), [], 0.6)
        assert_same(found_in(found, row), expected)


@pytest.mark.parametrize("beam_size", [1, 2])
def test_a_small_beam_begins_with_the_prefix(beam_size: int) -> None:
    """The log-probability is that of all tokens, those of the prefix among them."""
    tables = random_tables(len(PREFIXES), seed=2)
    found = run(tables, prefixes=PREFIXES, max_active=None, beam_size=beam_size)
    for row, (table, prefix) in enumerate(zip(tables, PREFIXES, strict=True)):
        rows = found_in(found, row)
        assert rows and all(begins(one.ids, prefix) for one in rows)
        for one in rows:
            assert one.log_prob == pytest.approx(log_prob_of(table, [*one.ids, EOS][: one.length]), abs=1e-5)


def test_alternatives_are_all_ways_to_complete_a_prefix_with_their_probabilities() -> None:
    tables = random_tables(len(PREFIXES), seed=3)
    settings = {"beam_size": WHOLE_SPACE, "length_penalty": 0.0}
    found = run(tables, prefixes=PREFIXES, max_active=None, only_next=True, **settings)
    for row, (table, prefix) in enumerate(zip(tables, PREFIXES, strict=True)):
        before = log_prob_of(table, prefix.ids)
        expected = {}
        for length in range(1, LONGEST + 1 - len(prefix.ids)):
            for rest in itertools.product([EOS, A, B], repeat=length):
                spelt = b"".join(SPELLINGS.tokens[one] for one in rest)
                shorter = b"".join(SPELLINGS.tokens[one] for one in rest[:-1])
                is_next = spelt.startswith(prefix.ending) and (
                    len(shorter) < len(prefix.ending) if prefix.ending else length == 1
                )
                if is_next and EOS not in rest[:-1] and (EOS not in rest or not prefix.ending):
                    ids = [*prefix.ids, *rest]
                    expected[tuple(one for one in ids if one != EOS)] = log_prob_of(table, ids) - before
        # Of as many tokens as fit, some do not reach the end of the prefix.
        alternatives = {
            one.ids: one.log_prob for one in found_in(found, row) if one.finished or begins(one.ids, prefix)
        }
        assert alternatives == pytest.approx(expected, abs=1e-5)


def test_an_alternative_is_more_than_a_space(monkeypatch: pytest.MonkeyPatch) -> None:
    [table] = tables = random_tables(1, seed=3)
    monkeypatch.setattr("test_demands.SPELLINGS", Spellings([b"", b"", b"", SPACE, b"x"]))
    settings = {"beam_size": WHOLE_SPACE, "length_penalty": 0.0}
    found = found_in(run(tables, prefixes=[Prefix()], max_active=None, only_next=True, **settings), 0)
    alternatives = {one.ids: one.log_prob for one in found if one.finished and one.ids[-1:] == (B,)}
    ways = [(A,) * n + (B,) for n in range(LONGEST - 1)]
    assert alternatives == pytest.approx({ids: log_prob_of(table, ids) for ids in ways}, abs=1e-5)


def contains(ids: Sequence[int], phrase: Sequence[int]) -> bool:
    return any(list(ids[n : n + len(phrase)]) == list(phrase) for n in range(len(ids)))


def count_tokens(ids: Sequence[int], phrases: list[list[int]]) -> int:
    """Tokens of the phrases that a hypothesis contains, and of the one that it has begun."""
    begun = [
        max(n for n in range(len(phrase)) if list(ids[len(ids) - n :]) == phrase[:n])
        for phrase in phrases
        if not contains(ids, phrase)
    ]
    return sum(len(phrase) for phrase in phrases if contains(ids, phrase)) + max(begun, default=0)


def constrained_search(table: np.ndarray, phrases: list[list[int]], beam_size: int) -> list[Found]:
    """Dynamic beam allocation on lists, which always runs to the limit."""
    ended: list[Found] = []
    open_ones: list[tuple[int, ...]] = [()]
    empty = [] if phrases else [Found((), log_prob_of(table, [EOS]), True)]
    for position in range(LONGEST):
        reached = [
            (*ids, token)
            for ids in open_ones
            for token in ([EOS] if position and all(contains(ids, one) for one in phrases) else []) + [A, B]
        ]
        whole = [ids for ids in reached if all(contains(ids, one) for one in phrases)]
        if position == LONGEST - 1 and whole:
            reached = whole
        reached.sort(key=lambda ids: -log_prob_of(table, ids))
        ranks: dict[int, int] = {}
        order = []
        for ids in reached:
            count = count_tokens([one for one in ids if one != EOS], phrases)
            ranks[count] = ranks.get(count, -1) + 1
            order.append((ranks[count], -count, ids))
        chosen = [ids for _, _, ids in sorted(order)[: beam_size - len(ended)]]
        ended += [Found(ids[:-1], log_prob_of(table, ids), True) for ids in chosen if ids[-1] == EOS]
        open_ones = [ids for ids in chosen if ids[-1] != EOS]
    cut_off = [Found(ids, log_prob_of(table, ids), False) for ids in open_ones]
    return ranked(ended, cut_off, empty, 0.6)[:beam_size]


@pytest.mark.parametrize("max_active", [None, 3])
def test_all_that_contains_the_phrases_is_found_and_nothing_else(max_active: int | None) -> None:
    tables = random_tables(len(PHRASES), seed=4)
    found = run(tables, phrases=PHRASES, max_active=max_active, beam_size=WHOLE_SPACE)
    for row, (table, phrases) in enumerate(zip(tables, PHRASES, strict=True)):
        ended = [one for one in found_in(found, row) if one.finished]
        expected = [one for one in everything(table, 0.6) if one.finished]
        assert_same(ended, [one for one in expected if all(contains(one.ids, phrase) for phrase in phrases)])


@pytest.mark.parametrize("beam_size", [2, 3, 5])
def test_the_beam_is_divided_as_in_a_search_in_plain_lists(beam_size: int) -> None:
    tables = np.concatenate([random_tables(len(PHRASES), seed=seed) for seed in range(3)])
    demands = 3 * PHRASES
    found = run(tables, phrases=demands, max_active=None, beam_size=beam_size)
    for row, (table, phrases) in enumerate(zip(tables, demands, strict=True)):
        assert_same(found_in(found, row), constrained_search(table, phrases, beam_size))


def test_a_prefix_and_phrases_together() -> None:
    tables = random_tables(4, seed=5)
    prefixes, phrases = [PREFIXES[1], PREFIXES[3], PREFIXES[4], PREFIXES[0]], [[[B]], [[B, A]], [[A, A]], [[B, B]]]
    found = run(tables, prefixes=prefixes, phrases=phrases, max_active=None, beam_size=WHOLE_SPACE)
    for row, table in enumerate(tables):
        [phrase] = phrases[row]
        expected = [one for one in everything(table, 0.6) if one.finished and begins(one.ids, prefixes[row])]
        ended = [one for one in found_in(found, row) if one.finished]
        assert_same(ended, [one for one in expected if contains(one.ids, phrase)])
        assert all(math.isfinite(one.log_prob) for one in ended)
