import signal
import subprocess
import sys
import time

import pytest

from nmt.config.file import dump_config
from nmt.errors import InterruptionError
from nmt.training.checkpoint import CheckpointFolder
from nmt.training.train import train

NEVER = 1_000_000
SAVED_WITHIN = 30
"""Seconds from a signal to the end of the process."""


def test_exit_codes_are_those_of_the_shell():
    codes = [InterruptionError("saved", number).exit_code for number in (signal.SIGINT, signal.SIGTERM)]
    assert codes == [130, 143]


@pytest.fixture
def config(recipe, tmp_path):
    """A training that would go on for hours, and saves nothing of its own accord."""
    return recipe(tmp_path / "run", max_updates=NEVER, validate_every=NEVER, checkpoint_every=NEVER)


@pytest.fixture
def start(config, tmp_path):
    """Starts the command; returns its process."""
    (tmp_path / "config.yaml").write_text(dump_config(config))
    command = [sys.executable, "-m", "nmt", "train", str(tmp_path / "config.yaml")]
    processes = []

    def started():
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return processes[-1]

    yield started
    for process in processes:
        process.kill()
        process.communicate()


def wait_for_updates(process):
    """Reads what the process says until it has done two updates."""
    updates = 0
    while updates < 2:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        updates += line.startswith("update ")


def test_an_interrupted_training_saves_and_the_same_command_goes_on(start, config):
    """By Ctrl-C; test_workers.py and test_gone_wrong.py send SIGTERM."""
    process = start()
    wait_for_updates(process)
    another = start()
    assert another.communicate() == ("", f"Process {process.pid} is already training in {config.run_dir}.\n")
    assert another.returncode == 2
    process.send_signal(signal.SIGINT)
    moment = time.monotonic()
    _, errors = process.communicate()
    assert time.monotonic() - moment < SAVED_WITHIN
    assert process.returncode == 128 + signal.SIGINT
    update = CheckpointFolder(config.run_dir / "checkpoints", keep=9).load_latest().progress.update
    assert update >= 2
    assert errors == f"Interrupted after update {update:,}; saved in {config.run_dir}. The same command resumes it.\n"
    settings = config.training.model_copy(update={"max_updates": update + 2})
    said = []
    train(config.model_copy(update={"training": settings}), log=said.append)
    assert f"Resuming the run in {config.run_dir} after update {update:,}." in said
    history = (config.run_dir / "history.jsonl").read_text().splitlines()
    assert len(history) == update + 2 + 1  # each update once, and the validation at the end
