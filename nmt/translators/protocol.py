"""The interface of everything that translates text: a trained model, a SavedModel, a LiteRT model.

Commands, the server and the cluster use this interface only, so that a new kind of translator is one subclass and one
line in `nmt.translators.opening.KINDS`.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from nmt.config.schema import SearchSettings
from nmt.data.batching import split_chunks
from nmt.data.examples import put_tag
from nmt.data.glossary import Glossary, read_glossary
from nmt.data.placeholders import TERM, Placeholders
from nmt.decoding.word_links import WordLinks
from nmt.errors import UserError
from nmt.translators.checks import find_warnings
from nmt.translators.confidence import Confidence
from nmt.translators.demands import Demand, make_demands, split_demand, start_with_prefix
from nmt.translators.hypothesis import (
    Continuation,
    Hypothesis,
    ScoredTranslation,
    Translation,
    join_translations,
)
from nmt.translators.sentences import SplitText, TextSplitter, needs_splitting
from nmt.translators.terms import TermRules, restore_all

WINDOW = 4096  # lines sorted by length together, and held in memory at once
NO_SCORES = (
    "An export translates, but does not score given translations: open the model that it was made from. (Programs can "
    "call the signature token_log_probs of a SavedModel.)"
)


class Translator(ABC):
    """Translates texts.

    >>> nmt.open_translator("runs/demo").translate(["The stories are old."])  # doctest: +SKIP
    ['Die Geschichten sind alt.']
    """

    source_language: str | None
    """Language code of the source; None if unknown."""
    target_language: str | None
    """Language code of the translations; None if unknown."""
    version: int = 1
    """Number of an export's version folder; 1 for models."""
    max_n_best: int
    """Most hypotheses per text that it returns."""
    signature_n_best: int = 1
    """Hypotheses per text of the signature `nbest`: `export.nbest`, as stored with the model."""
    settings: SearchSettings
    """How it searches."""
    max_tokens: int
    """Most source tokens that it reads at once, without EOS."""
    max_characters: int | None = None
    """Most characters of a text that it reads at once; None if there is no such limit."""
    truncates: bool = False
    """Whether `translate_batch` reads the beginning of a text that is too long, instead of translating it in parts."""
    multi_sentence_share: float = 0.0
    """Share of the training lines that held more than one sentence; 0 if unknown."""
    tags: Sequence[str] = ()
    """Symbols that stand before sources (`data.train[].tag`)."""
    fitted_confidence: Confidence | None = None
    """Weights and curve of the confidence in translations; None if it was not fitted (see `nmt calibrate`)."""
    terms: TermRules = TermRules()
    """Rules for text that is copied into translations; see `with_terms` and `data.placeholders`."""

    @abstractmethod
    def with_settings(self, **changes: Any) -> "Translator":
        """Returns a translator that searches with other settings, such as beam_size=1; None leaves one unchanged.

        Raises:
            UserError: there is no such setting, its value is invalid, or it is fixed in an export.
        """

    def with_terms(
        self, glossary: Glossary | Mapping[str, str] | Path | str | None = None, *, marks: bool = False
    ) -> Self:
        """Returns a translator that translates terms by a glossary, and copies marked text.

        A model that was trained with placeholders for terms copies them. Other models search for translations that
        contain the translations of terms, and marked text replaces the words that attend to it. A term that is missing
        from a translation causes a warning.

        Args:
            glossary: terms and their translations, or a file of them; None for none.
            marks: whether text between {{ and }} is copied; see `nmt.data.placeholders.escape_marks`.

        Raises:
            UserError: the file is missing, a line of it is not a term, a tab and its translation, or the translator
                cannot search for the translation of a term.
        """
        terms, placeholders = read_glossary(glossary), self.terms.placeholders
        if terms.entries and TERM not in placeholders.kinds:
            self.check_demands([Demand(required=(target,)) for target in terms.entries.values()])
        other = copy.copy(self)
        other.terms = TermRules(placeholders if placeholders.kinds else Placeholders(kept=self.tags), terms, marks)
        return other

    def without_terms(self) -> Self:
        """Returns a translator without a glossary, marks and placeholders, which reads every text unchanged."""
        other = copy.copy(self)
        other.terms = TermRules()
        return other

    @abstractmethod
    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """Returns the number of source tokens of each text, without EOS."""

    @abstractmethod
    def translate_batch(
        self,
        texts: Sequence[str],
        *,
        n_best: int = 1,
        attention: bool = False,
        prefixes: Sequence[str] | None = None,
        required: Sequence[Sequence[str]] | None = None,
    ) -> list[Translation]:
        """Translates each text as a whole and as if it were alone: one text, one source of the model.

        An export reads the beginning of a text that is too long and sets `Translation.is_truncated`, as it does for
        its other clients. `translate_texts` splits texts first.

        Args:
            texts: any number; the results of all are held in memory.
            n_best: largest number of hypotheses per text. The first one does not depend on it.
            attention: whether to return attention weights, for which the translations are read once more.
            prefixes: the beginning of each translation, which may end inside a word; "" for none.
            required: words and phrases that each translation must contain. A missing one causes a warning.

        Raises:
            UserError: this kind of translator cannot return what is requested.
        """

    def check_demands(self, demands: Sequence[Demand]) -> None:
        """Raises UserError if the translator cannot translate with these prefixes and required phrases."""
        name = "required" if any(demand.required for demand in demands) else "prefixes"
        raise UserError(
            f"{name}: an export for LiteRT takes no prefixes or phrases. Translate with the model itself, or export a "
            "SavedModel."
        )

    def list_alternatives(
        self, texts: Sequence[str], prefixes: Sequence[str], *, n: int = 5
    ) -> list[list[Continuation]]:
        """Returns alternatives for the next word after a prefix, most probable first, for interactive editors.

        Texts are not split into sentences. Glossaries, marks and placeholders have no effect.

        Args:
            texts: any number. Only the first part of a text is read if it is longer than the translator reads at once.
            prefixes: the beginning of each translation; "" for alternatives of its first word.
            n: maximum number of alternatives per text.

        Raises:
            UserError: this kind of translator cannot do that.
        """
        raise UserError(
            "An export for LiteRT lists no alternatives: translate with the model itself, or export a SavedModel."
        )

    def score(self, pairs: Iterable[tuple[str, str]]) -> Iterator[ScoredTranslation]:
        """Yields how probable given translations are, in order: to rank, filter or check text.

        Texts are read as a whole, whatever their length and `decoding.split_sentences`.

        Args:
            pairs: sources and their translations, any number; `WINDOW` of them are held in memory at once.

        Raises:
            UserError: this is an export, which only translates.
        """
        raise UserError(NO_SCORES)

    def count_target_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """Returns the number of tokens of each translation to be scored, without EOS.

        Raises:
            UserError: this is an export, which only translates.
        """
        raise UserError(NO_SCORES)

    def align(self, pairs: Iterable[tuple[str, str]]) -> Iterator[WordLinks]:
        """Yields the attention between the words of texts and their given translations, in order.

        Texts are read as a whole, whatever their length and `decoding.split_sentences`.

        Args:
            pairs: as for `score`.

        Raises:
            UserError: this is an export, which only translates.
        """
        raise UserError(
            "An export translates, but does not align given translations: open the model that it was made from."
        )

    def split_texts(self, texts: Sequence[str], demands: Sequence[Demand] | None = None) -> list[SplitText]:
        """Splits texts into sentences, or lines, none of which is longer than the translator reads at once.

        See `decoding.split_sentences` and `decoding.tag`. A text of which something is demanded is not split into
        sentences.
        """
        by_sentence = needs_splitting(self.settings.split_sentences, self.multi_sentence_share)
        found = self._split(texts, by_sentence, self.settings.tag)
        if by_sentence and demands:
            numbers = [number for number, demand in enumerate(demands) if demand]
            lines = self._split([texts[number] for number in numbers], False, self.settings.tag)
            for number, one in zip(numbers, lines, strict=True):
                found[number] = one
        return found

    def cut_texts(self, texts: Sequence[str]) -> list[SplitText]:
        """Splits texts that are longer than the translator reads at once, each part with the tag of its text.

        Unlike `split_texts`, it leaves texts without a tag as they are, whatever the settings.
        """
        return self._split(texts, False, None)

    def translate_texts(
        self,
        texts: Sequence[str],
        *,
        n_best: int = 1,
        attention: bool = False,
        split: bool = True,
        prefixes: Sequence[str] | None = None,
        required: Sequence[Sequence[str]] | None = None,
    ) -> list[Translation]:
        """Translates texts of any length to their ends.

        Args:
            texts: any number; the results of all are held in memory.
            n_best: largest number of hypotheses per text.
            attention: whether to return attention weights.
            split: whether to split texts as `decoding.split_sentences` says; else only those that are too long are
                translated in parts.
            prefixes, required: see `translate_batch`. A text with one of them is not split into sentences. If it is
                translated in parts for another reason, such as several lines, the prefix applies to the first part, and
                the phrases to the longest one.

        Raises:
            UserError: this kind of translator cannot return what is requested.
        """
        demands = make_demands(len(texts), prefixes, required)
        if demands is not None:
            whole = self.split_texts(texts, demands) if split else self._split(texts, False, self.settings.tag)
            return self._translate_split(whole, n_best=n_best, attention=attention, demands=demands)
        if split:
            return self._translate_split(self.split_texts(texts), n_best=n_best, attention=attention)
        texts = [self.write_tag(text) for text in texts]
        found = self._translate_parts(texts, [Demand()] * len(texts), n_best=n_best, attention=attention)
        cut = [n for n, one in enumerate(found) if one.is_truncated]
        if cut:
            whole = self.cut_texts([texts[n] for n in cut])
            translations = self._translate_split(whole, n_best=n_best, attention=attention)
            for n, one in zip(cut, translations, strict=True):
                found[n] = one
        return found

    def write_tag(self, text: str) -> str:
        """Returns a text that begins with its tag, or else with `decoding.tag`, if there is one."""
        return put_tag(*self._split_tag(text, self.settings.tag)) if self.tags and text.strip() else text

    def check_n_best(self, n_best: int) -> None:
        """Raises UserError unless the translator can return that many hypotheses per text."""
        if not 1 <= n_best <= self.max_n_best:
            raise UserError(f"n_best: expected 1 to {self.max_n_best} translations per line, found {n_best}.")

    def translate(
        self,
        lines: Iterable[str],
        *,
        split: bool = True,
        glossary: Glossary | Mapping[str, str] | Path | str | None = None,
        prefixes: Sequence[str] | None = None,
        required: Sequence[Sequence[str]] | None = None,
    ) -> list[str]:
        """Returns the best translation of each line; blank lines stay as they are.

        Args:
            lines: any number.
            split: see `translate_texts`.
            glossary: see `with_terms`, which this calls.
            prefixes, required: see `translate_texts`.
        """
        translator = self if glossary is None else self.with_terms(glossary)
        stream = translator.stream(lines, split=split, prefixes=prefixes, required=required)
        return [translation.text for translation in stream]

    def stream(
        self,
        lines: Iterable[str],
        *,
        n_best: int = 1,
        window: int = WINDOW,
        attention: bool = False,
        split: bool = True,
        prefixes: Sequence[str] | None = None,
        required: Sequence[Sequence[str]] | None = None,
    ) -> Iterator[Translation]:
        """Yields the translation of each line, in order.

        Args:
            lines: any number; `window` of them are held in memory at once.
            n_best: largest number of hypotheses per line.
            window: lines read before the first result; 1 translates line by line.
            attention: whether to return attention weights.
            split: see `translate_texts`.
            prefixes, required: see `translate_texts`; one entry per line.

        Raises:
            UserError: `lines` is one text instead of several, or this kind of translator cannot return what is
                requested.
        """
        if isinstance(lines, str):
            raise UserError("Expected a list of lines to translate, found one text: put it in brackets.")
        number = 0
        for batch in split_chunks(lines, window):
            here = slice(number, number + len(batch))
            demands: dict[str, Any] = {"prefixes": prefixes and prefixes[here], "required": required and required[here]}
            yield from self.translate_texts(batch, n_best=n_best, attention=attention, split=split, **demands)
            number += len(batch)
        for name, given in (("prefixes", prefixes), ("required", required)):
            if given and len(given) > number:
                raise UserError(f"{name}: expected an entry for each of the {number} lines, found {len(given)}.")

    def _split(self, texts: Sequence[str], by_sentence: bool, tag: str | None) -> list[SplitText]:
        """Splits texts into sentences, or lines, each with the tag of its text, or else with this one."""
        room, characters = (
            max(self.count_tokens(self.tags), default=0),
            max((len(tag) + 1 for tag in self.tags), default=0),
        )
        splitter = TextSplitter(
            language=self.source_language,
            by_sentence=by_sentence,
            count_tokens=self._count_protected if self.terms else self.count_tokens,
            max_tokens=max(1, self.max_tokens - room),
            max_characters=self.max_characters and max(1, self.max_characters - characters),
        )

        def split_bare(texts: Sequence[str]) -> list[SplitText]:
            return [self.terms.join_copied(one, splitter.is_short_enough) for one in splitter.split(texts)]

        if not self.tags:
            return split_bare(texts)
        tagged = [self._split_tag(text, tag) for text in texts]
        return [
            replace(
                split,
                parts=[put_tag(tag, part) for part in split.parts],
                tag=tag,
                prefix=text[: len(text) - len(rest)],
            )
            for text, (tag, rest), split in zip(texts, tagged, split_bare([rest for _, rest in tagged]), strict=True)
        ]

    def _count_protected(self, texts: Sequence[str]) -> Sequence[int]:
        return self.count_tokens([self.terms.protect(text).text for text in texts])

    def _split_tag(self, text: str, other: str | None) -> tuple[str | None, str]:
        """Returns the tag by which a text begins, or else the other one, and the text without it."""
        tag, rest = split_tag(text, self.tags)
        return tag or other, rest

    def _translate_split(
        self, texts: Sequence[SplitText], *, n_best: int, attention: bool, demands: Sequence[Demand] | None = None
    ) -> list[Translation]:
        self.check_n_best(n_best)
        parts = [part for text in texts for part in text.parts]
        demands = demands or [Demand()] * len(texts)
        spread = [one for text, demand in zip(texts, demands, strict=True) for one in split_demand(demand, text.parts)]
        found = iter(self._translate_parts(parts, spread, n_best=n_best, attention=attention) if parts else ())
        return [
            start_with_prefix(join_translations(text, [next(found) for _ in text.parts]), text, demand)
            for text, demand in zip(texts, demands, strict=True)
        ]

    def _translate_parts(
        self, parts: Sequence[str], demands: Sequence[Demand], *, n_best: int, attention: bool
    ) -> list[Translation]:
        """Translates each text as a whole, and copies terms, marked text and placeholders."""
        protected, demands = self.terms.protect_all(parts, demands, tags=self.tags)
        parts = [one.text for one in protected] or parts
        # Marked text needs attention. Other texts are translated without, so that no text depends on its neighbours.
        needs_attention = [attention or bool(one.marked) for one in protected] or [attention] * len(parts)
        found: dict[int, Translation] = {}
        for needed in sorted(set(needs_attention)):
            numbers = [number for number, needs in enumerate(needs_attention) if needs == needed]
            given: dict[str, Any] = {}
            if any(demands[number].prefix for number in numbers):
                given["prefixes"] = [demands[number].prefix for number in numbers]
            if any(demands[number].required for number in numbers):
                given["required"] = [demands[number].required for number in numbers]
            rows = self.translate_batch([parts[n] for n in numbers], n_best=n_best, attention=needed, **given)
            found.update(zip(numbers, rows, strict=True))
        translations = [found[number] for number in range(len(parts))]
        return list(restore_all(protected, translations, keep_attention=attention))

    def _describe(self, text: str, hypotheses: Sequence[Hypothesis]) -> Translation:
        return describe(text, hypotheses, self.tags, self.fitted_confidence)

    def _with(self, settings: SearchSettings) -> Self:
        """Returns a translator that differs in settings that the search does not read.

        Raises:
            UserError: the model was not trained with the tag.
        """
        if settings.tag and settings.tag not in self.tags:
            known = f"one of its tags, {', '.join(self.tags)}" if self.tags else "none, because it was trained without"
            raise UserError(f"decoding.tag: the model does not know {settings.tag}; expected {known}.")
        other = copy.copy(self)
        other.settings = settings
        return other


def split_tag(text: str, tags: Iterable[str]) -> tuple[str | None, str]:
    """Returns the tag by which a text begins, if it is one of these, and the text without it."""
    begin = text.lstrip()
    for tag in sorted(tags, key=len, reverse=True):
        if begin.startswith(tag):
            return tag, begin[len(tag) :].lstrip()
    return None, text


def describe(
    text: str, hypotheses: Sequence[Hypothesis], tags: Iterable[str] = (), confidence: Confidence | None = None
) -> Translation:
    """Returns the translation of a text, which may begin with one of the tags, with warnings and confidence.

    Warnings are about the best hypothesis. Each hypothesis has a confidence if it was fitted.
    """
    tag, bare = split_tag(text, tags)
    if confidence and bare.strip():
        hypotheses = [replace(one, confidence=confidence.estimate(bare, one)) for one in hypotheses]
    return Translation(text, hypotheses, warnings=find_warnings(bare, hypotheses[0], tag))
