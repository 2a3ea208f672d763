import json
import re
from collections import Counter
from itertools import pairwise

import pytest

from nmt.demo.corpus import draw_parts, make_demo_corpus
from nmt.demo.grammar import PHENOMENA
from nmt.demo.lexicon import ADJECTIVES, NOUNS
from nmt.demo.scoring import score_phenomena
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
    """Finds them in the plain English text, where an adjective immediately precedes its noun."""
    adjectives = {adjective.english for adjective in ADJECTIVES}
    lemma = {form: noun.english for noun in NOUNS for form in (noun.english, noun.english_plural)}
    for sentence in sentences:
        tokens = re.findall("[a-z]+", sentence.lower())
        yield from ((a, lemma[b]) for a, b in pairwise(tokens) if a in adjectives and b in lemma)


def test_no_held_out_adjective_precedes_its_noun_in_training(small):
    folder, _ = small
    known = set(adjective_noun_pairs(lines(folder, "train.en")))
    held_out = set(adjective_noun_pairs(lines(folder, "test.en"))) | set(adjective_noun_pairs(lines(folder, "dev.en")))
    assert len(held_out) > 50 and len(known) > 500
    assert known.isdisjoint(held_out)


def test_no_held_out_sentence_shares_a_combination_with_training():
    train, dev, test = draw_parts(seed=3, num_pairs=SMALL)
    known = set().union(*(pair.combinations for pair in train))
    assert all(pair.combinations and known.isdisjoint(pair.combinations) for pair in [*dev, *test])


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


def test_too_few_pairs_are_refused(tmp_path):
    with pytest.raises(UserError, match="num_pairs of at least 6000, found 100"):
        make_demo_corpus(tmp_path, num_pairs=100)
