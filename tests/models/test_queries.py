"""Queries of a search, packed and spread."""

import numpy as np
import pytest
from keras import ops

from nmt.models.queries import SIZE_MULTIPLE, select_active, select_all

ASKED = np.array([[True, False, True], [False, False, False], [False, True, True]])
VALUES = np.arange(3 * 3 * 2).reshape(3, 3, 2)


def test_packing_takes_what_is_asked_row_by_row() -> None:
    queries = select_active(ops.convert_to_tensor(ASKED))
    np.testing.assert_array_equal(queries.indices, [0, 2, 7, 8])
    np.testing.assert_array_equal(queries.gather(ops.convert_to_tensor(VALUES)), VALUES[ASKED])


def test_spreading_puts_each_back_where_it_was() -> None:
    queries = select_active(ops.convert_to_tensor(ASKED))
    spread = ops.convert_to_numpy(queries.scatter(queries.gather(ops.convert_to_tensor(VALUES))))
    assert spread.shape == VALUES.shape
    np.testing.assert_array_equal(spread[ASKED], VALUES[ASKED])


def test_heads_are_spread_and_packed_as_if_they_were_transposed() -> None:
    asked = np.array([[True, False], [False, False], [True, True]])
    queries = select_active(ops.convert_to_tensor(asked))
    packed = np.random.default_rng(1).normal(size=(3, 4, 5))  # three queries, four heads
    by_query = ops.convert_to_numpy(queries.scatter(ops.convert_to_tensor(packed)))
    by_head = ops.convert_to_numpy(queries.scatter_heads(ops.convert_to_tensor(packed)))
    assert by_head.shape == (3, 4, 2, 5)
    np.testing.assert_array_equal(by_head, by_query.transpose(0, 2, 1, 3))
    np.testing.assert_array_equal(queries.gather_heads(ops.convert_to_tensor(by_head)), packed)


@pytest.mark.parametrize("shape", [(3, 3, 2), (3, 3)])
def test_of_all_queries_none_is_moved(shape: tuple[int, ...]) -> None:
    values = VALUES[:, :, 0] if len(shape) == 2 else VALUES
    queries = select_all(3, 3)
    packed = queries.gather(ops.convert_to_tensor(values))
    np.testing.assert_array_equal(packed, values.reshape(9, *shape[2:]))
    np.testing.assert_array_equal(queries.scatter(packed), values)


@pytest.mark.parametrize(
    ("num_asked", "size"),
    [
        (0, 0),
        (SIZE_MULTIPLE, SIZE_MULTIPLE),
        (SIZE_MULTIPLE + 1, 2 * SIZE_MULTIPLE),
        (2 * SIZE_MULTIPLE, 2 * SIZE_MULTIPLE),
    ],
)
def test_many_are_rounded_up_and_spread_all_the_same(num_asked: int, size: int) -> None:
    random = np.random.default_rng(num_asked)
    asked = np.zeros(3 * SIZE_MULTIPLE, bool)
    asked[random.permutation(3 * SIZE_MULTIPLE)[:num_asked]] = True
    asked = asked.reshape(SIZE_MULTIPLE, 3)
    values = random.normal(size=(SIZE_MULTIPLE, 3, 2))
    queries = select_active(ops.convert_to_tensor(asked))
    packed = ops.convert_to_numpy(queries.gather(ops.convert_to_tensor(values)))
    assert len(packed) == size
    np.testing.assert_array_equal(packed[:num_asked], values[asked])
    if num_asked:
        np.testing.assert_array_equal(ops.convert_to_numpy(queries.scatter(packed))[asked], values[asked])
