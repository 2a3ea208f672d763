"""Confidence is fitted to the chrF of translations: against formulas, known curves and stored models."""

import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from sacrebleu.metrics import CHRF

from nmt.config.schema import SearchSettings
from nmt.data.placeholders import Placeholders
from nmt.errors import UserError
from nmt.evaluation import calibration
from nmt.evaluation.calibration import (
    Bin,
    calibrate,
    fit_confidence,
    measure_reliability,
    pool_adjacent_violators,
    read_text,
    score_sentences,
)
from nmt.model_folder import CONFIDENCE, ModelFolder, load_confidence, load_members, save_ensemble
from nmt.translators.confidence import Confidence
from nmt.translators.hypothesis import Hypothesis, PartConfidence, Translation, join_translations
from nmt.translators.protocol import Translator, describe
from nmt.translators.sentences import SplitText
from nmt.translators.terms import TermRules

MODEL = Path(__file__).parents[1] / "format_1" / "model"
# The expected chrF is 0.2 up to a sum of -3, 0.8 from -1 on, and a straight line between them.
CURVE = Confidence(0.0, [2.0, -1.0], [-3.0, -1.0], [0.2, 0.8], 100)


def test_isotonic_regression_equals_its_min_max_formula():
    random = np.random.default_rng(1)
    for size in (1, 2, 7, 30):
        values, weights = random.normal(size=size).round(1), random.integers(1, 5, size).astype(float)

        def mean(start, end, values=values, weights=weights):
            return np.average(values[start : end + 1], weights=weights[start : end + 1])

        expected = [max(min(mean(start, end) for end in range(n, size)) for start in range(n + 1)) for n in range(size)]
        np.testing.assert_allclose(pool_adjacent_violators(values, weights), expected)


def test_the_estimate_follows_the_curve():
    # 9 + 1 characters each: the length is the usual one, and the sum is 2 x the log-probability per character.
    def estimate(log_prob, **facts):
        return CURVE.estimate("a" * 9, replace(Hypothesis("b" * 9, 0.0, log_prob), **facts))

    assert estimate(-10.0) == pytest.approx(0.5) and estimate(-7.5) == pytest.approx(0.65)
    assert (estimate(-40.0), estimate(-1.0)) == (0.2, 0.8)
    assert estimate(-1.0, is_finished=False) == 0.2
    # Another length costs the logarithm of its ratio.
    assert CURVE.estimate("a" * 4, Hypothesis("b" * 9, 0.0, -5.0)) == pytest.approx(0.8 - 0.3 * math.log(2))


def make_translations(size, seed=1):
    """Translations whose chrF, on average, is 1 + their log-probability per character, less for unusual lengths."""
    random = np.random.default_rng(seed)
    per_character, lengths = -random.uniform(0.1, 0.8, size), random.integers(18, 23, size)
    translations = [
        Translation("a" * 19, [Hypothesis("b" * int(length), 0.0, float(one * (length + 1)))])
        for one, length in zip(per_character, lengths, strict=True)
    ]
    distances = np.abs(np.log((lengths + 1) / 20) - np.median(np.log((lengths + 1) / 20)))
    return translations, np.clip(1 + per_character - 0.5 * distances + random.normal(0, 0.05, size), 0, 1)


def test_the_fit_finds_the_curve_that_the_scores_were_made_with():
    found = fit_confidence(*make_translations(1000))
    assert found.weights == pytest.approx([1.0, -0.5], abs=0.06)
    assert all(np.diff(found.values) >= 0) and all(np.diff(found.sums) > 0)
    translations, chrf = make_translations(500, seed=2)
    confidences = [found.estimate(one.source, one.best) for one in translations]
    reliability = measure_reliability(confidences, chrf)
    assert reliability.error < 0.02 and reliability.correlation > 0.95


def test_what_is_more_probable_is_never_trusted_less():
    translations, chrf = make_translations(200)
    assert fit_confidence(translations, 1 - chrf).weights[0] == 0.0
    constant = fit_confidence([translations[0]] * 100, np.full(100, 0.7))
    assert (constant.weights, constant.values) == ([0.0, 0.0], pytest.approx([0.7]))


def test_the_reliability_of_known_numbers():
    found = measure_reliability([0.05, 0.12, 0.18, 1.0], np.array([0.1, 0.3, 0.5, 0.9]))
    assert found.bins == [Bin(0.0, 1, 0.05, 0.1), Bin(0.1, 2, pytest.approx(0.15), 0.4), Bin(0.9, 1, 1.0, 0.9)]
    assert found.error == pytest.approx((0.05 + 2 * 0.25 + 0.1) / 4)
    assert found.as_table().splitlines()[2] == "0.1 to 0.2          2   0.15        0.40"
    assert measure_reliability([0.5, 0.5], np.array([0.1, 0.2])).correlation is None


def test_the_best_of_several_references_counts():
    [found] = score_sentences(["a cat sat"], ["a dog sat"], ["the cat sat"])
    assert found == pytest.approx(
        max(CHRF().sentence_score("a cat sat", [one]).score for one in ("a dog sat", "the cat sat")) / 100
    )


def test_a_text_has_the_mean_confidence_of_its_parts_by_their_length():
    parts = [
        Translation(text, [Hypothesis(target, 0.0, 0.0, confidence=confidence)])
        for text, target, confidence in (("a", "xxx", 0.9), ("b", "y", 0.1))
    ]
    found = join_translations(SplitText(["a", "b"], ["", " ", "\n"]), parts)
    assert found.confidence == pytest.approx((3 * 0.9 + 0.1) / 4)
    assert found.best.part_confidences == (PartConfidence(0, 3, 0.9), PartConfidence(4, 5, 0.1))
    assert join_translations(SplitText([], [" "]), []).confidence is None
    assert describe(" ", [Hypothesis("", 0.0, 0.0)], confidence=CURVE).confidence is None
    assert describe("a" * 9, [Hypothesis("b" * 9, 0.0, -10.0)], confidence=CURVE).confidence == pytest.approx(0.5)


def test_a_model_that_training_replaces_keeps_no_confidence_of_the_old_one(tmp_path, monkeypatch):
    model = shutil.copytree(MODEL, tmp_path / "model")

    def load(*_, **__):
        ModelFolder.load(model).save(model)  # as the next best model of a run
        return Dev()

    monkeypatch.setattr(calibration.ModelTranslator, "load", load)
    with pytest.raises(UserError, match=r"model has other weights now, .* Run nmt calibrate again\."):
        calibrate(model, ["<de> aa"] * 150, ["bb"] * 150)
    assert not (model / CONFIDENCE).exists()


@pytest.fixture
def ensemble(tmp_path) -> Path:
    save_ensemble(tmp_path / "both", [MODEL, MODEL])
    return tmp_path / "both"


def test_an_ensemble_whose_member_is_replaced_keeps_no_confidence_of_the_old_one(ensemble, monkeypatch):
    def load(*_, **__):
        ModelFolder.load(ensemble / "2").save(ensemble / "2")
        return Dev()

    monkeypatch.setattr(calibration.ModelTranslator, "load", load)
    with pytest.raises(UserError, match=r"both has other weights now, .* Run nmt calibrate again\."):
        calibrate(ensemble, ["<de> aa"] * 150, ["bb"] * 150)
    assert not (ensemble / CONFIDENCE).exists()


def test_the_confidence_of_an_ensemble_is_stored_beside_its_members(ensemble, monkeypatch):
    monkeypatch.setattr(calibration.ModelTranslator, "load", lambda *_, **__: Dev())
    found = calibrate(ensemble, ["<de> aa"] * 150, ["bb"] * 150)
    assert load_confidence(ensemble) == asdict(found)
    assert [member.confidence for member in load_members(ensemble)] == [None, None]


def test_an_ensemble_is_fitted_on_the_dev_text_of_its_first_member(ensemble, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "dev.a").write_text("one two\n")
    (tmp_path / "corpus" / "dev.b").write_text("two one\n")
    assert read_text(ensemble, None, None) == (["one two"], ["two one"])


class Dev:
    """Takes the place of a model: translates the dev text of `make_translations`."""

    tags, terms = ("<de>",), TermRules()

    def without_terms(self):
        return self

    def translate_texts(self, texts, *, split):
        assert not split
        return make_translations(len(texts))[0]


class Copying(Translator):
    """Writes b for a, and ? for the letters that it is less sure of; copies symbols."""

    source_language, target_language, tags, settings = None, None, ("<de>",), SearchSettings()
    max_n_best, max_tokens = 1, 1000
    terms = TermRules(Placeholders(["url"], 2, kept=tags))

    def with_settings(self, **changes):
        return self

    def count_tokens(self, texts):
        return [1 for _ in texts]

    def translate_batch(self, texts, *, n_best=1, attention=False):
        assert not any("https" in text for text in texts)
        found = [text.removeprefix("<de> ").replace("a", "b").replace("c", "?") for text in texts]
        return [
            self._describe(text, [Hypothesis(one, 0.0, -(0.1 + 0.1 * one.count("?")) * (len(one) + 1))])
            for text, one in zip(texts, found, strict=True)
        ]


def test_confidence_is_fitted_on_the_text_that_it_is_estimated_from(tmp_path, monkeypatch):
    # Half of the lines have an address, which the model reads as a symbol that is much shorter.
    translator = Copying()
    monkeypatch.setattr(calibration.ModelTranslator, "load", lambda *_, **__: translator)
    rests = ["", " https://www.example.com/a/very/long/address/of/a/page.html"]
    sources = [f"<de> {'a' * (20 - n % 10)}{'c' * (n % 10)}{rests[n % 20 // 10]}" for n in range(200)]
    references = [source.removeprefix("<de> ").replace("a", "b").replace("c", "b") for source in sources]
    translator.fitted_confidence = calibrate(shutil.copytree(MODEL, tmp_path / "model"), sources, references)
    found = translator.translate_texts(sources, split=False)
    assert found[19].text == "b" * 11 + "?" * 9 + rests[1]
    scores = score_sentences([one.text for one in found], references)
    assert measure_reliability([one.confidence for one in found], scores).error < 0.001


def test_the_fitted_numbers_are_stored_beside_the_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration.ModelTranslator, "load", lambda *_, **__: Dev())
    model = shutil.copytree(MODEL, tmp_path / "model")
    weights = (model / "weights.h5").read_bytes()
    found = calibrate(model, ["<de> aa"] * 150 + [""], ["bb"] * 151)
    assert found.sentences == 150 and (model / "weights.h5").read_bytes() == weights
    folder = ModelFolder.load(model)
    assert Confidence.from_record(folder.confidence, model) == found and folder.confidence == asdict(found)
    folder.save(tmp_path / "copy")
    assert ModelFolder.load(tmp_path / "copy").confidence == folder.confidence
    assert ModelFolder.load(MODEL).confidence is None
    with pytest.raises(UserError, match="Confidence needs 100 dev sentences or more, found 99"):
        calibrate(model, ["<de> aa"] * 99, ["bb"] * 99)
    (model / CONFIDENCE).write_text('{"weights": [1]}', encoding="utf-8")
    with pytest.raises(UserError, match=r"The confidence stored in .* is damaged: .* then run nmt calibrate"):
        Confidence.from_record(ModelFolder.load(model).confidence, model)
    (model / CONFIDENCE).write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"confidence.json is damaged: .* Remove it, then run nmt calibrate"):
        ModelFolder.load(model)
