import math
from contextlib import nullcontext

import keras
import numpy as np
import pytest
import tensorflow as tf

from nmt.compilation import XlaKernels
from nmt.models import recurrent
from nmt.models.recurrent import LSTM, LSTMState

B, T, X, U = 2, 5, 3, 7  # sentences, positions, input units, units
TOLERANCE = {"float64": 1e-10, "float32": 1e-5, "mixed_bfloat16": 3e-2, "mixed_float16": 3e-3}

both_kinds = pytest.mark.parametrize("layer_norm", [False, True], ids=["plain", "layer_norm"])


def random(*shape, seed=1):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def made(layer_norm=False):
    """A layer with random weights, biases and scales among them."""
    layer = LSTM(U, layer_norm=layer_norm)
    layer.build((None, None, X))
    layer.set_weights([random(*weight.shape, seed=n) / 2 for n, weight in enumerate(layer.weights)])
    return layer


def inputs_of(layer, seed=1):
    return keras.ops.cast(random(B, T, X, seed=seed), layer.compute_dtype)


def state_of(layer, *batch_shape):
    """Some state in the types that the layer keeps it in."""
    zeros = layer.get_initial_state(batch_shape or (B,))
    return LSTMState(*(keras.ops.cast(random(*part.shape, seed=n), part.dtype) for n, part in enumerate(zeros)))


def array(x):
    return keras.ops.convert_to_numpy(keras.ops.cast(x, "float64"))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def standardised(x, scale):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-3) * scale


def numpy_lstm(layer, inputs, state):
    """The equations, a position at a time: hidden states and cells [B, T, U], gates i, f, g, o [4, B, T, U]."""
    kernel, recurrent_kernel, bias, *scales = (array(weight) for weight in layer.weights)
    (hidden, cell), trace = map(array, state), []
    for x in array(inputs).transpose(1, 0, 2):
        from_input, from_hidden = x @ kernel, hidden @ recurrent_kernel
        if scales:
            from_input, from_hidden = standardised(from_input, scales[0]), standardised(from_hidden, scales[1])
        z = from_input + from_hidden + bias
        i, f, g, o = (z[:, n * U : (n + 1) * U] for n in range(4))
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        cell = f * cell + i * g
        hidden = o * np.tanh(cell)
        trace.append((hidden, cell, i, f, g, o))
    hiddens, cells, *gates = (np.stack(part, axis=1) for part in zip(*trace, strict=True))
    return hiddens, cells, np.stack(gates)


def one_by_one(layer, inputs, state):
    """The same by `step_with_gates`."""
    trace = []
    for t in range(T):
        state, gates = layer.step_with_gates(inputs[:, t], state)
        trace.append((*state, *gates))
    hiddens, cells, *gates = (np.stack([array(one) for one in part], axis=1) for part in zip(*trace, strict=True))
    return hiddens, cells, np.stack(gates)


def keras_twin(layer):
    twin = keras.layers.LSTM(U, return_sequences=True, use_cudnn=False)
    twin.build((None, None, X))
    twin.set_weights(layer.get_weights())
    return twin


def test_one_unit_by_hand():
    layer = LSTM(1)
    layer.build((None, None, 1))
    # Gates of 3/4, 1/4, 1/2 and 9/10 in the order i, f, g, o, from the bias alone.
    bias = [math.log(3), -math.log(3), math.atanh(1 / 2), math.log(9)]
    layer.set_weights([np.zeros((1, 4)), np.zeros((1, 4)), np.array(bias)])
    state, gates = layer.step_with_gates(np.ones((1, 1), "float32"), LSTMState(*np.ones((2, 1, 1), "float32")))
    assert [float(gate[0, 0]) for gate in gates] == pytest.approx([3 / 4, 1 / 4, 1 / 2, 9 / 10])
    assert float(state.cell[0, 0]) == pytest.approx(1 / 4 * 1 + 3 / 4 * 1 / 2)
    assert float(state.hidden[0, 0]) == pytest.approx(9 / 10 * math.tanh(5 / 8))


@both_kinds
def test_forget_gates_alone_start_open(layer_norm):
    layer = LSTM(U, layer_norm=layer_norm)
    layer.build((None, None, X))
    bias = next(weight for weight in layer.weights if weight.name == "bias")
    np.testing.assert_array_equal(array(bias), [0] * U + [1] * U + [0] * 2 * U)


@both_kinds
@pytest.mark.parametrize("precision", TOLERANCE)
def test_sequence_follows_the_equations(set_precision, precision, layer_norm):
    set_precision(precision)
    layer = made(layer_norm)
    inputs, state = inputs_of(layer), state_of(layer)
    hiddens = layer(inputs, state)
    assert hiddens.shape == (B, T, U)
    assert hiddens.dtype == layer.compute_dtype
    np.testing.assert_allclose(array(hiddens), numpy_lstm(layer, inputs, state)[0], atol=TOLERANCE[precision])


@both_kinds
@pytest.mark.parametrize("precision", TOLERANCE)
def test_steps_show_states_and_gates_of_the_equations(set_precision, precision, layer_norm):
    set_precision(precision)
    layer = made(layer_norm)
    inputs, state = inputs_of(layer), state_of(layer)
    pairs = zip(one_by_one(layer, inputs, state), numpy_lstm(layer, inputs, state), strict=True)
    for shown, expected in pairs:
        np.testing.assert_allclose(shown, expected, atol=TOLERANCE[precision])


@both_kinds
def test_steps_equal_the_sequence(float64, layer_norm):
    layer = made(layer_norm)
    inputs, state = inputs_of(layer), state_of(layer)
    for t, hidden in enumerate(array(layer(inputs, state)).transpose(1, 0, 2)):
        state = layer.step(inputs[:, t], state)
        np.testing.assert_allclose(array(state.hidden), hidden, atol=1e-12)


@both_kinds
def test_a_step_keeps_leading_axes_apart(float64, layer_norm):
    layer = made(layer_norm)
    inputs, state = random(B, 11, X), state_of(layer, B, 11)
    together = layer.step(inputs, state)
    for k in range(11):
        alone = layer.step(inputs[:, k], LSTMState(state.hidden[:, k], state.cell[:, k]))
        np.testing.assert_allclose(array(together.hidden[:, k]), array(alone.hidden), atol=1e-12)
        np.testing.assert_allclose(array(together.cell[:, k]), array(alone.cell), atol=1e-12)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_equals_the_lstm_of_keras(set_precision, precision):
    set_precision(precision)
    layer = made()
    inputs, state = inputs_of(layer), state_of(layer)
    expected = keras_twin(layer)(inputs, initial_state=list(state))
    np.testing.assert_allclose(layer(inputs, state), expected, atol=TOLERANCE[precision])


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_what_a_gpu_runs_equals_what_a_cpu_runs(set_precision, monkeypatch, precision):
    set_precision(precision)
    layer = made()
    inputs, state = inputs_of(layer), state_of(layer)
    on_cpu = [layer(inputs, state), layer(inputs)]
    monkeypatch.setattr(recurrent, "is_cudnn_fastest", lambda: True)
    monkeypatch.setattr(recurrent, "_recur", None)
    for ours, fused in zip(on_cpu, [layer(inputs, state), layer(inputs)], strict=True):
        np.testing.assert_allclose(ours, fused, atol=TOLERANCE[precision])


@both_kinds
def test_nothing_read_yet_is_zeros(layer_norm):
    layer = made(layer_norm)
    inputs = inputs_of(layer)
    zeros = np.zeros((B, U), "float32")
    np.testing.assert_array_equal(layer(inputs), layer(inputs, LSTMState(zeros, zeros)))


@both_kinds
@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_cells_stay_float32_in_half_precision(set_precision, precision, layer_norm):
    set_precision(precision)
    layer = made(layer_norm)
    start = layer.get_initial_state((B,))
    state, gates = layer.step_with_gates(inputs_of(layer)[:, 0], start)
    assert start.cell.dtype == state.cell.dtype == "float32"
    assert start.hidden.dtype == state.hidden.dtype == precision.removeprefix("mixed_")
    assert {gate.dtype.name for gate in gates} == {"float32"}


@both_kinds
def test_what_comes_later_changes_nothing(layer_norm):
    layer = made(layer_norm)
    inputs = inputs_of(layer)
    longer = np.concatenate([inputs, random(B, 11, X, seed=2)], axis=1).astype("float32")
    np.testing.assert_allclose(layer(longer)[:, :T], layer(inputs), atol=1e-6)


@both_kinds
def test_neighbours_change_nothing(layer_norm):
    layer = made(layer_norm)
    inputs = inputs_of(layer)
    together = array(layer(inputs))
    np.testing.assert_allclose(layer(inputs[::-1])[::-1], together, atol=1e-6)
    np.testing.assert_allclose(layer(inputs[1:]), together[1:], atol=1e-6)


@pytest.mark.parametrize("way", [nullcontext, XlaKernels().activate], ids=["operations", "fused"])
def test_gradient_equals_numerical_differences(float64, way):
    layer, upstream = made(), random(T, B, U, seed=2)
    arguments = [random(T, B, 4 * U), *map(array, layer.weights[1:]), *map(array, state_of(layer))]

    def mixture(*arguments):
        with way():
            return tf.reduce_sum(recurrent._recur(*arguments) * upstream)

    computed, numerical = tf.test.compute_gradient(
        tf.function(mixture, autograph=False), [tf.constant(argument) for argument in arguments], delta=1e-5
    )
    for one, other in zip(computed, numerical, strict=True):
        assert np.abs(one).max() > 1e-2
        np.testing.assert_allclose(one, other, atol=1e-8)


@pytest.mark.parametrize("way", [nullcontext, XlaKernels().activate], ids=["operations", "fused"])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_gradient_equals_plain_differentiation(set_precision, precision, way):
    set_precision(precision)
    layer = made()
    twin = keras_twin(layer)
    inputs, state = inputs_of(layer), state_of(layer)
    with way():
        ours = gradients(lambda: layer(inputs, state), [inputs, *state, *layer.weights])
    plain = gradients(lambda: twin(inputs, initial_state=list(state)), [inputs, *state, *twin.weights])
    for one, other in zip(ours, plain, strict=True):
        np.testing.assert_allclose(one, other, atol=10 * TOLERANCE[precision])


@both_kinds
def test_every_weight_gets_a_gradient(layer_norm):
    layer = made(layer_norm)
    for gradient in gradients(lambda: layer(inputs_of(layer)), layer.trainable_weights):
        assert np.abs(gradient).max() > 0


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_gradient_in_half_precision_is_near_the_exact_one(set_precision, precision):
    found = []
    for one in ("float32", precision):
        set_precision(one)
        layer = made()
        found.append(gradients(lambda layer=layer: layer(inputs_of(layer)), layer.trainable_weights))
    for exact, half in zip(*found, strict=True):
        assert half.dtype == "float32"
        assert np.linalg.norm(half - exact) < TOLERANCE[precision] * np.linalg.norm(exact)


def gradients(run, sources):
    """Of a random mixture of all outputs with respect to tensors and weights."""
    sources = [getattr(source, "value", source) for source in sources]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        outputs = run()
        mixture = tf.reduce_sum(outputs * tf.cast(random(*outputs.shape, seed=3), outputs.dtype))
    return [array(gradient).astype(gradient.dtype.name) for gradient in tape.gradient(mixture, sources)]
