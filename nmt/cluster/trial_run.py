"""One trial in a worker's process: an ordinary training that tells Ray Tune of each validation."""

import contextlib
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from nmt.backend import keras
from nmt.cluster.trials import FAILED, FINISHED, Trial
from nmt.errors import DivergenceError, UserError
from nmt.files import append_line, wait_for_unlock
from nmt.training.trainer import train

PATIENCE = 60.0  # seconds until a process that a search before left behind must have ended


def run_trial(trial: Trial, report: Callable[[Mapping[str, Any]], object]) -> None:
    """Trains, or goes on with, one trial and writes down how it ended.

    Args:
        trial: its log goes to log.txt in its folder.
        report: takes the figures of a validation; may end the thread.
    """
    trial.folder.mkdir(parents=True, exist_ok=True)
    # A training in this folder whose search was killed is about to notice that, and ends.
    wait_for_unlock(trial.folder, seconds=PATIENCE)
    try:
        train(trial.config, callbacks=[Reporter(trial, report)], announce=lambda line: _log(trial, line))
    except (UserError, DivergenceError) as error:
        trial.end(FAILED, str(error))
    except Exception:
        _log(trial, traceback.format_exc())
        raise
    else:
        trial.end(FINISHED)


def _log(trial: Trial, line: str) -> None:
    with contextlib.suppress(OSError, UserError):  # a full disk ends no trial for the sake of its log
        append_line(trial.folder / "log.txt", line)


class Reporter(keras.callbacks.Callback):
    """Tells of the validations in a run's history, also of those before it was interrupted."""

    def __init__(self, trial: Trial, report: Callable[[Mapping[str, Any]], object]):
        super().__init__()
        self.trial, self.report = trial, report
        self.history = trial.folder / "history.jsonl"
        self.reported, self.size, self.stopped = 0, 0, False

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """The history of a run that is gone on with has its earlier validations."""
        self._tell()

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """A validation comes after its update, so it is seen before the next one."""
        self._tell()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """The last validation comes after the last update."""
        self._tell()

    def _tell(self) -> None:
        size = self.history.stat().st_size if self.history.exists() else 0
        if self.stopped or size == self.size:
            return
        self.size = size
        for validated in self.trial.validations()[self.reported :]:
            self.reported += 1
            # The scheduler ends a trial by an exception from here, on whose way out training ends as well.
            self.stopped = True
            self.report(
                {
                    "validations": self.reported,
                    "update": validated.update,
                    "bleu": validated.bleu,
                    "perplexity": validated.perplexity,
                    "score": validated.score(self.trial.config.training.best_by),
                }
            )
            self.stopped = False
