import itertools
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sacrebleu.metrics import BLEU, CHRF, TER

from nmt.errors import UserError
from nmt.evaluation.compare import Comparison, compare
from nmt.evaluation.metrics import score

CELL = re.compile(r"(\d+\.\d+) \((\d+\.\d+) ± (\d+\.\d+)\)")
P_VALUE = re.compile(r"\(p = (\d\.\d{4})\)")

REFERENCES = [
    f"{who} {what} while {other} watches ."
    for who in ("a man", "an old woman with a hat", "the small child")
    for what in ("runs through snow", "eats apples and pears in the kitchen", "sits on the stairs")
    for other in ("nobody", "a brown dog", "the neighbour of the boy")
]


def with_slips(lines: list[str], *, share: float, seed: int) -> list[str]:
    """Drops about that share of the words, never the same ones in every line."""
    chance = random.Random(seed)
    return [" ".join(word for word in line.split() if chance.random() > share) for line in lines]


BASELINE = with_slips(REFERENCES, share=0.2, seed=1)
AS_GOOD = with_slips(REFERENCES, share=0.2, seed=2)
WORSE = with_slips(REFERENCES, share=0.5, seed=3)


def command_line_table(folder: Path, test: str, *systems: list[str]) -> str:
    """What `sacrebleu --paired-bs` prints; its JSON fails on 32-bit floats, so the table must do."""
    names = [f"system{number}" for number in range(len(systems))]
    for name, lines in zip(["references", *names], [REFERENCES, *systems], strict=True):
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "sacrebleu",
        "references",
        "-i",
        *names,
        "-m",
        "bleu",
        "chrf",
        "ter",
        test,
    ]
    command += ["-f", "text", "-w", "10", "--no-color", "--quiet"]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, encoding="utf-8").stdout


def test_figures_are_those_of_the_sacrebleu_command_line(tmp_path):
    table = command_line_table(tmp_path, "--paired-bs", BASELINE, AS_GOOD, WORSE)
    records = compare(BASELINE, [AS_GOOD, WORSE], REFERENCES, target_language="en", randomize=True)
    assert [list(record) for record in records] == [["bleu", "chrf", "ter"]] * 3
    cells = [cell for record in records for cell in record.values()]

    expected = [tuple(map(float, found)) for found in CELL.findall(table)]
    intervals = [(mean - half_width, mean + half_width) for _, mean, half_width in expected]
    assert [cell.score.score for cell in cells] == pytest.approx([score for score, _, _ in expected], abs=1e-9)
    for cell, interval in zip(cells, intervals, strict=True):
        assert cell.score.interval == pytest.approx(interval, abs=1e-5)

    p_values = [float(found) for found in P_VALUE.findall(table)]
    assert [cell.p_value for cell in cells[:3]] == [None] * 3  # the baseline is not tested against itself
    assert [cell.p_value for cell in cells[3:]] == pytest.approx(p_values, abs=5e-5)
    assert all(cell.score.signature in table and "|bs:1000|seed:" in cell.score.signature for cell in cells)

    table = command_line_table(tmp_path, "--paired-ar", BASELINE, AS_GOOD, WORSE)
    expected, found = list(map(float, P_VALUE.findall(table))), [cell.randomization_p_value for cell in cells]
    assert found[:3] == [None] * 3
    assert found[4::3] == pytest.approx(expected[1::3], abs=5e-5)  # chrF, which has no ties here
    assert all(ours > theirs - 5e-5 for ours, theirs in zip(found[3:], expected, strict=True))


@pytest.mark.parametrize("system", [BASELINE, [line.replace(" ", "  ") for line in BASELINE]])
def test_equal_translations_do_not_differ_significantly(system):
    _, found = compare(BASELINE, [system], REFERENCES, target_language="en", randomize=True)
    assert [(one.p_value, one.randomization_p_value) for one in found.values()] == [(1.0, 1.0)] * 3


@pytest.mark.parametrize("num_changed", [1, 2, 4])
def test_randomization_approximates_the_exact_test_of_a_few_changed_sentences(num_changed):
    # Exchanging these sentences in all 2 ** N ways gives the p-value that random exchanges approximate.
    places = [line for line in range(27) if BASELINE[line] != REFERENCES[line]][:num_changed]
    system = [REFERENCES[line] if line in places else BASELINE[line] for line in range(27)]
    _, found = compare(BASELINE, [system], REFERENCES, target_language="en", randomize=True)
    for name, metric in {"bleu": BLEU(force=True), "chrf": CHRF(), "ter": TER()}.items():
        differences = []
        for exchanged in itertools.product([False, True], repeat=num_changed):
            pair = list(BASELINE), list(system)
            for line in itertools.compress(places, exchanged):
                pair[0][line], pair[1][line] = pair[1][line], pair[0][line]
            ours, theirs = (metric.corpus_score(lines, [REFERENCES]).score for lines in pair)
            differences.append(abs(ours - theirs))
        exact = sum(one >= differences[0] - 1e-9 for one in differences) / len(differences)
        assert found[name].randomization_p_value == pytest.approx(exact, abs=0.02), name


def test_the_interval_of_a_system_is_that_of_its_score():
    (found,) = compare(WORSE, [], REFERENCES, target_language="en")
    expected = score(WORSE, REFERENCES, target_language="en")
    assert {name: one.score for name, one in found.items()} == expected


def test_a_seed_that_is_no_number_is_refused(monkeypatch):
    monkeypatch.setenv("SACREBLEU_SEED", "one")
    with pytest.raises(UserError, match="SACREBLEU_SEED: expected a whole number or none, found 'one'"):
        compare(BASELINE, [AS_GOOD], REFERENCES, target_language="en")
    with pytest.raises(UserError, match="SACREBLEU_SEED: expected a whole number or none, found 'one'"):
        score(BASELINE, REFERENCES, target_language="en")
    monkeypatch.setenv("SACREBLEU_SEED", "None")
    _, found = compare(BASELINE, [BASELINE], REFERENCES, target_language="en", randomize=True)
    assert found["chrf"].p_value == 1.0 and "|seed:none|" in found["chrf"].score.signature


def test_a_clear_difference_is_told_from_chance():
    _, as_good, worse = compare(BASELINE, [AS_GOOD, WORSE], REFERENCES, target_language="en")
    assert as_good["chrf"].p_value > 0.05
    assert worse["chrf"].p_value < 0.05


def test_chinese_is_compared_with_its_own_tokenizer():
    (baseline,) = compare(["一个男人在雪地里。"], [], ["一个男人在雪中。"], target_language="zh")
    assert "|tok:zh|" in baseline["bleu"].score.signature


def test_a_system_with_missing_lines_is_refused():
    with pytest.raises(UserError, match="found 26 hypotheses and 27 references"):
        compare(BASELINE, [AS_GOOD[1:]], REFERENCES, target_language="en")
    with pytest.raises(UserError, match="found 26 hypotheses and 27 references"):
        compare(BASELINE[1:], [AS_GOOD], REFERENCES, target_language="en")


def test_several_references_count_together():
    (baseline,) = compare(WORSE, [], REFERENCES, WORSE, target_language="en")
    assert baseline["bleu"].score.score == pytest.approx(100)
    assert baseline["bleu"].score.interval == pytest.approx((100, 100))
    assert baseline["ter"].score.signature.startswith("nrefs:2|")
    with pytest.raises(UserError, match="found 27 hypotheses and 26 references"):
        compare(BASELINE, [], REFERENCES, REFERENCES[1:], target_language="en")


def test_a_record_is_plain_json():
    for comparison in compare(BASELINE, [WORSE], REFERENCES, target_language="en")[1].values():
        record = json.loads(json.dumps(comparison.as_record()))
        assert record == {**comparison.score.as_record(), "p_value": comparison.p_value}
        assert isinstance(comparison, Comparison) and 0 < record["p_value"] <= 1
