import math
import re

import numpy as np
import pytest

from nmt.config.schema import TrainingConfig
from nmt.data.batching import Batch
from nmt.errors import DivergenceError, OutOfMemoryError, UserError
from nmt.training.checkpoint import Checkpoint, CheckpointFolder, Progress
from nmt.training.recovery import Recovery, compute_loss_limit
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
        recovery.record_outcome(number, Outcome({"loss": 1.0}, 5, is_applied), Progress())


def test_the_first_skipped_update_of_a_row_is_logged(make_recovery, said):
    recovery = make_recovery()
    record(recovery, True, False, False, True, False)
    assert said == [f"update {n}: the gradient is not finite; the update was skipped." for n in (2, 5)]
    assert recovery.num_failed == 1


def test_float16_skips_updates_without_a_word(make_recovery, said):
    recovery = make_recovery(precision="float16")
    record(recovery, False)
    assert (recovery.num_failed, said) == (1, [])


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
    words = f"in 3 updates in a row, up to update 9{tried}. Lower training.learning_rate or training.clip_norm, raise"
    with pytest.raises(DivergenceError, match=rf"{re.escape(words)}.* Checkpoints are in {folder.path}\.$"):
        recovery.roll_back(Progress(update=9, rollbacks=rollbacks), last_update=9)


def test_a_limit_that_was_lowered_below_the_rollbacks_so_far_is_reached(make_recovery, folder):
    folder.save(Checkpoint(Progress(5), {}, {}))
    recovery = make_recovery(max_rollbacks=1)
    record(recovery, False, False, False)
    with pytest.raises(DivergenceError, match=r"up to update 9, although the learning rate was halved 3 times\."):
        recovery.roll_back(Progress(update=9, rollbacks=3), last_update=9)


@pytest.mark.parametrize(
    ("precision", "advice"), [("float32", ""), ("bfloat16", ", or set training.precision=float32")]
)
def test_without_a_checkpoint_none_is_named(make_recovery, precision, advice):
    recovery = make_recovery(precision=precision)
    record(recovery, False, False, False)
    words = rf"up to update 3\. Lower .*, raise training\.warmup_updates{advice}.*\. There is no checkpoint yet\.$"
    with pytest.raises(DivergenceError, match=words):
        recovery.roll_back(Progress(update=3), last_update=3)


def outcomes(recovery, *losses, first=1, progress=None):
    """Records losses, and returns the progress after them."""
    progress = progress or Progress()
    for number, loss in enumerate(losses, first):
        progress = recovery.record_outcome(number, Outcome({"loss": loss}, 5, math.isfinite(loss)), progress)
    return progress


def test_a_loss_that_stays_far_above_its_lowest_mean_requires_a_rollback(make_recovery, folder, said):
    folder.save(Checkpoint(Progress(30), {}, {}))
    recovery = make_recovery(max_skipped=3)
    progress = outcomes(recovery, *[3.0] * 30)
    assert compute_loss_limit(progress) == 6.0
    progress = outcomes(recovery, *[6.5] * 29, first=31, progress=progress)
    assert (recovery.num_failed, recovery.is_exhausted) == (29, False)
    progress = outcomes(recovery, 6.5, first=60, progress=progress)
    assert recovery.is_exhausted
    found = recovery.roll_back(progress, last_update=60)
    assert (found.progress, recovery.num_failed) == (Progress(30, rollbacks=1), 0)
    assert said == [
        "The loss, 3.00 at its lowest, was above 6.00 in 30 updates in a row, up to update 60. Rolling back to "
        "update 30 with 0.5 times the learning rate (rollback 1 of at most 2)."
    ]


def test_a_skipped_update_among_high_losses_is_not_taken_for_the_only_failure(make_recovery, folder, said):
    folder.save(Checkpoint(Progress(30), {}, {}))
    recovery = make_recovery(max_skipped=3)
    progress = outcomes(recovery, *[3.0] * 30)
    progress = outcomes(recovery, *[6.5] * 29, math.nan, first=31, progress=progress)
    assert recovery.is_exhausted
    recovery.roll_back(progress, last_update=60)
    assert said[-1].startswith("The loss, 3.00 at its lowest, was above 6.00 in 30 updates in a row, up to update 60. ")


@pytest.mark.parametrize(
    "losses",
    [
        [9.0] * 20 + [50.0] * 9 + [4.0] * 40,  # before there is a mean to compare with
        [3.0] * 40 + [9.0] * 29 + [3.0] + [9.0] * 29,  # never 30 in a row
        [0.2] * 40 + [1.1] * 60,  # five times a loss that is close to 0
        [3.0] * 40 + [5.9] * 60,  # not twice as high
    ],
)
def test_a_loss_that_is_high_for_a_while_is_accepted(make_recovery, losses):
    recovery = make_recovery()
    progress = Progress()
    for number, loss in enumerate(losses, 1):
        progress = outcomes(recovery, loss, first=number, progress=progress)
        assert not recovery.is_exhausted


def test_a_loss_that_explodes_and_then_is_not_finite_is_counted_by_what_came_last(make_recovery, folder, said):
    folder.save(Checkpoint(Progress(30), {}, {}))
    recovery = make_recovery(max_skipped=3)
    progress = outcomes(recovery, *[3.0] * 30, *[99.0] * 5, *[math.nan] * 3)
    assert recovery.is_exhausted
    recovery.roll_back(progress, last_update=38)
    assert said[-1].startswith("The gradient was not finite in 3 updates in a row, up to update 38. Rolling back to")
