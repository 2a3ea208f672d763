"""Several real processes on one machine stand for several machines."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from nmt.config_file import dump_config
from nmt.errors import UserError
from nmt.training.checkpoint import CheckpointFolder
from nmt.training.strategy import make_strategy
from nmt.training.workers import Workers

NO_DROPOUT = {"embedding_dropout": 0.0, "layer_dropout": 0.0, "output_dropout": 0.0}
# Clipping is active, and there are two micro-batches; 50 updates pass through seven epochs.
EXACT = {
    "model": NO_DROPOUT,
    "optimizer": "sgd",
    "learning_rate": 0.25,
    "clip_norm": 1.0,
    "accumulation": 2,
    "max_updates": 50,
}
DROPPING = {"model": {"word_dropout": 0.1}, "tokenizer": {"sampling_alpha": 0.2}, "max_updates": 40}
NOTICED_WITHIN = 120
"""Seconds until the others know that a worker is gone: TensorFlow asks every 30, and then three times for 10."""


def team(*config_files):
    """Starts `nmt train` on a worker for each file; their output goes to pipes."""
    sockets = [socket.create_server(("localhost", 0)) for _ in config_files]
    addresses = [f"localhost:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    started = []
    for index, config_file in enumerate(config_files):
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(cluster), "TF_NUM_INTRAOP_THREADS": "1"}
        command = [sys.executable, "-m", "nmt", "train", str(config_file)]
        started.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        )
    return started, addresses


def ended(processes, seconds=300):
    """Waits for all; (exit code, output, errors) of each."""
    with ExitStack() as stack:
        for process in processes:
            stack.callback(process.kill)
        outputs = [process.communicate(timeout=seconds) for process in processes]
    return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]


def written(recipe, run_dir, **settings):
    """A configuration file for a run folder."""
    path = run_dir.with_suffix(".yaml")
    path.write_text(dump_config(recipe(run_dir, strategy="multi_worker", validate_every=25, **settings)))
    return path


def trained(recipe, run_dir, size, **settings):
    for code, output, errors in ended(team(*[written(recipe, run_dir, **settings)] * size)[0]):
        assert code == 0, output + errors
    return course(run_dir), final(run_dir)


def course(run_dir):
    """Loss, nll and gradient norm of each update, and perplexity and BLEU of each validation."""
    records = [json.loads(line) for line in (run_dir / "history.jsonl").read_text().splitlines()]
    training = [[r[name] for name in ("loss", "nll", "gradient_norm")] for r in records if r["kind"] == "training"]
    validation = [[r["perplexity"], r["bleu"]] for r in records if r["kind"] == "validation"]
    return np.array(training), np.array(validation)


def final(run_dir):
    return CheckpointFolder(run_dir / "checkpoints", keep=9).latest().arrays["weights"]


@pytest.fixture(scope="module")
def alone(recipe, tmp_path_factory):
    return trained(recipe, tmp_path_factory.mktemp("alone") / "run", 1, **EXACT)


@pytest.mark.parametrize("size", [2, 3])
def test_several_processes_learn_what_one_learns(recipe, tmp_path, alone, size):
    (training, validation), weights = trained(recipe, tmp_path / "run", size, **EXACT)
    assert training.shape == (50, 3)
    np.testing.assert_allclose(training, alone[0][0], rtol=1e-5)
    np.testing.assert_allclose(validation, alone[0][1], rtol=1e-5)
    for name, array in alone[1].items():
        np.testing.assert_allclose(weights[name], array, atol=1e-5)
    assert training[-1, 0] < training[0, 0]


def test_a_killed_worker_is_named_and_the_same_command_goes_on(recipe, tmp_path):
    settings = {**DROPPING, "checkpoint_every": 10}
    whole, weights = trained(recipe, tmp_path / "whole", 2, **settings)
    config_file = written(recipe, tmp_path / "run", **settings)
    (chief, other), addresses = team(config_file, config_file)
    with ExitStack() as stack:
        stack.callback(chief.kill)
        stack.callback(other.kill)
        for line in chief.stdout:
            if re.match(r"update 1[5-9] ", line):
                break
        other.send_signal(signal.SIGKILL)
        other.communicate()
        moment = time.monotonic()
        _, errors = chief.communicate(timeout=NOTICED_WITHIN)
    assert time.monotonic() - moment < NOTICED_WITHIN
    assert chief.returncode == 1
    assert f"Worker 1 ({addresses[1]}) is gone." in errors
    assert "Traceback" not in errors
    for code, output, complaint in ended(team(config_file, config_file)[0]):
        assert code == 0, output + complaint
    resumed, resumed_weights = course(tmp_path / "run"), final(tmp_path / "run")
    for before, after in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(before, after)
    for name, array in weights.items():
        np.testing.assert_array_equal(resumed_weights[name], array)


def test_a_signal_to_one_worker_stops_all_and_nothing_is_lost(recipe, tmp_path):
    config_file = written(recipe, tmp_path / "run", **{**DROPPING, "max_updates": 100_000})
    processes, _ = team(config_file, config_file)
    with ExitStack() as stack:
        for process in processes:
            stack.callback(process.kill)
        for line in processes[0].stdout:
            if line.startswith("update 7 "):
                break
        processes[1].send_signal(signal.SIGTERM)
        outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [143, 143], outputs
    assert "Interrupted after update" in outputs[0][1]
    last = CheckpointFolder(tmp_path / "run" / "checkpoints", keep=9).latest().progress.update
    assert f"Interrupted after update {last:,};" in outputs[0][1]


def test_a_mistake_of_one_worker_stops_all(recipe, tmp_path):
    config_file = written(recipe, tmp_path / "run", **DROPPING)
    other_file = tmp_path / "other.yaml"
    other_file.write_text(config_file.read_text().replace("max_updates: 40", "max_updates: 41"))
    assert other_file.read_text() != config_file.read_text()
    for code, _, errors in ended(team(config_file, other_file)[0]):
        assert code == 2
        assert errors == "Worker 1 has another configuration than worker 0; all need the same.\n"
    assert not (tmp_path / "run").exists()


class Third(Workers):
    """Worker 2 of 3, beside two that share their texts as it does."""

    number, count = 2, 3

    def __init__(self, others):
        self.others = others

    def added(self, values):
        return values + next(self.others)


def test_shared_work_comes_back_in_order():
    """What the two others contribute is written out by hand: they turn a and b, d and e into capitals."""
    sizes = np.array([1, 2, 0, 1, 1, 0], float)
    characters = np.array([*b"A", *"Ä".encode(), 0, 0, *b"D", *b"E", 0], float)
    worker = Third(iter([sizes, characters]))
    shared = worker.shared(["a", "ä", "cc", "d", "e", "f"], lambda mine: [text.upper() for text in mine])
    assert shared == ["A", "Ä", "CC", "D", "E", "F"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "needs the environment variable TF_CONFIG or to be started by Slurm's srun; found neither."),
        ("{", "TF_CONFIG is no JSON: "),
        ('{"task": {}}', r'TF_CONFIG: expected {"cluster": .*}, found {"task": {}}'),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
            "TF_CONFIG: task.index is 1, but there are 1 of worker.",
        ),
    ],
)
def test_what_is_said_of_a_wrong_cluster(monkeypatch, text, words):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match=words):
        make_strategy("multi_worker")


def test_a_folder_that_is_not_shared_is_found_out(tmp_path):
    from nmt.training.run_folder import RunFolder

    with pytest.raises(UserError, match="does not hold what worker 0 wrote there"):
        RunFolder(Path(tmp_path)).must_be_shared()
