import keras
import numpy as np
import pytest
from keras import ops

from nmt.compilation import compile_function
from nmt.models.layers import Dense, Dropout, OrthogonalRows, at_least_float32, matmul
from nmt.models.recurrent import LSTM

I, O = 5, 3  # noqa: E741
SHAPE = (31, 37, 53)


def random(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


@pytest.mark.parametrize("sizes", [(2,), (2, 7), (2, 7, 11)])
def test_matmul_multiplies_every_vector(sizes):
    vectors, matrix = random(*sizes, I), random(I, O, seed=2)
    found = matmul(ops.convert_to_tensor(vectors), ops.convert_to_tensor(matrix))
    assert found.shape == (*sizes, O)
    np.testing.assert_allclose(found, np.einsum("...i,io->...o", vectors, matrix), rtol=1e-5, atol=1e-6)


def test_matmul_accepts_sizes_that_are_unknown_when_it_is_traced():
    matrix = ops.convert_to_tensor(random(I, O, seed=2))

    def run(ids):
        vectors = ops.one_hot(ids, I, dtype="float32")  # [rows, columns, I], of which only I is known
        return matmul(vectors, matrix), matmul(vectors[:, :4], matrix)

    ids = np.random.default_rng(3).integers(I, size=(2, 7)).astype("int32")
    found, first = compile_function(run, [], num_inputs=1)(ids)
    np.testing.assert_allclose(found, np.asarray(matrix)[ids], rtol=1e-6)
    np.testing.assert_allclose(first, np.asarray(matrix)[ids[:, :4]], rtol=1e-6)


@pytest.mark.parametrize("settings", [{"use_bias": False}, {"activation": "tanh"}])
def test_dense_computes_what_that_of_keras_computes(settings):
    ours, theirs = (kind(O, bias_initializer="ones", **settings) for kind in (Dense, keras.layers.Dense))
    for layer in (ours, theirs):
        layer.build((None, None, I))
    theirs.set_weights(ours.get_weights())
    inputs = random(2, 7, I)
    assert ours(inputs).shape == (2, 7, O)
    np.testing.assert_allclose(ours(inputs), theirs(inputs), rtol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("float16", "float32"), ("bfloat16", "float32"), ("float32", "float32"), ("float64", "float64")],
)
def test_at_least_float32_widens_16_bits_alone(dtype, expected):
    assert at_least_float32(ops.ones((2, 3), dtype)).dtype == expected


def drop(rate, *, whole_vectors=False, dtype="float32", seed=(1, 2)):
    """Returns ones after dropout with a seed."""
    layer = Dropout(rate, whole_vectors=whole_vectors, dtype=dtype)
    if rate:
        layer.seed_generator.state.assign(seed)
    return ops.convert_to_numpy(ops.cast(layer(np.ones(SHAPE), training=True), "float64"))


@pytest.mark.parametrize("rate", [0.002, 0.1, 0.5, 0.99])
def test_dropout_drops_at_its_rate_and_scales_the_others(rate):
    calls = [drop(rate, seed=(1, n)) for n in range(50)]
    assert calls[0].shape == SHAPE
    steps = round(65536 * rate)
    np.testing.assert_allclose(np.unique(np.concatenate(calls)), [0, 65536 / (65536 - steps)], rtol=1e-6)
    shares = [np.mean(values == 0) for values in calls]
    part = rate * 256 % 1  # of 1/256, between which each call chooses
    deviation = ((rate * (1 - rate) / calls[0].size + part * (1 - part) / 65536) / len(calls)) ** 0.5
    assert np.mean(shares) == pytest.approx(rate, abs=5 * deviation + 1e-5)


@pytest.mark.parametrize(("dtype", "unit"), [("bfloat16", 2**-7), ("float16", 2**-10)])
def test_the_mean_scale_of_16_bits_is_exact(dtype, unit):
    layer, num_calls = Dropout(0.1, dtype=dtype), 150
    ones = ops.ones((3, 5), dtype)
    scales = [float(ops.max(layer(ones, training=True))) for _ in range(num_calls)]
    assert len(set(scales)) == 2 and max(scales) - min(scales) == unit
    assert np.mean(scales) == pytest.approx(1 / 0.9, abs=4 * 0.42 * unit / num_calls**0.5)


def test_dropout_drops_neighbours_independently():
    """Four values share one random number."""
    gone = (drop(0.5) == 0).ravel() - 0.5
    for distance in (1, 2, 3, 4, SHAPE[2]):
        assert abs(np.mean(gone[distance:] * gone[:-distance])) < 5 * 0.25 / gone.size**0.5


def test_dropout_depends_on_its_seed_alone():
    np.testing.assert_array_equal(drop(0.5), drop(0.5))
    assert np.any(drop(0.5) != drop(0.5, seed=(1, 3)))
    assert np.any(drop(0.5) != drop(0.5, seed=(2, 2)))


def test_dropout_drops_whole_vectors_on_request():
    values = drop(0.5, whole_vectors=True)
    np.testing.assert_array_equal(values, np.broadcast_to(values[:, :, :1], SHAPE))
    np.testing.assert_array_equal(np.unique(values), [0, 2])


@pytest.mark.parametrize("time_axis", [0, 1])
def test_locked_dropout_drops_the_same_values_at_all_positions(time_axis):
    values = ops.convert_to_numpy(Dropout(0.5, locked=True)(np.ones(SHAPE), training=True, time_axis=time_axis))
    first = values.take([0], axis=time_axis)
    np.testing.assert_array_equal(values, np.broadcast_to(first, SHAPE))
    np.testing.assert_array_equal(np.unique(first), [0, 2])
    assert np.mean(first == 0) == pytest.approx(0.5, abs=5 * 0.5 / first.size**0.5)
    rows = np.squeeze(first, axis=time_axis)
    assert (rows[1:] != rows[:-1]).any(axis=-1).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_dropout_keeps_types(dtype):
    assert Dropout(0.5, dtype=dtype)(ops.ones(SHAPE, dtype), training=True).dtype == dtype
    np.testing.assert_array_equal(np.unique(drop(0.5, dtype=dtype)), [0, 2])


def test_dropout_acts_in_training_alone():
    np.testing.assert_array_equal(Dropout(0.5)(np.ones(SHAPE)), np.ones(SHAPE))
    np.testing.assert_array_equal(drop(0.0), np.ones(SHAPE))


@pytest.mark.parametrize("units", [1, 3, 64])
def test_orthogonal_rows_are_those_of_a_qr_factorisation_and_of_keras(units):
    drawn = np.asarray(keras.random.normal((4 * units, units), seed=3), "float64")
    q, r = np.linalg.qr(drawn)
    expected = (q * np.sign(np.diagonal(r))).T
    found = OrthogonalRows(seed=3)((units, 4 * units))
    assert found.shape == (units, 4 * units)
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-6)
    np.testing.assert_allclose(
        np.asarray(found), np.asarray(keras.initializers.Orthogonal(seed=3)(found.shape)), atol=1e-5
    )


def test_orthogonal_rows_are_orthonormal():
    rows = np.asarray(OrthogonalRows(seed=1)((512, 2048)), "float64")
    np.testing.assert_allclose(rows @ rows.T, np.eye(512), atol=1e-6)


def test_recurrent_kernels_start_orthogonal_and_different():
    kernels = []
    for _ in range(2):
        layer = LSTM(8)
        layer.build((None, None, 5))
        kernels.append(np.asarray(layer.keras_lstm.cell.recurrent_kernel.value))
    np.testing.assert_allclose(kernels[0] @ kernels[0].T, np.eye(8), atol=1e-6)
    assert np.abs(kernels[0] - kernels[1]).max() > 0.1
