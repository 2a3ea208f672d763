"""`nmt align`: error rate by hand, files and messages. Its links are compared in tests/translators/test_model.py."""

import io
import json
from types import SimpleNamespace

import pytest

from nmt.decoding.alignment import TokenAttention
from nmt.decoding.word_links import align_words
from nmt.errors import UserError
from nmt.evaluation import aligning
from nmt.evaluation.aligning import count_errors, read_gold


def attend_in_order(pairs):
    for source, target in pairs:
        sources, targets = (["▁" + word for word in text.split()] for text in (source, target))
        weights = [[float(row == column) for column in range(len(sources))] for row in range(len(targets))]
        yield align_words(source, target, [TokenAttention(sources, targets, weights)] if sources else [])


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    for name in ("weights.h5", "config.yaml", "source.model", "target.model"):
        (tmp_path / "model" / name).touch()
    (tmp_path / "a.en").write_text("a b c\n\nd\n")
    (tmp_path / "a.de").write_text("x y z\n\nü\n", encoding="utf-8")
    monkeypatch.setattr(aligning, "open_translator", lambda path, **settings: SimpleNamespace(align=attend_in_order))
    return tmp_path


def align(place, gold=None, model="model", *, as_json=False):
    out = io.StringIO()
    if gold is not None:
        (place / "gold").write_text(gold)
    errors = aligning.align_files(
        place / model,
        place / "a.en",
        place / "a.de",
        out,
        as_json=as_json,
        gold=None if gold is None else place / "gold",
    )
    return out.getvalue(), errors


def test_the_error_rate_is_that_of_och_and_ney():
    """|A| = 5, |S| = 3; of A, two are sure and three sure or possible: 1 - (2 + 3) / (5 + 3)."""
    gold = [read_gold("0-0 1-1 2?1", 3, 3, place="f:1"), read_gold("0p1 1-0", 2, 2, place="f:2")]
    errors = count_errors([[(0, 0), (1, 1), (2, 2)], [(0, 1), (1, 1)]], gold)
    assert errors.error_rate == pytest.approx(1 - 5 / 8)
    assert (errors.precision, errors.recall) == pytest.approx((3 / 5, 2 / 3))
    line = "AER 37.50  precision 60.00  recall 66.67  5 links, 3 sure links in the gold alignment"
    assert errors.as_line() == line
    assert count_errors([[]], [read_gold("", 0, 0, place="f:1")]).error_rate == 0


def test_links_are_a_line_per_pair(place):
    assert align(place) == ("0-0 1-1 2-2\n\n0-0\n", None)
    first = json.loads(align(place, as_json=True)[0].splitlines()[0])
    assert first == {
        "source": ["a", "b", "c"],
        "target": ["x", "y", "z"],
        "links": [[0, 0], [1, 1], [2, 2]],
        "weights": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    }
    _, errors = align(place, "0-0 1?1 1-2\n\n0-0\n")
    assert errors.error_rate == pytest.approx(1 - (2 + 3) / (4 + 3))


@pytest.mark.parametrize(
    ("gold", "words"),
    [
        ("0-0\n\n0:0\n", r"gold:3: expected links such as 0-0 \(sure\) or 1\?2 \(possible\).* found '0:0'"),
        ("1-3\n\n\n", r"gold:1: 1-3 links a word .* source has 3 words, the target 3, and the first one is number 0"),
        ("\n0-0\n\n", r"gold:2: 0-0 links a word .* the source has 0 words"),
        ("0-0\n", r"gold has 1"),
    ],
)
def test_mistakes_in_the_gold_file_name_their_line(place, gold, words):
    with pytest.raises(UserError, match=words):
        align(place, gold)


def test_an_export_is_refused(place):
    (place / "export").mkdir()
    (place / "export/model.tflite").touch()
    with pytest.raises(UserError, match=r"is an export \(LiteRT\), which does not align given translations"):
        align(place, model="export")
