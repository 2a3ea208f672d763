import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.data.tokenizer import Tokenizer, train_tokenizer
from nmt.translators.segments import split_lines

TEXT = ["one two three.", "four five six!", "seven eight nine?", "unlikely words ….", "一二三。四五六！七八九？"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXT, kind="bpe", vocabulary_size=320, character_coverage=1.0)


def split_line(line: str, tokenizer: Tokenizer, longest: int) -> list[list[int]]:
    [parts] = split_lines([line], tokenizer, longest)
    return parts


def parts(line: str, tokenizer: Tokenizer, longest: int) -> list[str]:
    return tokenizer.decode(split_line(line, tokenizer, longest))


def length(text: str, tokenizer: Tokenizer) -> int:
    return len(tokenizer.encode([text])[0])


@pytest.mark.parametrize("line", ["", " ", "\t \u3000", "\u200b"])
def test_a_blank_line_has_no_part(tokenizer: Tokenizer, line: str) -> None:
    assert split_line(line, tokenizer, 1) == []


def test_lines_are_cut_alike_together_and_alone(tokenizer: Tokenizer) -> None:
    lines = ["one two", "", " ".join(TEXT), "onetwothree" * 5, "\u200b"]
    assert split_lines(lines, tokenizer, 7) == [split_line(line, tokenizer, 7) for line in lines]
    assert split_lines([], tokenizer, 7) == []


def test_a_line_that_fits_stays_whole(tokenizer: Tokenizer) -> None:
    line = "one two three. four five six!"
    assert split_line(line, tokenizer, length(line, tokenizer)) == tokenizer.encode([line])
    assert len(split_line(line, tokenizer, length(line, tokenizer) - 1)) == 2


def test_cuts_at_sentence_ends(tokenizer: Tokenizer) -> None:
    longest = max(length(sentence, tokenizer) for sentence in TEXT[:3])
    assert parts(" ".join(TEXT[:3]), tokenizer, longest) == TEXT[:3]


def test_cuts_where_no_space_follows_a_sentence(tokenizer: Tokenizer) -> None:
    sentences = ["一二三。", "四五六！", "七八九？"]
    longest = max(length(sentence, tokenizer) for sentence in sentences)
    assert longest < length("".join(sentences), tokenizer)
    # NFKC writes full-width marks as plain ones.
    assert parts("".join(sentences), tokenizer, longest) == ["一二三。", "四五六!", "七八九?"]


def test_sentences_that_fit_together_stay_together(tokenizer: Tokenizer) -> None:
    pair = " ".join(TEXT[:2])
    longest = length(pair, tokenizer)
    assert parts(" ".join(TEXT[:3]), tokenizer, longest) == [pair, TEXT[2]]


def test_a_sentence_that_is_too_long_is_cut_between_words(tokenizer: Tokenizer) -> None:
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    longest = max(length(word, tokenizer) for word in words)
    found = parts(" ".join(words), tokenizer, longest)
    assert len(found) > 1
    assert " ".join(found).split() == words


def test_a_word_that_is_too_long_is_cut_between_pieces(tokenizer: Tokenizer) -> None:
    word = "onetwothree" * 5
    ids = tokenizer.encode([word])[0]
    found = split_line(f"four {word} five", tokenizer, 7)
    assert max(map(len, found)) <= 7
    assert [piece for part in found for piece in part] == [
        *tokenizer.encode(["four"])[0],
        *ids,
        *tokenizer.encode(["five"])[0],
    ]


@settings(max_examples=60, deadline=None)
@given(
    line=st.lists(st.sampled_from(["one", "three.", "!", "unlikelynine", "é", "二。三", "…", "eight?", "\u3000"])).map(
        " ".join
    ),
    longest=st.integers(1, 11),
)
def test_no_part_is_too_long_or_empty_and_nothing_is_lost(line: str, longest: int, tokenizer: Tokenizer) -> None:
    found = split_line(line, tokenizer, longest)
    assert all(1 <= len(part) <= longest for part in found)
    ids = [piece for part in found for piece in part]
    # One row of ids, since bytes of one character may fall into two parts.
    assert "".join(tokenizer.decode([ids])[0].split()) == "".join(tokenizer.decode(tokenizer.encode([line]))[0].split())
