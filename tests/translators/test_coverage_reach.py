"""decoding.coverage_penalty through Python, the command line and the server; exports have it in tests/exporting."""

import json

import pytest
from typer.testing import CliRunner

from nmt.cli.main import app
from nmt.server.app import make_server
from nmt.server.limits import Limits
from tests.exported_model import SENTENCES
from tests.server.server_fakes import ask

WEIGHT = 0.5
LINES = SENTENCES[::9]


@pytest.fixture(scope="module")
def expected(exported):
    """Translations with the penalty."""
    return list(exported.translator.with_settings(coverage_penalty=WEIGHT).stream(LINES))


def test_it_lowers_scores_and_changes_some_translations(exported, expected):
    plain = list(exported.translator.stream(LINES))
    pairs = list(zip(plain, expected, strict=True))
    same = [(one, other) for one, other in pairs if one.text == other.text]
    assert 0 < len(same) < len(pairs)
    for one, other in same:
        assert other.score < one.score
        assert other.log_prob == pytest.approx(one.log_prob, abs=1e-4)


def test_the_command_line_takes_it(exported, expected, tmp_path):
    (tmp_path / "source").write_text("".join(f"{line}\n" for line in LINES))
    options = [f"decoding.coverage_penalty={WEIGHT}", "decoding.precision=float32", "--json"]
    files = ["--input", str(tmp_path / "source"), "--output", str(tmp_path / "target")]
    done = CliRunner().invoke(app, ["translate", str(exported.model), *options, *files])
    assert done.exit_code == 0, done.output
    found = [json.loads(line)["hypotheses"][0] for line in (tmp_path / "target").read_text().splitlines()]
    assert [one["text"] for one in found] == [one.text for one in expected]
    assert [one["score"] for one in found] == pytest.approx([one.score for one in expected], abs=1e-5)


def test_the_server_takes_it(exported, expected):
    server = make_server(exported.translator, "served", Limits())
    answer = ask(server, "POST", "/translate", json={"text": LINES, "coverage_penalty": WEIGHT})
    server.batcher.close(5)
    found = answer.json()["translations"]
    assert [one["text"] for one in found] == [one.text for one in expected]
    assert [one["score"] for one in found] == pytest.approx([one.score for one in expected], abs=1e-5)
