"""Runs a server in its own process: start, memory samples, kill, and restart on the same port."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.measure import read_resident_mb
from nmt.errors import UserError
from nmt.server.run import listen


class Served:
    """Runs `nmt serve` on a free local port, as a context manager.

    Args:
        command: the command line without the port.
        log: file for its standard error.
        environment: additional environment variables.
    """

    def __init__(self, command: Sequence[str], *, log: Path, environment: Mapping[str, str]):
        with listen("127.0.0.1", 0) as free:
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.log = log
        self._command = [*command, "--port", str(self._port)]
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.stop(signal.SIGTERM)

    @property
    def process(self) -> subprocess.Popen[str]:
        """The running process."""
        assert self._process is not None, "the server is not running"
        return self._process

    def start(self) -> None:
        """Starts the server, and waits until it accepts requests.

        Raises:
            UserError: if the server does not start.
        """
        with self.log.open("a", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=log, text=True, env=self._environment
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if self.url not in line:
            raise UserError(f"{' '.join(self._command)} did not start. It printed '{line.strip()}'. See {self.log}.")

    def stop(self, number: signal.Signals) -> tuple[int, str]:
        """Sends a signal and waits for the process to exit. Returns the exit code and the output."""
        self.process.send_signal(number)
        printed, _ = self.process.communicate(timeout=60)
        code, self._process = self.process.returncode, None
        return code, printed

    def read_resident_mb(self) -> float:
        """Returns the current resident memory in 10**6 bytes."""
        found = read_resident_mb(self.process.pid)
        assert found is not None, "the server is not running"
        return found


class MemoryWatch:
    """Samples the memory of a server in a thread, as a context manager.

    Args:
        every: seconds between samples.
    """

    def __init__(self, served: Served, *, every: float):
        self.samples: list[tuple[float, float]] = []
        self._served = served
        self._every = every
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        started = time.monotonic()
        while True:
            self.samples.append((time.monotonic() - started, self._served.read_resident_mb()))
            if self._ended.wait(self._every):
                return
