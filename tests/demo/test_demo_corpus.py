import json
import random
import re
from collections import Counter
from itertools import islice, pairwise

import pytest
import sacrebleu

from nmt.demo.corpus import (
    SentenceSampler,
    draw_distinct_pairs,
    draw_parts,
    make_demo_corpus,
    score_phenomena,
    translate_word_by_word,
)
from nmt.demo.grammar import PHENOMENA, find_combinations, render_english, render_german
from nmt.demo.lexicon import ADJECTIVES, NOUNS
from nmt.errors import UserError

SMALL = 6_000
NAMES = [f"{part}.{end}" for part in ("train", "dev", "test") for end in ("en", "de")]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return folder, make_demo_corpus(folder, num_pairs=SMALL)


def lines(folder, name):
    return (folder / name).read_text(encoding="utf-8").splitlines()


def read_tags(folder):
    return [json.loads(line) for line in lines(folder, "test.tags.jsonl")]


def test_the_parts_have_the_reported_sizes(small):
    folder, report = small
    sizes = [len(lines(folder, name)) for name in NAMES]
    assert sizes == [SMALL - 1500, SMALL - 1500, 500, 500, 1000, 1000]
    assert (report.num_train, report.num_dev, report.num_test) == (SMALL - 1500, 500, 1000)
    assert report.num_lemmas >= 300


def test_all_pairs_are_distinct(small):
    folder, _ = small
    sources = [line for part in ("train", "dev", "test") for line in lines(folder, f"{part}.en")]
    assert len(set(sources)) == SMALL


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_corpus(small, tmp_path):
    folder, _ = small
    make_demo_corpus(tmp_path / "again", num_pairs=SMALL)
    make_demo_corpus(tmp_path / "other", num_pairs=SMALL, seed=2)
    for name in [*NAMES, "test.tags.jsonl", "dev.tags.jsonl"]:
        original = (folder / name).read_bytes()
        assert (tmp_path / "again" / name).read_bytes() == original
        assert (tmp_path / "other" / name).read_bytes() != original


@pytest.mark.parametrize("language", ["en", "de"])
def test_every_held_out_word_occurs_in_training(small, language):
    folder, _ = small
    known = set(re.findall(r"\w+", " ".join(lines(folder, f"train.{language}"))))
    for part in ("dev", "test"):
        assert set(re.findall(r"\w+", " ".join(lines(folder, f"{part}.{language}")))) <= known


def adjective_noun_pairs(sentences):
    """Finds them in the plain English text, where an adjective stands right before its noun."""
    adjectives = {adjective.english for adjective in ADJECTIVES}
    lemma = {form: noun.english for noun in NOUNS for form in (noun.english, noun.english_plural)}
    for sentence in sentences:
        tokens = re.findall("[a-z]+", sentence.lower())
        yield from ((a, lemma[b]) for a, b in pairwise(tokens) if a in adjectives and b in lemma)


def test_no_held_out_adjective_stands_before_its_noun_in_training(small):
    folder, _ = small
    known = set(adjective_noun_pairs(lines(folder, "train.en")))
    held_out = set(adjective_noun_pairs(lines(folder, "test.en"))) | set(adjective_noun_pairs(lines(folder, "dev.en")))
    assert len(held_out) > 50 and len(known) > 500
    assert known.isdisjoint(held_out)


def test_no_held_out_sentence_shares_a_combination_with_training():
    train, dev, test = draw_parts(seed=3, num_pairs=SMALL)
    known = set().union(*(pair.combinations for pair in train))
    assert all(pair.combinations and known.isdisjoint(pair.combinations) for pair in [*dev, *test])


def test_no_english_sentence_has_two_german_ones():
    """Draws with repetition, so that equal English can come from different trees."""
    translations = {}
    for seed in (1, 2):
        sampler = SentenceSampler(random.Random(seed), lambda combination: True)
        for sentence in (sampler.draw_sentence() for _ in range(5_000)):
            target = " ".join(word.text for word in render_german(sentence))
            assert translations.setdefault(render_english(sentence), target) == target
    assert len(translations) < 10_000


def test_a_sampler_uses_admitted_combinations_only():
    sampler = SentenceSampler(random.Random(5), lambda combination: sum(map(len, combination)) % 3 == 0)
    found = Counter(
        c for sentence in (sampler.draw_sentence() for _ in range(500)) for c in find_combinations(sentence)
    )
    assert all(sum(map(len, combination)) % 3 == 0 for combination in found)


def test_every_phenomenon_is_marked_in_the_test_set(small):
    folder, _ = small
    counts = Counter(name for places in read_tags(folder) for name, found in places.items() for _ in found)
    assert set(counts) == set(PHENOMENA)
    assert min(counts.values()) >= 200


def test_subordinate_clauses_end_in_their_marked_verbs(small):
    folder, _ = small
    for sentence, places in zip(lines(folder, "test.de"), read_tags(folder), strict=True):
        closes = any(f" {word} " in sentence for word in ("weil", "dass", "ob", "obwohl", "bevor", "während"))
        if closes:
            assert places["verb_final"][-1] == len(sentence.split()) - 1


def test_a_perfect_translation_has_every_phenomenon_right(small):
    folder, _ = small
    references = lines(folder, "test.de")
    assert score_phenomena(references, references, read_tags(folder)) == dict.fromkeys(PHENOMENA, 1.0)


def test_accuracy_counts_words_at_their_place():
    references = ["Gestern ist er weggelaufen.", "Er ruft an."]
    hypotheses = ["Gestern er ist weggelaufen.", "Er ruft"]
    tags = [{"verb_second": [1], "separable_verb": [3], "plural": []}, {"verb_second": [], "separable_verb": [1, 2]}]
    assert score_phenomena(hypotheses, references, tags) == {"verb_second": 0.0, "separable_verb": 2 / 3}


def test_accuracy_refuses_unequal_numbers():
    with pytest.raises(UserError, match="same number of sentences, got 1, 2 and 1"):
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


def test_too_few_pairs_are_refused(tmp_path):
    with pytest.raises(UserError, match="num_pairs of at least 6000, got 100"):
        make_demo_corpus(tmp_path, num_pairs=100)
