"""A corpus in many files: each is one unit of work, whose translation is a file of the same name, whole or absent."""

import glob
import gzip
import json
import lzma
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from nmt.config.file import rename_old_keys
from nmt.data.corpus import open_lines, read_stream
from nmt.errors import UserError, suggest_name
from nmt.files import atomic_write, discard, start_digest
from nmt.translators.opening import find_folder
from nmt.translators.protocol import Translator

RECORD = ".translation.json"


@dataclass(frozen=True)
class Shard:
    """A file to translate, and where its translation goes."""

    source: Path
    target: Path

    @property
    def done(self) -> bool:
        """Whether it is translated."""
        return self.target.exists()


def find_shards(source: str, folder: Path) -> list[Shard]:
    """Returns the shards of a corpus in the order of their names.

    Args:
        source: a folder, whose files are taken unless their names begin with a dot; one file; or a pattern such as
            corpus/*.gz.
        folder: where translations go.

    Raises:
        UserError: there are none, two have the same name, or translations would overwrite them.
    """
    path = Path(source)
    # Path.glob takes no absolute pattern.
    found = sorted(path.iterdir() if path.is_dir() else map(Path, glob.glob(source)))  # noqa: PTH207
    files = [file for file in found if file.is_file() and not file.name.startswith(".")]
    if not files:
        raise UserError(_no_files(path, source))
    by_name: dict[str, Path] = {}
    for file in files:
        other = by_name.setdefault(file.name, file)
        if other != file:
            raise UserError(f"{other} and {file} have the same name, and so would their translations. Rename one.")
        if file.resolve() == (folder / file.name).resolve():
            raise UserError(f"{folder} holds the text to translate. Choose another folder for the translations.")
    return [Shard(file, folder / name) for name, file in by_name.items()]


def translate_shard(translator: Translator, shard: Shard) -> int:
    """Translates a shard line by line and returns the number of its lines; they are held a window at a time.

    Raises:
        UserError: the file is damaged, or a line is not UTF-8; there is then no translation.
    """
    count = 0
    with open_lines(shard.source) as stream, atomic_write(shard.target) as aside, _packed(aside, shard.target) as out:
        for translation in translator.stream(read_stream(stream, str(shard.source))):
            out.write(f"{translation.text}\n".encode())
            count += 1
    return count


def parts(shard: Shard) -> list[Path]:
    """What workers write, or had begun to write when they were killed: one file for each of them."""
    return list(shard.target.parent.glob(f".{glob.escape(shard.target.name)}.*.part"))


def clear_parts(shards: list[Shard]) -> None:
    """Removes what workers that were killed had begun to write."""
    for shard in shards:
        for left in parts(shard):
            discard(left)


def keep_to(folder: Path, shards: list[Shard], model: Path, settings: Mapping[str, Any]) -> None:
    """Records what a folder's translations are made with, so that it never holds those of two models.

    Args:
        folder: of the translations.
        shards: of the corpus.
        model: a run folder, a model folder or an export.
        settings: decoding settings other than the model's own.

    Raises:
        UserError: there is no model, or the folder holds translations made with another one or with other settings.
    """
    made_with = {"model": _digest(model), **{name: value for name, value in settings.items() if value is not None}}
    record = folder / RECORD
    if not record.is_file() and (done := [shard.target for shard in shards if shard.done]):
        raise UserError(f"{done[0]} is there already, and was not translated here. Choose another folder.")
    if record.is_file():
        before = rename_old_keys("decoding", json.loads(record.read_text(encoding="utf-8")))
        changed = [
            f"{name}: {_named(before.get(name))} became {_named(made_with.get(name))}"
            for name in before | made_with
            if before.get(name) != made_with.get(name)
        ]
        if changed:
            raise UserError(
                f"{folder} holds translations made otherwise:\n  " + "\n  ".join(changed) + "\nChoose another folder."
            )
        return
    with atomic_write(record) as aside:
        aside.write_text(json.dumps(made_with), encoding="utf-8")


@contextmanager
def _packed(path: Path, name: Path) -> Iterator[IO[bytes]]:
    """Opens a file for writing, compressed as the ending of `name` says."""
    with path.open("wb") as file:
        if name.suffix == ".gz":
            # Neither name nor time go into the file: the same translation is then the same bytes.
            with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
                yield cast(IO[bytes], packed)
        elif name.suffix == ".xz":
            with lzma.open(file, "wb") as squeezed:
                yield cast(IO[bytes], squeezed)
        else:
            yield file


def _no_files(path: Path, source: str) -> str:
    if path.is_dir():
        return f"Expected files of text in {path}, found none."
    neighbours = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = suggest_name(path.name, neighbours)
    return f"There is no file or folder {source}, and no file that it is a pattern of.{hint}"


def _digest(model: Path) -> str:
    """Of all that a model folder or an export holds."""
    folder = find_folder(model)
    digest = start_digest()
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(folder)}\n{file.stat().st_size}\n".encode())
        with file.open("rb") as content:
            while chunk := content.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def _named(value: object) -> str:
    return "the model's own" if value is None else str(value)
