"""Sampling over tables of made-up probabilities and with a random model, against exact distributions."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from coverage_case import BANNED, SOURCE, make_model, run_search
from keras import ops
from test_beam_search import BOS, EOS, LONGEST, PAD, A, B, V, log_prob_of, random_tables, start, table_step

from nmt.config.schema import SearchSettings
from nmt.decoding import inference
from nmt.decoding.beam_search import beam_search
from nmt.decoding.sampling import choose_weighted, hash_rows, make_draw

SAMPLING: dict[str, Any] = {"beam_size": 1, "coverage_penalty": 0.0, "temperature": 1.0}


def exact_distribution(
    scores: np.ndarray, allowed: Sequence[int], *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> dict[int, float]:
    """The probability of each token that may be drawn, by the definitions of top_k and top_p."""
    weights = {token: math.exp((scores[token] - max(scores)) / temperature) for token in allowed}
    ranked = sorted(weights, key=lambda token: -weights[token])[: top_k or None]
    total, kept = sum(weights[token] for token in ranked), []
    for token in ranked:
        if sum(weights[other] for other in kept) < top_p * total:
            kept.append(token)
    total = sum(weights[token] for token in kept)
    return {token: weights[token] / total for token in kept}


def assert_distributed(found: Counter, expected: dict[Any, float]) -> None:
    """Pearson's chi-square test at a level of 0.1 %, with outcomes expected less than 10 times counted as one."""
    size = sum(found.values())
    assert found.keys() <= expected.keys()
    rare = [one for one, probability in expected.items() if size * probability < 10]
    cells = [(found[one], size * expected[one]) for one in expected if one not in rare]
    if sum(expected[one] for one in rare) * size >= 10:
        cells.append((sum(found[one] for one in rare), size * sum(expected[one] for one in rare)))
    freedom = len(cells) - 1
    # The quantile by Wilson and Hilferty (1931).
    most = freedom * (1 - 2 / (9 * freedom) + 3.09 * math.sqrt(2 / (9 * freedom))) ** 3
    assert sum((count - mean) ** 2 / mean for count, mean in cells) < most


@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": 0.6}, {"top_k": 7}, {"top_p": 0.75}, {"temperature": 1.8, "top_k": 40, "top_p": 0.9}],
    ids=str,
)
def test_tokens_are_drawn_by_their_probabilities(settings: dict[str, Any]) -> None:
    size, num_samples, banned = 96, 20_000, [0, 1, 50]
    scores = np.random.default_rng(4).normal(scale=1.5, size=size).astype("float32")
    scores[banned] += 3
    draw = make_draw(
        np.array([[7, 8, EOS]], "int32"),
        num_samples=num_samples,
        settings=SearchSettings(**SAMPLING | settings),
        banned_ids=banned,
        eos_id=EOS,
    )
    rows = ops.arange(num_samples, dtype="int32")
    ids, log_probs = draw(ops.broadcast_to(ops.convert_to_tensor(scores), (num_samples, size)), rows, 0 * rows)
    ids = ops.convert_to_numpy(ids)[:, 0]
    allowed = sorted({*range(size)} - {*banned})
    assert_distributed(Counter(ids.tolist()), exact_distribution(scores, allowed, **settings))
    plain = scores - np.log(np.exp(scores.astype("float64")).sum())
    np.testing.assert_allclose(ops.convert_to_numpy(log_probs)[:, 0], plain[ids], atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.5, "top_k": 2, "min_length": 1}], ids=str)
@pytest.mark.parametrize("max_active", [None, 1000])
def test_samples_are_distributed_like_translations(settings: dict[str, Any], max_active: int | None) -> None:
    """All that fits into four tokens, of two tables at once."""
    tables, num_samples = random_tables(2, seed=6), 3000
    chosen = SearchSettings(**SAMPLING | settings)
    source = np.array([[4, EOS], [5, EOS]], "int32")
    draw = make_draw(source, num_samples=num_samples, settings=chosen, banned_ids=[PAD, BOS], eos_id=EOS)
    found = beam_search(
        table_step(tables),
        *start(np.arange(2)),
        limits=ops.full((2,), LONGEST, "int32"),
        max_steps=LONGEST,
        bos_id=BOS,
        eos_id=EOS,
        banned_ids=[PAD, BOS],
        settings=chosen,
        max_active=max_active,
        draw=draw,
        num_samples=num_samples,
    )
    drawn = {name: value for name, value in settings.items() if name != "min_length"}
    ids, lengths, log_probs = (ops.convert_to_numpy(x)[:, 0] for x in found[:3])
    for row, table in enumerate(tables):
        here = slice(row * num_samples, (row + 1) * num_samples)
        texts = [tuple(one[:length].tolist()) for one, length in zip(ids[here], lengths[here], strict=True)]
        expected = {(): 1.0}
        for position in range(LONGEST):
            allowed = [A, B] if position < chosen.min_length else [EOS, A, B]
            expected = {
                after: probability * share
                for before, probability in expected.items()
                for after, share in (
                    [(before, 1.0)]
                    if before[-1:] == (EOS,)
                    else [
                        ((*before, token), share)
                        for token, share in exact_distribution(table[prefix_of(before)], allowed, **drawn).items()
                    ]
                )
            }
        assert_distributed(Counter(texts), expected)
        for text, log_prob in zip(texts[:20], log_probs[here], strict=False):
            assert log_prob == pytest.approx(log_prob_of(table, text), abs=1e-4)


def prefix_of(ids: Sequence[int]) -> int:
    return int("".join(map(str, [BOS, *ids])), V)


@pytest.mark.parametrize("size", [64, 7, 51])
def test_an_index_is_chosen_in_proportion_to_its_weight(size: int) -> None:
    """The points lie on a grid, so that counts are exact up to the points at the ends of intervals."""
    weights = np.random.default_rng(size).uniform(size=size).astype("float32")
    weights[::3] = 0
    grid = (np.arange(300, dtype="float32") + 0.5) / 300
    first, second = (x.ravel() for x in np.meshgrid(grid, grid))
    found = choose_weighted(ops.convert_to_tensor(np.tile(weights, (len(first), 1))), first, second)
    shares = np.bincount(ops.convert_to_numpy(found), minlength=size) / len(first)
    assert not shares[weights == 0].any()
    np.testing.assert_allclose(shares, weights / weights.sum(), atol=4e-3)


def test_the_ends_of_the_range_choose_no_weight_of_0() -> None:
    weights = np.random.default_rng(1).uniform(size=(500, 64)).astype("float32")
    weights[:, :3] = weights[:, 40:] = 0
    for point, expected in ((0.0, 3), (1 - 2**-24, 39)):
        points = np.full(500, point, "float32")
        found = ops.convert_to_numpy(choose_weighted(ops.convert_to_tensor(weights), points, points))
        assert (found == expected).all()


def test_the_number_of_a_source_depends_on_its_tokens_their_order_and_the_seed_alone() -> None:
    sources = np.array(list(itertools.product(range(1, 5), repeat=3)), "int32")
    numbers = ops.convert_to_numpy(hash_rows(sources, 1))
    assert len({*numbers.tolist()}) == len(sources)
    padded = ops.convert_to_numpy(hash_rows(np.pad(sources, ((0, 0), (0, 9))), 1))
    np.testing.assert_array_equal(padded, numbers)
    assert not (ops.convert_to_numpy(hash_rows(sources, 2)) == numbers).any()
    assert len({*ops.convert_to_numpy(hash_rows(np.pad(sources, ((0, 0), (1, 0))), 1)).tolist()} & {*numbers}) == 0


def test_a_sample_does_not_depend_on_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    together = run_search(model, n_best=3, **SAMPLING)
    assert together.ids.shape[:2] == (4, 3)
    assert len({tuple(ids) for row in together.ids.tolist() for ids in map(tuple, row)}) > 6
    reversed_order = run_search(model, np.pad(SOURCE[::-1], ((0, 0), (0, 5))), n_best=1, **SAMPLING)
    np.testing.assert_array_equal(reversed_order.ids[::-1, 0], together.ids[:, 0])
    monkeypatch.setattr(inference, "choose_max_active", lambda _: 2)
    refilled = inference.search(
        model,
        ops.convert_to_tensor(SOURCE),
        settings=SearchSettings(**SAMPLING | {"max_length": together.ids.shape[2]}),
        n_best=3,
        banned_ids=BANNED,
        refill=True,
    )
    np.testing.assert_array_equal(ops.convert_to_numpy(refilled.ids), together.ids)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": 1.0}, "sampling .temperature 1.0. does not search: set beam_size to 1; found 5"),
        (SAMPLING | {"coverage_penalty": 0.1}, "does not search: set coverage_penalty to 0; found 0.1"),
        ({"top_k": 5}, "top_k has no effect without sampling: set temperature above 0"),
        ({"top_p": 0.5}, "top_p has no effect without sampling"),
        ({"seed": 5}, "seed has no effect without sampling"),
        ({"top_p": 0.5, "seed": 5, "top_k": 3}, "top_k, top_p and seed have .*; found top_k 3, top_p 0.5 and seed 5"),
        (SAMPLING | {"temperature": 1e-9}, "temperature must be 0 or at least 0.001; found 1e-09"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_by_name(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SearchSettings(**settings)
