"""Alignment of words: from two texts, their tokens and the attention between tokens to attention between words.

Tokens are located in a text by their letters alone. So it does not matter how SentencePiece normalized the text or how
its parts were joined, and clients of a SavedModel, which have no tokenizer, can do the same.
"""

import codecs
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np

SPACE = "\u2581"  # as SentencePiece writes it
UNKNOWN = "<unk>"
BYTE = re.compile(r"<0x([0-9A-F]{2})>")
# Scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana, Han.
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
# Punctuation that may be part of a word or number, as in don't, well-known, 3.14.
WORD_INTERNAL = frozenset("'\u2019-\u2010\u2011.,")
# A letter of a token may be missing at its position, as after an unknown token. It is then searched for among this many
# letters of the text, and accepted if as many letters agree.
MAX_SKIPPED = 12
NUM_AGREEING = 3


@dataclass(frozen=True)
class TokenAttention:
    """The tokens of a part of a text and of its translation, and the attention between them.

    Args:
        source, target: tokens as SentencePiece writes them, without EOS; S and T of them.
        weights: float [T or more, S or more], for each target token the attention over the source tokens. Rows and
            columns after the tokens are those of EOS.
    """

    source: Sequence[str]
    target: Sequence[str]
    weights: Any
    source_span: tuple[int, int] | None = None
    """Start and end of the part in the source text, in characters; None if it is the whole text."""
    target_span: tuple[int, int] | None = None
    """Start and end of its translation in the target text."""


@dataclass(frozen=True)
class Word:
    """Position of a word in its text, in characters (Unicode code points); `end` is the first one after it."""

    start: int
    end: int


@dataclass(frozen=True)
class AttendingWord(Word):
    """A target word and its attention."""

    first: int
    """Index of the source word that the first weight belongs to."""
    weights: Sequence[float]
    """Attention to the source words from `first` on, to 4 decimals. They sum to 1; all other words have weight 0."""


@dataclass(frozen=True)
class Alignment:
    """The words of a text and of its translation."""

    source: Sequence[Word]
    target: Sequence[AttendingWord]


def align(source: str, target: str, parts: Sequence[TokenAttention]) -> Alignment:
    """Merges tokens into words, and their attention with them.

    The attention of a target word is the mean of its tokens' attention, summed over the tokens of each source word.
    Attention to the source's EOS is left out, and the rest is scaled to sum to 1.

    Args:
        source: a text.
        target: its translation.
        parts: in order. Those with the same spans contain all tokens of these spans together. Words of a part attend
            to source words of the same part only.
    """
    source_words: list[Word] = []
    target_words: list[AttendingWord] = []
    for spans, ours in groupby(parts, lambda part: (part.source_span, part.target_span)):
        (start, end), (target_start, target_end) = spans[0] or (0, len(source)), spans[1] or (0, len(target))
        found = _align_span(source[start:end], target[target_start:target_end], list(ours))
        target_words += [
            replace(
                word, start=word.start + target_start, end=word.end + target_start, first=word.first + len(source_words)
            )
            for word in found.target
        ]
        source_words += [Word(word.start + start, word.end + start) for word in found.source]
    return Alignment(source_words, target_words)


def _align_span(source: str, target: str, parts: Sequence[TokenAttention]) -> Alignment:
    """Aligns the words of parts with the same spans; a word may belong to two parts."""
    source_words, source_numbers = find_words(source, [token for part in parts for token in part.source])
    target_words, target_numbers = find_words(target, [token for part in parts for token in part.target])
    rows: list[list[tuple[int, np.ndarray]]] = [[] for _ in target_words]
    num_source = num_target = 0
    for part in parts:
        numbers = source_numbers[num_source : num_source + len(part.source)]
        first, by_word = _sum_over_words(part, numbers)
        for row, word in zip(by_word, target_numbers[num_target:], strict=False):
            rows[word].append((first, row))
        num_source, num_target = num_source + len(part.source), num_target + len(part.target)
    attending = [
        AttendingWord(word.start, word.end, *_average(found)) for word, found in zip(target_words, rows, strict=True)
    ]
    return Alignment(source_words, attending)


def find_words(text: str, tokens: Sequence[str]) -> tuple[list[Word], list[int]]:
    """Returns the words that the tokens of a text make up, and the index of each token's word.

    A word begins after a space, and at a token where punctuation begins or ends, unless it is word-internal like a
    hyphen. In scripts without spaces between words, every token is a word. A token without visible letters, such as a
    space, belongs to the following word.
    """
    found: list[Word] = []
    numbers: list[int | None] = []
    for start, end in find_spans(text, tokens):
        if start == end:
            numbers.append(None)
            continue
        if not found or _starts_word(text, found[-1].end, start):
            found.append(Word(start, end))
        else:
            found[-1] = Word(found[-1].start, max(end, found[-1].end))
        numbers.append(len(found) - 1)
    return found, _fill_from_next(numbers, len(found) - 1) if found else []


def find_spans(text: str, tokens: Sequence[str]) -> list[tuple[int, int]]:
    """Returns start and end of each token in its text; equal for a token without visible letters.

    The text may have been normalized before it was tokenized: letters are compared without case and compatibility form,
    and spaces are ignored. A token that is not found, such as an unknown one, gets the letters left between its
    neighbours.
    """
    letters, positions = [], []  # of the text
    for position, character in enumerate(text):
        for letter in _fold(character):
            letters.append(letter)
            positions.append(position)
    shown = [(letter, owners) for owners, surface in _decode(tokens) for one in surface for letter in _fold(one)]
    all_letters, all_shown = "".join(letters), "".join(letter for letter, _ in shown)
    found: list[tuple[int, int] | None] = [None] * len(tokens)
    at = 0
    for number, (_, owners) in enumerate(shown):
        match = _find_next(all_letters, at, all_shown[number : number + NUM_AGREEING])
        if match is None:
            continue
        at, position = match + 1, positions[match]
        for owner in owners:
            start, end = found[owner] or (position, 0)
            found[owner] = (start, max(end, position + 1))
    return _fill_gaps(text, found)


def _fill_from_next(numbers: Sequence[int | None], last: int) -> list[int]:
    """Replaces None by the number that follows, or by `last`."""
    filled: list[int] = []
    for number in reversed(numbers):
        if number is not None:
            last = number
        filled.append(last)
    return filled[::-1]


def _find_next(letters: str, at: int, wanted: str) -> int | None:
    """Returns the index of the first wanted letter: `at`, or a little later if all wanted letters agree there."""
    if letters.startswith(wanted[:1], at):
        return at
    index = letters.find(wanted, at, at + MAX_SKIPPED + len(wanted))
    return index if index >= 0 else None


def _fill_gaps(text: str, found: Sequence[tuple[int, int] | None]) -> list[tuple[int, int]]:
    """Gives tokens that were not found the text between their neighbours, if it has a letter."""
    starts = [len(text)]
    for span in reversed(found):
        starts.append(span[0] if span else starts[-1])
    filled: list[tuple[int, int]] = []
    end = 0
    for span, start in zip(found, starts[-2::-1], strict=True):
        if span is None:
            gap = text[end:start] if any(map(_fold, text[end:start])) else ""
            begin = end + len(gap) - len(gap.lstrip())
            filled.append((begin, begin + len(gap.strip())))
        else:
            filled.append(span)
            end = span[1]
    return filled


def _decode(tokens: Sequence[str]) -> Iterator[tuple[Sequence[int], str]]:
    """Yields the text of tokens with their indices: one token at a time, or all bytes of a character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    owners: list[int] = []
    for number, token in enumerate(tokens):
        byte = BYTE.fullmatch(token)
        if byte is None:
            decoder.reset()
            owners = []
            yield [number], "" if token == UNKNOWN else token.replace(SPACE, " ")
            continue
        owners.append(number)
        if surface := decoder.decode(bytes.fromhex(byte[1])):
            yield owners, surface
            owners = []


@lru_cache(4096)
def _fold(character: str) -> str:
    """Returns a character without case and compatibility form; "" for spaces and characters without width.

    It may become several letters: "ﬁ" becomes "fi".
    """
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())
    return "".join(one for one in plain if not one.isspace() and unicodedata.category(one) not in ("Cc", "Cf"))


def _starts_word(text: str, end: int, start: int) -> bool:
    """Returns whether a token at `start` begins a word, given the end of the token before it."""
    if start < end:
        return False  # the tokens share a letter
    if any(map(str.isspace, text[end:start])):
        return True
    before, after = text[end - 1], text[start]
    if UNSPACED.match(before) or UNSPACED.match(after):
        return not unicodedata.category(after).startswith("M")  # combining marks belong to the letter before
    if _is_letter(before) == _is_letter(after):
        return False
    mark = after if _is_letter(before) else before
    around = (before, text[start + 1 : start + 2]) if mark is after else (text[max(0, end - 2) : end - 1], after)
    return not (mark in WORD_INTERNAL and all(one and _is_letter(one) for one in around))


def _is_letter(character: str) -> bool:
    return character == "_" or unicodedata.category(character)[0] in "LMN"


def _sum_over_words(part: TokenAttention, numbers: Sequence[int]) -> tuple[int, np.ndarray]:
    """Returns the index of the part's first source word, and the attention of its target tokens to its source words.

    Args:
        part: has S source and T target tokens.
        numbers: index of the word of each source token.

    Returns:
        The index, and float64 [T, number of source words].
    """
    if not numbers:
        return 0, np.zeros((len(part.target), 0))
    is_of = np.arange(numbers[0], numbers[-1] + 1) == np.array(numbers)[:, None]  # [S, number of source words]
    weights = np.asarray(part.weights, "float64")[: len(part.target), : len(numbers)]
    return numbers[0], weights @ is_of


def _average(rows: Sequence[tuple[int, np.ndarray]]) -> tuple[int, list[float]]:
    """Averages rows of attention that begin at different source words, and scales the mean to sum to 1.

    If all attention went to EOS, the result is uniform.

    Args:
        rows: index of the first source word, and attention to it and the following ones.

    Returns:
        The same for the mean.
    """
    begin = min(first for first, _ in rows)
    total = np.zeros(max(first + len(row) for first, row in rows) - begin)
    for first, row in rows:
        total[first - begin : first - begin + len(row)] += row
    mass = total.sum()
    uniform = np.full(len(total), 1 / max(1, len(total)))
    return begin, np.round(total / mass if mass > 0 else uniform, 4).tolist()
