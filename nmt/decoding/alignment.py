"""Which source words each target word attended to, from texts, their pieces and attention between these.

Pieces are found in a text again by their letters alone. So it matters neither how SentencePiece normalised the text nor
how its parts were put together, and a SavedModel's clients, who have no tokenizer, can do the same.
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

SPACE = "\u2581"  # how pieces write it
UNKNOWN = "<unk>"
BYTE = re.compile(r"<0x([0-9A-F]{2})>")
# Scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, kana, Han.
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
INNER = frozenset(
    "'\u2019-\u2010\u2011.,"
)  # punctuation that may stand within a word or number: don't, well-known, 3.14
REACH = 12  # letters of a text that no piece shows and that are looked beyond
AGREEING = 3  # letters that must agree there


@dataclass(frozen=True)
class TokenAttention:
    """The pieces of a part of a text and of its translation, and what the latter attended to.

    Args:
        source, target: pieces as SentencePiece writes them, without EOS.
        weights: float [T or more, S or more], a row for each target piece over the source pieces; what stands beyond
            the pieces is EOS's.
    """

    source: Sequence[str]
    target: Sequence[str]
    weights: Any
    source_span: tuple[int, int] | None = None
    """Start and end of the part in the source text, in characters; None: it is the whole text."""
    target_span: tuple[int, int] | None = None
    """The same of its translation in the target text."""


@dataclass(frozen=True)
class Word:
    """A word's place in its text, in characters (Unicode code points); `end` is the first one beyond it."""

    start: int
    end: int


@dataclass(frozen=True)
class AttendingWord(Word):
    """A target word and what it attended to."""

    first: int
    """The source word that the first of the weights is for."""
    weights: Sequence[float]
    """For the source words from `first` on, to 4 decimals; their sum is 1, and all other source words have none."""


@dataclass(frozen=True)
class Alignment:
    """The words of a text and of its translation."""

    source: Sequence[Word]
    target: Sequence[AttendingWord]


def align(source: str, target: str, parts: Sequence[TokenAttention]) -> Alignment:
    """Merges pieces to words, and their attention with them.

    A word's attention is the mean of that of its pieces, summed over the pieces of each source word. What went to the
    source's EOS is left out, and the rest scaled so that its sum is 1.

    Args:
        source: a text.
        target: its translation.
        parts: in order; those of the same spans hold all pieces of both together. Words of a target's part have no
            weights beyond the source's.
    """
    source_words: list[Word] = []
    target_words: list[AttendingWord] = []
    for places, ours in groupby(parts, lambda part: (part.source_span, part.target_span)):
        (start, end), (target_start, target_end) = places[0] or (0, len(source)), places[1] or (0, len(target))
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
    """Aligns what the tokens of some parts make up together, where a word may belong to two parts."""
    source_words, source_numbers = words(source, [piece for part in parts for piece in part.source])
    target_words, target_numbers = words(target, [piece for part in parts for piece in part.target])
    rows: list[list[tuple[int, np.ndarray]]] = [[] for _ in target_words]
    num_source = num_target = 0
    for part in parts:
        numbers = source_numbers[num_source : num_source + len(part.source)]
        first, by_word = _over_words(part, numbers)
        for row, word in zip(by_word, target_numbers[num_target:], strict=False):
            rows[word].append((first, row))
        num_source, num_target = num_source + len(part.source), num_target + len(part.target)
    attending = [
        AttendingWord(word.start, word.end, *_distribution(found))
        for word, found in zip(target_words, rows, strict=True)
    ]
    return Alignment(source_words, attending)


def words(text: str, pieces: Sequence[str]) -> tuple[list[Word], list[int]]:
    """The words that pieces of a text make up, and the number of each piece's word.

    A word begins after a space, and at a piece that begins or ends punctuation, but for such as the hyphen within a
    word. In scripts that put no spaces between words, every piece is one. A piece that shows nothing, such as a space
    by itself, belongs to the word that follows.
    """
    found: list[Word] = []
    numbers: list[int | None] = []
    for start, end in spans(text, pieces):
        if start == end:
            numbers.append(None)
            continue
        if not found or _begins(text, found[-1].end, start):
            found.append(Word(start, end))
        else:
            found[-1] = Word(found[-1].start, max(end, found[-1].end))
        numbers.append(len(found) - 1)
    return found, _followed(numbers, len(found) - 1) if found else []


def spans(text: str, pieces: Sequence[str]) -> list[tuple[int, int]]:
    """Start and end of each piece in a text; equal where it shows no letter of it.

    The pieces are those of the text, in order, perhaps after a normalisation: letters count as equal whatever their
    case and compatibility form, and spaces not at all. What is not found, as unknown pieces, is where letters between
    its neighbours are left.
    """
    letters, places = [], []
    for place, character in enumerate(text):
        for letter in _folded(character):
            letters.append(letter)
            places.append(place)
    shown = [(letter, owner) for owner, surface in _surfaces(pieces) for one in surface for letter in _folded(one)]
    all_letters, all_shown = "".join(letters), "".join(letter for letter, _ in shown)
    found: list[tuple[int, int] | None] = [None] * len(pieces)
    at = 0
    for position, (_, owners) in enumerate(shown):
        match = _next(all_letters, at, all_shown[position : position + AGREEING])
        if match is None:
            continue
        at, place = match + 1, places[match]
        for owner in owners:
            start, end = found[owner] or (place, 0)
            found[owner] = (start, max(end, place + 1))
    return _filled(text, found)


def _followed(numbers: Sequence[int | None], last: int) -> list[int]:
    """Gives whoever has no number that of the one that follows."""
    filled: list[int] = []
    for number in reversed(numbers):
        if number is not None:
            last = number
        filled.append(last)
    return filled[::-1]


def _next(letters: str, at: int, wanted: str) -> int | None:
    """Where the first of the wanted letters stands: here, or a little further on if others agree as well."""
    if letters.startswith(wanted[:1], at):
        return at
    place = letters.find(wanted, at, at + REACH + len(wanted))
    return place if place >= 0 else None


def _filled(text: str, found: Sequence[tuple[int, int] | None]) -> list[tuple[int, int]]:
    """Gives the pieces that were not found what stands between those that were, if that is a letter at all."""
    starts = [len(text)]
    for span in reversed(found):
        starts.append(span[0] if span else starts[-1])
    filled: list[tuple[int, int]] = []
    end = 0
    for span, start in zip(found, starts[-2::-1], strict=True):
        if span is None:
            gap = text[end:start] if any(map(_folded, text[end:start])) else ""
            begin = end + len(gap) - len(gap.lstrip())
            filled.append((begin, begin + len(gap.strip())))
        else:
            filled.append(span)
            end = span[1]
    return filled


def _surfaces(pieces: Sequence[str]) -> Iterator[tuple[Sequence[int], str]]:
    """The text that pieces show, each time with the numbers of those that show it: bytes make up a letter together."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    owners: list[int] = []
    for number, piece in enumerate(pieces):
        byte = BYTE.fullmatch(piece)
        if byte is None:
            decoder.reset()
            owners = []
            yield [number], "" if piece == UNKNOWN else piece.replace(SPACE, " ")
            continue
        owners.append(number)
        if surface := decoder.decode(bytes.fromhex(byte[1])):
            yield owners, surface
            owners = []


@lru_cache(4096)
def _folded(character: str) -> str:
    """A character's letters without case and compatibility form; none for spaces and what has no width."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())
    return "".join(one for one in plain if not one.isspace() and unicodedata.category(one) not in ("Cc", "Cf"))


def _begins(text: str, end: int, start: int) -> bool:
    """Whether a piece at `start` begins a word, when the one before it ended at `end`."""
    if start < end:
        return False  # they share a letter
    if any(map(str.isspace, text[end:start])):
        return True
    before, after = text[end - 1], text[start]
    if UNSPACED.match(before) or UNSPACED.match(after):
        return not unicodedata.category(after).startswith("M")
    if _is_letter(before) == _is_letter(after):
        return False
    mark = after if _is_letter(before) else before
    around = (before, text[start + 1 : start + 2]) if mark is after else (text[max(0, end - 2) : end - 1], after)
    return not (mark in INNER and all(one and _is_letter(one) for one in around))


def _is_letter(character: str) -> bool:
    return character == "_" or unicodedata.category(character)[0] in "LMN"


def _over_words(part: TokenAttention, numbers: Sequence[int]) -> tuple[int, np.ndarray]:
    """The first source word of a part, and the weights of its target pieces over its source words."""
    if not numbers:
        return 0, np.zeros((len(part.target), 0))
    is_of = np.arange(numbers[0], numbers[-1] + 1) == np.array(numbers)[:, None]
    weights = np.asarray(part.weights, "float64")[: len(part.target), : len(numbers)]
    return numbers[0], weights @ is_of


def _distribution(rows: Sequence[tuple[int, np.ndarray]]) -> tuple[int, list[float]]:
    """The mean of the pieces' rows, each of which begins at some source word; even where nothing is left of it."""
    begin = min(first for first, _ in rows)
    total = np.zeros(max(first + len(row) for first, row in rows) - begin)
    for first, row in rows:
        total[first - begin : first - begin + len(row)] += row
    mass = total.sum()
    even = np.full(len(total), 1 / max(1, len(total)))
    return begin, np.round(total / mass if mass > 0 else even, 4).tolist()
