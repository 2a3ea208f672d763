"""Downloads files and reads archives without trusting either: sizes are limited, and no path is taken from them."""

import gzip
import io
import mmap
import os
import re
import ssl
import stat
import string
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, BinaryIO, cast
from urllib.error import HTTPError
from urllib.parse import quote, urljoin, urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

from nmt.errors import UserError

ProgressCallback = Callable[[int, int | None], None]  # bytes so far, bytes in total or None if unknown

TIMEOUT = 30  # seconds without a byte
CHUNK_BYTES = 1 << 16
REDIRECTS, MAX_REDIRECTS = (301, 302, 303, 307, 308), 10
USER_AGENT = "nmt-download"  # some servers refuse Python-urllib by name
LOOPBACK = "127.0.0.1"  # no authority issues certificates for it, so plain HTTP is allowed to it, but only from it
# Python keeps 600 bytes in memory per entry of a zip directory, and all extended headers of a tar member.
MAX_ZIP_ENTRIES = 10_000
MAX_TAR_HEADER_BYTES = 1 << 20
MAX_TAR_BYTES = 1 << 32  # unpacked, unwanted members included
MAX_LINE_BYTES = 1 << 20
DAMAGE_ERRORS = (
    *(EOFError, gzip.BadGzipFile, tarfile.TarError, zipfile.BadZipFile, zlib.error, struct.error),
    *(NotImplementedError, OverflowError, RuntimeError, ValueError),  # zipfile's and tarfile's, on odd fields
)


def is_allowed_address(address: str, *, origin: str | None = None) -> bool:
    """Returns whether an address may be fetched: by HTTPS, or by HTTP from this machine.

    Args:
        address: a URL.
        origin: the address that redirects to it. A page elsewhere must not reach the servers of this machine.
    """
    parts = urlsplit(address)
    return parts.scheme == "https" or (
        (parts.scheme, parts.hostname) == ("http", LOOPBACK) and (origin is None or origin.startswith("http:"))
    )


def fetch_file(address: str, part: Path, *, max_bytes: int, progress: ProgressCallback, hint: str) -> None:
    """Downloads a file, resuming after the bytes that an earlier call left in `part`.

    Args:
        address: of the file; see `is_allowed_address`.
        part: the file to fill. It stays if the transfer is cut or interrupted.
        max_bytes: more than this is refused, and `part` removed.
        progress: called after each chunk.
        hint: what else the user can do, for messages about an address that cannot be reached.

    Raises:
        UserError: the address does not answer, answers wrongly, redirects to where it must not or sends too much; the
            transfer was cut; `part` is not an ordinary file.
    """
    size = _measure_part(part)
    # The last byte is requested once more, because a range that begins at the end is refused.
    answer, done, total = _open_address(address, max(size - 1, 0), hint)
    with answer, _open_part(part) as file:
        file.truncate(done)
        file.seek(done)
        try:
            # The first check is for the announced size, the others for what really comes.
            _check_size(address, part, total or 0, max_bytes)
            while chunk := answer.read(CHUNK_BYTES):
                done += len(chunk)
                _check_size(address, part, done, max_bytes)
                file.write(chunk)
                progress(done, total)
        except (HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            raise _describe_cut(address, part, done, total) from error
        if total is not None and done < total:
            raise _describe_cut(address, part, done, total)


def _measure_part(part: Path) -> int:
    """Returns the number of bytes that an earlier call left, without following a link."""
    try:
        found = part.lstat()
    except FileNotFoundError:
        return 0
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise UserError(f"{part} is a link or not an ordinary file, so that it cannot be continued. Remove it.")
    return found.st_size


def _open_part(part: Path) -> BinaryIO:
    # O_NOFOLLOW, because in a shared folder someone may have created a link since `_measure_part` looked.
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    return os.fdopen(descriptor, "r+b")


def _check_size(address: str, part: Path, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        part.unlink()
        raise UserError(
            f"{address} sends more than the {max_bytes:,} bytes that are expected at most. It was not kept."
        )


def _describe_cut(address: str, part: Path, done: int, total: int | None) -> UserError:
    return UserError(
        f"{address} was cut off after {done} of {total or 'unknown'} bytes. They are kept in {part}; "
        "the same command resumes from there."
    )


def _make_opener() -> OpenerDirector:
    """Returns an opener for HTTP and HTTPS only, without redirects.

    `urlopen` also opens ftp:, file: and data:, follows redirects to http: and ftp:, and reads the whole body of a
    redirect into memory, whatever its size.
    """
    opener = OpenerDirector()
    for handler in (
        *(ProxyHandler(), UnknownHandler(), HTTPHandler(), HTTPSHandler()),
        *(HTTPDefaultErrorHandler(), HTTPErrorProcessor()),
    ):
        opener.add_handler(handler)
    return opener


def _request(address: str, headers: Mapping[str, str]) -> HTTPResponse:
    if not is_allowed_address(address):
        raise UserError(f"{address} is not an https:// address.")
    opener, current = _make_opener(), address
    for _ in range(MAX_REDIRECTS + 1):
        try:
            return cast(HTTPResponse, opener.open(Request(current, headers=dict(headers)), timeout=TIMEOUT))
        except HTTPError as error:
            error.close()
            location = error.headers.get("Location")
            if error.code not in REDIRECTS or location is None:
                raise
            following = urljoin(current, quote(location, safe=string.punctuation, encoding="iso-8859-1"))
        if not is_allowed_address(following, origin=current):
            raise UserError(f"{address} redirects to {following}; only https:// is followed.")
        current = following
    raise UserError(f"{address} redirects more than {MAX_REDIRECTS} times.")


def _open_address(address: str, start: int, hint: str) -> tuple[HTTPResponse, int, int | None]:
    """Returns the response, the position of its first byte in the file, and the size of the file or None.

    The position is `start`, or 0 if the server does not send that range.
    """
    headers = {"User-Agent": USER_AGENT} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        answer = _request(address, headers)
    except UserError:
        raise
    except HTTPError as error:
        if error.code == 416 and start:  # the stored part is longer than the published file, so it is not its beginning
            return _open_address(address, 0, hint)
        raise UserError(f"{address} answers {error.code} {error.reason}. {hint}") from error
    except (OSError, HTTPException, ValueError) as error:  # ValueError: a redirect to what is not a URL
        raise UserError(f"Cannot reach {address}: {getattr(error, 'reason', error)}. {hint}") from error
    if answer.status == 200:
        return answer, 0, answer.length
    content_range = answer.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes (\d{1,15})-\d{1,15}/(\d{1,15}|\*)", content_range)
    if answer.status == 206 and start and found and int(found[1]) == start:
        length = None if answer.length is None else start + answer.length
        return answer, start, length if found[2] == "*" else int(found[2])
    answer.close()
    if start:  # another range than requested would leave a hole or a repetition
        return _open_address(address, 0, hint)
    raise UserError(
        f"{address} answers {answer.status} with Content-Range '{content_range}' to a plain request. {hint}"
    )


class _LimitedStream(io.RawIOBase):
    """Reads from a stream, and raises UserError after `left` bytes."""

    def __init__(self, stream: IO[bytes], left: int, message: str):
        self.stream, self.left, self.message = stream, left, message

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        chunk = self.stream.read(len(buffer))
        self.left -= len(chunk)
        if self.left < 0:
            raise UserError(self.message)
        buffer[: len(chunk)] = chunk
        return len(chunk)


def limit_stream(stream: IO[bytes], max_bytes: int, name: str) -> BinaryIO:
    """Returns a buffered stream that raises UserError when more than `max_bytes` come out of `stream`."""
    message = f"{name} has more than the {max_bytes:,} bytes that are expected at most. It was not kept."
    return cast(BinaryIO, io.BufferedReader(_LimitedStream(stream, max_bytes, message), CHUNK_BYTES))


def read_lines(stream: BinaryIO, name: str) -> Iterator[bytes]:
    """Yields the lines of a stream, with their ends; raises UserError if one is longer than MAX_LINE_BYTES."""
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise UserError(f"{name}, line {number}: expected no more than {MAX_LINE_BYTES:,} bytes.")
        yield line


def read_members(address: str, packed: Path, wanted: Mapping[str, int]) -> Iterator[tuple[str, BinaryIO]]:
    """Yields members of an archive with their names, each to be read before the next; links are not members.

    Args:
        address: the archive's, which ends in .zip or .tar.gz.
        packed: the downloaded archive.
        wanted: the most bytes that each member may have, by name. A member that is missing is not yielded.

    Raises:
        UserError: a member is encrypted, compressed in another way than `zip` and `tar -z` do, or too large.
        One of DAMAGE_ERRORS: the archive is damaged.
    """
    yield from (_read_zip if address.endswith(".zip") else _read_tar)(packed, wanted)


@contextmanager
def _take_bad_seeks_for_damage() -> Iterator[None]:
    """Raises BadZipFile where zipfile lets an OSError pass, on a header said to lie before the beginning."""
    try:
        yield
    except OSError as error:
        raise zipfile.BadZipFile(str(error)) from error


def _read_zip(packed: Path, wanted: Mapping[str, int]) -> Iterator[tuple[str, BinaryIO]]:
    with packed.open("rb") as file:
        if packed.stat().st_size:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if sum(1 for _ in re.finditer(rb"PK\x01\x02", content)) > MAX_ZIP_ENTRIES:
                    raise zipfile.BadZipFile(f"more than {MAX_ZIP_ENTRIES:,} files")
        with _take_bad_seeks_for_damage():
            archive = zipfile.ZipFile(file)
        with archive:
            for name in sorted(wanted.keys() & set(archive.namelist())):
                info = archive.getinfo(name)
                if info.flag_bits & 1:
                    raise UserError(f"'{name}' in the archive is encrypted. It was not kept.")
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise UserError(
                        f"'{name}' in the archive is compressed by method {info.compress_type}, expected 0 (stored) or "
                        "8 (deflated). It was not kept."
                    )
                with _take_bad_seeks_for_damage():
                    stream = archive.open(info)
                with stream:
                    yield name, limit_stream(stream, wanted[name], f"'{name}' in the archive")


def _read_tar(packed: Path, wanted: Mapping[str, int]) -> Iterator[tuple[str, BinaryIO]]:
    left = dict(wanted)
    with gzip.open(packed) as unpacked:
        whole = limit_stream(cast(IO[bytes], unpacked), MAX_TAR_BYTES, "The archive")
        # tarfile reads extended headers into memory whole, however long they say they are. Between two members
        # nothing else is read than the rest of the first one and the headers of the second.
        headers = _LimitedStream(whole, MAX_TAR_HEADER_BYTES, "The archive has an endless header. It was not kept.")
        with tarfile.open(fileobj=cast(BinaryIO, headers), mode="r|") as archive:
            for info in archive:
                headers.left = info.size + MAX_TAR_HEADER_BYTES
                # A sparse member is a few bytes that unpack to any number of zeros.
                if info.name in left and info.isreg() and not info.issparse():
                    stream = cast(IO[bytes], archive.extractfile(info))
                    yield info.name, limit_stream(stream, left.pop(info.name), f"'{info.name}' in the archive")
