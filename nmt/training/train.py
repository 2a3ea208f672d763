"""Starts a training: its workers, its folder, its lock; the loop itself is in `trainer`."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from nmt.backend import keras
from nmt.config.file import dump_config
from nmt.config.schema import Config
from nmt.data.preparation import Log
from nmt.errors import UserError
from nmt.evaluation.metrics import check_languages
from nmt.files import compute_digest, compute_file_digest
from nmt.model_folder import WEIGHTS, ModelFolder, find_model_folder
from nmt.signals import defer_signals
from nmt.training.backends import make_strategy, make_workers, use_device
from nmt.training.run_folder import RunFolder
from nmt.training.start import find_start, has_tokenizers_of
from nmt.training.trainer import Trainer


def train(
    config: Config,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    log: Log = print,
    started: float | None = None,
) -> Path:
    """Trains a model, or resumes an interrupted run.

    Args:
        config: the configuration; it must have a run_dir.
        callbacks: Keras callbacks. A batch is an update; the logs of an epoch hold the last validation.
        log: receives one message per line.
        started: when the time of the run began, by `time.monotonic()`; None is now.

    Returns:
        The folder of the best model.

    Raises:
        UserError: configuration, files or the run folder do not allow it.
        InterruptionError: a signal arrived; the run was saved.
        DivergenceError: the loss or the gradient stayed infinite, NaN or far too high.
        UnsavedError: the best model or the last checkpoint could not be written.
        WorkerLostError: another worker of a distributed training is gone.
    """
    started = time.monotonic() if started is None else started
    if config.run_dir is None:
        raise UserError("run_dir: expected the folder of the run, found nothing.")
    warnings = [
        one for target in config.target_languages for one in check_languages(config.data.source_language, target)
    ]
    if config.training.strategy == "multi_worker":
        log("Waiting for all workers …")
    # Before anything else of TensorFlow: collective operations must be set up when it starts.
    strategy = make_strategy(config.training.strategy, config.training.devices)
    workers = make_workers(strategy)
    workers.check_equal("configuration", compute_digest(dump_config(config).encode()))
    if not workers.is_chief:
        log = _ignore  # the chief logs the same lines
    for warning in warnings:
        log(f"Warning: {warning}")
    folder = RunFolder(config.run_dir)
    config, initial = workers.chief_first(lambda: find_start(config, folder, log))
    start = config.training.start_from
    if start is not None and initial is not None:
        workers.check_equal("start model", compute_file_digest(find_model_folder(start) / WEIGHTS))
    with ExitStack() as stack:
        stack.enter_context(use_device(strategy))
        workers.chief_first(
            lambda: _prepare_run_folder(folder, config, initial, stack) if workers.is_chief else folder.check_shared()
        )
        trainer = Trainer(config, folder, strategy=strategy, callbacks=callbacks, log=log, started=started)
        with defer_signals() as signals:
            return trainer.run(initial, signals)


def _prepare_run_folder(folder: RunFolder, config: Config, initial: ModelFolder | None, stack: ExitStack) -> None:
    """Locks the folder of a run until the stack is closed, and writes its configuration.

    The tokenizers of a start model are written too, unless the configuration asks for others.
    """
    folder.check_no_other_model()
    stack.enter_context(folder.lock())
    folder.accept(config)
    if initial is not None and has_tokenizers_of(initial.config.tokenizer, config.tokenizer):
        initial.source_tokenizer.save(folder.path / "source.model")
        initial.target_tokenizer.save(folder.path / "target.model")


def _ignore(line: str) -> None:
    pass
