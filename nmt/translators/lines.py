"""Translates lines of a file or stream to a file or stream, for `nmt translate`."""

import contextlib
import json
import queue
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from nmt.data.batching import split_chunks
from nmt.data.corpus import open_lines, read_stream
from nmt.files import atomic_write
from nmt.translators.hypothesis import Translation
from nmt.translators.protocol import WINDOW, Translator


def translate_lines(
    translator: Translator, source: Path | None, target: Path | None, *, n_best: int, as_json: bool
) -> None:
    """Translates lines of text.

    Lines of a file are read many at a time. Lines of a terminal or pipe are translated as soon as they arrive.

    Args:
        translator: of any kind.
        source: file to translate, or None for standard input.
        target: file for the translations, written as a whole or not at all, or None for standard output.
        n_best: hypotheses per line; with more than one, each is a line of number, score and text, separated by tabs.
        as_json: whether to write one JSON object per line instead: the source, its hypotheses (text, score, log_prob
            and is_finished, which is false if the length limit cut one off and null if an export does not tell), and
            warnings.

    Raises:
        UserError: the file is damaged, a line is not UTF-8, or the translator cannot return n hypotheses.
    """
    with _open_source(source) as chunks, _open_target(target) as out:
        number = 0
        for chunk in chunks:
            for translation in translator.stream(chunk, n_best=n_best):
                number += 1
                out.write(_format(number, translation, n_best=n_best, as_json=as_json))
            out.flush()


def _format(number: int, translation: Translation, *, n_best: int, as_json: bool) -> str:
    if as_json:
        hypotheses = [
            {"text": one.text, "score": one.score, "log_prob": one.log_prob, "is_finished": one.is_finished}
            for one in translation.hypotheses
        ]
        record = {"source": translation.source, "hypotheses": hypotheses, "warnings": list(translation.warnings)}
        return json.dumps(record, ensure_ascii=False) + "\n"
    if n_best == 1:
        return translation.text + "\n"
    return "".join(f"{number}\t{hypothesis.score:.4f}\t{hypothesis.text}\n" for hypothesis in translation.hypotheses)


@contextlib.contextmanager
def _open_source(path: Path | None) -> Iterator[Iterator[list[str]]]:
    if path is None:
        yield _stream_arrived(read_stream(sys.stdin.buffer, "standard input"))
        return
    with open_lines(path) as file:
        yield split_chunks(read_stream(file, str(path)), WINDOW)


@contextlib.contextmanager
def _open_target(path: Path | None) -> Iterator[IO[str]]:
    if path is None:
        # The locale of a terminal may not have all characters.
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
        yield sys.stdout
        return
    with atomic_write(path) as aside, aside.open("w", encoding="utf-8") as file:
        yield file


def _stream_arrived(lines: Iterator[str]) -> Iterator[list[str]]:
    """Yields the lines that have arrived, as soon as there is one, and at most a window of them at a time."""
    arrived: queue.Queue = queue.Queue(WINDOW)

    def read() -> None:
        try:
            for line in lines:
                arrived.put((line, None))
            arrived.put((None, None))
        except Exception as error:
            arrived.put((None, error))

    threading.Thread(target=read, daemon=True, name="standard input").start()
    while True:
        entries = [arrived.get()]
        with contextlib.suppress(queue.Empty):
            while entries[-1][0] is not None and len(entries) < WINDOW:
                entries.append(arrived.get_nowait())
        if chunk := [line for line, _ in entries if line is not None]:
            yield chunk
        line, error = entries[-1]
        if error is not None:
            raise error
        if line is None:
            return
