"""Tokens and attention become words, offsets and weights; by hand, and whatever the text."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece.sentencepiece_pb2 import SentencePieceText

from nmt.data.tokenizer import Tokenizer, train_tokenizer
from nmt.decoding.alignment import Alignment, TokenAttention, Word, align, find_spans, find_words

CORPUS = ["The old house is red.", "Das alte Haus ist rot!", "Bücher über Schnee, 3.14 Mal", "古い家は赤い。雪の本"] * 9
ATOL = 5e-4  # weights are rounded


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return train_tokenizer(CORPUS, kind=request.param, vocabulary_size=300)


def found_words(text: str, tokens: list[str]) -> list[str]:
    return [text[word.start : word.end] for word in find_words(text, tokens)[0]]


def dense(alignment: Alignment) -> np.ndarray:
    """Weights [target words, source words]."""
    rows = np.zeros((len(alignment.target), len(alignment.source)))
    for row, word in zip(rows, alignment.target, strict=True):
        row[word.first : word.first + len(word.weights)] = word.weights
    return rows


def test_tokens_are_merged_and_what_went_to_the_end_is_left_out():
    """The second word has two tokens over two words of the source, the first of which has two tokens as well."""
    part = TokenAttention(
        source=["▁ab", "c", "▁d"],
        target=["▁x", "▁y", "z"],
        weights=[
            [0.5, 0.25, 0.25, 0.0],
            [0.1, 0.1, 0.4, 0.4],
            [0.0, 0.2, 0.0, 0.8],
            [0.0, 0.0, 0.0, 1.0],
        ],
    )
    found = align("abc d", "x yz", [part])
    assert found.source == [Word(0, 3), Word(4, 5)]
    assert [(word.start, word.end) for word in found.target] == [(0, 1), (2, 4)]
    assert dense(found) == pytest.approx(np.array([[0.75, 0.25], [0.5, 0.5]]), abs=ATOL)


def test_a_word_that_looked_at_the_end_alone_has_even_weights():
    found = align("a b", "x", [TokenAttention(["▁a", "▁b"], ["▁x"], [[0.0, 0.0, 1.0]])])
    assert found.target[0].weights == [0.5, 0.5]


def test_parts_do_not_look_at_each_other():
    parts = [TokenAttention(["▁a", "▁b"], ["▁x"], [[0.5, 0.5]]), TokenAttention(["▁c"], ["▁y", "▁z"], [[1.0], [1.0]])]
    found = align("a b\n\nc", "x\n\ny z", parts)
    assert [(word.first, word.weights) for word in found.target] == [(0, [0.5, 0.5]), (2, [1.0]), (2, [1.0])]
    assert found.source[2] == Word(5, 6) and (found.target[2].start, found.target[2].end) == (5, 6)


def test_a_word_that_a_part_ends_in_looks_at_both():
    parts = [TokenAttention(["▁ab"], ["▁xy"], [[1.0]]), TokenAttention(["cd", "▁e"], ["z"], [[0.5, 0.5]])]
    found = align("abcd e", "xyz", parts)
    assert found.source == [Word(0, 4), Word(5, 6)]
    assert dense(found) == pytest.approx(np.array([[0.75, 0.25]]))


@pytest.mark.parametrize("text", ["", " \n"])
def test_no_text_has_no_words(text):
    assert align(text, text, []) == Alignment([], [])
    assert align(text, "x", [TokenAttention([], ["▁x"], [[1.0]])]).target[0].weights == []


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        ("the book.", ["▁the", "▁book", "."], ["the", "book", "."]),
        ("the book.", ["▁the", "▁bo", "ok."], ["the", "book."]),
        ("don't", ["▁don", "'", "t"], ["don't"]),
        ("a well-known 3.14 fact", ["▁a", "▁well", "-", "known", "▁3", ".", "14", "▁fact"], "a well-known 3.14 fact"),
        ("“no”?!", ["▁“", "no", "”", "?", "!"], ["“", "no", "”?!"]),
        ("ab- c", ["▁ab", "-", "▁c"], ["ab", "-", "c"]),
        ("  a \t b ", ["▁a", "▁b"], ["a", "b"]),
        ("古い家", ["▁", "古い", "家"], ["古い", "家"]),
        ("für", ["▁f", "<0xC3>", "<0xBC>", "r"], ["für"]),
        ("e\u0301a", ["▁", "é", "a"], ["e\u0301a"]),
        ("½ ﬁt", ["▁1", "⁄2", "▁fi", "t"], ["½", "ﬁt"]),
        ("GRÜN", ["▁grün"], ["GRÜN"]),
        ("a\u200bb c", ["▁ab", "▁c"], ["a\u200bb", "c"]),
        ("a ♞♞ b", ["▁a", "▁", "<unk>", "▁b"], ["a", "♞♞", "b"]),
        ("a ⁇ b", ["▁a", "<unk>", "▁b"], ["a", "⁇", "b"]),
        ("🙂 a", ["▁", "<0xF0>", "<0x9F>", "<0x99>", "<0x82>", "▁a"], ["🙂", "a"]),
        ("a b", ["▁a", "▁b", "▁"], ["a", "b"]),
    ],
)
def test_words_begin_at_spaces_and_at_punctuation(text, tokens, expected):
    assert found_words(text, tokens) == (expected.split() if isinstance(expected, str) else expected)


def test_letters_of_the_text_that_no_token_shows_lose_nobody():
    """As where a normalisation removes or replaces some."""
    text, tokens = "one xxxxx two three four", ["▁one", "▁two", "▁th", "qq", "ee", "▁four"]
    assert [text[start:end] for start, end in find_spans(text, tokens)] == ["one", "two", "th", "r", "ee", "four"]


TEXTS = st.text(
    st.one_of(
        st.sampled_from(" \t.,!-'–ÄäßéñİK①½ﬁ古い家、。🙂\u0301\u00a0\u200b"), st.characters(exclude_categories=["Cs"])
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(text=TEXTS | st.sampled_from(CORPUS))
def test_every_letter_lies_in_a_word_and_words_do_not_overlap(tokenizer, text):
    ids = tokenizer.encode([text])[0]
    tokens = [tokenizer.get_token(one) for one in ids]
    found, numbers = find_words(text, tokens)
    assert all(word.start < word.end for word in found)
    assert all(left.end <= right.start for left, right in pairwise(found))
    assert numbers == sorted(numbers)
    decoded = tokenizer.decode([ids])[0]
    shown = [decoded[word.start : word.end] for word in find_words(decoded, tokens)[0]]
    assert "".join("".join(shown).split()) == "".join(decoded.split()) or not decoded.isprintable()


def test_spans_are_those_of_sentencepiece(tokenizer):
    """It tells places itself, for it knows what it normalised."""
    for text in [
        "The  old house, is RED.",
        "Bücher ﬁnd ½ e\u0301 über Schnee",
        "古い家は赤い。Schnee",
        "日本 🙂 xyz Schnee",
    ]:
        theirs = SentencePieceText.FromString(tokenizer._processor.encode(text, out_type="serialized_proto")).pieces
        ours = find_spans(text, [token.piece for token in theirs])
        # Of a letter in several tokens, it calls the last one alone the whole.
        known = [(a, b) for a, b in zip(ours, theirs, strict=True) if b.surface and not b.piece.startswith("<0x")]
        assert len(known) > 3
        for (start, end), token in known:
            assert text[start:end] == text.encode()[token.begin : token.end].decode().strip()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), num_parts=st.integers(1, 3))
def test_rows_sum_to_one_and_dividing_tokens_changes_nothing(seed, num_parts):
    """A token cut in two, each half with the attention of the whole or half of what the whole was given."""
    random = np.random.default_rng(seed)
    parts, divided, source, target = [], [], [], []
    for _ in range(num_parts):
        names = [["▁" + "".join(random.choice(list("abcdef"), 2)) for _ in range(random.integers(1, 5))] for _ in "st"]
        weights = random.dirichlet(np.ones(len(names[0]) + 1), len(names[1]) + 1)
        parts.append(TokenAttention(*names, weights))
        halves = [[half for name in side for half in (name[:2], name[2:])] for side in names]
        columns = np.concatenate([np.repeat(weights[:, :-1] / 2, 2, axis=1), weights[:, -1:]], axis=1)
        divided.append(TokenAttention(*halves, np.repeat(columns, 2, axis=0)))
        source.append("".join(names[0]).replace("▁", " ").strip())
        target.append("".join(names[1]).replace("▁", " ").strip())
    whole = align(" ".join(source), "\n".join(target), parts)
    assert dense(whole).sum(axis=1) == pytest.approx(np.ones(len(whole.target)), abs=ATOL)
    found = align(" ".join(source), "\n".join(target), divided)
    assert found.source == whole.source
    assert dense(found) == pytest.approx(dense(whole), abs=ATOL)
