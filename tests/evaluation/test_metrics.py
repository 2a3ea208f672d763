import gzip
import importlib
import json
import logging
import random
import subprocess
import sys
from pathlib import Path

import pytest
import sacrebleu
from sacrebleu.metrics import BLEU, CHRF, TER

from nmt.errors import UserError
from nmt.evaluation import metrics

REPOSITORY = Path(__file__).parents[2]
MULTI30K_TEST = REPOSITORY.parent / "shared/data/multi30k/test_2016_flickr.de.gz"

REFERENCES = [
    f"{who} {what}, während {other} zusieht." + tail
    for who in ("Ein Mann", "Eine Frau mit Hut", 'Das "kleine" Kind')
    for what in ("läuft durch den Schnee", "isst 1,5 kg Äpfel & Birnen", "sitzt auf einer U-Bahn-Treppe")
    for other in ("niemand", "ein brauner Hund")
    for tail in ("", " Es ist Ende Juli...")
]


def with_slips(lines: list[str]) -> list[str]:
    """Drops, moves and cases words, so that all three metrics find something, and not the same in every line."""
    chance = random.Random(7)

    def slip(line: str) -> str:
        words = [word.lower() if chance.random() < 0.1 else word for word in line.split() if chance.random() > 0.15]
        words.insert(0, words.pop(chance.randrange(len(words))))
        return " ".join(words)

    return [slip(line) for line in lines]


HYPOTHESES = with_slips(REFERENCES)


def command_line(folder: Path, hypotheses: list[str], references: list[str], *arguments: str) -> dict[str, dict]:
    """The records of sacreBLEU's own command line, in its own process, by metric."""
    for name, lines in (("hypotheses", hypotheses), ("references", references)):
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "sacrebleu",
        "references",
        "-i",
        "hypotheses",
        "--confidence",
        "-w",
        "10",
        *arguments,
    ]
    printed = json.loads(subprocess.run(command, cwd=folder, check=True, capture_output=True, encoding="utf-8").stdout)
    records = printed if isinstance(printed, list) else [printed]
    return {record["name"]: record for record in records}


def assert_same(ours: metrics.Score, theirs: dict) -> None:
    mean, half_width = theirs["confidence_mean"], theirs["confidence_var"]
    assert ours.signature == theirs["signature"]
    assert ours.score == pytest.approx(theirs["score"], abs=1e-9)
    assert ours.interval == pytest.approx((mean - half_width, mean + half_width), abs=1e-5)


def test_scores_intervals_and_signatures_are_those_of_the_sacrebleu_command_line(tmp_path):
    theirs = command_line(tmp_path, HYPOTHESES, REFERENCES, "-m", "bleu", "chrf", "ter")
    ours = metrics.score(HYPOTHESES, REFERENCES, target_language="de")
    assert list(ours) == ["bleu", "chrf", "ter"]
    assert_same(ours["bleu"], theirs["BLEU"])
    assert_same(ours["chrf"], theirs["chrF2"])
    assert_same(ours["ter"], theirs["TER"])
    assert 5 < ours["bleu"].score < 95 and ours["bleu"].interval[0] < ours["bleu"].score < ours["bleu"].interval[1]


def test_chinese_is_scored_as_the_command_line_does_with_its_zh_tokenizer(tmp_path):
    references = ["一个男人在雪地里跑步。", "两只狗在公园里玩耍。", "那个女人正在看书。"]
    hypotheses = ["一个男人在雪中跑步。", "两只狗在花园里玩耍。", "女人在看书。"]
    theirs = command_line(tmp_path, hypotheses, references, "-m", "bleu", "-tok", "zh")
    for language in ("zh", "zh-TW", "zh_CN", "ZH", "zho", "chi", "cmn", "yue", "zho_Hans", "zh-Hant-HK"):
        assert_same(metrics.score(hypotheses, references, target_language=language)["bleu"], theirs["BLEU"])
    assert "tok:zh" in theirs["BLEU"]["signature"]


@pytest.mark.parametrize("language", ["de", "en-GB", "xx", None])
def test_other_languages_are_divided_by_13a(language):
    scores = metrics.score(HYPOTHESES, REFERENCES, target_language=language, confidence=False)
    assert "|tok:13a|" in scores["bleu"].signature


@pytest.mark.parametrize(
    ("language", "extra"), [("ja", "ja"), ("jpn", "ja"), ("ja-JP", "ja"), ("jp", "ja"), ("ko", "ko"), ("kor", "ko")]
)
def test_a_missing_tokenizer_says_what_to_install(language, extra, monkeypatch):
    monkeypatch.setattr(importlib.import_module(f"sacrebleu.tokenizers.tokenizer_{extra}_mecab"), "MeCab", None)
    wanted = rf"BLEU in '{language}' needs the tokenizer MeCab.*pip install 'sacrebleu\[{extra}\]'"
    with pytest.raises(UserError, match=wanted):
        metrics.score(["犬"], ["犬"], target_language=language)
    with pytest.raises(UserError, match=wanted):
        metrics.bleu(["犬"], ["犬"], target_language=language)
    with pytest.raises(UserError, match=wanted):
        metrics.check_languages("en", language)


def test_an_unknown_language_is_warned_about_with_the_tokenizer_in_its_place():
    assert metrics.check_languages("eng_Latn", "zho_Hans") == metrics.check_languages(None, None) == []
    (warning,) = metrics.check_languages("en", "chinese")
    assert warning.startswith("The target language 'chinese' is not a language code")
    assert warning.endswith("it was taken for 'zh' (Chinese). BLEU uses the tokenizer zh.")
    scores = metrics.score(["一个男人。"], ["一个男人。"], target_language="chinese", confidence=False)
    assert "|tok:zh|" in scores["bleu"].signature


def test_japanese_is_divided_by_mecab():
    pytest.importorskip("ipadic", reason="sacrebleu[ja] is not installed")
    scores = metrics.score(["犬が走る。"], ["犬が走る。"], target_language="ja", confidence=False)
    assert "|tok:ja-mecab-" in scores["bleu"].signature


def test_a_perfect_translation_scores_100_and_needs_no_edits():
    scores = metrics.score(REFERENCES, REFERENCES, target_language="de")
    assert scores["bleu"].score == pytest.approx(100) and scores["bleu"].interval == pytest.approx((100, 100))
    assert scores["chrf"].score == pytest.approx(100) and scores["chrf"].interval == pytest.approx((100, 100))
    assert scores["ter"].score == 0 and scores["ter"].interval == (0, 0)


def test_scores_match_arithmetic_on_paper():
    # 4 of 5 words, 3 of 4 pairs, 2 of 3 triples and 1 of 2 quadruples are right: (4/5 · 3/4 · 2/3 · 1/2) ** (1/4).
    scores = metrics.score(["a b c d x"], ["a b c d e"], target_language="en", confidence=False)
    assert scores["bleu"].score == pytest.approx(100 * 0.2**0.25)
    assert scores["ter"].score == pytest.approx(100 / 5)  # one edit, five reference words


def test_bleu_alone_is_the_bleu_of_score():
    expected = metrics.score(HYPOTHESES, REFERENCES, target_language="de", confidence=False)["bleu"].score
    assert metrics.bleu(HYPOTHESES, REFERENCES, target_language="de") == expected


def test_several_references_are_scored_as_sacrebleu_does():
    second = with_slips(REFERENCES[::-1])[::-1]
    ours = metrics.score(HYPOTHESES, REFERENCES, second, target_language="de", confidence=False)
    for name, theirs in (("bleu", BLEU(force=True)), ("chrf", CHRF()), ("ter", TER())):
        expected = theirs.corpus_score(HYPOTHESES, [REFERENCES, second])
        assert ours[name].score == pytest.approx(expected.score, abs=1e-9)
        assert ours[name].signature.startswith("nrefs:2|case:")
    alone = metrics.score(HYPOTHESES, REFERENCES, target_language="de", confidence=False)
    assert ours["bleu"].score > alone["bleu"].score
    tokenized = metrics.score_tokenized(second, REFERENCES, second, target_language="de", confidence=False)
    assert tokenized.score == pytest.approx(100) and tokenized.signature.startswith("nrefs:2|")


def test_intervals_stay_within_the_range_of_the_metric():
    # A quarter of the resamples has no error, a quarter 10 errors for each word, the others 10 for 11 words. So the
    # middle 95 % are 1,000 wide, and around the mean of about 295 % the interval would begin at -205 %.
    text = "eins zwei drei vier fünf sechs sieben acht neun zehn"
    low, high = metrics.score([text, text], [text, "null"], target_language="de")["ter"].interval
    assert low == 0 and high == pytest.approx(795, abs=30)
    # More than a third of the resamples are without the bad sentence, at 100.
    low, high = metrics.score([text] * 9 + ["x"], [text] * 9 + [f"{text} {text}"], target_language="de")[
        "bleu"
    ].interval
    assert low < 90 and high == 100


def test_case_matters_only_in_the_cased_score():
    shouted = [line.upper() for line in REFERENCES]
    assert metrics.bleu(shouted, REFERENCES, target_language="de") < 50
    tokenized = metrics.score_tokenized(shouted, REFERENCES, target_language="de", confidence=False)
    assert tokenized.score == pytest.approx(100)


def test_without_confidence_there_is_no_interval_and_no_bootstrap_in_the_signature():
    scores = metrics.score(HYPOTHESES, REFERENCES, target_language="de", confidence=False)
    assert all(score.interval is None and "bs:" not in score.signature for score in scores.values())


def test_resamples_that_nothing_matches_have_a_share_in_the_interval():
    low, high = metrics.score(["x", "ein Hund"], ["abc def", "ein Hund"], target_language="de")["chrf"].interval
    # A quarter of the resamples is one sentence twice, another the other: 100 wide, around a mean above 50.
    assert 0 < low < 10 and high == 100


def test_tokenized_score_is_that_of_the_command_line_on_the_tokenized_files(tmp_path):
    hypotheses, references = (metrics.tokenize_lowercase(lines, "de") for lines in (HYPOTHESES, REFERENCES))
    theirs = command_line(tmp_path, hypotheses, references, "-m", "bleu", "--force", "-tok", "none", "-lc")
    ours = metrics.score_tokenized(HYPOTHESES, REFERENCES, target_language="de")
    assert_same(ours, theirs["BLEU"])
    assert "|case:lc|" in ours.signature and "|tok:none|" in ours.signature


def test_tok_lc_lowers_then_normalises_then_tokenises_and_escapes():
    # “…” become ", which Moses escapes; an apostrophe stays with the word before it in French, after it in English.
    assert metrics.tokenize_lowercase(["“L'Été”  & l’hiver"], "fr") == ["&quot; l&apos; été &quot; &amp; l&apos; hiver"]
    assert metrics.tokenize_lowercase(["The Dog's A|B"], "en-GB") == ["the dog &apos;s a &#124; b"]
    # Lower-cased first: before a small letter Moses takes the full stop for an abbreviation's.
    assert metrics.tokenize_lowercase(["Ein Hund. Eine Katze."], "de") == ["ein hund. eine katze ."]
    assert metrics.tokenize_lowercase([""], "de") == [""]


def test_tok_lc_of_the_multi30k_reference_has_its_published_number_of_tokens():
    if not MULTI30K_TEST.exists():
        pytest.skip(f"{MULTI30K_TEST} is missing")
    lines = gzip.decompress(MULTI30K_TEST.read_bytes()).decode("utf-8").splitlines()
    assert len(lines) == 1_000
    assert sum(len(line.split(" ")) for line in metrics.tokenize_lowercase(lines, "de")) == 12_103


@pytest.mark.parametrize("scorer", [metrics.score, metrics.bleu, metrics.score_tokenized])
def test_unequal_or_no_lines_are_refused(scorer):
    with pytest.raises(UserError, match=r"needs a reference, found 2 hypotheses and 3 references"):
        scorer(["a", "b"], ["a", "b", "c"], target_language="en")
    with pytest.raises(UserError, match=r"nothing to score: found 0 hypotheses"):
        scorer([], [], target_language="en")


def test_a_hundred_lines_that_end_in_a_free_stop_bring_no_warning(caplog, capfd):
    spaced = ["ein Hund läuft ."] * 100
    with caplog.at_level(logging.WARNING):
        metrics.score(spaced, spaced, target_language="de")
        metrics.score_tokenized(spaced, spaced, target_language="de")
    assert caplog.records == [] and capfd.readouterr() == ("", "")


def test_a_record_is_plain_json_with_three_fields():
    scores = metrics.score(HYPOTHESES, REFERENCES, target_language="de")
    for score in scores.values():
        record = json.loads(json.dumps(score.as_record()))
        assert record == {"score": score.score, "signature": score.signature, "interval": list(score.interval)}
        assert all(type(bound) is float for bound in score.interval)
    assert metrics.Score(1.0, "tok:13a", None).as_record() == {"score": 1.0, "signature": "tok:13a", "interval": None}


def test_sacremoses_waits_until_it_is_wanted():
    program = "import sys, nmt.evaluation.metrics; sys.exit('sacremoses' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True)


def test_sentence_scores_are_those_of_sacrebleu():
    pairs = [*zip(HYPOTHESES[:4], REFERENCES, strict=False), ("Ein Hund", "Ein Hund"), ("Hund ein", "Ein Hund")]
    for name, expected in (("bleu", sacrebleu.sentence_bleu), ("chrf", sacrebleu.sentence_chrf)):
        measure = metrics.make_sentence_metric(name, "de")
        for hypothesis, reference in pairs:
            assert measure(hypothesis, reference) == expected(hypothesis, [reference]).score
