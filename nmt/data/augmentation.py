"""Augmentation: changes a share of the examples to capitals or title case, or by removing punctuation or adding typos.

Which examples change, and how, is a function of (seed, epoch, example). Text is changed before it is segmented, so the
changed examples cannot come from the cache of token ids.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

from nmt.config.schema import AugmentConfig
from nmt.data.batching import TokenizedCorpus, derive_seed
from nmt.data.examples import Rows
from nmt.data.joining import SegmentedCorpus
from nmt.data.subword_sampling import draw_numbers

AUGMENT_DRAW = 5  # part of the seeds of augmentation, which sets its draws apart from all others
FINAL_PUNCTUATION = re.compile(r"[.!?…。．！？؟۔।॥]+\s*\Z")
# Not after an apostrophe, as in don't.
WORD_START = re.compile(r"(?<![\w'’])[^\W\d_]")
# Letters that begin a typo: those that a letter follows.
TYPO_PLACE = re.compile(r"[^\W\d_](?=[^\W\d_])")
WORDS_PER_TYPO = 10

ReadTexts = Callable[[np.ndarray, int], tuple[list[str], list[str]]]


class AugmentedTokens:
    """Changes some of the examples.

    An example that would become longer than `max_length` is left as it is.

    Args:
        tokens: the unchanged examples.
        segments: segments the changed text.
        read_texts: returns the sources and targets of examples in an epoch.
        settings: share of the examples for each change.
        seed: seed of all draws.
        max_length: largest number of tokens on either side.
        languages: language codes of source and target.
    """

    def __init__(
        self,
        tokens: TokenizedCorpus,
        segments: SegmentedCorpus,
        read_texts: ReadTexts,
        settings: AugmentConfig,
        *,
        seed: int,
        max_length: int,
        languages: tuple[str, str],
    ):
        self.tokens, self.segments, self.read_texts = tokens, segments, read_texts
        self.seed, self.max_length, self.languages = seed, max_length, languages
        self.bounds = np.cumsum(list(settings.shares.values()))
        self.kinds = list(settings.shares)

    def read_ids(self, pairs: np.ndarray, *, epoch: int, batch: int) -> tuple[Rows, Rows]:
        """Returns the ids of both sides of these examples, without EOS, with the changes of this epoch."""
        sides = tuple(list(rows) for rows in self.tokens.read_ids(pairs, epoch=epoch, batch=batch))
        numbers = draw_numbers(derive_seed(self.seed, epoch, AUGMENT_DRAW), pairs, np.ones(len(pairs), np.int64))
        chosen = np.searchsorted(self.bounds, numbers / 2.0**64, side="right")
        places = np.flatnonzero(chosen < len(self.kinds))
        if len(places):
            texts = self.read_texts(pairs[places], epoch)
            changed = [
                self._change(self.kinds[chosen[place]], *pair, int(numbers[place]))
                for place, pair in zip(places, zip(*texts, strict=True), strict=True)
            ]
            self._replace(sides, pairs, places, texts, changed, epoch)
        return sides[0], sides[1]

    def _change(self, kind: str, source: str, target: str, number: int) -> tuple[str, str]:
        if kind == "capitals":
            return to_capitals(source, self.languages[0]), to_capitals(target, self.languages[1])
        if kind == "title_case":
            return to_title_case(source, self.languages[0]), target
        if kind == "no_final_punctuation":
            return drop_final_punctuation(source), target
        return make_typos(source, np.random.default_rng(number)), target

    def _replace(
        self,
        sides: tuple[list, ...],
        pairs: np.ndarray,
        places: np.ndarray,
        texts: tuple[list[str], list[str]],
        changed: Sequence[tuple[str, str]],
        epoch: int,
    ) -> None:
        """Puts the ids of changed texts into the rows of both sides, unless one of the two is too long."""
        found: list[dict[int, Sequence[int] | np.ndarray]] = []
        for side, (before, after) in enumerate(zip(texts, zip(*changed, strict=True), strict=True)):
            differing = [n for n, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
            keys = pairs[places[differing]]
            encoded = self.segments.encode_side(side, [after[n] for n in differing], keys=keys, epoch=epoch)
            found.append(dict(zip(differing, encoded, strict=True)))
        for n, place in enumerate(places):
            if all(0 < len(ids[n]) <= self.max_length for ids in found if n in ids):
                for rows, ids in zip(sides, found, strict=True):
                    if n in ids:
                        rows[place] = ids[n]


def to_capitals(text: str, language: str) -> str:
    """Returns a text in capital letters; Turkish and Azerbaijani have a dotted one.

    >>> to_capitals("Groß ist die Stadt.", "de")
    'GROSS IST DIE STADT.'
    """
    return _dot_capitals(text, language).upper()


def to_title_case(text: str, language: str) -> str:
    """Returns a text with a capital letter at the start of each word.

    >>> to_title_case("they don't know", "en")
    "They Don't Know"
    """
    return WORD_START.sub(lambda letter: _dot_capitals(letter[0], language).upper(), text)


def _dot_capitals(text: str, language: str) -> str:
    return text.replace("i", "İ") if language.partition("-")[0] in ("tr", "tur", "az", "aze") else text


def drop_final_punctuation(text: str) -> str:
    """Returns a text without the punctuation that ends its last sentence.

    >>> drop_final_punctuation("Is it you?")
    'Is it you'
    """
    return FINAL_PUNCTUATION.sub("", text)


def make_typos(text: str, random: np.random.Generator) -> str:
    """Returns a text with one typo per ten words, but at least one: letters swapped, left out or doubled.

    These are some of the mistakes on which Belinkov and Bisk (2018) found translation to fail. Text without two
    neighbouring letters stays as it is.
    """
    places = [found.start() for found in TYPO_PLACE.finditer(text)]
    count = min(len(places), max(1, len(text.split()) // WORDS_PER_TYPO))
    # From the end, so that the places before stay where they are.
    for place in sorted(random.permutation(places)[:count].tolist(), reverse=True):
        first, second = text[place], text[place + 1]
        typo = (second + first, second, first + first + second)[random.integers(3)]
        text = text[:place] + typo + text[place + 2 :]
    return text
