"""A Ray to work on: one of this machine's own, or a cluster's; its chatter stays off the terminal."""

import contextlib
import importlib
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from nmt.errors import UserError
from nmt.process import choose_device, choose_threads, count_cpus, silence_stderr

INSTALL = 'This command needs ray. Install with: pip install "nmt[ray]"'
OBJECT_STORE_BYTES = 128 * 2**20  # of a Ray of our own: only names and figures travel; files are read where they are
CORES_A_WORKER = 4  # on a processor, unless a number of workers is asked for

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial may fail before its first validation
}


@dataclass(frozen=True)
class Share:
    """What each of some workers has."""

    workers: int
    threads: int
    gpus: float
    """GPUs of a worker: 1, a part of one, or 0."""

    def __str__(self) -> str:
        return f"{_counted(self.workers, 'worker')} of {_counted(self.threads, 'thread')}" + (
            f" and {self.gpus:g} GPU" if self.gpus else ""
        )


def divided(cores: Sequence[int], gpus: int, *, workers: int | None, tasks: int) -> Share:
    """Divides machines among workers that each stay on one of them.

    Args:
        cores: of each machine.
        gpus: of all of them.
        workers: asked for; if None, one for each GPU or else for every `CORES_A_WORKER` cores.
        tasks: more workers than that would have nothing to do.

    Raises:
        UserError: there are fewer cores than workers.
    """
    workers = min(tasks, workers or gpus or max(1, sum(cores) // CORES_A_WORKER))
    if sum(cores) < workers:
        raise UserError(f"--workers: Ray has {sum(cores)} cores, which are too few for {workers} workers.")
    threads = max(t for t in range(1, max(cores) + 1) if sum(each // t for each in cores) >= workers)
    return Share(workers, threads, 1 / math.ceil(workers / gpus) if gpus else 0.0)


@dataclass
class Notice:
    """The signal that came last, or 0."""

    signal_number: int = 0


@contextmanager
def noticed_signals() -> Iterator[Notice]:
    """Notes SIGINT and SIGTERM on their way to whoever handles them: Ray may change the exit code that they ask for."""
    notice = Notice()
    handlers = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        notice.signal_number = number
        handler = handlers[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        else:
            raise KeyboardInterrupt

    with _signals_kept():
        with contextlib.suppress(ValueError):  # not the main thread, where no signal comes
            for number in SIGNALS:
                signal.signal(number, note)
        yield notice


@dataclass(frozen=True)
class Session:
    """A Ray that runs."""

    share: Callable[[int], Share]
    """From the number of tasks to what each worker has."""
    announce: Callable[[str], None]
    """Prints a line, which nothing else can while the session lasts."""


@contextmanager
def ray_session(address: str | None, *, workers: int | None, announce: Callable[[str], None]) -> Iterator[Session]:
    """Starts a Ray on this machine, or joins the cluster at an address, until the block ends.

    A Ray that runs in this process already is taken as it is.

    Raises:
        UserError: Ray is not installed, no cluster answers, or it is too small.
    """
    ray = import_ray()
    ours, stdout = not ray.is_initialized(), sys.stdout

    def aloud(line: str) -> None:
        with contextlib.redirect_stdout(stdout):
            announce(line)

    try:
        # It speaks of its settings, and of every failure, also of those that it mends by itself: its libraries on
        # standard error, its threads on standard output.
        with silence_stderr(), Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            if ours:
                with _signals_kept():
                    _start(ray, address, workers)
            yield Session(lambda tasks: divided(*_machines(ray), workers=workers, tasks=tasks), aloud)
    finally:
        if ours:
            ray.shutdown()


def import_ray() -> Any:
    """Returns the module `ray`, told to be quiet.

    Raises:
        UserError: it is not installed.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        with _signals_kept():  # Ray takes SIGTERM for itself
            return importlib.import_module("ray")
    except ImportError as error:
        raise UserError(INSTALL) from error


def settle(folder: str, threads: int, *, gpu: bool) -> None:
    """Makes a worker's process like its user's: relative paths mean the same, and it keeps to its share."""
    os.chdir(folder)
    choose_device(None if gpu else "cpu")
    choose_threads(threads)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Puts the handlers of signals back at the end of the block."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # not the main thread, where no signal comes
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _start(ray: Any, address: str | None, workers: int | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is None:
        cores = max(count_cpus(), workers or 1)
        # "local": never the cluster that happens to run on this machine.
        ray.init("local", num_cpus=cores, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)
        return
    try:
        _knock(address)
        ray.init(address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"--address: no Ray cluster answers at {address}: {error}") from error


def _knock(address: str) -> None:
    """Raises OSError where nobody listens; Ray itself would try for many minutes."""
    host, _, port = address.rpartition(":")
    if port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def _machines(ray: Any) -> tuple[list[int], int]:
    """The cores of each machine, and the GPUs of all."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [int(has["CPU"]) for has in alive if has.get("CPU", 0) >= 1], int(sum(has.get("GPU", 0) for has in alive))


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")
