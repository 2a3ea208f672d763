"""The trials of a search: ordinary run folders, and beside each what became of it."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nmt.cluster.space import Space, draw
from nmt.config.file import replace_values
from nmt.config.reference import as_words
from nmt.config.schema import Config
from nmt.files import atomic_write

FINISHED, STOPPED, FAILED, UNFINISHED = "finished", "stopped early", "failed", "unfinished"
LOWEST = -1e9  # the score of weights whose loss is not finite; the scheduler's percentiles take no infinity


@dataclass(frozen=True)
class Validated:
    """A validation, as history.jsonl has it."""

    update: int
    bleu: float
    perplexity: float
    loss: float

    def score(self, best_by: str) -> float:
        """What the best trial has most of."""
        return self.bleu if best_by == "bleu" else -self.loss


@dataclass(frozen=True)
class Trial:
    """One run of a search.

    Args:
        number: counted from 1.
        values: what was drawn, by key.
        config: with its own run_dir.
    """

    number: int
    values: dict[str, Any]
    config: Config

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.config.run_dir or "")

    @property
    def name(self) -> str:
        """As in messages and tables."""
        return self.folder.name

    def ended(self) -> tuple[str, str]:
        """How it ended, and why it failed; unfinished where it is to be gone on with."""
        try:
            record = json.loads((self.folder / "trial.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return UNFINISHED, ""
        return record["ended"], record["why"]

    def end(self, ended: str, why: str = "") -> None:
        """Writes down how it ended."""
        with atomic_write(self.folder / "trial.json") as aside:
            aside.write_text(json.dumps({"ended": ended, "why": why, "values": self.values}), encoding="utf-8")

    def validations(self) -> list[Validated]:
        """What its history has, in the order of updates."""
        return read_validations(self.folder / "history.jsonl")

    def best(self) -> Validated | None:
        """The validation whose weights are its best model; the first of equals, as in training."""
        by = self.config.training.best_by
        return max(self.validations(), key=lambda one: one.score(by), default=None)


def plan(config: Config, space: Space, folder: Path, *, name: str, trials: int) -> list[Trial]:
    """Draws the trials of a search, and checks the configuration of each.

    Args:
        config: what all have in common; its seed is that of the draws.
        space: what they differ in.
        folder: of the search.
        name: the space's file, for messages.
        trials: how many; there are fewer where the space has no more.

    Raises:
        UserError: some values do not go together.
    """
    planned = []
    # The text is indexed once for all of them.
    common = {"data.cache": str(config.data.cache or folder / "cache")}
    for number, values in enumerate(draw(space, trials, seed=config.seed), start=1):
        run_dir = folder / f"trial-{number:03d}"
        chosen = ", ".join(f"{key}={as_words(value)}" for key, value in values.items())
        label = f"{name}: trial {number} ({chosen})"
        planned.append(
            Trial(number, values, replace_values(config, {**common, **values, "run_dir": str(run_dir)}, label))
        )
    return planned


def read_validations(history: Path) -> list[Validated]:
    """Reads the validations of a history.jsonl; none where there is no such file yet."""
    try:
        lines = history.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [_validated(record) for line in lines if (record := _record(line)).get("kind") == "validation"]


def _record(line: str) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError:  # a torn last line of a run that was killed
        return {}


def _validated(record: dict[str, Any]) -> Validated:
    # JSON has no word for what is not finite; such a loss is worse than any other.
    loss = record["loss"] if record["loss"] is not None else -LOWEST
    perplexity = record["perplexity"] if record["perplexity"] is not None else math.inf
    return Validated(record["update"], record["bleu"] if record["bleu"] is not None else LOWEST, perplexity, loss)
