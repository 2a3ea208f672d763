"""`nmt inspect`, from arguments to files."""

import importlib.util
import re
import sys

import pytest

from nmt.cli.main import main

TEXT = "a red bike."


@pytest.fixture(scope="module")
def model(model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspecting") / "model"
    model_folder.save(folder)
    return folder


@pytest.fixture
def inspect(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["nmt", "inspect", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    return run


def test_a_page_and_pictures_are_written(inspect, model, tmp_path):
    pytest.importorskip("matplotlib")
    page, folder = tmp_path / "page.html", tmp_path / "pictures"
    code, out, err = inspect(model, TEXT, "--beam-size", 2, "decoding.max_length=3", "--html", page, "--png", folder)
    assert (code, err) == (0, "")
    names = {"attention", "gradients", "encoder-forward", "encoder-backward", "decoder-layer-0", "decoder-layer-1"}
    assert {path.stem for path in folder.iterdir()} == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.iterdir())
    assert sorted(out.split()) == sorted(map(str, folder.iterdir()))
    assert TEXT in page.read_text(encoding="utf-8")


def test_without_a_page_the_text_is_printed(inspect, model):
    code, out, _ = inspect(model, TEXT, "decoding.max_length=4", "--reference", "ein Hund sieht.")
    assert code == 0
    assert re.search(r"^Reference    ein Hund sieht\.$", out, re.MULTILINE)
    assert "attends to" in out


def test_a_mistake_writes_no_page(inspect, model, tmp_path):
    code, _, err = inspect(model, " ", "--html", tmp_path / "page.html")
    assert (code, err) == (2, "Expected a sentence to inspect, found an empty text.\n")
    assert list(tmp_path.iterdir()) == []


def test_pictures_that_cannot_be_written_leave_no_page(inspect, model, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "file").touch()
    code, _, err = inspect(model, TEXT, "--html", tmp_path / "new" / "page.html", "--png", tmp_path / "file")
    assert code == 2 and err.endswith("is a file, not a folder.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_pictures_need_an_extra(inspect, monkeypatch, model, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, _, err = inspect(model, TEXT, "--png", tmp_path)
    assert code == 2
    assert err == 'nmt inspect --png needs matplotlib. Install with: pip install "nmt[inspect]"\n'
