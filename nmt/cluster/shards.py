"""The shards of a corpus: pieces of text that are translated one by one, each to a file that is whole or absent."""

import glob
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, ClassVar, Generic, TypeVar

from nmt.config.file import rename_old_keys
from nmt.config.schema import SearchSettings
from nmt.data.corpus import read_stream
from nmt.errors import UserError, suggest_name
from nmt.files import atomic_write, discard, list_names, start_digest
from nmt.model_folder import CONFIDENCE, INDEX
from nmt.streams import open_bytes, open_output
from nmt.translators.opening import find_folder
from nmt.translators.protocol import Translator

RECORD = ".translation.json"

Value = TypeVar("Value")


@dataclass(frozen=True)
class PerProcess(Generic[Value]):
    """A value that each process makes when it first needs it, and keeps, such as the text that many shards read.

    Args:
        make: makes it.
        arguments: those of `make`. Only these go to other processes.
    """

    make: Callable[..., Value]
    arguments: tuple[Any, ...]

    @cached_property
    def value(self) -> Value:
        """The value of this process."""
        return self.make(*self.arguments)

    def __reduce__(self) -> tuple:
        return PerProcess, (self.make, self.arguments)


@dataclass(frozen=True)
class Shard:
    """A file to translate, and the file of its translation."""

    source: Path
    target: Path
    doing: ClassVar[str] = "translating"
    done: ClassVar[str] = "translated"

    @property
    def name(self) -> str:
        """Its name in the log."""
        return self.source.name

    @property
    def is_done(self) -> bool:
        """Whether the translation exists."""
        return self.target.exists()

    def translate(self, translator: Translator) -> int:
        """Translates the text, one window of lines at a time, and returns its number of lines.

        Raises:
            UserError: the file is damaged or a line is not UTF-8; no translation is written.
        """
        count = 0
        with open_bytes(self.source) as stream, self._open_target() as out:
            for translation in translator.stream(read_stream(stream, str(self.source))):
                out.write(f"{translation.text}\n")
                count += 1
        return count

    def _open_target(self) -> AbstractContextManager[IO[str]]:
        return open_output(self.target, keep_stale=True)  # `find_parts` counts the files of processes that died


def find_shards(source: str, folder: Path) -> list[Shard]:
    """Returns the shards of a corpus in the order of their names.

    Args:
        source: a folder (files whose names begin with a dot are skipped), one file, or a pattern such as corpus/*.gz.
        folder: folder for the translations.

    Raises:
        UserError: there are no files, two have the same name, or translations would overwrite them.
    """
    path = Path(source)
    # Path.glob does not accept absolute patterns.
    found = sorted(path.iterdir() if path.is_dir() else map(Path, glob.glob(source)))  # noqa: PTH207
    # A link that leads nowhere counts, and is reported when it is read: its text must not be missing unnoticed.
    files = [file for file in found if (file.is_file() or not file.exists()) and not file.name.startswith(".")]
    if not files:
        raise UserError(_explain_no_files(path, source))
    by_name: dict[str, Path] = {}
    for file in files:
        other = by_name.setdefault(file.name, file)
        if other != file:
            raise UserError(
                f"{other} and {file} have the same name, and so would their translations. Rename one of them."
            )
        if file.resolve() == (folder / file.name).resolve():
            raise UserError(f"{folder} holds the text to translate. Choose another folder for the translations.")
    return [Shard(file, folder / name) for name, file in by_name.items()]


def find_subfolders(source: str) -> list[Path]:
    """Returns the folders in a folder of shards, or among the matches of a pattern; their files are not translated."""
    path = Path(source)
    found = sorted(path.iterdir() if path.is_dir() else map(Path, glob.glob(source)))  # noqa: PTH207
    return [folder for folder in found if folder.is_dir() and not folder.name.startswith(".")]


def find_parts(shard: Shard) -> list[Path]:
    """Returns the partial files of workers that are translating a shard or died doing so, one per worker."""
    return [part for part in shard.target.parent.glob(".*.part") if _locate_whole(part) == shard.target]


def remove_parts(shards: Sequence[Shard]) -> None:
    """Removes the partial files of workers that died."""
    targets = {shard.target for shard in shards}
    # Each folder is read once: there may be as many shards as there are files in it.
    for folder in {target.parent for target in targets}:
        for part in folder.glob(".*.part"):
            if _locate_whole(part) in targets:
                discard(part)


def _locate_whole(part: Path) -> Path:
    """Returns the path that a partial file has once it is whole; it is named `.NAME.WORKER.part` until then."""
    return part.parent / part.name.removeprefix(".").rsplit(".", 2)[0]


def check_record(
    folder: Path,
    files: Sequence[Path],
    model: Path | None,
    settings: Mapping[str, Any],
    *,
    parts: Iterable[Path] = (),
    kind: str = "translations",
) -> None:
    """Checks, or records, what a folder's translations are made with, so that it never mixes those of two models.

    A record of an earlier command counts only if something was made: a command that was killed before that may be
    corrected.

    Args:
        folder: folder of the translations.
        files: what will be written to the folder.
        model: a run folder, a model folder or an export; None if none is used.
        settings: what else the translations depend on, such as decoding settings that replace the model's.
        parts: finished parts of the files, in a folder of their own.
        kind: what the folder holds, for messages.

    Raises:
        UserError: there is no model, or the folder holds translations of another model or with other settings.
    """
    made_with = {"model": compute_model_digest(model) if model else None, **settings}
    made_with = {name: value for name, value in made_with.items() if value is not None}
    record = folder / RECORD
    if not record.is_file() and (found := [file for file in files if file.exists()]):
        raise UserError(f"{found[0]} exists and was not made by this command. Choose another folder.")
    visible = [folder / name for name in list_names(folder) if not name.startswith(".")]
    if record.is_file() and (any(path.is_file() for path in visible) or any(part.exists() for part in parts)):
        before = _read_record(record)
        if (command := _find_command(made_with)) != (other := _find_command(before)):
            raise UserError(f"{folder} holds files of {other}, not of {command}. Choose another folder.")
        changed = [
            f"{name}: {_describe(name, before)} became {_describe(name, made_with)}"
            for name in before | made_with
            if before.get(name) != made_with.get(name)
        ]
        if changed:
            raise UserError(
                f"{folder} holds {kind} made with other settings:\n  "
                + "\n  ".join(changed)
                + "\nChoose another folder."
            )
        return
    with atomic_write(record) as aside:
        aside.write_text(json.dumps(made_with), encoding="utf-8")


@contextmanager
def remove_if_none_is_done(
    shards: Sequence[Shard], paths: Sequence[Path], *, errors: type[BaseException] = BaseException
) -> Iterator[None]:
    """Removes those of the paths that are new, if the block raises one of these errors and no shard is done.

    A folder in which nothing is done is not bound to options that may be the mistake.
    """
    new = [path for path in paths if not path.exists()]
    try:
        yield
    except errors:
        if not any(shard.is_done for shard in shards):
            for path in new:
                discard(path)
        raise


def _read_record(record: Path) -> dict[str, Any]:
    try:
        return rename_old_keys("decoding", dict(json.loads(record.read_text(encoding="utf-8"))))
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{record} is damaged: {error}. It records how the translations were made. Choose another folder."
        ) from error


def _explain_no_files(path: Path, source: str) -> str:
    if path.is_dir():
        return f"Expected text files in {path}, found none."
    neighbours = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = suggest_name(path.name, neighbours)
    return f"There is no file or folder {source}, and no file matches it as a pattern.{hint}"


def compute_model_digest(model: Path) -> str:
    """Returns a digest of all files of a model folder or an export on which translations depend."""
    folder = find_folder(model)
    digest = start_digest()
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        name = file.relative_to(folder)
        if not {CONFIDENCE, INDEX}.isdisjoint(name.parts):
            continue  # written to finished models, and read for other purposes than translation
        digest.update(f"{name}\n{file.stat().st_size}\n".encode())
        with file.open("rb") as content:
            while chunk := content.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def _find_command(made_with: Mapping[str, Any]) -> str:
    """Returns the command that a record is from. Not all of them name it, and older folders must stay valid."""
    return made_with.get("command", "nmt clean" if "drop_identical" in made_with else "nmt translate-corpus")


def _describe(name: str, made_with: Mapping[str, Any]) -> str:
    default = "the model's own" if name in SearchSettings.model_fields else "none"
    return str(made_with.get(name, default))
