"""The comparison with CTranslate2, without CTranslate2."""

import json
from pathlib import Path
from types import SimpleNamespace

from typer.testing import CliRunner

import benchmarks.__main__ as command_line
from benchmarks import ctranslate2
from benchmarks.corpus import write_lines
from benchmarks.measure import Run
from nmt.data.corpus import read_lines
from nmt.data.tokenizer import train_tokenizer

SOURCES = ["one two six ten", "six two one ten", "ten one two six"]
TARGETS = ["eins zwei sechs zehn", "sechs zwei eins zehn", "zehn eins zwei sechs"]


def test_systems_translate_in_turns_and_are_scored(tmp_path, monkeypatch):
    write_lines(tmp_path / "test.en", SOURCES)
    write_lines(tmp_path / "test.de", TARGETS)
    tokenizer = train_tokenizer([*SOURCES, *TARGETS], kind="unigram", vocabulary_size=18, byte_fallback=False)
    tokenizer.save(tmp_path / "tokenizer.model")
    jobs = []

    def run_driver(command, job, *, folder, threads, environment):
        assert Path(command[1]).is_file() and threads == 2
        if job["task"] == "convert":
            return Run(0, 0, 0, {})
        is_peer = command[0] == "peer"
        assert bool(environment["PYTHONPATH"]) != is_peer  # nmt runs from this checkout, which the peer must not see
        jobs.append(job.get("workers"))
        folder.mkdir(exist_ok=True)
        sources = [" ".join(tokenizer.tokenize(line)) for line in SOURCES] if is_peer else SOURCES
        assert read_lines(Path(job["source"])) == sources
        # The peer translates rightly and nmt does not.
        targets = [" ".join(tokenizer.tokenize(line)) for line in TARGETS] if is_peer else SOURCES
        write_lines(Path(job["output"]), targets)
        return Run(0, 0, 100.0 * len(jobs), {"seconds": [99.0, 0.5, 1.5]})

    peer = SimpleNamespace(build=lambda: Path("peer"), get_versions=lambda names: dict.fromkeys(names, "1"))
    monkeypatch.setattr(ctranslate2, "run_driver", run_driver)
    monkeypatch.setattr(ctranslate2, "ENVIRONMENT", peer)
    (tmp_path / "into").mkdir()
    files = ["--source", tmp_path / "test.en", "--reference", tmp_path / "test.de", "--into", tmp_path / "into"]
    arguments = [
        "ctranslate2",
        "model.pt",
        tmp_path / "tokenizer.model",
        "runs/mine",
        *files,
        "--threads=2",
        "--rounds=2",
    ]
    done = CliRunner().invoke(command_line.app, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0
    assert jobs == [1, 2, None] * 2
    record = json.loads((tmp_path / "into" / "ctranslate2.json").read_text())
    threads = ["CTranslate2, int8, 1 × 2 threads", "CTranslate2, int8, 2 × 1 threads", "nmt, runs/mine"]
    assert list(record["systems"]) == threads
    own = record["systems"]["nmt, runs/mine"]
    assert own["speeds"] == [3.0, 3.0] and own["peaks"] == [300, 600]  # 3 lines in the median of 0.5 and 1.5 s
    assert [found["bleu"] > 99 for found in record["systems"].values()] == [True, True, False]
    assert f"| {threads[0]} | 3 (3–3) | 100.00 | 250 (100–400) |" in done.output.splitlines()
