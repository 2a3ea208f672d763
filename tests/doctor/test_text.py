import importlib
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from doctor_corpus import PAIRS

from nmt.config.schema import CorpusFiles
from nmt.data.corpus import ParallelCorpus
from nmt.doctor.examine import examine, read_tests
from nmt.doctor.text import (
    MOJIBAKE,
    examine_alignment,
    examine_corpora,
    examine_files,
    examine_held_out,
    examine_language_codes,
    examine_languages,
    examine_overlap,
    examine_pairs,
    examine_promises,
    open_texts,
    select_evenly,
)


@pytest.fixture
def opened(tmp_path, write, make_config):
    """Writes and opens a training text; returns its configuration, files and pairs."""

    def made(pairs):
        files = write("train", pairs)
        config = make_config(files, files)
        cache = tmp_path / "cache"
        corpus = ParallelCorpus.open([(files.source, files.target)], cache)
        return config.data, open_texts(config.data, cache), corpus

    return made


def by_check(findings):
    return {finding.check: finding for finding in findings}


def test_clean_text_is_all_ok(opened):
    _, texts, corpus = opened(PAIRS)
    found = [*examine_files(texts), *examine_pairs(corpus), *examine_overlap(corpus, {"dev": (["New."], ["Neu."])})]
    assert {finding.verdict for finding in found} == {"ok"}


@pytest.mark.parametrize(
    ("check", "bad"),
    [
        ("carriage returns", "two\rlines"),
        ("unusual line breaks", "one\u2028two"),
        ("unusual line breaks", "one\u0085two"),
        ("unusual line breaks", "one\ftwo"),
        ("control characters", "a NUL \0 here"),
        ("control characters", "an escape \x1b[0m"),
        ("replacement characters", "K\ufffdche"),
        ("mojibake", "Die KÃ¼che ist groÃ\x9f."),
        ("HTML tags", '<p class="x">Die Küche</p>'),
        ("HTML entities", "Die K&uuml;che"),
        ("tabs", "The kitchen\tDie Küche"),
    ],
)
def test_unusual_bytes_are_counted_and_the_first_is_named(opened, check, bad):
    pairs = list(PAIRS)
    for row in (6, 40):
        pairs[row] = (pairs[row][0], bad)
    _, texts, _ = opened(pairs)
    found = by_check(examine_files(texts))
    assert found.pop(check).found.startswith(f"2 lines, first {texts[1].path}:7 (")
    assert {finding.verdict for finding in found.values()} == {"ok"}


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
@pytest.mark.parametrize(
    "text",
    ["Größe", "él y ella", "it’s", "“so”", "Привет", "Ελλάδα", "日本語", "한국어", "हिन्दी", "łódź", "שלום", "год"],
)
def test_text_that_was_encoded_twice_is_mojibake(text, encoding):
    try:
        twice = text.encode().decode(encoding).encode()
    except UnicodeDecodeError:  # Windows-1252 has no character for some bytes; programs put Latin-1's there
        twice = text.encode().decode("latin-1").encode()
    assert re.search(MOJIBAKE, twice)
    assert not re.search(MOJIBAKE, text.encode())


@pytest.mark.parametrize(
    "text",
    [
        "voilà\u00a0»",
        "«\u00a0À\u00a0»",
        "São João",
        "ÄÖÜ, ß",
        "Ângela",
        "à\u00a0«\u00a0Œuvre\u00a0»",
        "naïve café – très",
    ],
)
def test_accents_alone_are_not_mojibake(text):
    assert not re.search(MOJIBAKE, text.encode())


def test_a_few_tags_in_a_large_corpus_are_only_noted(opened):
    _, texts, _ = opened([*PAIRS * 20, ("A <b>bold</b> word.", "Ein Wort.")])
    found = by_check(examine_files(texts))
    assert (found["HTML tags"].verdict, found["HTML entities"].verdict) == ("note", "ok")
    assert found["HTML tags"].found.startswith(f"1 line, first {texts[0].path}:1201 (")


def shifted(opened, pairs, *, lost_sources=(), lost_targets=()):
    """Returns the finding for pairs with some lines lost, and the target file."""
    sources = [source for n, (source, _) in enumerate(pairs) if n not in lost_sources]
    targets = [target for n, (_, target) in enumerate(pairs) if n not in lost_targets]
    _, texts, _ = opened(list(zip(sources, targets, strict=False)))
    [finding] = examine_alignment([tuple(texts)])
    return finding, texts[1].path


def random_pairs(count):
    random = np.random.default_rng(1)
    numbers = [random.integers(0, len(PAIRS), random.integers(1, 5)) for _ in range(count)]
    return [tuple(" ".join(PAIRS[n][side] for n in row) for side in (0, 1)) for row in numbers]


def test_sides_that_are_shifted_by_a_line_are_found(opened):
    pairs = random_pairs(700)
    finding, path = shifted(opened, pairs)
    assert (finding.verdict, finding.found) == ("ok", "no sign of sides that are shifted by a line")
    finding, path = shifted(opened, pairs, lost_targets=[0])
    assert finding.verdict == "warning"
    assert re.match(
        rf"from about {path}:[1-5] on, 100% of the lines seem to have their source 1 line later", finding.found
    )
    finding, path = shifted(opened, pairs, lost_sources=[300, 301])
    place = re.match(rf"from about {path}:(\d+) on, 100% of .* their source 2 lines earlier", finding.found)
    assert place and abs(int(place[1]) - 300) < 10


@pytest.mark.parametrize(("count", "verdict"), [(80, "warning"), (39, "ok")])
def test_short_files_are_compared_as_a_whole_or_not_at_all(opened, count, verdict):
    finding, _ = shifted(opened, random_pairs(count + 1), lost_targets=[0])
    assert finding.verdict == verdict


def test_unrelated_sides_are_not_called_shifted(opened):
    pairs = random_pairs(900)
    finding, _ = shifted(opened, [(one[0], other[1]) for one, other in zip(pairs, pairs[::-1], strict=True)])
    assert finding.verdict == "ok"


def test_blank_lines_of_held_out_sets_are_counted():
    sets = {"dev": (["a", "b"], ["", " "]), "x.en": (["a", "", "c"], ["A", "B", "C"])}
    found = {name: (finding.verdict, finding.found) for name, finding in by_check(examine_held_out(sets)).items()}
    assert found == {
        "blank dev sources": ("ok", "none"),
        "blank dev references": ("warning", "2 of 2 lines, first line 1; no score can be computed from them"),
        "blank x.en sources": ("warning", "1 of 3 lines, first line 2"),
        "blank x.en references": ("ok", "none"),
    }


def test_windows_line_endings_are_ok(opened):
    _, texts, _ = opened([(f"{source}\r", f"{target}\r") for source, target in PAIRS])
    assert by_check(examine_files(texts))["carriage returns"].verdict == "ok"


def test_pairs_that_teach_nothing_are_counted(opened):
    same = ("The same.", "The same.")
    _, _, corpus = opened([*PAIRS, *PAIRS[:5], same, ("No translation.", "  ")])
    found = by_check(examine_pairs(corpus))
    assert found["blank sides"].found == "1 of 67 pairs; they are always dropped"
    assert found["identical sides"].found.startswith("1 of 66 pairs")
    assert found["duplicate pairs"].found.startswith("5 of 66 pairs")
    assert found["duplicate pairs"].verdict == "warning"


def test_a_corpus_of_identical_sides_is_a_warning(opened):
    _, _, corpus = opened([(source, source) for source, _ in PAIRS])
    assert by_check(examine_pairs(corpus))["identical sides"].verdict == "warning"


def test_held_out_sentences_in_the_training_text_are_found(opened):
    _, _, corpus = opened(PAIRS)
    tests = {
        "dev": (["Unseen.", PAIRS[3][0], PAIRS[4][0]], ["Ungesehen.", PAIRS[3][1], "Anders."]),
        "other": (["Unseen."], [PAIRS[0][1]]),
    }
    found = by_check(examine_overlap(corpus, tests))
    expected = "2 of 3 sources are in the training text, 1 with their translation, first line 2: "
    assert found["dev in training"].found == expected + PAIRS[3][0]
    assert found["other in training"].verdict == "ok"


def test_every_reference_of_a_test_set_is_checked(tmp_path, write, make_config, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = make_config(write("train", PAIRS), write("held", [("Unseen.", "Ungesehen.")]))
    texts = {"dev": [PAIRS[0][0], "New."], "right": [PAIRS[0][1], "Neu."], "wrong": ["Anders.", " "]}
    for name, lines in texts.items():
        Path(name).write_text("".join(f"{line}\n" for line in lines))
    references = [Path("right"), Path("wrong")]
    tests = read_tests([Path("dev")] * 2, references)
    assert list(tests) == ["dev with right", "dev with wrong"]
    found = by_check(itertools.takewhile(lambda one: one.check != "languages", examine(config, tests=tests)))
    assert ", 1 with their translation" in found["dev with right in training"].found
    assert ", 0 with their translation" in found["dev with wrong in training"].found
    assert found["blank dev with right references"].verdict == "ok"
    assert found["blank dev with wrong references"].found == "1 of 2 lines, first line 2"
    # A file named as the dev set does not hide it.
    tests = read_tests([Path("dev")], references[:1])
    found = by_check(itertools.takewhile(lambda one: one.check != "languages", examine(config, tests=tests)))
    assert (found["dev in training"].verdict, found["./dev in training"].verdict) == ("ok", "warning")


def test_languages_are_compared_and_swapped_sides_found(opened):
    pytest.importorskip("py3langid")
    data, _, corpus = opened(PAIRS)
    [right] = examine_languages(corpus, data)
    assert (right.verdict, right.found) == ("ok", "en and de, as configured")
    data, _, corpus = opened([(target, source) for source, target in PAIRS])
    [swapped] = examine_languages(corpus, data)
    assert swapped.found == "de and en, but en and de are configured; source and target may be swapped"
    [unknown] = examine_languages(corpus, data.model_copy(update={"target_language": "xx"}))
    assert (unknown.verdict, unknown.found) == ("note", "not checked; py3langid does not know xx, it found de and en")


@pytest.mark.parametrize(("source", "target"), [("eng_Latn", "deu"), ("en_GB", "ger"), ("english", "de-AT")])
def test_all_forms_of_a_language_code_are_compared(opened, source, target):
    pytest.importorskip("py3langid")
    data, _, corpus = opened(PAIRS)
    [finding] = examine_languages(
        corpus, data.model_copy(update={"source_language": source, "target_language": target})
    )
    assert (finding.verdict, finding.found) == ("ok", "en and de, as configured")


def codes(source, target):
    findings = examine_language_codes(source, target)
    return [(finding.check, finding.verdict, finding.found) for finding in findings]


def test_a_file_of_promises_is_read(tmp_path):
    path = tmp_path / "promises.yaml"
    assert examine_promises(path).verdict == "error"
    path.write_text("- {source: 5 mg, contains: 5 mg}\n- {source: a, not: b}\n")
    assert (examine_promises(path).verdict, examine_promises(path).found) == ("ok", f"2 in {path}")
    path.write_text("- {source: 5 mg, contain: 5 mg}\n")
    assert f"{path}:1: contain: unknown key" in examine_promises(path).found


def test_language_codes_are_shown_with_the_tokenizer():
    found = "zh-Hant-TW and pt-BR; BLEU uses the tokenizer 13a"
    assert codes("zho_Hant_TW", "por-br") == [("language codes", "ok", found)]


def test_unknown_language_codes_are_warned_about():
    (first, second) = codes("xx", "chinese")
    assert first[:2] == second[:2] == ("language codes", "warning")
    assert "The source language 'xx' is not a language code" in first[2]
    assert second[2].endswith("it was taken for 'zh' (Chinese). BLEU uses the tokenizer zh.")


def test_a_missing_mecab_is_an_error(monkeypatch):
    monkeypatch.setattr(importlib.import_module("sacrebleu.tokenizers.tokenizer_ja_mecab"), "MeCab", None)
    (scoring, warning) = codes("en", "jp")
    assert scoring[:2] == ("scoring", "error") and "pip install 'sacrebleu[ja]'" in scoring[2]
    assert warning[:2] == ("language codes", "warning")


@pytest.mark.parametrize(("number", "size", "expected"), [(3, 10, [0, 1, 2]), (10, 2, [0, 9]), (1, 5, [0])])
def test_a_sample_is_evenly_spaced(number, size, expected):
    assert select_evenly(number, size).tolist() == expected


def test_weights_and_tags_of_corpora_are_checked(opened, make_config, tmp_path):
    data, _, corpus = opened(PAIRS)
    [files] = data.train
    plain = CorpusFiles(source=files.source, target=files.target)
    config = make_config(plain, plain)

    def examine(**changes):
        train = [files.model_copy(update=changes)]
        changed = config.model_copy(update={"data": data.model_copy(update={"train": train})})
        return list(examine_corpora(changed, corpus, tmp_path / "cache"))

    assert examine() == []
    half = -(-len(PAIRS) // 2)
    [found] = examine(weight=0.5)
    assert found.verdict == "note"
    assert found.found.startswith(f"an epoch reads {half:,} pairs: {half:,} of train.en ({len(PAIRS):,} pairs)")
    [found] = examine(weight=0.001)
    assert found.verdict == "error"
    assert found.found.startswith("data.train.0.weight: 0.001 of the")
    weights = tmp_path / "weights"
    weights.write_text("2\n" + "0.5\n" * (len(PAIRS) - 1))
    [found] = examine(weights=weights)
    assert (found.verdict, found.found) == ("ok", "from 0.5 to 2")
    weights.write_text("1\n1\n")
    [found] = examine(weights=weights)
    assert found.verdict == "error" and found.found.endswith(f"found 2 lines in {weights}.")
    links = tmp_path / "links"
    links.write_text("0-0\n" * len(PAIRS))
    [found] = examine(alignments=links)
    assert (found.verdict, found.found) == ("ok", f"{len(PAIRS):,} links")
    links.write_text("0-0\n" * (len(PAIRS) - 1) + "0:0\n")
    [found] = examine(alignments=links)
    assert found.verdict == "error" and found.found.startswith(f"{links}:{len(PAIRS)}: expected links such as 0-0")
    tagged, untagged = examine(tag="<bt>")
    assert tagged.verdict == "warning" and "no set of data.dev has the tag <bt>" in tagged.found
    assert "data.dev has text without a tag" in untagged.found
