"""Atomic files, folders that one process at a time may use, and digests.

A file appears under its name only once it is whole and on the disk: it is written under a temporary name, synced and
then renamed, which POSIX guarantees to be atomic within a folder.
"""

import errno
import glob
import hashlib
import json
import os
import platform
import re
import shutil
import stat
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from nmt.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LOCK = ".lock"
PART = re.compile(r"\..+\.(?P<process>[0-9]+)(-(?P<machine>[0-9a-f]+))?\.part")
# A partial file of another machine, or of a container that is gone, is stale if nobody has written to it for a day.
STALE_SECONDS = 86_400


def check_platform() -> None:
    """Raises UserError on Windows, which has neither file locks (fcntl) nor a way to sync a folder to the disk."""
    if sys.platform == "win32":
        raise UserError("nmt runs on Linux and macOS; on Windows use WSL 2.")


@contextmanager
def atomic_write(path: Path, *, keep_stale: bool = False) -> Iterator[Path]:
    """Yields a temporary path beside `path` to write a file or folder to, and renames it to `path` at the end.

    If the block raises, the temporary file is removed, with the folders made for it, and `path` stays as it was. If the
    process is killed, a hidden file `.NAME.PID-MACHINE.part` is left behind, which no reader looks at, and which the
    next write removes.

    Args:
        path: a file, which may exist and is replaced, or a folder, which must not exist (see `atomic_replace`).
        keep_stale: leaves the files of killed processes, for callers who count them.

    Raises:
        UserError: the folder cannot be written to, or the disk is full.
    """
    aside = _name_part(path)
    with _explain_refusal(path):
        new_folders = [folder for folder in path.parents if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK | os.X_OK):  # before the work of the caller's block
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        discard(aside)
        if not keep_stale:
            _discard_stale(path)
    try:
        with explain_unwritable(str(path), FULL):
            yield aside
        with _explain_refusal(path):
            # Without the first sync, a power cut after the renaming could leave an empty file under the final name.
            # The second one makes the renaming itself last: it is an entry in the folder.
            sync(aside)
            aside.replace(path)
            _sync_one(path.parent)
    except BaseException:
        discard(aside)
        _remove_empty(new_folders)
        raise


def _remove_empty(folders: Iterable[Path]) -> None:
    """Removes folders, each in the next one, unless others have used them in the meantime."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


@contextmanager
def open_staging_folder(path: Path) -> Iterator[Path]:
    """Yields a new temporary folder beside `path`, named like those of `atomic_write`, and removes it at the end.

    Those that killed processes left are removed first.
    """
    folder = _name_part(path)
    discard(folder)
    _discard_stale(path)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        discard(folder)


def _name_part(path: Path) -> Path:
    """Returns the temporary path beside `path` of this process, in the form of PART."""
    return path.with_name(f".{path.name}.{os.getpid()}-{_get_machine()}.part")


def _discard_stale(path: Path) -> None:
    """Removes the partial files that killed processes left when they wrote `path`."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        if part.name.rsplit(".", 2)[0] == f".{path.name}" and _is_stale(part):
            discard(part)


def discard_stale_below(folder: Path) -> None:
    """Removes the partial files that killed processes left in a folder or below it."""
    for part in folder.rglob(".*.part"):
        if _is_stale(part):
            discard(part)


def _is_stale(part: Path) -> bool:
    found = PART.fullmatch(part.name)
    if found is None:
        return False
    if found["machine"] not in (None, _get_machine()):
        with suppress(FileNotFoundError):
            return part.stat().st_mtime < time.time() - STALE_SECONDS
        return False
    try:
        os.kill(int(found["process"]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # another user's
        return False
    return False


def _get_machine() -> str:
    """Returns a short name of this machine: process ids of two machines that share a folder may be equal."""
    return compute_digest(platform.node().encode(errors="replace"))[:8]


@contextmanager
def _explain_refusal(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise UserError(f"Cannot write {path}: {error.strerror}. Choose another place or change its owner.") from error
    except OSError as error:
        raise UserError(f"Cannot write {path}: {_find_reason(error, path)}.") from error


def _find_reason(error: OSError, path: Path) -> str | None:
    """Returns why a file or folder cannot be made, with the name of a file that stands in the place of a folder."""
    if isinstance(error, NotADirectoryError | FileExistsError):
        for place in (path, *path.parents):
            if place.is_file():
                return f"{place} is a file, not a folder"
    return error.strerror


@contextmanager
def explain_unwritable(target: str, numbers: Collection[int]) -> Iterator[None]:
    """Turns errors of the operating system with these numbers into a UserError that names the target.

    Any other error may have nothing to do with the target, because the caller's block can do anything.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.errno not in numbers:
            raise
        raise UserError(f"Cannot write {target}: {os.strerror(error.errno)}.") from error


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
        UserError: the file cannot be written to, or is a link.
    """
    # In a folder that others can write to, a link could lead to any file of this user.
    if path.is_symlink():
        raise UserError(f"Cannot write {path}: expected a file, found a link. Remove it.")
    with _explain_refusal(path):  # nor is a link that is made just now followed
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
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


def read_json_lines(path: Path, *, key: str) -> tuple[list[tuple[str, dict[str, Any]]], list[int]]:
    """Reads a file of JSON objects, one per line. There are none if it does not exist.

    Args:
        path: the file, written by `append_line`.
        key: a whole number that every object has.

    Returns:
        The lines with their objects, and the numbers of the lines that are damaged. An incomplete last line counts as
        neither: the process was killed while it wrote it.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    records, damaged = [], []
    for number, line in enumerate(lines, start=1):
        try:
            text = line.decode()
            record = json.loads(text)
            records.append((text, {**record, key: int(record[key])}))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            if number < len(lines):
                damaged.append(number)
    return records, damaged


def discard(path: Path) -> None:
    """Removes a file, a link, or a folder with everything in it, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(FileNotFoundError, NotADirectoryError):  # the latter if its folder is a file
            path.unlink()


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


def compute_digest(content: bytes) -> str:
    """Returns the digest of some bytes in hexadecimal, to detect damage and to tell contents apart."""
    return start_digest(content).hexdigest()


def compute_file_digest(path: Path, start: int = 0) -> str:
    """Returns the digest of a file's bytes from `start` on, without reading the whole file into memory.

    Raises:
        UserError: the file does not exist or cannot be read.
    """
    try:
        with path.open("rb") as file:
            file.seek(start)
            return hashlib.file_digest(file, start_digest).hexdigest()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error


def read_limited(path: Path, limit: int) -> bytes:
    """Reads a file that should be small; see `check_size`."""
    check_size(path, limit)
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error


def check_size(path: Path, limit: int) -> None:
    """Checks that something is a file that is not too large to read, rather than a pipe that never ends.

    Args:
        path: the file.
        limit: the largest size, in bytes.

    Raises:
        UserError: it is missing, is not a file, or is larger.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"Expected a file at {path}, found a folder, device or pipe.")
    if status.st_size > limit:
        raise UserError(f"{path} has {status.st_size:,} bytes, expected at most {limit:,}.")


def start_digest(content: bytes | memoryview = b"") -> "hashlib.blake2b":
    """Returns a digest whose `update` takes more bytes. Stored files contain such digests, so it must not change."""
    return hashlib.blake2b(content, digest_size=16)


@contextmanager
def folder_lock(
    folder: Path, *, doing: str, key: str = "", provisional: Collection[str] = (), reusable: Collection[str] = ()
) -> Iterator[None]:
    """Creates a folder and keeps other processes out of it until the block ends.

    The system releases the lock when the process ends, however it ends, so that no stale lock can remain. If the block
    raises before it has written anything that counts to an empty or new folder, the folder is left as it was.

    Args:
        folder: to be locked.
        doing: what the holder is doing, for the message to the next process, such as "training".
        key: the configuration key that names the folder, if any.
        provisional: names of files that do not count.
        reusable: names of files that do not count either if the block raises UserError. An interruption keeps them
            for the next process.

    Raises:
        UserError: another process holds the lock, or the folder cannot be written to or locked.
    """
    try:
        new_folders = [one for one in (folder, *folder.parents) if not one.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        is_empty = list_names(folder) <= {LOCK}
        file = _open_lock(folder)
    except OSError as error:
        reason = _find_reason(error, folder)
        raise UserError(f"Cannot write to {f'{key} ' if key else ''}{folder}: {reason}.") from error
    with file:
        if not _try_lock(file, folder):
            raise UserError(f"Process {file.read(20).strip()} is already {doing} in {folder}.")
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        except BaseException as error:
            uncounted = {LOCK, *provisional, *(reusable if isinstance(error, UserError) else ())}
            if is_empty and (names := list_names(folder)) <= uncounted:
                for name in names:
                    discard(folder / name)
                _remove_empty(new_folders)
            raise


def list_names(folder: Path) -> set[str]:
    """Returns the names of everything in a folder."""
    return {path.name for path in folder.iterdir()}


def wait_for_unlock(folder: Path, *, seconds: float) -> None:
    """Waits until no other process holds the lock of a folder, but no longer than some seconds."""
    end = time.monotonic() + seconds
    with _open_lock(folder) as file:
        # Closing the file releases the lock again.
        while not _try_lock(file, folder) and time.monotonic() < end:
            time.sleep(0.2)


def _open_lock(folder: Path) -> IO[str]:
    """Opens the lock file of a folder for reading and writing.

    Raises:
        UserError: it is something else: the lock is emptied, so it must not be a link to another file.
        OSError: it cannot be opened.
    """
    path = folder / LOCK
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UserError(f"Expected a lock file at {path}, found a link or another kind of file. Remove it.")
    # A link that is made just now is not followed either.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    return os.fdopen(descriptor, "r+", encoding="ascii", errors="replace")


def _try_lock(file: IO[str], folder: Path) -> bool:
    check_platform()
    import fcntl  # which Windows lacks: imported here, so that everything else can be imported there

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UserError(
            f"Cannot lock {folder}: {error.strerror}. Choose a folder on a file system that supports flock."
        ) from error
    return True
