"""Checkpoints of a run: everything that is needed to resume it as if it had never stopped.

Dropout, the order of the data and subword sampling are functions of the seed and of the numbers in `Progress`, so no
random state is stored.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from nmt.data.preparation import Log
from nmt.errors import FormatError, UserError
from nmt.training.run_folder import RunFolder, Writer
from nmt.training.update import Update
from nmt.training.workers import Workers
from nmt.weights import average_arrays, load_arrays, save_arrays

PARTS = ("weights", "averages", "optimizer")


@dataclass(frozen=True)
class Progress:
    """How far a run has come. Stored by these names."""

    update: int = 0
    """Number of updates done."""
    epoch: int = 0
    batch: int = 0
    """The next batch of the epoch."""
    best_score: float | None = None
    """Score of the best model that was written: BLEU, chrF or the negative loss."""
    best_loss: float | None = None
    """Its loss, which decides between equal scores; None in runs of versions that did not record it."""
    validations_since_best: int = 0
    validated: int = 0
    """Number of updates done at the last validation."""
    averaged: int = 0
    """Number of updates done when the average of the last checkpoints was scored."""
    rollbacks: int = 0
    """How often the run returned to a checkpoint. Each time halves the learning rate."""
    mean_loss: float | None = None
    """Moving average of the training loss; None before the first update."""
    lowest_loss: float | None = None
    """Lowest moving average so far; None until it covers enough updates."""
    plateau: int = 0
    """Validations since the best one, or since the last decay if that was later."""
    decays: int = 0
    """How often a plateau lowered the learning rate."""
    seconds: float = 0.0
    """Time of the budget that is used (`training.budget_minutes`)."""
    end_seconds: float = 0.0
    """Time of the budget that is set aside for the last validation and checkpoint."""

    def count_batch(self, epoch: int, index: int) -> "Progress":
        """Returns the progress after the update of batch `index` of an epoch."""
        return replace(self, update=self.update + 1, epoch=epoch, batch=index + 1)

    def count_loss(self, number: int, loss: float, *, window: int) -> "Progress":
        """Returns the progress once the loss of update `number` is known, averaged over about `window` updates."""
        before = loss if self.mean_loss is None else self.mean_loss
        mean = before + (loss - before) / min(number, window)
        if number < window:
            return replace(self, mean_loss=mean)
        return replace(
            self, mean_loss=mean, lowest_loss=min(mean, mean if self.lowest_loss is None else self.lowest_loss)
        )

    def count_validation(self, is_best: bool) -> "Progress":
        """Returns the progress after a validation."""
        since_best, plateau = (0, 0) if is_best else (self.validations_since_best + 1, self.plateau + 1)
        return replace(self, validated=self.update, validations_since_best=since_best, plateau=plateau)

    def count_decay(self) -> "Progress":
        """Returns the progress after a plateau has lowered the learning rate."""
        return replace(self, decays=self.decays + 1, plateau=0)


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after an update."""

    progress: Progress
    arrays: Mapping[str, Mapping[str, np.ndarray]]
    """By part: weights, averages (of the weights; may be empty) and optimizer; each by variable path."""
    facts: Mapping[str, Any]
    """Fingerprints of texts and tokenizers. All but that of the dev text must be the same when the run is resumed."""


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
        """Writes a checkpoint atomically, then removes the oldest ones."""
        path = self.get_path(checkpoint.progress.update)
        flat = {f"{part}/{name}": a for part, arrays in checkpoint.arrays.items() for name, a in arrays.items()}
        save_arrays(path, flat, {"progress": asdict(checkpoint.progress), **checkpoint.facts})
        for old in self.list_files()[: -self.keep]:
            old.unlink()
        return path

    def get_path(self, update: int) -> Path:
        """Returns the file of the checkpoint after an update, whether it exists or not."""
        return self.path / f"update-{update:09d}.h5"

    def list_files(self) -> list[Path]:
        """Returns the files of all checkpoints, oldest first."""
        return sorted(self.path.glob("update-*.h5"))

    def load_latest(self, log: Log = print) -> Checkpoint | None:
        """Reads the newest intact checkpoint. None if there is no checkpoint.

        Newer ones that are damaged are logged and renamed, so that they no longer count among the last checkpoints.

        Raises:
            UserError: all checkpoints are damaged, or another version of nmt wrote the newest one.
        """
        problem: UserError | None = None
        damaged = []
        for path in reversed(self.list_files()):
            try:
                checkpoint = read_checkpoint(path)
            except FormatError:
                raise  # an older checkpoint would lose updates that another version of nmt can resume
            except UserError as error:
                log(f"{error} Trying the previous checkpoint.")
                problem = error
                damaged.append(path)
            else:
                for one in damaged:
                    _set_aside(one, log)
                return checkpoint
        if problem is not None:
            raise UserError(
                f"All checkpoints in {self.path} are damaged. Start a new run in another run_dir."
            ) from problem
        return None


def _set_aside(path: Path, log: Log) -> None:
    """Renames a damaged file."""
    kept = path.with_name(f"{path.name}.damaged")
    with suppress(FileNotFoundError):  # another worker was first
        path.rename(kept)
    log(f"The damaged checkpoint is kept as {kept}.")


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads one checkpoint.

    Raises:
        FormatError: another version of nmt wrote it.
        UserError: the file is damaged, or is not a checkpoint.
    """
    flat, facts = load_arrays(path)
    progress = facts.pop("progress", None)
    if not isinstance(progress, dict):
        raise UserError(f"{path} is not a checkpoint of a run.")
    _check_names(path, "progress", progress, [field.name for field in fields(Progress)])
    _check_names(path, "part", {name.partition("/")[0] for name in flat}, PARTS)
    arrays: dict[str, dict[str, np.ndarray]] = {part: {} for part in PARTS}
    for name, array in flat.items():
        part, _, rest = name.partition("/")
        arrays[part][rest] = array
    return Checkpoint(Progress(**progress), arrays, facts)


def _check_names(path: Path, what: str, found: Iterable[str], known: Iterable[str]) -> None:
    """Raises FormatError if a checkpoint holds something that this version does not know."""
    for name in found:
        if name not in known:
            raise FormatError(
                f"{path} has the {what} '{name}', which this version of nmt does not know; expected "
                f"{', '.join(known)}. Resume the run with the version that wrote it."
            )


def average_checkpoints(paths: list[Path]) -> dict[str, np.ndarray]:
    """Returns the mean of the weights of several checkpoints, or of their moving averages if they have any."""
    return average_arrays(map(_read_averaged, paths))


def _read_averaged(path: Path) -> dict[str, np.ndarray]:
    arrays = read_checkpoint(path).arrays
    return {**arrays["weights"], **arrays["averages"]}  # frozen weights have no moving average


class Checkpointer:
    """Saves and restores the state of a run, in step with the other workers.

    Args:
        folder: the checkpoints of the run, which all workers see.
        update: holds the state.
        facts: fingerprints of text and tokenizers, by their names in messages.
        workers: the processes that train together. The chief writes.
        writer: writes the files.
    """

    def __init__(
        self, folder: CheckpointFolder, update: Update, facts: Mapping[str, str], workers: Workers, writer: Writer
    ):
        self.folder, self.update, self.facts, self.workers, self.writer = folder, update, facts, workers, writer

    def save(self, progress: Progress) -> bool:
        """Makes the chief write a checkpoint, and returns on all workers whether it was written."""
        is_saved = False
        if self.workers.is_chief:
            checkpoint = Checkpoint(progress, self.update.get_state(), self.facts)
            is_saved = self.writer.try_write(
                lambda: self.folder.save(checkpoint), "the checkpoint", update=progress.update
            )
        [saved] = self.workers.all_gather(is_saved)
        return bool(saved[0])

    def load_latest(self, log: Log) -> Checkpoint | None:
        """Reads the newest intact checkpoint, or returns None if there are none.

        Raises:
            UserError: it belongs to another text or tokenizer, or workers see different checkpoints.
        """
        checkpoint = self.workers.chief_first(lambda: self.folder.load_latest(log))
        self.workers.check_equal("checkpoint", f"{checkpoint.progress.update if checkpoint else 0:x}")
        if checkpoint:
            for name, found in self.facts.items():
                if checkpoint.facts.get(name) != found:
                    run = RunFolder(self.folder.path.parent)
                    raise UserError(
                        f"The {name} is not the one that the run in {run.path} was started with. Restore it, or "
                        f"{run.remedy}"
                    )
        return checkpoint

    def assign(self, checkpoint: Checkpoint) -> None:
        """Sets weights, averages and optimizer to those of a checkpoint."""
        self.update.assign_state(checkpoint.arrays, f"The checkpoint of update {checkpoint.progress.update:,}")

    def list_last(self, count: int) -> list[Path]:
        """Returns the files of the last few checkpoints, oldest first, without the weights that training began with."""
        return [path for path in self.folder.list_files() if path != self.folder.get_path(0)][-count:]
