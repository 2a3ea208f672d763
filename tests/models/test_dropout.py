import keras
import numpy as np
import pytest

from nmt.models.layers import Dropout

SHAPE = (31, 37, 53)


def dropped(rate, *, whole=False, dtype="float32", seed=(1, 2)):
    """Ones after dropout whose generator stands at a seed."""
    layer = Dropout(rate, whole_vectors=whole, dtype=dtype)
    if rate:
        layer.seed_generator.state.assign(seed)
    return keras.ops.convert_to_numpy(keras.ops.cast(layer(np.ones(SHAPE), training=True), "float64"))


@pytest.mark.parametrize(("rate", "bytes_dropped"), [(0.001, 1), (0.1, 26), (0.4, 102), (0.5, 128), (0.999, 255)])
def test_values_are_dropped_at_the_nearest_rate_and_made_up_for(rate, bytes_dropped):
    values = dropped(rate)
    share = bytes_dropped / 256
    np.testing.assert_allclose(np.unique(values), [0, 1 / (1 - share)], rtol=1e-6)
    deviation = (share * (1 - share) / values.size) ** 0.5
    assert np.mean(values == 0) == pytest.approx(share, abs=5 * deviation)


def test_neighbours_are_dropped_independently():
    """Four values share one random number."""
    gone = (dropped(0.5) == 0).ravel() - 0.5
    for distance in (1, 2, 3, 4, SHAPE[2]):
        assert abs(np.mean(gone[distance:] * gone[:-distance])) < 5 * 0.25 / gone.size**0.5


def test_a_mask_is_a_function_of_its_seed():
    np.testing.assert_array_equal(dropped(0.5), dropped(0.5))
    assert np.any(dropped(0.5) != dropped(0.5, seed=(1, 3)))
    assert np.any(dropped(0.5) != dropped(0.5, seed=(2, 2)))


def test_an_axis_of_noise_of_length_one_is_dropped_whole():
    values = dropped(0.5, whole=True)
    np.testing.assert_array_equal(values, np.broadcast_to(values[:, :, :1], SHAPE))
    np.testing.assert_array_equal(np.unique(values), [0, 2])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_types_are_kept(dtype):
    assert Dropout(0.5, dtype=dtype)(keras.ops.ones(SHAPE, dtype), training=True).dtype == dtype
    np.testing.assert_array_equal(np.unique(dropped(0.5, dtype=dtype)), [0, 2])


def test_it_is_of_training_alone():
    np.testing.assert_array_equal(Dropout(0.5)(np.ones(SHAPE)), np.ones(SHAPE))
    np.testing.assert_array_equal(dropped(0.0), np.ones(SHAPE))
