"""20 updates in one go, and 12, a process killed while it saves the 16th, 8 more: the same to the last bit."""

import json
import shutil
import signal
import subprocess
from itertools import islice
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from faults import command

from nmt.config.file import dump_config
from nmt.data.batching import BatchLoader, BatchPlan
from nmt.data.preparation import prepare_training_data
from nmt.data.token_cache import CachedTokens
from nmt.model_folder import ModelFolder
from nmt.training.checkpoint import CheckpointFolder
from nmt.training.pair_losses import read_pair_losses
from nmt.training.train import train

EVERYTHING = {
    "model": {"word_dropout": 0.1},
    "tokenizer": {"sampling_alpha": 0.2},
    "optimizer": "adamw",
    "weight_decay": 0.1,
    "schedule": "inverse_sqrt",
    "warmup_updates": 4,
    "learning_rate": 2**-5,
    "ema_decay": 0.9,
    "accumulation_steps": 2,
    "max_updates": 20,
    "validate_every": 6,
    "checkpoint_every": 4,
    "keep_checkpoints": 3,
}


def history(run_dir):
    records = [json.loads(line) for line in (run_dir / "history.jsonl").read_text().splitlines()]
    for record in records:
        for name in ("tokens_per_second", "memory_mib"):  # which differ from process to process
            record.pop(name, None)
    return records


def updates_of(records, kind):
    return [record["update"] for record in records if record["kind"] == kind]


def checkpoints(run_dir):
    return CheckpointFolder(run_dir / "checkpoints", keep=9)


def half_written(run_dir):
    return list((run_dir / "checkpoints").glob(".update-000000016.h5.*.part"))


def nmt(config, *overrides, **faults):
    return subprocess.run(command("train", config, *overrides, **faults), capture_output=True, text=True)


def flip(path):
    """Changes one bit in the midst of the largest array of a checkpoint."""
    with h5py.File(path) as file:
        arrays = []
        file.visititems(lambda _, item: arrays.append(item) if isinstance(item, h5py.Dataset) else None)
        largest = max(arrays, key=lambda array: array.nbytes)
        place = largest.id.get_offset() + largest.nbytes // 2
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.fixture(scope="module")
def runs(recipe, tmp_path_factory):
    """The same training: whole; killed while it wrote a checkpoint; gone on with in another place, on a machine of
    another name, ten years before; and gone on with after its last two checkpoints were damaged."""
    folder = tmp_path_factory.mktemp("runs")
    paths = SimpleNamespace(**{name: folder / name for name in ("whole", "killed", "moved", "damaged")})
    train(recipe(paths.whole, **EVERYTHING), log=lambda _: None)
    config = folder / "config.yaml"
    config.write_text(dump_config(recipe(paths.killed, **EVERYTHING)))
    kill = nmt(config, killed_writing=16)
    assert kill.returncode == -signal.SIGKILL, kill.stderr
    for copy in (paths.damaged, paths.moved):
        shutil.copytree(paths.killed, copy)
    paths.said_of_moved = nmt(config, f"run_dir={paths.moved}", clock=-10 * 365 * 86_400, hostname="elsewhere")
    _, older, newest = checkpoints(paths.damaged).list_files()
    flip(newest)
    older.write_bytes(older.read_bytes()[:5000])
    paths.said_of_damaged = nmt(config, f"run_dir={paths.damaged}")
    return paths


def test_the_killed_process_had_gone_past_its_last_checkpoint(runs):
    assert updates_of(history(runs.killed), "training") == list(range(1, 17))
    [torn] = half_written(runs.killed)
    assert torn.stat().st_size > 1000
    assert [path.name for path in checkpoints(runs.killed).list_files()] == [f"update-{n:09}.h5" for n in (4, 8, 12)]
    assert checkpoints(runs.killed).load_latest().progress.update == 12


def test_the_same_command_goes_on_and_says_so(runs):
    done = runs.said_of_moved
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert f"Resuming the run in {runs.moved} after update 12." in lines
    assert [line.split(" · ")[0] for line in lines if "loss" in line] == [f"update {n}" for n in range(13, 21)]
    assert lines[-1] == f"The best model is in {runs.moved / 'best'}. Try: nmt translate {runs.moved}"


def test_damaged_checkpoints_are_told_and_passed_over(runs):
    done = runs.said_of_damaged
    assert (done.returncode, done.stderr) == (0, "")
    told = [line for line in done.stdout.splitlines() if line.endswith("Trying the previous checkpoint.")]
    assert len(told) == 2
    assert "update-000000012.h5 is damaged: its checksum does not match" in told[0]
    assert "update-000000008.h5 is damaged: its checksum does not match" in told[1]
    assert not half_written(runs.damaged)
    assert f"Resuming the run in {runs.damaged} after update 4." in done.stdout.splitlines()


@pytest.mark.parametrize("name", ["moved", "damaged"])
def test_losses_and_validations_are_the_same_to_the_last_bit(runs, name):
    expected = history(runs.whole)
    assert updates_of(expected, "training") == list(range(1, 21))
    assert updates_of(expected, "validation") == [6, 12, 18, 20]
    assert history(vars(runs)[name]) == expected


@pytest.mark.parametrize("name", ["moved", "damaged"])
def test_weights_averages_and_optimizer_are_the_same_to_the_last_bit(runs, name):
    expected, found = (checkpoints(path).load_latest() for path in (runs.whole, vars(runs)[name]))
    assert found.progress == expected.progress
    assert found.facts == expected.facts
    for part, arrays in expected.arrays.items():
        assert len(arrays) > 10
        assert found.arrays[part].keys() == arrays.keys()
        for path, array in arrays.items():
            np.testing.assert_array_equal(found.arrays[part][path], array, strict=True, err_msg=path)


@pytest.mark.parametrize("name", ["moved", "damaged"])
def test_the_best_model_is_the_same(runs, name):
    expected, found = (ModelFolder.load(path) for path in (runs.whole, vars(runs)[name]))
    assert found.facts == expected.facts
    for path, array in expected.weights.items():
        np.testing.assert_array_equal(found.weights[path], array, strict=True)


@pytest.mark.parametrize("name", ["moved", "damaged"])
def test_the_losses_of_pairs_are_the_same_to_the_last_bit(runs, name):
    """Also if they were of later updates than the checkpoint."""
    expected, found = (read_pair_losses(path / "pair_losses.npy", 100) for path in (runs.whole, vars(runs)[name]))
    assert np.isfinite(expected).all()
    np.testing.assert_array_equal(found, expected)


def test_what_the_resumption_had_to_get_right_was_at_work(runs):
    """Dropout, sampling and averages all differ from update to update, or the tests above could not fail."""
    last = checkpoints(runs.whole).load_latest()
    for path, array in last.arrays["weights"].items():
        assert np.any(array != last.arrays["averages"][path]), path
    assert last.progress.epoch == 2


def test_the_next_batches_are_the_same(runs, recipe):
    prepared = prepare_training_data(recipe(runs.killed, **EVERYTHING), runs.killed, lambda _: None)
    plan = BatchPlan(prepared.lengths, by="sentences", size=16, seed=1)
    tokenizers = prepared.source_tokenizer, prepared.target_tokenizer
    best = CachedTokens.open(prepared.corpus, *tokenizers, runs.killed / "cache")
    loaders = [
        BatchLoader(tokenized, prepared.kept, plan, multiple=2)
        for tokenized in (prepared.tokenized, prepared.tokenized, best)
    ]
    progress = checkpoints(runs.killed).load_latest().progress
    expected = list(islice(loaders[0].stream_batches(0, 0), 12, 20))
    found = list(islice(loaders[1].stream_batches(progress.epoch, progress.batch), 8))
    unsampled = list(islice(loaders[2].stream_batches(progress.epoch, progress.batch), 8))
    for one, other in zip(expected, found, strict=True):
        assert (one.epoch, one.index) == (other.epoch, other.index)
        for name in ("source", "target", "weights"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    # Sampled subwords are shorter, so that there are more of them.
    sampled, best = (sum(batch.num_target_tokens for batch in batches) for batches in (found, unsampled))
    assert sampled > best


def test_a_finished_run_has_nothing_left_to_do(runs, recipe, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(runs.whole, run_dir)
    said = []
    assert train(recipe(run_dir, **EVERYTHING), log=said.append) == run_dir / "best"
    assert f"Resuming the run in {run_dir} after update 20." in said
    assert any(line.startswith("Finished: max_updates 20 reached") for line in said)
    before, after = (checkpoints(path).load_latest() for path in (runs.whole, run_dir))
    assert after.progress.update == 20
    for path, array in before.arrays["weights"].items():
        np.testing.assert_array_equal(after.arrays["weights"][path], array)
    assert updates_of(history(run_dir), "training") == list(range(1, 21))
