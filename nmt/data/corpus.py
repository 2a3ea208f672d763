"""Reads lines of text: a stream, a file, parallel files, and a parallel corpus larger than memory.

All readers follow the same rules. Text is UTF-8. Only "\\n" ends a line; U+2028, U+0085, a form feed and NUL are
ordinary characters. A "\\r" just before "\\n" and a byte order mark at the start of a file are dropped, so that files
from Windows read like any other.
"""

import codecs
import io
import mmap
import os
import re
import shutil
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path

import numpy as np

from nmt.errors import UserError
from nmt.files import atomic_write, compute_digest, compute_file_digest, start_digest
from nmt.streams import STANDARD, is_compressed, name_stream, open_bytes

CHUNK_BYTES = 1 << 22
CHUNK_PAIRS = 1 << 16
# Sizes of the header of a .npy file with one or two axes, and of the checksum that we write after its numbers.
HEADER_BYTES, CHECKSUM_BYTES = 128, 4
# A text has these files in the cache, named after it and the digest of its state: where its lines start, a digest of
# its bytes, and a copy of the unpacked bytes if it is compressed.
LINES, FINGERPRINT, COPY = ".lines.npy", ".blake2b", ".txt"


class DamagedCacheError(UserError):
    """Raised for a damaged file of the cache, which can be rebuilt from the text."""


def read_lines(path: Path) -> list[str]:
    """Reads a file that fits into memory, such as a development set, or standard input for "-".

    Raises:
        UserError: the file is missing, damaged or not UTF-8.
    """
    with open_bytes(path) as stream:
        return list(read_stream(stream, name_stream(path)))


def read_parallel(source: Path, target: Path) -> tuple[list[str], list[str]]:
    """Reads a source and a target file that fit into memory.

    Raises:
        UserError: see `read_aligned`.
    """
    sources, targets = read_aligned(source, target)
    return sources, targets


def read_aligned(first: Path, *others: Path) -> list[list[str]]:
    """Reads files that fit into memory and have the same number of lines, such as a source and its references.

    Raises:
        UserError: a file is missing, damaged, empty or not UTF-8, or their numbers of lines differ.
    """
    if [first, *others].count(STANDARD) > 1:
        raise UserError("Standard input can be read only once; give one file as '-'.")
    texts = [read_lines(path) for path in (first, *others)]
    for path, lines in zip(others, texts[1:], strict=True):
        check_aligned(first, len(texts[0]), path, len(lines))
    if not texts[0]:
        raise UserError(f"{name_stream(first)} is empty.")
    return texts


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


def check_aligned(first: Path, num_first: int, other: Path, num_other: int) -> None:
    """Raises UserError unless both files have the same number of lines."""
    if num_first != num_other:
        first_gap = min(num_first, num_other) + 1
        raise UserError(
            f"These files must have the same number of lines: {name_stream(first)} has {num_first}, "
            f"{name_stream(other)} has {num_other}. The first line without a partner is line {first_gap}."
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
        try:
            return cls._map(path, entry)
        except (OSError, DamagedCacheError):
            _write_index(path, entry)
        return cls._map(path, entry)

    @classmethod
    def _map(cls, path: Path, entry: Path) -> "TextFile":
        starts, fingerprint = map_array(_add_suffix(entry, LINES)), _read_sealed(_add_suffix(entry, FINGERPRINT))
        if len(starts) == 1:
            raise UserError(f"Expected lines of text in {path}, found an empty file.")
        text = _add_suffix(entry, COPY) if is_compressed(path) else path
        with text.open("rb") as file:
            # A plain file is not part of the cache, and a change of it shows in its state (`_digest_state`).
            is_whole = text == path or compute_file_digest(text) == fingerprint
            if not is_whole or os.fstat(file.fileno()).st_size != starts[-1]:
                raise DamagedCacheError(f"{text} is damaged, or changes while it is read.")
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return cls(path, fingerprint, content, starts)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> str:
        # The range takes negative indices, and raises IndexError, which ends an iteration.
        return self.read_lines([range(len(self))[index]])[0]

    @property
    def line_sizes(self) -> np.ndarray:
        """The bytes of each line, line end included: int64 [number of lines]."""
        return np.diff(self._starts)

    def read_lines(self, indices: Sequence[int] | np.ndarray) -> list[str]:
        """Returns the lines with these numbers, counted from 0, in the order of `indices`."""
        first = np.asarray(indices, dtype=np.int64)
        bounds = zip(self._starts[first].tolist(), self._starts[first + 1].tolist(), strict=True)
        return [_decode_line(self._content[start:end]) for start, end in bounds]

    def find_lines(self, pattern: re.Pattern[bytes]) -> np.ndarray:
        """Finds the lines whose bytes, line end included, match a pattern: int64, counted from 0, ascending."""
        places = np.fromiter((match.start() for match in pattern.finditer(self._content)), dtype=np.int64)
        return np.unique(np.searchsorted(self._starts, places, side="right") - 1)


def _add_suffix(entry: Path, suffix: str) -> Path:
    return entry.with_name(f"{entry.name}{suffix}")


def _digest_state(path: Path) -> str:
    """Digests the path of a file and what changes whenever it does. The content is not read.

    Tools can set a file's time stamp to any value, but not the time of its last change (ctime). A file that is moved
    over another one brings its own time stamp and number (inode).
    """
    if path == STANDARD or (path.exists() and not path.is_file() and not path.is_dir()):
        raise UserError(f"Expected a file at {path}, which is read many times, found a pipe or device.")
    with open_bytes(path):
        state = path.stat()
    facts = (path.resolve(), state.st_size, state.st_mtime_ns, state.st_ino, state.st_ctime_ns)
    return compute_digest("\n".join(map(str, facts)).encode())


def _write_index(path: Path, entry: Path) -> None:
    """Writes where the lines of a file start, the digest of its bytes, and if it is compressed, these bytes."""
    text = path
    if is_compressed(path):
        text = _add_suffix(entry, COPY)
        with open_bytes(path) as packed, atomic_write(text) as aside, aside.open("wb") as plain:
            shutil.copyfileobj(packed, plain, CHUNK_BYTES)
    try:
        with open_growing_array(_add_suffix(entry, LINES)) as append:
            _write_sealed(_add_suffix(entry, FINGERPRINT), _scan(text, append))
    except UnicodeDecodeError:
        # The scan does not know line numbers. The slow reader does, and fails with them.
        with text.open("rb") as stream:
            deque(read_stream(stream, str(path)), maxlen=0)
        raise


def _write_sealed(path: Path, text: str) -> None:
    """Writes a line of text with a checksum of it and of the file's name."""
    with atomic_write(path) as aside:
        aside.write_text(f"{text} {zlib.crc32(f'{path.name} {text}'.encode()):08x}\n", encoding="ascii")


def _read_sealed(path: Path) -> str:
    """Reads the line that `_write_sealed` wrote; raises DamagedCacheError if it is damaged."""
    text, _, checksum = path.read_text(encoding="latin-1").rpartition(" ")
    if checksum != f"{zlib.crc32(f'{path.name} {text}'.encode()):08x}\n":
        raise DamagedCacheError(f"{path} is damaged.")
    return text


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
        for path in chain.from_iterable(pairs):  # a mistake in a path is reported before any text is indexed
            _digest_state(path)
        sources = [TextFile.open(source, cache) for source, _ in pairs]
        targets = [TextFile.open(target, cache) for _, target in pairs]
        for source, target in zip(sources, targets, strict=True):
            check_aligned(source.path, len(source), target.path, len(target))
        fingerprint = compute_digest("".join(text.fingerprint for text in (*sources, *targets)).encode())
        first_rows = np.cumsum([0, *map(len, sources)])
        path = cache / f"pairs.{fingerprint}.npy"
        try:
            kept_rows = map_array(path)
        except (OSError, DamagedCacheError):
            _index_pairs(sources, targets, first_rows, path)
            kept_rows = map_array(path)
        return cls(fingerprint, sources, targets, first_rows, kept_rows)

    def __len__(self) -> int:
        return len(self._kept_rows)

    @property
    def num_blank(self) -> int:
        """Number of pairs that are left out because a side is blank."""
        return int(self._first_rows[-1]) - len(self)

    def select(self, indices: np.ndarray) -> "ParallelCorpus":
        """Returns a corpus of these pairs alone, numbered from 0; `num_blank` counts all others as well."""
        return replace(self, _kept_rows=self._kept_rows[indices])

    def read_sources(self, indices: np.ndarray) -> list[str]:
        """Returns the source sides of these pairs, in the order of `indices`."""
        return self._read(self._sources, indices)

    def read_targets(self, indices: np.ndarray) -> list[str]:
        """Returns the target sides of these pairs, in the order of `indices`."""
        return self._read(self._targets, indices)

    def find_corpora(self, indices: np.ndarray) -> np.ndarray:
        """Returns for each of these pairs the place of its files in the list that was opened: int64, from 0."""
        return self._find_files(self._kept_rows[indices])

    def find_lines(self, indices: np.ndarray) -> np.ndarray:
        """Returns for each of these pairs its line in its files: int64, from 0."""
        rows = self._kept_rows[indices]
        return rows - self._first_rows[self._find_files(rows)]

    def count_lines(self, number: int) -> int:
        """Returns the number of lines of a corpus, by its place in the list that was opened; blank pairs count."""
        return int(self._first_rows[number + 1] - self._first_rows[number])

    def read_texts(self, indices: np.ndarray, epoch: int = 0) -> tuple[list[str], list[str]]:
        """Returns both sides of these pairs, in the order of `indices` and the same in every epoch."""
        return self.read_sources(indices), self.read_targets(indices)

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
    memory map, because a process that writes to a map dies with SIGBUS when the disk is full. A checksum follows the
    numbers, for `map_array`; NumPy's own functions read the file, too, and ignore it.

    Args:
        path: of the file. Its name must tell what the numbers were made from, because the checksum includes it.
        dtype: type of the numbers.
        columns: number of columns of a 2-D array, to which whole rows are appended; None makes a 1-D array.
    """
    row_bytes = np.dtype(dtype).itemsize * (columns or 1)
    checksum = zlib.crc32(path.name.encode())
    with atomic_write(path) as aside, aside.open("wb") as file:
        file.write(_make_header(dtype, 0, columns))

        def append(numbers: np.ndarray) -> None:
            nonlocal checksum
            content = np.ascontiguousarray(numbers, dtype).data
            file.write(content)
            checksum = zlib.crc32(content, checksum)

        yield append
        header = _make_header(dtype, (file.tell() - HEADER_BYTES) // row_bytes, columns)
        file.write(zlib.crc32(header, checksum).to_bytes(CHECKSUM_BYTES, "little"))
        file.seek(0)
        file.write(header)


def _make_header(dtype: str, num_rows: int, columns: int | None) -> bytes:
    # NumPy pads the header, so that the header for any number of rows has the same size.
    shape = (num_rows,) if columns is None else (num_rows, columns)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    assert len(header.getvalue()) == HEADER_BYTES
    return header.getvalue()


def map_array(path: Path) -> np.ndarray:
    """Maps a file that `open_growing_array` wrote, after reading all of it once to compare the checksum.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedCacheError: the file is damaged.
    """
    # CRC-32 detects every burst of up to 32 damaged bits, and all but one in 4 billion other changes. It takes a second
    # or less per GB, less than reading from the disk.
    checksum = zlib.crc32(path.name.encode())
    with path.open("rb") as file:
        left = os.fstat(file.fileno()).st_size - HEADER_BYTES - CHECKSUM_BYTES
        header = file.read(HEADER_BYTES)
        while left > 0 and (chunk := file.read(min(left, CHUNK_BYTES))):
            checksum = zlib.crc32(chunk, checksum)
            left -= len(chunk)
        if left or file.read() != zlib.crc32(header, checksum).to_bytes(CHECKSUM_BYTES, "little"):
            raise DamagedCacheError(f"{path} is damaged.")
    # A plain view, because slicing numpy.memmap itself is several times slower.
    return np.asarray(np.load(path, mmap_mode="r"))
