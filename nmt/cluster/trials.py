"""The trials of a search: ordinary run folders, each with a record of how the trial ended."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nmt.cluster.space import Space, draw_values
from nmt.config.file import replace_values
from nmt.config.reference import as_words
from nmt.config.schema import Config
from nmt.errors import UserError
from nmt.files import atomic_write, read_json_lines

FINISHED, STOPPED, FAILED, UNFINISHED = "finished", "stopped early", "failed", "unfinished"
LOWEST = -1e9  # score of weights whose loss is not finite, since the scheduler cannot take percentiles of infinity


@dataclass(frozen=True)
class Validated:
    """A validation, as recorded in history.jsonl."""

    update: int
    bleu: float
    perplexity: float
    loss: float
    chrf: float | None = None
    """Recorded only where `training.best_by` is chrf."""

    def score(self, best_by: str) -> float:
        """Returns the score that is highest for the best trial."""
        if best_by == "chrf":
            return LOWEST if self.chrf is None else self.chrf
        return self.bleu if best_by == "bleu" else -self.loss

    def rank(self, best_by: str) -> tuple[float, float]:
        """Returns the sort key that is highest for the best trial: the score, and the negative loss for ties."""
        return self.score(best_by), -self.loss


@dataclass(frozen=True)
class Trial:
    """One run of a search.

    Args:
        number: number of the trial, counted from 1.
        values: the drawn values by key.
        config: configuration with the trial's own run_dir.
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
        """Name in messages and tables."""
        return self.folder.name

    def read_end(self) -> tuple[str, str]:
        """Returns how the trial ended and why it failed; unfinished if it is to be resumed."""
        path = self.folder / "trial.json"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            return record["ended"], record["why"]
        except (FileNotFoundError, NotADirectoryError):
            return UNFINISHED, ""
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged. Delete it to resume the trial.") from error

    def record_end(self, ended: str, why: str = "") -> None:
        """Records how the trial ended."""
        with atomic_write(self.folder / "trial.json") as aside:
            aside.write_text(json.dumps({"ended": ended, "why": why, "values": self.values}), encoding="utf-8")

    def read_validations(self) -> list[Validated]:
        """Returns the validations in its history, in the order of updates."""
        return read_validations(self.folder / "history.jsonl")

    def find_best(self) -> Validated | None:
        """Returns the validation of its best model, which is the first of equal ones, as in training."""
        by = self.config.training.best_by
        return max(self.read_validations(), key=lambda one: one.rank(by), default=None)


def plan_trials(config: Config, space: Space, folder: Path, *, name: str, trials: int) -> list[Trial]:
    """Draws the trials of a search, and checks the configuration of each.

    Args:
        config: the configuration that all trials share; its seed is the seed of the draws.
        space: the values that trials choose from.
        folder: folder of the search.
        name: name of the space's file, for messages.
        trials: number of trials; fewer are returned if the space has fewer.

    Raises:
        UserError: some values cannot be combined, or a key of the space has no effect with this configuration.
    """
    _check_effects(config, space, name)
    planned = []
    # All trials share one index of the text.
    common = {"data.cache": str(config.data.cache or folder / "cache")}
    for number, values in enumerate(draw_values(space, trials, seed=config.seed), start=1):
        run_dir = folder / f"trial-{number:03d}"
        chosen = ", ".join(f"{key}={as_words(value)}" for key, value in values.items())
        label = f"{name}: trial {number} ({chosen})"
        planned.append(
            Trial(number, values, replace_values(config, {**common, **values, "run_dir": str(run_dir)}, label))
        )
    return planned


def _check_effects(config: Config, space: Space, name: str) -> None:
    """Raises UserError if the rest of the configuration keeps a key of the space from changing a score."""
    training, tokenizer = config.training, config.tokenizer
    for key in space:
        if key.startswith("decoding.") and training.best_by == "loss":
            reason = "training.best_by is loss, for which nothing is translated"
        elif key.startswith("tokenizer.") and tokenizer.source_model and key != "tokenizer.sampling_alpha":
            reason = "tokenizer.source_model is set, so that no tokenizer is trained"
        elif key == "training.checkpoint_every" and "training.average_last" not in space and training.average_last == 1:
            reason = "it matters only to the average of checkpoints, and training.average_last is 1"
        else:
            continue
        raise UserError(f"{name}: {key}: cannot be searched, because {reason}.")


def read_validations(history: Path) -> list[Validated]:
    """Reads the records of a history.jsonl that have scores, whatever their kind.

    The average of the last checkpoints counts too, and a best model whose updates a rollback has undone. Damaged lines
    are skipped; there are no validations if the file does not exist yet.
    """
    records, _ = read_json_lines(history, key="update")
    return [_make_validated(record) for _, record in records if record.keys() >= {"loss", "perplexity", "bleu"}]


def _make_validated(record: dict[str, Any]) -> Validated:
    # JSON cannot represent infinity and NaN, which are recorded as null. Such a loss is worse than any other.
    loss = record["loss"] if record["loss"] is not None else -LOWEST
    perplexity = record["perplexity"] if record["perplexity"] is not None else math.inf
    bleu = record["bleu"] if record["bleu"] is not None else LOWEST
    return Validated(record["update"], bleu, perplexity, loss, record.get("chrf"))
