"""Reranking by a second model, with translators whose scores are known."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from nmt.config.schema import SearchSettings
from nmt.data.placeholders import Placeholders
from nmt.errors import UserError
from nmt.server.fair_queue import Options
from nmt.server.limits import Limits
from nmt.server.text_cutter import TextCutter
from nmt.translators.demands import Demand
from nmt.translators.hypothesis import Hypothesis, ScoredTranslation, Translation, TranslationWarning
from nmt.translators.opening import open_translator
from nmt.translators.protocol import Translator
from nmt.translators.reranking import RerankingTranslator
from nmt.translators.settings import change_settings
from nmt.translators.terms import TermRules

UNMET = TranslationWarning("unmet", "The translation lacks what it must contain: X.")


class Table(Translator):
    """Has three translations of everything, the first of which lost a number, and gives each a log-probability."""

    source_language, target_language = "en", "de"
    max_tokens, max_n_best = 100, 64

    def __init__(self, settings: SearchSettings, tags: Sequence[str] = (), can_score: bool = True):
        self.settings, self.tags, self.can_score = settings, tags, can_score
        self.asked: list[Any] = []

    def with_settings(self, **changes: Any) -> "Table":
        return Table(change_settings(self.settings, changes), self.tags, self.can_score)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def translate_batch(self, texts: Sequence[str], *, n_best: int = 1, attention: bool = False) -> list[Translation]:
        self.asked.append((list(texts), n_best))
        found = [Hypothesis("a", -1.0, -2.0), Hypothesis("b 10", -1.5, -3.0), Hypothesis("c 10", -2.0, -4.0)]
        lost = TranslationWarning("lost_number", "Numbers missing in the translation: 10.")
        return [Translation(text, found[:n_best], warnings=(lost, UNMET)) for text in texts]

    def score(self, pairs: Any) -> Iterator[ScoredTranslation]:
        if not self.can_score:
            return super().score(pairs)
        pairs = list(pairs)
        self.asked.append(pairs)
        log_probs = {"a": [-4.0, -3.0], "b 10": [-0.5, -0.5, -0.5], "c 10": [-1.5, 0.0]}
        return iter([ScoredTranslation(*pair, ["t"] * len(log_probs[pair[1]]), log_probs[pair[1]]) for pair in pairs])


def make(weight: float = 0.5, tags: Sequence[str] = (), **settings: Any) -> RerankingTranslator:
    return RerankingTranslator(
        Table(SearchSettings(beam_size=3, **settings), tags), Table(SearchSettings(beam_size=1)), weight
    )


def test_the_score_is_the_weighted_sum_of_both_scores():
    found = make(0.25, length_penalty=1.0).translate_batch(["10 x"], n_best=3)[0]
    # The second score is the log-probability divided by the penalty (5 + tokens) / 6.
    expected = {
        "a": 0.75 * -1.0 + 0.25 * -7.0 / (7 / 6),
        "b 10": 0.75 * -1.5 + 0.25 * -1.5 / (8 / 6),
        "c 10": 0.75 * -2.0 + 0.25 * -1.5 / (7 / 6),
    }
    assert [one.text for one in found.hypotheses] == sorted(expected, key=lambda text: -expected[text])
    assert [one.score for one in found.hypotheses] == pytest.approx(sorted(expected.values(), reverse=True))
    assert found.best == Hypothesis("b 10", pytest.approx(expected["b 10"]), -3.0)
    # Warnings are those of the new best translation; what only the first model knows about is kept.
    assert list(found.warnings) == [UNMET]


@pytest.mark.parametrize(("weight", "best"), [(0.0, "a"), (1.0, "b 10")])
def test_weights_of_0_and_1_are_one_model_alone(weight, best):
    assert make(weight).translate(["10"]) == [best]


def test_the_whole_beam_is_ordered_however_many_translations_are_returned():
    translator = make()
    assert [len(translator.translate_batch(["x"], n_best=n)[0].hypotheses) for n in (1, 2, 3)] == [1, 2, 3]
    assert [n_best for _, n_best in translator.first.asked] == [3, 3, 3]
    with pytest.raises(UserError, match=r"decoding.beam_size: 4 translations per line .* the 3 of the beam"):
        translator.translate_batch(["x"], n_best=4)
    assert translator.with_settings(beam_size=4).max_n_best == 4


def test_what_is_demanded_of_translations_is_up_to_the_first_model():
    translator = make()
    first = translator.first
    first.check_demands = lambda demands: first.asked.append(("check", demands))
    first.list_alternatives = lambda texts, prefixes, n: [(texts, prefixes, n)]
    translator.check_demands([Demand("a")])
    assert first.asked == [("check", [Demand("a")])]
    assert translator.list_alternatives(["x"], ["a"], n=2) == [(["x"], ["a"], 2)]


def test_the_second_model_reads_no_tag_that_it_does_not_know():
    translator = make(tags=["<de>"])
    translator.translate_batch(["<de> x"])
    assert {source for source, _ in translator.second.asked[-1]} == {"x"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mbr": "chrf"}, "decoding.mbr: --rerank orders the hypotheses of a beam search by two models"),
        ({"temperature": 1.0, "beam_size": 1}, "decoding.temperature: --rerank orders"),
        ({"beam_size": 1}, "--rerank has nothing to order, because decoding.beam_size is 1. Expected 2 or more"),
    ],
)
def test_settings_that_choose_in_another_way_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        make().with_settings(**settings)


def test_a_second_model_that_cannot_score_these_translations_is_refused():
    first, other = Table(SearchSettings()), Table(SearchSettings(), can_score=False)
    with pytest.raises(UserError, match="An export translates, but does not score given translations"):
        RerankingTranslator(first, other)
    other = Table(SearchSettings())
    first.terms, other.terms = (TermRules(Placeholders(kinds, 2)) for kinds in (["url", "term"], ["url"]))
    with pytest.raises(UserError, match=r"placeholders such as <term1>, which the second one would score as plain"):
        RerankingTranslator(first, other)
    other.target_language = "fr"
    with pytest.raises(UserError, match="the second model must translate into the same language, de; found fr"):
        RerankingTranslator(first, other)
    with pytest.raises(UserError, match=r"--rerank-weight has no effect without --rerank"):
        open_translator("nowhere", rerank_weight=0.2)


def test_predict_cuts_long_texts_as_without_reranking():
    cutter = TextCutter(make(), Limits())
    [cut], tokens = asyncio.run(cutter.cut(["x " * 250], Options(SearchSettings()), client=""))
    assert tokens == [len(part.split()) for part in cut.parts] and sum(tokens) == 250 and max(tokens) <= 100


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_precision_applies_to_both_models(model_folder: Any, tmp_path: Path, precision: str) -> None:
    model_folder.save(tmp_path / "model")
    translator = open_translator(tmp_path / "model", rerank=tmp_path / "model", precision=precision)
    assert isinstance(translator, RerankingTranslator)
    assert (translator.first.settings.precision, translator.second.settings.precision) == (precision, precision)
