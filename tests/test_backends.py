"""The same configurations and model folders serve on both backends, and JAX does without TensorFlow."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nmt.config.file import dump_config
from nmt.config.schema import Config, CorpusFiles
from nmt.data.batching import NUM_BUCKETS
from nmt.evaluation.metrics import bleu
from nmt.training.checkpoint import CheckpointFolder
from nmt.training.run_folder import RunFolder

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
SCRIPT = Path(__file__).with_name("without_tensorflow.py")
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TRAINING = {"batch_size": 16, "learning_rate": 2**-5, "max_updates": 60, "log_every": 1, "validate_every": 30}
EVERYTHING = {
    "optimizer": "adamw",
    "weight_decay": 0.1,
    "ema_decay": 0.5,
    "accumulation_steps": 2,
    "checkpoint_every": 20,
}


def write_pairs(folder, name, num_lines, most_words):
    random = np.random.default_rng(num_lines)
    lines = [" ".join(random.choice(WORDS, size=random.integers(2, most_words + 1))) for _ in range(num_lines)]
    files = CorpusFiles(source=folder / f"{name}.en", target=folder / f"{name}.same")
    for path in (files.source, files.target):
        path.write_text("".join(f"{line}\n" for line in lines))
    return files


def write_config(folder, name, *, corpus, tokenizer=None, **training):
    """A file to train from, and the run that it makes."""
    data = {"source_language": "en", "target_language": "en", "train": [corpus[0]], "dev": corpus[1]}
    sizes = {"embedding_units": 16, "encoder_units": 16, "decoder_units": 16, "attention_heads": 2}
    config = Config(
        run_dir=folder / name,
        data=data,
        model={**sizes, "decoder_layers": 1, "word_dropout": 0.1},
        tokenizer={"vocabulary_size": 28, "byte_fallback": False, **(tokenizer or {})},
        training={**TRAINING, **training},
        decoding={"precision": "float32"},
    )
    path = folder / f"{name}.yaml"
    path.write_text(dump_config(config))
    return path


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Compilations of one process serve the next: they take most of the time here."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled"))}
    return {**os.environ, **cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


@pytest.fixture(scope="module")
def nmt_on(environment):
    """Runs a command on a backend: what it printed, and on JAX how often what was traced."""

    def run(backend, *arguments):
        command = [SCRIPT] if backend == "jax" else ["-m", "nmt"]
        done = subprocess.run([sys.executable, *command, *arguments], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout, json.loads(done.stderr.splitlines()[-1]) if backend == "jax" else {}

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("backends")


@pytest.fixture(scope="module")
def short(folder):
    """Sentences of so few lengths that there are few shapes to compile."""
    return write_pairs(folder, "train", 100, 3), write_pairs(folder, "dev", 7, 3)


@pytest.fixture(scope="module")
def runs(folder, short, nmt_on):
    """A run on each backend."""
    for backend in ("tensorflow", "jax"):
        nmt_on(backend, "train", write_config(folder, backend, corpus=short, **EVERYTHING))
    return folder


def history(run_dir):
    records = [json.loads(line) for line in (run_dir / "history.jsonl").read_text().splitlines()]
    for record in records:
        for name in ("tokens_per_second", "memory_mib"):  # which differ from process to process
            record.pop(name, None)
    return records


def test_jax_trains_where_tensorflow_cannot_be_imported(runs):
    losses = [record["loss"] for record in history(runs / "jax") if record["kind"] == "training"]
    assert len(losses) == 60
    assert losses[-1] < losses[0]
    assert list((runs / "jax" / "tensorboard").iterdir())


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_a_run_records_what_reports_and_tensorboard_show(runs, backend):
    folder = RunFolder(runs / backend)
    validations = [record for record in history(folder.path) if record["kind"] == "validation"]
    assert [record["update"] for record in validations] == [30, 60]
    targets = (runs / "dev.same").read_text().splitlines()
    for record in validations:
        translations = folder.locate_translations(record["update"], "dev").read_text().splitlines()
        assert bleu(translations, targets, target_language="en") == record["bleu"]
    data = json.loads(folder.data.read_text())
    words = (runs / "train.en").read_text().split()
    assert (data["pairs"], data["kept"], data["examples"], data["dev"][0]["lines"]) == (100, 100, 100, 7)
    assert data["tokens"][0] == sum(size * count for size, count in enumerate(data["lengths"][0])) > len(words) + 100
    tags = EventAccumulator(str(folder.tensorboard)).Reload().Tags()["tensors"]
    assert {f"dev/{n}" for n in range(1, 8)} | {f"attention/{n}" for n in range(1, 5)} <= set(tags)
    assert (folder.tensorboard / "source_embedding.bytes").stat().st_size == 4 * 28 * 16


@pytest.mark.parametrize(("trained_on", "is_demanding"), [("tensorflow", False), ("jax", True)])
def test_a_model_translates_the_same_on_both_backends(runs, nmt_on, trained_on, is_demanding):
    files = {"input": (runs / "train.en").read_text().splitlines()[:20]}
    if is_demanding:  # prefixes that end inside a word, and phrases
        files |= {"prefix": [f"six {WORDS[n % 10][:2]}" for n in range(20)], "required": WORDS * 2}
    options = [] if is_demanding else ["--n-best", "2"]
    for name, lines in files.items():
        (runs / name).write_text("".join(f"{line}\n" for line in lines))
        options += [f"--{name}", runs / name]
    answers = []
    for backend in ("tensorflow", "jax"):
        printed, _ = nmt_on(backend, "translate", runs / trained_on, "--json", *options)
        answers.append([json.loads(line) for line in printed.splitlines()])
    assert len(answers[0]) == 20
    texts = [answer["hypotheses"][0]["text"] for answer in answers[0]]
    assert len(set(texts)) > 5  # it has learned to say something
    for text, prefix, phrase in zip(
        texts, *(files.get(name, [""] * 20) for name in ("prefix", "required")), strict=True
    ):
        assert text.startswith(prefix) and phrase in text
    assert_same_answers(*answers)


def assert_same_answers(one, other):
    """Equal in everything, but for rounding in numbers."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        one, other = list(one.values()), list(other.values())
    if isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same_answers(a, b)
    else:
        assert one == (pytest.approx(other, abs=1e-4) if isinstance(one, float) else other)


def test_a_run_on_jax_goes_on_as_if_it_had_never_stopped(runs, short, nmt_on):
    """From the first of its checkpoints, as after a crash that took the others with it."""
    config, resumed = write_config(runs, "resumed", corpus=short, **EVERYTHING), runs / "resumed"
    shutil.copytree(runs / "jax", resumed)
    _, *lost = CheckpointFolder(resumed / "checkpoints", keep=9).list_files()
    for path in lost:
        path.unlink()
    printed, _ = nmt_on("jax", "train", config)
    assert f"Resuming the run in {resumed} after update 20." in printed
    assert history(runs / "resumed") == history(runs / "jax")
    expected, found = (
        CheckpointFolder(runs / name / "checkpoints", keep=9).load_latest() for name in ("jax", "resumed")
    )
    assert found.progress == expected.progress
    for part, arrays in expected.arrays.items():
        assert len(arrays) > 10
        for path, array in arrays.items():
            np.testing.assert_array_equal(found.arrays[part][path], array, strict=True, err_msg=path)


def test_compilations_are_few_however_many_shapes_the_text_has(folder, nmt_on):
    corpus = write_pairs(folder, "many", 300, 16), write_pairs(folder, "many_dev", 50, 3)
    config = write_config(folder, "counted", corpus=corpus, max_updates=20, validate_every=20)
    _, traced = nmt_on("jax", "train", config)
    lengths = {len(line.split()) for line in (folder / "many.en").read_text().splitlines()}
    assert len(lengths) > NUM_BUCKETS
    assert 3 <= traced["_update"] <= NUM_BUCKETS
    # At most two numbers of rows for each of the widths 16 and 32; test_grouping.py has many more shapes.
    assert traced["_sum_loss"] <= 4
    assert traced["search"] <= 4


def test_an_export_says_what_it_needs(runs, environment):
    command = [sys.executable, SCRIPT, "export", runs / "jax", runs / "export"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert "An export needs TensorFlow, which is not installed" in done.stderr
