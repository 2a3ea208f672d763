from pathlib import Path

import pytest
from synthesis_fakes import CONFIG, Fake, write_lines

from nmt.synthesis import pairs
from nmt.translators import opening


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """The working directory, with an empty export and two training texts. Shards have three lines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pairs, "SHARD_LINES", 3)
    (tmp_path / "export").mkdir()
    (tmp_path / "export/saved_model.pb").touch()
    write_lines(tmp_path / "base.yaml", CONFIG)
    write_lines(tmp_path / "a.en", "one", " ", "two", "three", "nothing", "five", "six")
    write_lines(tmp_path / "a.de", "eins", "zwei", "", "drei", "nichts", "fünf", "sechs")
    write_lines(tmp_path / "b.en", "a b c d")
    write_lines(tmp_path / "b.de", "c d a b")
    return tmp_path


@pytest.fixture
def use(monkeypatch):
    """Puts a translator in place of the one that a folder holds."""

    def put(translator: Fake) -> Fake:
        monkeypatch.setattr(opening, "open_translator", lambda *args, **settings: translator)
        return translator

    put(Fake())
    return put
