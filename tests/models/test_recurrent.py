import math
from contextlib import nullcontext

import keras
import numpy as np
import pytest
import tensorflow as tf

from nmt.compilation import XlaKernels
from nmt.models import recurrent
from nmt.models.recurrent import LSTM, LSTMState, run_bidirectional

B, T, X, U = 2, 5, 3, 7  # sentences, positions, input units, units
TOLERANCE = {"float64": 1e-10, "float32": 1e-5, "mixed_bfloat16": 3e-2, "mixed_float16": 3e-3}

both_kinds = pytest.mark.parametrize("layer_norm", [False, True], ids=["plain", "layer_norm"])


def random(*shape, seed=1):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def make_layer(layer_norm=False, dropout=0.0):
    """Returns a layer with random weights, biases and scales."""
    layer = LSTM(U, layer_norm=layer_norm, dropout=dropout)
    layer.build((None, None, X))
    layer.set_weights([random(*weight.shape, seed=n) / 2 for n, weight in enumerate(layer.weights)])
    return layer


def make_inputs(layer, seed=1):
    return keras.ops.cast(random(B, T, X, seed=seed), layer.compute_dtype)


def make_state(layer, *batch_shape):
    """Returns a random state in the types that the layer keeps it in."""
    zeros = layer.get_initial_state(batch_shape or (B,))
    return LSTMState(*(keras.ops.cast(random(*part.shape, seed=n), part.dtype) for n, part in enumerate(zeros)))


def to_numpy(x):
    return keras.ops.convert_to_numpy(keras.ops.cast(x, "float64"))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def standardize(x, scale):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-3) * scale


def numpy_lstm(layer, inputs, state):
    """Computes hidden states and cells [B, T, U] and gates i, f, g, o [4, B, T, U] by the equations."""
    kernel, recurrent_kernel, bias, *scales = (to_numpy(weight) for weight in layer.weights)
    (hidden, cell), trace = map(to_numpy, state), []
    for x in to_numpy(inputs).transpose(1, 0, 2):
        from_input, from_hidden = x @ kernel, hidden @ recurrent_kernel
        if scales:
            from_input, from_hidden = standardize(from_input, scales[0]), standardize(from_hidden, scales[1])
        z = from_input + from_hidden + bias
        i, f, g, o = (z[:, n * U : (n + 1) * U] for n in range(4))
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        cell = f * cell + i * g
        hidden = o * np.tanh(cell)
        trace.append((hidden, cell, i, f, g, o))
    hiddens, cells, *gates = (np.stack(part, axis=1) for part in zip(*trace, strict=True))
    return hiddens, cells, np.stack(gates)


def run_steps(layer, inputs, state):
    """Computes what `numpy_lstm` does by `step_with_gates`."""
    trace = []
    for t in range(T):
        state, gates = layer.step_with_gates(inputs[:, t], state)
        trace.append((*state, *gates))
    hiddens, cells, *gates = (np.stack([to_numpy(one) for one in part], axis=1) for part in zip(*trace, strict=True))
    return hiddens, cells, np.stack(gates)


def make_keras_twin(layer):
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
def test_only_forget_gates_start_open(layer_norm):
    layer = LSTM(U, layer_norm=layer_norm)
    layer.build((None, None, X))
    bias = next(weight for weight in layer.weights if weight.name == "bias")
    np.testing.assert_array_equal(to_numpy(bias), [0] * U + [1] * U + [0] * 2 * U)


@both_kinds
@pytest.mark.parametrize("precision", TOLERANCE)
def test_a_sequence_follows_the_equations(set_precision, precision, layer_norm):
    set_precision(precision)
    layer = make_layer(layer_norm)
    inputs, state = make_inputs(layer), make_state(layer)
    hiddens = layer(inputs, state)
    assert hiddens.shape == (B, T, U)
    assert hiddens.dtype == layer.compute_dtype
    np.testing.assert_allclose(to_numpy(hiddens), numpy_lstm(layer, inputs, state)[0], atol=TOLERANCE[precision])


@both_kinds
@pytest.mark.parametrize("precision", TOLERANCE)
def test_steps_return_states_and_gates_of_the_equations(set_precision, precision, layer_norm):
    set_precision(precision)
    layer = make_layer(layer_norm)
    inputs, state = make_inputs(layer), make_state(layer)
    pairs = zip(run_steps(layer, inputs, state), numpy_lstm(layer, inputs, state), strict=True)
    for shown, expected in pairs:
        np.testing.assert_allclose(shown, expected, atol=TOLERANCE[precision])


@both_kinds
def test_steps_equal_the_sequence(float64, layer_norm):
    layer = make_layer(layer_norm)
    inputs, state = make_inputs(layer), make_state(layer)
    for t, hidden in enumerate(to_numpy(layer(inputs, state)).transpose(1, 0, 2)):
        state = layer.step(inputs[:, t], state)
        np.testing.assert_allclose(to_numpy(state.hidden), hidden, atol=1e-12)


@both_kinds
def test_a_step_keeps_leading_axes_apart(float64, layer_norm):
    layer = make_layer(layer_norm)
    inputs, state = random(B, 11, X), make_state(layer, B, 11)
    together = layer.step(inputs, state)
    assert together.hidden.shape == together.cell.shape == (B, 11, U)
    for k in range(11):
        alone = layer.step(inputs[:, k], LSTMState(state.hidden[:, k], state.cell[:, k]))
        np.testing.assert_allclose(to_numpy(together.hidden[:, k]), to_numpy(alone.hidden), atol=1e-12)
        np.testing.assert_allclose(to_numpy(together.cell[:, k]), to_numpy(alone.cell), atol=1e-12)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_equals_the_lstm_of_keras(set_precision, precision):
    set_precision(precision)
    layer = make_layer()
    inputs, state = make_inputs(layer), make_state(layer)
    expected = make_keras_twin(layer)(inputs, initial_state=list(state))
    np.testing.assert_allclose(layer(inputs, state), expected, atol=TOLERANCE[precision])


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_gpu_computes_what_a_cpu_computes(set_precision, monkeypatch, precision):
    set_precision(precision)
    layer = make_layer()
    inputs, state = make_inputs(layer), make_state(layer)
    on_cpu = [layer(inputs, state), layer(inputs)]
    monkeypatch.setattr(recurrent, "is_cudnn_fastest", lambda: True)
    monkeypatch.setattr(recurrent, "_recur", None)
    for ours, fused in zip(on_cpu, [layer(inputs, state), layer(inputs)], strict=True):
        np.testing.assert_allclose(ours, fused, atol=TOLERANCE[precision])


@both_kinds
def test_the_initial_state_is_zeros(layer_norm):
    layer = make_layer(layer_norm)
    inputs = make_inputs(layer)
    assert [part.shape for part in layer.get_initial_state((B, 11))] == [(B, 11, U)] * 2
    zeros = np.zeros((B, U), "float32")
    np.testing.assert_array_equal(layer(inputs), layer(inputs, LSTMState(zeros, zeros)))


@both_kinds
@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_cells_stay_float32_in_half_precision(set_precision, precision, layer_norm):
    set_precision(precision)
    layer = make_layer(layer_norm)
    start = layer.get_initial_state((B,))
    state, gates = layer.step_with_gates(make_inputs(layer)[:, 0], start)
    assert start.cell.dtype == state.cell.dtype == "float32"
    assert start.hidden.dtype == state.hidden.dtype == precision.removeprefix("mixed_")
    assert {gate.dtype.name for gate in gates} == {"float32"}


@both_kinds
def test_later_positions_change_nothing(layer_norm):
    layer = make_layer(layer_norm)
    inputs = make_inputs(layer)
    longer = np.concatenate([inputs, random(B, 11, X, seed=2)], axis=1).astype("float32")
    np.testing.assert_allclose(layer(longer)[:, :T], layer(inputs), atol=1e-6)


@both_kinds
def test_neighbours_change_nothing(layer_norm):
    layer = make_layer(layer_norm)
    inputs = make_inputs(layer)
    together = to_numpy(layer(inputs))
    np.testing.assert_allclose(layer(inputs[::-1])[::-1], together, atol=1e-6)
    np.testing.assert_allclose(layer(inputs[1:]), together[1:], atol=1e-6)


@both_kinds
def test_two_directions_compute_what_two_layers_compute(float64, layer_norm):
    forward, backward = make_layer(layer_norm), make_layer(layer_norm)
    backward.set_weights([-weight for weight in forward.get_weights()])
    inputs = make_inputs(forward)
    ahead, back = run_bidirectional(forward, backward, inputs, inputs[:, ::-1])
    assert ahead.shape == back.shape == (B, T, U)
    np.testing.assert_allclose(ahead, forward(inputs), atol=1e-12)
    np.testing.assert_allclose(back, backward(inputs[:, ::-1]), atol=1e-12)


@pytest.mark.parametrize("way", [nullcontext, XlaKernels().activate], ids=["operations", "fused"])
def test_gradients_equal_numerical_differences(float64, way):
    layer, upstream = make_layer(), random(T, B, U, seed=2)
    arguments = [random(T, B, 4 * U), *map(to_numpy, layer.weights[1:]), *map(to_numpy, make_state(layer))]

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
def test_gradients_equal_plain_differentiation(set_precision, precision, way):
    set_precision(precision)
    layer = make_layer()
    twin = make_keras_twin(layer)
    inputs, state = make_inputs(layer), make_state(layer)
    with way():
        ours = gradients(lambda: layer(inputs, state), [inputs, *state, *layer.weights])
    plain = gradients(lambda: twin(inputs, initial_state=list(state)), [inputs, *state, *twin.weights])
    for one, other in zip(ours, plain, strict=True):
        np.testing.assert_allclose(one, other, atol=10 * TOLERANCE[precision])


@both_kinds
def test_every_weight_gets_a_gradient(layer_norm):
    layer = make_layer(layer_norm)
    for gradient in gradients(lambda: layer(make_inputs(layer)), layer.trainable_weights):
        assert np.abs(gradient).max() > 0


@pytest.mark.parametrize("way", ["own", "layer_norm", "cudnn"])
def test_weight_dropout_reads_a_whole_batch_with_the_same_weights_dropped(float64, monkeypatch, way):
    layer = make_layer(layer_norm=way == "layer_norm", dropout=0.5)
    monkeypatch.setattr(recurrent, "is_cudnn_fastest", lambda: way == "cudnn")
    inputs, state, seed = make_inputs(layer), make_state(layer), layer.weight_dropout.seed_generator.state
    weight = layer.keras_lstm.cell.recurrent_kernel
    whole = to_numpy(weight)

    seed.assign([1, 2])
    kernel = to_numpy(layer.draw_kernel(training=True))
    is_kept = kernel != 0
    assert 0.3 < is_kept.mean() < 0.7
    np.testing.assert_allclose(kernel, 2 * whole * is_kept, rtol=1e-4)

    seed.assign([1, 2])
    dropped = gradients(lambda: layer(inputs, state, training=True), [weight])[0]
    seed.assign([1, 2])
    found = to_numpy(layer(inputs, state, training=True))
    assert np.abs(found - to_numpy(layer(inputs, state))).max() > 1e-2
    weight.assign(kernel)
    np.testing.assert_allclose(found, layer(inputs, state), atol=1e-12)
    expected = gradients(lambda: layer(inputs, state), [weight])[0]
    np.testing.assert_allclose(dropped, 2 * expected * is_kept, rtol=1e-4)


def test_weight_dropout_acts_on_both_directions_in_training_alone():
    forward, backward = make_layer(dropout=0.5), make_layer(dropout=0.5)
    inputs = make_inputs(forward)
    plain = run_bidirectional(forward, backward, inputs, inputs)
    np.testing.assert_array_equal(plain[0], forward(inputs))
    trained = run_bidirectional(forward, backward, inputs, inputs, training=True)
    assert all(np.any(to_numpy(one) != to_numpy(other)) for one, other in zip(trained, plain, strict=True))
    assert np.any(to_numpy(trained[0]) != to_numpy(trained[1]))  # each has weights of its own, drawn by itself


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_gradients_in_half_precision_are_near_those_in_float32(set_precision, precision):
    found = []
    for one in ("float32", precision):
        set_precision(one)
        layer = make_layer()
        found.append(gradients(lambda layer=layer: layer(make_inputs(layer)), layer.trainable_weights))
    for exact, half in zip(*found, strict=True):
        assert half.dtype == "float32"
        assert np.linalg.norm(half - exact) < TOLERANCE[precision] * np.linalg.norm(exact)


def gradients(run, sources):
    """Returns gradients of a random mixture of all outputs with respect to tensors and weights."""
    sources = [getattr(source, "value", source) for source in sources]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        outputs = run()
        mixture = tf.reduce_sum(outputs * tf.cast(random(*outputs.shape, seed=3), outputs.dtype))
    return [to_numpy(gradient).astype(gradient.dtype.name) for gradient in tape.gradient(mixture, sources)]
