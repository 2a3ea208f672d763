"""Measures the time of a run (`training.budget_minutes`): the time used so far, and the time needed for its end."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from nmt.config.schema import TrainingConfig
from nmt.training.checkpoint import Progress
from nmt.training.workers import Workers

# The end of a run may take this much longer than the last validation and checkpoint before it. The last update, which
# may begin just before the end, takes its time from this margin.
END_FACTOR = 1.25
VALIDATION, CHECKPOINT = "validation", "checkpoint"


class Budget:
    """Measures the time of a run that has a budget.

    Times are part of `Progress`, as measured by the chief. The learning rate and the end of a run are therefore the
    same on all workers, and a resumed run continues with the next learning rate.

    Args:
        settings: `budget_minutes` and `average_last` are read.
        workers: the processes that train together.
        started: when the process started, by `time.monotonic()`.
    """

    def __init__(self, settings: TrainingConfig, workers: Workers, *, started: float):
        self.workers, self.started = workers, started
        self.is_set = settings.budget_minutes is not None
        # The average of the last checkpoints is validated as well, and followed by another checkpoint.
        self._num_ends = 2 if settings.average_last > 1 else 1
        self._seconds: dict[str, float] = {}

    def resume(self, progress: Progress) -> None:
        """Counts the time that earlier processes of the run have used."""
        self.started -= progress.seconds

    def needs(self, name: str) -> bool:
        """Returns whether a run with a budget has yet to measure something in this process."""
        return self.is_set and name not in self._seconds

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Measures something that will happen once more at the end of the run, such as a validation."""
        before = time.monotonic()
        yield
        self._seconds[name] = time.monotonic() - before

    def count_time(self, progress: Progress) -> Progress:
        """Returns the progress with the time that the run has used until now; all workers must call this."""
        if not self.is_set:
            return progress
        end = END_FACTOR * self._num_ends * sum(self._seconds.values())
        if VALIDATION not in self._seconds:
            end = max(end, progress.end_seconds)  # as an earlier process has measured it
        used, ends = self.workers.all_gather(time.monotonic() - self.started, end)
        return replace(progress, seconds=float(used[0]), end_seconds=float(ends[0]))


def compute_share(progress: Progress, minutes: float) -> float:
    """Returns the share of a budget that a run has used, from 0 to 1, not counting the time reserved for the end."""
    available = 60 * minutes - progress.end_seconds
    return min(1.0, progress.seconds / available) if available > 0 else 1.0
