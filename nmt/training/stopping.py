"""When a training stops: its limits, patience, callbacks and signals, on which all workers must agree."""

import time
from typing import Any, NamedTuple

from nmt.config.schema import TrainingConfig
from nmt.training.budget import compute_share
from nmt.training.checkpoint import Progress
from nmt.training.workers import Workers


class Stop(NamedTuple):
    """Whether to stop after an update, and why."""

    signal_number: int = 0
    """The signal that interrupts the training, or 0."""
    reason: str | None = None
    """The limit that ends it, or None."""


class Stopping:
    """Decides after each update whether a training stops.

    Args:
        settings: the limits and the patience.
        workers: the processes that must stop together.
        model: the model, whose attribute `stop_training` a Keras callback may set.
        batches_per_epoch: updates in one pass over the corpus.
        started: when the process started, by `time.monotonic()`.
    """

    def __init__(
        self, settings: TrainingConfig, workers: Workers, model: Any, *, batches_per_epoch: int, started: float
    ):
        self.settings, self.workers, self.model = settings, workers, model
        self.batches_per_epoch, self.started = batches_per_epoch, started

    @property
    def minutes(self) -> float:
        """Minutes since the process started."""
        return (time.monotonic() - self.started) / 60

    @property
    def max_updates(self) -> int | None:
        """The update after which the training stops at the latest, or None if only other limits are set."""
        epochs = self.settings.max_epochs
        limits = [self.settings.max_updates, epochs and epochs * self.batches_per_epoch]
        return min((limit for limit in limits if limit), default=None)

    def agree_on_stop(self, progress: Progress, signal_number: int) -> Stop:
        """Returns the decision of all workers; each of them must call this after the same update.

        Args:
            progress: where the run stands.
            signal_number: the signal that this worker received, or 0.
        """
        reason = self.check_limits(progress)
        if self.workers.count == 1:
            return Stop(signal_number, reason)
        signals, limits = self.workers.all_gather(signal_number, reason is not None)
        return Stop(int(signals.max()), reason or ("another worker reached its limit" if limits.any() else None))

    def check_limits(self, progress: Progress) -> str | None:
        """Returns the limit that this worker has reached, in words, or None."""
        settings, minutes = self.settings, self.minutes
        epochs = progress.epoch + (progress.batch >= self.batches_per_epoch)
        if settings.max_updates and progress.update >= settings.max_updates:
            return f"max_updates {settings.max_updates:,} reached"
        if settings.max_epochs and epochs >= settings.max_epochs:
            return f"max_epochs {settings.max_epochs:,} reached"
        if settings.max_minutes and minutes >= settings.max_minutes:
            return f"max_minutes {settings.max_minutes:g} reached"
        if settings.budget_minutes and compute_share(progress, settings.budget_minutes) >= 1:
            return f"budget_minutes {settings.budget_minutes:g} used, except for the end"
        if settings.patience and progress.validations_since_best >= settings.patience:
            return describe_plateau(settings.patience)
        return "a callback requested it" if getattr(self.model, "stop_training", False) else None


def describe_plateau(patience: int) -> str:
    """Returns a sentence with the number of validations that were no better than the best one."""
    return f"no improvement in {patience} {'validation' if patience == 1 else 'validations'}"
