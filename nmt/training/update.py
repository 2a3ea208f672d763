"""What one update of a model is, whichever backend computes it: what it is told, what it says, what it remembers."""

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np

from nmt.backend import keras
from nmt.data.batching import Batch, derive_seed
from nmt.errors import UserError
from nmt.models.seq2seq import Seq2Seq
from nmt.weights import arrays_of, by_path


class Outcome(NamedTuple):
    """What one update did."""

    loss: float
    """Smoothed loss, nats a target piece."""
    nll: float
    """Negative log-likelihood, nats a target piece."""
    gradient_norm: float
    """Global norm before clipping, of the gradient of the mean loss."""
    num_pieces: int
    """Target pieces, EOS counted, padding not."""
    applied: bool
    """False where loss or gradient was not finite, and the weights were left alone."""


class Update:
    """The compiled update of a model; each backend has its own.

    However many devices and micro-batches share a batch, they give what one gives: sums, not means, are added up; the
    sum is divided by the global number of pieces, and only then clipped, and applied once.

    Args:
        model: what learns.
        optimizer: whose learning rate each call sets.
        seed: of dropout.
        accumulation: micro-batches that a batch is cut into.
        label_smoothing: mass spread evenly over the vocabulary.
        clip_norm: largest global norm of the gradient of the mean loss, or None.
        ema_decay: of the moving averages of the weights, or None for no averages.
    """

    num_devices = 1
    runs_ahead = False
    """Whether `start` returns before the update is done."""
    _compilers: Executor | None = None
    """Threads that compile beside what else is done."""

    def __init__(
        self,
        model: Seq2Seq,
        optimizer: keras.optimizers.Optimizer,
        *,
        seed: int,
        accumulation: int = 1,
        label_smoothing: float = 0.0,
        clip_norm: float | None = None,
        ema_decay: float | None = None,
    ):
        self.model = model
        self.optimizer = optimizer
        self.seed = seed
        self.accumulation = accumulation
        self.label_smoothing = label_smoothing
        self.clip_norm = clip_norm
        self.ema_decay = ema_decay
        self.scales_loss = model.dtype_policy.compute_dtype == "float16"
        self.seed_states = [v for v in model.variables if "seed_generator_state" in v.path]
        optimizer.build(model.trainable_variables)
        # Copies, here and in `restart_averages`: the memory of a weight and of its average is written to by JAX.
        starts = [np.asarray(v.value).copy() for v in self.averaged]
        self.averages = [keras.Variable(start, dtype=start.dtype.name, trainable=False) for start in starts]
        # Powers of two only: scaling by them loses nothing.
        self.loss_scale = keras.Variable(2.0**15 if self.scales_loss else 1.0, trainable=False, name="loss_scale")
        self.good_updates = keras.Variable(0, dtype="int32", trainable=False, name="good_updates")

    def __call__(self, batch: Batch, *, update: int, learning_rate: float) -> Outcome:
        """Learns from one batch, whose rows are a multiple of `rows_multiple`; `update` counts from 1.

        Raises:
            OutOfMemoryError: it can be tried again after `split`.
        """
        return self.start(batch, update=update, learning_rate=learning_rate)()

    def start(self, batch: Batch, *, update: int, learning_rate: float) -> Callable[[], Outcome]:
        """Begins to learn from one batch and returns what waits for the outcome; the next may begin before that.

        Raises:
            OutOfMemoryError: it can be tried again after `split`.
        """
        raise NotImplementedError

    def foresee(self, shapes: Iterable[tuple[int, int, int]]) -> None:
        """Tells of the shapes that batches will have, (rows, source length, target length), to prepare for them."""

    def close(self) -> None:
        """Lets what has not begun to be compiled be."""
        if self._compilers:
            self._compilers.shutdown(wait=False, cancel_futures=True)

    def split(self) -> None:
        """Cuts the batches to come into twice as many micro-batches: half the memory, and the same result."""
        raise NotImplementedError

    @property
    def rows_multiple(self) -> int:
        """What the number of rows of a batch must be a multiple of."""
        return self.num_devices * self.accumulation

    @property
    def state_variables(self) -> list:
        """What, besides weights and averages, the next update depends on."""
        return [*self.optimizer.variables, *([self.loss_scale, self.good_updates] if self.scales_loss else [])]

    @property
    def averaged(self) -> list:
        """The weights that have a moving average."""
        return self.model.trainable_variables if self.ema_decay else []

    def averaged_arrays(self) -> dict[str, np.ndarray]:
        """The moving averages by the paths of their weights; empty where there are none."""
        paths = by_path(self.averaged)
        return {path: np.asarray(average.value) for path, average in zip(paths, self.averages, strict=True)}

    def assign_averages(self, arrays: dict[str, np.ndarray], origin: str) -> None:
        """Sets the moving averages; raises UserError where they are not those of this model."""
        if arrays.keys() != {v.path for v in self.averaged}:
            raise UserError(f"{origin} does not hold the moving averages that training.ema_decay asks for.")
        for variable, average in zip(self.averaged, self.averages, strict=True):
            average.assign(arrays[variable.path])

    def restart_averages(self) -> None:
        """Sets the moving averages to the weights as they are."""
        copies = {path: array.copy() for path, array in arrays_of(self.averaged).items()}
        self.assign_averages(copies, "The model")


def dropout_seeds(seed: int, update: int, shape: tuple[int, ...]) -> np.ndarray:
    """Dropout as a pure function of the seed, the update and the place: seeds int32 [*shape, 2]."""
    seeds = [(derive_seed(seed, update, *place), update) for place in np.ndindex(shape)]
    return np.array(seeds, dtype=np.int32).reshape((*shape, 2))
