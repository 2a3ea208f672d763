import importlib
from dataclasses import replace

import pytest

from nmt.config.schema import SearchSettings
from nmt.errors import UserError
from nmt.evaluation.calibration import Bin
from nmt.evaluation.evaluate import evaluate, report
from nmt.translators.hypothesis import Hypothesis, Translation
from nmt.translators.protocol import Translator


class Echo(Translator):
    """Gives back its input; notes how many texts it was asked for."""

    source_language, version, max_n_best, settings = "en", 1, 1, SearchSettings()

    def __init__(self, target_language):
        self.target_language, self.asked = target_language, 0

    def with_settings(self, **changes):
        return self

    def count_tokens(self, texts):
        return [len(text) for text in texts]

    def translate_batch(self, texts, *, n_best=1, attention=False):
        self.asked += len(texts)
        return [Translation(text, [Hypothesis(text, score=0.0, log_prob=0.0)]) for text in texts]


@pytest.fixture
def files(tmp_path):
    for name in ("source", "reference"):
        (tmp_path / name).write_text("一个男人在雪地里跑步。\n两只狗在公园里玩耍。\n", encoding="utf-8")
    return tmp_path / "source", tmp_path / "reference"


@pytest.mark.parametrize("language", ["zho_Hans", "cmn", "zh-TW"])
def test_all_forms_of_a_code_choose_the_same_tokenizer_without_a_warning(files, language):
    warnings = []
    scores = evaluate(Echo(language), *files, warn=warnings.append).scores
    assert "|tok:zh|" in scores["bleu"].signature and warnings == []


def test_the_record_has_every_setting_of_the_search(files):
    record = evaluate(Echo("zh"), *files).as_record()
    assert record["decoding"] == SearchSettings(split_sentences="never").model_dump()
    assert {"coverage_penalty", "pruning_threshold"} <= record["decoding"].keys()


def test_confidence_is_compared_with_chrf(files):
    class Confident(Echo):
        def translate_batch(self, texts, *, n_best=1, attention=False):
            found = super().translate_batch(texts)
            return [replace(one, hypotheses=[replace(one.best, confidence=0.9)]) for one in found]

    found = evaluate(Confident("zh"), *files)
    assert found.reliability.bins == [Bin(0.9, 2, 0.9, 1.0)]
    assert found.as_record()["reliability"]["error"] == pytest.approx(0.1)
    assert "0.9 to 1.0          2   0.90        1.00\ncalibration error 0.100\n" in report(found, as_json=False)
    assert "reliability" not in evaluate(Echo("zh"), *files).as_record()


def test_an_unknown_code_is_warned_about_once_before_the_work(files):
    warnings, echo = [], Echo("chinese")
    evaluate(echo, *files, warn=lambda message: warnings.append((echo.asked, message)))
    ((asked, message),) = warnings
    assert asked == 0 and "'chinese' is not a language code" in message and "tokenizer zh" in message


def test_mecab_is_asked_for_before_the_work(files, monkeypatch):
    monkeypatch.setattr(importlib.import_module("sacrebleu.tokenizers.tokenizer_ja_mecab"), "MeCab", None)
    echo = Echo("jpn")
    with pytest.raises(UserError, match=r"BLEU in 'jpn' needs the tokenizer MeCab.*sacrebleu\[ja\]"):
        evaluate(echo, *files)
    assert echo.asked == 0


def test_lines_are_not_split_into_sentences(tmp_path):
    (tmp_path / "text").write_text("The dog runs. The man rests.\n", encoding="utf-8")
    echo = Echo("en")
    evaluate(echo, tmp_path / "text", tmp_path / "text")
    assert echo.asked == 1
