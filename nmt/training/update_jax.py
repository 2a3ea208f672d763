"""One update on JAX: one program over all devices, compiled once for each shape of a batch.

B rows, S and T the source and target length, A micro-batches, D dropout layers.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nmt.backend import keras
from nmt.compilation import has_gpu
from nmt.data.batching import Batch
from nmt.errors import OutOfMemoryError
from nmt.models.seq2seq import Seq2Seq
from nmt.training.mesh import ROWS
from nmt.training.objective import Examples, Sums
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


class State(NamedTuple):
    """What an update changes, as arrays in the order of their Keras variables."""

    weights: list
    averages: list
    optimizer: list
    loss_scale: Any
    good_updates: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Fetched:
    """What the host wants to know of an update, as one array: fetching several costs a round trip each."""

    values: jax.Array
    """Metrics, number of tokens, and whether the update was applied."""
    names: tuple[str, ...] = field(metadata={"static": True})
    """Names of the metrics. They are static, so the compiled program returns them without computing anything."""


class JaxUpdate(Update):
    """The update over a mesh of devices: weights on each of them, the rows of a batch shared among them.

    The program is written for the whole batch, and XLA divides it. So N devices compute what one computes, dropout
    included: its masks are drawn for the whole batch.
    """

    runs_ahead = True

    def __init__(self, model: Seq2Seq, optimizer: keras.optimizers.Optimizer, mesh: Mesh, **settings: Any):
        super().__init__(model, optimizer, **settings)
        self.num_devices = mesh.size
        self.everywhere = everywhere = NamedSharding(mesh, PartitionSpec())
        rows = NamedSharding(mesh, PartitionSpec(None, ROWS))
        # The old state's memory becomes the new one's.
        self._compiled = jax.jit(
            self._update,
            donate_argnums=0,
            in_shardings=(everywhere, everywhere, rows),
            out_shardings=everywhere,
            # Trying kernels for every product and shape takes minutes, and gains little on cuBLAS in 16 bits.
            compiler_options={"xla_gpu_enable_triton_gemm": model.dtype_policy.compute_dtype == "float32"},
        )
        self._precompiled: dict[tuple[int, ...], Future] = {}

    def precompile(self, shapes: Iterable[tuple[int, int, int]]) -> None:
        """Begins to compile for these shapes, several at once, while training goes on with those that are done.

        On a GPU a dozen compilations take longer than thousands of updates; a CPU has no time for what may never come.
        """
        if not has_gpu():
            return
        self._compilers = ThreadPoolExecutor(thread_name_prefix="compiling")
        state, seeds = self._state(), self._seeds(1)
        for rows, *lengths in shapes:
            rows += -rows % self.rows_multiple
            source, target = (np.empty((rows, length), np.int32) for length in lengths)
            examples = self._by_micro_batch(Examples(source, target, np.empty(rows, np.float32)))
            lowered = self._compiled.lower(state, seeds, examples)
            self._precompiled[_shape(examples)] = self._compilers.submit(lowered.compile)

    def start(self, batch: Batch, *, update: int, learning_rate: float) -> Callable[[], Outcome]:
        """Hands a batch to the devices, as in `Update`, and returns before they have learned from it."""
        self.optimizer.learning_rate = learning_rate
        examples = self._by_micro_batch(Examples.from_batch(batch))
        state = self._state()
        try:
            compiling = self._precompiled.get(_shape(examples))
            compiled = compiling.result() if compiling else self._compiled
            after, fetched = compiled(state, self._seeds(update), examples)
        except jax.errors.JaxRuntimeError as error:
            # Once the old state's memory is given away, there is nothing to try again from.
            if "RESOURCE_EXHAUSTED" in str(error) and not any(x.is_deleted() for x in jax.tree.leaves(state)):
                raise OutOfMemoryError(str(error)) from error
            raise
        self._assign(after)
        fetched.values.copy_to_host_async()
        return lambda: _read(fetched)

    def halve_micro_batches(self) -> None:
        """Cuts the batches to come into twice as many micro-batches; all are compiled anew."""
        self.accumulation_steps *= 2

    def _by_micro_batch(self, examples: Examples) -> Examples:
        """Gives every A-th row to the same micro-batch: [B, ...] -> [A, B / A, ...]."""
        micros = range(self.accumulation_steps)
        return Examples(*(np.stack([rows[micro :: self.accumulation_steps] for micro in micros]) for rows in examples))

    def _seeds(self, update: int) -> np.ndarray:
        """A seed for each micro-batch and layer: int32 [A, D, 2]."""
        return derive_dropout_seeds(self.seed, update, (self.accumulation_steps, len(self.seed_states)))

    @cached_property
    def _variables(self) -> State:
        """What holds the state between updates; Keras takes its time to list it."""
        optimizer = self.optimizer.variables
        return State(self.model.trainable_variables, self.averages, optimizer, self.loss_scale, self.good_updates)

    def _state(self) -> State:
        return jax.tree.map(self._placed, self._variables, is_leaf=_is_variable)

    def _placed(self, variable: keras.Variable) -> jax.Array:
        """The value, on every device: there already, unless it was assigned from elsewhere. A program is compiled for
        where its arguments are."""
        value = variable.value
        return value if value.committed else jax.device_put(value, self.everywhere)

    def _assign(self, state: State) -> None:
        jax.tree.map(lambda variable, x: variable.assign(x), self._variables, state, is_leaf=_is_variable)

    def _update(self, state: State, seeds: Any, examples: Examples) -> tuple[State, Fetched]:
        def add(gradients: list, micro_batch: tuple) -> tuple[list, Sums]:
            sums, more = self._micro_batch(state, *micro_batch)
            return [g + m for g, m in zip(gradients, more, strict=True)], sums

        # One after the other: side by side they would need the memory that accumulation is to save. Unlike what is
        # carried along, the outputs of each turn need no initial value, so that no metric is listed here.
        gradients, each = jax.lax.scan(add, [jnp.zeros_like(w) for w in state.weights], (seeds, examples))
        sums = jax.tree.map(lambda x: jnp.sum(x, axis=0), each)
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in gradients))
        norm, factor = scale_gradients(norm, sums.num_tokens, state.loss_scale, self.clip_norm)
        gradients = [g * factor.astype(g.dtype) for g in gradients]
        finite = check_finite(norm, sums.loss)
        # A choice of values, not a branch, for which the host would have to wait.
        after = jax.tree.map(lambda new, old: jnp.where(finite, new, old), self._applied(state, gradients), state)
        if self.scales_loss:
            scale, good = adjust_loss_scale(state.loss_scale, state.good_updates, finite)
            after = after._replace(loss_scale=scale, good_updates=good)
        metrics = {**compute_means(sums), "gradient_norm": norm}
        values = [*metrics.values(), sums.num_tokens, finite]
        return after, Fetched(jnp.stack([x.astype(norm.dtype) for x in values]), tuple(metrics))

    def _micro_batch(self, state: State, seeds: Any, examples: Examples) -> tuple[Sums, list]:
        """Returns the sums of the objective, and the gradient of its scaled loss for each weight."""

        def scaled_loss(values: list) -> tuple:
            variables = [*self.model.trainable_variables, *self.seed_states]
            mapping = list(zip(variables, [*values, *seeds.astype("uint32")], strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                sums = self.objective(self.model, examples, training=True)
            return sums.loss * state.loss_scale.astype(sums.loss.dtype), sums

        gradients, sums = jax.grad(scaled_loss, has_aux=True)(state.weights)
        return sums, gradients

    def _applied(self, state: State, gradients: list) -> State:
        weights, optimizer = self.optimizer.stateless_apply(state.optimizer, gradients, state.weights)
        values = dict(zip((v.path for v in self.optimizer.variables), optimizer, strict=True))
        decay = limit_decay(self.ema_decay, values[self.optimizer.iterations.path])
        pairs = zip(state.averages, weights[: len(state.averages)], strict=True)
        averages = [average_weights(average, weight, decay) for average, weight in pairs]
        return state._replace(weights=weights, averages=averages, optimizer=optimizer)


def _shape(examples: Examples) -> tuple[int, ...]:
    """The shapes of source and target [A, B / A, N], which determine those of all other arrays."""
    return *examples.source.shape, *examples.target.shape


def _read(fetched: Fetched) -> Outcome:
    """Waits for the result of an update."""
    *means, num_tokens, applied = np.asarray(fetched.values).tolist()
    return Outcome(dict(zip(fetched.names, means, strict=True)), int(num_tokens), bool(applied))


def _is_variable(x: Any) -> bool:
    return isinstance(x, keras.Variable)
