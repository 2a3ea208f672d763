"""`nmt compare`: the tables, the sentences that changed most, and mistakes."""

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from sacrebleu.metrics import BLEU, CHRF

from nmt.errors import UserError
from nmt.evaluation.breakdown import Change
from nmt.evaluation.compare_report import Report, compare_files, write_html, write_json, write_text

REFERENCE = ["a dog runs", "the cat sees a very old house by the sea", "a man sings <b>", "a dog eats a bone", "no"]
BASELINE = ["a dog walks", "the cat sees a house by the sea", "a man sings <b>", "the dog eats", "yes yes"]
SYSTEM = ["a dog runs", "the cat sees it", "a man sings <b>", "a dog eats a bone", "no no"]


def write_files(folder: Path) -> dict[str, Path]:
    texts = {"ref": REFERENCE, "base": BASELINE, "new": SYSTEM, "source": ["x & y"] * 5}
    for name, lines in texts.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
    return {name: folder / name for name in texts}


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    return write_files(tmp_path)


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Report:
    files = write_files(tmp_path_factory.mktemp("systems"))
    return compare_files([files["base"], files["new"]], [files["ref"]], source=files["source"], target_language="en")


def test_every_sentence_is_in_one_group_of_its_length_scored_by_sacrebleu(report):
    assert [(group.shortest, group.sentences) for group in report.by_length] == [(1, 3), (6, 2)]
    chosen = [0, 3, 4]  # "a man sings <b>" has six tokens
    for number, lines in enumerate([BASELINE, SYSTEM]):
        expected = BLEU(force=True).corpus_score([lines[i] for i in chosen], [[REFERENCE[i] for i in chosen]]).score
        assert report.by_length[0].bleu[number] == pytest.approx(expected)
    assert report.by_length[0].length_ratio == [8 / 9, 10 / 9]


def test_words_are_grouped_by_how_often_they_occur(files):
    (files["ref"].parent / "train").write_text("dog dog dog house\n")
    report = compare_files([files["base"], files["new"]], [files["ref"]], training_text=files["ref"].parent / "train")
    once, three_times = report.by_frequency[1:]
    assert (once.rarest, once.commonest, once.words, once.f1) == (1, 1, 1, [100.0, 0.0])  # house
    assert (three_times.rarest, three_times.words, three_times.f1) == (2, 2, [100.0, 100.0])  # dog
    unseen = report.by_frequency[0]
    ours, theirs = (" ".join(lines).replace("<b>", "< b >").split() for lines in (SYSTEM, REFERENCE))
    expected = [word for word in theirs if word not in ("dog", "house")]
    assert unseen.words == len(expected)
    produced = [word for word in ours if word not in ("dog", "house")]
    right = len(produced) - 2  # "it" and the second "no" are not in the references
    assert unseen.f1[1] == pytest.approx(100 * 2 * right / (len(produced) + len(expected)))


def test_changed_sentences_come_in_order_of_their_difference(report):
    metric = CHRF()
    expected = {
        line + 1: metric.sentence_score(SYSTEM[line], [REFERENCE[line]]).score
        - metric.sentence_score(BASELINE[line], [REFERENCE[line]]).score
        for line in (0, 1, 3, 4)
    }
    assert {change.line: change.difference for change in report.changes[0]} == pytest.approx(expected)
    differences = [change.difference for change in report.changes[0]]
    assert differences == sorted(differences, reverse=True)
    assert [change.line for change in report.choose_examples(1, 2)] == [report.changes[0][0].line, 2]  # one is worse


def test_the_closest_reference_counts(files):
    (files["ref"].parent / "other").write_text("".join(f"{line}\n" for line in BASELINE))
    report = compare_files([files["base"], files["new"]], [files["ref"], files["ref"].parent / "other"])
    assert all(group.f1[0] == 100 for group in report.by_frequency)
    assert all(change.difference <= 0 for change in report.changes[0])
    assert "nrefs:2" in report.scores[0]["bleu"].score.signature


def test_a_system_without_words_of_a_group_has_no_f1(tmp_path):
    # "heron" occurs twice, in references to which only one of the systems is closest.
    texts = {
        "one": ["a heron heron", "the dog"],
        "other": ["a bird here", "the dog"],
        "first": ["a heron heron", "the dog"],
        "second": ["a bird here", "the dog"],
    }
    for name, lines in texts.items():
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    references = [tmp_path / "one", tmp_path / "other"]
    for names, words, expected in ((["first", "second"], 2, [100.0, None]), (["second", "first"], 0, [None, 100.0])):
        report = compare_files([tmp_path / name for name in names], references)
        [group] = [one for one in report.by_frequency if one.rarest == 2]
        assert (group.words, group.f1) == (words, expected)
        assert json.loads(write_json(report))["by_frequency"][-1]["f1"] == expected
        cells = ["100.0" if one else "–" for one in expected]
        assert ["2", "to", "4", str(words), *cells] in [
            row.split() for row in write_text(report, examples=0).split("\n")
        ]
        assert f"<td>{words}</td><td>{cells[0]}</td><td>{cells[1]}</td>" in write_html(report, examples=0)


def test_lengths_have_no_ratio_to_references_without_words(files):
    files["ref"].write_text("\n" * 5)
    report = compare_files([files["base"], files["new"]], [files["ref"]])
    assert [group.length_ratio for group in report.by_length] == [[None, None]]
    assert report.by_frequency == []
    assert ["1", "to", "5", "5", "0.00", "0.00", "–", "–"] in [
        row.split() for row in write_text(report, examples=1).split("\n")
    ]


def test_the_page_shows_what_the_table_says_and_runs_nothing_from_the_text(report):
    page, text = write_html(report, examples=4), write_text(report, examples=4)
    shown = html.unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page))
    for figure in re.findall(r"\d+\.\d+", text):
        assert figure in shown
    assert "<b>" not in page and "x &amp; y" in page
    assert "a dog <ins>runs</ins>" in page


def test_text_is_printed_as_it_is(report):
    odd = "at :100: or :cat: o'clock\u2028\x85 and on"
    text = write_text(replace(report, translations=[BASELINE, [odd, *SYSTEM[1:]]]), examples=10)
    assert f"  new: {odd}" in text.split("\n")


def test_every_sentence_is_counted_once(report):
    changes = [Change(1, 5.0), Change(3, 0.0), Change(4, -1.0), Change(5, -2.0)]  # chrF does not see spaces
    text = write_text(replace(report, changes=[changes]), examples=0)
    [row] = [line.split() for line in text.split("\n") if line.split()[:1] == ["B"]]
    assert row == ["B", "1", "2", "1", "1"]


def test_json_holds_both_tests_of_every_score(report):
    record = json.loads(write_json(report))
    assert [system["name"] for system in record["systems"]] == ["base", "new"]
    for metric in ("bleu", "chrf", "ter"):
        assert 0 < record["systems"][1][metric]["randomization_p_value"] <= 1
        assert record["systems"][0][metric]["p_value"] is None


def test_mistakes(files, tmp_path):
    with pytest.raises(UserError, match="two systems or more; found 1"):
        compare_files([files["base"]], [files["ref"]])
    with pytest.raises(UserError, match="Add --source FILE"):
        compare_files([files["base"], tmp_path], [files["ref"]])
    (tmp_path / "short").write_text("one\n")
    with pytest.raises(UserError, match=r"^These files must have the same number of lines: .*ref has .*short has 1\."):
        compare_files([files["base"], tmp_path / "short"], [files["ref"]])


def test_a_model_translates_the_source_line_by_line(files, tmp_path, monkeypatch):
    class Upper:
        target_language = "zh"

        def translate(self, lines: list[str], split: bool) -> list[str]:
            assert not split
            return [line.upper() for line in lines]

    opened = {tmp_path: Upper(), tmp_path.parent: Upper()}
    settings: list[dict] = []

    def open_fake(path, **changes):
        settings.append(changes)
        return opened[path]

    monkeypatch.setattr("nmt.translators.opening.open_translator", open_fake)
    decoding = {"beam_size": 8}
    report = compare_files([files["base"], tmp_path], [files["ref"]], source=files["source"], decoding=decoding)
    assert settings == [{"beam_size": 8}]
    assert report.translations == [BASELINE, ["X & Y"] * 5]
    assert "tok:zh" in report.scores[0]["bleu"].score.signature
    opened[tmp_path.parent].target_language = "de"
    with pytest.raises(UserError, match=rf"different languages: .*{tmp_path} \(zh\)\. Choose one with --language"):
        compare_files(list(opened), [files["ref"]], source=files["source"])
