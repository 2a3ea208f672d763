"""Whole-or-absent files: written under a temporary name, synced, renamed. Folders that one process at a time fills."""

import errno
import fcntl
import gzip
import lzma
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from nmt.errors import UserError, suggest_name

COMPRESSED = (".gz", ".xz")
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary sibling of `path` to write a file or folder to, and renames it to `path` at the end.

    When the block raises, the sibling is removed and whatever stood at `path` is left as it was. A folder at `path`
    must not exist yet.

    Raises:
        UserError: the folder cannot be written to, or the disk is full.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    with _refusals_of(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        discard(aside)
    try:
        with _full_disk_at(path):
            yield aside
        with _refusals_of(path):
            sync(aside)
            aside.replace(path)
            _sync_one(path.parent)
    finally:
        discard(aside)


@contextmanager
def _refusals_of(path: Path) -> Iterator[None]:
    try:
        yield
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise UserError(f"Cannot write {path}: {error.strerror}. Choose another place or change its owner.") from error
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror}.") from error


@contextmanager
def _full_disk_at(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UserError(f"Cannot write {path}: {os.strerror(error.errno)}.") from error


@contextmanager
def atomic_replace(path: Path) -> Iterator[Path]:
    """Like `atomic_write`, for a folder that may take another's place: at any moment one of the two is whole.

    Where the process ends between the two renamings, the older folder is found at `.NAME.old`: readers take it from
    there (`current_version`), and the next call of `recover` puts it back.

    Raises:
        UserError: the folder cannot be written to.
    """
    older = _older(path)
    with _refusals_of(path):
        recover(path)
    with atomic_write(path.with_name(f".{path.name}.new")) as aside:
        yield aside
    if path.exists():
        path.rename(older)
    path.with_name(f".{path.name}.new").rename(path)
    _sync_one(path.parent)
    discard(older)


def append_line(path: Path, line: str) -> None:
    """Adds a line to a file, on the disk when this returns; where that fails, the file is as it was.

    Raises:
        UserError: the file cannot be written to.
    """
    with _refusals_of(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size, content = os.fstat(descriptor).st_size, f"{line}\n".encode()
            try:
                while content:  # a disk that is filling up takes a part
                    content = content[os.write(descriptor, content) :]
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)


def recover(path: Path) -> Path:
    """Returns `path`, after putting back its older folder where a replacement was cut off half-way."""
    if not path.exists() and _older(path).exists():
        _older(path).rename(path)
    discard(_older(path))
    discard(path.with_name(f".{path.name}.new"))
    return path


def current_version(path: Path) -> Path:
    """Returns `path`, or its older folder while that is the only one: between two renamings, or ever since they were
    cut off. Nothing is moved, since another process may be about to do so."""
    return path if path.exists() or not _older(path).exists() else _older(path)


def _older(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def discard(path: Path) -> None:
    """Removes a file or a folder with all that is in it; nothing happens where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Asks the system to put a file, or a folder with all that is in it, on the disk."""
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
    """Opens a plain, .gz or .xz file for reading its bytes, unpacked.

    Raises:
        UserError: there is no such file, or it is not readable.
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
        raise UserError(f"There is no file {path}.{_neighbour(path)}") from error
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error


def _neighbour(path: Path) -> str:
    if not path.parent.is_dir():
        return f" Nor is there a folder {path.parent}."
    return suggest_name(path.name, [other.name for other in path.parent.iterdir()])


@contextmanager
def folder_lock(folder: Path, *, doing: str, key: str = "") -> Iterator[None]:
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
