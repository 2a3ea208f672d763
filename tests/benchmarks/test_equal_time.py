"""Training OpenNMT-py on the text of a recipe, without OpenNMT-py."""

import json
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import equal_time
from benchmarks.corpus import join_tokens, write_lines
from benchmarks.equal_time import train_and_score, write_text
from benchmarks.measure import Run
from nmt.config.file import config_from_text
from nmt.data.corpus import read_lines
from nmt.data.tokenizer import Tokenizer, train_tokenizer
from nmt.errors import UserError

CONFIG = """\
run_dir: x
data:
  source_language: en
  target_language: de
  train: [{source: train.en, target: train.de}]
  dev: {source: dev.en, target: dev.de}
tokenizer: {vocabulary_size: 280}
training: {max_updates: 9}
"""


SOURCES = [" ".join(words) for words in permutations(("one", "two", "six", "ten"))]
TARGETS = [" ".join(words) for words in permutations(("eins", "zwei", "sechs", "zehn"))]


@pytest.fixture(autouse=True)
def text(tmp_path, monkeypatch):
    """Writes the text of the configuration to the working folder."""
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "train.en", ["alone", *SOURCES])
    write_lines(tmp_path / "train.de", [" ", *TARGETS])
    write_lines(tmp_path / "dev.en", SOURCES[:3])
    write_lines(tmp_path / "dev.de", TARGETS[:3])


def test_pairs_stay_together_in_another_order_and_blank_ones_are_left_out(tmp_path):
    into = tmp_path / "into"
    assert write_text(config_from_text(CONFIG, "x.yaml"), into) == len(SOURCES)
    tokenizer = Tokenizer.load(into / "tokenizer.model")
    read = {name: join_tokens(tokenizer, read_lines(into / name)) for name in ("train.en", "train.de", "dev.de")}
    assert sorted(zip(read["train.en"], read["train.de"], strict=True)) == sorted(zip(SOURCES, TARGETS, strict=True))
    assert read["train.en"] != SOURCES
    assert read["dev.de"] == TARGETS[:3]
    assert len(read_lines(into / "vocabulary.txt")) == tokenizer.vocabulary_size - 4


def test_the_tokenizer_that_a_recipe_names_is_used(tmp_path):
    for name, text in (("lower", SOURCES), ("copy", SOURCES), ("upper", [line.upper() for line in SOURCES])):
        tokenizer = train_tokenizer(text, kind="unigram", vocabulary_size=16, byte_fallback=False)
        tokenizer.save(tmp_path / f"{name}.model")
    untied = f"{CONFIG}model: {{tied_embeddings: none}}\n"
    named = untied.replace("vocabulary_size: 280", "source_model: lower.model, target_model: copy.model")
    write_text(config_from_text(named, "x.yaml"), tmp_path / "into")
    assert (tmp_path / "into" / "tokenizer.model").read_bytes() == (tmp_path / "lower.model").read_bytes()
    for text in (named.replace("copy", "upper"), untied.replace("280", "280, joint: false")):
        with pytest.raises(UserError, match=r"^Expected a recipe with one tokenizer for both languages, found two\.$"):
            write_text(config_from_text(text, "x.yaml"), tmp_path / "two")
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"train.de}": "train.de, weight: 2}"}, "data.train.0.weight"),
        ({"train.de}": "train.de, weights: factors}"}, "data.train.0.weights"),
        ({"train.de}": "train.de, weight: 2, tag: <2de>}"}, "data.train.0.weight, data.train.0.tag"),
        ({"  dev:": "  placeholders: {kinds: [number]}\n  dev:"}, "data.placeholders"),
    ],
)
def test_text_that_nmt_changes_or_weighs_is_refused(tmp_path, change, key):
    [(old, new)] = change.items()
    text = CONFIG.replace(old, new)
    with pytest.raises(UserError, match=f"^Expected a recipe without weights, tags and placeholders, found {key}\\.$"):
        write_text(config_from_text(text, "x.yaml"), tmp_path / "into")
    assert not (tmp_path / "into").exists()


def test_checkpoints_are_averaged_translated_and_scored(tmp_path, monkeypatch):
    jobs = []

    def run_driver(command, job, *, folder, threads, environment):
        jobs.append(job)
        assert command[0] == "peer" and Path(command[1]).is_file() and environment == {"PYTHONPATH": ""}
        if job["task"] == "train_for":
            checkpoints = [[500 * n, 60.0 * n, f"{n}.pt"] for n in (1, 2, 3)]
            return Run(0, 0, 0, {"checkpoints": checkpoints, "num_pairs": 2.5 * len(SOURCES)})
        if job["task"] == "translate":
            tokens = read_lines(tmp_path / "into" / "dev.de")
            is_last = sum(one["task"] == "translate" for one in jobs) == 2
            write_lines(Path(job["output"]), tokens if is_last else tokens[::-1])
        return Run(0, 0, 0, {})

    peer = SimpleNamespace(build=lambda: Path("peer"), get_versions=lambda names: dict.fromkeys(names, "1"))
    monkeypatch.setattr(equal_time, "run_driver", run_driver)
    monkeypatch.setattr(equal_time, "ENVIRONMENT", peer)
    (tmp_path / "x.yaml").write_text(CONFIG)
    options = {"minutes": 3.0, "seed": 7, "threads": 1, "gpu": False, "command": "again"}
    into = tmp_path / "into"
    with pytest.raises(UserError, match="Expected one of lstm, transformer, found gru"):
        train_and_score("x.yaml", "gru", into, **options)
    table = train_and_score("x.yaml", "transformer", into, **options)
    training, *others = jobs
    assert [training[name] for name in ("seconds", "seed", "source_language")] == [180, 7, "en"]
    assert all(read_lines(Path(f"{training[name]}.{side}")) for name in ("train", "dev") for side in ("en", "de"))
    assert [job["checkpoints"] for job in others if job["task"] == "average"] == [["2.pt"], ["2.pt", "3.pt"]]
    assert read_lines(into / "dev.001000.txt") == TARGETS[2::-1] and read_lines(into / "dev.001500.txt") == TARGETS[:3]
    record = json.loads((into / "results.json").read_text())
    first, last = record["curve"]
    assert last == {"updates": 1500, "minutes": 3, "averaged": 2, "bleu": pytest.approx(100)} and first["bleu"] < 50
    assert (record["epochs"], record["updates_per_second"]) == (2.5, pytest.approx(1500 / 180))
    assert "| 1,500 | 3.0 | 2 | 100.00 |" in table.splitlines() and "`again`. 8.33 updates/s, 2.5 epochs" in table
