"""A tiny task and a random model of it, in files as the command line wants them."""

import os
from pathlib import Path

import numpy as np
import pytest
from cluster_task import CONFIG, lines

# By default Ray gives its workers a priority so low that they wait for all other tests.
os.environ.setdefault("RAY_worker_niceness", "0")


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny.yaml and its text."""
    folder = tmp_path_factory.mktemp("task")
    for name, size in (("train", 100), ("dev", 7)):
        sources = lines(size, seed=size)
        (folder / f"{name}.en").write_text("".join(f"{line}\n" for line in sources))
        (folder / f"{name}.rev").write_text("".join(f"{' '.join(line.split()[::-1])}\n" for line in sources))
    (folder / "tiny.yaml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="session")
def model(task: Path) -> Path:
    """A model folder with random weights, large enough that translations differ from line to line."""
    from nmt.config.file import load_config
    from nmt.data.corpus import read_lines
    from nmt.data.tokenizer import train_tokenizer
    from nmt.model_folder import ModelFolder, get_fingerprints
    from nmt.models.seq2seq import make_seq2seq
    from nmt.weights import get_arrays

    here = Path.cwd()
    os.chdir(task)
    try:
        config = load_config(Path("tiny.yaml"))
        tokenizer = train_tokenizer(
            read_lines(Path("train.en")), kind="unigram", vocabulary_size=28, byte_fallback=False
        )
    finally:
        os.chdir(here)
    size = tokenizer.vocabulary_size
    model = make_seq2seq(config.model, source_vocabulary_size=size, target_vocabulary_size=size)
    random = np.random.default_rng(1)
    weights = {
        name: random.normal(0, 0.8, array.shape).astype("float32")
        for name, array in get_arrays(model.trainable_variables).items()
    }
    ModelFolder(config, tokenizer, tokenizer, weights, get_fingerprints(tokenizer, tokenizer)).save(task / "model")
    return task / "model"
