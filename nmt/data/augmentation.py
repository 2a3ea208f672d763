"""Augmentation: changes a share of the examples to capitals or title case, or by removing punctuation or adding typos.

The symbols of `nmt.data.placeholders` are put into another share.

Which examples change, and how, is a function of (seed, epoch, key of the example). Text is changed before it is
segmented, so the changed examples cannot come from the cache of token ids.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

from nmt.config.schema import AugmentConfig
from nmt.data.batching import TokenizedCorpus, derive_seed
from nmt.data.examples import Rows
from nmt.data.joining import SegmentedCorpus
from nmt.data.placeholders import PairMasker
from nmt.data.subword_sampling import draw_numbers
from nmt.data.weighting import FindKeys, keep_keys

AUGMENT_DRAW = 5  # part of the seeds of augmentation, which sets its draws apart from all others
FINAL_PUNCTUATION = re.compile(r"[.!?…。．！？؟۔।॥]+\s*\Z")
# Not after an apostrophe, as in don't.
WORD_START = re.compile(r"(?<![\w'’])[^\W\d_]")
# Letters that begin a typo: those that a letter follows.
TYPO_PLACE = re.compile(r"[^\W\d_](?=[^\W\d_])")
WORDS_PER_TYPO = 10
# Stands for a user symbol while the text around it is changed: neither a letter nor a character of text (Unicode 23.7).
PLACEHOLDER = "\U0010ffff"

MASK = "placeholders"

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
        user_symbols: those of the tokenizers of source and target, which stay as they are.
        find_keys: returns the keys of examples in a batch.
        masker: puts symbols into a share of the examples.
        masked_share: that share.
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
        user_symbols: tuple[Sequence[str], Sequence[str]] = ((), ()),
        find_keys: FindKeys = keep_keys,
        masker: PairMasker | None = None,
        masked_share: float = 0.0,
    ):
        self.tokens, self.segments, self.read_texts = tokens, segments, read_texts
        self.masker = masker
        self.seed, self.max_length, self.languages = seed, max_length, languages
        self.symbols = [_make_symbol_pattern(symbols) for symbols in user_symbols]
        self.find_keys = find_keys
        shares = {**settings.shares, MASK: masked_share} if masker else settings.shares
        self.bounds = np.cumsum(list(shares.values()))
        self.kinds = list(shares)

    def read_ids(self, pairs: np.ndarray, *, epoch: int, batch: int) -> tuple[Rows, Rows]:
        """Returns the ids of both sides of these examples, without EOS, with the changes of this epoch."""
        sides = tuple(list(rows) for rows in self.tokens.read_ids(pairs, epoch=epoch, batch=batch))
        keys = self.find_keys(pairs, batch)
        numbers = draw_numbers(derive_seed(self.seed, epoch, AUGMENT_DRAW), keys, np.ones(len(pairs), np.int64))
        chosen = np.searchsorted(self.bounds, numbers / 2.0**64, side="right")
        places = np.flatnonzero(chosen < len(self.kinds))
        if len(places):
            texts = self.read_texts(pairs[places], epoch)
            changed = [
                self._change(self.kinds[chosen[place]], *pair, int(numbers[place]))
                for place, pair in zip(places, zip(*texts, strict=True), strict=True)
            ]
            self._replace(sides, keys[places], places, texts, changed, epoch)
        return sides[0], sides[1]

    def _change(self, kind: str, source: str, target: str, number: int) -> tuple[str, str]:
        if kind == MASK and self.masker:
            return self.masker.replace(source, target)
        if kind == "capitals":
            target = change_text(target, lambda text: to_capitals(text, self.languages[1]), self.symbols[1])
        changes: dict[str, Callable[[str], str]] = {
            "capitals": lambda text: to_capitals(text, self.languages[0]),
            "title_case": lambda text: to_title_case(text, self.languages[0]),
            "no_final_punctuation": drop_final_punctuation,
            "typos": lambda text: make_typos(text, np.random.default_rng(number)),
        }
        return change_text(source, changes[kind], self.symbols[0]), target

    def _replace(
        self,
        sides: tuple[list, ...],
        keys: np.ndarray,
        places: np.ndarray,
        texts: tuple[list[str], list[str]],
        changed: Sequence[tuple[str, str]],
        epoch: int,
    ) -> None:
        """Puts the ids of changed texts into the rows of both sides, unless one of the two is too long."""
        found: list[dict[int, Sequence[int] | np.ndarray]] = []
        for side, (before, after) in enumerate(zip(texts, zip(*changed, strict=True), strict=True)):
            differing = [n for n, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
            lines = [after[n] for n in differing]
            encoded = self.segments.encode_side(side, lines, keys=keys[differing], epoch=epoch)
            found.append(dict(zip(differing, encoded, strict=True)))
        for n, place in enumerate(places):
            if all(0 < len(ids[n]) <= self.max_length for ids in found if n in ids):
                for rows, ids in zip(sides, found, strict=True):
                    if n in ids:
                        rows[place] = ids[n]


def _make_symbol_pattern(symbols: Sequence[str]) -> re.Pattern[str]:
    # Longest first, as SentencePiece finds them.
    return re.compile("|".join(map(re.escape, sorted([PLACEHOLDER, *symbols], key=len, reverse=True))))


def change_text(text: str, change: Callable[[str], str], symbols: re.Pattern[str]) -> str:
    """Returns a text that is changed except for its symbols, all of which stay.

    >>> change_text("a <b> c", str.upper, re.compile("<b>"))
    'A <b> C'
    """
    found = iter(symbols.findall(text))
    return re.sub(PLACEHOLDER, lambda _: next(found), change(symbols.sub(PLACEHOLDER, text)))


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
