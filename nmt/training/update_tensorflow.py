"""The update on TensorFlow: gradients of all replicas and micro-batches are summed, scaled, and applied once.

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
from nmt.training.objective import Examples, Sums
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

    It consists of two functions. `_compute` finds the gradient, and `_apply` applies it. On a single device XLA turns
    `_apply`, a dozen passes over all weights, into one kernel, which is compiled while `_compute` is traced.

    Keras' own training step would clip before it reduces. Its optimizers are also wrong on sparse gradients with
    repeated ids, so all gradients are made dense.
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
        self._apply = tf.function(self._apply_gradients, jit_compile=self.alone or None, autograph=False)
        self._kernels = XlaKernels()
        self._compute = self._make_compute()
        if self.alone and not int(self.optimizer.iterations):
            self._prepare()

    def _make_compute(self) -> Any:
        """Returns the function that computes what `_compute_gradients` does, as a graph for the micro-batches."""
        return self._make_graph(self._compute_gradients)

    def _make_graph(self, function: Callable) -> Callable:
        """Turns a function of a batch into one graph for all lengths."""
        examples = [tf.TensorSpec([None] * rank, dtype) for dtype, rank in self.objective.example_types.arrays]
        signature = [*examples, tf.TensorSpec(self._get_seed_shape(), tf.int32)]
        return tf.function(function, input_signature=signature, autograph=False)

    def _prepare(self) -> None:
        """Traces one function while the other is compiled: with two cores, training starts that much sooner."""
        silence_xla_banner()
        self._compilers = ThreadPoolExecutor(1, "compiling")
        nothing = [tf.zeros_like(v.value) for v in self.trained], tf.zeros(())
        self._apply.get_concrete_function(*nothing)
        # XLA compiles at the first call. With new weights, a gradient of zero at a rate of zero changes nothing except
        # the number of iterations.
        self.optimizer.learning_rate = 0.0
        called = self._compilers.submit(self._apply, *nothing)
        self._compute.get_concrete_function()
        called.result()
        self.optimizer.iterations.assign(0)

    def precompile(self, shapes: Iterable[tuple[int, int, int]]) -> None:
        """Compiles the kernels of a position in the background, for the numbers of rows that batches will have."""
        if self._compilers:
            compile_for = self._kernels.make_compiler()
            for rows in sorted({-(-rows // self.rows_multiple) for rows, *_ in shapes}):
                self._compilers.submit(compile_for, rows)

    def start(self, batch: Batch, *, update: int, learning_rate: float) -> Callable[[], Outcome]:
        """Trains on one batch, as in `Update`. The outcome is known when this returns."""
        self.optimizer.learning_rate = learning_rate
        seeds = self._derive_seeds(update)
        try:
            arrays = Examples.from_batch(batch).arrays
            metrics, num_tokens, finite, factor, gradients, pair_losses = self._compute(*arrays, seeds)
            if finite:
                self._apply(gradients, factor)
        except tf.errors.ResourceExhaustedError as error:
            raise OutOfMemoryError(str(error)) from error
        except LOST as error:
            if self.workers.count == 1:
                raise
            raise self.workers.make_lost_error(error) from error
        means = {name: float(x) for name, x in metrics.items()}
        outcome = Outcome(means, float(num_tokens), bool(finite), pair_losses if self.objective.pair_losses else None)
        return lambda: outcome

    def halve_micro_batches(self) -> None:
        """Cuts further batches into twice as many micro-batches, and traces the graph again."""
        self.accumulation_steps *= 2
        self._compute = self._make_compute()

    def _get_seed_shape(self) -> tuple[int, ...]:
        return (self.accumulation_steps, self.num_devices, len(self.seed_states), 2)

    def _derive_seeds(self, update: int) -> np.ndarray:
        """Returns a seed for each micro-batch, replica and layer: int32 [A, R, D, 2]."""
        return derive_dropout_seeds(self.seed, update, self._get_seed_shape()[:3])

    def _compute_gradients(self, *batch: Any) -> tuple:
        """Returns metrics, number of tokens, whether all is finite, factor and sums of gradients, and pairs' losses."""
        with self._kernels.activate() if self.alone else nullcontext():
            return self._reduce(self.strategy.run(self._sum_micro_batches, args=batch))

    def _reduce(self, sums: tuple[Sums, list]) -> tuple:
        """Returns what `_compute_gradients` does, from the sums of each replica."""
        reduced = tf.nest.map_structure(lambda s: self.strategy.reduce(tf.distribute.ReduceOp.SUM, s, axis=None), sums)
        totals, gradients = reduced
        norm, factor = scale_gradients(
            tf.linalg.global_norm(gradients), totals.num_tokens, self.loss_scale.value, self.clip_norm
        )
        finite = check_finite(norm, totals.loss)
        if self.scales_loss:
            scale, good = adjust_loss_scale(self.loss_scale.value, self.good_updates.value, finite)
            self.loss_scale.assign(scale)
            self.good_updates.assign(good)
        metrics = {**compute_means(totals), "gradient_norm": norm}
        return metrics, totals.num_tokens, finite, factor, gradients, totals.pair_losses

    def _sum_micro_batches(self, *batch: Any) -> tuple[Sums, list]:
        """Adds up the objective's sums, and the dense gradient of its loss, over the micro-batches of one replica."""
        *examples, seeds = batch
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        sums = self._sum_micro_batch(Examples(*examples), seeds, replica, 0)
        for micro in range(1, self.accumulation_steps):
            # In sequence: in parallel they would need the memory that accumulation is meant to save.
            with tf.control_dependencies(tf.nest.flatten(sums)):
                more = self._sum_micro_batch(Examples(*examples), seeds, replica, micro)
            sums = tf.nest.map_structure(tf.add, sums, more)
        return sums

    def _sum_micro_batch(self, examples: Examples, seeds: Any, replica: Any, micro: int) -> tuple[Sums, list]:
        for state, seed in zip(self.seed_states, tf.unstack(seeds[micro, replica]), strict=True):
            state.assign(tf.cast(seed, state.dtype))
        # Every (R A)-th row. Rows are sorted by length, so blocks of neighbours would load the replicas unevenly.
        first, stride = micro * self.num_devices + replica, self.rows_multiple
        mine = examples.map(lambda rows: rows[first::stride])
        variables = [v.value for v in self.trained]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            sums = self.objective(self.model, mine, training=True)
            scaled = sums.loss * tf.cast(self.loss_scale.value, sums.loss.dtype)
        if self.objective.pair_losses and stride > 1:
            # Zeros in the rows of the others: then the sum over micro-batches and replicas is the whole batch.
            mine_alone = sums.pair_losses[:, None] * tf.one_hot(first, stride, dtype=sums.pair_losses.dtype)
            sums = sums._replace(pair_losses=tf.reshape(mine_alone, [-1]))
        return sums, [tf.convert_to_tensor(g) for g in tape.gradient(scaled, variables)]

    def _apply_gradients(self, gradients: list, factor: Any) -> None:
        """Scales the sums of gradients by a factor, applies them, and updates the moving averages."""
        gradients = [g * tf.cast(factor, g.dtype) for g in gradients]
        self.optimizer.apply(gradients, self.trained)
        decay = limit_decay(self.ema_decay, self.optimizer.iterations.value)
        for average, variable in zip(self.averages, self.averaged, strict=True):
            average.assign(average_weights(average.value, variable.value, decay))


class WorkersUpdate(TensorFlowUpdate):
    """The update of several processes, in two graphs: what each worker sums up alone, and the reduction over all.

    A worker that runs out of memory reports it between the two. A failure during the reduction would leave the others
    waiting for its sums.
    """

    def _make_compute(self) -> Any:
        sum_own = self._make_graph(self._sum_own)
        # `pair_losses` has one row per example. Without reduce_retracing, each batch size would trace the graph again.
        reduce = tf.function(self._reduce, autograph=False, reduce_retracing=True)

        def compute(*batch: Any) -> tuple:
            failure: tf.errors.ResourceExhaustedError | None = None
            try:
                sums = sum_own(*batch)
            except tf.errors.ResourceExhaustedError as error:
                failure = error
            [lacking] = self.workers.all_gather(failure is not None)
            if lacking.any():
                reason = f"Worker {lacking.argmax()} does not have enough memory."
                raise failure or tf.errors.ResourceExhaustedError(None, None, reason)
            return reduce(sums)

        return compute

    def _sum_own(self, *batch: Any) -> tuple[Sums, list]:
        return self.strategy.run(self._sum_micro_batches, args=batch)
