"""Translators that need no model, and folders that stand for one."""

import copy
from pathlib import Path

from nmt.config.file import dump_config, load_config
from nmt.config.schema import SearchSettings
from nmt.translators.hypothesis import Hypothesis, Translation
from nmt.translators.protocol import Translator

CONFIG = """
data:
  source_language: en
  target_language: de
  train: [{source: a.en, target: a.de}, {source: b.en, target: b.de}]
  dev: {source: a.en, target: a.de}
training: {max_epochs: 1}
"""


class Fake(Translator):
    """Translates into capitals, and remembers what it was given.

    Args:
        interrupt_at: text at which Ctrl-C arrives.
    """

    source_language, target_language, version, settings = "en", "de", 1, SearchSettings(split_sentences="never")
    max_n_best, max_tokens = 64, 1000

    def __init__(self, interrupt_at: str = ""):
        self.interrupt_at = interrupt_at
        self.read: list[str] = []
        self.tag: str | None = None
        self.tags_read: list[str | None] = []

    def with_settings(self, **changes):
        other = copy.copy(self)
        other.tag = changes["tag"]
        return other

    def count_tokens(self, texts):
        return [len(text) for text in texts]

    def translate_batch(self, texts, *, n_best=1, attention=False):
        self.read += texts
        self.tags_read += [self.tag] if self.tag not in self.tags_read else []
        if self.interrupt_at in texts:
            raise KeyboardInterrupt
        return [Translation(text, self.find(text, n_best)) for text in texts]

    def find(self, text, n_best):
        """Returns the hypotheses."""
        return [Hypothesis("" if text == "nothing" else text.upper(), -1.0, -1.0)] * n_best


class Rotated(Fake):
    """Has a hypothesis for each rotation of the words."""

    def find(self, text, n_best):
        """Returns the text itself last."""
        words = text.split()
        return [
            Hypothesis(" ".join(words[n % len(words) :] + words[: n % len(words)]), -n, -n)
            for n in range(1, n_best + 1)
        ]


def write_lines(path: Path, *lines: str) -> Path:
    """Writes a text file."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def write_model(path: Path) -> None:
    """Writes a folder that passes for a model with the configuration base.yaml until it is opened."""
    path.mkdir()
    for name in ("weights.h5", "source.model", "target.model"):
        (path / name).touch()
    (path / "config.yaml").write_text(dump_config(load_config("base.yaml")), encoding="utf-8")


def read_pairs(folder: Path, name: str) -> list[tuple[str, str]]:
    """Reads a pair of files that a command wrote."""
    sides = [(folder / f"{name}.{side}").read_text("utf-8") for side in ("source", "target")]
    assert all(not side or side.endswith("\n") for side in sides)
    return list(zip(*(side.split("\n")[:-1] for side in sides), strict=True))
