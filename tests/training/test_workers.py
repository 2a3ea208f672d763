"""Several real processes on one machine stand for several machines, and two parts of a processor for two GPUs.

pytest -s tests/training/test_workers.py prints how nearly equal they are.
"""

import json
import os
import random
import signal
import socket
import subprocess
import time
import weakref
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from faults import command

from nmt.config.file import dump_config
from nmt.errors import UserError
from nmt.training import strategy
from nmt.training.checkpoint import CheckpointFolder
from nmt.training.strategy import DistributedWorkers, make_strategy
from nmt.training.train import train
from nmt.training.workers import Workers

NO_DROPOUT = {"embedding_dropout": 0.0, "layer_dropout": 0.0, "output_dropout": 0.0}
# Clipping is active, and there are two micro-batches; 50 updates pass through seven epochs, then the rate is 0, so that
# the third validation is no better than the second.
EXACT = {
    "model": NO_DROPOUT,
    "optimizer": "sgd",
    "learning_rate": 0.25,
    "schedule": "linear",
    "schedule_updates": 50,
    "clip_norm": 1.0,
    "accumulation_steps": 2,
    "max_updates": 200,
    "patience": 1,
    "best_by": "loss",
    "tensorboard": True,
}
DROPPING = {"model": {"word_dropout": 0.1}, "tokenizer": {"sampling_alpha": 0.2}, "max_updates": 40}
NOTICED_WITHIN = 300
"""Seconds until the others know that a worker is gone: TensorFlow asks every 30, and then three times for 10."""


def team(*config_files, faults=None):
    """Starts `nmt train` on a worker for each file; their output goes to pipes. Faults are given by worker."""
    sockets = [socket.create_server(("localhost", 0)) for _ in config_files]
    addresses = [f"localhost:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    started = []
    for index, config_file in enumerate(config_files):
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        arguments = command("train", config_file, **(faults or {}).get(index, {}))
        started.append(start(arguments, TF_CONFIG=json.dumps(cluster)))
    return started, addresses


def start(arguments, **environment):
    environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", **environment}
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def ended(processes, seconds=600):
    """Waits for all; (exit code, output, errors) of each."""
    with ExitStack() as stack:
        for process in processes:
            stack.callback(process.kill)
        outputs = [process.communicate(timeout=seconds) for process in processes]
    return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]


def written(recipe, run_dir, **settings):
    """A configuration file for a run folder."""
    path = run_dir.with_suffix(".yaml")
    path.write_text(dump_config(recipe(run_dir, **{"strategy": "multi_worker", "validate_every": 25, **settings})))
    return path


def trained(recipe, run_dir, size, **settings):
    processes, _ = team(*[written(recipe, run_dir, **settings)] * size)
    outputs = ended(processes)
    for code, output, errors in outputs:
        assert (code, errors) == (0, ""), output
    return SimpleNamespace(
        course=course(run_dir),
        weights=final(run_dir),
        outputs=[output for _, output, _ in outputs],
        chief=processes[0].pid,
        run_dir=run_dir,
    )


def course(run_dir):
    """Loss, nll and gradient norm of each update, and perplexity and BLEU of each validation."""
    records = [json.loads(line) for line in (run_dir / "history.jsonl").read_text().splitlines()]
    training = [[r[name] for name in ("loss", "nll", "gradient_norm")] for r in records if r["kind"] == "training"]
    validation = [[r["perplexity"], r["bleu"]] for r in records if r["kind"] == "validation"]
    return np.array(training), np.array(validation)


def final(run_dir):
    return CheckpointFolder(run_dir / "checkpoints", keep=9).load_latest().arrays["weights"]


def assert_equal(found, expected, what):
    """Losses and weights equal to 1e-5, after updates that taught something."""
    (training, validation), weights = found
    training_alone, validation_alone = expected.course
    assert training.shape == (75, 3)
    assert training[-1, 0] < training[0, 0]
    apart = max(np.abs(weights[name] - array).max() for name, array in expected.weights.items())
    losses = np.abs(training[:, 0] - training_alone[:, 0]).max()
    print(f"{what}: losses differ by at most {losses:.1e}, final weights by {apart:.1e}")
    np.testing.assert_allclose(training, training_alone, rtol=1e-5)
    np.testing.assert_allclose(validation, validation_alone, rtol=1e-5)
    assert apart < 1e-5


@pytest.fixture(scope="module")
def alone(recipe, tmp_path_factory):
    return trained(recipe, tmp_path_factory.mktemp("alone") / "run", 1, **EXACT)


@pytest.fixture(scope="module")
def three(recipe, tmp_path_factory):
    """Three, whose batches of 16 rows do not come out even; the tests below have two."""
    return trained(recipe, tmp_path_factory.mktemp("three") / "run", 3, **EXACT)


def test_three_processes_learn_what_one_learns(alone, three):
    assert_equal((three.course, three.weights), alone, "3 processes")


def test_two_devices_of_one_process_learn_what_one_learns(recipe, tmp_path, alone):
    devices = {"strategy": "mirrored", "devices": ["CPU:0", "CPU:1"]}
    config_file = written(recipe, tmp_path / "run", **EXACT, **devices)
    [(code, output, errors)] = ended([start(command("train", config_file, processors=2))])
    assert (code, errors) == (0, ""), output
    assert_equal((course(tmp_path / "run"), final(tmp_path / "run")), alone, "2 devices of 1 process")


def test_the_losses_of_pairs_are_those_of_one_process(alone, three):
    expected, found = (np.load(run.run_dir / "pair_losses.npy") for run in (alone, three))
    assert len(expected) == 100 and np.isfinite(expected).all()
    np.testing.assert_allclose(found, expected, rtol=2e-3)  # of 16 bits


def test_early_stopping_is_decided_once_for_all(alone, three):
    for run in (alone, three):
        assert "Finished: no improvement in 1 validation," in run.outputs[0]
        assert len(run.course[1]) == 3


def test_only_the_chief_writes(three):
    assert not any("update" in output for output in three.outputs[1:])
    assert (three.run_dir / ".lock").read_text() == str(three.chief)
    [curves] = (three.run_dir / "tensorboard").glob("events.*")
    assert curves.name.endswith(f".{three.chief}")
    records = [json.loads(line) for line in (three.run_dir / "history.jsonl").read_text().splitlines()]
    assert [record["update"] for record in records if record["kind"] == "training"] == list(range(1, 76))


def test_what_a_failed_operation_used_is_released():
    workers = DistributedWorkers.__new__(DistributedWorkers)  # without other processes
    workers.addresses, workers.number = [], 0
    used = []

    def operate():
        pool: set = set()
        used.append(weakref.ref(pool))
        raise ConnectionError("no answer")

    try:
        operate()
    except ConnectionError as error:
        assert used[0]() is not None
        assert str(workers.make_lost_error(error)) == "The workers lost each other: no answer"
        assert used[0]() is None


def test_a_killed_worker_is_named_and_the_same_command_goes_on(recipe, tmp_path):
    """First the other worker is killed, then the chief."""
    settings = {**DROPPING, "checkpoint_every": 5}
    whole = trained(recipe, tmp_path / "whole", 2, **settings)
    config_file = written(recipe, tmp_path / "run", **settings)
    for number, first in ((1, 11), (0, 26)):
        processes, addresses = team(config_file, config_file)
        update = random.randrange(first, first + 8)
        with ExitStack() as stack:
            for process in processes:
                stack.callback(process.kill)
            for line in processes[0].stdout:
                if line.startswith(f"update {update} "):
                    break
            processes[number].send_signal(signal.SIGKILL)
            processes[number].communicate()
            moment = time.monotonic()
            survivor = processes[1 - number]
            _, errors = survivor.communicate(timeout=NOTICED_WITHIN)
            seconds = time.monotonic() - moment
        print(f"worker {number} killed after update {update}; the other ended {seconds:.0f} s later: {errors.strip()}")
        assert seconds < NOTICED_WITHIN
        assert survivor.returncode == 1
        assert f"Worker {number} ({addresses[number]}) is gone." in errors
        assert "Traceback" not in errors
    for code, output, complaint in ended(team(config_file, config_file)[0]):
        assert code == 0, output + complaint
    for before, after in zip(whole.course, course(tmp_path / "run"), strict=True):
        np.testing.assert_array_equal(before, after)
    resumed = final(tmp_path / "run")
    for name, array in whole.weights.items():
        np.testing.assert_array_equal(resumed[name], array)


@pytest.fixture(scope="module")
def stopped(recipe, tmp_path_factory):
    """A team of which worker 1 has memory only for half a batch, and gets a signal after seven updates."""
    run_dir = tmp_path_factory.mktemp("stopped") / "run"
    config_file = written(recipe, run_dir, **{**DROPPING, "max_updates": 100_000})
    processes, _ = team(config_file, config_file, faults={1: {"memory": 2}})
    said = []
    with ExitStack() as stack:
        for process in processes:
            stack.callback(process.kill)
        for line in processes[0].stdout:
            said.append(line)
            if line.startswith("update 7 "):
                break
        processes[1].send_signal(signal.SIGTERM)
        outputs = [process.communicate(timeout=300) for process in processes]
    return SimpleNamespace(codes=[p.returncode for p in processes], said=said, outputs=outputs, run_dir=run_dir)


def test_a_signal_to_one_worker_stops_all_and_nothing_is_lost(stopped):
    assert stopped.codes == [143, 143], stopped.outputs
    last = CheckpointFolder(stopped.run_dir / "checkpoints", keep=9).load_latest().progress.update
    assert f"Interrupted after update {last:,};" in stopped.outputs[0][1]


def test_all_cut_their_batches_where_one_lacks_memory(stopped):
    [told] = [line for line in stopped.said if "memory" in line]
    assert told.startswith("update 1: not enough memory. Batches are now cut into 2 micro-batches")


class Chief(Workers):
    """The chief, beside a worker whose values are told."""

    count = 2

    def __init__(self, other):
        self.other = other

    def all_reduce_sum(self, values):
        return values + np.array([0, self.other])


def test_a_worker_of_another_configuration_stops_all(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("nmt.training.train.make_workers", lambda strategy: Chief(1.0))
    words = r"^The configuration must be the same on all workers, but worker 1 has another\.$"
    with pytest.raises(UserError, match=words):
        train(recipe(tmp_path / "run"), log=lambda _: None)
    assert not (tmp_path / "run").exists()


class Third(Workers):
    """Worker 2 of 3, beside two that share their texts as it does."""

    number, count = 2, 3

    def __init__(self, others):
        self.others = others

    def all_reduce_sum(self, values):
        return values + next(self.others)


def test_shared_work_comes_back_in_order():
    """What the two others contribute is written out by hand: they turn a and b, d and e into capitals."""
    sizes = np.array([1, 2, 0, 1, 1, 0], float)
    characters = np.array([*b"A", *"Ä".encode(), 0, 0, *b"D", *b"E", 0], float)
    worker = Third(iter([sizes, characters]))
    shared = worker.map_sharded(["a", "ä", "cc", "d", "e", "f"], lambda mine: [text.upper() for text in mine])
    assert shared == ["A", "Ä", "CC", "D", "E", "F"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "requires the environment variable TF_CONFIG, or Slurm's srun; found neither."),
        ("{", "TF_CONFIG: expected JSON: "),
        ('{"task": {}}', r'TF_CONFIG: expected {"cluster": .*}, found {"task": {}}'),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
            "TF_CONFIG: expected task.index below 1, found 1.",
        ),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker"}}',
            r'TF_CONFIG: expected {"cluster": .*}, found .*"task": {"type": "worker"}}$',
        ),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "x"}}',
            r'TF_CONFIG: expected {"cluster": .*}, found .*"index": "x"}}$',
        ),
        (
            '{"cluster": {"worker": ["a:1", "b"]}, "task": {"type": "worker", "index": 0}}',
            r"TF_CONFIG: expected addresses of the form HOST:PORT, found b\.$",
        ),
        (
            '{"cluster": {"worker": ["a:70000"]}, "task": {"type": "worker", "index": 0}}',
            r"TF_CONFIG: expected addresses of the form HOST:PORT, found a:70000\.$",
        ),
    ],
)
def test_what_is_said_of_a_wrong_cluster(monkeypatch, text, words):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match=words):
        make_strategy("multi_worker")


def test_a_port_that_another_program_uses_is_named(monkeypatch):
    with socket.create_server(("", 0)) as taken:
        address = f"localhost:{taken.getsockname()[1]}"
        cluster = {"cluster": {"worker": [address]}, "task": {"type": "worker", "index": 0}}
        monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
        with pytest.raises(UserError, match=f"This worker, {address}, cannot listen on port .*: Address already in"):
            make_strategy("multi_worker")


def test_what_srun_says_makes_a_cluster_without_gpus_too(monkeypatch):
    said = {"PROCID": 2, "STEP_NUM_TASKS": 3, "STEP_NODELIST": "node[07-08]", "STEP_TASKS_PER_NODE": "2,1"}
    for name, value in said.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setattr(strategy.shutil, "which", lambda name: None)
    resolver = strategy._cluster_resolver()
    assert resolver.cluster_spec().as_dict() == {"worker": ["node07:8888", "node07:8889", "node08:8888"]}
    assert (resolver.task_type, resolver.task_id) == ("worker", 2)


def test_a_folder_that_is_not_shared_is_found_out(tmp_path):
    from nmt.training.run_folder import RunFolder

    with pytest.raises(UserError, match="does not have the files that worker 0 wrote there"):
        RunFolder(Path(tmp_path)).check_shared()
