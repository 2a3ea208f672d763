"""Public corpora by name: where they lie, under what licence, and how their files are made, checked and laid out.

The table is `catalog.yaml` beside this module. Nothing of a corpus ships with the toolkit: `download` fetches it from
its public address, or copies it from a mirror, a folder that holds NAME/FILE. Either way the files get the same names.
"""

import functools
import gzip
import hashlib
import lzma
import os
import re
import shutil
import ssl
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Annotated, BinaryIO, Literal, cast
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import yaml
from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter

from nmt.errors import UserError, suggest_name
from nmt.files import open_bytes, sync

ProgressCallback = Callable[[int, int | None], None]  # bytes so far, bytes in all where the server tells
Pair = tuple[str, str]

TIMEOUT = 30  # seconds without a byte
CHUNK_BYTES = 1 << 16  # bytes
USER_AGENT = "nmt-download"  # some servers refuse Python-urllib by name
DAMAGE_ERRORS = (EOFError, gzip.BadGzipFile, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, zlib.error)
MIRROR_HINT = "A folder with a copy serves as well: --mirror DIR (or NMT_MIRROR), holding {name}/FILE."

FileName = Annotated[str, StringConstraints(pattern=r"^\w[\w.-]*$")]  # one step, so that none leaves its folder
Address = Annotated[str, StringConstraints(pattern=r"^https?://.+[^/]$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PairSide(_Frozen):
    """One language of one part of tab-separated pairs: English is column 0, the other language column 1."""

    part: Literal["train", "dev"]
    column: Literal[0, 1]


class CatalogFile(_Frozen):
    """One file of a corpus: how to know it is right, and what it is made from.

    Attributes:
        lines: the line counts of all known editions.
        sha256: of the file as it lies, packed; given where the published bytes are known.
        optional: a mirror may lack it.
        member: the archive member it is made from; without one, the address is the file itself.
        side: which part and column of that member; without one, the whole member.
    """

    lines: tuple[int, ...]
    sha256: str | None = None
    optional: bool = False
    member: str | None = None
    side: PairSide | None = None


class Resource(_Frozen):
    """One public address and the files made from it, by name; they are of one edition, so they come and go together.

    Attributes:
        grows: the archive is added to, so that line counts hold for a mirror's edition alone.
        held_out: how many pairs become dev where files have sides (see `hold_out`).
    """

    address: Address
    files: dict[FileName, CatalogFile]
    grows: bool = False
    held_out: int = 0


class CatalogEntry(_Frozen):
    """One corpus: its name in commands and mirrors, what the user is told before the first byte, and its resources."""

    name: FileName
    title: str
    home: str
    licence: str
    note: str
    resources: tuple[Resource, ...]


@functools.cache
def load_catalog() -> Mapping[str, CatalogEntry]:
    """Returns the corpora that can be downloaded, by name."""
    table = yaml.safe_load(resources.files("nmt.data").joinpath("catalog.yaml").read_text(encoding="utf-8"))
    return {entry.name: entry for entry in TypeAdapter(tuple[CatalogEntry, ...]).validate_python(table)}


def download(
    name: str,
    *,
    into: Path,
    mirror: Path | None = None,
    log: Callable[[str], None] = print,
    progress: ProgressCallback | None = None,
) -> list[Path]:
    """Lays the files of a public corpus out in the folder `into`, and returns their paths.

    Args:
        mirror: the folder to copy from; by default that of the environment variable NMT_MIRROR, else the network.
        log: is told title, licence and resource before the first byte is fetched, then each address.
        progress: is told bytes so far and in all, while one address is fetched.

    Raises:
        UserError: no such corpus; no network or no such page; the mirror lacks a file; a file is not what was expected.
    """
    known = load_catalog()
    if name not in known:
        raise UserError(
            f"There is no corpus '{name}'.{suggest_name(name, known)} Known are {', '.join(sorted(known))}."
        )
    if mirror is None and os.environ.get("NMT_MIRROR"):
        mirror = Path(os.environ["NMT_MIRROR"])
    return download_entry(known[name], into=into, mirror=mirror, log=log, progress=progress)


def download_entry(
    entry: CatalogEntry,
    *,
    into: Path,
    mirror: Path | None = None,
    log: Callable[[str], None] = print,
    progress: ProgressCallback | None = None,
) -> list[Path]:
    """Does the work of `download` for an entry that need not be in the catalog.

    Files that are there and right are left alone. A fetch that is cut or interrupted leaves a `.part` file, from which
    the next call goes on; a file that is not what was expected leaves nothing.
    """
    log(f"{entry.title}\nLicence: {entry.licence}\nSource: {entry.home}\nNote: {entry.note}")
    plan = [(resource, names) for resource in entry.resources if (names := _choose_files(entry, resource, mirror))]
    try:
        into.mkdir(parents=True, exist_ok=True)
        for resource, names in plan:
            if all(_is_right(into / name, resource.files[name], resource.grows) for name in names):
                log(f"In {into} already: {', '.join(names)}")
            elif mirror is not None:
                log(f"Copying {', '.join(names)} from {mirror / entry.name}")
                _copy(resource, names, mirror / entry.name, into)
            else:
                log(f"Fetching {resource.address}")
                _fetch_and_unpack(entry, resource, into, progress)
    except OSError as error:
        raise UserError(f"Cannot lay {entry.name} out in {into}: {error}.") from error
    return [into / name for _, names in plan for name in names]


def _choose_files(entry: CatalogEntry, resource: Resource, mirror: Path | None) -> list[str]:
    """Returns the names of a resource's files: all, or those in the mirror, which may lack optional ones only."""
    if mirror is None:
        return list(resource.files)
    held = [name for name in resource.files if (mirror / entry.name / name).is_file()]
    for name, file in resource.files.items():
        if name not in held and not file.optional:
            raise UserError(
                f"The mirror has no file {mirror / entry.name / name}. Expected {mirror} to hold "
                f"{entry.name}/FILE; without --mirror and NMT_MIRROR it is fetched from {resource.address}."
            )
    return held


def _copy(resource: Resource, names: Iterable[str], folder: Path, into: Path) -> None:
    with _stage_files(into) as stage:
        for name in names:
            shutil.copyfile(folder / name, stage / name)
            _check(stage / name, resource.files[name], count_matters=True, origin=str(folder))


def _fetch_and_unpack(entry: CatalogEntry, resource: Resource, into: Path, progress: ProgressCallback | None) -> None:
    part = into / f"{PurePosixPath(urlsplit(resource.address).path).name}.part"
    _fetch(
        resource.address, part, progress or (lambda done, total: None), otherwise=MIRROR_HINT.format(name=entry.name)
    )
    try:
        with _stage_files(into) as stage:
            _unpack(resource, part, stage)
            for name, file in resource.files.items():
                _check(stage / name, file, count_matters=not resource.grows, origin=resource.address)
    except UserError:
        part.unlink()
        raise
    part.unlink()


@contextmanager
def _stage_files(into: Path) -> Iterator[Path]:
    """Yields a folder for files that appear in `into` together at the end, or, when the block raises, not at all."""
    with tempfile.TemporaryDirectory(dir=into, prefix=".") as folder:
        yield Path(folder)
        sync(Path(folder))
        for path in Path(folder).iterdir():
            path.replace(into / path.name)


def _check(path: Path, file: CatalogFile, *, count_matters: bool, origin: str) -> None:
    if file.sha256 is not None:
        found, expected = f"SHA-256 {_sha256(path)}", f"SHA-256 {file.sha256}"
    else:
        found, expected = f"{_count_lines(path)} lines", " or ".join(f"{count} lines" for count in file.lines)
        if not count_matters:
            return
    if found not in expected.split(" or "):
        raise UserError(f"{path.name} from {origin} has {found}, expected {expected}. It was not kept.")


def _is_right(path: Path, file: CatalogFile, grows: bool) -> bool:
    try:
        _check(path, file, count_matters=not grows, origin=str(path.parent))
    except (UserError, FileNotFoundError):
        return False
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _count_lines(path: Path) -> int:
    """Counts the lines of a plain or packed file; a last line without its newline counts too."""
    count, last = 0, b"\n"
    try:
        with open_bytes(path) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                count, last = count + chunk.count(b"\n"), chunk[-1:]
    except DAMAGE_ERRORS as error:
        raise UserError(f"{path.name} is damaged: {error}. It was not kept.") from error
    return count + (last != b"\n")


def _fetch(address: str, part: Path, progress: ProgressCallback, *, otherwise: str) -> None:
    """Brings the bytes at an address to the file `part`, going on from what an earlier call left there."""
    # The last byte is asked for once more, because a range that begins at the end is refused.
    start = max(part.stat().st_size - 1, 0) if part.exists() else 0
    with _open_address(address, start, otherwise) as answer, part.open("r+b" if start else "wb") as file:
        done = _find_first_byte(answer)
        total = None if answer.length is None else done + answer.length
        file.truncate(done)
        file.seek(done)
        try:
            while chunk := answer.read(CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                progress(done, total)
        except (HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            raise _describe_cut(address, part, done, total) from error
        if total is not None and done < total:
            raise _describe_cut(address, part, done, total)


def _open_address(address: str, start: int, otherwise: str) -> HTTPResponse:
    headers = {"User-Agent": USER_AGENT} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        return cast(HTTPResponse, urlopen(Request(address, headers=headers), timeout=TIMEOUT))
    except HTTPError as error:
        error.close()
        if error.code == 416 and start:  # what is there is longer than what is published: not a beginning of it
            return _open_address(address, 0, otherwise)
        raise UserError(f"{address} answers {error.code} {error.reason}. {otherwise}") from error
    except (OSError, HTTPException) as error:
        raise UserError(f"Cannot reach {address}: {getattr(error, 'reason', error)}. {otherwise}") from error


def _find_first_byte(answer: HTTPResponse) -> int:
    """Returns the place in the whole of an answer's first byte; a server that knows no ranges sends all, from 0."""
    match = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", "")) if answer.status == 206 else None
    return int(match[1]) if match else 0


def _describe_cut(address: str, part: Path, done: int, total: int | None) -> UserError:
    return UserError(
        f"{address} was cut off after {done} of {total or 'unknown'} bytes. They are kept in {part}; "
        "the same command goes on from there."
    )


def _unpack(resource: Resource, packed: Path, stage: Path) -> None:
    """Makes a resource's files in the folder `stage`. Their names are the catalog's: no path comes from an archive."""
    for name, file in resource.files.items():
        if file.member is None:
            shutil.copyfile(packed, stage / name)
    missing = {file.member for file in resource.files.values() if file.member is not None}
    if not missing:
        return
    try:
        for member, stream in _members(resource.address, packed, frozenset(missing)):
            _make_files(resource, member, stream, stage)
            missing.remove(member)
    except DAMAGE_ERRORS as error:
        raise UserError(f"The archive {resource.address} is damaged: {error}. It was not kept.") from error
    if missing:
        raise UserError(f"The archive {resource.address} has no file '{min(missing)}'. It was not kept.")


def _members(address: str, packed: Path, wanted: frozenset[str]) -> Iterator[tuple[str, BinaryIO]]:
    """Yields the wanted members of a zip or tar archive, each to be read before the next; links are no members."""
    if address.endswith(".zip"):
        with zipfile.ZipFile(packed) as archive:
            for name in sorted(wanted.intersection(archive.namelist())):
                with archive.open(name) as stream:
                    yield name, cast(BinaryIO, stream)
        return
    with tarfile.open(packed) as archive:
        for info in archive:  # in the order of the file, for going back in it means unpacking it anew
            if info.name in wanted and info.isfile():
                wanted -= {info.name}
                yield info.name, cast(BinaryIO, archive.extractfile(info))


def _make_files(resource: Resource, member: str, stream: BinaryIO, stage: Path) -> None:
    sides = {name: file.side for name, file in resource.files.items() if file.member == member}
    if None in sides.values():
        (name,) = sides
        with _open_packed(stage / name) as file:
            shutil.copyfileobj(stream, file)
        return
    train, dev = hold_out(_read_pairs(member, stream), resource.held_out)
    for name, side in sides.items():
        assert side is not None
        with _open_packed(stage / name) as file:
            file.writelines(f"{pair[side.column]}\n".encode() for pair in (dev if side.part == "dev" else train))


@contextmanager
def _open_packed(path: Path) -> Iterator[BinaryIO]:
    """Opens a file to be filled, packed as its name says; the same text always gives the same bytes."""
    with path.open("wb") as raw:
        if path.suffix == ".gz":
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed:
                yield cast(BinaryIO, packed)
        elif path.suffix == ".xz":
            # Preset 6, the default, takes twelve times as long for a fifth less.
            with lzma.open(raw, "wb", preset=1) as packed:
                yield cast(BinaryIO, packed)
        else:
            yield raw


def _read_pairs(member: str, stream: BinaryIO) -> Iterator[Pair]:
    for number, line in enumerate(stream, start=1):
        try:
            english, other, *_ = line.decode().rstrip("\r\n").split("\t")
        except ValueError as error:
            raise UserError(
                f"{member}, line {number}: expected UTF-8 text in two columns or more, with a tab between; "
                f"found {line[:80]!r}."
            ) from error
        yield english, other


def hold_out(pairs: Iterable[Pair], count: int) -> tuple[list[Pair], list[Pair]]:
    """Splits pairs into (train, dev) such that no sentence of dev stands in train, on either side.

    `count` pairs become dev, no two with a sentence in common; pairs that share a sentence with them are dropped.
    Sentences that differ only in case, spacing or compatibility characters (NFKC) are the same. The choice goes by a
    hash of the text, not by place or size, so it is the same on every machine and nearly the same in a later edition.

    Raises:
        UserError: there are fewer such pairs than `count`.
    """
    alike = {pair: (_fold(pair[0]), _fold(pair[1])) for pair in pairs}  # a repeated pair is kept once
    chosen: set[Pair] = set()
    taken: tuple[set[str], set[str]] = (set(), set())
    for pair in sorted(alike, key=lambda pair: hashlib.sha256("\t".join(pair).encode()).digest()):
        if len(chosen) < count and not _has_sentence_of(alike[pair], taken):
            chosen.add(pair)
            for sentence, sentences in zip(alike[pair], taken, strict=True):
                sentences.add(sentence)
    if len(chosen) < count:
        raise UserError(f"Cannot hold {count} pairs out: only {len(chosen)} of {len(alike)} share no sentence.")
    return [pair for pair in alike if not _has_sentence_of(alike[pair], taken)], [
        pair for pair in alike if pair in chosen
    ]


def _fold(sentence: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", sentence).casefold().split())


def _has_sentence_of(pair: Pair, taken: tuple[set[str], set[str]]) -> bool:
    return pair[0] in taken[0] or pair[1] in taken[1]
