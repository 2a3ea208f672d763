import keras
import numpy as np
import pytest

from nmt.models.layers import OrthogonalRows
from nmt.models.recurrent import LSTM


@pytest.mark.parametrize("units", [1, 3, 64])
def test_it_is_the_q_of_the_same_random_numbers(units):
    drawn = np.asarray(keras.random.normal((4 * units, units), seed=3), "float64")
    q, r = np.linalg.qr(drawn)
    expected = (q * np.sign(np.diagonal(r))).T
    found = OrthogonalRows(seed=3)((units, 4 * units))
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-6)
    np.testing.assert_allclose(
        np.asarray(found), np.asarray(keras.initializers.Orthogonal(seed=3)(found.shape)), atol=1e-5
    )


def test_its_rows_are_at_right_angles_and_of_length_one():
    rows = np.asarray(OrthogonalRows(seed=1)((512, 2048)), "float64")
    np.testing.assert_allclose(rows @ rows.T, np.eye(512), atol=1e-6)


def test_a_recurrence_begins_with_it():
    kernels = []
    for _ in range(2):
        layer = LSTM(8)
        layer.build((None, None, 5))
        kernels.append(np.asarray(layer.keras_lstm.cell.recurrent_kernel.value))
    np.testing.assert_allclose(kernels[0] @ kernels[0].T, np.eye(8), atol=1e-6)
    assert np.abs(kernels[0] - kernels[1]).max() > 0.1
