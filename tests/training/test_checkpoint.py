import tempfile
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as get_arrays

from nmt import weights
from nmt.errors import FormatError, UserError
from nmt.training import checkpoint as module
from nmt.training.checkpoint import (
    PARTS,
    Checkpoint,
    Checkpointer,
    CheckpointFolder,
    Progress,
    average_checkpoints,
    read_checkpoint,
)
from nmt.training.run_folder import Writer
from nmt.training.workers import Workers
from nmt.weights import save_arrays

FACTS = {"training text": "abc", "source tokenizer": "def"}


def checkpoint(update, *, averages=None):
    random = np.random.default_rng(update)
    arrays = {
        "weights": {"seq2seq/encoder/kernel": random.normal(size=(3, 5)).astype("float32"), "bias": np.ones(2)},
        "averages": averages or {},
        "optimizer": {"adam/iterations": np.array(update), "adam/kernel_momentum": random.normal(size=(3, 5))},
    }
    return Checkpoint(Progress(update, epoch=2, batch=3, best_score=0.1, validations_since_best=4), arrays, FACTS)


def saved(folder, *updates):
    return [folder.save(checkpoint(update)) for update in updates]


def tear(path):
    path.write_bytes(path.read_bytes()[:1000])


@pytest.fixture
def folder(tmp_path):
    return CheckpointFolder(tmp_path / "checkpoints", keep=3)


def test_nothing_is_lost(folder):
    before = checkpoint(7, averages={"bias": np.full(2, 0.25, "float32")})
    folder.save(before)
    after = folder.load_latest()
    assert after.progress == before.progress
    assert after.facts == FACTS
    assert after.arrays.keys() == before.arrays.keys()
    for part, arrays in before.arrays.items():
        assert after.arrays[part].keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(after.arrays[part][name], array, strict=True)


NAMES = st.lists(st.sampled_from(["seq2seq", "encoder", "forward", "kernel", "bias_1", "ß"]), min_size=1, max_size=4)
ARRAYS = st.sampled_from(["float32", "float16", "float64", "int32", "int64", "uint32", "bool"]).flatmap(
    # Bits, not values: what is not a number has many.
    lambda dtype: get_arrays.arrays(dtype, get_arrays.array_shapes(min_dims=0, min_side=0, max_side=5))
)
PART = st.dictionaries(NAMES.map("-".join), ARRAYS, max_size=4)
COUNTS = st.integers(0, 10**8)
SCORES = st.none() | st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=40)
@given(
    progress=st.builds(
        Progress,
        *[COUNTS] * 3,
        *[SCORES] * 2,
        *[COUNTS] * 4,
        *[SCORES] * 2,
    ),
    parts=st.tuples(PART, PART, PART),
    facts=st.dictionaries(st.text(min_size=1).filter(lambda name: name != "progress"), st.text()),
)
def test_any_checkpoint_comes_back_bit_for_bit(progress, parts, facts):
    before = Checkpoint(progress, dict(zip(PARTS, parts, strict=True)), facts)
    with tempfile.TemporaryDirectory() as path:
        folder = CheckpointFolder(Path(path), keep=1)
        folder.save(before)
        after = folder.load_latest(pytest.fail)
    assert (after.progress, after.facts) == (before.progress, before.facts)
    for part in PARTS:
        assert after.arrays[part].keys() == before.arrays[part].keys()
        for name, array in before.arrays[part].items():
            found = after.arrays[part][name]
            assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_no_best_score_yet_is_kept_so(folder):
    folder.save(Checkpoint(Progress(1), {}, {}))
    assert folder.load_latest().progress == Progress(1)


def test_the_newest_counts(folder):
    saved(folder, 9, 10, 1_000_000)
    assert folder.load_latest().progress.update == 1_000_000


def test_only_the_last_few_are_kept(folder):
    paths = saved(folder, 1, 2, 3, 4, 5)
    assert folder.list_files() == paths[2:]
    assert sorted(folder.path.iterdir()) == paths[2:]


def test_a_folder_without_checkpoints_has_none(folder):
    assert folder.load_latest() is None


def test_a_torn_file_leaves_the_older_one(folder):
    older, newer = saved(folder, 5, 10)
    tear(newer)
    torn = newer.read_bytes()
    said = []
    assert folder.load_latest(said.append).progress.update == 5
    kept = folder.path / f"{newer.name}.damaged"
    assert said[0].startswith(f"{newer} is damaged")
    assert said[0].endswith("Trying the previous checkpoint.")
    assert said[1:] == [f"The damaged checkpoint is kept as {kept}."]
    assert older.exists()
    assert kept.read_bytes() == torn


def test_a_damaged_checkpoint_is_none_of_the_last_ones(tmp_path):
    folder = CheckpointFolder(tmp_path, keep=2)
    older, newer = saved(folder, 5, 10)
    tear(newer)
    folder.load_latest()
    assert saved(folder, 8) == folder.list_files()[1:]
    assert folder.list_files()[:1] == [older]
    average_checkpoints(folder.list_files())


def test_what_a_killed_process_left_half_written_is_no_checkpoint(folder):
    saved(folder, 5)
    (folder.path / ".update-000000010.h5.4711.part").write_bytes(b"torn")
    assert folder.load_latest(pytest.fail).progress.update == 5


def test_torn_files_only_are_an_error(folder):
    for path in saved(folder, 5, 10):
        tear(path)
    said = []
    with pytest.raises(
        UserError, match=r"All checkpoints in .*checkpoints are damaged. Start a new run in another run_dir"
    ):
        folder.load_latest(said.append)
    assert len(said) == 2
    assert len(folder.list_files()) == 2  # a new run would replace a folder without checkpoints


def test_other_arrays_are_no_checkpoint(tmp_path):
    save_arrays(tmp_path / "update-1.h5", {"weights/a": np.zeros(2)}, {"update": 1})
    with pytest.raises(UserError, match=r"update-1.h5 is not a checkpoint of a run"):
        read_checkpoint(tmp_path / "update-1.h5")


@pytest.mark.parametrize(
    ("arrays", "progress", "words"),
    [
        (
            {"weights/a": 1.0, "schedule/b": 1.0},
            {"update": 9},
            r"the part 'schedule', which .*; expected weights, aver",
        ),
        (
            {"weights/a": 1.0},
            {"update": 9, "shard": 3},
            r"the progress 'shard', which .* with the version that wrote it",
        ),
    ],
)
def test_a_checkpoint_of_another_version_is_named_and_not_skipped(folder, arrays, progress, words):
    saved(folder, 5)
    newest = folder.path / "update-000000009.h5"
    save_arrays(newest, {name: np.array(value) for name, value in arrays.items()}, {"progress": progress})
    with pytest.raises(FormatError, match=rf"^{newest} has {words}"):
        folder.load_latest(pytest.fail)


def test_a_checkpoint_of_another_format_is_not_skipped(folder, monkeypatch):
    saved(folder, 5)
    monkeypatch.setattr(weights, "FORMAT", 9)
    saved(folder, 6)
    monkeypatch.undo()
    with pytest.raises(FormatError, match=r"update-000000006.h5 has format 9, but this version of nmt reads format"):
        folder.load_latest(pytest.fail)


def test_the_average_is_the_mean(folder):
    paths = saved(folder, 1, 2, 3)
    sets = [checkpoint(n).arrays["weights"] for n in (1, 2, 3)]
    found = average_checkpoints(paths)
    assert found.keys() == sets[0].keys()
    for name, array in found.items():
        expected = np.mean([arrays[name] for arrays in sets], axis=0, dtype=sets[0][name].dtype)
        np.testing.assert_array_equal(array, expected, strict=True)


def test_an_average_needs_the_memory_of_one_checkpoint_at_a_time(folder, monkeypatch):
    optimizers = []

    def read(path):
        assert not any(one() is not None for one in optimizers)
        found = read_checkpoint(path)
        optimizers.append(weakref.ref(found.arrays["optimizer"]["adam/kernel_momentum"]))
        return found

    paths = saved(folder, 1, 2, 3)
    monkeypatch.setattr(module, "read_checkpoint", read)
    average_checkpoints(paths)
    assert len(optimizers) == 3


def test_the_average_is_of_moving_averages_where_there_are_any(folder):
    """Weights that are frozen have none."""
    paths = [folder.save(checkpoint(n, averages={"bias": np.array([n, 2.0 * n])})) for n in (1, 4)]
    found = average_checkpoints(paths)
    kernels = [checkpoint(n).arrays["weights"]["seq2seq/encoder/kernel"] for n in (1, 4)]
    np.testing.assert_allclose(found["seq2seq/encoder/kernel"], sum(kernels) / 2, rtol=1e-6)
    np.testing.assert_array_equal(found["bias"], [2.5, 5])


def test_progress_counts_batches():
    assert Progress().count_batch(0, 0) == Progress(update=1, epoch=0, batch=1)
    assert Progress(update=7, epoch=0, batch=7).count_batch(1, 0) == Progress(update=8, epoch=1, batch=1)


def test_progress_counts_validations_since_the_best():
    progress = Progress(update=3).count_validation(True)
    assert progress == Progress(update=3, validated=3)
    progress = progress.count_validation(False).count_validation(False)
    assert progress.validations_since_best == 2
    assert progress.count_validation(True) == Progress(update=3, validated=3)


def test_progress_averages_the_loss_and_keeps_the_lowest_average():
    progress, means, lowest = Progress(), [], []
    for number, loss in enumerate([8.0, 4.0, 6.0, 2.0, 10.0], 1):
        progress = progress.count_loss(number, loss, window=3)
        means.append(progress.mean_loss)
        lowest.append(progress.lowest_loss)
    # The mean of all up to the third update; then each new loss weighs a third.
    assert means == pytest.approx([8, 6, 6, 6 - 4 / 3, 6 - 4 / 3 + (10 - 14 / 3) / 3])
    assert lowest == [None, None, 6, pytest.approx(14 / 3), pytest.approx(14 / 3)]


class Steady:
    """Stands in for an update: its state is one number."""

    def __init__(self, value):
        self.value = value

    def get_state(self):
        return {"weights": {"bias": np.array(self.value)}, "averages": {}, "optimizer": {}}

    def assign_state(self, arrays, origin):
        self.value, self.origin = float(arrays["weights"]["bias"]), origin


class Second(Workers):
    """Worker 1 of 2; what the other contributes is given."""

    number, count = 1, 2

    def __init__(self, *others):
        self.others = list(others)

    def all_reduce_sum(self, values):
        return values + np.array([[self.others.pop(0), 0]], float)


@pytest.fixture
def said():
    return []


@pytest.fixture
def make_checkpointer(folder, said):
    def made(update, workers=None, facts=FACTS, on_full_disk="continue"):
        return Checkpointer(folder, update, facts, workers or Workers(), Writer(on_full_disk, said.append))

    return made


def test_a_saved_state_is_restored(make_checkpointer, folder):
    assert make_checkpointer(Steady(3.0)).save(Progress(7, epoch=2)) is True
    resumed = make_checkpointer(Steady(0.0))
    found = resumed.load_latest(pytest.fail)
    resumed.assign(found)
    assert found.progress == Progress(7, epoch=2)
    assert (resumed.update.value, resumed.update.origin) == (3.0, "The checkpoint of update 7")
    assert resumed.list_last(1) == folder.list_files()


def test_a_new_run_has_nothing_to_restore(make_checkpointer):
    assert make_checkpointer(Steady(0.0)).load_latest(pytest.fail) is None


@pytest.mark.parametrize("name", FACTS)
def test_a_checkpoint_of_another_text_or_tokenizer_is_refused(make_checkpointer, name):
    make_checkpointer(Steady(3.0)).save(Progress(7))
    changed = make_checkpointer(Steady(3.0), facts={**FACTS, name: "another"})
    with pytest.raises(
        UserError, match=rf"^The {name} is not the one that the run in .* was started with\. Restore it"
    ):
        changed.load_latest(pytest.fail)


@pytest.mark.parametrize("is_saved", [True, False])
def test_only_the_chief_writes_and_the_others_learn_whether_it_could(make_checkpointer, folder, is_saved):
    assert make_checkpointer(Steady(3.0), Second(is_saved)).save(Progress(7)) is is_saved
    assert folder.list_files() == []


def test_workers_that_see_different_checkpoints_are_refused(make_checkpointer):
    make_checkpointer(Steady(3.0)).save(Progress(7))
    workers = Second(0, 0, 5)  # neither has failed, and the chief has found the checkpoint of update 5
    with pytest.raises(UserError, match="The checkpoint must be the same on all workers, but worker 1 has another"):
        make_checkpointer(Steady(3.0), workers).load_latest(pytest.fail)


def test_a_checkpoint_that_cannot_be_written_is_a_warning_or_ends_the_run(make_checkpointer, folder, said):
    folder.path.write_text("not a folder")
    assert make_checkpointer(Steady(3.0)).save(Progress(1200)) is False
    assert said[0].startswith("update 1,200: the checkpoint could not be written; training continues without it. ")
    with pytest.raises(
        UserError, match=r"^update 1,200: the checkpoint could not .*, and training.on_full_disk is stop"
    ):
        make_checkpointer(Steady(3.0), on_full_disk="stop").save(Progress(1200))
