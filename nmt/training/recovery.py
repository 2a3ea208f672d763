"""What follows an update that failed: not enough memory, a loss or gradient that is not finite, or a high loss."""

import math
from collections.abc import Callable
from dataclasses import replace

from nmt.config.schema import TrainingConfig
from nmt.data.batching import Batch
from nmt.data.preparation import Log
from nmt.errors import DivergenceError, OutOfMemoryError, UserError
from nmt.training.checkpoint import Checkpoint, CheckpointFolder, Progress
from nmt.training.update import Outcome, Update

# A loss is too high if it exceeds the lowest mean over some updates by this factor and this margin. It takes many such
# updates in a row to roll back, since a single batch may be hard.
HIGH_FACTOR = 2.0
HIGH_MARGIN = 1.0  # nats per token; a loss close to 0 doubles easily
HIGH_UPDATES = 30


class Recovery:
    """Counts failed updates, goes back to a checkpoint after too many, and halves micro-batches that do not fit.

    Args:
        settings: `max_skipped`, `max_rollbacks` and `precision` are read.
        checkpoints: the checkpoints of the run.
        log: receives one message per line.
    """

    def __init__(self, settings: TrainingConfig, checkpoints: CheckpointFolder, log: Log):
        self.settings, self.checkpoints, self.log = settings, checkpoints, log
        self.num_failed = 0
        """Updates in a row, up to the last known outcome, that were not applied or had too high a loss."""
        self._num_skipped = 0

    @property
    def is_exhausted(self) -> bool:
        """Whether enough updates failed for the run to roll back."""
        limit = self.settings.max_skipped
        return self._num_skipped >= limit or self.num_failed >= max(limit, HIGH_UPDATES)

    def start_update(self, update: Update, batch: Batch, *, number: int, learning_rate: float) -> Callable[[], Outcome]:
        """Starts an update, cutting its batch into as many micro-batches as the memory requires.

        Returns:
            A function that waits for the outcome.

        Raises:
            UserError: there is not enough memory for a single pair.
        """
        while True:
            try:
                return update.start(batch.pad_rows(update.rows_multiple), update=number, learning_rate=learning_rate)
            except OutOfMemoryError as error:
                if update.rows_multiple >= len(batch.weights):
                    raise UserError(
                        f"update {number:,}: not enough memory, even for one sentence pair at a time. Lower "
                        "data.max_length or the sizes of the model."
                    ) from error
                update.halve_micro_batches()
                steps = update.accumulation_steps
                self.log(
                    f"update {number:,}: not enough memory. Batches are now cut into {steps} micro-batches, which "
                    f"changes only the masks of dropout. Set training.accumulation_steps={steps} to avoid this in the "
                    "next run."
                )

    def record_outcome(self, number: int, outcome: Outcome, progress: Progress) -> Progress:
        """Counts an update that failed or was skipped, and returns the progress with the loss of one that was applied.

        Args:
            number: number of the update.
            outcome: its outcome.
            progress: where the run stands.
        """
        limit = compute_loss_limit(progress)
        if outcome.is_applied:
            self._num_skipped = 0
            self.num_failed = self.num_failed + 1 if outcome.loss > limit else 0
            return progress.count_loss(number, outcome.loss, window=HIGH_UPDATES)
        self._num_skipped += 1
        self.num_failed += 1
        # float16 skips updates in the normal course of things, to find its loss scale.
        if self._num_skipped == 1 and self.settings.precision != "float16":
            self.log(f"update {number:,}: the gradient is not finite; the update was skipped.")
        return progress

    def roll_back(self, progress: Progress, *, last_update: int) -> Checkpoint:
        """Returns the newest checkpoint, with one more rollback in its progress: each halves the learning rate.

        Args:
            progress: where the run stands.
            last_update: number of the last update that failed.

        Raises:
            DivergenceError: there is no checkpoint, or `max_rollbacks` is reached.
        """
        failed = f"{self._describe_failures(progress)} in a row, up to update {last_update:,}"
        checkpoint = self.checkpoints.load_latest(self.log)
        rollbacks, limit = progress.rollbacks, self.settings.max_rollbacks
        if checkpoint is None or rollbacks >= limit:
            times = "once" if rollbacks == 1 else f"{rollbacks} times"
            tried = f", although the learning rate was halved {times}" if rollbacks else ""
            raise DivergenceError(f"{failed}{tried}. {self._advise(has_checkpoint=checkpoint is not None)}")
        rollbacks += 1
        self.log(
            f"{failed}. Rolling back to update {checkpoint.progress.update:,} with {0.5**rollbacks:g} times the "
            f"learning rate (rollback {rollbacks} of at most {limit})."
        )
        return self.resume_from(checkpoint, replace(progress, rollbacks=rollbacks))

    def resume_from(self, checkpoint: Checkpoint, progress: Progress) -> Checkpoint:
        """Returns a checkpoint with what the updates after it leave behind when they are undone, and forgets failures.

        The best model stays theirs, if they had a better one. Their time stays used.

        Args:
            checkpoint: the one to return to.
            progress: where the run stands.
        """
        self.num_failed = self._num_skipped = 0
        resumed = replace(
            checkpoint.progress,
            rollbacks=progress.rollbacks,
            best_score=progress.best_score,
            best_loss=progress.best_loss,
            seconds=progress.seconds,
        )
        return replace(checkpoint, progress=resumed)

    def _describe_failures(self, progress: Progress) -> str:
        if self._num_skipped >= self.settings.max_skipped:
            return f"The gradient was not finite in {self._num_skipped} updates"
        limit, lowest = compute_loss_limit(progress), progress.lowest_loss or 0.0
        return f"The loss, {lowest:.2f} at its lowest, was above {limit:.2f} in {self.num_failed} updates"

    def _advise(self, *, has_checkpoint: bool) -> str:
        """Returns what to change for a new run, and which checkpoints there are."""
        precision = self.settings.precision
        wider = "" if precision == "float32" else f", or set training.precision=float32 (it is {precision})"
        saved = f"Checkpoints are in {self.checkpoints.path}." if has_checkpoint else "There is no checkpoint yet."
        return f"Lower training.learning_rate or training.clip_norm, raise training.warmup_updates{wider}. {saved}"


def compute_loss_limit(progress: Progress) -> float:
    """Returns the loss above which an update counts as failed; infinite while there is nothing to compare with."""
    lowest = progress.lowest_loss
    return math.inf if lowest is None else max(HIGH_FACTOR * lowest, lowest + HIGH_MARGIN)
