import numpy as np
import tensorflow as tf
from keras import ops

from nmt.compilation import XlaKernels, batch_gather, fuse, gather_rows


def test_rows_are_looked_up_by_their_ids():
    table = np.random.default_rng(1).normal(size=(7, 3)).astype("float32")
    ids = np.array([[6, 0], [3, 3]], "int32")
    np.testing.assert_array_equal(gather_rows(ops.convert_to_tensor(table), ops.convert_to_tensor(ids)), table[ids])


def test_each_row_is_picked_from_at_its_own_places():
    rows = np.arange(2 * 5 * 3).reshape(2, 5, 3).astype("int32")
    places = np.array([[4, 0, 0], [1, 2, 3]], "int32")
    found = batch_gather(ops.convert_to_tensor(rows), ops.convert_to_tensor(places))
    np.testing.assert_array_equal(found, [rows[0][places[0]], rows[1][places[1]]])


def doubled(x):
    return 2 * x + 1


def test_a_kernel_is_shared_and_gives_what_its_function_gives():
    kernels = XlaKernels()
    values = np.random.default_rng(1).normal(size=(3, 2)).astype("float32")

    @tf.function(input_signature=[tf.TensorSpec([None, 2])], autograph=False)
    def twice(x):
        with kernels.activate():
            return fuse(doubled)(fuse(doubled)(x))

    np.testing.assert_array_equal(twice(values), doubled(doubled(values)))
    assert fuse(doubled) is doubled  # where none are in use
    # What compiles for so many rows runs the one kernel there is, on zeros.
    assert [float(total) for total in kernels.make_compiler()(5)] == [5 * 2 * 1.0]
