import bz2
import gzip
import io
import lzma
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.data import corpus as corpus_module
from nmt.data.corpus import ParallelCorpus, TextFile, read_aligned, read_lines, read_parallel, read_stream
from nmt.errors import UserError

DATA = Path(__file__).parents[3] / "shared" / "data"
BOM = "\ufeff"
LINE_ENDS = ["\n", "\r\n", "\n\n"]
NO_LINE_ENDS = ["\r", "\u2028", "\u2029", "\x85", "\f", "\v", "\x1c", "\0", BOM, " ", "a", "é", "日本", "😀"]
ODD_TEXT = st.lists(st.sampled_from([*LINE_ENDS, *NO_LINE_ENDS])).map("".join)


# The examples write files, which is slow on a busy disk.
UNHURRIED = settings(deadline=None, max_examples=40)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Makes chunks so small that characters and lines cross their boundaries."""
    monkeypatch.setattr(corpus_module, "CHUNK_BYTES", 5)
    monkeypatch.setattr(corpus_module, "CHUNK_PAIRS", 3)


def naive_lines(text):
    *ended, rest = text.removeprefix(BOM).split("\n")
    return [line.removesuffix("\r") for line in ended] + ([rest] if rest else [])


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines_of(path, cache):
    return list(TextFile.open(path, cache))


def open_corpus(folder, *texts):
    """Opens a corpus of files named 0.src, 0.tgt, 1.src, … with these (source, target) texts."""
    pairs = [
        (write(folder / f"{number}.src", source), write(folder / f"{number}.tgt", target))
        for number, (source, target) in enumerate(texts)
    ]
    return ParallelCorpus.open(pairs, folder / "cache")


def everything(corpus):
    indices = np.arange(len(corpus))
    return list(zip(corpus.read_sources(indices), corpus.read_targets(indices), strict=True))


@UNHURRIED
@given(text=ODD_TEXT)
def test_all_readers_split_at_newlines_only(text):
    assert list(read_stream(io.BytesIO(text.encode()), "-")) == naive_lines(text)
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "text", text)
        assert read_lines(path) == naive_lines(text)
        if naive_lines(text):
            assert lines_of(path, Path(folder) / "cache") == naive_lines(text)


@UNHURRIED
@given(content=st.lists(st.sampled_from([b"\n", b"\r\n", b"a", "é".encode(), b"\xe9", b"\xc3", b"\xed\xa0\x80"])))
def test_all_readers_find_the_same_first_bad_byte(content):
    content = b"".join(content)
    found = [error_of(lambda: list(read_stream(io.BytesIO(content), "text")))]
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "text", content or b"\n")
        found.append(error_of(lambda: TextFile.open(path, Path(folder) / "cache")).replace(str(path), "text"))
    try:
        content.decode()
        expected = ""
    except UnicodeDecodeError as error:
        before = content[: error.start].split(b"\n")
        expected = (
            f"text:{len(before)}: Expected UTF-8 text, found 0x{content[error.start]:02x} "
            f"at byte {len(before[-1]) + 1} of the line. Convert the text to UTF-8, for example with iconv."
        )
    assert found == [expected, expected]


def error_of(call):
    try:
        call()
    except UserError as error:
        return str(error)
    return ""


def test_a_stream_yields_each_line_as_it_arrives():
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as sender:
        lines = read_stream(stream, "standard input")
        for text in ("eins", "zwei"):
            sender.write(f"{text}\n".encode())
            assert next(lines) == text


def test_a_text_file_is_a_sequence(tmp_path):
    text = TextFile.open(write(tmp_path / "text", "a\nb\nc\n"), tmp_path / "cache")
    assert (len(text), text[0], text[-1]) == (3, "a", "c")
    assert text.read_lines([2, 0, 2]) == ["c", "a", "c"]
    assert text.read_lines(np.array([], dtype=np.int64)) == []
    with pytest.raises(IndexError):
        text[3]


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_a_compressed_file_reads_like_its_text_and_is_unpacked_once(tmp_path, monkeypatch, suffix, pack):
    content = "Ein Satz.\r\nNoch ein längerer Satz.".encode()
    plain = TextFile.open(write(tmp_path / "plain", content), tmp_path / "cache")
    path = write(tmp_path / f"text{suffix}", pack(content))
    packed = TextFile.open(path, tmp_path / "cache")
    assert list(packed) == list(plain) == read_lines(path) == ["Ein Satz.", "Noch ein längerer Satz."]
    assert packed.fingerprint == plain.fingerprint
    monkeypatch.delattr(corpus_module.shutil, "copyfileobj")
    assert lines_of(path, tmp_path / "cache") == list(plain)


@pytest.mark.parametrize(("suffix", "pack"), [("", bz2.compress), (".gz", bytes)])
def test_compression_is_recognized_by_content(tmp_path, suffix, pack):
    path = write(tmp_path / f"text{suffix}", pack(b"a\nb\n"))
    assert lines_of(path, tmp_path / "cache") == read_lines(path) == ["a", "b"]


def test_a_pipe_cannot_be_training_text(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(
        UserError, match=r"^Expected a file at .*fifo, which is read many times, found a pipe or device"
    ):
        TextFile.open(tmp_path / "fifo", tmp_path / "cache")
    with pytest.raises(UserError, match=r"^Expected a file at -, which is read many times"):
        TextFile.open(Path("-"), tmp_path / "cache")


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress)])
@pytest.mark.parametrize("read", [read_lines, lambda path: TextFile.open(path, path.parent / "cache")])
def test_a_damaged_archive_is_named(tmp_path, suffix, pack, read):
    whole = pack(os.urandom(1000).hex().encode())
    with pytest.raises(UserError, match=rf"Cannot unpack .*short{suffix}: it is damaged or cut short \("):
        read(write(tmp_path / f"short{suffix}", whole[: len(whole) // 2]))


def test_bad_bytes_in_an_archive_are_named_by_the_archive(tmp_path):
    path = write(tmp_path / "text.gz", gzip.compress(b"a\ncaf\xe9\n"))
    with pytest.raises(UserError, match=r"text\.gz:2: Expected UTF-8 text, found 0xe9 at byte 4 of the line"):
        TextFile.open(path, tmp_path / "cache")


def test_an_index_is_rebuilt_only_when_the_file_changes(tmp_path, monkeypatch):
    path = write(tmp_path / "text", "a\nb\n")
    first = TextFile.open(path, tmp_path / "cache")
    mtime = path.stat().st_mtime_ns
    os.utime(write(path, "a\n\nb"), ns=(0, mtime + 1))  # as many bytes as before
    touched = TextFile.open(path, tmp_path / "cache")
    assert list(touched) == ["a", "", "b"]
    assert touched.fingerprint != first.fingerprint
    monkeypatch.delattr(corpus_module, "_scan")
    again = TextFile.open(path, tmp_path / "cache")
    assert (list(again), again.fingerprint) == (["a", "", "b"], touched.fingerprint)


@pytest.mark.parametrize("replaced", [False, True])
def test_other_text_of_the_same_size_and_time_is_noticed(tmp_path, replaced):
    """Written in place, or moved over the old file, and then given its time stamp (touch -r)."""
    path = write(tmp_path / "text", "a\nbc\n")
    mtime = path.stat().st_mtime_ns
    first = TextFile.open(path, tmp_path / "cache")
    other = write(tmp_path / "other" if replaced else path, "ab\nc\n")
    os.utime(other, ns=(mtime, mtime))
    other.replace(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (5, mtime)
    second = TextFile.open(path, tmp_path / "cache")
    assert list(second) == ["ab", "c"]
    assert second.fingerprint != first.fingerprint  # by which a resumed run notices


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "flipped":
        content[len(content) // 2] ^= 1
    elif how == "cut":
        del content[len(content) // 2 :]
    elif how == "longer":
        content += b"\0"
    else:
        content.clear()
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["flipped", "cut", "longer", "empty"])
@pytest.mark.parametrize("kind", ["[01]*.lines.npy", "[01]*.blake2b", "[01]*.txt", "pairs.*.npy"])
def test_a_damaged_file_of_the_cache_is_rebuilt(tmp_path, kind, how):
    pairs = [("a\nb\n\nc", "A\nB\nC\nD"), ("e\nf", "E\nF")]
    files = [
        tuple(write(tmp_path / f"{n}.{side}.gz", gzip.compress(text.encode())) for side, text in enumerate(sides))
        for n, sides in enumerate(pairs)
    ]
    first = ParallelCorpus.open(files, tmp_path / "cache")
    expected = everything(first)
    damaged = list((tmp_path / "cache").glob(kind))
    assert damaged
    for path in damaged:
        damage(path, how)
    again = ParallelCorpus.open(files, tmp_path / "cache")
    assert (everything(again), again.fingerprint) == (expected, first.fingerprint)


def test_a_file_of_the_cache_under_the_name_of_another_is_rebuilt(tmp_path):
    one, other = (write(tmp_path / name, text) for name, text in (("one", "a\nbc"), ("other", "ab\nc")))
    for path in (one, other):
        TextFile.open(path, tmp_path / "cache")
    for suffix in ("lines.npy", "blake2b"):
        [found], [overwritten] = ((tmp_path / "cache").glob(f"{name}.*.{suffix}") for name in ("one", "other"))
        overwritten.write_bytes(found.read_bytes())
    assert lines_of(other, tmp_path / "cache") == ["ab", "c"]


def test_an_interrupted_index_is_not_used(tmp_path, monkeypatch):
    path = write(tmp_path / "text", "a\nb\n")

    def scan(text, append):
        append(np.array([0]))
        raise InterruptedError

    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(corpus_module, "_scan", scan)
        TextFile.open(path, tmp_path / "cache")
    assert lines_of(path, tmp_path / "cache") == ["a", "b"]


def test_equal_names_in_two_folders_do_not_collide_in_the_cache(tmp_path):
    for folder, lines in (("one", ["a", "bc"]), ("two", ["ab", "c"])):
        (tmp_path / folder).mkdir()
        path = write(tmp_path / folder / "text", "\n".join(lines))
        os.utime(path, ns=(0, 0))
        assert lines_of(path, tmp_path / "cache") == lines


@pytest.mark.parametrize("content", ["", BOM])
def test_an_empty_file_is_an_error_every_time(tmp_path, content):
    path = write(tmp_path / "empty", content)
    for _ in range(2):
        with pytest.raises(UserError, match=r"Expected lines of text in .*empty, found an empty file"):
            TextFile.open(path, tmp_path / "cache")


@pytest.mark.parametrize("read", [read_lines, lambda path: TextFile.open(path, path.parent / "cache")])
def test_a_missing_file_is_named_with_a_similar_one(tmp_path, read):
    write(tmp_path / "train.de", "a\n")
    with pytest.raises(UserError, match=r"There is no file .*train\.ed\. Did you mean 'train\.de'\?"):
        read(tmp_path / "train.ed")


@UNHURRIED
@given(
    pairs=st.lists(st.lists(st.tuples(*[st.sampled_from(["", " ", "\u2028\u3000", "\0", "a", "日本", "\x85b"])] * 2)))
)
def test_a_corpus_is_its_files_without_blank_pairs(pairs):
    files = [[("Hallo", "hello"), *file] for file in pairs] or [[("Hallo", "hello")]]
    expected = [pair for file in files for pair in file if all(side.strip() for side in pair)]
    where = [
        f"{number}.src:{line}"
        for number, file in enumerate(files)
        for line, pair in enumerate(file, start=1)
        if all(side.strip() for side in pair)
    ]
    with tempfile.TemporaryDirectory() as folder:
        texts = [["".join(f"{side}\n" for side in sides) for sides in zip(*file, strict=True)] for file in files]
        corpus = open_corpus(Path(folder), *texts)
        assert everything(corpus) == expected
        assert len(corpus) == len(expected)
        assert corpus.num_blank == sum(map(len, files)) - len(expected)
        assert [Path(corpus.locate(index)).name for index in range(len(corpus))] == where


def test_pairs_are_returned_in_the_requested_order_across_files(tmp_path):
    corpus = open_corpus(tmp_path, ("a\nb\n", "A\nB\n"), ("c\n\nd\n", "C\n-\nD\n"))
    indices = np.array([3, 0, 2, 3, 1])
    assert corpus.read_sources(indices) == ["d", "a", "c", "d", "b"]
    assert corpus.read_targets(indices) == ["D", "A", "C", "D", "B"]
    assert corpus.read_sources(indices[:0]) == []


def test_threads_read_the_same_as_one(tmp_path):
    corpus = open_corpus(tmp_path, *[("".join(f"{i}.{j}\n" for j in range(i, 200)),) * 2 for i in range(5)])
    batches = np.random.default_rng(0).integers(len(corpus), size=(200, 17))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(corpus.read_sources, batches)) == [corpus.read_targets(batch) for batch in batches]


def test_the_pair_index_is_made_once(tmp_path, monkeypatch):
    texts = [("a\n\nb\n", "A\nB\nC\n")]
    first = open_corpus(tmp_path, *texts)
    monkeypatch.delattr(corpus_module, "_index_pairs")
    again = open_corpus(tmp_path, *texts)
    assert everything(again) == everything(first) == [("a", "A"), ("b", "C")]
    assert again.num_blank == 1


def test_a_fingerprint_depends_on_text_sides_and_order(tmp_path):
    one, two = ("a\nb\n", "A\nB\n"), ("c\n", "C\n")
    variants = [[one], [two], [one, two], [two, one], [one[::-1]], [("a\nb ", one[1])]]
    fingerprints = []
    for number, texts in enumerate(variants):
        folder = tmp_path / str(number)
        folder.mkdir()
        fingerprints.append(open_corpus(folder, *texts).fingerprint)
    assert len(set(fingerprints)) == len(variants)
    (tmp_path / "elsewhere").mkdir()
    assert open_corpus(tmp_path / "elsewhere", one).fingerprint == fingerprints[0]


def test_unequal_files_are_an_error_that_names_the_first_gap(tmp_path):
    with pytest.raises(
        UserError,
        match=r"^These files must have the same number of lines: .*0\.src has 3, .*0\.tgt has 2\. "
        r"The first line without a partner is line 3\.$",
    ):
        open_corpus(tmp_path, ("a\nb\nc\n", "A\nB\n"))


def test_parallel_files_are_read_together(tmp_path):
    source, target = write(tmp_path / "a.en", "a\nb\n"), write(tmp_path / "a.de", "A\nB\n")
    assert read_parallel(source, target) == (["a", "b"], ["A", "B"])
    with pytest.raises(UserError, match=r"a\.en has 2, .*b\.de has 3\. The first line without a partner is line 3\."):
        read_parallel(source, write(tmp_path / "b.de", "A\nB\nC\n"))
    with pytest.raises(UserError, match=r"c\.en is empty"):
        read_parallel(write(tmp_path / "c.en", ""), write(tmp_path / "c.de", ""))


def test_a_missing_file_is_reported_before_any_text_is_indexed(tmp_path):
    source = write(tmp_path / "source", "a\n")
    with pytest.raises(UserError, match=r"There is no file .*target"):
        ParallelCorpus.open([(source, tmp_path / "target")], tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_is_a_file_is_named(tmp_path):
    path, cache = write(tmp_path / "text", "a\n"), write(tmp_path / "cache", "precious")
    with pytest.raises(UserError, match=r"^Cannot write .*cache/text\..*: .*cache is a file, not a folder\.$"):
        TextFile.open(path, cache)
    assert cache.read_text() == "precious"


def test_two_blank_files_are_an_error_although_others_have_text(tmp_path):
    for _ in range(2):
        with pytest.raises(
            UserError, match=r"in .*1\.src and .*1\.tgt, but in all 2 of them one side or both are blank"
        ):
            open_corpus(tmp_path, ("a\n", "A\n"), ("\nb\n", "A\n \n"))


def test_no_files_are_an_error(tmp_path):
    with pytest.raises(UserError, match="Expected at least one source file and its target file, found none"):
        ParallelCorpus.open([], tmp_path)


def test_real_archives_contain_the_documented_number_of_pairs(tmp_path, monkeypatch):
    monkeypatch.undo()
    if not DATA.is_dir():
        pytest.skip(f"There is no real text at {DATA}.")
    names = [DATA / "tatoeba" / f"train.en-es.{language}.gz" for language in ("en", "es")]
    corpus = ParallelCorpus.open([(names[0], names[1])], tmp_path)
    assert len(corpus) + corpus.num_blank == 108_411
    with gzip.open(names[1], "rt", encoding="utf-8", newline="\n") as text:
        expected = text.read().split("\n")[:-1]
    assert corpus.read_targets(np.arange(len(corpus))) == [line for line in expected if line.strip()]


def test_standard_input_is_named_if_the_numbers_of_lines_differ(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\nb\n")))
    (tmp_path / "x").write_text("c\n")
    with pytest.raises(UserError, match=r"standard input has 2, .*x has 1\. .* is line 2\.$"):
        read_aligned(Path("-"), tmp_path / "x")
