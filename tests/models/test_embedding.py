import keras
import numpy as np
import pytest

from nmt.models.embedding import Embedding, OutputProjection

B, T, E, V = 2, 3, 5, 7  # sentences, positions, embedding units, tokens in the vocabulary
IDS = np.array([[4, 0, 6], [6, 1, 4]])
HALVES = ["mixed_bfloat16", "mixed_float16"]


def random(*shape, seed=1):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def embedding(*, units=E, scale=1.0, dropout=0.0, word_dropout=0.0):
    return Embedding(V, units, scale=scale, dropout=dropout, word_dropout=word_dropout)


def projection(tied=None):
    layer = OutputProjection(V, E, tied=tied)
    layer.bias.assign(random(V))
    return layer


def to_numpy(x):
    return keras.ops.convert_to_numpy(keras.ops.cast(x, "float64"))


def numpy_logits(layer, states):
    return to_numpy(states) @ to_numpy(layer.matrix).T + to_numpy(layer.bias)


def test_ids_are_looked_up():
    layer = embedding()
    vectors = layer(IDS)
    assert vectors.shape == (B, T, E)
    for b in range(B):
        for t in range(T):
            np.testing.assert_array_equal(vectors[b, t], to_numpy(layer.matrix)[IDS[b, t]])
    assert layer(IDS[0]).shape == (T, E)  # packed ids, as in a search


def test_vectors_are_longer_than_their_rows_by_the_scale():
    layer = embedding(scale=8.0)
    np.testing.assert_allclose(to_numpy(layer(IDS)), to_numpy(layer.matrix)[IDS] * 8, rtol=1e-6)


def test_dropout_acts_in_training_alone():
    layer = embedding(dropout=0.5, word_dropout=0.5)
    np.testing.assert_array_equal(layer(IDS), embedding_without_dropout(layer)(IDS))
    assert np.any(layer(IDS, training=True) != layer(IDS))


def embedding_without_dropout(layer):
    plain = embedding()
    plain.set_weights(layer.get_weights()[:1])
    return plain


def test_kept_values_are_scaled():
    layer = embedding(units=997, dropout=0.75)
    ratios = to_numpy(layer(IDS, training=True)) / to_numpy(layer(IDS))
    np.testing.assert_allclose(ratios[ratios != 0], 4, rtol=1e-5)
    assert np.count_nonzero(ratios) / ratios.size == pytest.approx(1 / 4, abs=0.05)


def test_word_dropout_drops_whole_vectors():
    layer = embedding(word_dropout=0.5)
    ids = np.ones((31, 37), int)
    ratios = to_numpy(layer(ids, training=True)) / to_numpy(layer(ids))
    np.testing.assert_allclose(ratios, np.broadcast_to(ratios[:, :, :1], ratios.shape), rtol=1e-5)
    np.testing.assert_allclose(np.unique(ratios.round(5)), [0, 2])
    assert ratios.mean() == pytest.approx(1, abs=0.15)


def test_a_tied_projection_shares_the_matrix():
    words = embedding()
    tied = projection(tied=words)
    assert [weight.name for weight in tied.trainable_weights if weight is not words.matrix] == ["bias"]
    words.matrix.assign(random(V, E))
    states = random(B, T, E).astype("float32")
    np.testing.assert_allclose(tied(states), numpy_logits(tied, states), atol=1e-5)


def test_logits_follow_the_equation(float64):
    layer = projection()
    states = random(B, T, E)
    assert layer(states).shape == (B, T, V)
    np.testing.assert_allclose(layer(states), numpy_logits(layer, states), atol=1e-12)
    packed = states.reshape(B * T, E)
    assert layer.make_scorer()(packed).shape == (B * T, V)
    np.testing.assert_allclose(layer.make_scorer()(packed), numpy_logits(layer, packed), atol=1e-12)


def test_single_and_mean_logits_equal_those_of_the_whole_vocabulary(float64):
    layer = projection()
    states = random(B, T, E)
    logits = numpy_logits(layer, states)
    assert layer.gather_logits(states, IDS).shape == layer.compute_mean_logit(states).shape == (B, T)
    np.testing.assert_allclose(
        layer.gather_logits(states, IDS), np.take_along_axis(logits, IDS[:, :, None], 2)[:, :, 0]
    )
    np.testing.assert_allclose(layer.compute_mean_logit(states), logits.mean(-1), atol=1e-12)
    others = np.delete(logits, [0, 2], axis=-1).mean(-1)
    np.testing.assert_allclose(layer.compute_mean_logit(states, banned_ids=[0, 2]), others, atol=1e-12)


def test_weights_of_16_bits_give_float32_logits_eagerly(set_precision):
    """As in a model that only translates."""
    set_precision("bfloat16")
    layer, states = projection(), keras.ops.cast(random(B, T, E), "bfloat16")
    assert layer.matrix.dtype == layer.bias.dtype == "bfloat16"
    logits = numpy_logits(layer, states)
    chosen = np.take_along_axis(logits, IDS[:, :, None], 2)[:, :, 0]
    for found, expected in (
        (layer(states), logits),
        (layer.gather_logits(states, IDS), chosen),
        (layer.compute_mean_logit(states), logits.mean(-1)),
    ):
        assert found.dtype == "float32"
        np.testing.assert_allclose(found, expected, atol=3e-2)


@pytest.mark.parametrize("precision", HALVES)
def test_half_precision_ends_in_float32_logits(set_precision, precision):
    set_precision(precision)
    words = embedding()
    layer = projection(tied=words)
    vectors = words(IDS)
    assert vectors.dtype == words.compute_dtype == precision.removeprefix("mixed_")
    assert words.matrix.dtype == "float32"
    for scores, expected in (
        (layer(vectors), numpy_logits(layer, vectors)),
        (layer.compute_mean_logit(vectors), numpy_logits(layer, vectors).mean(-1)),
        (
            layer.gather_logits(vectors, IDS),
            np.take_along_axis(numpy_logits(layer, vectors), IDS[:, :, None], 2)[:, :, 0],
        ),
    ):
        assert scores.dtype == "float32"
        np.testing.assert_allclose(scores, expected, atol=3e-2)
