"""One update on TensorFlow: gradients of every replica and micro-batch, summed, normalised, clipped, applied once.

B rows, S and T the longest source and target, R replicas, A micro-batches, D dropout layers.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import numpy as np
import tensorflow as tf

from nmt.backend import keras
from nmt.compilation import XlaKernels, silence_xla_banner
from nmt.data.batching import Batch
from nmt.errors import OutOfMemoryError
from nmt.models.seq2seq import Seq2Seq
from nmt.training.objective import EXAMPLE_TYPES, Examples, Sums
from nmt.training.strategy import LOST, make_workers
from nmt.training.update import (
    Outcome,
    Update,
    adjust_loss_scale,
    average_weights,
    check_finite,
    compute_means,
    derive_dropout_seeds,
    limit_decay,
    scale_gradients,
)


class TensorFlowUpdate(Update):
    """The update under a tf.distribute strategy: each replica and micro-batch takes every (R A)-th row.

    It is two functions, one that finds the gradient and one that applies it. On a single device the second, a dozen
    passes over all weights, is one kernel of XLA, which is compiled while the first is traced.

    Keras clips before it reduces, and its optimizers are wrong on sparse gradients with repeated ids, so that all are
    made dense.
    """

    def __init__(
        self,
        model: Seq2Seq,
        optimizer: keras.optimizers.Optimizer,
        strategy: tf.distribute.Strategy,
        **settings: Any,
    ):
        self.strategy = strategy
        self.workers = make_workers(strategy)
        self.num_devices = strategy.num_replicas_in_sync
        self.alone = strategy is tf.distribute.get_strategy()
        with strategy.scope():
            super().__init__(model, optimizer, **settings)
        self._apply = tf.function(self._applied, jit_compile=self.alone or None, autograph=False)
        self._kernels = XlaKernels()
        self._find = self._finding()
        if self.alone and not int(self.optimizer.iterations):
            self._prepare()

    def _finding(self) -> Any:
        """Makes the function of a batch that returns what `_found` does."""
        return self._of_batches(self._found)

    def _of_batches(self, function: Callable) -> Callable:
        examples = [tf.TensorSpec([None] * rank, dtype) for dtype, rank in EXAMPLE_TYPES]
        signature = [*examples, tf.TensorSpec(self._seed_shape(), tf.int32)]
        return tf.function(function, input_signature=signature, autograph=False)

    def _prepare(self) -> None:
        """Traces one function while the other is compiled: on two cores a training begins so much sooner."""
        silence_xla_banner()
        self._compilers = ThreadPoolExecutor(1, "compiling")
        nothing = [tf.zeros_like(v.value) for v in self.model.trainable_variables], tf.zeros(())
        self._apply.get_concrete_function(*nothing)
        # Only what is called is compiled. Of a state that is new, no gradient at a rate of zero changes nothing but the
        # number of updates.
        self.optimizer.learning_rate = 0.0
        called = self._compilers.submit(self._apply, *nothing)
        self._find.get_concrete_function()
        called.result()
        self.optimizer.iterations.assign(0)

    def precompile(self, shapes: Iterable[tuple[int, int, int]]) -> None:
        """Begins to compile the kernels of a position for the numbers of rows that batches will have."""
        if self._compilers:
            compile_for = self._kernels.make_compiler()
            for rows in sorted({-(-rows // self.rows_multiple) for rows, *_ in shapes}):
                self._compilers.submit(compile_for, rows)

    def start(self, batch: Batch, *, update: int, learning_rate: float) -> Callable[[], Outcome]:
        """Learns from one batch, as in `Update`, and has the outcome when it returns."""
        self.optimizer.learning_rate = learning_rate
        seeds = self._seeds(update)
        try:
            metrics, num_tokens, finite, share, gradients = self._find(*Examples.from_batch(batch), seeds)
            if finite:
                self._apply(gradients, share)
        except tf.errors.ResourceExhaustedError as error:
            raise OutOfMemoryError(str(error)) from error
        except LOST as error:
            if self.workers.count == 1:
                raise
            raise self.workers.make_lost_error(error) from error
        outcome = Outcome({name: float(x) for name, x in metrics.items()}, int(num_tokens), bool(finite))
        return lambda: outcome

    def halve_micro_batches(self) -> None:
        """Cuts the batches to come into twice as many micro-batches."""
        self.accumulation_steps *= 2
        self._find = self._finding()

    def _seed_shape(self) -> tuple[int, ...]:
        return (self.accumulation_steps, self.num_devices, len(self.seed_states), 2)

    def _seeds(self, update: int) -> np.ndarray:
        """A seed for each micro-batch, replica and layer: int32 [A, R, D, 2]."""
        return derive_dropout_seeds(self.seed, update, self._seed_shape()[:3])

    def _found(self, *batch: Any) -> tuple:
        """Metrics, number of tokens, whether all is finite, and the sums of gradients with the factor that makes a
        clipped mean of them."""
        with self._kernels.activate() if self.alone else nullcontext():
            return self._summed(self.strategy.run(self._gradient_sums, args=batch))

    def _summed(self, sums: tuple[Sums, list]) -> tuple:
        """What `_found` returns, of what each replica found."""
        reduced = tf.nest.map_structure(lambda s: self.strategy.reduce(tf.distribute.ReduceOp.SUM, s, axis=None), sums)
        totals, gradients = reduced
        norm, share = scale_gradients(
            tf.linalg.global_norm(gradients), totals.num_tokens, self.loss_scale.value, self.clip_norm
        )
        finite = check_finite(norm, totals.loss)
        if self.scales_loss:
            scale, good = adjust_loss_scale(self.loss_scale.value, self.good_updates.value, finite)
            self.loss_scale.assign(scale)
            self.good_updates.assign(good)
        return {**compute_means(totals), "gradient_norm": norm}, totals.num_tokens, finite, share, gradients

    def _gradient_sums(self, *batch: Any) -> tuple[Sums, list]:
        """Adds up the objective's sums, and the dense gradient of its loss, over the micro-batches of one replica."""
        *examples, seeds = batch
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        sums = self._micro_batch(Examples(*examples), seeds, replica, 0)
        for micro in range(1, self.accumulation_steps):
            # One after the other: side by side they would need the memory that accumulation is to save.
            with tf.control_dependencies(tf.nest.flatten(sums)):
                more = self._micro_batch(Examples(*examples), seeds, replica, micro)
            sums = tf.nest.map_structure(tf.add, sums, more)
        return sums

    def _micro_batch(self, examples: Examples, seeds: Any, replica: Any, micro: int) -> tuple[Sums, list]:
        for state, seed in zip(self.seed_states, tf.unstack(seeds[micro, replica]), strict=True):
            state.assign(tf.cast(seed, state.dtype))
        # Every (R A)-th row: sorted by length, neighbours would load the replicas unevenly.
        first, stride = micro * self.num_devices + replica, self.rows_multiple
        mine = Examples(*(rows[first::stride] for rows in examples))
        variables = [v.value for v in self.model.trainable_variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            sums = self.objective(self.model, mine, training=True)
            scaled = sums.loss * tf.cast(self.loss_scale.value, sums.loss.dtype)
        return sums, [tf.convert_to_tensor(g) for g in tape.gradient(scaled, variables)]

    def _applied(self, sums: list, share: Any) -> None:
        gradients = [s * tf.cast(share, s.dtype) for s in sums]
        self.optimizer.apply(gradients, self.model.trainable_variables)
        decay = limit_decay(self.ema_decay, self.optimizer.iterations.value)
        for average, variable in zip(self.averages, self.averaged, strict=True):
            average.assign(average_weights(average.value, variable.value, decay))


class WorkersUpdate(TensorFlowUpdate):
    """The gradient is found in two parts: what each worker finds for itself, and what needs all of them.

    A worker without memory for its own says so between the two, while it still can: a failure in the second part would
    leave the others waiting for its sums.
    """

    def _finding(self) -> Any:
        gradients, summed = self._of_batches(self._own_sums), tf.function(self._summed, autograph=False)

        def found(*batch: Any) -> tuple:
            failure: tf.errors.ResourceExhaustedError | None = None
            try:
                sums = gradients(*batch)
            except tf.errors.ResourceExhaustedError as error:
                failure = error
            [lacking] = self.workers.all_gather(failure is not None)
            if lacking.any():
                reason = f"Worker {lacking.argmax()} has not enough memory."
                raise failure or tf.errors.ResourceExhaustedError(None, None, reason)
            return summed(sums)

        return found

    def _own_sums(self, *batch: Any) -> tuple[Sums, list]:
        return self.strategy.run(self._gradient_sums, args=batch)
