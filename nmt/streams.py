"""Text files and standard streams, opened for reading and writing: the only place that knows about compression.

Compression is recognized by the first bytes of a file when it is read, and follows from its suffix when it is written.
The path "-" is standard input or standard output.
"""

import bz2
import contextlib
import errno
import gzip
import io
import lzma
import os
import re
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple, NoReturn, cast

from backports import zstd

from nmt.errors import UserError, suggest_name
from nmt.files import FULL, atomic_write, explain_unwritable

STANDARD = Path("-")
BUFFER_BYTES = 1 << 17
# Other names of the open files of this process. Opening them again would truncate a file that a shell opened with >>.
DESCRIPTOR = re.compile(r"/dev/(?:std(?P<name>out|err)|fd/(?P<device>\d+))|/proc/self/fd/(?P<process>\d+)")
MOUNTS = Path("/proc/self/mountinfo")  # of Linux
UNWRITABLE = (*FULL, errno.EIO, errno.EBADF)


class DamagedFileError(UserError):
    """Raised for a compressed file that cannot be unpacked."""


# As the program zstd writes; the other formats always have one.
CHECKSUM: dict[int, int] = {zstd.CompressionParameter.checksum_flag: 1}


class _StreamReader(io.RawIOBase):
    """Unpacks the streams of a file one after the other, as `cat a.xz b.xz` and parallel compressors write them.

    Unlike `bz2.BZ2File` and `lzma.LZMAFile`, it does not take a damaged stream after the first one for the end of the
    file. Zeros may follow a stream, as the format xz permits.

    Args:
        file: the packed file.
        make_decompressor: makes the decompressor of a stream.
    """

    def __init__(self, file: BinaryIO, make_decompressor: Callable[[], Any]):
        self._file, self._make_decompressor = file, make_decompressor
        self._decompressor, self._packed = make_decompressor(), b""

    def readable(self) -> bool:
        """Returns True."""
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        """Reads into a buffer and returns the number of bytes."""
        while not self._decompressor.eof or self._begin_next():
            if self._decompressor.needs_input and not self._packed and not self._read_packed():
                raise EOFError("Compressed file ended before the end-of-stream marker was reached")
            part, self._packed = self._decompressor.decompress(self._packed, len(buffer)), b""
            if part:
                buffer[: len(part)] = part
                return len(part)
        return 0

    def _begin_next(self) -> bool:
        """Makes the decompressor of the next stream, and returns whether there is one."""
        self._packed = self._decompressor.unused_data.lstrip(b"\0")
        while not self._packed and self._read_packed():
            self._packed = self._packed.lstrip(b"\0")
        if self._packed:
            self._decompressor = self._make_decompressor()
        return bool(self._packed)

    def _read_packed(self) -> bool:
        self._packed = self._file.read(io.DEFAULT_BUFFER_SIZE)
        return bool(self._packed)


class Compression(NamedTuple):
    """A kind of compressed file."""

    magic: re.Pattern[bytes]
    """How a file begins."""
    unpack: Callable[[BinaryIO], Any]
    """Opens a packed stream for reading."""
    pack: Callable[[BinaryIO], Any]
    """Opens a stream for writing packed bytes to it."""


COMPRESSIONS = {
    ".gz": Compression(
        re.compile(rb"\x1f\x8b"),
        lambda file: gzip.GzipFile(fileobj=file, mode="rb"),
        # Without name and time in the header, equal texts are equal files.
        lambda file: gzip.GzipFile("", "wb", fileobj=file, mtime=0),
    ),
    ".bz2": Compression(
        re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"),
        lambda file: _StreamReader(file, bz2.BZ2Decompressor),
        lambda file: bz2.BZ2File(file, "wb"),
    ),
    ".xz": Compression(
        re.compile(rb"\xfd7zXZ\x00"),
        lambda file: _StreamReader(file, lzma.LZMADecompressor),
        lambda file: lzma.LZMAFile(file, "wb"),  # noqa: SIM115
    ),
    ".zst": Compression(
        re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),
        zstd.ZstdFile,
        lambda file: zstd.ZstdFile(file, "wb", options=CHECKSUM),
    ),
}
# Formats in which text is sometimes packed, but which cannot be read.
UNSUPPORTED = {
    "a ZIP archive": re.compile(rb"PK\x03\x04"),
    "a 7-Zip archive": re.compile(rb"7z\xbc\xaf\x27\x1c"),
    "a RAR archive": re.compile(rb"Rar!\x1a\x07"),
    "an LZ4 file": re.compile(rb"\x04\x22\x4d\x18"),
    "an lzip file": re.compile(rb"LZIP\x01"),
    "a file of the program compress": re.compile(rb"\x1f[\x9d\xa0]"),
}
HEAD_BYTES = 10  # the longest of these patterns
FIRST_BYTES = b"\x1fB\xfd\x28PQRSTUVWXYZ[\\]^_7\x04L"  # the first bytes of all these patterns
DAMAGE = (EOFError, zlib.error, lzma.LZMAError, zstd.ZstdError)


def name_stream(path: Path) -> str:
    """Returns how messages name a file that is read."""
    return "standard input" if path == STANDARD else str(path)


def open_bytes(path: Path) -> BinaryIO:
    """Opens a file, or standard input for "-", for reading its unpacked bytes.

    Plain, .gz, .bz2, .xz and .zst files are told apart by their content. `read1` and lines of a pipe or terminal return
    what has arrived.

    Raises:
        UserError: the file is missing, cannot be read, is packed in a way that is not supported, or turns out to be
            damaged while it is read.
    """
    file = _open_standard_input() if path == STANDARD else _open_file(path)
    try:
        stream = _unpack(file, path)
    except BaseException:
        file.close()
        raise
    return io.BufferedReader(_Reader(stream, file, path), BUFFER_BYTES)


def is_compressed(path: Path) -> bool:
    """Returns whether the content of a file is compressed.

    Raises:
        UserError: see `open_bytes`.
    """
    with _open_file(path) as file:
        return _find_compression(_read_head(file, path), path) is not None


def is_regular_file(stream: BinaryIO) -> bool:
    """Returns whether a stream of `open_bytes` is complete already, unlike a pipe or a terminal."""
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except io.UnsupportedOperation:  # a program gave sys.stdin another value
        return True


@contextmanager
def open_output(path: Path, *, keep_stale: bool = False) -> Iterator[IO[str]]:
    """Opens a file, or standard output for "-", for writing UTF-8 text.

    The suffixes .gz, .bz2, .xz and .zst compress the text. An ordinary file appears once it is whole: if the block
    raises, it stays as it was. It keeps the mode of the file that it replaces, and its owner if the system permits.
    Links are followed. Devices, FIFOs and files that cannot be replaced are written to directly.

    Args:
        path: the file.
        keep_stale: see `atomic_write`.

    Raises:
        UserError: the file cannot be written.
    """
    if path == STANDARD:
        with write_standard_output() as out:
            yield out
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(explain_unwritable(str(path), UNWRITABLE))
        compression = COMPRESSIONS.get(path.suffix.lower())
        file = stack.enter_context(_open_target(path, keep_stale=keep_stale))
        packed = cast(BinaryIO, stack.enter_context(compression.pack(file))) if compression else file
        # Closed after the block, not by the stack: after an exception, nothing more needs to be written.
        text = io.TextIOWrapper(packed, encoding="utf-8", newline="\n")
        yield text
        text.flush()
        text.detach()


def check_output(path: Path, *inputs: Path | None) -> None:
    """Checks that a file to write is none of the files that are read, whose text it would replace.

    Args:
        path: the file to write.
        inputs: files that are read, and None for those that are not given.

    Raises:
        UserError: it is one of them, perhaps by another name.
    """
    if path == STANDARD:
        return
    for one in filter(None, inputs):
        if one != STANDARD and path.is_file() and one.is_file() and path.samefile(one):
            raise UserError(
                f"{path} would replace the text that is read from {one}. Choose another file for the output."
            )


@contextmanager
def write_standard_output() -> Iterator[IO[str]]:
    """Yields standard output, which is flushed at the end of the block.

    Raises:
        UserError: it is closed, or cannot be written to.
        BrokenPipeError: the reader has gone.
    """
    if sys.stdout is None:
        raise UserError("Standard output is closed.")
    with explain_unwritable("to standard output", UNWRITABLE):
        # The locale of a terminal may not have all characters. Programs may give sys.stdout another value. The names of
        # some files are not UTF-8, and are printed byte by byte.
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
        yield sys.stdout
        sys.stdout.flush()


def replace_home(path: Path) -> Path:
    """Returns a path with the home folder in place of a ~ at its beginning.

    Shells do not replace it in --input=~/text or in an environment variable.
    """
    try:
        return path.expanduser()
    except RuntimeError:  # there is no such user: a file may begin with ~
        return path


def _open_file(path: Path) -> io.RawIOBase:
    if path.is_dir():
        raise UserError(f"Expected a file at {path}, found a folder.")
    try:
        return cast(io.RawIOBase, path.open("rb", buffering=0))
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}.{_suggest_file(path)}") from error
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error


def _suggest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f" There is no folder {path.parent} either."
    return suggest_name(path.name, [other.name for other in path.parent.iterdir()])


def _open_standard_input() -> io.RawIOBase:
    if sys.stdin is None:
        raise UserError("Standard input is closed. Give a file.")
    try:
        # Not sys.stdin.buffer, whose lock Python needs at exit. A reader that a signal interrupts could still hold it.
        return io.FileIO(sys.stdin.fileno(), closefd=False)
    except io.UnsupportedOperation:  # a program gave sys.stdin another value
        return cast(io.RawIOBase, io.BytesIO(sys.stdin.buffer.read()))


def _unpack(file: io.RawIOBase, path: Path) -> BinaryIO:
    head = _read_head(file, path)
    compression = _find_compression(head, path)
    # After its end, a terminal would have to be read, and ended, once more.
    whole = cast(BinaryIO, _Rejoined(head, file) if head else io.BytesIO())
    return cast(BinaryIO, compression.unpack(whole)) if compression else whole


def _read_head(file: io.RawIOBase, path: Path) -> bytes:
    """Reads the first bytes of a file, and stops as soon as they are plain text, which someone may be typing."""
    head = b""
    with _explain_reading(path):
        while len(head) < HEAD_BYTES and b"\n" not in head and (not head or head[0] in FIRST_BYTES):
            if not (more := file.read(HEAD_BYTES - len(head))):
                break
            head += more
    return head


def _find_compression(head: bytes, path: Path) -> Compression | None:
    for kind, magic in UNSUPPORTED.items():
        if magic.match(head):
            supported = ", ".join(COMPRESSIONS)
            raise UserError(f"Cannot read {name_stream(path)}: it is {kind}. Expected text, plain or as {supported}.")
    if not head and path.suffix.lower() in COMPRESSIONS:
        _refuse_damaged(path, EOFError("it is empty"))
    return next((one for one in COMPRESSIONS.values() if one.magic.match(head)), None)


class _Rejoined(io.RawIOBase):
    """A file whose first bytes were read, with these bytes in front again."""

    def __init__(self, head: bytes, file: io.RawIOBase):
        self._head, self._file = head, file

    def readable(self) -> bool:
        """Returns True."""
        return True

    def readinto(self, buffer: "memoryview") -> int | None:  # type: ignore[override]
        """Reads into a buffer and returns the number of bytes."""
        if not self._head:
            return self._file.readinto(buffer)
        part, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


class _Reader(io.RawIOBase):
    """The unpacked bytes of a file. Its errors name the file.

    Args:
        stream: reads unpacked bytes.
        file: the file that `stream` reads.
        path: of the file.
    """

    def __init__(self, stream: BinaryIO, file: io.RawIOBase, path: Path):
        self._file, self._path, self._stream = file, path, stream
        # `readinto` of a packed stream waits until the buffer is full.
        self._read = getattr(stream, "readinto1", None) or stream.readinto  # type: ignore[attr-defined]

    def readable(self) -> bool:
        """Returns True."""
        return True

    def fileno(self) -> int:
        """Returns the descriptor of the file."""
        return self._file.fileno()

    def readinto(self, buffer: "memoryview") -> int | None:  # type: ignore[override]
        """Reads into a buffer and returns the number of bytes."""
        with _explain_reading(self._path):
            return self._read(buffer)

    def close(self) -> None:
        """Closes the file."""
        if not self.closed:
            super().close()
            self._stream.close()
            self._file.close()


@contextmanager
def _explain_reading(path: Path) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        _refuse_damaged(path, error)
    except OSError as error:
        if error.errno is None:  # as gzip and bz2 report damage
            _refuse_damaged(path, error)
        raise UserError(f"Cannot read {name_stream(path)}: {error.strerror}.") from error


def _refuse_damaged(path: Path, error: Exception) -> NoReturn:
    again = "" if path == STANDARD else " Download it again."
    raise DamagedFileError(
        f"Cannot unpack {name_stream(path)}: it is damaged or cut short ({error}).{again}"
    ) from error


@contextmanager
def _open_target(path: Path, *, keep_stale: bool) -> Iterator[BinaryIO]:
    """Opens a file by its kind, and closes it."""
    if match := DESCRIPTOR.fullmatch(str(path)):
        number = {"out": 1, "err": 2}.get(match["name"]) or int(match["device"] or match["process"])
        with os.fdopen(os.dup(number), "wb") as file:
            yield file
        return
    try:
        before = path.stat()
    except FileNotFoundError:
        before = None
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror}.") from error
    if before and stat.S_ISDIR(before.st_mode):
        raise UserError(f"Cannot write {path}: expected a file, found a folder.")
    target = Path(os.path.realpath(path))  # which, unlike Path.resolve, leaves a loop of links to the next call
    if before and (not stat.S_ISREG(before.st_mode) or not _is_replaceable(target)):
        try:
            existing = path.open("wb")
        except OSError as error:
            raise UserError(f"Cannot write {path}: {error.strerror}.") from error
        with existing:
            yield existing
        return
    with atomic_write(target, keep_stale=keep_stale) as aside, _create_like(aside, before) as file:
        yield file


def _is_replaceable(path: Path) -> bool:
    """Returns whether another file can be renamed to an existing one. Trying it would come after all the work."""
    if not os.access(path.parent, os.W_OK):
        return False
    folder = path.parent.stat()
    # In a sticky folder such as /tmp, others may not replace a file.
    if folder.st_mode & stat.S_ISVTX and os.geteuid() not in (0, folder.st_uid, path.stat().st_uid):
        return False
    try:
        mounts = MOUNTS.read_text("utf-8", errors="surrogateescape").splitlines()
    except OSError:  # not on Linux
        return True
    # A container may have mounted this one file (`docker run -v FILE:FILE`). Spaces are written as \040.
    return str(path).replace(" ", "\\040") not in {line.split(" ")[4] for line in mounts}


def _create_like(path: Path, model: os.stat_result | None) -> BinaryIO:
    """Creates a file with the owner and mode of another one, so that nobody else can read it in the meantime."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if model is None else 0o600)
    file = os.fdopen(descriptor, "wb")
    if model is not None:
        # Only root may give a file away. A file system without owners or modes refuses both calls.
        for owner in ((-1, model.st_gid), (model.st_uid, -1)):
            with contextlib.suppress(OSError):
                os.chown(descriptor, *owner)
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, stat.S_IMODE(model.st_mode))
    return file
