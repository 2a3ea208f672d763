import bz2
import contextlib
import gzip
import io
import json
import os
import select
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from nmt.config.schema import SearchSettings
from nmt.decoding.alignment import TokenAttention
from nmt.errors import UserError
from nmt.translators import lines as lines_module
from nmt.translators.hypothesis import Hypothesis, Translation
from nmt.translators.lines import translate_lines
from nmt.translators.protocol import Translator

PATIENCE = 60  # seconds to wait for an answer that never comes


class Upper(Translator):
    """Translates into capital letters; further hypotheses have exclamation marks. Fails at the line "fail"."""

    source_language = None
    settings = SearchSettings()
    max_n_best, max_tokens = 9, 100

    def __init__(self) -> None:
        self.chunks: list[list[str]] = []

    def with_settings(self, **changes: Any) -> "Upper":
        return self

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def translate_batch(self, texts: Sequence[str], *, n_best: int = 1, attention: bool = False) -> list[Translation]:
        self.chunks.append(list(texts))
        if "fail" in texts:
            raise UserError("This line fails.")
        return [
            Translation(
                text,
                [
                    Hypothesis(text.upper() + "!" * n, -0.125 - n, -0.25 - n, attention=attend(text, attention))
                    for n in range(n_best)
                ],
            )
            for text in texts
        ]


def attend(text: str, wanted: bool) -> list[TokenAttention]:
    """Each word attends to the one before it, and the first one to itself."""
    words = ["▁" + word for word in text.split()]
    weights = [[float(column == max(0, row - 1)) for column in range(len(words))] for row in range(len(words))]
    return [TokenAttention(words, [word.upper() for word in words], weights)] if wanted else []


class Pipes:
    """Standard input and output as pipes whose other ends are ours."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        read, self.input = os.pipe()
        self.output, write = os.pipe()
        self.stdin, self.stdout = os.fdopen(read), os.fdopen(write, "w", encoding="ascii")
        self.monkeypatch = monkeypatch
        self._rest = b""

    def translate(self, translator: Upper) -> None:
        # Not in the fixture: between it and the test, pytest puts streams of its own in place.
        with self.monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", self.stdin)
            patch.setattr(sys, "stdout", self.stdout)
            translate_lines(translator, Path("-"), Path("-"), n_best=1, as_json=False)

    def write(self, text: bytes) -> None:
        os.write(self.input, text)

    def end(self) -> None:
        os.close(self.input)
        self.input = -1

    def leave(self) -> None:
        """Reads no more."""
        os.close(self.output)
        self.output = -1

    def answer(self) -> str:
        """The next line of standard output; fails where none comes."""
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self.output], [], [], PATIENCE)
            assert ready, "no answer"
            self._rest += os.read(self.output, 4096)
        line, self._rest = self._rest.split(b"\n", 1)
        return line.decode()

    def close(self) -> None:
        for descriptor in {self.input, self.output} - {-1}:
            os.close(descriptor)
        # Last, since a thread that still reads would hold the file.
        for file in (self.stdin, self.stdout):
            with contextlib.suppress(BrokenPipeError):
                file.close()


@pytest.fixture
def pipes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipes]:
    pipes = Pipes(monkeypatch)
    yield pipes
    pipes.close()


def file_of(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def translated(tmp_path: Path, text: str, *, n_best: int = 1, as_json: bool = False, **options: Any) -> str:
    target = tmp_path / "target"
    translate_lines(Upper(), file_of(tmp_path / "source", text), target, n_best=n_best, as_json=as_json, **options)
    return target.read_text(encoding="utf-8")


def test_a_file_becomes_a_file_line_by_line(tmp_path: Path) -> None:
    assert translated(tmp_path, "eins\n\nzwei ü\ndrei") == "EINS\n\nZWEI Ü\nDREI\n"


def test_an_empty_file_becomes_an_empty_file(tmp_path: Path) -> None:
    assert translated(tmp_path, "") == ""


def test_many_best_are_number_score_and_text(tmp_path: Path) -> None:
    assert translated(tmp_path, "a\nb\n", n_best=2) == (
        "1\t-0.1250\tA\n1\t-1.1250\tA!\n2\t-0.1250\tB\n2\t-1.1250\tB!\n"
    )


def test_json_is_one_record_a_line(tmp_path: Path) -> None:
    text = translated(tmp_path, 'ü "x"\n\n', n_best=2, as_json=True)
    first, second = map(json.loads, text.splitlines())
    assert first == {
        "source": 'ü "x"',
        "hypotheses": [
            {"text": 'Ü "X"', "score": -0.125, "log_prob": -0.25, "is_finished": True},
            {"text": 'Ü "X"!', "score": -1.125, "log_prob": -1.25, "is_finished": True},
        ],
        "warnings": [],
    }
    assert second["source"] == ""
    assert "ü" in text


def test_links_stand_after_a_tab_or_in_the_record(tmp_path: Path) -> None:
    assert translated(tmp_path, "a b\n\n", alignments="pharaoh") == "A B\t0-0 0-1\n\t\n"
    assert translated(tmp_path, "a\n", n_best=2, alignments="pharaoh") == "1\t-0.1250\tA\t0-0\n1\t-1.1250\tA!\t0-0\n"
    [record] = map(json.loads, translated(tmp_path, "a b", n_best=2, as_json=True, alignments="pharaoh").splitlines())
    assert [one["alignment"] for one in record["hypotheses"]] == ["0-0 0-1", "0-0 0-1"]
    [record] = map(json.loads, translated(tmp_path, "a b", alignments="json").splitlines())
    assert record["hypotheses"][0]["alignment"] == {
        "source": ["a", "b"],
        "target": ["A", "B"],
        "links": [[0, 0], [0, 1]],
        "weights": [[1, 0], [1, 0]],
    }


def test_a_file_is_read_a_window_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "WINDOW", 3)
    translator = Upper()
    source = file_of(tmp_path / "source", "a\nb\nc\nd\ne\nf\ng\n")
    translate_lines(translator, source, tmp_path / "target", n_best=2, as_json=False)
    assert translator.chunks == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
    numbers = [line.split("\t")[0] for line in (tmp_path / "target").read_text().splitlines()]
    assert numbers == [str(n) for n in range(1, 8) for _ in range(2)]


@pytest.mark.parametrize("before", [None, "older\n"])
def test_the_target_is_whole_or_as_it_was(tmp_path: Path, before: str | None) -> None:
    target = tmp_path / "target"
    if before is not None:
        file_of(target, before)
    source = file_of(tmp_path / "source", "good\nfail\ngood\n")
    with pytest.raises(UserError, match="This line fails"):
        translate_lines(Upper(), source, target, n_best=1, as_json=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"] + ["target"] * (before is not None)
    assert before is None or target.read_text() == before


def test_what_is_no_utf8_names_its_line(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"good\nb\xe4d\n")
    with pytest.raises(UserError, match="source:2: Expected UTF-8 text, found 0xe4"):
        translate_lines(Upper(), source, tmp_path / "target", n_best=1, as_json=False)
    assert not (tmp_path / "target").exists()


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(gzip.compress(os.urandom(1000).hex().encode())[:500])
    with pytest.raises(UserError, match=rf"^Cannot unpack {source}: it is damaged or cut short \("):
        translate_lines(Upper(), source, tmp_path / "target", n_best=1, as_json=False)
    assert not (tmp_path / "target").exists()


def test_each_line_of_a_pipe_is_answered_before_the_next(pipes: Pipes) -> None:
    thread = threading.Thread(target=pipes.translate, args=[Upper()])
    thread.start()
    for line in ("eins", "", "zwei ü"):
        pipes.write(f"{line}\n".encode())
        assert pipes.answer() == line.upper()
    pipes.write(b"without an end of line")
    pipes.end()
    assert pipes.answer() == "WITHOUT AN END OF LINE"
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_what_has_arrived_is_translated_together(pipes: Pipes) -> None:
    translator = Upper()
    pipes.write(b"".join(b"%d\n" % n for n in range(97)))
    pipes.end()
    pipes.translate(translator)
    assert [line for chunk in translator.chunks for line in chunk] == [str(n) for n in range(97)]
    assert [pipes.answer() for _ in range(97)] == [str(n) for n in range(97)]
    assert all(translator.chunks)


def test_a_full_pipe_is_waited_for_so_that_a_window_is_translated_together(
    pipes: Pipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines_module, "PIPE_BYTES", 8)
    monkeypatch.setattr(lines_module, "WINDOW", 4)
    translator = Upper()
    pipes.write(b"\xef\xbb\xbfone\ntwo\nthree\nfour\nfive\nsix")
    pipes.end()
    pipes.translate(translator)
    assert translator.chunks == [["one", "two", "three", "four"], ["five", "six"]]


def test_a_packed_pipe_is_unpacked(pipes: Pipes) -> None:
    pipes.write(bz2.compress("eins\nzwei ü\n".encode()))
    pipes.end()
    pipes.translate(Upper())
    assert [pipes.answer(), pipes.answer()] == ["EINS", "ZWEI Ü"]


def test_a_bad_line_of_a_pipe_comes_after_the_answers_to_good_ones(pipes: Pipes) -> None:
    pipes.write(b"good\nb\xe4d\n")
    pipes.end()
    with pytest.raises(UserError, match="standard input:2: Expected UTF-8 text"):
        pipes.translate(Upper())
    assert pipes.answer() == "GOOD"


def test_a_reader_that_has_gone_is_told_to_the_caller(pipes: Pipes) -> None:
    pipes.leave()
    pipes.write(b"good\n")
    pipes.end()
    with pytest.raises(BrokenPipeError):
        pipes.translate(Upper())


def test_standard_output_is_utf8_whatever_the_locale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    translate_lines(Upper(), file_of(tmp_path / "source", "süß 二\n"), Path("-"), n_best=1, as_json=False)
    assert written.getvalue().decode() == "SÜSS 二\n"
