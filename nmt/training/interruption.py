"""Ctrl-C and SIGTERM: the loop finishes its update, saves, and says how to go on."""

import contextlib
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class SignalFlag:
    """The signal that came, or 0."""

    signal_number: int = 0


@contextmanager
def defer_signals() -> Iterator[SignalFlag]:
    """Notes the first signal instead of dying of it; a second one ends the process at once."""
    notice = SignalFlag()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        notice.signal_number = number
        for each, handler in before.items():
            signal.signal(each, handler)

    # Only the main thread may handle signals; elsewhere, as in a notebook's worker, they stay with their owner.
    with contextlib.suppress(ValueError):
        for number in SIGNALS:
            signal.signal(number, note)
    try:
        yield notice
    finally:
        with contextlib.suppress(ValueError):
            for number, handler in before.items():
                signal.signal(number, handler)
