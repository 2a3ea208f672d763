"""SIGINT (Ctrl-C) and SIGTERM: deferred until work is saved, recorded on their way, or turned into an exit code."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class SignalFlag:
    """The last signal that arrived."""

    signal_number: int = 0
    """0 if there was none."""


@contextmanager
def defer_signals() -> Iterator[SignalFlag]:
    """Sets a flag at the first signal, so that work can be finished and saved; a second signal acts at once."""
    flag = SignalFlag()
    handlers = {number: signal.getsignal(number) for number in SIGNALS}

    def defer(number: int, frame: FrameType | None) -> None:
        flag.signal_number = number
        _install(handlers)

    with restore_handlers():
        _install(dict.fromkeys(SIGNALS, defer))
        yield flag


@contextmanager
def record_signals() -> Iterator[SignalFlag]:
    """Sets a flag before the usual handlers run, because Ray may replace the exit code that they set."""
    flag = SignalFlag()
    handlers = {number: signal.getsignal(number) for number in SIGNALS}

    def record(number: int, frame: FrameType | None) -> None:
        flag.signal_number = number
        handler = handlers[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        else:
            raise KeyboardInterrupt

    with restore_handlers():
        _install(dict.fromkeys(SIGNALS, record))
        yield flag


@contextmanager
def restore_handlers() -> Iterator[None]:
    """Restores the signal handlers at the end of the block."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        _install(handlers)


def exit_on_sigterm() -> None:
    """Makes SIGTERM end the process as an exception does, so that files are closed and removed: exit code 143."""
    signal.signal(signal.SIGTERM, _exit)


def _install(handlers: dict) -> None:
    # Only the main thread may handle signals. Elsewhere, as in a notebook's worker, none arrives.
    with contextlib.suppress(ValueError):
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
