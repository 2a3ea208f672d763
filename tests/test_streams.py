"""Text files and standard streams, without a model and without TensorFlow."""

import bz2
import errno
import gzip
import io
import lzma
import os
import stat
import sys
import threading
from pathlib import Path

import pytest
from backports import zstd

from nmt import streams
from nmt.errors import UserError
from nmt.streams import CHECKSUM, DamagedFileError, is_compressed, open_bytes, open_output, replace_home

TEXT = "line\r\n\0ü\n".encode()
PACK = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: zstd.compress(content, options=CHECKSUM),
}


def read(path):
    with open_bytes(path) as stream:
        return stream.read()


def write(path, text="eins\nzwei ü\n"):
    with open_output(path) as out:
        out.write(text)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["text", "text.GZ", "text.txt", "text.xz"])
@pytest.mark.parametrize("suffix", PACK)
def test_compression_is_recognized_by_content(tmp_path, suffix, name):
    path = tmp_path / name
    for content in (TEXT, b"", TEXT * 100_000):
        path.write_bytes(PACK[suffix](content))
        assert read(path) == content and is_compressed(path)
    path.write_bytes(PACK[suffix](TEXT) + PACK[suffix](b"more"))  # as `cat` joins two files
    assert read(path) == TEXT + b"more"


@pytest.mark.parametrize("content", [TEXT, b"", b"B\n", b"BZh91 is not bzip2", b"P", b"(", b"\xff\n"])
def test_plain_content_is_read_unchanged(tmp_path, content):
    (tmp_path / "text").write_bytes(content)
    assert read(tmp_path / "text") == content and not is_compressed(tmp_path / "text")
    if content:
        (tmp_path / "text.gz").write_bytes(content)
        assert read(tmp_path / "text.gz") == content


@pytest.mark.parametrize("suffix", PACK)
def test_a_damaged_file_is_named(tmp_path, suffix):
    path, packed = tmp_path / "text", PACK[suffix](os.urandom(5000))
    flipped = bytearray(packed)
    flipped[len(packed) // 2] ^= 255
    for content in (packed[:-9], bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(DamagedFileError, match=rf"^Cannot unpack {path}: it is damaged or cut short \(.*Download"):
            read(path)
    (tmp_path / f"empty{suffix}").touch()
    with pytest.raises(DamagedFileError, match=r"cut short \(it is empty\)"):
        read(tmp_path / f"empty{suffix}")


@pytest.mark.parametrize("suffix", PACK)
def test_damage_after_the_first_of_several_streams_is_no_end(tmp_path, suffix):
    path, first, second = tmp_path / "text", PACK[suffix](TEXT), bytearray(PACK[suffix](b"more"))
    second[2] ^= 255
    for rest in (bytes(second), b"more"):
        path.write_bytes(first + rest)
        with pytest.raises(DamagedFileError, match="it is damaged or cut short"):
            read(path)


def test_zeros_may_stand_between_the_streams_of_an_xz_file(tmp_path):
    (tmp_path / "text").write_bytes(lzma.compress(TEXT) + bytes(4 << 16) + lzma.compress(b"more") + bytes(4))
    assert read(tmp_path / "text") == TEXT + b"more"


def test_a_stream_in_a_pipe_is_read_before_the_next_one_arrives(monkeypatch):
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe, os.fdopen(writing, "wb", buffering=0) as sender:
        monkeypatch.setattr(sys, "stdin", pipe)
        sender.write(lzma.compress(TEXT))
        stream = open_bytes(Path("-"))
        assert stream.read1() == TEXT


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"PK\x03\x04", "a ZIP archive"),
        (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
        (b"\x04\x22\x4d\x18", "an LZ4 file"),
        (b"\x1f\x9d", "a file of the program compress"),
    ],
)
def test_an_unsupported_format_is_named(tmp_path, head, kind):
    (tmp_path / "text.gz").write_bytes(head + b"\0" * 20)
    with pytest.raises(
        UserError, match=rf"text.gz: it is {kind}\. Expected text, plain or as \.gz, \.bz2, \.xz, \.zst\."
    ):
        open_bytes(tmp_path / "text.gz")


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_a_missing_file_is_reported_with_the_closest_name(tmp_path, ending):
    (tmp_path / f"train.en{ending}").touch()
    with pytest.raises(UserError, match=rf"There is no file .*tran.en{ending}. Did you mean 'train.en{ending}'\?$"):
        open_bytes(tmp_path / f"tran.en{ending}")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("absent/x", r"There is no file .*x. There is no folder .*absent either\.$"),
        (".", r"Expected a file at .*, found a folder\.$"),
        ("file/x", r"Cannot read .*x: Not a directory\.$"),
    ],
)
def test_a_file_that_cannot_be_opened_is_reported(tmp_path, name, words):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=words):
        open_bytes(tmp_path / name)


@pytest.mark.parametrize("suffix", ["", *PACK, ".GZ"])
def test_output_is_packed_by_its_suffix_and_the_same_text_is_the_same_file(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    write(path)
    first = path.read_bytes()
    assert read(path) == "eins\nzwei ü\n".encode()
    assert is_compressed(path) == bool(suffix)
    write(path)
    assert path.read_bytes() == first and names(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_failure_leaves_the_older_file(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    path.write_text("older")
    with pytest.raises(RuntimeError), open_output(path) as out:
        out.write("torn" * 100_000)
        raise RuntimeError
    assert path.read_text() == "older" and names(tmp_path) == [path.name]


def test_the_target_of_a_link_is_replaced_and_keeps_its_mode(tmp_path):
    (tmp_path / "far").mkdir()
    real, link, dangling = tmp_path / "far" / "real", tmp_path / "link", tmp_path / "dangling"
    real.write_text("older")
    real.chmod(0o640)
    link.symlink_to(real)
    dangling.symlink_to(tmp_path / "far" / "new")
    seen = []
    with open_output(link) as out:
        seen += [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "far").glob(".*.part")]
        out.write("new\n")
    write(dangling, "new\n")
    assert link.is_symlink() and real.read_text() == "new\n" == (tmp_path / "far" / "new").read_text()
    assert [stat.S_IMODE(real.stat().st_mode), *seen] == [0o640, 0o640]  # also while it is written
    assert names(tmp_path / "far") == ["new", "real"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_is_kept(tmp_path):
    path = tmp_path / "out"
    path.touch(0o600)
    os.chown(path, 1234, 2345)
    write(path)
    state = path.stat()
    assert (state.st_uid, state.st_gid, stat.S_IMODE(state.st_mode)) == (1234, 2345, 0o600)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_fifo_is_written_through_and_read(tmp_path, suffix):
    path, found = tmp_path / f"fifo{suffix}", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: found.append(read(path)))
    reader.start()
    write(path)
    reader.join(60)
    assert found == ["eins\nzwei ü\n".encode()] and path.is_fifo()


def test_a_device_is_written_through(tmp_path):
    # A pseudo-terminal: the real /dev/null must not be risked.
    ours, theirs = os.openpty()
    write(Path(os.ttyname(theirs)), "eins")
    assert os.read(ours, 10) == b"eins"
    os.close(ours)
    os.close(theirs)


def test_an_open_file_of_the_process_is_not_cut_off(tmp_path):
    with (tmp_path / "log").open("ab") as file:
        file.write(b"before\n")
        file.flush()
        write(Path(f"/dev/fd/{file.fileno()}"), "after\n")
    assert (tmp_path / "log").read_text() == "before\nafter\n"


def test_a_file_of_another_user_in_a_sticky_folder_is_written_in_place(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.touch()
    before = path.stat().st_ino
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    for mode, is_same in ((0o1777, True), (0o777, False)):
        tmp_path.chmod(mode)
        write(path)
        assert (path.stat().st_ino == before) == is_same


def test_a_file_that_cannot_be_replaced_is_written_in_place(tmp_path, monkeypatch):
    path = tmp_path / "a b"
    path.write_text("older and longer\n")
    number = path.stat().st_ino
    mounts = tmp_path / "mounts"
    mounts.write_text(f"42 27 254:0 /x {tmp_path}/a\\040b rw - ext4 /dev/vda rw\n")
    monkeypatch.setattr(streams, "MOUNTS", mounts)
    write(path, "new\n")
    mounts.write_text("")
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda place, mode: place != tmp_path)  # root may write everywhere
        write(path, "newer\n")
    assert (path.read_text(), path.stat().st_ino) == ("newer\n", number)
    write(path, "newest\n")
    assert path.stat().st_ino != number


def test_a_folder_is_not_a_file_to_write(tmp_path):
    with pytest.raises(UserError, match=r"Cannot write .*: expected a file, found a folder\.$"):
        write(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match=r"Cannot write .*loop: Too many levels of symbolic links\.$"):
        write(tmp_path / "loop")


@pytest.mark.parametrize("path", [Path("/dev/full"), Path("-")])
def test_a_full_device_is_reported(monkeypatch, path):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with open(os.open("/dev/full", os.O_WRONLY), "w", closefd=False) as full:
        monkeypatch.setattr(sys, "stdout", full)
        where = "to standard output" if path == Path("-") else "/dev/full"
        with pytest.raises(UserError, match=rf"^Cannot write {where}: No space left on device\.$"):
            write(path)
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())


def test_standard_streams_that_are_closed_are_reported(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(UserError, match=r"^Standard input is closed\. Give a file\.$"):
        open_bytes(Path("-"))
    with pytest.raises(UserError, match=r"^Standard output is closed\.$"):
        write(Path("-"))


def test_the_name_of_a_file_that_is_not_utf_8_is_printed(monkeypatch):
    name = os.fsdecode(b"f\xfcr.txt")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out := io.BytesIO()))
    write(Path("-"), name)
    assert out.getvalue() == b"f\xfcr.txt"


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_standard_input_may_be_another_stream(monkeypatch, pack):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pack(TEXT))))
    assert read(Path("-")) == TEXT


def test_another_error_in_the_block_is_not_taken_for_one_of_the_file(tmp_path):
    with pytest.raises(ConnectionResetError), open_output(tmp_path / "out"):
        raise ConnectionResetError(errno.ECONNRESET, "reset")


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert replace_home(Path("~/x")) == tmp_path / "x"
    assert replace_home(Path("~nobody-of-this-name/x")) == Path("~nobody-of-this-name/x")
    assert replace_home(Path("x/~")) == Path("x/~")
