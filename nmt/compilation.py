"""Everything that models and search need and Keras does not give for both TensorFlow and JAX: compilation and loops.

B sentences, T positions, R rows, N, K and U any size. An ellipsis stands for any number of axes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, TypeVar

from nmt.backend import keras
from nmt.process import silence_stderr

State = TypeVar("State")


@cache
def has_gpu() -> bool:
    """Returns whether the backend can use a GPU."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_logical_devices("GPU"))
    import jax

    return jax.default_backend() == "gpu"


def is_cudnn_fastest() -> bool:
    """Returns whether cuDNN's LSTM reads whole sequences fastest, as it does on TensorFlow with a GPU."""
    # On JAX our own scan is faster, 3.0 ms per update in float32 instead of 4.9 (benchmarks/NOTES.md, "Training on a
    # GPU"): the call of cuDNN stands outside of XLA's program, and each one waits for the host.
    return keras.backend.backend() == "tensorflow" and has_gpu()


def has_static_shapes() -> bool:
    """Returns whether every new shape costs a compilation, as on JAX, so that there should be few of them."""
    return keras.backend.backend() == "jax"


_is_differentiated: ContextVar[bool] = ContextVar("is_differentiated", default=True)


def is_differentiated() -> bool:
    """Returns whether gradients may be computed of what runs or is traced now; false in `without_gradients`."""
    return _is_differentiated.get()


@contextmanager
def without_gradients() -> Iterator[None]:
    """Promises that nothing inside the block is differentiated, so that no layer prepares a gradient of its own.

    TensorFlow registers such a gradient under a new name for every graph, in a registry that is never cleared. The
    gradient refers to the tensors of its graph, so that no graph with one is ever freed: 12 MB per search.
    """
    token = _is_differentiated.set(False)
    try:
        yield
    finally:
        _is_differentiated.reset(token)


def compile_function(
    function: Callable, variables: Sequence[Any], *, num_inputs: int, scalars: Mapping[str, str] | None = None
) -> Callable:
    """Compiles a function of int32 matrices that reads Keras variables and is never differentiated.

    Args:
        function: takes `num_inputs` tensors [B, N], and a mapping of scalars if there are any, and returns a nest of
            tensors.
        variables: all variables that it reads. The compiled function sees later changes of their values.
        num_inputs: number of its matrices.
        scalars: names and types of further inputs, which the compiled function takes as one mapping. Their values can
            change from call to call without another compilation.
    """

    def trace(*inputs: Any) -> Any:
        with without_gradients():
            return function(*inputs)

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # One graph for all shapes. XLA would compile each shape, and halves the speed of a search because its matrix
        # products are slower than oneDNN's (benchmarks/NOTES.md).
        signature: list = [tf.TensorSpec([None, None], tf.int32)] * num_inputs
        if scalars:
            signature.append({name: tf.TensorSpec([], dtype) for name, dtype in scalars.items()})
        compiled = tf.function(trace, input_signature=signature, autograph=False)
        # TensorFlow would warn that it traces the same code often: every search is traced once.
        get_traced = cache(compiled.get_concrete_function)
        return lambda *inputs: get_traced()(*inputs)
    import jax

    # The values are arguments of the compiled function: JAX would bake those of closed-over variables into it.
    @jax.jit
    def run(values: list, *inputs: Any) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return trace(*inputs)

    return lambda *inputs: run([variable.value for variable in variables], *inputs)


class XlaKernels:
    """Elementwise functions that XLA compiles for TensorFlow, once for every shape that occurs.

    Only for work on a single device whose tensors have few shapes, such as the positions of a training batch. In a
    search, the time to compile outweighs the gain (benchmarks/NOTES.md).
    """

    def __init__(self) -> None:
        self._functions: dict[Callable, Any] = {}
        self._traced: list[Any] = []

    @contextmanager
    def activate(self) -> Iterator[None]:
        """Makes `fuse` use these kernels inside the block."""
        token = _active_kernels.set(self)
        try:
            yield
        finally:
            _active_kernels.reset(token)

    def get(self, function: Callable) -> Callable:
        """Returns the kernel of a function. Layers of equal size share it, and thus its compilation."""
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
        """Returns a function that compiles all kernels traced so far for a given number of rows.

        The number of rows stands for every size that was unknown when the kernels were traced.
        """
        import tensorflow as tf

        def run_on_zeros(traced: Any, rows: Any) -> list:
            shapes = [([rows if n is None else n for n in spec.shape], spec.dtype) for spec in traced.inputs]
            return tf.nest.flatten(traced(*(tf.zeros(shape, dtype) for shape, dtype in shapes)))

        def compile_all(rows: Any) -> list:
            # TensorFlow does not run an operation whose result nobody uses, and XLA compiles a kernel when it first
            # runs. So every result has to be used: the sums do that.
            return [tf.reduce_sum(result) for traced in self._traced for result in run_on_zeros(traced, rows)]

        compile_traced = tf.function(compile_all, input_signature=[tf.TensorSpec([], tf.int32)], autograph=False)
        compile_traced.get_concrete_function()
        return lambda rows: compile_traced(tf.constant(rows))


_active_kernels: ContextVar[XlaKernels | None] = ContextVar("kernels", default=None)


@cache
def silence_xla_banner() -> None:
    """Makes TensorFlow 2.20 log to nowhere what it logs once per process: that XLA has compiled something."""
    import tensorflow as tf

    with silence_stderr():
        tf.function(lambda: tf.zeros(()), jit_compile=True)()


def fuse(function: Callable) -> Callable:
    """Returns an elementwise function of tensors as one kernel, one pass over memory, where `XlaKernels` are active.

    Matrix products do not belong into such a function: XLA's are slow in 16 bits on a CPU. On JAX the function is
    returned as it is, since XLA fuses all that JAX compiles.
    """
    kernels = _active_kernels.get()
    return function if kernels is None or keras.backend.backend() != "tensorflow" else kernels.get(function)


def draw_bytes(like: Any, last: int | None, seed: Any) -> tuple[Any, Any]:
    """Draws uniformly distributed bytes that depend on the seed alone.

    Args:
        like: a tensor [..., N] that gives the shape.
        last: the size of the last axis, or None for N.
        seed: integer [2].

    Returns:
        uint8 [..., last], and four bytes more, uint8 [4].
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        shape = tf.shape(like)
        if last is not None:
            shape = tf.concat([shape[:-1], [last]], axis=0)
        # TensorFlow draws no bytes: four of them share one 32-bit word. One more covers any rest, the last is spare.
        words = tf.random.stateless_uniform(
            [tf.reduce_prod(shape) // 4 + 2], seed, minval=None, maxval=None, dtype=tf.int32
        )
        drawn = tf.reshape(tf.bitcast(words, tf.uint8), [-1])
        return tf.reshape(drawn[: tf.reduce_prod(shape)], shape), drawn[-4:]
    import jax

    shape = (*like.shape[:-1], like.shape[-1] if last is None else last)
    key = jax.random.wrap_key_data(seed)
    return jax.random.bits(key, shape, "uint8"), jax.random.bits(jax.random.fold_in(key, 1), (4,), "uint8")


def compute_gradient(function: Callable[[Any], Any], x: Any, variables: Sequence[Any]) -> Any:
    """Computes the gradient of a function of one tensor, once: a second call would take as long.

    Args:
        function: takes x and returns a scalar.
        x: a tensor.
        variables: all variables that the function reads.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return tape.gradient(y, x)
    import jax

    # Compiled, since JAX would compile every single operation otherwise.
    @jax.jit
    def run(values: list, x: Any) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return jax.grad(function)(x)

    return run([variable.value for variable in variables], x)


def gather_rows(table: Any, ids: Any) -> Any:
    """Gathers rows of a table [R, ...] by ids int [N, K], or of any other shape: [N, K, ...]. No id may be negative."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # keras.ops.take allows for negative ids, at the cost of six more operations. A step of a search computes so
        # little that the number of its operations decides how long it takes.
        return tf.gather(keras.ops.convert_to_tensor(table), ids)
    return keras.ops.take(table, ids, axis=0)


def batch_gather(rows: Any, indices: Any) -> Any:
    """Gathers from each row [N, ...] of [R, N, ...] the elements at its own indices, int [R, K]: [R, K, ...]."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.gather(rows, indices, batch_dims=1)
    import jax

    return jax.vmap(lambda row, its_indices: row[its_indices])(rows, indices)


def map_pair(function: Callable, *pairs: tuple[Any, Any]) -> tuple[Any, Any]:
    """Applies a function to the first arrays of all pairs and to the second arrays of all pairs.

    Args:
        function: takes as many arrays as there are pairs and returns one.
        pairs: two arrays of equal shape each.
    """
    # On JAX with a GPU, both are computed at once. There, a loop of small products waits for its kernels to be
    # launched, and one loop over both launches half as many. A CPU is busy with one of them already.
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
    """Carries a state along the first axis of the inputs and returns the state after each position.

    Args:
        body: takes the state and the inputs at one position; returns the next state, with the same structure, shapes
            and types.
        state: a nest of tensors.
        inputs: a nest of tensors [T, ...].
        reverse: whether to start at the last position. The order of the results is that of the inputs in any case.
        differentiable: whether gradients have to pass through the loop. Without them TensorFlow reads the inputs in
            place, which saves a copy of each.

    Returns:
        The nest of states, each [T, ...].
    """
    # keras.ops.scan fails on TensorFlow if the number of positions is unknown and there are several inputs (Keras
    # 3.15), and it carries the state in a TensorArray.
    if keras.backend.backend() == "tensorflow":
        return _scan_tensorflow(body, state, inputs, reverse, differentiable)
    import jax

    def step(state: State, at: Any) -> tuple[State, State]:
        state = body(state, at)
        return state, state

    # On a GPU, counting and copying take a loop as long as the work of one position, so several share an iteration.
    return jax.lax.scan(step, state, inputs, reverse=reverse, unroll=4 if has_gpu() else 1)[1]


def _scan_tensorflow(body: Callable, state: Any, inputs: Any, reverse: bool, differentiable: bool) -> Any:
    import tensorflow as tf

    flat = [tf.convert_to_tensor(x) for x in keras.tree.flatten(inputs)]
    length = tf.shape(flat[0])[0]
    if differentiable:
        # The gradient of x[position] is a tensor as large as x, at every position. That of a TensorArray is one write.
        arrays = [tf.TensorArray(x.dtype, length, element_shape=x.shape[1:]).unstack(x) for x in flat]
    carried = [tf.convert_to_tensor(x) for x in keras.tree.flatten(state)]
    writes = [tf.TensorArray(x.dtype, length, element_shape=x.shape) for x in carried]

    def advance(position: Any, carried: list, writes: list) -> tuple:
        rows = [array.read(position) for array in arrays] if differentiable else [x[position] for x in flat]
        at = keras.tree.pack_sequence_as(inputs, rows)
        after = keras.tree.flatten(body(keras.tree.pack_sequence_as(state, carried), at))
        writes = [array.write(position, x) for array, x in zip(writes, after, strict=True)]
        return position + (-1 if reverse else 1), after, writes

    def has_more(position: Any, *_: Any) -> Any:
        return position >= 0 if reverse else position < length

    _, _, writes = tf.while_loop(has_more, advance, (length - 1 if reverse else 0, carried, writes))
    return keras.tree.pack_sequence_as(state, [array.stack() for array in writes])
