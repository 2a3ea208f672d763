import random
from collections import Counter

from nmt.demo.grammar import find_combinations, render_english, render_german
from nmt.demo.sampler import SentenceSampler


def test_no_english_sentence_has_two_german_ones():
    """Draws with repetition, so that different trees can render the same English sentence."""
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
