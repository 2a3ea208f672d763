"""Checks translations for mistakes, by their text alone.

The checks take some microseconds per sentence. Only the check for words without attention needs more than the text. It
is made if attention is returned.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from operator import eq
from typing import NamedTuple

import numpy as np

from nmt.decoding.alignment import TokenAttention, find_words
from nmt.translators.hypothesis import IN_PARTS, Hypothesis, Translation, TranslationWarning, drop_tag
from nmt.translators.sentences import ADDRESS

UNCOVERED = "uncovered"
CUT_OFF = TranslationWarning(
    "length_limit", "The translation reached its maximum length before its end and was cut off."
)

WORD = re.compile(r"\w+")
# A longer word, which may be text without spaces, is searched for repetition letter by letter.
LONG_WORD = 20
# Repetition: minimum number of copies, of words in a copy, and of letters in all copies. Two copies of a
# single word are common ("very very good"), two copies of a clause are not.
COPIES = ((3, 1, 8), (2, 4, 16))

# Most texts contain none of these and need no further check.
HAS_MATTER = re.compile(r"\d|[@<{%]|://|www\.")
# Digits with the separators of any language between them: 1,000.5 and 1.000,5 and 1 000,5 are one number.
NUMBER = re.compile(r"\d+(?:[.,'’\u00a0\u202f ]\d+)*")
DIGITS = re.compile(r"\d+")
TAG = re.compile(r"</?[A-Za-z][^<>]*>")
PLACEHOLDER = re.compile(r"\{\{[^{}\n]*\}\}|\$?\{[\w.:-]*\}|(?<![\w%])%(?:\d+\$)?[sdif](?!\w)|%\(\w+\)[sdif]")
END_OF_SENTENCE = ".,;:!?)]}>\"'”’»…。、！？）」"

# Attention that a source word receives from all target tokens together; less counts as none. Words of fewer letters are
# often part of the translation of a neighbour, such as articles and particles.
LEAST_ATTENTION = 0.1
LEAST_LETTERS = 4


def find_warnings(source: str, hypothesis: Hypothesis, tag: str | None = None) -> tuple[TranslationWarning, ...]:
    """Returns warnings about a translation.

    Args:
        source: a text, without the tag.
        hypothesis: its translation. Words without attention are found only if it has attention.
        tag: symbol that the model read before the text.
    """
    found = [CUT_OFF] if hypothesis.is_finished is False else []
    if warning := _check_repetition(source, hypothesis.text):
        found.append(warning)
    if HAS_MATTER.search(source):
        found += check_matter(source, hypothesis.text)
    if hypothesis.attention and (warning := _check_attention(source, drop_tag(hypothesis.attention, tag))):
        found.append(warning)
    return tuple(found)


def count_doubts(translation: Translation) -> int:
    """Returns the number of warnings that are a reason to search again.

    Words without attention do not count: they are found only where attention is returned, and what is returned must not
    change the text. Nor does it count that the text was translated in parts.
    """
    return sum(one != IN_PARTS and one.kind != UNCOVERED for one in translation.warnings)


class Repetition(NamedTuple):
    """Text that stands several times in a row."""

    unit: str
    copies: float
    """A last copy that is cut off counts in part."""


def find_repetition(text: str) -> Repetition | None:
    """Returns the shortest sequence of words that a text repeats at once: thrice or more, or a long one twice.

    >>> find_repetition("the man in the man in the man in the park")
    Repetition(unit='the man in', copies=3.3333333333333335)
    >>> find_repetition("a very, very good day")
    """
    units = _split_units(text)
    # A sequence of n units that stands k times in a row repeats (k - 1) n - 1 pairs of neighbours or more. Few texts
    # repeat any.
    num_repeated = len(units) - 1 - len(set(pairwise(units)))
    for size in range(1, num_repeated + 2):
        if size < COPIES[1][1] and size * (COPIES[0][0] - 1) - 1 > num_repeated:
            continue
        # Equal to what stands `size` places later: 1 in as many places in a row as are repeated.
        same = bytes(map(eq, units, units[size:]))
        longest = max(map(len, same.split(b"\0")))
        copies = longest / size + 1
        start = same.find(b"\1" * longest)
        num_letters = sum(map(len, units[start : start + longest + size]))
        if any(copies >= least and size >= words and num_letters >= letters for least, words, letters in COPIES):
            unit = units[start : start + size]
            return Repetition((" " if max(map(len, unit)) > 1 else "").join(unit), copies)
    return None


def _split_units(text: str) -> list[str]:
    words = WORD.findall(text)
    if max(map(len, words), default=0) <= LONG_WORD:
        return words
    return [unit for word in words for unit in (word if len(word) > LONG_WORD else [word])]


def _check_repetition(source: str, target: str) -> TranslationWarning | None:
    found = find_repetition(target)
    if found is None:
        return None
    original = find_repetition(source)
    if original and original.copies >= found.copies:
        return None
    message = f"The translation repeats '{found.unit}' {int(found.copies)} times in a row."
    return TranslationWarning("repetition", message)


def check_matter(source: str, target: str) -> Iterator[TranslationWarning]:
    """Looks for addresses, tags, placeholders and numbers of the source that the translation lacks."""
    for kind, name, find, is_kept in MATTER:
        if lost := [one for one in dict.fromkeys(find(source)) if not is_kept(one, target)]:
            yield TranslationWarning(f"lost_{kind}", f"{name} missing in the translation: {' '.join(lost)}.")


def _find_addresses(text: str) -> list[str]:
    return [match[0].rstrip(END_OF_SENTENCE) for match in ADDRESS.finditer(text)]


def _find_numbers(text: str) -> list[str]:
    """Returns the numbers with several digits outside addresses, tags and placeholders."""
    # Small numbers are often written as words: 3 men, drei Männer.
    rest = PLACEHOLDER.sub(" ", TAG.sub(" ", ADDRESS.sub(" ", text)))
    return [number for number in NUMBER.findall(rest) if sum(map(str.isdigit, number)) > 1]


def _has_number(number: str, text: str) -> bool:
    """Returns whether a text has a number, perhaps with other separators, or all of its parts, as in dates."""
    groups = _split_number(number)
    numbers, parts = _read_numbers(text)
    return "".join(groups) in numbers or parts.issuperset(groups)


@lru_cache(1)  # all numbers of a source are looked for in one translation
def _read_numbers(text: str) -> tuple[set[str], set[str]]:
    """Returns the numbers of a text without separators, and the parts between their separators."""
    found = [_split_number(one) for one in NUMBER.findall(text)]
    return {"".join(one) for one in found}, {part for one in found for part in one}


def _split_number(number: str) -> list[str]:
    return [_as_ascii(one) for one in DIGITS.findall(number)]


def _as_ascii(digits: str) -> str:
    """Writes digits of any script as those of ASCII."""
    if digits.isascii():
        return digits
    return "".join(one if (value := unicodedata.decimal(one, None)) is None else str(value) for one in digits)


# Kind, words of the message, what finds it in the source, and whether a translation has it.
MATTER: tuple[tuple[str, str, Callable[[str], Sequence[str]], Callable[[str, str], bool]], ...] = (
    ("address", "Addresses", _find_addresses, lambda one, text: one in text),
    ("tag", "Tags", TAG.findall, lambda one, text: one in text),
    ("placeholder", "Placeholders", PLACEHOLDER.findall, lambda one, text: one in text),
    ("number", "Numbers", _find_numbers, _has_number),
)


def _check_attention(source: str, parts: Iterable[TokenAttention]) -> TranslationWarning | None:
    """Looks for source words that received almost no attention."""
    lost: list[str] = []
    for part in parts:
        words, numbers = find_words(source, part.source)
        if not words:
            continue
        received = np.asarray(part.weights, "float64")[: len(part.target), : len(part.source)].sum(axis=0)
        sums = np.bincount(numbers, received, minlength=len(words))
        for word, attention in zip(words, sums, strict=True):
            text = source[word.start : word.end]
            if attention < LEAST_ATTENTION and sum(map(str.isalnum, text)) >= LEAST_LETTERS:
                lost.append(text)
    if not lost:
        return None
    return TranslationWarning(
        UNCOVERED, f"Words that received almost no attention and may be left out: {', '.join(lost)}."
    )
