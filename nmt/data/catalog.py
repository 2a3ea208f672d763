"""Downloads public corpora by name, checks their files, and stores them under the same names on every machine.

The corpora are listed in `catalog.yaml` in this folder. No corpus text ships with the toolkit: `download` fetches it
from its public address, or copies it from a mirror, a folder that contains NAME/FILE.
"""

import functools
import gzip
import hashlib
import lzma
import os
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Annotated, BinaryIO, Literal, Self, cast
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, TypeAdapter, model_validator

from nmt.data.fetching import (
    CHUNK_BYTES,
    DAMAGE_ERRORS,
    ProgressCallback,
    fetch_file,
    is_allowed_address,
    limit_stream,
    read_lines,
    read_members,
)
from nmt.errors import UserError, suggest_name
from nmt.files import open_staging_folder, sync
from nmt.streams import DamagedFileError, open_bytes

Pair = tuple[str, str]

MIRROR_HINT = "A local copy works as well: --mirror DIR (or NMT_MIRROR), a folder that contains {name}/FILE."

FileName = Annotated[
    str, StringConstraints(pattern=r"^\w[\w.-]*$")
]  # a single path component, so that no file can be outside its folder


def _check_address(address: str) -> str:
    if not is_allowed_address(address):
        raise ValueError(f"expected https://, found {address}")
    return address


Address = Annotated[str, StringConstraints(pattern=r"^https?://.+[^/]$"), AfterValidator(_check_address)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PairSide(_Frozen):
    """One side of one part of tab-separated pairs. English is column 0, the other language is column 1."""

    part: Literal["train", "dev"]
    column: Literal[0, 1]


class CatalogFile(_Frozen):
    """One file of a corpus: how it is checked, and what it is made from.

    Attributes:
        lines: number of lines in each known edition.
        max_bytes: largest unpacked size of its text, or of the archive member that it is made from.
        sha256: checksum of the packed file, if the published bytes are known.
        text_sha256: checksum of the unpacked text of each edition in `lines`, None for an unknown one; () if none is
            known.
        optional: whether a mirror may lack the file.
        member: the archive member that it is made from; None if the address is the file itself.
        side: the part and column of that member; None for the whole member.
    """

    lines: tuple[int, ...]
    max_bytes: int
    sha256: Sha256 | None = None
    text_sha256: tuple[Sha256 | None, ...] = ()
    optional: bool = False
    member: str | None = None
    side: PairSide | None = None


class Resource(_Frozen):
    """One public address and the files made from it, by name. Files of one edition are kept and replaced together.

    Attributes:
        max_bytes: largest number of bytes that the address may send.
        sha256: checksum of the bytes at the address, if files are made from an archive that never changes.
        grows: whether the publisher adds to the archive, so that line counts and checksums are valid for the edition
            of a mirror only.
        held_out: number of pairs that become dev, if files have sides (see `hold_out`).
    """

    address: Address
    max_bytes: int
    files: dict[FileName, CatalogFile]
    sha256: Sha256 | None = None
    grows: bool = False
    held_out: int = 0

    @model_validator(mode="after")
    def _check_editions(self) -> Self:
        files = [file for file in self.files.values() if file.sha256 is None]
        assert len({len(file.lines) for file in files}) <= 1, "all files have the same editions"
        assert all(len(file.text_sha256) in (0, len(file.lines)) for file in files), "a checksum for each edition"
        return self


class CatalogEntry(_Frozen):
    """One corpus: its name in commands and mirrors, what is printed before the download, and its resources."""

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
    """Downloads a public corpus and returns the paths of its files.

    Args:
        name: name of the corpus.
        into: the folder for the files.
        mirror: the folder to copy from; by default, that of the environment variable NMT_MIRROR, otherwise the network.
        log: receives title, licence and origin before the first byte is fetched, then each address.
        progress: receives the number of bytes so far and in total, while one address is fetched.

    Raises:
        UserError: there is no such corpus, the network or the address fails, the mirror lacks a file, or a file is not
            as expected.
    """
    known = load_catalog()
    if name not in known:
        raise UserError(
            f"There is no corpus '{name}'.{suggest_name(name, known)} Expected one of {', '.join(sorted(known))}."
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
    """Downloads a corpus as `download` does, from any entry.

    Correct files are kept as they are. A transfer that is cut or interrupted leaves a `.part` file, from which the next
    call resumes. A file that is not as expected leaves nothing.
    """
    log(f"{entry.title}\nLicence: {entry.licence}\nSource: {entry.home}\nNote: {entry.note}")
    plan = [(resource, names) for resource in entry.resources if (names := _choose_files(entry, resource, mirror))]
    try:
        into.mkdir(parents=True, exist_ok=True)
        for resource, names in plan:
            if _are_right(into, names, resource):
                log(f"Already in {into}: {', '.join(names)}")
            elif mirror is not None:
                log(f"Copying {', '.join(names)} from {mirror / entry.name}")
                _copy(resource, names, mirror / entry.name, into)
            else:
                log(f"Fetching {resource.address}")
                _fetch_and_unpack(entry, resource, into, progress)
    except UserError as error:
        raise UserError(_escape_unprintable(str(error))) from error
    except OSError as error:
        raise UserError(_escape_unprintable(f"Cannot write {entry.name} to {into}: {error}.")) from error
    return [into / name for _, names in plan for name in names]


def _escape_unprintable(message: str) -> str:
    """Escapes characters that could control a terminal: a message can contain words of a server or an archive."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in message)


def _choose_files(entry: CatalogEntry, resource: Resource, mirror: Path | None) -> list[str]:
    """Returns the names of all files of a resource, or of those in the mirror, which may lack optional files."""
    if mirror is None:
        return list(resource.files)
    held = [name for name in resource.files if (mirror / entry.name / name).is_file()]
    for name, file in resource.files.items():
        if name not in held and not file.optional:
            raise UserError(
                f"The mirror has no file {mirror / entry.name / name}. Expected {mirror} to contain {entry.name}/FILE. "
                f"Without --mirror and NMT_MIRROR, the file is fetched from {resource.address}."
            )
    return held


def _copy(resource: Resource, names: Sequence[str], folder: Path, into: Path) -> None:
    with _stage_files(into) as stage:
        for name in names:
            shutil.copyfile(folder / name, stage / name)
        _check(stage, names, resource, edition_matters=True, origin=str(folder))


def _fetch_and_unpack(entry: CatalogEntry, resource: Resource, into: Path, progress: ProgressCallback | None) -> None:
    part = into / f"{PurePosixPath(urlsplit(resource.address).path).name}.part"
    fetch_file(
        resource.address,
        part,
        max_bytes=resource.max_bytes,
        progress=progress or (lambda done, total: None),
        hint=MIRROR_HINT.format(name=entry.name),
    )
    try:
        if resource.sha256 is not None:
            _check_sha256(part, resource.sha256, resource.address)
        with _stage_files(into) as stage:
            _unpack(resource, part, stage)
            _check(stage, list(resource.files), resource, edition_matters=not resource.grows, origin=resource.address)
    except UserError:
        part.unlink()
        raise
    part.unlink()


@contextmanager
def _stage_files(into: Path) -> Iterator[Path]:
    """Yields a temporary folder. At the end, all its files move to `into`; if the block raises, none do."""
    with open_staging_folder(into / "download") as folder:
        yield folder
        sync(folder)
        for path in folder.iterdir():
            path.replace(into / path.name)


def _check(folder: Path, names: Sequence[str], resource: Resource, *, edition_matters: bool, origin: str) -> None:
    """Raises UserError unless the files of a resource are what they should be, and all of one known edition.

    Args:
        folder: where the files are.
        names: which of them to look at.
        resource: what is known about them.
        edition_matters: whether line counts and checksums of the text must be those of a known edition.
        origin: where the files come from, for messages.
    """
    measured: dict[str, tuple[int, str]] = {}
    for name in names:
        file = resource.files[name]
        if file.sha256 is not None:
            _check_sha256(folder / name, file.sha256, f"{name} from {origin}")
            continue
        count, _ = measured[name] = _measure(folder / name, file.max_bytes)
        if edition_matters and count not in file.lines:
            known = " or ".join(f"{lines} lines" for lines in dict.fromkeys(file.lines))
            raise UserError(f"{name} from {origin} has {count} lines, expected {known}. It was not kept.")
    if edition_matters and measured:
        _check_edition(resource, measured, origin)


def _check_edition(resource: Resource, measured: Mapping[str, tuple[int, str]], origin: str) -> None:
    """Raises UserError unless files are of one known edition; `measured` has line count and SHA-256 of the text."""
    files = {name: resource.files[name] for name in measured}
    num_editions = len(next(iter(files.values())).lines)
    possible = [
        edition
        for edition in range(num_editions)
        if all(file.lines[edition] == measured[name][0] for name, file in files.items())
    ]
    if not possible:
        counts = ", ".join(f"{name} has {count} lines" for name, (count, _) in measured.items())
        raise UserError(f"The files from {origin} are of different editions: {counts}. They were not kept.")
    others = [
        [
            (name, file.text_sha256[edition])
            for name, file in files.items()
            if file.text_sha256 and file.text_sha256[edition] not in (None, measured[name][1])
        ]
        for edition in possible
    ]
    if all(others):
        name, expected = min(others, key=len)[0]
        raise UserError(
            f"{name} from {origin} has the right number of lines, but its text has SHA-256 {measured[name][1]}, "
            f"expected SHA-256 {expected}. It was not kept."
        )


def _are_right(folder: Path, names: Sequence[str], resource: Resource) -> bool:
    try:
        _check(folder, names, resource, edition_matters=not resource.grows, origin=str(folder))
    except (UserError, FileNotFoundError):
        return False
    return True


def _check_sha256(path: Path, expected: str, what: str) -> None:
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != expected:
        raise UserError(f"{what} has SHA-256 {found}, expected SHA-256 {expected}. It was not kept.")


def _measure(path: Path, max_bytes: int) -> tuple[int, str]:
    """Returns the number of lines of a plain or packed file, and the SHA-256 of its text.

    A last line without a newline counts, too.
    """
    count, last, digest = 0, b"\n", hashlib.sha256()
    try:
        with open_bytes(path) as packed:
            stream = limit_stream(packed, max_bytes, path.name)
            while chunk := stream.read(CHUNK_BYTES):
                count, last = count + chunk.count(b"\n"), chunk[-1:]
                digest.update(chunk)
    except DamagedFileError as error:
        raise UserError(f"{path.name} is damaged: {error.__cause__}. It was not kept.") from error
    return count + (last != b"\n"), digest.hexdigest()


def _unpack(resource: Resource, packed: Path, stage: Path) -> None:
    """Makes the files of a resource in the folder `stage`. Their names come from the catalog, never from an archive."""
    for name, file in resource.files.items():
        if file.member is None:
            shutil.copyfile(packed, stage / name)
    missing = {file.member: file.max_bytes for file in resource.files.values() if file.member is not None}
    if not missing:
        return
    try:
        for member, stream in read_members(resource.address, packed, missing):
            _make_files(resource, member, stream, stage)
            del missing[member]
    except UserError:
        raise
    except DAMAGE_ERRORS as error:
        raise UserError(f"The archive {resource.address} is damaged: {error}. It was not kept.") from error
    if missing:
        raise UserError(f"The archive {resource.address} has no file '{min(missing)}'. It was not kept.")


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
    """Opens a file for writing, compressed according to its name. The same text always gives the same bytes."""
    with path.open("wb") as raw:
        if path.suffix == ".gz":
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed:
                yield cast(BinaryIO, packed)
        elif path.suffix == ".xz":
            # The default, preset 6, takes twelve times as long and saves a fifth of the size.
            with lzma.open(raw, "wb", preset=1) as packed:
                yield cast(BinaryIO, packed)
        else:
            yield raw


def _read_pairs(member: str, stream: BinaryIO) -> Iterator[Pair]:
    for number, line in enumerate(read_lines(stream, member), start=1):
        try:
            english, other, *_ = line.decode().rstrip("\r\n").split("\t")
        except ValueError as error:
            raise UserError(
                f"{member}, line {number}: expected UTF-8 text in at least two columns separated by tabs, "
                f"found {line[:80]!r}."
            ) from error
        yield english, other


def hold_out(pairs: Iterable[Pair], count: int) -> tuple[list[Pair], list[Pair]]:
    """Splits pairs into train and dev so that no sentence of dev occurs in train, on either side.

    `count` pairs become dev, no two of which share a sentence. Pairs that share a sentence with dev are dropped.
    Sentences that differ only in case, spacing or compatibility characters (NFKC) are treated as equal. Pairs are
    selected by a hash of their text and not by their position, so that the selection is the same on every machine and
    nearly the same in a later edition.

    Raises:
        UserError: there are fewer such pairs than `count`.
    """
    alike = {
        pair: (_fold(pair[0]), _fold(pair[1])) for pair in pairs
    }  # a dictionary, so that a repeated pair is kept once
    chosen: set[Pair] = set()
    taken: tuple[set[str], set[str]] = (set(), set())
    for pair in sorted(alike, key=lambda pair: hashlib.sha256("\t".join(pair).encode()).digest()):
        if len(chosen) < count and not _has_sentence_of(alike[pair], taken):
            chosen.add(pair)
            for sentence, sentences in zip(alike[pair], taken, strict=True):
                sentences.add(sentence)
    if len(chosen) < count:
        raise UserError(f"Cannot hold out {count} pairs: only {len(chosen)} of {len(alike)} share no sentence.")
    train = [pair for pair in alike if not _has_sentence_of(alike[pair], taken)]
    return train, [pair for pair in alike if pair in chosen]


def _fold(sentence: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", sentence).casefold().split())


def _has_sentence_of(pair: Pair, taken: tuple[set[str], set[str]]) -> bool:
    return pair[0] in taken[0] or pair[1] in taken[1]
