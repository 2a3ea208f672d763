"""Reranks the hypotheses of a translator by a second model, such as one that writes from right to left."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from nmt.data.examples import put_tag
from nmt.decoding.word_links import WordLinks
from nmt.errors import UserError
from nmt.translators.checks import find_warnings
from nmt.translators.demands import Demand
from nmt.translators.hypothesis import Continuation, Hypothesis, ScoredTranslation, Translation
from nmt.translators.protocol import Translator, split_tag

WEIGHT = 0.5


class RerankingTranslator(Translator):
    """Translates with one model and orders the hypotheses of its beam by the scores of two (Liu et al. 2016).

    The score of a hypothesis becomes (1 - weight) x its score + weight x the second model's, which is the
    log-probability of its text by that model, divided by the same length penalty.

    Args:
        first: translates. Its beam size is the number of hypotheses that are ordered.
        second: scores them. It may have other tokenizers, and be an ensemble, but not an export.
        weight: of the second model, 0 to 1.

    Raises:
        UserError: the second model is an export, has another target language or lacks placeholders of the first one,
            or the first one returns one translation only, or its settings choose by themselves.
    """

    def __init__(self, first: Translator, second: Translator, weight: float = WEIGHT):
        self.first, self.second, self.weight = first, second, weight
        self.source_language, self.target_language = first.source_language, first.target_language
        self.version, self.tags, self.multi_sentence_share = first.version, first.tags, first.multi_sentence_share
        self.max_tokens, self.max_characters = first.max_tokens, first.max_characters
        self.truncates = first.truncates
        self.settings, self.signature_n_best = first.settings, first.signature_n_best
        self.max_n_best = min(first.max_n_best, first.settings.beam_size)
        self.terms = first.terms
        self._check()

    def _check(self) -> None:
        second, settings = self.second, self.settings
        if not 0 <= self.weight <= 1:
            raise UserError(f"--rerank-weight: expected a number from 0 to 1, found {self.weight}.")
        if second.target_language != self.target_language:
            raise UserError(
                f"--rerank: the second model must translate into the same language, {self.target_language}; found "
                f"{second.target_language}."
            )
        second.score([])  # an export refuses
        known = second.terms.placeholders.symbols
        if unknown := [symbol for symbol in self.terms.placeholders.symbols if symbol not in known]:
            raise UserError(
                f"--rerank: the first model writes placeholders such as {unknown[0]}, which the second one would score "
                "as plain text. Expected a second model that was trained with the same data.placeholders."
            )
        if settings.temperature or settings.mbr != "none":
            name = "temperature" if settings.temperature else "mbr"
            raise UserError(
                f"decoding.{name}: --rerank orders the hypotheses of a beam search by two models, and this setting "
                "chooses translations in another way; give one of the two."
            )
        if self.max_n_best == 1:
            reason = "decoding.beam_size is 1" if settings.beam_size == 1 else "the export returns one translation"
            raise UserError(f"--rerank has nothing to order, because {reason}. Expected 2 or more.")

    def with_settings(self, **changes: Any) -> "RerankingTranslator":
        """Returns a translator whose first model searches with other settings."""
        other = RerankingTranslator(self.first.with_settings(**changes), self.second, self.weight)
        other.terms = self.terms
        return other

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """Returns the number of source tokens of each text for the first model, without EOS."""
        return self.first.count_tokens(texts)

    def check_n_best(self, n_best: int) -> None:
        """Raises UserError if more hypotheses are requested than are ordered."""
        if n_best > self.max_n_best:
            raise UserError(
                f"decoding.beam_size: {n_best} translations per line were requested, but --rerank orders the "
                f"{self.max_n_best} of the beam: set it to {n_best} or more."
            )
        super().check_n_best(n_best)

    def translate_batch(
        self, texts: Sequence[str], *, n_best: int = 1, attention: bool = False, **inputs: Any
    ) -> list[Translation]:
        """Translates each text as if it were alone; see `Translator.translate_batch`."""
        self.check_n_best(n_best)
        found = self.first.translate_batch(texts, n_best=self.max_n_best, attention=attention, **inputs)
        pairs = [(self._write_source(one.source), each.text) for one in found for each in one.hypotheses]
        scored = self.second.score(pairs)
        return [self._rank(one, [next(scored) for _ in one.hypotheses], n_best) for one in found]

    def score(self, pairs: Iterable[tuple[str, str]]) -> Iterator[ScoredTranslation]:
        """Yields the scores of the first model; see `Translator.score`."""
        return self.first.score(pairs)

    def count_target_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """Returns the number of target tokens of the first model; see `Translator.count_target_tokens`."""
        return self.first.count_target_tokens(texts)

    def align(self, pairs: Iterable[tuple[str, str]]) -> Iterator[WordLinks]:
        """Yields the attention of the first model; see `Translator.align`."""
        return self.first.align(pairs)

    def check_demands(self, demands: Sequence[Demand]) -> None:
        """Raises UserError if the first model cannot translate with these prefixes and phrases."""
        self.first.check_demands(demands)

    def list_alternatives(
        self, texts: Sequence[str], prefixes: Sequence[str], *, n: int = 5
    ) -> list[list[Continuation]]:
        """Returns alternatives of the first model; see `Translator.list_alternatives`."""
        return self.first.list_alternatives(texts, prefixes, n=n)

    def _write_source(self, text: str) -> str:
        """Returns a text with its tag if the second model knows it, else without."""
        tag, bare = split_tag(text, self.tags)
        return put_tag(tag if tag in self.second.tags else None, bare)

    def _rank(self, translation: Translation, scored: Sequence[ScoredTranslation], n_best: int) -> Translation:
        hypotheses = [self._mix(*pair) for pair in zip(translation.hypotheses, scored, strict=True)]
        hypotheses = sorted(hypotheses, key=lambda one: -one.score)  # stable: of equals, the first model's order counts
        tag, source = split_tag(translation.source, self.tags)
        before, after = (find_warnings(source, one, tag) for one in (translation.best, hypotheses[0]))
        warnings = (*after, *(one for one in translation.warnings if one not in before))
        return replace(translation, hypotheses=hypotheses[:n_best], warnings=warnings)

    def _mix(self, one: Hypothesis, scored: ScoredTranslation) -> Hypothesis:
        second = scored.log_prob / self.settings.get_length_penalty(len(scored.tokens))
        return replace(one, score=(1 - self.weight) * one.score + self.weight * second)
