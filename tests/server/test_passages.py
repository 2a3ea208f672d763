"""Texts in parts, and whole again."""

import asyncio

import pytest

from nmt.server.passages import MAX_LINE, Passage, split_in_half, translate_whole
from nmt.translators.hypothesis import Hypothesis, Translation

SENTENCE = "This is a sentence of some forty characters."


def translation(*texts: str, truncated: bool = False) -> Translation:
    return Translation("", [Hypothesis(text, -float(n), -2.0 * n) for n, text in enumerate(texts, 1)], truncated)


def test_short_lines_stay_whole_and_long_ones_are_divided_at_sentence_ends():
    text = f"One. Two.\n\n{' '.join([SENTENCE] * 30)}"
    passage = Passage.split(text)
    assert passage.lines[:2] == [["One. Two."], []]
    assert len(passage.lines[2]) == 3
    assert all(MAX_LINE / 2 < len(part) <= MAX_LINE for part in passage.lines[2])
    assert " ".join(passage.lines[2]) == " ".join([SENTENCE] * 30)


def test_a_long_sentence_stays_whole():
    assert Passage.split("word " * 200).parts == ["word " * 200]


@pytest.mark.parametrize("text", ["", "\n", "a", "a\nb", "\r\n\r\na\r\rb\n", "a\u2028b", " \n x \n"])
def test_joining_the_parts_gives_the_text_back(text):
    passage = Passage.split(text)
    found = passage.join([translation(part) for part in passage.parts])
    expected = "".join("" if line.isspace() and line[-1] not in "\r\n" else line for line in text.splitlines(True))
    assert found.text == expected.replace(" \n x", "\n x")


def test_best_is_joined_with_best_and_second_with_second():
    found = Passage("x y\n\nz", [["x", "y"], [], ["z"]], ["\n", "\n"]).join(
        [translation("a", "a2"), translation("b", "b2", "b3"), translation("c")]
    )
    assert [one.text for one in found.hypotheses] == ["a b\n\nc", "a2 b2\n\nc", "a2 b3\n\nc"]
    assert [one.score for one in found.hypotheses] == pytest.approx([-1, -5 / 3, -2])
    assert [one.log_prob for one in found.hypotheses] == pytest.approx([-6, -10, -12])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four.", ("One. Two!", "Three? Four.")),
        ("one two three", ("one", "two three")),
        ("abc", ("a", "bc")),
        ("一。二。", ("一。", "二。")),
    ],
)
def test_halves(text, expected):
    assert split_in_half(text) == expected


def test_what_comes_back_truncated_is_halved_until_it_is_read_to_its_end():
    asked = []

    async def ask(texts):
        asked.append(texts)
        return [translation(text[:4].upper(), truncated=len(text) > 4) for text in texts]

    found = asyncio.run(translate_whole(ask, ["ab", "ab cd ef gh ij", "abcdef"]))
    assert [one.text for one in found] == ["AB", "AB CD EF GH IJ", "ABC DEF"]
    assert not any(one.is_truncated for one in found)
    assert asked[1] == ["ab cd", "ef gh ij", "abc", "def"]
