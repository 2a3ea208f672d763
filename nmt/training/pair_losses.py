"""The lowest loss that each training pair has had in any epoch, by which pairs that are never learned are found.

The update computes the loss of every pair anyway. Like Swayamdipta et al. (2020, "Dataset Cartography"), this looks at
a pair over all epochs: the loss in a single one depends on dropout and on how far training had come.
"""

from pathlib import Path
from typing import Any

import numpy as np

from nmt.data.batching import Batch
from nmt.data.joining import NO_PAIR
from nmt.data.preparation import Log
from nmt.errors import UserError
from nmt.files import atomic_write
from nmt.training.update import Outcome

MAX_PAIRS = 20_000_000
"""Losses that are kept at most, 40 MB; of a larger corpus, those of every nth pair."""


class PairLosses:
    """Collects the losses of pairs while a run trains.

    A minimum has no need of a copy in each checkpoint, so the file may be ahead of it: updates that a resumed run
    repeats have the same losses again. Those that a rollback undoes still count: the model had these losses once.

    Args:
        path: the file (`RunFolder.pair_losses`).
        num_pairs: pairs of the corpus.
        every: updates whose losses stay on the device until they are read together.
    """

    def __init__(self, path: Path, num_pairs: int, *, every: int):
        self.path, self.num_pairs, self.every = path, num_pairs, every
        self.stride = compute_stride(num_pairs)
        self.lowest = np.full(_count_kept(num_pairs), np.inf, np.float16)
        """In nats per target token; infinite for pairs that were not read yet."""
        self._waiting: list[tuple[np.ndarray, np.ndarray, Any]] = []

    def restore(self, log: Log) -> None:
        """Reads the file of a run that is resumed. Without an intact one, all pairs count as not read yet."""
        try:
            self.lowest = read_pair_losses(self.path, self.num_pairs)
        except UserError as error:
            log(f"{error} The losses of training pairs are kept from here on.")

    def record(self, batch: Batch, outcome: Outcome) -> None:
        """Takes the losses of an update, unless it was not applied."""
        if batch.pairs is None or outcome.pair_losses is None or not outcome.is_applied:
            return
        num_tokens = np.count_nonzero(batch.target, axis=1) * batch.weights
        self._waiting.append((batch.pairs, num_tokens[: len(batch.pairs)], outcome.pair_losses))
        if len(self._waiting) == self.every:
            self._read_waiting()

    def save(self) -> None:
        """Writes the file.

        Raises:
            UserError: the folder cannot be written to.
        """
        self._read_waiting()
        with atomic_write(self.path) as aside, aside.open("wb") as file:
            np.save(file, self.lowest)

    def _read_waiting(self) -> None:
        for pairs, num_tokens, sums in self._waiting:
            losses = np.asarray(sums)[: len(pairs)]
            for column in pairs.T:  # the pairs of a joined example share its loss
                is_kept = (column != NO_PAIR) & (column % self.stride == 0) & (num_tokens > 0)
                values = (losses[is_kept] / num_tokens[is_kept]).astype(np.float16)
                np.minimum.at(self.lowest, column[is_kept] // self.stride, values)
        self._waiting.clear()


def compute_stride(num_pairs: int) -> int:
    """Returns n, of a corpus of which the losses of every nth pair are kept."""
    return max(1, -(-num_pairs // MAX_PAIRS))


def read_pair_losses(path: Path, num_pairs: int) -> np.ndarray:
    """Reads what a run has kept: float16, the lowest loss of every `compute_stride(num_pairs)`th pair.

    Raises:
        UserError: the file is missing or damaged, or belongs to another corpus.
    """
    try:
        # Unlike np.load, this takes no other kind of file and allocates nothing that the file does not hold.
        lowest = np.array(np.lib.format.open_memmap(path, mode="r"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if lowest.dtype != np.float16 or lowest.shape != (_count_kept(num_pairs),):
        raise UserError(f"{path} does not belong to the training text, which has {num_pairs:,} pairs.")
    return lowest


def _count_kept(num_pairs: int) -> int:
    return -(-num_pairs // compute_stride(num_pairs))
