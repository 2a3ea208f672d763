import re

import numpy as np
import pytest

from nmt.config.schema import TrainingConfig
from nmt.data.batching import Batch
from nmt.errors import DivergenceError, OutOfMemoryError, UserError
from nmt.training.checkpoint import Checkpoint, CheckpointFolder, Progress
from nmt.training.recovery import Recovery
from nmt.training.update import Outcome


@pytest.fixture
def said():
    return []


@pytest.fixture
def folder(tmp_path):
    return CheckpointFolder(tmp_path / "checkpoints", keep=3)


@pytest.fixture
def make_recovery(folder, said):
    def made(**settings):
        limits = {"max_updates": 100, "max_skipped": 3, "max_rollbacks": 2}
        return Recovery(TrainingConfig(**{**limits, **settings}), folder, said.append)

    return made


class SmallDevice:
    """Stands in for an update, with memory for so many rows of a micro-batch."""

    def __init__(self, num_rows):
        self.num_rows, self.accumulation_steps = num_rows, 1

    @property
    def rows_multiple(self):
        return self.accumulation_steps

    def start(self, batch, *, update, learning_rate):
        if len(batch.weights) // self.accumulation_steps > self.num_rows:
            raise OutOfMemoryError
        return lambda: (len(batch.weights), update, learning_rate)

    def halve_micro_batches(self):
        self.accumulation_steps *= 2


def batch_of(num_rows):
    ids = np.full((num_rows, 4), 5, np.int32)
    return Batch(0, 0, ids, ids, np.ones(num_rows, np.float32))


def test_an_update_that_fits_is_started_as_it_is(make_recovery, said):
    wait = make_recovery().start_update(SmallDevice(6), batch_of(6), number=9, learning_rate=0.5)
    assert wait() == (6, 9, 0.5)
    assert said == []


def test_micro_batches_are_halved_until_they_fit(make_recovery, said):
    update = SmallDevice(2)
    wait = make_recovery().start_update(update, batch_of(6), number=1234, learning_rate=0.5)
    assert update.accumulation_steps == 4
    assert wait() == (8, 1234, 0.5)  # 6 rows, and 2 that fill up
    assert said == [
        f"update 1,234: not enough memory. Batches are now cut into {steps} micro-batches, which changes only the "
        f"masks of dropout. Set training.accumulation_steps={steps} to avoid this in the next run."
        for steps in (2, 4)
    ]


def test_a_single_pair_that_does_not_fit_is_an_error(make_recovery):
    with pytest.raises(UserError, match=r"^update 1: not enough memory, even for one sentence pair.*data\.max_length"):
        make_recovery().start_update(SmallDevice(0), batch_of(6), number=1, learning_rate=0.5)


def record(recovery, *applied):
    for number, is_applied in enumerate(applied, 1):
        recovery.record_outcome(number, Outcome({"loss": 1.0}, 5, is_applied))


def test_the_first_skipped_update_of_a_row_is_logged(make_recovery, said):
    recovery = make_recovery()
    record(recovery, True, False, False, True, False)
    assert said == [f"update {n}: the gradient is not finite; the update was skipped." for n in (2, 5)]
    assert recovery.num_skipped == 1


def test_float16_skips_updates_without_a_word(make_recovery, said):
    recovery = make_recovery(precision="float16")
    record(recovery, False)
    assert (recovery.num_skipped, said) == (1, [])


def test_so_many_skipped_updates_in_a_row_require_a_rollback(make_recovery):
    recovery = make_recovery(max_skipped=3)
    record(recovery, False, False, True, False, False)
    assert not recovery.is_exhausted
    record(recovery, False)
    assert recovery.is_exhausted


def test_a_rollback_returns_the_last_checkpoint_and_is_counted(make_recovery, folder, said):
    for update in (5, 10):
        folder.save(Checkpoint(Progress(update, epoch=update), {"weights": {"bias": np.full(2, update)}}, {}))
    recovery = make_recovery()
    record(recovery, False, False, False)
    found = recovery.roll_back(Progress(update=13, rollbacks=1), last_update=13)
    assert found.progress == Progress(10, epoch=10, rollbacks=2)
    np.testing.assert_array_equal(found.arrays["weights"]["bias"], [10, 10])
    assert not recovery.is_exhausted
    assert said[-1] == (
        "The gradient was not finite in 3 updates in a row, up to update 13. Rolling back to update 10 with 0.25 times "
        "the learning rate (rollback 2 of at most 2)."
    )


@pytest.mark.parametrize(
    ("rollbacks", "tried"),
    [(1, ", although the learning rate was halved once"), (2, ", although the learning rate was halved 2 times")],
)
def test_rollbacks_have_a_limit(make_recovery, folder, rollbacks, tried):
    folder.save(Checkpoint(Progress(5), {}, {}))
    recovery = make_recovery(max_rollbacks=rollbacks)
    record(recovery, False, False, False)
    words = f"in 3 updates in a row, up to update 9{tried}. Lower training.learning_rate or training.clip_norm; check"
    with pytest.raises(DivergenceError, match=re.escape(words)):
        recovery.roll_back(Progress(update=9, rollbacks=rollbacks), last_update=9)


def test_without_a_checkpoint_there_is_nothing_to_roll_back_to(make_recovery):
    recovery = make_recovery()
    record(recovery, False, False, False)
    with pytest.raises(DivergenceError, match=r"up to update 3\. Lower"):
        recovery.roll_back(Progress(update=3), last_update=3)
