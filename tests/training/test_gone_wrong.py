"""Ways in which a long run goes wrong, with the real command line: what it says, and what it leaves."""

import errno
import json
import re
import signal
import subprocess
import time
from contextlib import ExitStack

import numpy as np
import pytest
from faults import command

from nmt.config.file import dump_config
from nmt.config.schema import DevFiles, TrainingFiles
from nmt.data.corpus import read_lines
from nmt.data.tokenizer import train_tokenizer
from nmt.errors import UserError
from nmt.model_folder import ModelFolder
from nmt.training.checkpoint import CheckpointFolder, read_checkpoint
from nmt.training.train import train

NEVER = 1_000_000
RATE = 2**-7  # of the recipe
STILL = {"embedding_dropout": 0.0, "layer_dropout": 0.0, "output_dropout": 0.0}


def nmt(*arguments, **faults):
    return subprocess.run(command(*arguments, **faults), capture_output=True, text=True, check=False)


def written(config):
    """The file of a configuration, beside its run folder."""
    path = config.run_dir.with_suffix(".yaml")
    path.write_text(dump_config(config))
    return path


def records(run_dir, kind="training"):
    lines = (run_dir / "history.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def checkpoints(run_dir):
    return CheckpointFolder(run_dir / "checkpoints", keep=9)


def changed(config, **data):
    return config.model_copy(update={"data": config.data.model_copy(update=data)})


@pytest.fixture(scope="module")
def finished(recipe, digits, tmp_path_factory):
    """A run of five updates without dropout, on text of its own: its configuration."""
    folder = tmp_path_factory.mktemp("finished")
    text = TrainingFiles(source=folder / "train.en", target=folder / "train.rev")
    for ours, theirs in zip((text.source, text.target), (digits.train[0].source, digits.train[0].target), strict=True):
        ours.write_text(theirs.read_text())
    config = changed(recipe(folder / "run", max_updates=5, model=STILL), train=[text])
    train(config, log=lambda _: None)
    return config


def test_the_halved_rate_is_kept_for_good_and_has_an_end(recipe, tmp_path):
    config = recipe(tmp_path / "run", max_updates=12, checkpoint_every=5, max_skipped=3)
    done = nmt("train", written(config), not_finite=[8, RATE / 2])
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line for line in lines if "not finite" in line] == [
        "update 8: the gradient is not finite; the update was skipped.",
        "The gradient was not finite in 3 updates in a row, up to update 10. Rolling back to update 5 with 0.5 times "
        "the learning rate (rollback 1 of at most 3).",
    ]
    assert [record["learning_rate"] for record in records(config.run_dir)] == [RATE] * 5 + [RATE / 2] * 7
    # Another process knows of it.
    limits = ("training.max_updates=20", "training.max_rollbacks=1")
    done = nmt("train", written(config), *limits, not_finite=[14, 0.0])
    assert done.returncode == 1
    assert done.stderr == (
        "The gradient was not finite in 3 updates in a row, up to update 16, although the learning rate was halved "
        "once. Lower training.learning_rate or training.clip_norm, raise training.warmup_updates. Checkpoints are in "
        f"{config.run_dir / 'checkpoints'}.\n"
    )
    assert records(config.run_dir)[12]["learning_rate"] == RATE / 2
    assert [record["loss"] for record in records(config.run_dir)[13:]] == [None] * 3
    assert checkpoints(config.run_dir).load_latest().progress.update == 12


def test_a_batch_too_large_for_the_memory_is_cut_and_nothing_changes(finished, tmp_path):
    config = finished.model_copy(update={"run_dir": tmp_path / "run"})
    done = nmt("train", written(config), memory=2)
    assert (done.returncode, done.stderr) == (0, "")
    [told] = [line for line in done.stdout.splitlines() if "memory" in line]
    assert told == (
        "update 1: not enough memory. Batches are now cut into 2 micro-batches, which changes only the masks of "
        "dropout. Set training.accumulation_steps=2 to avoid this in the next run."
    )
    losses, expected = ([r["loss"] for r in records(run)] for run in (config.run_dir, finished.run_dir))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    weights, whole = (checkpoints(run).load_latest().arrays["weights"] for run in (config.run_dir, finished.run_dir))
    print(f"cut in two: losses differ by {np.abs(np.subtract(losses, expected)).max():.1e}", end=", ")
    print(f"weights by {max(np.abs(weights[name] - whole[name]).max() for name in whole):.1e}")
    for name in whole:
        np.testing.assert_allclose(weights[name], whole[name], rtol=0, atol=1e-5)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 8 megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small disk to be had: {mounted.stderr}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk):
    """Leaves no room on a disk."""
    with (disk / "ballast").open("ab", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC


@pytest.mark.parametrize("reaction", ["continue", "stop"])
def test_a_full_disk_leaves_older_checkpoints_whole(recipe, tmp_path, small_disk, reaction):
    config = recipe(small_disk / "run", max_updates=NEVER, checkpoint_every=5, on_full_disk=reaction)
    (tmp_path / "run.yaml").write_text(dump_config(config))
    lines = []
    with ExitStack() as stack:
        process = subprocess.Popen(
            command("train", tmp_path / "run.yaml"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        stack.callback(process.kill)
        for line in process.stdout:
            lines.append(line)
            if line.startswith("update 1") and len(lines) > 20:
                fill(small_disk)
            if "the checkpoint could not be written" in line:
                break
        else:
            assert reaction == "stop", process.stderr.read()
        for path in checkpoints(config.run_dir).list_files():
            read_checkpoint(path)
        if reaction == "continue":
            before = checkpoints(config.run_dir).load_latest().progress.update
            assert "the checkpoint could not be written; training continues without it. Cannot write" in lines[-1]
            assert lines[-1].endswith(".h5: No space left on device.\n")
            (small_disk / "ballast").unlink()
            process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=300)
    assert not list(config.run_dir.rglob("*.part"))
    last = checkpoints(config.run_dir).load_latest().progress.update
    records(config.run_dir)  # no torn line
    if reaction == "continue":
        assert process.returncode == 143
        assert last > before
        assert errors == f"Interrupted after update {last:,}; saved in {config.run_dir}. The same command resumes it.\n"
    else:
        assert process.returncode == 2
        # The losses of pairs are written just before the checkpoint, and may be what the disk has no room for.
        file = "(checkpoint|losses of pairs)"
        refusal = f"update {last + 5:,}: the {file} could not be written, and training.on_full_disk is stop. Cannot"
        assert re.search(refusal, errors)
        assert errors.endswith((".h5: No space left on device.\n", ".npy: No space left on device.\n"))


def test_a_second_signal_stops_at_once(recipe, digits, tmp_path):
    """The first comes during a validation that would take minutes."""
    dev = DevFiles(source=tmp_path / "dev.en", target=tmp_path / "dev.rev")
    for path, lines in zip((dev.source, dev.target), (digits.dev.source, digits.dev.target), strict=True):
        path.write_text(lines.read_text() * 10_000)
    config = changed(recipe(tmp_path / "run", max_updates=NEVER, validate_every=1), dev=dev)
    with ExitStack() as stack:
        process = subprocess.Popen(
            command("train", written(config)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        stack.callback(process.kill)
        for line in process.stdout:
            if line.startswith("update 1 "):
                break
        process.send_signal(signal.SIGTERM)
        time.sleep(1)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        moment = time.monotonic()
        _, errors = process.communicate(timeout=300)
    assert time.monotonic() - moment < 60
    assert process.returncode == 143
    assert "Traceback" not in errors
    assert not checkpoints(config.run_dir).list_files()


def test_another_text_is_refused_and_a_new_run_may_start_from_the_weights(finished):
    path = finished.data.train[0].source
    before = path.read_text()
    path.write_text(before.replace("one", "two"))
    with pytest.raises(UserError, match=_not_the_one("training text", finished.run_dir)):
        train(finished, log=lambda _: None)
    settings = finished.training.model_copy(update={"max_updates": 1, "start_from": finished.run_dir})
    new = finished.model_copy(update={"training": settings, "run_dir": finished.run_dir.with_name("run-2")})
    said = []
    train(new, log=said.append)
    path.write_text(before)
    assert f"Starting from the weights of {finished.run_dir}, with its tokenizers." in "\n".join(said)
    assert ModelFolder.load(new.run_dir).facts["update"] == 1


def test_another_tokenizer_is_refused(finished):
    model = finished.run_dir / "source.model"
    before = model.read_bytes()
    other = train_tokenizer(
        read_lines(finished.data.train[0].source), kind="bpe", vocabulary_size=28, byte_fallback=False
    )
    other.save(model)
    with pytest.raises(UserError, match=_not_the_one("source tokenizer", finished.run_dir)):
        train(finished, log=lambda _: None)
    model.write_bytes(before)


def _not_the_one(what, run_dir):
    return re.escape(
        f"The {what} is not the one that the run in {run_dir} was started with. Restore it, or choose another run_dir. "
        f"With training.start_from={run_dir}, a new run begins with these weights."
    )
