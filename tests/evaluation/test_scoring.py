"""`nmt score`: its files and messages. Its numbers are compared in tests/translators/test_model.py."""

import io
import json
from types import SimpleNamespace

import pytest

from nmt.errors import UserError
from nmt.evaluation import scoring
from nmt.translators.hypothesis import ScoredTranslation


def give_scores(pairs):
    for source, target in pairs:
        tokens = [*target.split(), "</s>"]
        yield ScoredTranslation(source, target, tokens, [-1.5] * len(tokens))


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    for name in ("weights.h5", "config.yaml", "source.model", "target.model"):
        (tmp_path / "model" / name).touch()
    (tmp_path / "a.en").write_text("one\ntwo\n")
    (tmp_path / "a.de").write_text("eins\nzwei ü\n", encoding="utf-8")
    monkeypatch.setattr(scoring, "open_translator", lambda path, **settings: SimpleNamespace(score=give_scores))
    return tmp_path


def score(place, model="model", target="a.de", *, as_json=False) -> str:
    out = io.StringIO()
    scoring.score_files(place / model, place / "a.en", place / target, out, as_json=as_json)
    return out.getvalue()


def test_scores_are_a_line_per_pair(place):
    assert score(place) == "-3.0000\t-1.5000\n-4.5000\t-1.5000\n"
    first, second = map(json.loads, score(place, as_json=True).splitlines())
    assert first["log_prob"] == -3
    assert second == {
        "source": "two",
        "target": "zwei ü",
        "log_prob": -4.5,
        "tokens": ["zwei", "ü", "</s>"],
        "token_log_probs": [-1.5, -1.5, -1.5],
    }


def test_mistakes_are_one_message(place):
    (place / "export").mkdir()
    (place / "export/model.tflite").touch()
    with pytest.raises(UserError, match=r"export is an export \(LiteRT\), which does not score translations\."):
        score(place, "export")
    with pytest.raises(UserError, match=r"There is no folder .*nowhere"):
        score(place, "nowhere")
    (place / "b.de").write_text("eins\n")
    with pytest.raises(UserError, match=r"must have the same number of lines: .*a\.en has 2, .*b\.de has 1"):
        score(place, target="b.de")
