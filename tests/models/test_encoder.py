import keras
import numpy as np
import pytest
import tensorflow as tf

from nmt.models.embedding import Embedding
from nmt.models.encoder import Encoder

S, E, V, M = 7, 5, 17, 22  # source tokens, embedding units, vocabulary, memory units: 11 per direction
ROWS = [[4, 5, 6, 7, 8, 9, 3], [10, 11, 12, 3], [3]]
IDS = np.array([row + [0] * (S - len(row)) for row in ROWS])
B = len(ROWS)

every_stack = pytest.mark.parametrize(
    ("num_layers", "layer_norm"), [(1, False), (1, True), (3, False), (3, True)], ids=["1", "1-norm", "3", "3-norm"]
)


def make_encoder(num_layers=1, layer_norm=False, dropout=0.0, bridge=False, word_dropout=0.0, both_ends=False):
    words = Embedding(V, E, scale=1.0, dropout=0.0, word_dropout=word_dropout)
    settings = {"bridge": bridge, "dropout": dropout, "layer_norm": layer_norm, "both_ends": both_ends}
    encoder = Encoder(words, num_layers=num_layers, units=M, **settings)
    generator = np.random.default_rng(1)
    for weight in encoder.trainable_weights:
        weight.assign(generator.normal(size=weight.shape) / 2)
    return encoder


def to_numpy(x):
    return keras.ops.convert_to_numpy(keras.ops.cast(x, "float64"))


def encode_one(encoder, row):
    """Returns memory [S, M] and final state [M] of one sentence without padding, reversed by Python."""
    row = np.array([row])
    forward = to_numpy(encoder.forward(encoder.embedding(row)))
    backward = to_numpy(encoder.backward(encoder.embedding(row[:, ::-1])))
    final = np.concatenate([forward[0, -1], backward[0, -1]])
    memory = np.concatenate([forward, backward[:, ::-1]], axis=-1)
    for layer in encoder.upper:
        memory = memory + to_numpy(layer(memory))
        final = memory[0, -1]
    return memory[0], final


@every_stack
def test_each_direction_reads_within_the_length_of_its_row(float64, num_layers, layer_norm):
    encoder = make_encoder(num_layers, layer_norm)
    encoded = encoder(IDS)
    assert encoded.memory.shape == (B, S, M)
    assert encoded.final_state.shape == (B, M)
    for b, row in enumerate(ROWS):
        memory, final = encode_one(encoder, row)
        np.testing.assert_allclose(encoded.memory[b, : len(row)], memory, atol=1e-12)
        np.testing.assert_allclose(encoded.final_state[b], final, atol=1e-12)


def test_both_ends_are_those_of_the_directions_and_of_the_last_layer(float64):
    encoder = make_encoder(3, both_ends=True)
    final_state = encoder(IDS).final_state
    assert final_state.shape == (B, encoder.final_units) == (B, 2 * M)
    for b, row in enumerate(ROWS):
        ids = np.array([row])
        forward = encoder.forward(encoder.embedding(ids))[0, -1]
        backward = encoder.backward(encoder.embedding(ids[:, ::-1]))[0, -1]
        np.testing.assert_allclose(
            final_state[b], np.concatenate([forward, backward, encode_one(encoder, row)[1]]), atol=1e-12
        )


def test_the_first_word_reaches_the_final_state_by_the_backward_direction_with_both_ends_alone():
    changed = IDS.copy()
    changed[0, 0] = 13
    differs = []
    for both_ends in (False, True):
        encoder = make_encoder(3, both_ends=both_ends)
        for layer in (encoder.forward, *encoder.upper):  # these no longer react to what they read
            layer.keras_lstm.cell.kernel.assign(np.zeros(layer.keras_lstm.cell.kernel.shape))
        differs.append(to_numpy(encoder(IDS).final_state) != to_numpy(encoder(changed).final_state))
    assert not differs[0].any()
    of_backward = np.arange(2 * M) // (M // 2) == 1
    np.testing.assert_array_equal(differs[1], [of_backward, of_backward & False, of_backward & False])


def test_a_bridge_appends_the_embeddings_to_the_memory():
    plain, bridged = make_encoder(2)(IDS), make_encoder(2, bridge=True)
    np.testing.assert_array_equal(bridged(IDS).memory[:, :, :M], plain.memory)
    np.testing.assert_array_equal(bridged(IDS).memory[:, :, M:], to_numpy(bridged.embedding.matrix)[IDS])
    np.testing.assert_array_equal(bridged(IDS).final_state, plain.final_state)
    assert bridged(IDS).memory.shape == (B, S, M + E)
    assert bridged.memory_units == M + E


def test_the_mask_marks_real_tokens():
    mask = to_numpy(make_encoder()(IDS).memory_mask)
    np.testing.assert_array_equal(mask, [[1] * len(row) + [0] * (S - len(row)) for row in ROWS])


def test_each_direction_depends_on_its_own_side_alone(float64):
    encoder = make_encoder()
    changed = IDS.copy()
    changed[0, 3] = 13
    differs = (to_numpy(encoder(IDS).memory) != to_numpy(encoder(changed).memory))[0]
    np.testing.assert_array_equal(differs[:, : M // 2].any(-1), [False] * 3 + [True] * 4)
    np.testing.assert_array_equal(differs[:, M // 2 :].any(-1), [True] * 4 + [False] * 3)


@every_stack
def test_more_padding_changes_nothing(num_layers, layer_norm):
    encoder = make_encoder(num_layers, layer_norm)
    encoded = encoder(IDS)
    padded = encoder(np.pad(IDS, ((0, 0), (0, 13))))
    np.testing.assert_allclose(padded.final_state, encoded.final_state, atol=1e-5)
    for b, row in enumerate(ROWS):
        np.testing.assert_allclose(padded.memory[b, : len(row)], encoded.memory[b, : len(row)], atol=1e-5)


@every_stack
def test_neighbours_change_nothing(num_layers, layer_norm):
    encoder = make_encoder(num_layers, layer_norm)
    encoded = encoder(IDS)
    turned, fewer = encoder(IDS[::-1]), encoder(IDS[1:])
    for part in ("memory", "final_state"):
        together = to_numpy(getattr(encoded, part))
        np.testing.assert_allclose(to_numpy(getattr(turned, part))[::-1], together, atol=1e-5)
        np.testing.assert_allclose(getattr(fewer, part), together[1:], atol=1e-5)


@every_stack
def test_every_weight_gets_a_gradient_from_the_memory(num_layers, layer_norm):
    encoder = make_encoder(num_layers, layer_norm)
    weights = [weight.value for weight in encoder.trainable_weights]
    with tf.GradientTape() as tape:
        memory = encoder(IDS).memory
        mixture = tf.reduce_sum(memory * np.random.default_rng(2).normal(size=memory.shape))
    for gradient in tape.gradient(mixture, weights):
        assert np.abs(tf.convert_to_tensor(gradient)).max() > 0


def test_dropout_acts_in_training_alone():
    encoder = make_encoder(num_layers=3, dropout=0.5)
    np.testing.assert_array_equal(encoder(IDS).memory, encoder(IDS, training=False).memory)
    dropped = to_numpy(encoder(IDS, training=True).memory)
    assert np.count_nonzero(dropped) / dropped.size == pytest.approx(1 / 2, abs=0.15)


def test_a_dropped_word_is_hidden_from_both_directions_and_the_bridge(float64):
    keras.utils.set_random_seed(1)
    encoder = make_encoder(bridge=True, word_dropout=0.5)
    memory = to_numpy(encoder(IDS, training=True).memory)
    for b, row in enumerate(ROWS):
        vectors = memory[b : b + 1, : len(row), M:]  # what the bridge carries is what the directions must have read
        forward, backward = encoder.forward(vectors), to_numpy(encoder.backward(vectors[:, ::-1]))[:, ::-1]
        np.testing.assert_allclose(memory[b, : len(row), : M // 2], forward[0], atol=1e-12)
        np.testing.assert_allclose(memory[b, : len(row), M // 2 : M], backward[0], atol=1e-12)
    carried = memory[0, :, M:]
    is_kept = carried.any(axis=-1)
    assert 0 < is_kept.sum() < S
    np.testing.assert_allclose(carried[is_kept], 2 * to_numpy(encoder.embedding.matrix)[IDS[0, is_kept]])


@every_stack
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_is_near_float32(set_precision, precision, num_layers, layer_norm):
    exact = make_encoder(num_layers, layer_norm)(IDS)
    set_precision(precision)
    half = make_encoder(num_layers, layer_norm)(IDS)
    assert half.memory.dtype == half.final_state.dtype == precision.removeprefix("mixed_")
    np.testing.assert_allclose(to_numpy(half.memory), to_numpy(exact.memory), atol=0.1)
