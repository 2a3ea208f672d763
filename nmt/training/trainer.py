"""The training loop: one batch is one update; now and then a validation and a checkpoint."""

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nmt.backend import keras
from nmt.compilation import has_static_shapes
from nmt.config.file import dump_config
from nmt.config.schema import Config, TrainingConfig
from nmt.data.batching import Batch, BatchLoader, BatchPlan, prefetch
from nmt.data.preparation import prepare_training_data
from nmt.errors import DivergenceError, InterruptionError, OutOfMemoryError, UserError
from nmt.evaluation.metrics import check_languages
from nmt.model_folder import ModelFolder, find_model_folder, get_fingerprints
from nmt.training.backends import make_strategy, make_update, make_workers
from nmt.training.checkpoint import Checkpoint, CheckpointFolder, Progress, average_checkpoints
from nmt.training.interruption import SignalFlag, defer_signals
from nmt.training.run_folder import RunFolder, find_free_path
from nmt.training.run_log import RunLog
from nmt.training.schedules import compute_learning_rate
from nmt.training.update import Outcome
from nmt.training.validation import Validation, Validator
from nmt.translators.sentences import measure_share
from nmt.version import __version__
from nmt.weights import assign_arrays, get_arrays

# Lines from which the share of those with several sentences is estimated, within 1 % in 50 ms.
SENTENCE_SAMPLE = 10_000


def train(
    config: Config,
    *,
    fork: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    announce: Callable[[str], None] = print,
) -> Path:
    """Trains a model, or goes on with a run that was interrupted.

    Args:
        config: its run_dir must be given.
        fork: begin a new run in the next free folder (run_dir-2, …) from the weights and tokenizers of run_dir.
        callbacks: Keras callbacks; a batch is an update, and an epoch's logs hold the last validation.
        announce: prints a line.

    Returns:
        The folder of the best model.

    Raises:
        UserError: configuration, files or the run folder do not allow it.
        InterruptionError: a signal came; the run was saved.
        DivergenceError: the gradient stayed infinite or not a number.
    """
    started = time.monotonic()
    if config.run_dir is None:
        raise UserError("run_dir: nothing given, expected the folder of the run.")
    warnings = check_languages(config.data.source_language, config.data.target_language)
    if config.training.strategy == "multi_worker":
        announce("Waiting until all workers are here …")
    # Before anything else of TensorFlow: collective operations must be set up at its start.
    strategy = make_strategy(config.training.strategy, config.training.devices)
    workers = make_workers(strategy)
    workers.check_equal("configuration", hashlib.sha256(dump_config(config).encode()).hexdigest())
    if not workers.is_chief:
        announce = _unsaid
    for warning in warnings:
        announce(f"Warning: {warning}")
    initial = None
    if fork:
        forked = find_model_folder(config.run_dir)
        initial = ModelFolder.load(forked)
        config = config.model_copy(update={"run_dir": Path(workers.broadcast(str(find_free_path(config.run_dir))))})
        announce(f"A new run in {config.run_dir}, from the weights of {forked}.")
    folder = RunFolder(Path(config.run_dir or ""))
    with ExitStack() as stack:
        workers.chief_first(
            lambda: _take(folder, config, initial, stack) if workers.is_chief else folder.check_shared()
        )
        trainer = Trainer(config, folder, strategy=strategy, callbacks=callbacks, announce=announce, started=started)
        with defer_signals() as notice:
            return trainer.run(initial, notice)


def _take(folder: RunFolder, config: Config, initial: ModelFolder | None, stack: ExitStack) -> None:
    """Locks a run's folder and writes into it what every run begins with."""
    stack.enter_context(folder.lock())
    folder.accept(config)
    if initial is not None:
        initial.source_tokenizer.save(folder.path / "source.model")
        initial.target_tokenizer.save(folder.path / "target.model")


class Begun(NamedTuple):
    """An update that was begun, and whose outcome nobody has asked for yet."""

    number: int
    epoch: int
    learning_rate: float
    wait: Callable[[], Outcome]


class Trainer:
    """One run: its data, model, update, validation and bookkeeping."""

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        *,
        strategy: Any,
        callbacks: Sequence[keras.callbacks.Callback],
        announce: Callable[[str], None],
        started: float,
    ):
        self.config, self.settings, self.folder = config, config.training, folder
        self.workers = workers = make_workers(strategy)
        self.announce, self.started = announce, started
        self.prepared = workers.chief_first(lambda: prepare_training_data(config, folder.path, announce))
        for name, fingerprint in self.prepared.fingerprints.items():
            workers.check_equal(name, fingerprint)
        self.plan = BatchPlan(
            self.prepared.lengths, by=self.settings.batch_by, size=self.settings.batch_size, seed=config.seed
        )
        with ThreadPoolExecutor(1) as beside:
            # Ordering millions of pairs takes as long as the first update.
            beside.submit(self.plan.draw_epoch, 0)
            self.model, self.update = make_update(config, self.prepared.vocabulary_sizes, strategy)
        self.validator = Validator(config, self.prepared, workers)
        self.checkpoints = CheckpointFolder(folder.checkpoints, self.settings.keep_checkpoints)
        self.progress = Progress()
        self.last_validation: Validation | None = None
        self.begun: Begun | None = None
        self.logs: dict[str, float] = {}
        self.skipped = 0
        self.forked = False
        self.callbacks = keras.callbacks.CallbackList(list(callbacks), model=self.model)
        self.log = RunLog(
            folder,
            announce,
            every=self.settings.log_every,
            total=_total_updates(self.settings, self.plan),
            tensorboard=self.settings.tensorboard,
            silent=not workers.is_chief,
        )

    def run(self, initial: ModelFolder | None, notice: SignalFlag) -> Path:
        """Trains until a limit is reached or a signal noticed, and returns the folder of the best model."""
        self.forked = initial is not None
        self._restore(initial)
        self.callbacks.on_train_begin()
        try:
            reason = self._limit_reached() or self._loop(notice)
            self._finish(reason)
        finally:
            self.update.close()
            self.log.close()
            self.callbacks.on_train_end()
        self.workers.barrier()  # whoever ends before the others looks lost to them
        return self.folder.best

    def loader(self) -> BatchLoader:
        """Makes the run's batches."""
        return BatchLoader(
            self.prepared.tokenized,
            self.prepared.kept,
            self.plan,
            multiple=self.update.rows_multiple,
            pad_to_buckets=has_static_shapes(),
        )

    def _loop(self, notice: SignalFlag) -> str:
        loader = self.loader()
        self.update.precompile(self.plan.shapes)
        while True:
            begun = None
            for batch in prefetch(loader.stream_batches(self.progress.epoch, self.progress.batch)):
                if batch.epoch != begun:
                    begun = batch.epoch
                    self.callbacks.on_epoch_begin(begun)
                self._learn(batch)
                if self.skipped < self.settings.max_skipped and (self._pauses() or notice.signal_number):
                    self._settle()
                if self.skipped == self.settings.max_skipped:
                    self._go_back()
                    break  # to the batches after that checkpoint
                if self.progress.update % self.settings.validate_every == 0:
                    self._validate()
                if self.progress.batch == self.plan.num_batches:
                    self.callbacks.on_epoch_end(batch.epoch, {**self.logs, **self._validation_logs()})
                # What does not learn any more is no state to go back to.
                if self.progress.update % self.settings.checkpoint_every == 0 and not self.skipped:
                    self._save()
                signal_number, reason = self._decided(notice)
                if signal_number:
                    self._interrupt(signal_number)
                if reason:
                    return reason

    def _decided(self, notice: SignalFlag) -> tuple[int, str | None]:
        """The signal to stop by and the limit to stop at, on which all workers agree after each update."""
        reason = self._limit_reached()
        if self.workers.count == 1:
            return notice.signal_number, reason
        signals, limits = self.workers.all_gather(notice.signal_number, reason is not None)
        return int(signals.max()), reason or ("another worker reached its limit" if limits.any() else None)

    def _pauses(self) -> bool:
        """Whether the outcome of the last batch is there already, or what comes after it depends on it."""
        update, settings = self.progress.update, self.settings
        return (
            not self.update.runs_ahead
            or bool(self.callbacks.callbacks or self.skipped)
            or update % settings.validate_every == 0
            or update % settings.checkpoint_every == 0
            or update == settings.max_updates
            or self.progress.batch == self.plan.num_batches
        )

    def _learn(self, batch: Batch) -> None:
        """Begins an update, and then asks what came of the one before, so that a device need not wait for its host."""
        number = self.progress.update + 1
        rate = 0.5**self.progress.rollbacks * compute_learning_rate(
            number,
            peak=self.settings.learning_rate,
            kind=self.settings.schedule,
            warmup=self.settings.warmup_updates,
            length=self.settings.schedule_updates,
            final=self.settings.final_rate,
        )
        self.callbacks.on_train_batch_begin(number)
        wait = self._started(batch, number, rate)
        self._settle()
        self.begun = Begun(number, batch.epoch, rate, wait)
        self.progress = self.progress.count_batch(batch.epoch, batch.index)

    def _settle(self) -> None:
        """Waits for the update that was begun last, if nobody has, and takes note of its outcome."""
        if self.begun is None:
            return
        (number, epoch, rate, wait), self.begun = self.begun, None
        outcome = wait()
        self.skipped = 0 if outcome.is_applied else self.skipped + 1
        if self.skipped == 1 and self.settings.precision != "float16":
            self.announce(f"update {number:,}: the gradient is not finite; it was not applied.")
        self.log.record_update(number, epoch, rate, outcome)
        self.logs = dict(outcome.metrics)
        self.callbacks.on_train_batch_end(number, self.logs)

    def _started(self, batch: Batch, number: int, rate: float) -> Callable[[], Outcome]:
        """Begins an update, in as many micro-batches as the memory asks for."""
        while True:
            try:
                return self.update.start(batch.pad_rows(self.update.rows_multiple), update=number, learning_rate=rate)
            except OutOfMemoryError as error:
                if self.update.rows_multiple >= len(batch.weights):
                    raise UserError(
                        f"update {number:,}: there is not enough memory, not even for one pair at a time. Lower "
                        "data.max_length or the model's sizes."
                    ) from error
                self.update.halve_micro_batches()
                steps = self.update.accumulation_steps
                self.announce(
                    f"update {number:,}: there was not enough memory; batches are now cut into {steps} micro-batches, "
                    f"which changes no result. training.accumulation_steps={steps} spares the next run this."
                )

    def _go_back(self) -> None:
        """Returns to the last checkpoint with half the learning rate, for good, or gives up."""
        last = self.begun.number - 1 if self.begun else self.progress.update
        self.begun = None  # what may follow the last that was skipped comes to nothing
        skipped = f"The gradient was not finite in {self.skipped} updates in a row, up to {last:,}"
        checkpoint = self.checkpoints.load_latest(self.announce)
        if checkpoint is None or self.progress.rollbacks == self.settings.max_rollbacks:
            times = self.progress.rollbacks
            often = "once" if times == 1 else f"{times} times"
            tried = f", with the learning rate halved {often}" if times else ""
            raise DivergenceError(
                f"{skipped}{tried}; none of them was applied. Lower training.learning_rate or training.clip_norm; "
                f"checkpoints are in {self.checkpoints.path}."
            )
        rollbacks = self.progress.rollbacks + 1
        self._assign(checkpoint)
        self.progress = replace(self.progress, rollbacks=rollbacks)
        self.skipped = 0
        self._save()  # or else a run killed now would go on at the old rate
        self.log.forget_after(self.progress.update)
        self.announce(
            f"{skipped}. Back to update {self.progress.update:,}, with {0.5**rollbacks:g} of the learning rate "
            f"({rollbacks} of {self.settings.max_rollbacks} times)."
        )

    def _validate(self) -> None:
        validation = self.validator.validate(self._candidate())
        score = validation.score(self.settings.best_by)
        is_best = self.progress.best_score is None or score > self.progress.best_score
        self.progress = self.progress.count_validation(score, is_best)
        if is_best:
            self._save_best(self._candidate(), validation)
        self.log.record_validation(self.progress.update, validation, is_best)
        self.last_validation = validation

    def _candidate(self) -> dict:
        """The weights in question: the moving averages where there are any, else the weights themselves."""
        return self.update.get_averages() or get_arrays(self.model.trainable_variables)

    @cached_property
    def _multi_sentence_share(self) -> float:
        """Share of the training lines with several sentences, estimated from a sample; `decoding.split_sentences`."""
        kept = self.prepared.kept
        sample = kept[np.linspace(0, len(kept) - 1, min(len(kept), SENTENCE_SAMPLE)).astype("int64")]
        return measure_share(self.prepared.corpus.read_sources(sample), self.config.data.source_language)

    def _save_best(self, weights: dict, validation: Validation) -> None:
        if not self.workers.is_chief:
            return
        facts = {
            "update": self.progress.update,
            "dev_bleu": validation.bleu,
            "dev_loss": validation.loss,
            "seed": self.config.seed,
            "versions": versions(),
            "multi_sentence_share": self._multi_sentence_share,
            **get_fingerprints(self.prepared.source_tokenizer, self.prepared.target_tokenizer),
        }
        tokenizers = self.prepared.source_tokenizer, self.prepared.target_tokenizer
        model = ModelFolder(self.config, *tokenizers, weights, facts)
        self._write(lambda: model.save(self.folder.best), "the best model")

    def _save(self) -> bool:
        """Lets the chief write a checkpoint, which all find then; false where it could not be written."""
        [saved] = self.workers.all_gather(self.workers.is_chief and self._save_checkpoint())
        return bool(saved[0])

    def _save_checkpoint(self) -> bool:
        arrays = {
            "weights": get_arrays(self.model.trainable_variables),
            "averages": self.update.get_averages(),
            "optimizer": get_arrays(self.update.state_variables),
        }
        checkpoint = Checkpoint(self.progress, arrays, self.prepared.fingerprints)
        return self._write(lambda: self.checkpoints.save(checkpoint), "the checkpoint")

    def _write(self, write: Callable[[], object], what: str) -> bool:
        """Writes, or says that it could not: what was written before stands, and the next time may do better."""
        try:
            write()
            return True
        except (OSError, UserError) as error:
            failed = f"update {self.progress.update:,}: {what} could not be written"
            if self.settings.on_full_disk == "stop":
                raise UserError(f"{failed}, and training.on_full_disk is stop. {error}") from error
            self.announce(f"{failed}; training goes on without it. {error}")
            return False

    def _restore(self, initial: ModelFolder | None) -> None:
        checkpoint = self.workers.chief_first(lambda: self.checkpoints.load_latest(self.announce))
        self.workers.check_equal("checkpoint", f"{checkpoint.progress.update if checkpoint else 0:x}")
        if checkpoint is None:
            if initial is not None:
                assign_arrays(self.model.trainable_variables, initial.weights, "The model to fork")
                self.update.restart_averages()
                self._save()  # or else a fork killed before its first checkpoint would go on from random weights
            self.log.forget_after(0)
            return
        self._check_same(checkpoint)
        self._assign(checkpoint)
        self.log.forget_after(self.progress.update)
        self.announce(f"Going on with the run in {self.folder.path} after update {self.progress.update:,}.")

    def _assign(self, checkpoint: Checkpoint) -> None:
        origin = f"The checkpoint of update {checkpoint.progress.update:,}"
        assign_arrays(self.model.trainable_variables, checkpoint.arrays["weights"], origin)
        self.update.assign_averages(checkpoint.arrays["averages"], origin)
        assign_arrays(self.update.state_variables, checkpoint.arrays["optimizer"], origin)
        self.progress = checkpoint.progress

    def _check_same(self, checkpoint: Checkpoint) -> None:
        for name, found in self.prepared.fingerprints.items():
            if checkpoint.facts.get(name) != found:
                raise UserError(
                    f"The {name} is not the one that the run in {self.folder.path} was begun with. Put it back, choose "
                    "another run_dir, or start a new run from its weights with --fork."
                )

    def _limit_reached(self) -> str | None:
        settings, progress = self.settings, self.progress
        minutes = (time.monotonic() - self.started) / 60
        epochs = progress.epoch + (progress.batch >= self.plan.num_batches)
        if settings.max_updates and progress.update >= settings.max_updates:
            return f"max_updates {settings.max_updates:,} reached"
        if settings.max_epochs and epochs >= settings.max_epochs:
            return f"max_epochs {settings.max_epochs:,} reached"
        if settings.max_minutes and minutes >= settings.max_minutes:
            return f"max_minutes {settings.max_minutes:g} reached"
        if settings.patience and progress.validations_since_best >= settings.patience:
            return f"{settings.patience} validations without a better one"
        return "a callback asked for it" if getattr(self.model, "stop_training", False) else None

    def _interrupt(self, signal_number: int) -> None:
        self._settle()
        saved = self._save()
        where = f"saved in {self.folder.path}" if saved else "it could not be saved, but earlier checkpoints stand"
        self.log.close()
        the = f"Without --fork, and with run_dir={self.folder.path}, the" if self.forked else "The"
        raise InterruptionError(
            f"Interrupted after update {self.progress.update:,}; {where}. {the} same command goes on from there.",
            signal_number,
        )

    def _finish(self, reason: str) -> None:
        self._settle()
        self.announce(f"Finished: {reason}, after {(time.monotonic() - self.started) / 60:.1f} minutes.")
        if self.progress.validated != self.progress.update or self.progress.best_score is None:
            self._validate()
        self._save()
        if self.settings.average_last > 1:
            self._try_average()

    def _try_average(self) -> None:
        files = self.checkpoints.list_files()[-self.settings.average_last :]
        weights = average_checkpoints(files)
        validation = self.validator.validate(weights)
        score = validation.score(self.settings.best_by)
        is_best = score > (self.progress.best_score if self.progress.best_score is not None else float("-inf"))
        self.announce(f"The average of the last {len(files)} checkpoints: BLEU {validation.bleu:.2f}.")
        if is_best:
            self._save_best(weights, validation)

    def _validation_logs(self) -> dict[str, float]:
        if self.last_validation is None:
            return {}
        return {"val_loss": self.last_validation.loss, "val_bleu": self.last_validation.bleu}


def _unsaid(line: str) -> None:
    """What the chief says already."""


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    packages = ("keras", keras.backend.backend(), "sentencepiece")
    return {"nmt": __version__, **{name: import_module(name).__version__ for name in packages}}


def _total_updates(settings: TrainingConfig, plan: BatchPlan) -> int | None:
    limits = [settings.max_updates, (settings.max_epochs or 0) * plan.num_batches or None]
    return min((limit for limit in limits if limit), default=None)
