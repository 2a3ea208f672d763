"""Copies placeholders, terms of a glossary and text between marks into translations.

1. Text to copy is found in each part of a text (`nmt.data.placeholders`).
2. Symbols of the model replace it. If the model has no symbol for a term, the term stays, and its translation is a
   required phrase (`required` of `Translator.translate_batch`). If it has none for marked text, that stays too.
3. In the translation, the text replaces its symbol, and the translation of a term replaces the term's symbol. Marked
   text without a symbol replaces the words that attend to it, like text with translate="no" in HTML. A symbol or term
   that is missing from the translation causes a warning. A symbol without text is removed.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape, unescape

from nmt.data.glossary import Glossary
from nmt.data.placeholders import MARK, OPEN, TERM, Copied, CopyFinder, Placeholders, replace_parts
from nmt.decoding.alignment import TokenAttention
from nmt.translators.checks import check_matter
from nmt.translators.demands import MAX_PHRASES, Demand
from nmt.translators.hypothesis import Hypothesis, Translation, TranslationWarning
from nmt.translators.placing import Node, Segment
from nmt.translators.sentences import SplitText

# Kinds of warnings, by what was lost.
LOST = {"url": "lost_address", "email": "lost_address", "number": "lost_number", "tag": "lost_tag"}
LOST |= {TERM: "lost_term", MARK: "lost_term"}


@dataclass(frozen=True)
class ProtectedText:
    """A text in which symbols stand for what is copied."""

    source: str
    """The text as it was given."""
    text: str
    """The text as the model reads it."""
    rest: str
    """The text without what is copied."""
    copies: Mapping[str, Copied] = field(default_factory=dict)
    """The text of each symbol."""
    terms: Sequence[str] = ()
    """Translations of terms without a symbol, which the translation must contain."""
    marked: Sequence[Node] = ()
    """Marked text without a symbol, and where it is in the text."""
    has_open_mark: bool = False
    most_required: int = MAX_PHRASES
    """Terms that the search can be required to write, since it accepts a number of phrases."""
    symbols: re.Pattern[str] | None = None
    """Finds the symbols of the model; None if it has none."""

    @property
    def required(self) -> Sequence[str]:
        """What is required of the search."""
        return self.terms[: self.most_required]

    def restore(self, translation: Translation, *, keep_attention: bool) -> Translation:
        """Returns the translation of the text as it was given, from that of the text with symbols."""
        if self.symbols is None and self.text == self.source and not self.terms and not self.has_open_mark:
            return translation  # marked text always differs
        restored = [self._restore_hypothesis(one, keep_attention) for one in translation.hypotheses]
        hypotheses = _drop_equal(translation.hypotheses, restored)
        warnings = tuple(self._find_warnings(translation, hypotheses[0].text))
        return replace(translation, source=self.source, hypotheses=hypotheses, warnings=warnings)

    def _find_warnings(self, translation: Translation, whole: str) -> Iterator[TranslationWarning]:
        """Yields the warnings about a translation with symbols, given the same translation without them."""
        for warning in translation.warnings:
            if not warning.kind.startswith("lost_"):
                yield replace(warning, message=self.restore_text(warning.message))
        yield from check_matter(self.rest, whole)
        for symbol, one in self.copies.items():
            if symbol not in translation.text and one.target not in whole:
                meaning = f", the translation of '{one.source}'" if one.target != one.source else ""
                yield TranslationWarning(LOST[one.kind], f"Missing in the translation: '{one.target}'{meaning}.")
        for term in self.terms:
            # The search reports what it was to put into the translation and is not in it at all.
            is_reported = term in self.required and term not in whole
            if not is_reported and not any(CopyFinder(terms={term: term}).find(whole)):
                yield TranslationWarning(LOST[TERM], f"Missing in the translation as a whole word: '{term}'.")
        if self.has_open_mark:
            yield TranslationWarning("open_mark", f"A mark {{{{ has no end in '{self.source[:40]}'.")

    def restore_text(self, text: str) -> str:
        """Returns a text in which the text of each symbol replaces the symbol; a symbol without text is removed."""
        return self.symbols.sub(self._fill, text) if self.symbols else text

    def put_symbols(self, reference: str) -> str:
        """Returns a given translation of the text with the symbols of the text."""
        symbols = {one.target: symbol for symbol, one in self.copies.items()}
        return replace_parts(reference, CopyFinder(terms=symbols).find(reference), lambda one: one.target)

    def join_demand(self, demand: Demand) -> Demand:
        """Returns what is demanded of the translation with symbols, given what is demanded of that without."""
        phrases = map(self.put_symbols, demand.required)
        return Demand(self.put_symbols(demand.prefix), (*phrases, *self.required))

    def _fill(self, found: re.Match[str]) -> str:
        symbol = found["symbol"]
        if symbol in self.copies:
            return found[0].replace(symbol, self.copies[symbol].target)
        return found[0] if symbol in self.source else ""

    def _restore_hypothesis(self, one: Hypothesis, keep_attention: bool) -> Hypothesis:
        text = one.text
        if self.marked:
            text = unescape(Segment(self.text, self.marked).put_tags(one))
        attention = [self._name_tokens(part) for part in one.attention if keep_attention]
        return replace(one, text=self.restore_text(text), attention=attention)

    def _name_tokens(self, part: TokenAttention) -> TokenAttention:
        """Returns attention between tokens that spell the text as it was given."""
        source = [self.copies[token].source if token in self.copies else token for token in part.source]
        target = [self.copies[token].target if token in self.copies else token for token in part.target]
        return replace(part, source=source, target=target)


@dataclass(frozen=True)
class TermRules:
    """Rules for text that is copied into translations. An object without rules is false.

    Args:
        placeholders: the symbols that the model was trained with.
        glossary: terms and their translations.
        has_marks: whether text between {{ and }} is copied.
    """

    placeholders: Placeholders = field(default_factory=Placeholders)
    glossary: Glossary = field(default_factory=Glossary)
    has_marks: bool = False

    def __bool__(self) -> bool:
        return bool(self.placeholders.kinds or self.glossary.entries or self.has_marks)

    def protect(self, text: str) -> ProtectedText:
        """Replaces text that is copied by symbols."""
        found = list(self._finder.find(text))
        symbols = self.placeholders.assign((one.key for one in found), [text])
        terms: list[str] = []
        marked: list[Node] = []
        written = rest = ""
        at = 0
        for one in found:
            before, shown = text[at : one.start], symbols.get(one.key, one.source)
            is_copied = one.key in symbols or one.kind in (TERM, MARK)
            written, rest = written + before, rest + before + (" " if is_copied else shown)
            if one.kind == MARK and one.key not in symbols:
                start = len(written)
                marked.append(Node(escape(one.target, quote=False), start, start + len(shown), is_kept=True))
            elif one.kind == TERM and one.key not in symbols:
                terms.append(one.target)
            written, at = written + shown, one.end
        return ProtectedText(
            source=text,
            text=written + text[at:],
            rest=rest + text[at:],
            copies={symbols[one.key]: one for one in reversed(found) if one.key in symbols},
            terms=list(dict.fromkeys(terms)),
            marked=marked,
            has_open_mark=any(one.kind == OPEN for one in found),
            symbols=self._symbols,
        )

    def protect_all(
        self, texts: Sequence[str], demands: Sequence[Demand], *, tags: Sequence[str] = ()
    ) -> tuple[list[ProtectedText], Sequence[Demand]]:
        """Protects several texts.

        Args:
            texts: each is translated as a whole.
            demands: on the translation of each.
            tags: symbols of the model, one of which may begin a text. No translation is expected to have it.

        Returns:
            The texts, none if nothing is copied, and the demands with the terms that are required besides.
        """
        if not self:
            return [], demands
        pairs = [(self.protect(text), demand) for text, demand in zip(texts, demands, strict=True)]
        protected = [
            replace(text, rest=_drop_tag(text.rest, tags), most_required=MAX_PHRASES - len(one.required))
            for text, one in pairs
        ]
        return protected, [text.join_demand(one) for text, (_, one) in zip(protected, pairs, strict=True)]

    def join_copied(self, text: SplitText, fits: Callable[[str], bool]) -> SplitText:
        """Returns a text without divisions within a term, or between a mark and its end in the same line.

        Args:
            text: in parts.
            fits: returns whether a part may be so long.
        """
        if len(text.parts) < 2 or not (self.has_marks or self.glossary.entries):
            return text
        whole, starts = text.text, text.find_starts()
        divided: set[int] = set()  # parts that begin within what is copied
        for one in self._finder.find(whole):
            if one.kind in (TERM, MARK) and "\n" not in whole[one.start : one.end]:
                divided.update(range(bisect_right(starts, one.start), bisect_left(starts, one.end)))
        parts: list[str] = []
        gaps = [text.gaps[0]]
        for number, (part, gap) in enumerate(zip(text.parts, text.gaps[1:], strict=True)):
            if parts and number in divided and fits(joined := parts[-1] + gaps[-1] + part):
                parts[-1] = joined
                gaps[-1] = gap
            else:
                parts.append(part)
                gaps.append(gap)
        return replace(text, parts=parts, gaps=gaps)

    @cached_property
    def _finder(self) -> CopyFinder:
        placeholders = self.placeholders
        return CopyFinder(
            placeholders.kinds,
            terms=self.glossary.entries,
            kept=[*placeholders.symbols, *placeholders.kept],
            has_marks=self.has_marks,
        )

    @cached_property
    def _symbols(self) -> re.Pattern[str] | None:
        symbols = "|".join(map(re.escape, self.placeholders.symbols))
        return re.compile(f" ?(?P<symbol>{symbols})") if symbols else None


def _drop_tag(text: str, tags: Sequence[str]) -> str:
    """Returns a text without the tag that it begins with, if there is one."""
    return text.removeprefix(max(filter(text.startswith, tags), key=len, default=""))


def _drop_equal(before: Sequence[Hypothesis], restored: Sequence[Hypothesis]) -> list[Hypothesis]:
    """Returns restored hypotheses without those that differed from an earlier one in a removed symbol alone.

    Those that were equal before, such as samples, stay.
    """
    written: dict[str, str] = {}
    pairs = zip(before, restored, strict=True)
    return [new for old, new in pairs if written.setdefault(new.text, old.text) == old.text]


def restore_all(
    protected: Sequence[ProtectedText], translations: Sequence[Translation], *, keep_attention: bool
) -> Sequence[Translation]:
    """Returns the translations of texts as they were given; see `TermRules.protect_all`."""
    if not protected:
        return translations
    pairs = zip(protected, translations, strict=True)
    return [text.restore(translation, keep_attention=keep_attention) for text, translation in pairs]
