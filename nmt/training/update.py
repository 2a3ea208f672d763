"""One optimizer update of a model, as far as it is the same on both backends.

The functions on gradients use Keras operations, so that TensorFlow traces them and JAX compiles them.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from nmt.backend import keras, ops
from nmt.config.schema import PartName
from nmt.data.batching import Batch, derive_seed
from nmt.errors import UserError
from nmt.models.seq2seq import Seq2Seq
from nmt.training.objective import Objective, Sums
from nmt.weights import assign_arrays, get_arrays, index_by_path

GOOD_UPDATES = 2000
"""Finite updates in a row after which the loss scale doubles."""

PART_PATTERNS: Mapping[PartName, str] = {
    "source_embedding": r"source_embedding/",
    "target_embedding": r"target_embedding/",
    "encoder": r"encoder/",
    "attention": r"decoder/attention_\d+/",
    "decoder": r"decoder/(?!attention_\d)",
    "output": r"projection/",
}
"""What the paths of the weights of each part begin with (`training.freeze`)."""


@dataclass(frozen=True)
class Outcome:
    """The result of one update."""

    metrics: Mapping[str, float]
    """Means over the target tokens, by the names under which they are logged: loss, what else the objective returns
    (nll: the negative log-likelihood, in nats), and gradient_norm: the global norm of the gradient of the mean loss,
    before clipping."""
    num_tokens: float
    """Target tokens, with EOS and without padding, each by the weight of its pair."""
    is_applied: bool
    """False where loss or gradient was not finite, and the weights were left alone."""
    pair_losses: Any = None
    """float [B], the negative log-likelihood of each row's target in nats, times the weight of the pair; None if the
    objective does not return it. It may still be on the device, so that nothing waits for it before it is read."""

    @property
    def loss(self) -> float:
        """The loss that was minimised, in nats per target token."""
        return self.metrics["loss"]


class Update:
    """The compiled update of a model; each backend has its own.

    Any number of devices and micro-batches gives the result of one: sums rather than means are added up, the sum is
    divided by the global number of tokens, and only then is it clipped and applied, once.

    Args:
        model: the model to train.
        optimizer: each call sets its learning rate.
        objective: returns the sums to minimise and to log.
        seed: seed of dropout.
        accumulation_steps: number of micro-batches that a batch is cut into.
        clip_norm: largest global norm of the gradient of the mean loss, or None.
        ema_decay: decay of the moving averages of the weights, or None for no averages.
        freeze: parts whose weights stay as they are, without gradient, optimizer state and moving average.
    """

    num_devices = 1
    runs_ahead = False
    """Whether `start` returns before the update is done."""
    _compilers: Executor | None = None
    """Threads that compile in the background."""

    def __init__(
        self,
        model: Seq2Seq,
        optimizer: keras.optimizers.Optimizer,
        *,
        objective: Objective,
        seed: int,
        accumulation_steps: int = 1,
        clip_norm: float | None = None,
        ema_decay: float | None = None,
        freeze: Collection[PartName] = (),
    ):
        self.model = model
        self.optimizer = optimizer
        self.objective = objective
        self.seed = seed
        self.accumulation_steps = accumulation_steps
        self.clip_norm = clip_norm
        self.ema_decay = ema_decay
        self.scales_loss = model.dtype_policy.compute_dtype == "float16"
        self.seed_states = [v for v in model.variables if "seed_generator_state" in v.path]
        frozen = re.compile("|".join(PART_PATTERNS[part] for part in freeze) or "(?!)")
        self.trained = [v for v in model.trainable_variables if not frozen.match(v.path)]
        self.frozen = [v for v in model.trainable_variables if frozen.match(v.path)]
        optimizer.build(self.trained)
        # Copies, here and in `restart_averages`: JAX writes to the memory of a weight and to that of its average.
        starts = [np.asarray(v.value).copy() for v in self.averaged]
        self.averages = [keras.Variable(start, dtype=start.dtype.name, trainable=False) for start in starts]
        # Powers of two only, by which scaling is exact.
        self.loss_scale = keras.Variable(2.0**15 if self.scales_loss else 1.0, trainable=False, name="loss_scale")
        self.good_updates = keras.Variable(0, dtype="int32", trainable=False, name="good_updates")

    def __call__(self, batch: Batch, *, update: int, learning_rate: float) -> Outcome:
        """Trains on one batch and returns the outcome.

        Args:
            batch: its number of rows must be a multiple of `rows_multiple`.
            update: counted from 1.
            learning_rate: of this update.

        Raises:
            OutOfMemoryError: it can be tried again after `halve_micro_batches`.
        """
        return self.start(batch, update=update, learning_rate=learning_rate)()

    def start(self, batch: Batch, *, update: int, learning_rate: float) -> Callable[[], Outcome]:
        """Starts to train on one batch, and returns a function that waits for the outcome.

        The next update may be started before that. The arguments are those of a call.

        Raises:
            OutOfMemoryError: it can be tried again after `halve_micro_batches`.
        """
        raise NotImplementedError

    def precompile(self, shapes: Iterable[tuple[int, int, int]]) -> None:
        """Prepares for the shapes that batches will have: (rows, source length, target length)."""

    def close(self) -> None:
        """Cancels compilations that have not started."""
        if self._compilers:
            self._compilers.shutdown(wait=False, cancel_futures=True)

    def halve_micro_batches(self) -> None:
        """Cuts further batches into twice as many micro-batches, for half the memory and the same result."""
        raise NotImplementedError

    @property
    def rows_multiple(self) -> int:
        """The number of rows of a batch must be a multiple of this."""
        return self.num_devices * self.accumulation_steps

    @property
    def state_variables(self) -> list:
        """The variables besides weights and averages that the next update depends on."""
        return [*self.optimizer.variables, *([self.loss_scale, self.good_updates] if self.scales_loss else [])]

    @property
    def averaged(self) -> list:
        """The weights that have a moving average."""
        return self.trained if self.ema_decay else []

    def get_state(self) -> dict[str, dict[str, np.ndarray]]:
        """Returns all that a checkpoint stores: weights, averages and optimizer, each by variable path."""
        return {
            "weights": get_arrays(self.model.trainable_variables),
            "averages": self.get_averages(),
            "optimizer": get_arrays(self.state_variables),
        }

    def assign_state(self, arrays: Mapping[str, Mapping[str, np.ndarray]], origin: str) -> None:
        """Sets what `get_state` returns.

        Args:
            arrays: by part and variable path.
            origin: where they are from, for messages.

        Raises:
            UserError: they belong to another architecture, or lack moving averages.
        """
        assign_arrays(self.model.trainable_variables, arrays["weights"], origin)
        self.assign_averages(arrays["averages"], origin)
        assign_arrays(self.state_variables, arrays["optimizer"], origin)

    def get_evaluated_weights(self) -> dict[str, np.ndarray]:
        """Returns the weights to validate and to keep: the moving averages if there are any, else the weights."""
        return {**get_arrays(self.frozen if self.averages else self.model.trainable_variables), **self.get_averages()}

    def get_averages(self) -> dict[str, np.ndarray]:
        """Returns the moving averages by the paths of their weights; empty if there are none."""
        paths = index_by_path(self.averaged)
        return {path: np.asarray(average.value) for path, average in zip(paths, self.averages, strict=True)}

    def assign_averages(self, arrays: Mapping[str, np.ndarray], origin: str) -> None:
        """Sets the moving averages.

        Raises:
            UserError: they are not those of this model.
        """
        if arrays.keys() != {v.path for v in self.averaged}:
            raise UserError(f"{origin} does not have the moving averages that training.ema_decay requires.")
        for variable, average in zip(self.averaged, self.averages, strict=True):
            average.assign(arrays[variable.path])

    def restart(self, weights: Mapping[str, np.ndarray]) -> None:
        """Sets the weights by path, as if training had never left them: without optimizer state and moving averages."""
        assign_arrays(self.model.trainable_variables, weights, "The best model")
        self.restart_averages()
        for variable in self.optimizer.variables:
            variable.assign(np.zeros(variable.shape, variable.dtype))

    def restart_averages(self) -> None:
        """Sets the moving averages to the current weights."""
        copies = {path: array.copy() for path, array in get_arrays(self.averaged).items()}
        self.assign_averages(copies, "The model")


def derive_dropout_seeds(seed: int, update: int, shape: tuple[int, ...]) -> np.ndarray:
    """Returns seeds of dropout, int32 [*shape, 2], as a pure function of seed, update and place in the array."""
    seeds = [(derive_seed(seed, update, *place), update) for place in np.ndindex(shape)]
    return np.array(seeds, dtype=np.int32).reshape((*shape, 2))


def compute_means(sums: Sums) -> dict[str, Any]:
    """Returns loss and metrics per token, by name."""
    totals = {"loss": sums.loss, **sums.metrics}
    return {name: total / ops.cast(sums.num_tokens, total.dtype) for name, total in totals.items()}


def scale_gradients(norm: Any, num_tokens: Any, loss_scale: Any, clip_norm: float | None) -> tuple[Any, Any]:
    """Returns the factor that turns sums of gradients into the clipped gradient of the mean loss.

    Args:
        norm: global norm of the sums, over all devices and micro-batches.
        num_tokens: target tokens of the whole batch.
        loss_scale: what the losses were multiplied by.
        clip_norm: largest norm of the gradient of the mean loss, or None.

    Returns:
        The norm of the gradient of the mean loss before clipping, and the factor.
    """
    factor = 1 / ops.cast(num_tokens * loss_scale, norm.dtype)
    norm = norm * factor
    if clip_norm is not None:
        factor = factor * clip_norm / ops.maximum(norm, clip_norm)
    return norm, factor


def check_finite(norm: Any, loss: Any) -> Any:
    """Returns whether an update may be applied: neither the gradient nor the loss is infinite or NaN."""
    return ops.logical_and(ops.isfinite(norm), ops.isfinite(loss))


def average_weights(average: Any, weight: Any, decay: Any) -> Any:
    """Returns the next value of the moving average of a weight."""
    return average - ops.cast(1 - decay, average.dtype) * (average - weight)


def limit_decay(decay: float | None, num_updates: Any) -> Any:
    """Returns the decay of the moving averages after a number of updates, at most (1 + n) / (10 + n).

    The average of a young run would otherwise be mostly its initial weights.
    """
    done = ops.cast(num_updates, "float32")
    return ops.minimum(decay or 0.0, (1 + done) / (10 + done))


def adjust_loss_scale(scale: Any, good_updates: Any, is_finite: Any) -> tuple[Any, Any]:
    """Halves the loss scale of float16 after an overflow, and doubles it after `GOOD_UPDATES` finite updates.

    Args:
        scale: the loss scale of the update.
        good_updates: finite updates since the scale last changed.
        is_finite: whether this one was finite.

    Returns:
        Scale and good updates of the next update.
    """
    good = ops.where(is_finite, good_updates + 1, 0)
    grown = ops.where(good == GOOD_UPDATES, scale * 2, scale)
    return ops.where(is_finite, grown, scale / 2), ops.where(good == GOOD_UPDATES, 0, good)
