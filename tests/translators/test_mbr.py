"""Minimum Bayes risk decoding: utilities equal sacreBLEU's, and the ranking equals a plain loop's."""

import math
import random

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from nmt.config.schema import SearchSettings
from nmt.errors import UserError
from nmt.exporting.job import check_searches_once
from nmt.inspection.beam import check_settings
from nmt.translators.mbr import make_utility, rank_by_utility

TEXTS = [
    "The cat sat on the mat, didn't it?",
    "The cat sat on the mat.",
    "A cat sat on a mat, and the cat and the cat.",
    "the the the the the the",
    "It costs 1,000.50 $ (net).",
    "Ein ganz anderer Satz",
    "x",
    "",
    "  two  words \n",
    "「今日は」と言った。",
    "The cat sat on the mat.",
]


@pytest.mark.parametrize("name", ["chrf", "bleu"])
def test_every_utility_is_the_sentence_score_of_sacrebleu(name):
    generator = random.Random(1)
    # Few letters, so that n-grams repeat and match often.
    texts = [*TEXTS, *("".join(generator.choices("ab c", k=generator.randrange(30))) for _ in range(20))]
    found = make_utility(name, "en")(texts)
    metric = CHRF() if name == "chrf" else BLEU(effective_order=True)
    expected = [[metric.sentence_score(one, [other]).score for other in texts] for one in texts]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_no_text_at_all_has_utilities():
    for name in ("chrf", "bleu"):
        assert make_utility(name, "en")(["", ""]).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_candidates_are_ranked_by_expected_utility():
    def utility(texts):
        return np.array([[100.0 if one == other else 10.0 * len(one) for other in texts] for one in texts])

    # Samples have equal weights: "aa" was drawn twice of four times, which makes it the best.
    samples = ["b", "aa", "aa", "cc"]
    assert rank_by_utility(samples, utility, None) == [(1, 60.0), (3, 40.0), (0, 32.5)]
    # The same hypotheses of a search count by their probabilities, 0.6, 0.3 and 0.1 of their sum.
    log_probs = [math.log(p / 2) for p in (0.6, 0.3, 0.1)]
    ranked = rank_by_utility(["b", "aa", "cc"], utility, log_probs)
    assert [n for n, _ in ranked] == [0, 1, 2]
    assert [score for _, score in ranked] == pytest.approx([60 + 4, 20 * 0.7 + 30, 20 * 0.9 + 10])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mbr_candidates": 8}, "mbr_candidates has no effect without mbr; found mbr_candidates 8"),
        ({"mbr": "chrf", "coverage_penalty": 0.1}, "coverage_penalty has no effect with mbr, which ranks by expected"),
        ({"temperature": 1.0, "beam_size": 1, "on_warning": "retry"}, "does not search: set on_warning to keep"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SearchSettings(**settings)


def test_exports_and_the_tree_of_a_beam_do_not_choose():
    with pytest.raises(UserError, match=r"decoding.mbr is bleu, but an export returns .* with decoding.mbr=none"):
        check_searches_once(SearchSettings(mbr="bleu"))
    with pytest.raises(UserError, match=r"decoding.on_warning is retry, but an export returns what its search finds"):
        check_searches_once(SearchSettings(on_warning="retry"))
    with pytest.raises(UserError, match=r"decoding.mbr: the tree shows a search by probability; set it to none"):
        check_settings(SearchSettings(mbr="chrf"))
