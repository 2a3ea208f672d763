import errno
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
    append_line,
    atomic_replace,
    atomic_write,
    check_platform,
    compute_digest,
    compute_file_digest,
    discard,
    folder_lock,
    read_json_lines,
    read_limited,
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


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "No space left on device"), (errno.EFBIG, "File too large")]
)
def test_a_full_disk_is_reported_with_the_name_of_the_file(tmp_path, number, words):
    expected = rf"^Cannot write .*/file: {words}\.$"
    with pytest.raises(UserError, match=expected), atomic_write(tmp_path / "file") as aside:
        aside.touch()
        raise OSError(number, "a message of HDF5")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_once_it_is_complete(tmp_path):
    path = tmp_path / "model"
    with atomic_write(path) as aside:
        (aside / "inner").mkdir(parents=True)
        (aside / "inner" / "weights").write_bytes(PLAIN)
        assert not path.exists()
    assert (path / "inner" / "weights").read_bytes() == PLAIN
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("path", ["model", "new/inner/model"])
def test_a_folder_whose_writing_fails_leaves_nothing(tmp_path, path):
    with pytest.raises(RuntimeError), atomic_write(tmp_path / path) as aside:
        (aside / "inner").mkdir(parents=True)
        raise RuntimeError
    assert names(tmp_path) == []


def find_dead_process() -> int:
    process = os.posix_spawn("/bin/true", ["true"], os.environ)
    os.waitpid(process, 0)
    return process


def test_partial_files_of_killed_processes_are_removed_and_those_of_live_ones_kept(tmp_path, monkeypatch):
    with atomic_write(tmp_path / "model") as aside:
        aside.touch()
        same = aside.name  # the same process id, of a process that was killed before
    machine = same.rpartition("-")[2]
    dead, alive = find_dead_process(), os.getppid()
    stale = [same, f".model.{dead}-{machine}", f".model.{dead}.part"]
    kept = [f".model.{alive}-{machine}", f".model.{dead}-0123abcd.part", f".model.x.{dead}.part", ".model.notes.part"]
    for name in (*stale, *kept):
        (tmp_path / name).mkdir()
        (tmp_path / name / "inner").touch()
    with atomic_write(tmp_path / "model", keep_stale=True) as aside:
        aside.touch()
    assert set(names(tmp_path)) == {"model", *stale[1:], *kept}
    (tmp_path / "model").unlink()
    with atomic_write(tmp_path / "model") as aside:
        aside.mkdir()
        (aside / "fresh").touch()
    assert set(names(tmp_path)) == {"model", *kept}
    assert names(tmp_path / "model") == ["fresh"]
    (tmp_path / "model" / "fresh").unlink()
    (tmp_path / "model").rmdir()
    monkeypatch.setattr(files, "STALE_SECONDS", -1)  # on another machine, time decides
    with atomic_write(tmp_path / "model") as aside:
        aside.touch()
    assert set(names(tmp_path)) == {"model", *kept} - {kept[1]}


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
    expected = r"^Cannot write .*/file/x: .*/file is a file, not a folder\.$"
    with pytest.raises(UserError, match=expected), atomic_write(tmp_path / "file" / "x"):
        pytest.fail("there is no place to write to")


def test_a_folder_that_is_not_writable_is_reported_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the tests may run as root, who may write everywhere
    expected = r"^Cannot write .*/x: Permission denied\. Choose another place or change its owner\.$"
    with pytest.raises(UserError, match=expected), atomic_write(tmp_path / "x"):
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
    (tmp_path / "file").write_text("text")
    discard(tmp_path / "file" / "none")


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


@pytest.mark.parametrize("made", [[], ["record"], ["record", "work"]])
def test_an_empty_or_new_folder_is_left_as_it_was_unless_something_was_made_in_it(tmp_path, made):
    old, used, new = tmp_path / "old", tmp_path / "used", tmp_path / "new" / "run"
    for folder in (old, used):
        folder.mkdir()
    (used / "mine").touch()
    for folder in (old, used, new):
        with (
            pytest.raises(UserError, match="refused"),
            folder_lock(folder, doing="training", provisional=["record"]),
        ):
            for name in made:
                (folder / name).touch()
            raise UserError("refused")
    assert names(used) == sorted([".lock", "mine", *made])
    assert names(old) == ([".lock", *made] if "work" in made else [])
    assert new.exists() == new.parent.exists() == ("work" in made)


@pytest.mark.parametrize(("raised", "is_kept"), [(UserError("refused"), False), (KeyboardInterrupt(), True)])
def test_what_the_next_process_can_reuse_is_kept_after_an_interruption_alone(tmp_path, raised, is_kept):
    with (
        pytest.raises(type(raised)),
        folder_lock(tmp_path / "run", doing="training", provisional=["record"], reusable=["cache"]),
    ):
        (tmp_path / "run" / "record").touch()
        (tmp_path / "run" / "cache").mkdir()
        raise raised
    assert names(tmp_path) == (["run"] if is_kept else [])
    assert not is_kept or names(tmp_path / "run") == [".lock", "cache", "record"]


def test_a_folder_that_cannot_be_locked_is_named_with_its_key(tmp_path):
    (tmp_path / "file").touch()
    words = r"^Cannot write to run_dir .*file/run: .*/file is a file, not a folder\.$"
    with pytest.raises(UserError, match=words), folder_lock(tmp_path / "file" / "run", doing="training", key="run_dir"):
        pytest.fail("there is no folder to lock")


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    words = r"^Cannot lock .*run: No locks available\. Choose a folder on a file system that supports flock\.$"
    with pytest.raises(UserError, match=words), folder_lock(tmp_path / "run", doing="training"):
        pytest.fail("there are no locks")


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "pipe"])
def test_a_lock_that_is_something_else_is_left_alone(tmp_path, kind):
    precious, lock = tmp_path / "precious", tmp_path / "run" / ".lock"
    precious.write_text("text")
    lock.parent.mkdir()
    if kind == "folder":
        lock.mkdir()
    elif kind == "pipe":
        os.mkfifo(lock)
    else:
        lock.symlink_to(precious if kind == "link" else tmp_path / "new")
    words = r"^Expected a lock file at .*run/\.lock, found a link or another kind of file\. Remove it\.$"
    with pytest.raises(UserError, match=words), folder_lock(lock.parent, doing="training"):
        pytest.fail("it was opened")
    with pytest.raises(UserError, match=words):
        wait_for_unlock(lock.parent, seconds=1)
    assert precious.read_text() == "text" and not (tmp_path / "new").exists()


def test_a_file_from_elsewhere_is_read_only_if_it_is_small(tmp_path):
    (tmp_path / "small").write_bytes(b"abc")
    assert read_limited(tmp_path / "small", 3) == b"abc"
    with pytest.raises(UserError, match=r"small has 3 bytes, expected at most 2\.$"):
        read_limited(tmp_path / "small", 2)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"Expected a file at .*pipe, found a folder, device or pipe\.$"):
        read_limited(tmp_path / "pipe", 2)
    with pytest.raises(UserError, match=r"Cannot read .*nothing: No such file or directory\.$"):
        read_limited(tmp_path / "nothing", 2)


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"xabc")
    assert compute_file_digest(tmp_path / "file", 1) == compute_digest(b"abc")


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


def test_a_line_is_not_appended_to_the_target_of_a_link(tmp_path):
    (tmp_path / "precious").write_text("text\n")
    (tmp_path / "history.jsonl").symlink_to(tmp_path / "precious")
    with pytest.raises(
        UserError, match=r"^Cannot write .*history\.jsonl: expected a file, found a link\. Remove it\.$"
    ):
        append_line(tmp_path / "history.jsonl", "{}")
    assert (tmp_path / "precious").read_text() == "text\n"


def test_json_lines_with_an_infinite_number_or_deep_nesting_are_damaged(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text('{"n": 1}\n{"n": Infinity}\n{"n": ' + 100_000 * "[" + '\n{"n": 2}\n')
    records, damaged = read_json_lines(path, key="n")
    assert ([record["n"] for _, record in records], damaged) == ([1, 2], [2, 3])
