"""Every exception that the toolkit raises on purpose, each with the exit code that the command line ends with.

The command line prints the message without a traceback (nmt/cli/main.py). Any other exception is a bug in nmt.
"""

import difflib
import signal
from collections.abc import Iterable, Mapping


class NmtError(Exception):
    """Raised, as one of its subclasses, when the toolkit cannot do what it was asked to."""

    exit_code = 1


class UserError(NmtError, ValueError):
    """Raised for a mistake that the user can correct.

    The message names the place (file and line, or configuration key), what was found, what was expected and how to fix
    it.
    """

    exit_code = 2


class FormatError(UserError):
    """Raised for a file that another version of nmt wrote in a format which this one does not read."""


class DivergenceError(NmtError):
    """Raised when training diverges: the loss or gradient stays infinite, NaN or far too high. Checkpoints are kept."""


class UnsavedError(NmtError):
    """Raised when a training has ended, but its best model or its last checkpoint could not be written."""


class OutOfMemoryError(NmtError):
    """Raised when an update needs more memory than the device has; no weight was changed."""


class WorkerLostError(NmtError):
    """Raised when another worker of a distributed training is gone; the message names it where it is known."""


class InterruptionError(NmtError):
    """Raised when SIGINT or SIGTERM ends the work after it was saved; the message says how to resume.

    Args:
        message: what was saved, and the command that resumes.
        signal_number: the exit code is 128 plus this number, as in shells. 0 counts as SIGINT: in a notebook,
            KeyboardInterrupt comes without a signal.
    """

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_code = 128 + (signal_number or signal.SIGINT)


class ExportError(NmtError):
    """Raised when the process that writes the graph of an export fails."""


class OperationError(NmtError):
    """Raised when a graph has operations that the stock TensorFlow Serving cannot run; a bug in nmt."""


class ParityError(NmtError):
    """Raised when an export translates differently from its model, or loses more quality than is allowed."""


class BrokenPromiseError(NmtError):
    """Raised when the translations of an export break promises of data.promises that are errors."""


class RequestError(NmtError):
    """Raised when the server refuses a request; its answer is {"error": message}.

    Args:
        status: of the HTTP answer.
        message: what was found and what was expected.
        headers: additional headers of the answer.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})


def suggest_name(name: str, valid: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the valid name closest to `name`, or "" if none is close.

    >>> suggest_name("pruning", ["pruning_threshold", "running"])
    " Did you mean 'pruning_threshold'?"
    """
    valid = list(valid)
    # A name with its end missing is not close by the measure of difflib.
    cut_short = [one for one in valid if one.startswith(f"{name}_")]
    matches = cut_short or difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    return f" Did you mean '{matches[0]}'?" if matches else ""
