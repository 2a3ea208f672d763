"""`nmt clean` with a real model, which is its own reverse: both of its languages have one code."""

from pathlib import Path

import pytest
from cluster_task import lines

from nmt.cluster.cleaning import Rules, ScoreRule, clean_files
from nmt.translators import opening


def test_each_direction_reads_its_own_side(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    translator = opening.open_translator(model, precision="float32")
    monkeypatch.setattr(opening, "open_translator", lambda path, **settings: translator)  # compiled once
    sides = [lines(5, seed=3), lines(5, seed=4)]
    for name, side in zip("ab", sides, strict=True):
        Path(name).write_text("".join(f"{line}\n" for line in side))
    rule = ScoreRule(model, reverse=model, min_score=-1000)
    clean_files(Path("a"), Path("b"), into=Path("out"), rules=Rules(), by_score=rule, workers=1, log=lambda line: None)
    header, *rows = [line.split("\t") for line in Path("out/verdicts.tsv").read_text().splitlines()]
    assert header == ["line", "verdict", "score", "forward", "reverse"]
    forward, reverse = (
        [one.mean_log_prob for one in translator.score(zip(*ordered, strict=True))] for ordered in (sides, sides[::-1])
    )
    for row, first, second in zip(rows, forward, reverse, strict=True):
        expected = [(first + second) / 2 - abs(first - second), first, second]
        assert [float(field) for field in row[2:]] == pytest.approx(expected, abs=1e-3)
    assert len({*forward, *reverse}) == 10
