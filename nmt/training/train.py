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
from nmt.files import compute_digest
from nmt.model_folder import ModelFolder, find_model_folder
from nmt.signals import defer_signals
from nmt.training.backends import make_strategy, make_workers
from nmt.training.run_folder import RunFolder, find_free_path
from nmt.training.trainer import Trainer


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
        DivergenceError: the gradient stayed infinite or NaN.
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
        config = config.model_copy(update={"run_dir": Path(workers.broadcast(str(find_free_path(config.run_dir))))})
        log(f"Starting a new run in {config.run_dir} from the weights of {forked}.")
    folder = RunFolder(Path(config.run_dir or ""))
    with ExitStack() as stack:
        workers.chief_first(
            lambda: _prepare_run_folder(folder, config, initial, stack) if workers.is_chief else folder.check_shared()
        )
        trainer = Trainer(config, folder, strategy=strategy, callbacks=callbacks, log=log, started=started)
        with defer_signals() as signals:
            return trainer.run(initial, signals)


def _prepare_run_folder(folder: RunFolder, config: Config, initial: ModelFolder | None, stack: ExitStack) -> None:
    """Locks the folder of a run and writes the configuration, and the tokenizers of a fork."""
    stack.enter_context(folder.lock())
    folder.accept(config)
    if initial is not None:
        initial.source_tokenizer.save(folder.path / "source.model")
        initial.target_tokenizer.save(folder.path / "target.model")


def _ignore(line: str) -> None:
    pass
