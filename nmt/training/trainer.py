"""The training loop: one batch is one update, with validations and checkpoints in between."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nmt.backend import keras
from nmt.compilation import has_static_shapes
from nmt.config.schema import Config
from nmt.data.batching import Batch, BatchLoader, BatchPlan, prefetch
from nmt.data.preparation import Log, prepare_training_data
from nmt.errors import InterruptionError, UnsavedError, UserError, WorkerLostError
from nmt.evaluation.calibration import MIN_SENTENCES, calibrate
from nmt.evaluation.promises import read_promises
from nmt.files import get_current_version
from nmt.model_folder import CONFIDENCE, ModelFolder
from nmt.signals import SignalFlag
from nmt.training.backends import make_update, make_workers
from nmt.training.best_model import BestModel, Scored
from nmt.training.budget import CHECKPOINT, VALIDATION, Budget, compute_share
from nmt.training.checkpoint import Checkpoint, Checkpointer, CheckpointFolder, Progress, average_checkpoints
from nmt.training.data_record import write_data
from nmt.training.pair_losses import PairLosses
from nmt.training.recovery import Recovery
from nmt.training.run_folder import RunFolder, Writer
from nmt.training.run_log import RunLog
from nmt.training.schedules import explain_idle_updates, find_idle_updates, make_schedule
from nmt.training.start import convert_weights
from nmt.training.stopping import Stopping, describe_plateau
from nmt.training.update import Outcome
from nmt.training.validation import Validation, Validator, explain_zero_bleu
from nmt.weights import assign_arrays

LATEST_FIRST_VALIDATION = 0.5
"""Share of a budget after which a run is validated if it never was."""
DEV_TEXT = "dev text"
"""Name of its fingerprint in checkpoints and messages."""
ATTENTION_SAMPLES = 4
"""Dev sentences whose attention TensorBoard shows."""
ZERO_VALIDATIONS = 3
"""Validations in a row with a BLEU of 0 after which the likely reasons are logged, once."""


class PendingUpdate(NamedTuple):
    """An update that was started and whose outcome is not known yet."""

    number: int
    batch: Batch
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
        promises = workers.chief_first(lambda: read_promises(config.data.promises) if config.data.promises else None)
        self.data = workers.chief_first(lambda: prepare_training_data(config, folder.path, log))
        for name, fingerprint in {**self.data.fingerprints, DEV_TEXT: self.data.dev_fingerprint}.items():
            workers.check_equal(name, fingerprint)
        self.plan = BatchPlan(
            self.data.lengths,
            by=settings.batch_by,
            size=settings.batch_size,
            seed=config.seed,
            shares=self.data.shares,
        )
        with ThreadPoolExecutor(1) as beside:
            # Ordering millions of pairs takes as long as the first update.
            beside.submit(self.plan.draw_epoch, 0)
            banned_ids = self.data.target_tokenizer.banned_ids
            self.model, self.update = make_update(config, self.data.vocabulary_sizes, strategy, banned_ids)
        self.writer = writer = Writer(settings.on_full_disk, log)
        if workers.is_chief:
            writer.try_write(lambda: write_data(folder, config, self.data), "data.json", update=0)
        checkpoints = CheckpointFolder(folder.checkpoints, settings.keep_checkpoints)
        self.checkpointer = Checkpointer(checkpoints, self.update, self.data.fingerprints, workers, writer)
        self.schedule = make_schedule(settings)
        self.budget = Budget(settings, workers, started=started)
        self.recovery = Recovery(settings, checkpoints, log)
        self.stopping = Stopping(
            settings, workers, self.model, batches_per_epoch=self.plan.num_batches, started=started
        )
        if warning := find_idle_updates(settings, self.stopping.max_updates):
            log(f"Warning: {warning}")
        self.may_idle = self.stopping.max_updates is None
        """Whether to warn once the learning rate is 0, since it was not known at the start that the run gets there."""
        self.validator = Validator(config, self.data, workers, promises)
        self.best = BestModel(config, self.data, self.validator, folder.best, workers, writer)
        self.callbacks = keras.callbacks.CallbackList(list(callbacks), model=self.model)
        self.run_log = RunLog(
            folder,
            log,
            every=settings.log_every,
            total=self.stopping.max_updates,
            tensorboard=settings.tensorboard,
            dev=self.data.dev,
            keep_translations=settings.keep_translations,
            silent=not workers.is_chief,
        )
        self.pair_losses: PairLosses | None = None
        if settings.keep_pair_losses and workers.is_chief:
            self.pair_losses = PairLosses(folder.pair_losses, len(self.data.corpus), every=settings.log_every)
        self.progress = Progress()
        self.saved_update: int | None = None
        """The update of the checkpoint that the run would be resumed from."""
        self.pending: PendingUpdate | None = None
        self.last_metrics: dict[str, float] = {}
        self.last_validation: Validation | None = None
        self.num_zero_scores = 0

    def run(self, initial: ModelFolder | None, signals: SignalFlag) -> Path:
        """Trains until a limit is reached or a signal arrives, and returns the folder of the best model.

        Args:
            initial: the model that a new run starts from, None for random weights.
            signals: set by a signal that asks the run to stop.
        """
        self._restore(initial)
        self.callbacks.on_train_begin()
        try:
            self.run_log.start()
            # Workers that did not start at the same moment may differ about max_minutes.
            reason = self.stopping.agree_on_stop(self.progress, 0).reason or self._train(signals)
            self._finish(reason)
        except WorkerLostError as error:
            raise WorkerLostError(f"{error} {self._explain_resuming('the run')}") from error
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
            weigh=self.data.weigh,
            guide=self.data.guide,
            find_pairs=self.data.find_pairs if self.pair_losses else None,
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
                if self._needs_validation():
                    if self.budget.needs(VALIDATION):
                        self.validator.compile()  # only once, so that the end need not set aside the time for it
                    with self.budget.measure(VALIDATION):
                        self._validate()
                    self._decay_on_plateau()
                if self.progress.batch == self.plan.num_batches:
                    self._end_epoch(batch.epoch)
                self.progress = self.budget.count_time(self.progress)
                # A state whose updates fail may be broken; rolling back to it would not help.
                if self._needs_checkpoint() and not self.recovery.num_failed:
                    with self.budget.measure(CHECKPOINT):
                        self._save()
                stop = self.stopping.agree_on_stop(self.progress, signals.signal_number)
                if stop.signal_number:
                    self._interrupt(stop.signal_number)
                if stop.reason:
                    return stop.reason

    def _train_on(self, batch: Batch) -> None:
        """Starts the update of a batch, then waits for the one before, so that devices do not wait for the host."""
        number = self.progress.update + 1
        learning_rate = self.schedule(self.progress)
        if self.may_idle and learning_rate == 0:
            self.may_idle = False
            self.log(f"Warning: {explain_idle_updates(self.settings, number)}")
        self.callbacks.on_train_batch_begin(number)
        wait = self.recovery.start_update(self.update, batch, number=number, learning_rate=learning_rate)
        self._await_pending()
        self.pending = PendingUpdate(number, batch, learning_rate, wait)
        self.progress = self.progress.count_batch(batch.epoch, batch.index)

    def _await_pending(self) -> None:
        """Waits for the update that was started last, if its outcome is not known yet, and records the outcome."""
        if self.pending is None:
            return
        (number, batch, learning_rate, wait), self.pending = self.pending, None
        outcome = wait()
        self.progress = self.recovery.record_outcome(number, outcome, self.progress)
        num_tokens = batch.num_target_tokens
        self.run_log.record_update(number, batch.epoch, learning_rate, outcome, num_tokens=num_tokens)
        if self.pair_losses:
            self.pair_losses.record(batch, outcome)
        self.last_metrics = dict(outcome.metrics)
        self.callbacks.on_train_batch_end(number, self.last_metrics)

    def _must_wait(self) -> bool:
        """Whether what follows depends on the outcome of the last update, or the outcome is there already."""
        update, settings = self.progress.update, self.settings
        return (
            not self.update.runs_ahead
            or bool(self.callbacks.callbacks or self.recovery.num_failed)
            or self._needs_validation()
            or update % settings.checkpoint_every == 0
            or update == settings.max_updates
            or self.progress.batch == self.plan.num_batches
        )

    def _needs_validation(self) -> bool:
        progress, budget = self.progress, self.settings.budget_minutes
        if progress.update % self.settings.validate_every == 0:
            return True
        # A budget must set aside the time of the last validation, so it needs to know how long one takes.
        return (
            budget is not None and not progress.validated and compute_share(progress, budget) >= LATEST_FIRST_VALIDATION
        )

    def _needs_checkpoint(self) -> bool:
        progress = self.progress
        # A run that restarts from its best model must never be resumed from before that was written.
        is_restartable = self.settings.plateau_restart and progress.validated == progress.update
        return progress.update % self.settings.checkpoint_every == 0 or is_restartable

    def _decay_on_plateau(self) -> None:
        """Lowers the learning rate if validations stopped improving, and goes back to the best model if that is set.

        Annealing restarts (Denkowski and Neubig 2017): updates and data are counted on, all else starts afresh.
        """
        settings = self.settings
        if settings.schedule != "plateau" or self.progress.plateau < settings.plateau_patience:
            return
        self.progress = self.progress.count_decay()
        if settings.plateau_restart:
            self.update.restart(self.workers.chief_first(self.best.load_weights))
        self.log(
            f"update {self.progress.update:,}: {describe_plateau(settings.plateau_patience)}. The learning rate is "
            f"{self.schedule(self.progress):.3g} from now on"
            + (", and training continues from the best model." if settings.plateau_restart else ".")
        )

    def _end_epoch(self, epoch: int) -> None:
        last = self.last_validation
        validation = {"val_loss": last.loss, "val_bleu": last.bleu} if last else {}
        if last and last.chrf is not None:
            validation["val_chrf"] = last.chrf
        self.callbacks.on_epoch_end(epoch, {**self.last_metrics, **validation})

    def _validate(self) -> None:
        weights = self.update.get_evaluated_weights()
        scored = self.best.score(weights, self.progress)
        self.progress = self.progress.count_validation(scored.is_best)
        if scored.is_best:
            self.progress = self.best.save(weights, scored, self.progress)
        else:
            self.progress = self.best.save_unwritten(self.progress)
        self.run_log.record_validation(self.progress.update, scored.validation, scored.is_best)
        if self.run_log.curves:
            self._show_inside(weights, scored)
        self.last_validation = scored.validation
        self._watch_for_zero(scored.validation)

    def _show_inside(self, weights: Mapping[str, np.ndarray], scored: Scored) -> None:
        """Gives TensorBoard the attention of some dev sentences and, of the best model so far, the token vectors."""
        update, dev = self.progress.update, {one.name: one for one in self.data.dev}
        pairs = [
            (dev[name].sources[line], translations[line])
            for name, line in self.run_log.choose_samples()[:ATTENTION_SAMPLES]
            if (translations := scored.validation.get_translations(name))
        ]
        if pairs:
            self.run_log.record_attention(update, self.validator.read_attention(pairs))
        if scored.is_best:
            tokenizers = {"source": self.data.source_tokenizer, "target": self.data.target_tokenizer}
            tables = {
                f"{side}_embedding": (weights[path], tokenizer)
                for side, tokenizer in tokenizers.items()
                if (path := f"{side}_embedding/matrix") in weights  # a shared table is that of the source
            }
            self.run_log.record_embeddings(update, tables)

    def _watch_for_zero(self, validation: Validation) -> None:
        """Logs the likely reasons once BLEU has been 0 in several validations."""
        self.num_zero_scores = 0 if validation.bleu else self.num_zero_scores + 1
        if self.num_zero_scores == ZERO_VALIDATIONS:
            self.log(
                f"Warning: BLEU was 0 in {ZERO_VALIDATIONS} validations in a row. "
                f"{explain_zero_bleu(self.config, validation)}"
            )

    def _save(self) -> bool:
        """Writes the best model if it is not written yet, and a checkpoint; returns as `_save_checkpoint` does."""
        self.progress = self.best.save_unwritten(self.progress)
        return self._save_checkpoint()

    def _save_checkpoint(self) -> bool:
        """Writes a checkpoint, unless updates are failing; returns False if it could not be written."""
        if self.recovery.num_failed:
            return True
        if self.pair_losses:
            self.writer.try_write(self.pair_losses.save, "the losses of pairs", update=self.progress.update)
        is_saved = self.checkpointer.save(self.progress)
        if is_saved:
            self.saved_update = self.progress.update
        return is_saved

    def _restore(self, initial: ModelFolder | None) -> None:
        """Resumes from the newest checkpoint, or starts from the weights of a model or from scratch."""
        checkpoint = self.checkpointer.load_latest(self.log)
        # Only now: unlike the others, the dev text may change.
        self.checkpointer.facts = {**self.checkpointer.facts, DEV_TEXT: self.data.dev_fingerprint}
        if checkpoint:
            self._assign(checkpoint)
            self.budget.resume(self.progress)
            if self.pair_losses:
                self.pair_losses.restore(self.log)
            self._forget_missing_model()
            self.log(f"Resuming the run in {self.folder.path} after update {self.progress.update:,}.")
            # Older versions did not record it.
            if checkpoint.facts.get(DEV_TEXT, self.data.dev_fingerprint) != self.data.dev_fingerprint:
                self._score_best_again()
            return
        if initial:
            tokenizers = self.data.source_tokenizer, self.data.target_tokenizer
            weights = convert_weights(initial, self.model, tokenizers, self.log)
            assign_arrays(self.model.trainable_variables, weights, "training.start_from")
            self.update.restart_averages()
            # From here on the run can be resumed, whatever becomes of the model that it started from.
            if not self.checkpointer.save(self.progress):
                raise UnsavedError(f"The run was not started: {self.folder.path} cannot hold its first checkpoint.")
            self.saved_update = 0
        self.run_log.forget_after(0)

    def _score_best_again(self) -> None:
        """Scores the best model on a dev text that has changed, so that later models are compared on the same text."""
        before = self.progress.best_score
        if before is None:
            return
        unscored = replace(self.progress, best_score=None, best_loss=None)
        scored = self.best.score(self.workers.chief_first(self.best.load_weights), unscored)
        self.progress = replace(self.progress, best_score=scored.score, best_loss=scored.validation.loss)
        self.log(
            f"Warning: the dev text has changed since update {self.progress.update:,}. On the new text, the best model "
            f"has {self.settings.best_by} {abs(scored.score):.3f} instead of {abs(before):.3f}. Scores that were "
            "recorded before are those on the old text."
        )

    def _roll_back(self) -> None:
        """Returns to the last checkpoint with half the learning rate, for good."""
        last = self.pending.number - 1 if self.pending else self.progress.update
        self.pending = None  # whatever came of the update after the last skipped one, it is undone
        self._assign(self.recovery.roll_back(self.progress, last_update=last))
        # Otherwise a run that is killed now would resume with the old learning rate.
        self._save_checkpoint()

    def _assign(self, checkpoint: Checkpoint) -> None:
        self.checkpointer.assign(checkpoint)
        self.progress = progress = checkpoint.progress
        self.saved_update = progress.update
        self.run_log.forget_after(
            progress.update,
            is_validated=progress.update in (progress.validated, progress.averaged),
            best=self.best.describe(progress),
        )

    def _interrupt(self, signal_number: int) -> None:
        """Saves the run and raises InterruptionError."""
        self._await_pending()
        saved = self._save()
        where = f"saved in {self.folder.path}" if saved else "it could not be saved, but earlier checkpoints are intact"
        if self.recovery.num_failed:
            where = "no checkpoint was saved, because updates were failing"
        self.run_log.close()
        raise InterruptionError(
            f"Interrupted after update {self.progress.update:,}; {where}. {self._explain_resuming('it')}", signal_number
        )

    def _explain_resuming(self, what: str) -> str:
        """Returns a sentence on how to resume the run, which it calls `what`."""
        command = "The same command" + (" on all workers" if self.workers.count > 1 else "")
        if not self.recovery.num_failed:
            return f"{command} resumes {what}."
        if self.saved_update is None:
            return f"{command} starts {what} again."
        return f"{command} resumes {what} after update {self.saved_update:,}."

    def _finish(self, reason: str) -> None:
        """Validates and saves the last update, and tries the average of the last checkpoints.

        Raises:
            UnsavedError: the best model or the last checkpoint could not be written.
        """
        self._await_pending()
        self.log(f"Finished: {reason}, after {self.stopping.minutes:.1f} minutes.")
        self._forget_missing_model()
        has_best = self.progress.best_score is not None or self.best.unwritten is not None
        if self.progress.validated != self.progress.update or not has_best:
            self._validate()
        if self.recovery.num_failed:
            self._undo_failed_updates()
        is_saved = self._save()
        if self.settings.average_last > 1 and self.progress.averaged != self.progress.update and is_saved:
            self._try_average()
            is_saved = self._save()
        if is_saved and not self.best.unwritten:
            self._calibrate()
            return
        if self.best.unwritten and is_saved:
            # The same command then validates these weights again, and so writes them.
            self.progress = replace(self.progress, validated=0, averaged=0)
            self._save_checkpoint()
        missing = "the best model" if self.best.unwritten else "the last checkpoint"
        raise UnsavedError(
            f"Training has ended, but {missing} could not be written to {self.folder.path}. Make room on the disk or "
            f"correct its permissions. {self._explain_resuming('the run')}"
        )

    def _undo_failed_updates(self) -> None:
        """Returns to the last checkpoint at the end of a run, if there is one, so that the run can be resumed there."""
        self.log(
            f"Updates were failing at the end, so that no checkpoint was saved. {self._explain_resuming('the run')}"
        )
        checkpoint = self.recovery.checkpoints.load_latest(self.log)
        if checkpoint is not None:
            self._assign(self.recovery.resume_from(checkpoint, self.progress))

    def _calibrate(self) -> None:
        """Fits the confidence of the best model on the dev text, unless it has one or the dev text is too short.

        A run with a budget does not: the fit would begin when its time is used up.
        """
        sources = [source for one in self.data.dev for source in one.sources]
        path = get_current_version(self.folder.best)
        is_short = sum(bool(one.strip()) for one in sources) < MIN_SENTENCES
        if is_short or not self.workers.is_chief or (path / CONFIDENCE).is_file():
            return
        if self.settings.budget_minutes is not None:
            self.log(
                "The confidence in translations is not fitted, because that is not part of training.budget_minutes. "
                f"Fit it with: nmt calibrate {self.folder.path}"
            )
            return
        references = [target for one in self.data.dev for target in one.targets]
        try:
            confidence = calibrate(self.folder.best, sources, references)
        except (OSError, UserError) as error:  # the run is complete without it
            self.log(
                "The confidence in translations could not be fitted. Fit it later with: nmt calibrate "
                f"{self.folder.path}. {error}"
            )
        else:
            self.log(f"Fitted the confidence in translations on {confidence.sentences:,} dev sentences.")

    def _forget_missing_model(self) -> None:
        """Lets any model be the best if the best one was removed from the run folder."""
        [found] = self.workers.all_gather(self.folder.best.is_dir())
        if not found[0] and not self.best.unwritten:
            self.progress = replace(self.progress, best_score=None, best_loss=None)

    def _try_average(self) -> None:
        """Scores the average of the last checkpoints, and keeps it if it is the best."""
        files = self.checkpointer.list_last(self.settings.average_last)
        if len(files) < 2:
            self.log("There is only one checkpoint, so there is nothing to average (training.average_last).")
            return
        try:
            weights = self.workers.chief_first(lambda: average_checkpoints(files))
        except UserError as error:  # the run is complete without the average
            self.log(
                f"The last checkpoints are not averaged (training.average_last). {error} Once that is solved, the same "
                "command averages them."
            )
            return
        before, scored = self.progress.best_score, self.best.score(weights, self.progress)
        self.progress = replace(self.progress, averaged=self.progress.update)
        if scored.is_best:
            self.progress = self.best.save(weights, scored, self.progress)
        self.run_log.record_average(
            self.progress.update, scored.validation, is_best=scored.is_best, num_checkpoints=len(files)
        )
        self.log(_explain_average(scored, before, by=self.settings.best_by, num_checkpoints=len(files)))


def _explain_average(scored: Scored, best_score: float | None, *, by: str, num_checkpoints: int) -> str:
    """Returns the scores of averaged weights, whether they became the best model, and why."""
    before = "none" if best_score is None else f"{abs(best_score):.3f}"
    decision = "It is the best model now" if scored.is_best else "The best model is kept"
    tie = " and a higher loss" if scored.is_best and scored.score == best_score else ""
    return (
        f"Average of the last {num_checkpoints} checkpoints: {scored.validation}. {decision}: the average has "
        f"{by} {abs(scored.score):.3f}, the best model had {before}{tie}."
    )
