import random
from itertools import islice

import pytest
import sacrebleu

from nmt.demo.corpus import draw_distinct_pairs
from nmt.demo.sampler import SentenceSampler
from nmt.demo.scoring import score_phenomena, translate_word_by_word
from nmt.errors import UserError


def test_accuracy_counts_words_at_their_positions():
    references = ["Gestern ist er weggelaufen.", "Er ruft an."]
    hypotheses = ["Gestern er ist weggelaufen.", "Er ruft"]
    tags = [{"verb_second": [1], "separable_verb": [3], "plural": []}, {"verb_second": [], "separable_verb": [1, 2]}]
    assert score_phenomena(hypotheses, references, tags) == {"verb_second": 0.0, "separable_verb": 2 / 3}


def test_accuracy_refuses_unequal_numbers():
    with pytest.raises(UserError, match="same number of sentences, found 1, 2 and 1"):
        score_phenomena(["a"], ["a", "b"], [{}])


def test_word_by_word_keeps_english_order_and_dictionary_forms():
    assert (
        translate_word_by_word("When he reads two old books, I wake up.")
        == "Wenn er lesen zwei alt Buch ich aufwachen."
    )


def test_word_by_word_scores_below_forty():
    sampler = SentenceSampler(random.Random(7), lambda combination: True)
    pairs = list(islice(draw_distinct_pairs(sampler), 300))
    score = sacrebleu.corpus_bleu(
        [translate_word_by_word(pair.source) for pair in pairs], [[pair.target for pair in pairs]]
    )
    assert score.score < 40
