import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from nmt.compilation import (
    XlaKernels,
    batch_gather,
    compile_function,
    draw_bytes,
    fuse,
    gather_rows,
    map_pair,
    scan,
)

T, B, U = 5, 2, 3  # positions, sentences, units


def random(*shape, seed=1):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype("float32")


@pytest.mark.parametrize("shape", [(11,), (2, 5)])
def test_gather_rows_takes_rows_by_their_ids(shape):
    table = random(7, 3)
    ids = np.random.default_rng(1).integers(7, size=shape).astype("int32")
    found = gather_rows(ops.convert_to_tensor(table), ops.convert_to_tensor(ids))
    assert found.shape == (*shape, 3)
    np.testing.assert_array_equal(found, table[ids])


def test_batch_gather_takes_from_each_row_at_its_own_indices():
    rows = np.arange(2 * 5 * 3).reshape(2, 5, 3).astype("int32")
    indices = np.array([[4, 0, 0, 1], [1, 2, 3, 3]], "int32")
    found = batch_gather(ops.convert_to_tensor(rows), ops.convert_to_tensor(indices))
    assert found.shape == (2, 4, 3)
    np.testing.assert_array_equal(found, [rows[0][indices[0]], rows[1][indices[1]]])


@pytest.mark.parametrize(("last", "expected"), [(None, (5, 7, 11)), (1, (5, 7, 1)), (13, (5, 7, 13))])
def test_draw_bytes_gives_the_shape_asked_for_and_depends_on_the_seed(last, expected):
    first, again, other = (
        np.asarray(draw_bytes(tf.zeros((5, 7, 11)), last, seed)[0]) for seed in ([1, 2], [1, 2], [1, 3])
    )
    assert first.shape == expected and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


def test_draw_bytes_draws_every_byte_equally_often():
    drawn, spare = draw_bytes(tf.zeros((1000, 1000)), None, [1, 2])
    assert spare.shape == (4,) and spare.dtype == np.uint8
    counts = np.bincount(np.asarray(drawn).ravel(), minlength=256)
    expected = 1_000_000 / 256
    assert np.abs(counts - expected).max() < 5 * expected**0.5


def test_map_pair_applies_a_function_to_first_and_to_second_arrays():
    first, second = map_pair(lambda x, y: x - 2 * y, (random(3), random(3, seed=2)), (np.ones(3), np.zeros(3)))
    np.testing.assert_allclose(first, random(3) - 2)
    np.testing.assert_allclose(second, random(3, seed=2))


def numpy_scan(state, inputs, scales, reverse):
    """Returns [T, B, U] states of s' = s * scale + x."""
    states = np.zeros(inputs.shape)
    for t in reversed(range(T)) if reverse else range(T):
        states[t] = state = state * scales[t] + inputs[t]
    return states


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("differentiable", [False, True], ids=["fixed", "differentiable"])
def test_scan_carries_a_nest_of_states_over_several_inputs_of_unknown_length(reverse, differentiable):
    state, inputs, scales = random(B, U), random(T, B, U), random(T)

    @tf.function(input_signature=[tf.TensorSpec([None, B, U]), tf.TensorSpec([None])], autograph=False)
    def run(inputs, scales):
        def body(carry, at):
            values, count = carry
            return values * at[1] + at[0], count + 1

        start = (tf.constant(state), tf.constant(0))
        return scan(body, start, (inputs, scales), reverse=reverse, differentiable=differentiable)

    states, counts = run(inputs, scales)
    assert states.shape == (T, B, U)
    np.testing.assert_allclose(states, numpy_scan(state, inputs, scales, reverse), rtol=1e-5)
    # The count says in which order the positions were visited; results stand where their inputs stand.
    np.testing.assert_array_equal(counts, [5, 4, 3, 2, 1] if reverse else [1, 2, 3, 4, 5])


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_gradients_pass_through_a_scan(reverse):
    inputs = tf.constant(random(T, 1))
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        total = tf.reduce_sum(scan(lambda s, x: s / 2 + x, tf.zeros(1), inputs, reverse=reverse))
    # An input adds 1 to the state at its position, 1/2 to the next one, 1/4 to the one after that, ...
    num_later = np.arange(T) if reverse else np.arange(T)[::-1]
    np.testing.assert_allclose(tape.gradient(total, inputs)[:, 0], 2 - 0.5**num_later)


def test_a_compiled_function_takes_all_shapes_and_sees_later_values():
    weight = keras.Variable(2.0)

    def multiply(left, right):
        return ops.sum(ops.cast(left, "float32")) * weight - ops.sum(ops.cast(right, "float32"))

    run = compile_function(multiply, [weight], num_inputs=2)
    assert float(run(np.ones((2, 3), "int32"), np.ones((1, 5), "int32"))) == 6 * 2 - 5
    weight.assign(3.0)
    assert float(run(np.ones((1, 7), "int32"), np.ones((2, 11), "int32"))) == 7 * 3 - 22


def doubled(x):
    return 2 * x + 1


def test_a_kernel_is_shared_and_computes_its_function():
    kernels = XlaKernels()
    values = random(3, 2)

    @tf.function(input_signature=[tf.TensorSpec([None, 2])], autograph=False)
    def twice(x):
        with kernels.activate():
            return fuse(doubled)(fuse(doubled)(x))

    np.testing.assert_array_equal(twice(values), doubled(doubled(values)))
    assert fuse(doubled) is doubled  # outside of `activate`
    # The compiler runs the only kernel that there is, on zeros.
    assert [float(total) for total in kernels.make_compiler()(5)] == [5 * 2 * 1.0]
