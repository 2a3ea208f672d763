"""The one place that knows both compilers, TensorFlow's and JAX's."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, TypeVar

from nmt.backend import keras
from nmt.process import silence_stderr

State = TypeVar("State")


@cache
def has_gpu() -> bool:
    """Whether the backend sees a GPU."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_logical_devices("GPU"))
    import jax

    return jax.default_backend() == "gpu"


def is_cudnn_fastest() -> bool:
    """Whether whole sequences are left to cuDNN's LSTM: by TensorFlow on a GPU.

    On JAX our own scan is faster, which cuDNN, called from outside of the program, holds up (docs/performance.md).
    """
    return keras.backend.backend() == "tensorflow" and has_gpu()


def has_static_shapes() -> bool:
    """Whether every new shape costs a compilation, as always on JAX, so that there should be few of them."""
    return keras.backend.backend() == "jax"


def compile_function(function: Callable, variables: Sequence[Any], *, num_inputs: int) -> Callable:
    """Compiles a function of int32 matrices that reads Keras variables.

    Args:
        function: takes `num_inputs` tensors [B, N] and returns a nest of tensors.
        variables: all that it reads; later changes of their values are seen.
        num_inputs: of the function.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # One graph for all shapes: XLA, which compiles each by itself, would halve the speed (docs/performance.md).
        signature = [tf.TensorSpec([None, None], tf.int32)] * num_inputs
        return tf.function(function, input_signature=signature, autograph=False)
    import jax

    @jax.jit
    def run(values: list, *inputs: Any) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return function(*inputs)

    return lambda *inputs: run([variable.value for variable in variables], *inputs)


class XlaKernels:
    """Elementwise functions that XLA compiles for TensorFlow, each for every shape that it meets, when it meets it.

    For work of few shapes on a single device.
    """

    def __init__(self) -> None:
        self._functions: dict[Callable, Any] = {}
        self._traced: list[Any] = []

    @contextmanager
    def activate(self) -> Iterator[None]:
        """While it lasts, `fuse` makes kernels that belong to these."""
        token = _active_kernels.set(self)
        try:
            yield
        finally:
            _active_kernels.reset(token)

    def get(self, function: Callable) -> Callable:
        """The kernel of a function; layers of equal size share it, and its compilation."""
        import tensorflow as tf

        if function not in self._functions:
            self._functions[function] = tf.function(function, jit_compile=True, autograph=False)

        def call(*args: Any) -> Any:
            traced = self._functions[function].get_concrete_function(*args)
            if traced not in self._traced:
                self._traced.append(traced)
            return traced(*args)

        return call

    def make_compiler(self) -> Callable[[int], Any]:
        """What compiles the kernels that have been traced, for so many rows where their number was left open."""
        import tensorflow as tf

        def of_zeros(traced: Any, rows: Any) -> list:
            shapes = [([rows if n is None else n for n in spec.shape], spec.dtype) for spec in traced.inputs]
            return tf.nest.flatten(traced(*(tf.zeros(shape, dtype) for shape, dtype in shapes)))

        def compile_all(rows: Any) -> list:
            # Sums, for what nobody asks for is not computed, and what is not computed is not compiled.
            return [tf.reduce_sum(result) for traced in self._traced for result in of_zeros(traced, rows)]

        compile_traced = tf.function(compile_all, input_signature=[tf.TensorSpec([], tf.int32)], autograph=False)
        compile_traced.get_concrete_function()
        return lambda rows: compile_traced(tf.constant(rows))


_active_kernels: ContextVar[XlaKernels | None] = ContextVar("kernels", default=None)


@cache
def silence_xla_banner() -> None:
    """Lets TensorFlow 2.20 say where nobody hears it what it says once a process: that XLA has compiled something."""
    import tensorflow as tf

    with silence_stderr():
        tf.function(lambda: tf.zeros(()), jit_compile=True)()


def fuse(function: Callable) -> Callable:
    """Makes an elementwise function of tensors one pass over memory, where `XlaKernels` are in use.

    Matrix products do not belong in it: XLA's are slow in 16 bits on a CPU. JAX fuses whatever it compiles.
    """
    kernels = _active_kernels.get()
    return function if kernels is None or keras.backend.backend() != "tensorflow" else kernels.get(function)


def draw_bytes(like: Any, last: int | None, seed: Any) -> Any:
    """Uniform bytes, a function of the seed alone.

    Args:
        like: the tensor [..., N] that they are for.
        last: how many there are in place of the N, or None for as many.
        seed: integer [2].

    Returns:
        uint8 [..., N], or [..., last].
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        shape = tf.shape(like)
        if last is not None:
            shape = tf.concat([shape[:-1], [last]], axis=0)
        words = tf.random.stateless_uniform(
            [tf.reduce_prod(shape) // 4 + 1], seed, minval=None, maxval=None, dtype=tf.int32
        )
        return tf.reshape(tf.reshape(tf.bitcast(words, tf.uint8), [-1])[: tf.reduce_prod(shape)], shape)
    import jax

    shape = (*like.shape[:-1], like.shape[-1] if last is None else last)
    return jax.random.bits(jax.random.wrap_key_data(seed), shape, "uint8")


def gather_rows(table: Any, ids: Any) -> Any:
    """Rows of a table [N, ...] by their ids [...], none of which may be negative.

    `keras.ops.take` makes allowance for negative ids, which on TensorFlow is six operations more; where a step of a
    search has little to compute, its operations are what it costs.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.gather(keras.ops.convert_to_tensor(table), ids)
    return keras.ops.take(table, ids, axis=0)


def batch_gather(rows: Any, places: Any) -> Any:
    """Takes from each of rows [R, N, ...] what stands at its own places [R, K]: [R, K, ...]."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.gather(rows, places, batch_dims=1)
    import jax

    return jax.vmap(lambda row, its_places: row[its_places])(rows, places)


def map_pair(function: Callable, *pairs: tuple[Any, Any]) -> tuple[Any, Any]:
    """Applies a function to the first of every pair and to the second of every pair.

    JAX on a GPU computes both at once: a loop of small products there waits for its kernels to be launched, of which
    two loops have twice as many. A CPU has enough to do with one.

    Args:
        function: of one array or several, returns one.
        pairs: arrays of equal shape.
    """
    if keras.backend.backend() == "jax" and has_gpu():
        import jax

        first, second = jax.vmap(function)(*(keras.ops.stack(pair) for pair in pairs))
        return first, second
    first, second = (function(*arrays) for arrays in zip(*pairs, strict=True))
    return first, second


def scan(
    body: Callable[[State, Any], State],
    state: State,
    inputs: Any,
    *,
    reverse: bool = False,
    differentiable: bool = True,
) -> State:
    """Carries a state through the first axis of the inputs and returns it as it was after each position.

    `keras.ops.scan` does this too, but fails on TensorFlow where the number of positions is unknown and there are
    several inputs (Keras 3.15), and passes the state through arrays of its own.

    Args:
        body: (state, inputs at one position) -> the next state, of the same structure, shapes and types.
        state: a nest of tensors.
        inputs: a nest of tensors [T, ...].
        reverse: begin with the last position; results stand at the positions where they were made all the same.
        differentiable: whether a gradient will pass through; otherwise TensorFlow reads the inputs in place, which
            saves a copy of each.

    Returns:
        The nest of states, each [T, ...].
    """
    if keras.backend.backend() == "tensorflow":
        return _scan_tensorflow(body, state, inputs, reverse, differentiable)
    import jax

    def step(state: State, at: Any) -> tuple[State, State]:
        state = body(state, at)
        return state, state

    # On a GPU what a loop does besides, counting and copying, takes as long as the work of one position.
    return jax.lax.scan(step, state, inputs, reverse=reverse, unroll=4 if has_gpu() else 1)[1]


def _scan_tensorflow(body: Callable, state: Any, inputs: Any, reverse: bool, differentiable: bool) -> Any:
    import tensorflow as tf

    flat = [tf.convert_to_tensor(x) for x in keras.tree.flatten(inputs)]
    length = tf.shape(flat[0])[0]
    if differentiable:
        arrays = [tf.TensorArray(x.dtype, length, element_shape=x.shape[1:]).unstack(x) for x in flat]
    carried = [tf.convert_to_tensor(x) for x in keras.tree.flatten(state)]
    writes = [tf.TensorArray(x.dtype, length, element_shape=x.shape) for x in carried]

    def advance(position: Any, carried: list, writes: list) -> tuple:
        rows = [array.read(position) for array in arrays] if differentiable else [x[position] for x in flat]
        at = keras.tree.pack_sequence_as(inputs, rows)
        after = keras.tree.flatten(body(keras.tree.pack_sequence_as(state, carried), at))
        writes = [array.write(position, x) for array, x in zip(writes, after, strict=True)]
        return position + (-1 if reverse else 1), after, writes

    def more(position: Any, *_: Any) -> Any:
        return position >= 0 if reverse else position < length

    _, _, writes = tf.while_loop(more, advance, (length - 1 if reverse else 0, carried, writes))
    return keras.tree.pack_sequence_as(state, [array.stack() for array in writes])
