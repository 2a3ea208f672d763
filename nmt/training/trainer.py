"""The training loop: one batch is one update, with validations and checkpoints in between."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from nmt.backend import keras
from nmt.compilation import has_static_shapes
from nmt.config.schema import Config
from nmt.data.batching import Batch, BatchLoader, BatchPlan, prefetch
from nmt.data.preparation import Log, prepare_training_data
from nmt.errors import InterruptionError
from nmt.model_folder import ModelFolder
from nmt.signals import SignalFlag
from nmt.training.backends import make_update, make_workers
from nmt.training.best_model import BestModel
from nmt.training.checkpoint import Checkpoint, Checkpointer, CheckpointFolder, Progress
from nmt.training.recovery import Recovery
from nmt.training.run_folder import RunFolder, Writer
from nmt.training.run_log import RunLog
from nmt.training.schedules import make_schedule
from nmt.training.stopping import Stopping
from nmt.training.update import Outcome
from nmt.training.validation import Validation, Validator
from nmt.weights import assign_arrays


class PendingUpdate(NamedTuple):
    """An update that was started and whose outcome is not known yet."""

    number: int
    epoch: int
    learning_rate: float
    wait: Callable[[], Outcome]


class Trainer:
    """One run: the loop over its batches, and the objects that the loop consults.

    Args:
        config: the configuration.
        folder: the run folder, locked and prepared.
        strategy: the devices, as from `make_strategy`.
        callbacks: Keras callbacks.
        log: receives one message per line.
        started: when the process started, by `time.monotonic()`.
    """

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        *,
        strategy: Any,
        callbacks: Sequence[keras.callbacks.Callback],
        log: Log,
        started: float,
    ):
        self.config, self.folder, self.log = config, folder, log
        self.settings = settings = config.training
        self.workers = workers = make_workers(strategy)
        self.data = workers.chief_first(lambda: prepare_training_data(config, folder.path, log))
        for name, fingerprint in self.data.fingerprints.items():
            workers.check_equal(name, fingerprint)
        self.plan = BatchPlan(self.data.lengths, by=settings.batch_by, size=settings.batch_size, seed=config.seed)
        with ThreadPoolExecutor(1) as beside:
            # Ordering millions of pairs takes as long as the first update.
            beside.submit(self.plan.draw_epoch, 0)
            self.model, self.update = make_update(config, self.data.vocabulary_sizes, strategy)
        writer = Writer(settings.on_full_disk, log)
        checkpoints = CheckpointFolder(folder.checkpoints, settings.keep_checkpoints)
        self.checkpointer = Checkpointer(checkpoints, self.update, self.data.fingerprints, workers, writer)
        self.schedule = make_schedule(settings)
        self.recovery = Recovery(settings, checkpoints, log)
        self.stopping = Stopping(
            settings, workers, self.model, batches_per_epoch=self.plan.num_batches, started=started
        )
        validator = Validator(config, self.data, workers)
        self.best = BestModel(config, self.data, validator, folder.best, writer if workers.is_chief else None)
        self.callbacks = keras.callbacks.CallbackList(list(callbacks), model=self.model)
        self.run_log = RunLog(
            folder,
            log,
            every=settings.log_every,
            total=self.stopping.max_updates,
            tensorboard=settings.tensorboard,
            silent=not workers.is_chief,
        )
        self.progress = Progress()
        self.pending: PendingUpdate | None = None
        self.last_metrics: dict[str, float] = {}
        self.last_validation: Validation | None = None
        self.is_fork = False

    def run(self, initial: ModelFolder | None, signals: SignalFlag) -> Path:
        """Trains until a limit is reached or a signal arrives, and returns the folder of the best model.

        Args:
            initial: the model that a fork starts from.
            signals: set by a signal that asks the run to stop.
        """
        self.is_fork = initial is not None
        self._restore(initial)
        self.callbacks.on_train_begin()
        try:
            reason = self.stopping.check_limits(self.progress) or self._train(signals)
            self._finish(reason)
        finally:
            self.update.close()
            self.run_log.close()
            self.callbacks.on_train_end()
        self.workers.barrier()  # a worker that exits before the others would seem to be lost
        return self.folder.best

    def make_loader(self) -> BatchLoader:
        """Returns the loader of the run's batches."""
        return BatchLoader(
            self.data.tokenized,
            self.data.kept,
            self.plan,
            multiple=self.update.rows_multiple,
            pad_to_buckets=has_static_shapes(),
        )

    def _train(self, signals: SignalFlag) -> str:
        """Trains until a limit is reached, and returns it in words."""
        loader = self.make_loader()
        self.update.precompile(self.plan.shapes)
        while True:
            epoch = None
            for batch in prefetch(loader.stream_batches(self.progress.epoch, self.progress.batch)):
                if batch.epoch != epoch:
                    epoch = batch.epoch
                    self.callbacks.on_epoch_begin(epoch)
                self._train_on(batch)
                if not self.recovery.is_exhausted and (self._must_wait() or signals.signal_number):
                    self._await_pending()
                if self.recovery.is_exhausted:
                    self._roll_back()
                    break  # continue with the batches after that checkpoint
                if self.progress.update % self.settings.validate_every == 0:
                    self._validate()
                if self.progress.batch == self.plan.num_batches:
                    self._end_epoch(batch.epoch)
                # A state that skips updates may be broken; rolling back to it would not help.
                if self.progress.update % self.settings.checkpoint_every == 0 and not self.recovery.num_skipped:
                    self.checkpointer.save(self.progress)
                stop = self.stopping.agree_on_stop(self.progress, signals.signal_number)
                if stop.signal_number:
                    self._interrupt(stop.signal_number)
                if stop.reason:
                    return stop.reason

    def _train_on(self, batch: Batch) -> None:
        """Starts the update of a batch, then waits for the one before, so that devices do not wait for the host."""
        number = self.progress.update + 1
        learning_rate = self.schedule(number) * 0.5**self.progress.rollbacks
        self.callbacks.on_train_batch_begin(number)
        wait = self.recovery.start_update(self.update, batch, number=number, learning_rate=learning_rate)
        self._await_pending()
        self.pending = PendingUpdate(number, batch.epoch, learning_rate, wait)
        self.progress = self.progress.count_batch(batch.epoch, batch.index)

    def _await_pending(self) -> None:
        """Waits for the update that was started last, if its outcome is not known yet, and records the outcome."""
        if self.pending is None:
            return
        (number, epoch, learning_rate, wait), self.pending = self.pending, None
        outcome = wait()
        self.recovery.record_outcome(number, outcome)
        self.run_log.record_update(number, epoch, learning_rate, outcome)
        self.last_metrics = dict(outcome.metrics)
        self.callbacks.on_train_batch_end(number, self.last_metrics)

    def _must_wait(self) -> bool:
        """Whether what follows depends on the outcome of the last update, or the outcome is there already."""
        update, settings = self.progress.update, self.settings
        return (
            not self.update.runs_ahead
            or bool(self.callbacks.callbacks or self.recovery.num_skipped)
            or update % settings.validate_every == 0
            or update % settings.checkpoint_every == 0
            or update == settings.max_updates
            or self.progress.batch == self.plan.num_batches
        )

    def _end_epoch(self, epoch: int) -> None:
        last = self.last_validation
        validation = {"val_loss": last.loss, "val_bleu": last.bleu} if last else {}
        self.callbacks.on_epoch_end(epoch, {**self.last_metrics, **validation})

    def _validate(self) -> None:
        weights = self.update.get_evaluated_weights()
        scored = self.best.score(weights, self.progress)
        self.progress = self.progress.count_validation(scored.score, scored.is_best)
        if scored.is_best:
            self.best.save(weights, scored.validation, self.progress)
        self.run_log.record_validation(self.progress.update, scored.validation, scored.is_best)
        self.last_validation = scored.validation

    def _restore(self, initial: ModelFolder | None) -> None:
        """Resumes from the newest checkpoint, or starts from the weights of a model or from scratch."""
        checkpoint = self.checkpointer.load_latest(self.log)
        if checkpoint:
            self._assign(checkpoint)
            self.log(f"Resuming the run in {self.folder.path} after update {self.progress.update:,}.")
            return
        if initial:
            assign_arrays(self.model.trainable_variables, initial.weights, "The model to fork")
            self.update.restart_averages()
            # Otherwise a fork that is killed before its first checkpoint would resume from random weights.
            self.checkpointer.save(self.progress)
        self.run_log.forget_after(0)

    def _roll_back(self) -> None:
        """Returns to the last checkpoint with half the learning rate, for good."""
        last = self.pending.number - 1 if self.pending else self.progress.update
        self.pending = None  # whatever came of the update after the last skipped one, it is undone
        self._assign(self.recovery.roll_back(self.progress, last_update=last))
        # Otherwise a run that is killed now would resume with the old learning rate.
        self.checkpointer.save(self.progress)

    def _assign(self, checkpoint: Checkpoint) -> None:
        self.checkpointer.assign(checkpoint)
        self.progress = checkpoint.progress
        self.run_log.forget_after(self.progress.update)

    def _interrupt(self, signal_number: int) -> None:
        """Saves the run and raises InterruptionError."""
        self._await_pending()
        saved = self.checkpointer.save(self.progress)
        where = f"saved in {self.folder.path}" if saved else "it could not be saved, but earlier checkpoints are intact"
        self.run_log.close()
        the = f"Without --fork, and with run_dir={self.folder.path}, the" if self.is_fork else "The"
        raise InterruptionError(
            f"Interrupted after update {self.progress.update:,}; {where}. {the} same command resumes it.",
            signal_number,
        )

    def _finish(self, reason: str) -> None:
        """Validates and saves the last update, and tries the average of the last checkpoints."""
        self._await_pending()
        self.log(f"Finished: {reason}, after {self.stopping.minutes:.1f} minutes.")
        if self.progress.validated != self.progress.update or self.progress.best_score is None:
            self._validate()
        self.checkpointer.save(self.progress)
        if self.settings.average_last > 1:
            self.best.try_average(self.checkpointer.list_last(self.settings.average_last), self.progress, self.log)
