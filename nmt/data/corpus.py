"""Reads lines of text: a stream, a file, parallel files, and a parallel corpus larger than memory.

All readers follow the same rules. Text is UTF-8. Only "\\n" ends a line; U+2028, U+0085, a form feed and NUL are
ordinary characters. A "\\r" just before "\\n" and a byte order mark at the start of a file are dropped, so that files
from Windows read like any other.
"""

import codecs
import mmap
import re
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np

from nmt.errors import UserError
from nmt.files import atomic_write, compute_digest, start_digest
from nmt.streams import STANDARD, is_compressed, name_stream, open_bytes

CHUNK_BYTES = 1 << 22
CHUNK_PAIRS = 1 << 16


def read_lines(path: Path) -> list[str]:
    """Reads a file that fits into memory, such as a development set, or standard input for "-".

    Raises:
        UserError: the file is missing, damaged or not UTF-8.
    """
    with open_bytes(path) as stream:
        return list(read_stream(stream, name_stream(path)))


def read_parallel(source: Path, *targets: Path) -> tuple[list[str], ...]:
    """Reads a source and a target file, or several, that fit into memory.

    Raises:
        UserError: a file is missing, damaged, empty or not UTF-8, or their numbers of lines differ.
    """
    if [source, *targets].count(STANDARD) > 1:
        raise UserError("Standard input can be read only once; give one file as '-'.")
    sources, *others = (read_lines(path) for path in (source, *targets))
    for target, lines in zip(targets, others, strict=True):
        _check_aligned(source, len(sources), target, len(lines))
    if not sources:
        raise UserError(f"{name_stream(source)} is empty.")
    return sources, *others


def read_stream(stream: Iterable[bytes], name: str, first: int = 1) -> Iterator[str]:
    """Yields the lines of a stream, such as standard input, each as soon as it is complete.

    Args:
        stream: lines of bytes, with their ends.
        name: of the stream, for messages.
        first: number of the first of these lines in the stream.

    Raises:
        UserError: a line is not UTF-8; the message begins with `name` and the number of the line.
    """
    for number, line in enumerate(stream, start=first):
        content = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if not content:
            return
        try:
            yield _decode_line(content)
        except UnicodeDecodeError as error:
            raise UserError(
                f"{name}:{number}: Expected UTF-8 text, found 0x{content[error.start]:02x} at byte {error.start + 1} "
                "of the line. Convert the text to UTF-8, for example with iconv."
            ) from error


def _decode_line(line: bytes) -> str:
    return line.removesuffix(b"\r\n" if line.endswith(b"\r\n") else b"\n").decode()


def _check_aligned(source: Path, num_sources: int, target: Path, num_targets: int) -> None:
    if num_sources != num_targets:
        raise UserError(
            f"Source and target must have the same number of lines: {source} has {num_sources}, {target} has "
            f"{num_targets}. The first line without a partner is line {min(num_sources, num_targets) + 1}."
        )


@dataclass(frozen=True, eq=False)
class TextFile:
    """A text file as a sequence of lines, read from a memory map, so that no line stays in memory.

    Several threads may read from one file at the same time.

    Attributes:
        path: the file as the user named it; it may be compressed.
        fingerprint: digest of the unpacked bytes, by which training notices that text has changed.
    """

    path: Path
    fingerprint: str
    _content: mmap.mmap
    _starts: np.ndarray  # int64 [num_lines + 1], where each line starts, and where the last one ends

    @classmethod
    def open(cls, path: Path, cache: Path) -> "TextFile":
        """Maps a file. The first time, it is unpacked and indexed into the folder `cache`.

        Raises:
            UserError: the file is missing, damaged, empty or not UTF-8.
        """
        entry = cache / f"{path.name}.{_digest_state(path)}"
        text = _unpack(path, entry.with_name(f"{entry.name}.txt"))
        starts, fingerprint = (entry.with_name(f"{entry.name}.{kind}") for kind in ("lines.npy", "blake2b"))
        if not starts.exists():
            _write_index(path, text, starts=starts, fingerprint=fingerprint)
        bounds = _map_array(starts)
        if len(bounds) == 1:
            raise UserError(f"Expected lines of text in {path}, found an empty file.")
        with text.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return cls(path, fingerprint.read_text(), content, bounds)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> str:
        # The range takes negative indices, and raises IndexError, which ends an iteration.
        return self.read_lines([range(len(self))[index]])[0]

    def read_lines(self, indices: Sequence[int] | np.ndarray) -> list[str]:
        """Returns the lines with these numbers, counted from 0, in the order of `indices`."""
        first = np.asarray(indices, dtype=np.int64)
        bounds = zip(self._starts[first].tolist(), self._starts[first + 1].tolist(), strict=True)
        return [_decode_line(self._content[start:end]) for start, end in bounds]

    def find_lines(self, pattern: re.Pattern[bytes]) -> np.ndarray:
        """Finds the lines whose bytes, line end included, match a pattern: int64, counted from 0, ascending."""
        places = np.fromiter((match.start() for match in pattern.finditer(self._content)), dtype=np.int64)
        return np.unique(np.searchsorted(self._starts, places, side="right") - 1)


def _digest_state(path: Path) -> str:
    """Digests path, size and time of a file. It changes whenever the file does, and its content is not read."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(f"Expected a file at {path}, which is read many times, found a pipe or device.")
    with open_bytes(path):
        state = path.stat()
    return compute_digest(f"{path.resolve()}\n{state.st_size}\n{state.st_mtime_ns}".encode())


def _unpack(path: Path, copy: Path) -> Path:
    """Returns the path itself, or for a compressed file the path of its unpacked copy."""
    if not is_compressed(path):
        return path
    if not copy.exists():
        with open_bytes(path) as packed, atomic_write(copy) as aside, aside.open("wb") as plain:
            shutil.copyfileobj(packed, plain, CHUNK_BYTES)
    return copy


def _write_index(path: Path, text: Path, *, starts: Path, fingerprint: Path) -> None:
    """Writes where the lines of `text` start, and its digest.

    `starts` appears last, so that its existence means that both are complete.
    """
    try:
        with open_growing_array(starts) as append, atomic_write(fingerprint) as aside:
            aside.write_text(_scan(text, append))
    except UnicodeDecodeError:
        # The scan does not know line numbers. The slow reader does, and fails with them.
        with text.open("rb") as stream:
            deque(read_stream(stream, str(path)), maxlen=0)
        raise


def _scan(text: Path, append: Callable[[np.ndarray], object]) -> str:
    """Appends the start of each line and the end of the last one, and returns the digest of the bytes, in one pass.

    Raises:
        UnicodeDecodeError: the file is not UTF-8.
    """
    # Incremental, because a chunk can end in the middle of a character.
    check, digest = codecs.getincrementaldecoder("utf-8")().decode, start_digest()
    with text.open("rb") as stream:
        start, end = len(codecs.BOM_UTF8) if stream.peek().startswith(codecs.BOM_UTF8) else 0, 0
        append(np.array([start]))
        while chunk := stream.read(CHUNK_BYTES):
            check(chunk)
            digest.update(chunk)
            starts = np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n")) + (end + 1)
            append(starts)
            start, end = starts[-1] if len(starts) else start, end + len(chunk)
    check(b"", final=True)
    if start < end:  # the last line has no "\n"
        append(np.array([end]))
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class ParallelCorpus:
    """The sentence pairs of several source and target files, one file after the other.

    Pairs with a blank side are left out. Pairs are numbered from 0. Text is read from disk when it is requested.

    Attributes:
        fingerprint: digest of all text in its order; file names do not matter.
    """

    fingerprint: str
    _sources: Sequence[TextFile]
    _targets: Sequence[TextFile]
    _first_rows: np.ndarray  # int64 [num_files + 1], first row of each file, blank pairs included, and the row count
    _kept_rows: np.ndarray  # int64 [num_pairs], the row of each pair

    @classmethod
    def open(cls, pairs: Sequence[tuple[Path, Path]], cache: Path) -> "ParallelCorpus":
        """Maps pairs of source and target file. The first time, they are indexed into the folder `cache`.

        Raises:
            UserError: a file is missing, damaged, empty or not UTF-8, the numbers of lines of a pair of files differ,
                or all its sentence pairs have a blank side.
        """
        if not pairs:
            raise UserError("Expected at least one source file and its target file, found none.")
        sources = [TextFile.open(source, cache) for source, _ in pairs]
        targets = [TextFile.open(target, cache) for _, target in pairs]
        for source, target in zip(sources, targets, strict=True):
            _check_aligned(source.path, len(source), target.path, len(target))
        fingerprint = compute_digest("".join(text.fingerprint for text in (*sources, *targets)).encode())
        first_rows = np.cumsum([0, *map(len, sources)])
        kept_rows = cache / f"pairs.{fingerprint}.npy"
        if not kept_rows.exists():
            _index_pairs(sources, targets, first_rows, kept_rows)
        return cls(fingerprint, sources, targets, first_rows, _map_array(kept_rows))

    def __len__(self) -> int:
        return len(self._kept_rows)

    @property
    def num_blank(self) -> int:
        """Number of pairs that are left out because a side is blank."""
        return int(self._first_rows[-1]) - len(self)

    def read_sources(self, indices: np.ndarray) -> list[str]:
        """Returns the source sides of these pairs, in the order of `indices`."""
        return self._read(self._sources, indices)

    def read_targets(self, indices: np.ndarray) -> list[str]:
        """Returns the target sides of these pairs, in the order of `indices`."""
        return self._read(self._targets, indices)

    def locate(self, index: int) -> str:
        """Returns "file:line" of a pair's source side, for messages."""
        row = int(self._kept_rows[index])
        file = int(self._find_files(row))
        return f"{self._sources[file].path}:{row - self._first_rows[file] + 1}"

    def _find_files(self, rows: np.ndarray | int) -> np.ndarray:
        return np.searchsorted(self._first_rows, rows, side="right") - 1

    def _read(self, texts: Sequence[TextFile], indices: np.ndarray) -> list[str]:
        rows = self._kept_rows[indices]
        files = self._find_files(rows)
        lines = np.empty(len(rows), dtype=object)
        for file in np.unique(files):
            here = files == file
            lines[here] = texts[file].read_lines(rows[here] - self._first_rows[file])
        return lines.tolist()


def _index_pairs(sources: list[TextFile], targets: list[TextFile], first_rows: np.ndarray, path: Path) -> None:
    """Writes the rows of the pairs that have text on both sides."""
    with open_growing_array(path) as append:
        for source, target, first_row in zip(sources, targets, first_rows[:-1], strict=True):
            num_kept = 0
            for lines in split_indices(len(source)):
                kept = lines[_has_text(source.read_lines(lines)) & _has_text(target.read_lines(lines))]
                append(first_row + kept)
                num_kept += len(kept)
            if num_kept == 0:
                raise UserError(
                    f"Expected sentence pairs in {source.path} and {target.path}, but in all {len(source)} of them "
                    "one side or both are blank."
                )


def _has_text(lines: list[str]) -> np.ndarray:
    return np.array([bool(line.strip()) for line in lines], dtype=bool)


def split_indices(count: int) -> Iterator[np.ndarray]:
    """Yields the indices 0 to `count` - 1 in arrays of at most CHUNK_PAIRS, which bounds the text held in memory."""
    for start, end in pairwise([*range(0, count, CHUNK_PAIRS), count]):
        yield np.arange(start, end)


@contextmanager
def open_growing_array(
    path: Path, dtype: str = "<i8", columns: int | None = None
) -> Iterator[Callable[[np.ndarray], object]]:
    """Yields a function that appends numbers to a .npy file, so that the array is never held in memory.

    The file appears at `path` when the block ends without an exception. It is written as a stream and not through a
    memory map, because a process that writes to a map dies with SIGBUS when the disk is full.

    Args:
        path: of the file.
        dtype: type of the numbers.
        columns: number of columns of a 2-D array, to which whole rows are appended; None makes a 1-D array.
    """
    row_bytes = np.dtype(dtype).itemsize * (columns or 1)
    with atomic_write(path) as aside, aside.open("wb") as file:
        _write_header(file, dtype, 0, columns)
        header_bytes = file.tell()
        yield lambda numbers: file.write(np.ascontiguousarray(numbers, dtype).data)
        num_rows = (file.tell() - header_bytes) // row_bytes
        file.seek(0)
        _write_header(file, dtype, num_rows, columns)


def _write_header(file: BinaryIO, dtype: str, num_rows: int, columns: int | None) -> None:
    # NumPy pads the header, so that the header for any number of rows has the same size.
    shape = (num_rows,) if columns is None else (num_rows, columns)
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})


def _map_array(path: Path) -> np.ndarray:
    # A plain view, because slicing numpy.memmap itself is several times slower.
    return np.asarray(np.load(path, mmap_mode="r"))
