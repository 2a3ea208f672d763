"""Starts a training: its workers, its folder, its lock; the loop itself is in `trainer`."""

import re
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from nmt.backend import keras
from nmt.config.file import dump_config, find_differences
from nmt.config.schema import Config
from nmt.data.preparation import Log
from nmt.data.tokenizer import Tokenizer
from nmt.errors import UserError
from nmt.evaluation.metrics import check_languages
from nmt.files import compute_digest
from nmt.model_folder import ModelFolder, find_model_folder
from nmt.signals import defer_signals
from nmt.training.backends import make_strategy, make_workers, use_device
from nmt.training.run_folder import RunFolder, find_free_path
from nmt.training.trainer import Trainer

# Lines of `find_differences` with settings that made the tokenizers. Sampling takes effect in training alone.
IGNORED_BY_FORK = re.compile(r"tokenizer\.(?!sampling_alpha)")


def train(
    config: Config,
    *,
    fork: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    log: Log = print,
) -> Path:
    """Trains a model, or resumes an interrupted run.

    Args:
        config: the configuration; it must have a run_dir.
        fork: start a new run in the next free folder (run_dir-2, …) from the weights and tokenizers of run_dir.
        callbacks: Keras callbacks. A batch is an update; the logs of an epoch hold the last validation.
        log: receives one message per line.

    Returns:
        The folder of the best model.

    Raises:
        UserError: configuration, files or the run folder do not allow it.
        InterruptionError: a signal arrived; the run was saved.
        DivergenceError: the loss or the gradient stayed infinite, NaN or far too high.
        UnsavedError: the best model or the last checkpoint could not be written.
        WorkerLostError: another worker of a distributed training is gone.
    """
    started = time.monotonic()
    if config.run_dir is None:
        raise UserError("run_dir: expected the folder of the run, found nothing.")
    warnings = check_languages(config.data.source_language, config.data.target_language)
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
    initial = None
    if fork:
        forked = find_model_folder(config.run_dir)
        initial = ModelFolder.load(forked)
        _check_tokenizer_settings(config, initial, forked)
        config = config.model_copy(update={"run_dir": Path(workers.broadcast(str(find_free_path(config.run_dir))))})
        log(f"Starting a new run in {config.run_dir} from the weights of {forked}.")
    folder = RunFolder(Path(config.run_dir or ""))
    with ExitStack() as stack:
        stack.enter_context(use_device(strategy))
        workers.chief_first(
            lambda: _prepare_run_folder(folder, config, initial, stack) if workers.is_chief else folder.check_shared()
        )
        trainer = Trainer(config, folder, strategy=strategy, callbacks=callbacks, log=log, started=started)
        with defer_signals() as signals:
            return trainer.run(initial, signals)


def _prepare_run_folder(folder: RunFolder, config: Config, initial: ModelFolder | None, stack: ExitStack) -> None:
    """Locks the folder of a run and writes the configuration, and the tokenizers of a fork.

    Closing the stack releases the lock, and removes the folder of a fork that failed before its first checkpoint.
    """
    folder.check_no_other_model()
    stack.enter_context(folder.lock())
    if initial is not None:
        stack.callback(folder.remove_unless_begun)
    folder.accept(config)
    if initial is not None:
        initial.source_tokenizer.save(folder.path / "source.model")
        initial.target_tokenizer.save(folder.path / "target.model")


def _check_tokenizer_settings(config: Config, initial: ModelFolder, path: Path) -> None:
    """Raises UserError if a fork would ignore settings, since it keeps the tokenizers of its model."""
    settings = config.tokenizer
    if settings.source_model and settings.target_model:
        given = Tokenizer.load_pair(settings.source_model, settings.target_model)
        if [one.fingerprint for one in given] == [
            initial.source_tokenizer.fingerprint,
            initial.target_tokenizer.fingerprint,
        ]:
            return
    changed = [line for line in find_differences(initial.config, config) if IGNORED_BY_FORK.match(line)]
    if changed:
        raise UserError(
            f"--fork keeps the tokenizers of {path}, so that these settings would have no effect:\n  "
            + "\n  ".join(changed)
            + "\nRestore the old values, or train from scratch in another run_dir."
        )


def _ignore(line: str) -> None:
    pass
