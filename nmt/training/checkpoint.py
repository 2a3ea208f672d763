"""Checkpoints of a run: all that is needed to go on as if nothing had happened.

Dropout, the data's order and subword sampling are functions of the seed and of the numbers kept here, so that no random
state needs saving.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nmt.errors import UserError
from nmt.weights import load_arrays, save_arrays

PARTS = ("weights", "averages", "optimizer")


@dataclass(frozen=True)
class Progress:
    """Where a run stands."""

    update: int = 0
    """Updates done."""
    epoch: int = 0
    batch: int = 0
    """The next batch of the epoch."""
    best_score: float | None = None
    """BLEU, or the negative loss, of the best validation."""
    validations_since_best: int = 0
    validated: int = 0
    """Updates done at the last validation."""
    rollbacks: int = 0
    """How often the run went back to a checkpoint, each time to go on with half the learning rate."""

    def count_batch(self, epoch: int, index: int) -> "Progress":
        """Where the run stands when batch `index` of an epoch has been learned."""
        return replace(self, update=self.update + 1, epoch=epoch, batch=index + 1)

    def count_validation(self, score: float, is_best: bool) -> "Progress":
        """Where the run stands when a validation has given a score."""
        if is_best:
            return replace(self, validated=self.update, best_score=score, validations_since_best=0)
        return replace(self, validated=self.update, validations_since_best=self.validations_since_best + 1)


@dataclass(frozen=True)
class Checkpoint:
    """One moment of a run."""

    progress: Progress
    arrays: dict[str, dict[str, np.ndarray]]
    """By part: weights, averages (of the weights; may be empty) and optimizer, each by variable path."""
    facts: dict[str, Any]
    """What must not differ when the run goes on: fingerprints of text and tokenizers."""


class CheckpointFolder:
    """The last few checkpoints of a run, one file each.

    Args:
        path: the folder.
        keep: how many are kept.
    """

    def __init__(self, path: Path, keep: int):
        self.path = path
        self.keep = keep

    def save(self, checkpoint: Checkpoint) -> Path:
        """Writes a checkpoint, whole or not at all, and then removes those too many."""
        path = self.path / f"update-{checkpoint.progress.update:09d}.h5"
        flat = {f"{part}/{name}": a for part, arrays in checkpoint.arrays.items() for name, a in arrays.items()}
        save_arrays(path, flat, {"progress": asdict(checkpoint.progress), **checkpoint.facts})
        for old in self.list_files()[: -self.keep]:
            old.unlink()
        return path

    def list_files(self) -> list[Path]:
        """The checkpoints there are, oldest first."""
        return sorted(self.path.glob("update-*.h5"))

    def load_latest(self, warn: Any = print) -> Checkpoint | None:
        """Reads the newest checkpoint that is whole; damaged ones are said and passed over. None where there is none.

        Raises:
            UserError: there are checkpoints, but none is whole.
        """
        problem: UserError | None = None
        for path in reversed(self.list_files()):
            try:
                return read_checkpoint(path)
            except UserError as error:
                warn(f"{error} Trying the checkpoint before it.")
                problem = error
        if problem is not None:
            raise UserError(f"No checkpoint in {self.path} is whole. Start a new run in another run_dir.") from problem
        return None


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads one checkpoint. Raises UserError where it is damaged."""
    flat, facts = load_arrays(path)
    try:
        progress = Progress(**facts.pop("progress"))
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is no checkpoint of a run.") from error
    arrays: dict[str, dict[str, np.ndarray]] = {part: {} for part in PARTS}
    for name, array in flat.items():
        part, _, rest = name.partition("/")
        arrays[part][rest] = array
    return Checkpoint(progress, arrays, facts)


def average_checkpoints(paths: list[Path]) -> dict[str, np.ndarray]:
    """The mean of the weights (of their moving averages, where there are any) of several checkpoints."""
    checkpoints = [read_checkpoint(path) for path in paths]
    weights = [checkpoint.arrays["averages"] or checkpoint.arrays["weights"] for checkpoint in checkpoints]
    return {name: np.mean([w[name] for w in weights], axis=0, dtype=weights[0][name].dtype) for name in weights[0]}
