"""Starts Ray on this machine or joins a cluster, and keeps Ray's own output off the terminal."""

import contextlib
import importlib
import logging
import math
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nmt.errors import UserError
from nmt.process import choose_device, choose_threads, count_cpus, silence_stderr
from nmt.progress import format_count
from nmt.signals import restore_handlers

INSTALL = 'This command needs ray. Install with: pip install "nmt[ray]"'
# Workers exchange only names and numbers, since each reads its files itself; Ray would reserve 30 % of the memory.
OBJECT_STORE_BYTES = 128 * 2**20
CORES_PER_WORKER = 4  # without GPUs and without --workers

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # nmt handles Ctrl-C itself
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial may fail before its first validation
}


@dataclass(frozen=True)
class WorkerResources:
    """How many workers there are, and what each of them may use."""

    workers: int
    threads: int
    gpus: float
    """GPUs per worker: 1, a fraction of one, or 0."""

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        each = " each" if self.workers > 1 else ""
        return f"{format_count(self.workers, 'worker')} with {format_count(self.threads, 'thread')}{gpus}{each}"


def allocate(cores: Sequence[int], gpus: int, *, workers: int | None, tasks: int) -> WorkerResources:
    """Allocates cores and GPUs to workers, each of which stays on one machine.

    Args:
        cores: number of cores of each machine.
        gpus: number of GPUs of all machines.
        workers: number of workers; None means one per GPU or, without GPUs, one per `CORES_PER_WORKER` cores.
        tasks: number of tasks, which limits the number of workers.

    Raises:
        UserError: there are fewer cores than workers.
    """
    workers = min(tasks, workers or gpus or max(1, sum(cores) // CORES_PER_WORKER))
    if sum(cores) < workers:
        raise UserError(f"--workers: expected at most {sum(cores)}, the number of cores that Ray has, found {workers}.")
    threads = max(t for t in range(1, max(cores) + 1) if sum(each // t for each in cores) >= workers)
    return WorkerResources(workers, threads, 1 / math.ceil(workers / gpus) if gpus else 0.0)


@dataclass(frozen=True)
class Session:
    """A running Ray."""

    allocate: Callable[[int], WorkerResources]
    """Returns the resources of the workers, given the number of tasks."""
    log: Callable[[str], None]
    """Prints a line; all other output is discarded during the session."""


@contextmanager
def open_session(address: str | None, *, workers: int | None, log: Callable[[str], None]) -> Iterator[Session]:
    """Starts Ray on this machine, or joins the cluster at an address, until the block ends.

    If this process is connected to Ray already, that connection is used and stays.

    Raises:
        UserError: Ray is not installed, no cluster answers, or it is too small.
    """
    ray = import_ray()
    ours, stdout = not ray.is_initialized(), sys.stdout

    def log_to_terminal(line: str) -> None:
        with contextlib.redirect_stdout(stdout):
            log(line)

    try:
        # Ray reports its settings and every failure, including those that it recovers from. Its libraries write to
        # standard error, its threads to standard output.
        with silence_stderr(), Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            if ours:
                with restore_handlers():
                    _start(ray, address, workers)
            yield Session(lambda tasks: allocate(*_list_machines(ray), workers=workers, tasks=tasks), log_to_terminal)
    finally:
        if ours:
            ray.shutdown()


def import_ray() -> Any:
    """Returns the module `ray`, configured to be quiet.

    Raises:
        UserError: Ray is not installed.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        with restore_handlers():  # importing Ray replaces the handler of SIGTERM
            return importlib.import_module("ray")
    except ImportError as error:
        raise UserError(INSTALL) from error


def set_up_worker(folder: str, threads: int, *, gpu: bool) -> None:
    """Gives a worker's process the user's working directory, and limits it to its resources."""
    os.chdir(folder)
    choose_device(None if gpu else "cpu")
    choose_threads(threads)


def _start(ray: Any, address: str | None, workers: int | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is None:
        cores = max(count_cpus(), workers or 1)
        # "local" never joins a cluster that happens to run on this machine.
        ray.init("local", num_cpus=cores, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)
        return
    try:
        _check_port(address)
        ray.init(address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"--address: no Ray cluster answers at {address}: {error}") from error


def _check_port(address: str) -> None:
    """Raises OSError if nothing listens at the address; Ray itself would retry for many minutes."""
    host, _, port = address.rpartition(":")
    if port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def _list_machines(ray: Any) -> tuple[list[int], int]:
    """Returns the number of cores of each machine, and the number of GPUs of all."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [int(has["CPU"]) for has in alive if has.get("CPU", 0) >= 1], int(sum(has.get("GPU", 0) for has in alive))
