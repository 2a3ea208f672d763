"""Runs one trial in a worker's process: an ordinary training that reports each validation to Ray Tune."""

import contextlib
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from nmt.backend import keras
from nmt.cluster.trials import FAILED, FINISHED, Trial
from nmt.errors import DivergenceError, UserError
from nmt.files import append_line, wait_for_unlock
from nmt.training.train import train

PATIENCE = 60.0  # seconds in which a process left behind by an earlier search must have ended


def run_trial(trial: Trial, report: Callable[[Mapping[str, Any]], object]) -> None:
    """Trains or resumes one trial and records how it ended.

    Args:
        trial: the trial, whose log goes to log.txt in its folder.
        report: receives the results of a validation; it may end the thread.
    """
    trial.folder.mkdir(parents=True, exist_ok=True)
    # A training of a search that was killed may still be running in this folder; it is about to end.
    wait_for_unlock(trial.folder, seconds=PATIENCE)
    try:
        train(trial.config, callbacks=[Reporter(trial, report)], log=lambda line: _log(trial, line))
    except (UserError, DivergenceError) as error:
        trial.record_end(FAILED, str(error))
    except Exception:
        _log(trial, traceback.format_exc())
        raise
    else:
        trial.record_end(FINISHED)


def _log(trial: Trial, line: str) -> None:
    with contextlib.suppress(OSError, UserError):  # a full disk must not end a trial because of its log
        append_line(trial.folder / "log.txt", line)


class Reporter(keras.callbacks.Callback):
    """Reports the validations in a run's history, including those before an interruption."""

    def __init__(self, trial: Trial, report: Callable[[Mapping[str, Any]], object]):
        super().__init__()
        self.trial, self.report = trial, report
        self.history = trial.folder / "history.jsonl"
        self.reported, self.size, self.stopped = 0, 0, False

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Reports the earlier validations of a resumed run."""
        self._report_new()

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Reports the validation that followed the last update, if there was one."""
        self._report_new()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Reports the last validation, which follows the last update."""
        self._report_new()

    def _report_new(self) -> None:
        size = self.history.stat().st_size if self.history.exists() else 0
        if self.stopped or size == self.size:
            return
        self.size = size
        for validated in self.trial.read_validations()[self.reported :]:
            self.reported += 1
            # The scheduler stops a trial by an exception raised here, which ends the training on its way out.
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
