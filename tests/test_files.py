import errno
import gzip
import lzma
import math
import os
import sys
import time
from pathlib import Path

import pytest

from nmt import files
from nmt.cli.main import main
from nmt.errors import UserError
from nmt.files import (
    atomic_replace,
    atomic_write,
    check_platform,
    compute_digest,
    discard,
    folder_lock,
    open_bytes,
    recover,
    start_digest,
    wait_for_unlock,
)

PLAIN = b"line\r\n\x00\xff"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_once_it_is_complete(tmp_path):
    path = tmp_path / "deep" / "down" / "file"
    with atomic_write(path) as aside:
        aside.write_text("half")
        assert not path.exists()
        assert aside.parent == path.parent
    assert path.read_text() == "half"
    assert names(path.parent) == ["file"]


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with atomic_write(path) as aside:
        aside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("interruption", [RuntimeError, KeyboardInterrupt])
def test_the_older_file_survives_a_failure(tmp_path, interruption):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(interruption), atomic_write(path) as aside:
        aside.write_text("torn")
        raise interruption
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_full_disk_is_reported_with_the_name_of_the_file(tmp_path):
    words = r"^Cannot write .*/file: No space left on device\.$"
    with pytest.raises(UserError, match=words), atomic_write(tmp_path / "file") as aside:
        aside.touch()
        raise OSError(errno.ENOSPC, "a message of HDF5")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_once_it_is_complete(tmp_path):
    path = tmp_path / "model"
    with atomic_write(path) as aside:
        (aside / "inner").mkdir(parents=True)
        (aside / "inner" / "weights").write_bytes(PLAIN)
        assert not path.exists()
    assert (path / "inner" / "weights").read_bytes() == PLAIN
    assert names(tmp_path) == ["model"]


def test_a_folder_whose_writing_fails_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), atomic_write(tmp_path / "model") as aside:
        (aside / "inner").mkdir(parents=True)
        raise RuntimeError
    assert names(tmp_path) == []


def test_files_of_a_killed_process_with_the_same_id_are_removed(tmp_path):
    leavings = tmp_path / f".model.{os.getpid()}.part"
    leavings.mkdir()
    (leavings / "stale").touch()
    with atomic_write(tmp_path / "model") as aside:
        aside.mkdir()
        (aside / "fresh").touch()
    assert names(tmp_path / "model") == ["fresh"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot sync a folder")
def test_everything_is_synced_before_it_gets_its_name(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(files, "_sync_one", lambda path: seen.append((path.name, (tmp_path / "model").exists())))
    with atomic_write(tmp_path / "model") as aside:
        (aside / "inner").mkdir(parents=True)
        (aside / "inner" / "weights").touch()
    before = {name for name, renamed in seen if not renamed}
    assert before == {aside.name, "inner", "weights"}
    assert seen[-1] == (tmp_path.name, True)


def test_a_file_where_the_folder_should_be_is_reported(tmp_path):
    (tmp_path / "file").touch()
    expected = r"Cannot write .*x: (Not a directory|File exists). Choose another place or change its owner\.$"
    with pytest.raises(UserError, match=expected), atomic_write(tmp_path / "file" / "x"):
        pytest.fail("there is no place to write to")


def test_a_missing_permission_is_reported(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(files, "sync", refuse)  # the tests may run as root, who may write everywhere
    expected = r"Cannot write .*x: Permission denied. Choose another place or change its owner\.$"
    with pytest.raises(UserError, match=expected), atomic_write(tmp_path / "x") as aside:
        aside.touch()
    assert names(tmp_path) == []


def write_model(folder, text):
    folder.mkdir()
    (folder / "weights").write_text(text)


def test_a_folder_is_replaced(tmp_path):
    path = tmp_path / "model"
    for text in ("first", "second", "third"):
        with atomic_replace(path) as aside:
            write_model(aside, text)
        assert (path / "weights").read_text() == text
        assert names(tmp_path) == ["model"]


def test_a_replacement_that_fails_leaves_the_older_folder(tmp_path):
    path = tmp_path / "model"
    write_model(path, "old")
    with pytest.raises(RuntimeError), atomic_replace(path) as aside:
        write_model(aside, "torn")
        raise RuntimeError
    assert (path / "weights").read_text() == "old"
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize(("moment", "text"), [(0, "old"), (1, "old"), (2, "new")])
def test_a_folder_is_recovered_after_a_kill_during_its_replacement(tmp_path, monkeypatch, moment, text):
    path = tmp_path / "model"
    write_model(path, "old")
    steps = iter(range(3))  # the two renamings and the removal of the older folder

    def cut_off(step):
        def run(*arguments, **options):
            if next(steps) == moment:
                raise KeyboardInterrupt
            return step(*arguments, **options)

        return run

    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
        patch.setattr(Path, "rename", cut_off(Path.rename))
        with atomic_replace(path) as aside:
            write_model(aside, "new")
            patch.setattr(files.shutil, "rmtree", cut_off(files.shutil.rmtree))
    assert names(tmp_path) != ["model"]
    assert (recover(path) / "weights").read_text() == text
    assert names(tmp_path) == ["model"]


def test_recover_leaves_a_complete_folder_alone(tmp_path):
    write_model(tmp_path / "model", "whole")
    assert (recover(tmp_path / "model") / "weights").read_text() == "whole"
    assert not recover(tmp_path / "absent").exists()
    assert names(tmp_path) == ["model"]


def test_discard_removes_files_folders_and_links_but_not_the_targets_of_links(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    (tmp_path / "link").symlink_to(kept)
    for name in ("file", "folder", "link", "absent"):
        discard(tmp_path / name)
    assert names(tmp_path) == ["kept"]
    assert names(kept) == ["file"]


@pytest.mark.parametrize(("ending", "pack"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)])
def test_open_bytes_decompresses(tmp_path, ending, pack):
    path = tmp_path / f"text{ending}"
    path.write_bytes(pack(PLAIN))
    with open_bytes(path) as stream:
        assert stream.read() == PLAIN


@pytest.mark.parametrize("ending", ["", ".gz", ".xz"])
def test_a_missing_file_is_reported_with_the_closest_name(tmp_path, ending):
    (tmp_path / f"train.en{ending}").touch()
    with pytest.raises(UserError, match=rf"There is no file .*tran.en{ending}. Did you mean 'train.en{ending}'\?$"):
        open_bytes(tmp_path / f"tran.en{ending}")


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"There is no file .*x. There is no folder .*absent either\.$"):
        open_bytes(tmp_path / "absent" / "x")


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(UserError, match=r"Expected a file at .*, found a folder\.$"):
        open_bytes(tmp_path)


def test_an_unreadable_file_is_reported(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"Cannot read .*x: Not a directory\.$"):
        open_bytes(tmp_path / "file" / "x")


def test_a_locked_folder_is_refused_until_it_is_free(tmp_path):
    with folder_lock(tmp_path / "run", doing="training", key="run_dir"):
        # A second open file stands for a second process: flock belongs to the open file.
        with (
            pytest.raises(UserError, match=rf"^Process {os.getpid()} is already training in .*run\.$"),
            folder_lock(tmp_path / "run", doing="training"),
        ):
            pytest.fail("the folder is locked")
        started = time.monotonic()
        wait_for_unlock(tmp_path / "run", seconds=0.3)
        assert time.monotonic() - started >= 0.3
    wait_for_unlock(tmp_path / "run", seconds=math.inf)
    with folder_lock(tmp_path / "run", doing="training"):
        pass


def test_a_folder_that_cannot_be_locked_is_named_with_its_key(tmp_path):
    (tmp_path / "file").touch()
    words = r"^Cannot write to run_dir .*file/run: Not a directory\.$"
    with pytest.raises(UserError, match=words), folder_lock(tmp_path / "file" / "run", doing="training", key="run_dir"):
        pytest.fail("there is no folder to lock")


def test_a_digest_stays_what_it_was():
    """Stored files contain digests. RFC 7693 defines BLAKE2b; this value is from `b2sum --length=128`."""
    assert compute_digest(b"abc") == "cf4ab791c62b8d2b2109c90275287816"
    digest = start_digest(b"a")
    digest.update(b"bc")
    assert digest.hexdigest() == compute_digest(b"abc")


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_linux_and_macos_are_supported(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    check_platform()


def test_on_windows_every_command_names_wsl(monkeypatch, capsys):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(UserError, match=r"^nmt runs on Linux and macOS; on Windows use WSL 2\.$"):
        check_platform()
    monkeypatch.setattr(sys, "argv", ["nmt", "info", "nowhere"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err == "nmt runs on Linux and macOS; on Windows use WSL 2.\n"
