"""Translates lines of a file or stream to a file or stream, for `nmt translate`."""

import json
import select
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from nmt.data.batching import split_chunks
from nmt.data.corpus import read_lines, read_stream
from nmt.decoding.word_links import WordLinks, align_words
from nmt.errors import UserError
from nmt.streams import is_regular_file, name_stream, open_bytes, open_output
from nmt.translators.demands import make_demands
from nmt.translators.hypothesis import Continuation, Hypothesis, Translation
from nmt.translators.markup import stream_markup
from nmt.translators.protocol import WINDOW, Translator

PIPE_BYTES = 1 << 16  # what a pipe of Linux holds
REFILL = 0.05  # seconds in which a program refills a pipe that was full


def translate_lines(
    translator: Translator,
    source: Path,
    target: Path,
    *,
    n_best: int,
    as_json: bool,
    alignments: str | None = None,
    html: bool = False,
    prefixes: Path | None = None,
    required: Path | None = None,
    alternatives: int = 0,
    warn: Callable[[str], None] = lambda message: None,
) -> None:
    """Translates lines of text.

    Lines of a file are read many at a time. Lines of a terminal or pipe are translated as soon as they arrive.

    Args:
        translator: of any kind.
        source: file to translate, or "-" for standard input.
        target: file for the translations, or "-" for standard output; see `open_output`.
        n_best: hypotheses per line; with more than one, each is a line of number, score and text, separated by tabs.
        as_json: whether to write one JSON object per line instead: the source, its hypotheses (text, score, log_prob
            and is_finished, which is false if the length limit cut one off and null if an older export does not return
            it), and its warnings (kind and message).
        alignments: "pharaoh" adds the links between words after a tab, or as the field "alignment" of each hypothesis
            in JSON; "json" writes JSON in which that field is the record of `WordLinks`.
        html: whether lines have tags, which are put around the same words of their translations; see
            `nmt.translators.markup`. Not together with `alignments`.
        prefixes: file with the beginning of each translation, one per line. Not together with `html`.
        required: file with the phrases that each translation must contain, separated by tabs. Not together with `html`.
        alternatives: number of alternatives for the next word to write instead of translations: lines of number,
            probability, text and best translation, separated by tabs, or the same in JSON; 0 writes translations.
        warn: receives each warning about a translation, with the number of its line.

    Raises:
        UserError: the file is damaged, a line is not UTF-8, files differ in their number of lines, or the translator
            cannot return what is requested.
    """
    demands = _Demands({"prefixes": prefixes, "required": required})
    write = partial(_format, n_best=n_best, as_json=as_json or alignments == "json", alignments=alignments)
    stream = (
        partial(stream_markup, translator) if html else partial(translator.stream, attention=alignments is not None)
    )
    with open_bytes(source) as file, open_output(target) as out:
        number = 0
        for chunk in _read_chunks(file, name_stream(source)):
            if alternatives:
                given = demands.get_next(len(chunk)).get("prefixes") or [""] * len(chunk)
                for text, row in zip(chunk, translator.list_alternatives(chunk, given, n=alternatives), strict=True):
                    number += 1
                    out.write(_format_alternatives(number, text, row, as_json=as_json))
                out.flush()
                continue
            for translation in stream(chunk, n_best=n_best, **demands.get_next(len(chunk))):
                number += 1
                out.write(write(number, translation))
                for one in translation.warnings:
                    warn(f"line {number}, {one.kind}: {one.message}")
            out.flush()
        demands.check_end(number)


class _Demands:
    """Reads prefixes and required phrases from files with as many lines as the text.

    Args:
        paths: by the name of the argument of `Translator.stream`; None for no file.
    """

    def __init__(self, paths: Mapping[str, Path | None]):
        self._paths = {name: path for name, path in paths.items() if path is not None}
        self._lines = {name: _read_demands(name, path) for name, path in self._paths.items()}
        self._taken = 0

    def get_next(self, count: int) -> dict[str, list]:
        """Returns the demands on the next lines, as arguments of `Translator.stream`."""
        here = slice(self._taken, self._taken + count)
        self._taken += count
        taken = {name: lines[here] for name, lines in self._lines.items()}
        for name, lines in taken.items():
            if len(lines) < count:
                raise UserError(
                    f"{self._paths[name]}: expected a line for each line to translate, found only "
                    f"{len(self._lines[name]):,}."
                )
        return taken

    def check_end(self, count: int) -> None:
        """Raises UserError if there are more demands than lines."""
        for name, lines in self._lines.items():
            if len(lines) > count:
                raise UserError(
                    f"{self._paths[name]}: expected a line for each of the {count:,} lines to translate, found "
                    f"{len(lines):,}."
                )


def _read_demands(name: str, path: Path) -> list:
    """Returns the prefix, or the list of required phrases, of each line of a file.

    Raises:
        UserError: a line cannot be either; see `make_demands`.
    """
    rows: list = [line.split("\t") if name == "required" else line for line in read_lines(path)]
    for number, row in enumerate(rows, start=1):
        try:
            make_demands(1, **{"prefixes": None, "required": None, name: [row]})
        except UserError as error:
            raise UserError(f"{path}:{number}: {error}") from error
    return rows


def _format_alternatives(number: int, source: str, row: Sequence[Continuation], *, as_json: bool) -> str:
    if as_json:
        return json.dumps({"source": source, "alternatives": list(map(asdict, row))}, ensure_ascii=False) + "\n"
    return "".join(f"{number}\t{one.probability:.4f}\t{one.text}\t{one.translation}\n" for one in row)


def _format(number: int, translation: Translation, *, n_best: int, as_json: bool, alignments: str | None) -> str:
    if as_json:
        hypotheses = [_make_record(translation.source, one, alignments) for one in translation.hypotheses]
        warnings = [asdict(one) for one in translation.warnings]
        record = {"source": translation.source, "hypotheses": hypotheses, "warnings": warnings}
        return json.dumps(record, ensure_ascii=False) + "\n"
    lines = []
    for one in translation.hypotheses:
        fields = [one.text] if n_best == 1 else [str(number), f"{one.score:.4f}", one.text]
        if alignments:
            fields.append(_link(translation.source, one).as_pharaoh())
        lines.append("\t".join(fields) + "\n")
    return "".join(lines)


def _make_record(source: str, one: Hypothesis, alignments: str | None) -> dict[str, Any]:
    record: dict[str, Any] = {
        "text": one.text,
        "score": one.score,
        "log_prob": one.log_prob,
        "is_finished": one.is_finished,
    }
    if one.confidence is not None:
        record["confidence"] = round(one.confidence, 4)
    if alignments:
        links = _link(source, one)
        record["alignment"] = links.as_pharaoh() if alignments == "pharaoh" else links.as_record()
    return record


def _link(source: str, one: Hypothesis) -> WordLinks:
    return align_words(source, one.text, one.attention)


def _read_chunks(stream: BinaryIO, name: str) -> Iterator[list[str]]:
    """Yields at most a window of lines at a time; from a pipe or terminal, the lines that have arrived."""
    if is_regular_file(stream):
        yield from split_chunks(read_stream(stream, name), WINDOW)
        return
    number = 1
    for lines in _read_arrived(stream):
        yield from _keep_before_error(read_stream(lines, name, first=number))
        number += len(lines)


def _keep_before_error(lines: Iterator[str]) -> Iterator[list[str]]:
    """Yields all lines together, and those before one that cannot be read, before raising its error."""
    chunk: list[str] = []
    try:
        for line in lines:
            chunk.append(line)
    except UserError:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


def _read_arrived(stream: BinaryIO) -> Iterator[list[bytes]]:
    """Yields the lines that have arrived, as soon as there is one, and at most a window of them at a time."""
    # No thread reads ahead: one that waits for input can neither be interrupted nor ended.
    parts: list[bytes] = []  # the beginning of a line that is still arriving
    lines: list[bytes] = []
    while block := stream.read1(PIPE_BYTES):  # type: ignore[attr-defined]
        first, *others = block.split(b"\n")
        parts.append(first)
        for other in others:
            lines.append(b"".join(parts) + b"\n")
            parts = [other]
        while len(lines) >= WINDOW:
            yield lines[:WINDOW]
            del lines[:WINDOW]
        patience = REFILL if len(block) == PIPE_BYTES else 0
        if lines and not select.select([stream], [], [], patience)[0]:
            yield lines
            lines = []
    if last := b"".join(parts):
        lines.append(last)
    if lines:
        yield lines
