"""Makes sentence pairs from text with a translator, in shards that are kept and joined at the end.

A command that was killed resumes with the missing shards and writes the same pairs as without the interruption.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from nmt.cluster.pool import translate_missing
from nmt.cluster.shards import RECORD, PerProcess, Shard, check_record, remove_if_none_is_done
from nmt.config.file import load_stored_config
from nmt.config.schema import Config
from nmt.config.yaml_lines import write_yaml
from nmt.data.corpus import TextFile, check_aligned, read_stream
from nmt.errors import UserError
from nmt.files import atomic_write, compute_digest, discard, folder_lock
from nmt.model_folder import CONFIG
from nmt.streams import open_bytes, open_output
from nmt.translators.opening import find_folder
from nmt.translators.protocol import WINDOW, Translator

SHARD_LINES = 4 * WINDOW
FRAGMENT = "data.yaml"
WORK = ".work"  # folder of the shards and of the index of the text, until the command is done

Log = Callable[[str], None]


@dataclass(frozen=True)
class Text:
    """Text to make pairs from.

    Args:
        path: file of the text.
        reference: file of its human translation, if that is needed.
        entry: further keys of the pairs' entry in `data.train`, such as their tag.
    """

    path: Path
    reference: Path | None = None
    entry: Mapping[str, Any] = field(default_factory=dict)

    @property
    def files(self) -> list[Path]:
        """The text and its reference."""
        return [self.path, *([self.reference] if self.reference else [])]


class Line(NamedTuple):
    """A line of a text."""

    number: int
    """Counted from 0."""
    text: str
    reference: str
    """Its human translation; empty if none is needed."""


class PairMaker(ABC):
    """Makes sentence pairs from lines of text."""

    @property
    @abstractmethod
    def record(self) -> dict[str, Any]:
        """What the pairs depend on besides the text, the model and its settings; plain values."""

    @abstractmethod
    def make_pairs(self, translator: Translator, text: Text, lines: Sequence[Line]) -> Iterable[tuple[str, str]]:
        """Returns source and target of the pair that each line of a text gives, in order; one side may be blank."""


@dataclass(frozen=True)
class PairShard(Shard):
    """Consecutive lines of a text, and the file of their pairs: a line of source, a line of target, and so on.

    Lines without text, or whose pair has a blank side, are left out.
    """

    text: Text
    lines: range
    opened: PerProcess[list[TextFile]]
    """The text and its reference. Opening them reads their whole index, and all of a compressed file."""
    maker: PairMaker

    @property
    def name(self) -> str:
        """Its name in the log."""
        return f"{self.source.name}, lines {self.lines.start + 1:,} to {self.lines.stop:,}"

    def translate(self, translator: Translator) -> int:
        """Makes the pairs and returns the number of lines read."""
        columns = [one.read_lines(self.lines) for one in self.opened.value]
        references = columns[1] if len(columns) > 1 else [""] * len(self.lines)
        lines = [Line(*one) for one in zip(self.lines, columns[0], references, strict=True)]
        lines = [one for one in lines if one.text.strip() and (one.reference.strip() or self.text.reference is None)]
        with self._open_target() as out:
            for source, target in self.maker.make_pairs(translator, self.text, lines):
                if source.strip() and target.strip():
                    out.write(f"{source}\n{target}\n")
        return len(self.lines)


def make_synthetic_pairs(
    model: Path,
    texts: Sequence[Text],
    maker: PairMaker,
    *,
    into: Path,
    name: str,
    extra: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    workers: int | None = None,
    address: str | None = None,
    log: Log = print,
) -> Path:
    """Makes sentence pairs, and writes the entries of `data.train` that list them.

    Args:
        model: a run folder, a model folder, an ensemble or an export.
        texts: what to make pairs from; each gives one pair of files.
        maker: makes the pairs.
        into: folder for the files. All workers must see it, the model and the text.
        name: begins the names of the files.
        extra: sections of the fragment besides `data`.
        settings: decoding settings that replace the model's.
        workers: see `translate_missing`.
        address: see `translate_missing`.
        log: prints a line.

    Returns:
        The fragment: a YAML file with `data.train`.

    Raises:
        UserError: model, text or folder cannot be used, or some shards could not be translated (all others are).
        InterruptionError: a signal arrived; finished shards stay.
    """
    settings, work, fragment = settings or {}, into / WORK, into / FRAGMENT
    pairs = [into / f"{name}-{number}" for number in range(1, len(texts) + 1)]
    files = [file for pair in pairs for file in _name_sides(pair)]
    find_folder(model)  # a mistake in a path is reported before a folder is made
    for path in (path for text in texts for path in text.files):
        open_bytes(path).close()
    everything: list[PairShard] = []
    with folder_lock(into, doing="translating"), remove_if_none_is_done(everything, [work, into / RECORD]):
        opened = [PerProcess(_open_text, (text, work)) for text in texts]
        digest = compute_digest("".join(one.fingerprint for columns in opened for one in columns.value).encode())
        shards = [
            _make_shards(text, columns, work / pair.name, maker)
            for text, columns, pair in zip(texts, opened, pairs, strict=True)
        ]
        everything += [shard for ours in shards for shard in ours]
        made_with = {**settings, **maker.record, "entries": [text.entry for text in texts], "text": digest}
        check_record(into, [*files, fragment], model, made_with, parts=[shard.target for shard in everything])
        if fragment.exists():
            log(f"The pairs are complete already: {fragment}.")
        else:
            translate_missing(model, everything, settings=settings, workers=workers, address=address, log=log)
            for pair, ours in zip(pairs, shards, strict=True):
                _join(ours, pair, log)
            _write_fragment(fragment, pairs, texts, extra or {})
        discard(work)
    return fragment


def read_stored_config(model: Path) -> Config | None:
    """Returns the configuration that a model was trained with; None for an export, which does not have it.

    That of an ensemble is the one of its first member.

    Raises:
        UserError: there is no model.
    """
    folder = find_folder(model)
    stored = [path for path in (folder / CONFIG, folder / "1" / CONFIG) if path.is_file()]
    return load_stored_config(stored[0]) if stored else None


def _open_text(text: Text, work: Path) -> list[TextFile]:
    """Opens a text and its reference.

    Raises:
        UserError: a file cannot be read, their numbers of lines differ, or no line has text.
    """
    columns = [TextFile.open(path, work) for path in text.files]
    for other in columns[1:]:
        check_aligned(columns[0].path, len(columns[0]), other.path, len(other))
    if not any(all(line.strip() for line in lines) for lines in zip(*columns, strict=True)):
        names = " and ".join(map(str, text.files))
        raise UserError(f"Expected text in {names}, but all {len(columns[0]):,} lines are blank.")
    return columns


def _make_shards(text: Text, opened: PerProcess[list[TextFile]], start: Path, maker: PairMaker) -> list[PairShard]:
    count = len(opened.value[0])
    starts = range(0, count, SHARD_LINES)
    ranges = [range(first, min(first + SHARD_LINES, count)) for first in starts]
    # Lines in the name: a version with another size of shards must not take them for its own.
    return [
        PairShard(text.path, start.with_name(f"{start.name}.{r.start}-{r.stop}"), text, r, opened, maker)
        for r in ranges
    ]


def _name_sides(pair: Path) -> tuple[Path, Path]:
    return pair.with_name(f"{pair.name}.source"), pair.with_name(f"{pair.name}.target")


def _join(shards: Sequence[PairShard], pair: Path, log: Log) -> None:
    source, target = _name_sides(pair)
    count = 0
    with open_output(source) as sources, open_output(target) as targets:
        for left, right in _read_pairs(shards):
            sources.write(f"{left}\n")
            targets.write(f"{right}\n")
            count += 1
        if not count:
            raise UserError(f"{shards[0].source}: all translations are blank. Train the model further.")
    blank = sum(len(shard.lines) for shard in shards) - count
    left_out = f"; lines left out because they or their translations are blank: {blank:,}" if blank else ""
    log(f"{source}, {target.name}: {count:,} {'pair' if count == 1 else 'pairs'}{left_out}.")


def _read_pairs(shards: Sequence[PairShard]) -> Iterator[tuple[str, str]]:
    for shard in shards:
        with open_bytes(shard.target) as stream:
            lines = read_stream(stream, str(shard.target))
            yield from zip(lines, lines, strict=True)


def _write_fragment(fragment: Path, pairs: Sequence[Path], texts: Sequence[Text], extra: Mapping[str, Any]) -> None:
    train = [
        {"source": str(source), "target": str(target), **text.entry}
        for (source, target), text in zip(map(_name_sides, pairs), texts, strict=True)
    ]
    note = "# Add these entries to those of your configuration.\n"
    with atomic_write(fragment) as aside:
        aside.write_text(note + write_yaml({"data": {"train": train}, **extra}), encoding="utf-8")
