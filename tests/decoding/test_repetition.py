"""Limits on repetition, against searches in plain Python."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from keras import ops
from test_beam_search import (
    EOS,
    LONGEST,
    WHOLE_SPACE,
    assert_same,
    everything,
    found_in,
    log_prob_of,
    plain_search,
    random_tables,
    searched,
    start,
    table_step,
)

from nmt.config.schema import SearchSettings
from nmt.decoding.repetition import limit_repetition
from nmt.models.queries import select_all


def limited_log_prob(table: np.ndarray, ids: Sequence[int], *, ngram: int, penalty: float) -> float:
    """What the table says of the tokens, penalized if they are known, or -inf if a sequence of `ngram` repeats."""
    total = 0.0
    for end, token in enumerate(ids):
        log_prob = log_prob_of(table, ids[: end + 1]) - log_prob_of(table, ids[:end])
        total += log_prob * (penalty if token in ids[:end] else 1)
    grams = [tuple(ids[n : n + ngram]) for n in range(len(ids) - ngram + 1)] if ngram else []
    return total if len(grams) == len({*grams}) else -math.inf


@pytest.mark.parametrize("max_active", [None, 3])
@pytest.mark.parametrize(
    ("beam_size", "ngram", "penalty"),
    [(1, 1, 1.0), (1, 2, 1.5), (3, 2, 1.0), (3, 0, 2.0), (3, 3, 1.3), (WHOLE_SPACE, 2, 1.0), (WHOLE_SPACE, 1, 1.4)],
)
def test_equals_a_search_in_plain_lists(beam_size: int, ngram: int, penalty: float, max_active: int | None) -> None:
    tables = random_tables(9, seed=beam_size + ngram)
    settings: dict[str, Any] = {"no_repeat_ngram": ngram, "repetition_penalty": penalty, "length_penalty": 0.6}
    count = len(tables)
    chosen = SearchSettings(beam_size=beam_size, **settings)
    step, state = limit_repetition(
        table_step(tables), start(np.arange(count))[0], num_rows=count, max_steps=LONGEST, settings=chosen
    )
    found = searched(
        tables,
        step=step,
        state=state,
        is_normalized=True,
        beam_size=beam_size,
        n_best=beam_size,
        max_active=max_active,
        **settings,
    )

    def log_prob(table: np.ndarray, ids: Sequence[int]) -> float:
        return limited_log_prob(table, ids, ngram=ngram, penalty=penalty)

    changed = 0
    for row, table in enumerate(tables):
        plain: dict[str, Any] = {"beam_size": beam_size, "length_penalty": 0.6}
        expected = (
            everything(table, 0.6, log_prob=log_prob)
            if beam_size == WHOLE_SPACE
            else plain_search(table, **plain, log_prob=log_prob)
        )
        assert_same(found_in(found, row), expected)
        changed += [one.ids for one in expected] != [one.ids for one in plain_search(table, **plain)]
    assert changed  # or else nothing was tried


def test_long_histories_equal_a_loop() -> None:
    """Which tokens are impossible after up to 24 random ones, for sequences of every length."""
    ids, size = np.random.default_rng(3).integers(4, 7, (6, 24)), 9
    queries = select_all(6, 1)
    for ngram in (1, 2, 4):
        step, state = limit_repetition(
            lambda ids, state, memory, queries: (ops.zeros((6, size)), state),
            ops.zeros((6,)),
            num_rows=6,
            max_steps=25,
            settings=SearchSettings(no_repeat_ngram=ngram),
        )
        for end in range(25):
            last = ids[:, end - 1] if end else np.full(6, 2)
            log_probs, state = step(ops.convert_to_tensor(last, "int32"), state, (), queries)
            if end % 8:
                continue
            for row, found in enumerate(ops.convert_to_numpy(log_probs)):
                read = ids[row, :end].tolist()
                grams = {tuple(read[n : n + ngram]) for n in range(end - ngram + 1)}
                banned = [(*read[end - ngram + 1 :], token)[-ngram:] in grams for token in range(size)]
                np.testing.assert_array_equal(found < -1e8, banned)
                np.testing.assert_allclose(found[~np.array(banned)], -math.log(size), rtol=1e-6)
    assert EOS not in ids
