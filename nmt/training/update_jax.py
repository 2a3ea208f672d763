"""One update on JAX: one program over all devices, compiled once for each shape of a batch.

B rows, S and T the source and target length, A micro-batches, D dropout layers.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nmt.backend import keras
from nmt.compilation import has_gpu
from nmt.data.batching import Batch
from nmt.data.tokenizer import BOS_ID, PAD_ID
from nmt.errors import OutOfMemoryError
from nmt.models.seq2seq import Seq2Seq
from nmt.training.mesh import ROWS
from nmt.training.objective import cross_entropy, shift_right
from nmt.training.update import Outcome, Update, dropout_seeds


class State(NamedTuple):
    """What an update changes, as arrays in the order of their Keras variables."""

    weights: list
    averages: list
    optimizer: list
    loss_scale: Any
    good_updates: Any


class Sums(NamedTuple):
    """What micro-batches add up to."""

    loss: Any
    nll: Any
    pieces: Any
    gradients: list
    """Of the loss times its scale, by weight."""


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
        shared = NamedSharding(mesh, PartitionSpec(None, ROWS))
        # The old state's memory becomes the new one's.
        self._compiled = jax.jit(
            self._update,
            donate_argnums=0,
            in_shardings=(everywhere, everywhere, shared, shared, shared),
            out_shardings=everywhere,
            # Trying kernels for every product and shape takes minutes, and gains little on cuBLAS in 16 bits.
            compiler_options={"xla_gpu_enable_triton_gemm": model.dtype_policy.compute_dtype == "float32"},
        )
        self._foreseen: dict[tuple[int, ...], Future] = {}

    def foresee(self, shapes: Iterable[tuple[int, int, int]]) -> None:
        """Begins to compile for these shapes, several at once, while training goes on with those that are done.

        On a GPU a dozen compilations take longer than thousands of updates; a CPU has no time for what may never come.
        """
        if not has_gpu():
            return
        self._compilers = ThreadPoolExecutor(thread_name_prefix="compiling")
        state, seeds = self._state(), self._seeds(1)
        for rows, *lengths in shapes:
            rows += -rows % self.rows_multiple
            ids = [np.empty((rows, length), np.int32) for length in lengths]
            batch = self._by_micro_batch(*ids, np.empty(rows, np.float32))
            lowered = self._compiled.lower(state, seeds, *batch)
            self._foreseen[_shape(batch)] = self._compilers.submit(lowered.compile)

    def start(self, batch: Batch, *, update: int, learning_rate: float) -> Callable[[], Outcome]:
        """Hands a batch to the devices, as in `Update`, and returns before they have learned from it."""
        self.optimizer.learning_rate = learning_rate
        rows = self._by_micro_batch(batch.source, batch.target, batch.weights)
        state = self._state()
        try:
            foreseen = self._foreseen.get(_shape(rows))
            compiled = foreseen.result() if foreseen else self._compiled
            after, outcome = compiled(state, self._seeds(update), *rows)
        except jax.errors.JaxRuntimeError as error:
            # Once the old state's memory is given away, there is nothing to try again from.
            if "RESOURCE_EXHAUSTED" in str(error) and not any(x.is_deleted() for x in jax.tree.leaves(state)):
                raise OutOfMemoryError(str(error)) from error
            raise
        self._assign(after)
        outcome.copy_to_host_async()
        return lambda: _read(outcome)

    def split(self) -> None:
        """Cuts the batches to come into twice as many micro-batches; all are compiled anew."""
        self.accumulation *= 2

    def _by_micro_batch(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Every A-th row to the same micro-batch, each [B, ...] -> [A, B / A, ...]."""
        return [np.stack([rows[micro :: self.accumulation] for micro in range(self.accumulation)]) for rows in arrays]

    def _seeds(self, update: int) -> np.ndarray:
        """A seed for each micro-batch and layer: int32 [A, D, 2]."""
        return dropout_seeds(self.seed, update, (self.accumulation, len(self.seed_states)))

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

    def _update(self, state: State, seeds: Any, source: Any, target: Any, weights: Any) -> tuple[State, Any]:
        zero = jnp.zeros((), state.weights[0].dtype)
        sums = Sums(zero, zero, zero, [jnp.zeros_like(w) for w in state.weights])

        def add(sums: Sums, micro_batch: tuple) -> tuple[Sums, None]:
            return jax.tree.map(jnp.add, sums, self._micro_batch(state, *micro_batch)), None

        # One after the other: side by side they would need the memory that accumulation is to save.
        sums, _ = jax.lax.scan(add, sums, (seeds, source, target, weights))
        gradients = [g / (sums.pieces * state.loss_scale).astype(g.dtype) for g in sums.gradients]
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in gradients))
        if self.clip_norm is not None:
            gradients = [g * (self.clip_norm / jnp.maximum(norm, self.clip_norm)) for g in gradients]
        finite = jnp.isfinite(norm) & jnp.isfinite(sums.loss)
        # A choice of values, not a branch, for which the host would have to wait.
        applied = jax.tree.map(lambda new, old: jnp.where(finite, new, old), self._applied(state, gradients), state)
        outcome = (sums.loss / sums.pieces, sums.nll / sums.pieces, norm, sums.pieces, finite)
        # One array to fetch: each costs a device and its host a conversation.
        return self._rescaled(applied, finite), jnp.stack([x.astype(norm.dtype) for x in outcome])

    def _micro_batch(self, state: State, seeds: Any, source: Any, target: Any, weights: Any) -> Sums:
        counts = (target != PAD_ID).astype(state.weights[0].dtype) * weights[:, None]

        def scaled_loss(values: list) -> tuple:
            variables = [*self.model.trainable_variables, *self.seed_states]
            mapping = list(zip(variables, [*values, *seeds.astype("uint32")], strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                decoded = self.model(source, shift_right(target, BOS_ID), training=True)
                loss, nll = cross_entropy(
                    self.model.projection, decoded.states, target, counts, label_smoothing=self.label_smoothing
                )
            return loss * state.loss_scale.astype(loss.dtype), (loss, nll)

        gradients, (loss, nll) = jax.grad(scaled_loss, has_aux=True)(state.weights)
        return Sums(loss, nll, jnp.sum(counts), gradients)

    def _applied(self, state: State, gradients: list) -> State:
        weights, optimizer = self.optimizer.stateless_apply(state.optimizer, gradients, state.weights)
        values = dict(zip((v.path for v in self.optimizer.variables), optimizer, strict=True))
        done = values[self.optimizer.iterations.path].astype("float32")
        # The average of a young run would otherwise be mostly its initial weights.
        decay = jnp.minimum(self.ema_decay or 0.0, (1 + done) / (10 + done))
        pairs = zip(state.averages, weights[: len(state.averages)], strict=True)
        averages = [average - (1 - decay).astype(average.dtype) * (average - weight) for average, weight in pairs]
        return state._replace(weights=weights, averages=averages, optimizer=optimizer)

    def _rescaled(self, state: State, finite: Any) -> State:
        """Halves float16's loss scale after an overflow and doubles it after 2,000 good updates."""
        if not self.scales_loss:
            return state
        good = jnp.where(finite, state.good_updates + 1, 0)
        scale = jnp.where(finite, jnp.where(good == 2000, state.loss_scale * 2, state.loss_scale), state.loss_scale / 2)
        return state._replace(loss_scale=scale, good_updates=jnp.where(good == 2000, 0, good))


def _shape(batch: list[np.ndarray]) -> tuple[int, ...]:
    """What a batch is compiled for, of its source and target [A, B / A, N]."""
    return *batch[0].shape, *batch[1].shape


def _read(outcome: jax.Array) -> Outcome:
    """Waits for what `JaxUpdate._update` returns beside the state."""
    loss, nll, norm, pieces, applied = np.asarray(outcome).tolist()
    return Outcome(loss, nll, norm, int(pieces), bool(applied))


def _is_variable(x: Any) -> bool:
    return isinstance(x, keras.Variable)
