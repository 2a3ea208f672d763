"""Lines from a file or a stream, through a translator, to a file or a stream."""

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
    """Translates a file, or standard input, to a file that is whole or absent, or to standard output.

    Lines of a file are read many at a time; from a terminal or a pipe, what has arrived is translated at once and
    flushed.
    """
    with _reading(source) as chunks, _writing(target) as out:
        number = 0
        for chunk in chunks:
            for translation in translator.stream(chunk, n_best=n_best):
                number += 1
                out.write(_format(number, translation, n_best=n_best, as_json=as_json))
            out.flush()


def _format(number: int, translation: Translation, *, n_best: int, as_json: bool) -> str:
    if as_json:
        hypotheses = [{"text": h.text, "score": h.score, "log_prob": h.log_prob} for h in translation.hypotheses]
        record = {"source": translation.source, "hypotheses": hypotheses}
        return json.dumps(record, ensure_ascii=False) + "\n"
    if n_best == 1:
        return translation.text + "\n"
    return "".join(f"{number}\t{hypothesis.score:.4f}\t{hypothesis.text}\n" for hypothesis in translation.hypotheses)


@contextlib.contextmanager
def _reading(path: Path | None) -> Iterator[Iterator[list[str]]]:
    if path is None:
        yield _as_they_come(read_stream(sys.stdin.buffer, "standard input"))
        return
    with open_lines(path) as file:
        yield split_chunks(read_stream(file, str(path)), WINDOW)


@contextlib.contextmanager
def _writing(path: Path | None) -> Iterator[IO[str]]:
    if path is None:
        # Text of any language, whatever the terminal's locale says.
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
        yield sys.stdout
        return
    with atomic_write(path) as aside, aside.open("w", encoding="utf-8") as file:
        yield file


def _as_they_come(lines: Iterator[str]) -> Iterator[list[str]]:
    """Yields the lines that have arrived, at most a window of them, as soon as there is one."""
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
