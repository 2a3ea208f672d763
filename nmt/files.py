"""Atomic files, folders that one process at a time may use, compressed files, and digests.

A file appears under its name only once it is whole and on the disk: it is written under a temporary name, synced and
then renamed, which POSIX guarantees to be atomic within a folder.
"""

import errno
import gzip
import hashlib
import lzma
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

from nmt.errors import UserError, suggest_name

COMPRESSED = (".gz", ".xz")
FULL = (errno.ENOSPC, errno.EDQUOT)
LOCK = ".lock"


def check_platform() -> None:
    """Raises UserError on Windows, which has neither file locks (fcntl) nor a way to sync a folder to the disk."""
    if sys.platform == "win32":
        raise UserError("nmt runs on Linux and macOS; on Windows use WSL 2.")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` to write a file or folder to, and renames it to `path` at the end.

    If the block raises, the temporary file is removed and `path` stays as it was. If the process is killed, a hidden
    file `.NAME.PID.part` is left behind, which no reader looks at.

    Args:
        path: a file, which may exist and is replaced, or a folder, which must not exist (see `atomic_replace`).

    Raises:
        UserError: the folder cannot be written to, or the disk is full.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    with _explain_refusal(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        discard(aside)
    try:
        with _explain_full_disk(path):
            yield aside
        with _explain_refusal(path):
            # Without the first sync, a power cut after the renaming could leave an empty file under the final name.
            # The second one makes the renaming itself last: it is an entry in the folder.
            sync(aside)
            aside.replace(path)
            _sync_one(path.parent)
    finally:
        discard(aside)


@contextmanager
def _explain_refusal(path: Path) -> Iterator[None]:
    try:
        yield
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise UserError(f"Cannot write {path}: {error.strerror}. Choose another place or change its owner.") from error
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror}.") from error


@contextmanager
def _explain_full_disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # Any other OSError may have nothing to do with `path`: the caller's block can do anything.
        if error.errno not in FULL:
            raise
        raise UserError(f"Cannot write {path}: {os.strerror(error.errno)}.") from error


@contextmanager
def atomic_replace(path: Path) -> Iterator[Path]:
    """Like `atomic_write`, for a folder that may replace an older one. At any moment one of the two is whole.

    POSIX cannot exchange two folders in one step, so the older one is moved to `.NAME.old` first. If the process is
    killed between the two renamings, readers find the older folder there (`get_current_version`), and the next call
    moves it back (`recover`).

    Raises:
        UserError: the folder cannot be written to.
    """
    older, newer = _older(path), _newer(path)
    with _explain_refusal(path):
        recover(path)
    with atomic_write(newer) as aside:
        yield aside
    if path.exists():
        path.rename(older)
    newer.rename(path)
    _sync_one(path.parent)
    discard(older)


def recover(path: Path) -> Path:
    """Repairs what a process that was killed inside `atomic_replace` left behind, and returns `path`."""
    if not path.exists() and _older(path).exists():
        _older(path).rename(path)
    discard(_older(path))
    discard(_newer(path))
    return path


def get_current_version(path: Path) -> Path:
    """Returns `path`, or its older folder if that is the only one there is at the moment.

    Nothing is moved, since another process may be about to finish its `atomic_replace`.
    """
    return path if path.exists() or not _older(path).exists() else _older(path)


def _older(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _newer(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def append_line(path: Path, line: str) -> None:
    """Appends a line to a file and syncs it to the disk. If that fails, the file is as it was.

    Raises:
        UserError: the file cannot be written to.
    """
    with _explain_refusal(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size, content = os.fstat(descriptor).st_size, f"{line}\n".encode()
            try:
                while content:  # a disk that is nearly full accepts a part and reports no error
                    content = content[os.write(descriptor, content) :]
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)


def discard(path: Path) -> None:
    """Removes a file, a link, or a folder with everything in it, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Writes a file, or a folder with everything in it, from the system's caches to the disk."""
    if path.is_dir():
        for child in path.rglob("*"):
            _sync_one(child)
    _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_bytes(path: Path) -> BinaryIO:
    """Opens a plain, .gz or .xz file for reading its uncompressed bytes.

    Raises:
        UserError: the file does not exist or cannot be read.
    """
    if path.is_dir():
        raise UserError(f"Expected a file at {path}, found a folder.")
    try:
        if path.suffix == ".gz":
            return cast(BinaryIO, gzip.open(path, "rb"))
        if path.suffix == ".xz":
            return cast(BinaryIO, lzma.open(path, "rb"))
        return path.open("rb")
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}.{_suggest_file(path)}") from error
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error


def _suggest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f" There is no folder {path.parent} either."
    return suggest_name(path.name, [other.name for other in path.parent.iterdir()])


def compute_digest(content: bytes) -> str:
    """Returns the digest of some bytes in hexadecimal, to detect damage and to tell contents apart."""
    return start_digest(content).hexdigest()


def start_digest(content: bytes = b"") -> "hashlib.blake2b":
    """Returns a digest whose `update` takes more bytes. Stored files contain such digests, so it must not change."""
    return hashlib.blake2b(content, digest_size=16)


@contextmanager
def folder_lock(folder: Path, *, doing: str, key: str = "") -> Iterator[None]:
    """Creates a folder and keeps other processes out of it until the block ends.

    The system releases the lock when the process ends, however it ends, so that no stale lock can remain.

    Args:
        folder: to be locked.
        doing: what the holder is doing, for the message to the next process, such as "training".
        key: the configuration key that names the folder, if any.

    Raises:
        UserError: another process holds the lock, or the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+")
    except OSError as error:
        raise UserError(f"Cannot write to {f'{key} ' if key else ''}{folder}: {error.strerror}.") from error
    with file:
        if not _try_lock(file):
            file.seek(0)
            raise UserError(f"Process {file.read().strip()} is already {doing} in {folder}.")
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def wait_for_unlock(folder: Path, *, seconds: float) -> None:
    """Waits until no other process holds the lock of a folder, but no longer than some seconds."""
    end = time.monotonic() + seconds
    with (folder / LOCK).open("a") as file:
        # Closing the file releases the lock again.
        while not _try_lock(file) and time.monotonic() < end:
            time.sleep(0.2)


def _try_lock(file: IO[str]) -> bool:
    check_platform()
    import fcntl  # which Windows lacks: imported here, so that everything else can be imported there

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
