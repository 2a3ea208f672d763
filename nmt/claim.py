"""A folder that one process at a time may fill."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nmt.errors import UserError


@contextmanager
def claimed(folder: Path, *, doing: str, key: str = "") -> Iterator[None]:
    """Makes a folder and keeps other processes out of it; the claim goes with the process, however it ends.

    Args:
        folder: to be claimed.
        doing: what its holder is doing, for the message to the next.
        key: of the configuration, where it names the folder.

    Raises:
        UserError: another process has it, or it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a+")
    except OSError as error:
        raise UserError(f"Cannot write to {f'{key} ' if key else ''}{folder}: {error.strerror}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UserError(f"Process {file.read().strip()} is {doing} in {folder} already.") from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
