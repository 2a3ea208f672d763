"""Placeholders: numbered symbols, such as <url1>, for text that is copied into a translation unchanged.

A model that was trained with them (`data.placeholders`) puts them in the right place, and addresses and numbers are not
misspelt. In training, a symbol replaces text that occurs on both sides of a pair. In translation, it replaces the text
that `CopyFinder` finds in the source.

Every kind of text has its own symbols, since numbers and addresses occur in different places. Equal strings share one
symbol. A symbol that a text already contains stays as it is and is never given to other text, so replacing symbols by
their text always restores the original.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from nmt.config.schema import PlaceholderConfig, PlaceholderKind
from nmt.data.glossary import Glossary
from nmt.data.tokenizer import Tokenizer
from nmt.errors import UserError

TERM, MARK, ESCAPE, OPEN, KEPT = "term", "mark", "escape", "open", "kept"
# A letter or digit of a script with spaces between words.
WORD_LETTER = r"[^\W\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f]"
INSIDE = re.compile(WORD_LETTER * 2)
NOTHING = r"(?!)"
# In ASCII, so that an address ends where a sentence without spaces goes on.
PATTERNS = {
    "url": r"(?<![0-9A-Za-z])(?:(?i:https?|ftp)://|www\.)[!#-;=?-~]*[0-9A-Za-z_/#&=%+~@$*-]",
    "email": r"(?<![0-9A-Za-z_.+%-])[0-9A-Za-z_.+%-]+@(?:[0-9A-Za-z-]+\.)+[A-Za-z]{2,}",
    "tag": r"</?[A-Za-z][\w:.-]*(?:\s[^<>]*)?/?>",
    # Without marks, since 1,000.5 and 10:30 are written in other ways in other languages.
    "number": rf"(?<!{WORD_LETTER})(?<![.,:/'’-])[0-9]+(?!{WORD_LETTER}|[.,:/'’-][0-9])",
}
# If marks are read, a backslash escapes the characters of a mark, and a backslash.
ESCAPED = r"\\[{}\\]"
MARKS = {
    # Each character can be read in one way only, so that no text takes long.
    MARK: rf"\{{\{{(?:{ESCAPED}|(?!{ESCAPED}|\{{\{{|\}}\}}).)+\}}\}}",
    ESCAPE: ESCAPED,
    OPEN: r"\{\{",
}


@dataclass(frozen=True)
class Copied:
    """A part of a text that is copied into the translation."""

    start: int
    end: int
    kind: str
    """A key of `PATTERNS`, TERM or MARK; ESCAPE for what is not a mark, OPEN for a mark without end."""
    source: str
    """Text in the source, without marks."""
    target: str
    """Text in the translation."""

    @property
    def key(self) -> tuple[str, str]:
        """Key that parts with the same symbol share. Marked text has a symbol for terms."""
        return TERM if self.kind == MARK else self.kind, self.target


class CopyFinder:
    """Finds text to copy. Of parts that overlap, the first one is taken, and the longest term.

    Args:
        kinds: keys of `PATTERNS`.
        terms: words or phrases, each with its form in the translation. They are found as whole words, as written.
        kept: symbols that stand for themselves.
        has_marks: whether text between {{ and }} is copied. \\{, \\} and \\\\ stand for {, } and \\.
    """

    def __init__(
        self,
        kinds: Iterable[str] = (),
        *,
        terms: Mapping[str, str] | None = None,
        kept: Iterable[str] = (),
        has_marks: bool = False,
    ):
        self._terms = terms or {}
        self._lengths = _group_lengths(self._terms)
        patterns = {
            **(MARKS if has_marks else {}),
            KEPT: "|".join(map(re.escape, sorted(kept, key=len, reverse=True))),
            **{kind: PATTERNS[kind] for kind in PATTERNS if kind in set(kinds)},
        }
        named = [f"(?P<{name}>{pattern})" for name, pattern in patterns.items() if pattern]
        self._pattern = re.compile("|".join(named) or NOTHING, re.DOTALL)

    def find(self, text: str) -> Iterator[Copied]:
        """Yields the parts of a text that are copied, in order; no two overlap."""
        at = 0
        others, terms = self._pattern.finditer(text), self._find_terms(text)
        other, term = next(others, None), next(terms, None)
        while other or term:
            # Of two at the same place, a term comes before an address and the like, but not before a mark or a symbol.
            is_term = term and (not other or (term.start, other.lastgroup not in PATTERNS) < (other.start(), True))
            if term and is_term:
                yield term
                at = term.end
                if other and other.start() < at:
                    others = self._pattern.finditer(text, at)
                    other = next(others, None)
            elif other:
                yield from self._read(other)
                at = other.end()
                other = next(others, None)
            while term and term.start < at:
                term = next(terms, None)

    def _read(self, found: re.Match[str]) -> Iterator[Copied]:
        kind, text = found.lastgroup or "", found[0]
        if kind == MARK:
            text = re.sub(ESCAPED, lambda one: one[0][1:], text[2:-2])
            yield Copied(*found.span(), kind, text, text)
        elif kind == ESCAPE:
            yield Copied(*found.span(), kind, text[1:], text[1:])
        elif kind != KEPT:
            yield Copied(*found.span(), kind, text, text)

    def _find_terms(self, text: str) -> Iterator[Copied]:
        """Yields the longest term at each place where one begins; terms may overlap."""
        # Looked up, since a pattern of some thousand terms would take seconds to compile.
        for start, first in enumerate(text if self._terms else ""):
            for length in self._lengths.get(first, ()):
                term = text[start : start + length]
                if term in self._terms and not _is_inside(text, start) and not _is_inside(text, start + length):
                    yield Copied(start, start + length, TERM, term, self._terms[term])
                    break


def _group_lengths(terms: Iterable[str]) -> dict[str, list[int]]:
    """Returns the lengths of the terms that begin with each character, longest first."""
    lengths: dict[str, set[int]] = {}
    for term in terms:
        lengths.setdefault(term[0], set()).add(len(term))
    return {first: sorted(found, reverse=True) for first, found in lengths.items()}


def _is_inside(text: str, place: int) -> bool:
    """Returns whether a place is inside a word."""
    return place > 0 and INSIDE.match(text, place - 1) is not None


def escape_marks(text: str) -> str:
    r"""Escapes a text, so that it is read as it stands where marks are read.

    >>> print(escape_marks("a {{b}}"))
    a \{\{b\}\}
    """
    return re.sub(r"[{}\\]", lambda found: "\\" + found[0], text)


@dataclass(frozen=True)
class Placeholders:
    """The symbols that a model knows.

    Args:
        kinds: of text: keys of `PATTERNS`, or TERM.
        per_kind: symbols of each kind.
        kept: other symbols of the tokenizer, which stand for themselves.
    """

    kinds: Sequence[str] = ()
    per_kind: int = 0
    kept: Sequence[str] = ()

    @classmethod
    def from_config(cls, config: PlaceholderConfig, tokenizer: Tokenizer | None = None) -> "Placeholders":
        """Returns the symbols of data.placeholders, and the others that the source tokenizer has."""
        if not config.kinds:
            return cls()
        return cls(config.kinds, config.symbols_per_kind, tokenizer.user_symbols if tokenizer else ())

    @classmethod
    def from_record(cls, record: Mapping[str, Any], tokenizer: Tokenizer) -> "Placeholders":
        """Returns the symbols in the record of an export, and the others that its source tokenizer has."""
        given = record.get("placeholders")
        return cls(given["kinds"], given["symbols_per_kind"], tokenizer.user_symbols) if given else cls()

    def as_record(self) -> dict[str, Any]:
        """Returns the kinds and their number of symbols as JSON values."""
        return {"kinds": list(self.kinds), "symbols_per_kind": self.per_kind}

    @property
    def symbols(self) -> list[str]:
        """All symbols, kind by kind."""
        return [symbol for kind in self.kinds for symbol in self._name(kind)]

    def assign(self, keys: Iterable[tuple[str, str]], texts: Iterable[str]) -> dict[tuple[str, str], str]:
        """Assigns symbols to what is found, in order: 1 to the first of its kind, and so on.

        Those that there is no symbol for are left out.

        Args:
            keys: of what was found, see `Copied.key`.
            texts: where it was found. A symbol that they have already stands for itself.
        """
        texts = list(texts)
        free = {
            kind: iter([symbol for symbol in self._name(kind) if not any(symbol in text for text in texts)])
            for kind in self.kinds
        }
        wanted = {key: next(free.get(key[0], iter(())), None) for key in dict.fromkeys(keys)}
        return {key: symbol for key, symbol in wanted.items() if symbol}

    def _name(self, kind: str) -> list[str]:
        return [f"<{kind}{number}>" for number in range(1, self.per_kind + 1)]


class PairMasker:
    """Puts symbols in place of what stands on both sides of a pair.

    Args:
        placeholders: the symbols.
        glossary: terms, if they are one of the kinds.
    """

    def __init__(self, placeholders: Placeholders, glossary: Glossary):
        self.placeholders = placeholders
        kept = [*placeholders.symbols, *placeholders.kept]
        targets = {target: target for target in glossary.entries.values()}
        self._finders = [
            CopyFinder(placeholders.kinds, terms=terms, kept=kept) for terms in (glossary.entries, targets)
        ]

    def find_common(self, source: str, target: str) -> list[tuple[str, str]]:
        """Returns the keys of what stands on both sides, in the order of the source."""
        ours, theirs = (dict.fromkeys(one.key for one in found) for found in self._find(source, target))
        return [key for key in ours if key in theirs]

    def replace(self, source: str, target: str) -> tuple[str, str]:
        """Returns both sides with symbols."""
        symbols = self.placeholders.assign(self.find_common(source, target), (source, target))
        masked = (
            replace_parts(text, found, lambda one: symbols.get(one.key, one.source))
            for text, found in zip((source, target), self._find(source, target), strict=True)
        )
        return next(masked), next(masked)

    def _find(self, *sides: str) -> list[list[Copied]]:
        return [list(finder.find(text)) for finder, text in zip(self._finders, sides, strict=True)]


def replace_parts(text: str, parts: Iterable[Copied], choose: Callable[[Copied], str]) -> str:
    """Returns a text with other text in place of its parts, which are in order."""
    pieces, at = [], 0
    for part in parts:
        pieces += [text[at : part.start], choose(part)]
        at = part.end
    return "".join([*pieces, text[at:]])


def is_record(given: Any) -> bool:
    """Returns whether a value read from JSON is one that `Placeholders.as_record` returns."""
    if not isinstance(given, dict) or set(given) != {"kinds", "symbols_per_kind"}:
        return False
    kinds, count = given["kinds"], given["symbols_per_kind"]
    known = get_args(PlaceholderKind)
    return isinstance(kinds, list) and all(kind in known for kind in kinds) and isinstance(count, int)


def check_symbols(config: PlaceholderConfig, tokenizers: Sequence[Tokenizer]) -> None:
    """Checks that every symbol is one token of the tokenizers of source and target.

    Raises:
        UserError: the tokenizers were trained without it.
    """
    for side, tokenizer in zip(("source", "target"), tokenizers, strict=True):
        known = set(tokenizer.user_symbols)
        for symbol in Placeholders.from_config(config).symbols:
            if symbol not in known:
                raise UserError(
                    f"data.placeholders: the {side} tokenizer does not have the symbol {symbol}, but reads it as "
                    f"{' '.join(tokenizer.tokenize(symbol))}. Train a new tokenizer, which has the symbols of "
                    "data.placeholders, or use one that was trained with them (tokenizer.user_symbols)."
                )
