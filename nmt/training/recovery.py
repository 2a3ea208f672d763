"""What follows an update that failed: too little memory, or a loss or gradient that is not finite."""

from collections.abc import Callable
from dataclasses import replace

from nmt.config.schema import TrainingConfig
from nmt.data.batching import Batch
from nmt.data.preparation import Log
from nmt.errors import DivergenceError, OutOfMemoryError, UserError
from nmt.training.checkpoint import Checkpoint, CheckpointFolder, Progress
from nmt.training.update import Outcome, Update


class Recovery:
    """Counts skipped updates, goes back to a checkpoint after too many, and halves micro-batches that do not fit.

    Args:
        settings: `max_skipped`, `max_rollbacks` and `precision` are read.
        checkpoints: the checkpoints of the run.
        log: receives one message per line.
    """

    def __init__(self, settings: TrainingConfig, checkpoints: CheckpointFolder, log: Log):
        self.settings, self.checkpoints, self.log = settings, checkpoints, log
        self.num_skipped = 0
        """Updates in a row, up to the last known outcome, that were not applied."""

    @property
    def is_exhausted(self) -> bool:
        """Whether so many updates were skipped that the run must roll back."""
        return self.num_skipped == self.settings.max_skipped

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

    def record_outcome(self, number: int, outcome: Outcome) -> None:
        """Counts an update that was skipped, and logs the first in a row."""
        self.num_skipped = 0 if outcome.is_applied else self.num_skipped + 1
        # float16 skips updates in the normal course of things, to find its loss scale.
        if self.num_skipped == 1 and self.settings.precision != "float16":
            self.log(f"update {number:,}: the gradient is not finite; the update was skipped.")

    def roll_back(self, progress: Progress, *, last_update: int) -> Checkpoint:
        """Returns the newest checkpoint, with one more rollback in its progress: each halves the learning rate.

        Args:
            progress: where the run stands.
            last_update: number of the last update that was skipped.

        Raises:
            DivergenceError: there is no checkpoint, or `max_rollbacks` is reached.
        """
        skipped = f"The gradient was not finite in {self.num_skipped} updates in a row, up to update {last_update:,}"
        checkpoint = self.checkpoints.load_latest(self.log)
        rollbacks, limit = progress.rollbacks, self.settings.max_rollbacks
        if checkpoint is None or rollbacks == limit:
            times = "once" if rollbacks == 1 else f"{rollbacks} times"
            tried = f", although the learning rate was halved {times}" if rollbacks else ""
            raise DivergenceError(
                f"{skipped}{tried}. Lower training.learning_rate or training.clip_norm; checkpoints are in "
                f"{self.checkpoints.path}."
            )
        rollbacks += 1
        self.log(
            f"{skipped}. Rolling back to update {checkpoint.progress.update:,} with {0.5**rollbacks:g} times the "
            f"learning rate (rollback {rollbacks} of at most {limit})."
        )
        self.num_skipped = 0
        return replace(checkpoint, progress=replace(checkpoint.progress, rollbacks=rollbacks))
