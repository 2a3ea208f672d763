"""One update on TensorFlow: gradients of every replica and micro-batch, summed, normalised, clipped, applied once.

B rows, S and T the longest source and target, R replicas, A micro-batches, D dropout layers.
"""

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from nmt.data.batching import Batch, mixed_seed
from nmt.data.tokenizer import BOS_ID, PAD_ID
from nmt.errors import UserError
from nmt.models.seq2seq import Seq2Seq
from nmt.training.losses import cross_entropy, shifted_right
from nmt.weights import by_path


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


class TensorFlowUpdate:
    """The compiled update of a model.

    N replicas with any accumulation give what one gives: each replica and micro-batch takes every (R A)-th row; sums,
    not means, are added up; the sum is divided by the global number of pieces, and only then clipped. (Keras clips
    before it reduces, and its optimizers are wrong on sparse gradients with repeated ids, so that all are made dense.)
    """

    def __init__(
        self,
        model: Seq2Seq,
        optimizer: keras.optimizers.Optimizer,
        strategy: tf.distribute.Strategy,
        *,
        seed: int,
        accumulation: int = 1,
        label_smoothing: float = 0.0,
        clip_norm: float | None = None,
        ema_decay: float | None = None,
    ):
        self.model = model
        self.optimizer = optimizer
        self.strategy = strategy
        self.seed = seed
        self.accumulation = accumulation
        self.label_smoothing = label_smoothing
        self.clip_norm = clip_norm
        self.ema_decay = ema_decay
        self.scales_loss = model.dtype_policy.compute_dtype == "float16"
        self.seed_states = [v for v in model.variables if "seed_generator_state" in v.path]
        with strategy.scope():
            optimizer.build(model.trainable_variables)
            self.averages = [tf.Variable(v.value, trainable=False) for v in self._averaged()]
            # Powers of two only: scaling by them loses nothing.
            self.loss_scale = keras.Variable(2.0**15 if self.scales_loss else 1.0, trainable=False, name="loss_scale")
            self.good_updates = keras.Variable(0, dtype="int32", trainable=False, name="good_updates")
        rows = tf.TensorSpec([None, None], tf.int32)
        self._compiled = tf.function(
            self._update,
            input_signature=[
                rows,
                rows,
                tf.TensorSpec([None], tf.float32),
                tf.TensorSpec(self._seed_shape(), tf.int32),
            ],
            autograph=False,
        )

    def __call__(self, batch: Batch, *, update: int, learning_rate: float) -> Outcome:
        """Learns from one batch, whose rows are a multiple of R A; `update` counts from 1."""
        self.optimizer.learning_rate = learning_rate
        seeds = self._seeds(update)
        loss, nll, norm, pieces, applied = self._compiled(batch.source, batch.target, batch.weights, seeds)
        return Outcome(float(loss), float(nll), float(norm), int(pieces), bool(applied))

    @property
    def rows_multiple(self) -> int:
        """What the number of rows of a batch must be a multiple of."""
        return self.strategy.num_replicas_in_sync * self.accumulation

    @property
    def state_variables(self) -> list:
        """What, besides weights and averages, the next update depends on."""
        return [*self.optimizer.variables, *([self.loss_scale, self.good_updates] if self.scales_loss else [])]

    def averaged_arrays(self) -> dict[str, np.ndarray]:
        """The moving averages by the paths of their weights; empty where there are none."""
        paths = by_path(self._averaged())
        return {path: average.numpy() for path, average in zip(paths, self.averages, strict=True)}

    def assign_averages(self, arrays: dict[str, np.ndarray], origin: str) -> None:
        """Sets the moving averages; raises UserError where they are not those of this model."""
        if arrays.keys() != {v.path for v in self._averaged()}:
            raise UserError(f"{origin} does not hold the moving averages that training.ema_decay asks for.")
        for variable, average in zip(self._averaged(), self.averages, strict=True):
            average.assign(arrays[variable.path])

    def restart_averages(self) -> None:
        """Sets the moving averages to the weights as they are."""
        self.assign_averages({v.path: np.asarray(v.value) for v in self._averaged()}, "The model")

    def _averaged(self) -> list:
        return self.model.trainable_variables if self.ema_decay else []

    def _seed_shape(self) -> tuple[int, ...]:
        return (self.accumulation, self.strategy.num_replicas_in_sync, len(self.seed_states), 2)

    def _seeds(self, update: int) -> np.ndarray:
        """Dropout as a pure function of (seed, update, micro-batch, replica, layer): int32 [A, R, D, 2]."""
        places = np.ndindex(self._seed_shape()[:3])
        seeds = [(mixed_seed(self.seed, update, *place), update) for place in places]
        return np.array(seeds, dtype=np.int32).reshape(self._seed_shape())

    def _update(self, source: Any, target: Any, weights: Any, seeds: Any) -> tuple:
        sums = self.strategy.run(self._gradient_sums, args=(source, target, weights, seeds))
        loss, nll, pieces, *sums = [self.strategy.reduce(tf.distribute.ReduceOp.SUM, s, axis=None) for s in sums]
        gradients = [s / tf.cast(pieces * self.loss_scale.value, s.dtype) for s in sums]
        norm = tf.linalg.global_norm(gradients)
        if self.clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self.clip_norm, use_norm=norm)
        finite = tf.math.is_finite(norm) & tf.math.is_finite(loss)
        tf.cond(finite, lambda: self._apply(gradients), lambda: False)
        self._rescale(finite)
        return loss / tf.cast(pieces, loss.dtype), nll / tf.cast(pieces, nll.dtype), norm, pieces, finite

    def _gradient_sums(self, source: Any, target: Any, weights: Any, seeds: Any) -> list:
        """Of all micro-batches of one replica: loss, nll, number of pieces, and the dense gradient of the loss."""
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        sums = self._micro_batch(source, target, weights, seeds, replica, 0)
        for micro in range(1, self.accumulation):
            # One after the other: side by side they would need the memory that accumulation is to save.
            with tf.control_dependencies(sums):
                more = self._micro_batch(source, target, weights, seeds, replica, micro)
            sums = [a + b for a, b in zip(sums, more, strict=True)]
        return sums

    def _micro_batch(self, source: Any, target: Any, weights: Any, seeds: Any, replica: Any, micro: int) -> list:
        for layer, state in enumerate(self.seed_states):
            state.assign(tf.cast(seeds[micro, replica, layer], state.dtype))
        # Every (R A)-th row: sorted by length, neighbours would load the replicas unevenly.
        first, stride = micro * self.strategy.num_replicas_in_sync + replica, self.rows_multiple
        source, target, weights = source[first::stride], target[first::stride], weights[first::stride]
        counts = tf.cast(target != PAD_ID, tf.float32) * weights[:, None]
        variables = [v.value for v in self.model.trainable_variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            decoded = self.model(source, shifted_right(target, BOS_ID), training=True)
            loss, nll = cross_entropy(
                self.model.projection, decoded.states, target, counts, label_smoothing=self.label_smoothing
            )
            scaled = loss * tf.cast(self.loss_scale.value, loss.dtype)
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(scaled, variables)]
        return [loss, nll, tf.reduce_sum(counts), *gradients]

    def _apply(self, gradients: list) -> bool:
        self.optimizer.apply(gradients, self.model.trainable_variables)
        done = tf.cast(self.optimizer.iterations, tf.float32)
        # The average of a young run would otherwise be mostly its initial weights.
        decay = tf.minimum(self.ema_decay or 0.0, (1 + done) / (10 + done))
        for average, variable in zip(self.averages, self._averaged(), strict=True):
            average.assign_sub(tf.cast(1 - decay, average.dtype) * (average - variable.value))
        return True

    def _rescale(self, finite: Any) -> None:
        """Halves float16's loss scale after an overflow and doubles it after 2,000 good updates."""
        if not self.scales_loss:
            return
        good = tf.where(finite, self.good_updates.value + 1, 0)
        scale = self.loss_scale.value
        self.loss_scale.assign(tf.where(finite, tf.where(good == 2000, scale * 2, scale), scale / 2))
        self.good_updates.assign(tf.where(good == 2000, 0, good))
