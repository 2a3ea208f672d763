import keras
import numpy as np
import pytest
from keras import ops

from nmt.compilation import compile_function
from nmt.models.layers import Dense, matmul

I, O = 5, 3  # noqa: E741


def random(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


@pytest.mark.parametrize("sizes", [(2,), (2, 7), (2, 7, 11)])
def test_a_product_is_that_of_every_vector(sizes):
    vectors, matrix = random(*sizes, I), random(I, O, seed=2)
    found = matmul(ops.convert_to_tensor(vectors), ops.convert_to_tensor(matrix))
    np.testing.assert_allclose(found, np.einsum("...i,io->...o", vectors, matrix), rtol=1e-5, atol=1e-6)


def test_sizes_may_be_unknown():
    matrix = ops.convert_to_tensor(random(I, O, seed=2))

    def run(ids):
        vectors = ops.one_hot(ids, I, dtype="float32")  # [rows, columns, I], of which only I is known
        return matmul(vectors, matrix), matmul(vectors[:, :4], matrix)

    ids = np.random.default_rng(3).integers(I, size=(2, 7)).astype("int32")
    found, first = compile_function(run, [], num_inputs=1)(ids)
    np.testing.assert_allclose(found, np.asarray(matrix)[ids], rtol=1e-6)
    np.testing.assert_allclose(first, np.asarray(matrix)[ids[:, :4]], rtol=1e-6)


@pytest.mark.parametrize("settings", [{"use_bias": False}, {"activation": "tanh"}])
def test_a_layer_is_keras_own(settings):
    ours, theirs = (kind(O, bias_initializer="ones", **settings) for kind in (Dense, keras.layers.Dense))
    for layer in (ours, theirs):
        layer.build((None, None, I))
    theirs.set_weights(ours.get_weights())
    inputs = random(2, 7, I)
    np.testing.assert_allclose(ours(inputs), theirs(inputs), rtol=1e-6)
