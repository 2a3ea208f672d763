from collections import Counter

import pytest

from nmt.synthesis import noise
from nmt.synthesis.noise import BLANK, add_noise

WORDS = [f"w{n}" for n in range(20)]
LINE = " ".join(WORDS)


def test_a_tenth_of_the_words_is_dropped_and_a_tenth_of_the_others_blanked():
    counts = Counter(word for number in range(1000) for word in add_noise(LINE, 1, number).split())
    kept = sum(counts.values())
    assert kept / 20_000 == pytest.approx(0.9, abs=0.01)  # four standard deviations
    assert counts.pop(BLANK) / kept == pytest.approx(0.1, abs=0.01)
    assert counts.keys() == set(WORDS)
    assert min(counts.values()) > 0.75 * 1000  # no word is spared or hit more than others


def test_words_move_by_at_most_three_places(monkeypatch):
    monkeypatch.setattr(noise, "DROP", 0.0)
    monkeypatch.setattr(noise, "BLANKED", 0.0)
    moves = set()
    for number in range(300):
        words = add_noise(LINE, 1, number).split()
        assert sorted(words) == sorted(WORDS)
        moves |= {place - WORDS.index(word) for place, word in enumerate(words)}
    assert moves == {-3, -2, -1, 0, 1, 2, 3}


def test_noise_depends_on_seed_and_line_alone():
    assert add_noise(LINE, 1, 5) == add_noise(LINE, 1, 5)
    assert len({add_noise(LINE, seed, number) for seed in (1, 2) for number in (5, 6)}) == 4


def test_a_word_is_left_of_every_line():
    assert {add_noise("word", 1, number) for number in range(100)} == {"word", BLANK}
    assert add_noise(" ", 1, 0) == " "
