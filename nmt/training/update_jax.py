"""The update on JAX, and the devices that it runs on: one program over all of them, compiled for each batch shape.

B rows, S and T source and target length, A micro-batches, D dropout layers.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nmt.backend import keras
from nmt.compilation import has_gpu
from nmt.config.schema import StrategyName
from nmt.data.batching import Batch
from nmt.errors import OutOfMemoryError, UserError
from nmt.models.seq2seq import Seq2Seq
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
from nmt.training.workers import check_devices

ROWS = "rows"
"""The axis of the mesh, along which the rows of a batch are shared."""


def make_mesh(kind: StrategyName, devices: Sequence[str] | None = None) -> Mesh:
    """Returns the devices of this process as a mesh of one axis.

    Args:
        kind: auto and mirrored use all devices, single the first.
        devices: names such as ["GPU:0", "GPU:1"]; None means all.

    Raises:
        UserError: a device does not exist, the strategy cannot use these devices, or `kind` is multi_worker.
    """
    if kind == "multi_worker":
        raise UserError("training.strategy multi_worker requires the TensorFlow backend. JAX trains in one process.")
    known = {f"{device.platform.upper()}:{device.id}": device for device in jax.devices()}
    names = list(known) if devices is None else check_devices(kind, devices, list(known))
    chosen = [known[name] for name in names]
    return Mesh(np.array(chosen[:1] if kind == "single" else chosen), (ROWS,))


def use_device(mesh: Mesh) -> AbstractContextManager:
    """Places what runs outside the mesh, such as validation, on its first device."""
    first = mesh.devices.flat[0]
    return nullcontext() if first == jax.devices()[0] else jax.default_device(first)


class State(NamedTuple):
    """The arrays that an update changes, in the order of their Keras variables."""

    weights: list
    averages: list
    optimizer: list
    loss_scale: Any
    good_updates: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Fetched:
    """What the host reads after an update, as one array: each array that it reads costs a round trip to the device."""

    values: jax.Array
    """Metrics, number of tokens, whether the update was applied, and the losses of the pairs if they are kept."""
    names: tuple[str, ...] = field(metadata={"static": True})
    """Names of the metrics; static, so that a compiled program returns them beside its arrays."""


class JaxUpdate(Update):
    """The update over a mesh of devices, each of which has all weights and a share of the rows.

    The program is written for the whole batch, and XLA divides it among the devices. So N devices give the result of
    one, including dropout, whose masks are drawn for the whole batch.
    """

    runs_ahead = True

    def __init__(self, model: Seq2Seq, optimizer: keras.optimizers.Optimizer, mesh: Mesh, **settings: Any):
        super().__init__(model, optimizer, **settings)
        self.num_devices = mesh.size
        self.everywhere = everywhere = NamedSharding(mesh, PartitionSpec())
        rows = NamedSharding(mesh, PartitionSpec(None, ROWS))
        # Donated: the new state is written to the memory of the old one.
        self._compiled = jax.jit(
            self._update,
            donate_argnums=0,
            in_shardings=(everywhere, everywhere, everywhere, rows),
            out_shardings=everywhere,
            # Autotuning Triton's kernels for every product and shape takes minutes. In 16 bits it gains little over
            # cuBLAS.
            compiler_options={"xla_gpu_enable_triton_gemm": model.dtype_policy.compute_dtype == "float32"},
        )
        self._precompiled: dict[tuple[tuple[int, ...], ...], Future] = {}

    def precompile(self, shapes: Iterable[tuple[int, int, int]]) -> None:
        """Compiles for these shapes in the background, several at once, while training uses those that are ready.

        On a GPU a dozen compilations take longer than thousands of updates. On a CPU they would compete with training,
        for shapes that may never occur.
        """
        if not has_gpu():
            return
        self._compilers = ThreadPoolExecutor(thread_name_prefix="compiling")
        state, frozen, seeds = self._place_all(self._variables), self._place_all(self.frozen), self._derive_seeds(1)
        for rows, *lengths in shapes:
            rows += -rows % self.rows_multiple
            examples = self._split(self.objective.make_empty_examples(rows, *lengths))
            lowered = self._compiled.lower(state, frozen, seeds, examples)
            self._precompiled[_get_shapes(examples)] = self._compilers.submit(lowered.compile)

    def start(self, batch: Batch, *, update: int, learning_rate: float) -> Callable[[], Outcome]:
        """Sends a batch to the devices, as in `Update`, and returns before they have finished."""
        self.optimizer.learning_rate = learning_rate
        examples = self._split(Examples.from_batch(batch))
        state = self._place_all(self._variables)
        try:
            compiling = self._precompiled.get(_get_shapes(examples))
            compiled = compiling.result() if compiling else self._compiled
            after, fetched = compiled(state, self._place_all(self.frozen), self._derive_seeds(update), examples)
        except jax.errors.JaxRuntimeError as error:
            # The update can be tried again only if the old state has not been overwritten.
            if "RESOURCE_EXHAUSTED" in str(error) and not any(x.is_deleted() for x in jax.tree.leaves(state)):
                raise OutOfMemoryError(str(error)) from error
            raise
        self._assign(after)
        fetched.values.copy_to_host_async()
        return lambda: _await_outcome(fetched)

    def halve_micro_batches(self) -> None:
        """Cuts further batches into twice as many micro-batches, for which all shapes are compiled again."""
        self.accumulation_steps *= 2

    def _split(self, examples: Examples) -> Examples:
        """Splits rows into micro-batches, each of which gets every A-th row: [B, ...] -> [A, B / A, ...]."""
        micros = range(self.accumulation_steps)
        return examples.map(lambda rows: np.stack([rows[micro :: self.accumulation_steps] for micro in micros]))

    def _derive_seeds(self, update: int) -> np.ndarray:
        """Returns a seed for each micro-batch and layer: int32 [A, D, 2]."""
        return derive_dropout_seeds(self.seed, update, (self.accumulation_steps, len(self.seed_states)))

    @cached_property
    def _variables(self) -> State:
        """The variables that hold the state between updates. Cached, because Keras needs milliseconds to list them."""
        optimizer = self.optimizer.variables
        return State(self.trained, self.averages, optimizer, self.loss_scale, self.good_updates)

    def _place_all(self, variables: Any) -> Any:
        return jax.tree.map(self._place, variables, is_leaf=_is_variable)

    def _place(self, variable: keras.Variable) -> jax.Array:
        """Returns the value of a variable on all devices, where it is already unless it was assigned from outside.

        A program is compiled for the placement of its arguments, so another placement would compile it again.
        """
        value = variable.value
        return value if value.committed else jax.device_put(value, self.everywhere)

    def _assign(self, state: State) -> None:
        jax.tree.map(lambda variable, x: variable.assign(x), self._variables, state, is_leaf=_is_variable)

    def _update(self, state: State, frozen: list, seeds: Any, examples: Examples) -> tuple[State, Fetched]:
        def add(gradients: list, micro_batch: tuple) -> tuple[list, Sums]:
            sums, more = self._micro_batch(state, frozen, *micro_batch)
            return [g + m for g, m in zip(gradients, more, strict=True)], sums

        # A scan, since micro-batches that ran in parallel would need the memory that accumulation is meant to save.
        # Gradients are carried, but sums are outputs: those need no initial value, so no metric is named here.
        gradients, each = jax.lax.scan(add, [jnp.zeros_like(w) for w in state.weights], (seeds, examples))
        pair_losses = each.pair_losses
        sums = jax.tree.map(lambda x: jnp.sum(x, axis=0), each._replace(pair_losses=()))
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in gradients))
        norm, factor = scale_gradients(norm, sums.num_tokens, state.loss_scale, self.clip_norm)
        gradients = [g * factor.astype(g.dtype) for g in gradients]
        finite = check_finite(norm, sums.loss)
        # Selecting values keeps the host from waiting, as it would for the condition of a branch.
        after = jax.tree.map(lambda new, old: jnp.where(finite, new, old), self._apply(state, gradients), state)
        if self.scales_loss:
            scale, good = adjust_loss_scale(state.loss_scale, state.good_updates, finite)
            after = after._replace(loss_scale=scale, good_updates=good)
        metrics = {**compute_means(sums), "gradient_norm": norm}
        values = [*metrics.values(), sums.num_tokens, finite]
        stacked = jnp.stack([x.astype(norm.dtype) for x in values])
        if self.objective.pair_losses:
            rows = jnp.ravel(pair_losses.T)  # [A, B / A] -> [B], in the order of the batch
            stacked = jnp.concatenate([stacked, rows.astype(norm.dtype)])
        return after, Fetched(stacked, tuple(metrics))

    def _micro_batch(self, state: State, frozen: list, seeds: Any, examples: Examples) -> tuple[Sums, list]:
        """Returns the sums of the objective, and the gradient of its scaled loss for each weight."""

        def scaled_loss(values: list) -> tuple:
            variables = [*self.trained, *self.frozen, *self.seed_states]
            mapping = list(zip(variables, [*values, *frozen, *seeds.astype("uint32")], strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                sums = self.objective(self.model, examples, training=True)
            return sums.loss * state.loss_scale.astype(sums.loss.dtype), sums

        gradients, sums = jax.grad(scaled_loss, has_aux=True)(state.weights)
        return sums, gradients

    def _apply(self, state: State, gradients: list) -> State:
        """Returns the state after the optimizer has used the gradients, with its moving averages."""
        weights, optimizer = self.optimizer.stateless_apply(state.optimizer, gradients, state.weights)
        values = dict(zip((v.path for v in self.optimizer.variables), optimizer, strict=True))
        decay = limit_decay(self.ema_decay, values[self.optimizer.iterations.path])
        pairs = zip(state.averages, weights[: len(state.averages)], strict=True)
        averages = [average_weights(average, weight, decay) for average, weight in pairs]
        return state._replace(weights=weights, averages=averages, optimizer=optimizer)


def _get_shapes(examples: Examples) -> tuple[tuple[int, ...], ...]:
    return tuple(array.shape for array in examples.arrays)


def _await_outcome(fetched: Fetched) -> Outcome:
    """Waits for the result of an update."""
    values, count = np.asarray(fetched.values), len(fetched.names)
    *means, num_tokens, applied = values[: count + 2].tolist()
    metrics = dict(zip(fetched.names, means, strict=True))
    return Outcome(metrics, num_tokens, bool(applied), values[count + 2 :] if len(values) > count + 2 else None)


def _is_variable(x: Any) -> bool:
    return isinstance(x, keras.Variable)
