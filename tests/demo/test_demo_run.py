"""The corpus of `nmt demo`, which is reused if it is complete."""

import sys
from types import SimpleNamespace

import pytest

from nmt.config.file import load_config
from nmt.demo import run as demo
from nmt.demo.corpus import DemoReport


class TrainingBeginsError(Exception):
    """Raised in place of the training."""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the demo up to its training, and returns the seeds of the corpora that were made."""
    made = []

    def make(folder, *, seed):
        made.append(seed)
        folder.mkdir(exist_ok=True)
        (folder / "train.en").write_text(f"{seed}\n")
        if seed == 3:
            raise KeyboardInterrupt
        return DemoReport(1, 1, 1, 1, 1)

    def train(*_, **__):
        raise TrainingBeginsError

    monkeypatch.setattr(demo, "make_demo_corpus", make)
    monkeypatch.setitem(sys.modules, "nmt.training.train", SimpleNamespace(train=train))  # without TensorFlow
    settings = load_config("demo", [f"data.train.0.source={tmp_path}/demo/train.en"])

    def run(seed):
        with pytest.raises((TrainingBeginsError, KeyboardInterrupt)):
            demo.run_demo(settings, seed=seed, log=lambda line: None)
        return made

    return run


def test_a_corpus_is_made_once_per_seed(run):
    assert [list(run(seed)) for seed in (1, 1, 2, 1)] == [[1], [1], [1, 2], [1, 2, 1]]


def test_a_corpus_that_is_half_replaced_is_not_taken_for_the_older_one(run):
    for seed in (1, 3, 1):
        made = run(seed)
    assert made == [1, 3, 1]


def test_a_damaged_seed_does_not_count(run, tmp_path):
    run(1)
    (tmp_path / "demo" / "seed.txt").write_bytes(b"")
    assert run(1) == [1, 1]
