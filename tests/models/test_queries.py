"""Queries of a search, packed and spread."""

import numpy as np
import pytest
from keras import ops

from nmt.models.queries import FEW, all_queries, queries_where

ASKED = np.array([[True, False, True], [False, False, False], [False, True, True]])
VALUES = np.arange(3 * 3 * 2).reshape(3, 3, 2)


def test_packing_takes_what_is_asked_row_by_row() -> None:
    queries = queries_where(ops.convert_to_tensor(ASKED))
    np.testing.assert_array_equal(queries.asked, [0, 2, 7, 8])
    np.testing.assert_array_equal(queries.pack(ops.convert_to_tensor(VALUES)), VALUES[ASKED])


def test_spreading_puts_each_back_where_it_was() -> None:
    queries = queries_where(ops.convert_to_tensor(ASKED))
    spread = ops.convert_to_numpy(queries.spread(queries.pack(ops.convert_to_tensor(VALUES))))
    assert spread.shape == VALUES.shape
    np.testing.assert_array_equal(spread[ASKED], VALUES[ASKED])


@pytest.mark.parametrize("shape", [(3, 3, 2), (3, 3)])
def test_of_all_queries_none_is_moved(shape: tuple[int, ...]) -> None:
    values = VALUES[:, :, 0] if len(shape) == 2 else VALUES
    queries = all_queries(3, 3)
    packed = queries.pack(ops.convert_to_tensor(values))
    np.testing.assert_array_equal(packed, values.reshape(9, *shape[2:]))
    np.testing.assert_array_equal(queries.spread(packed), values)


@pytest.mark.parametrize(("num_asked", "size"), [(0, 0), (FEW, FEW), (FEW + 1, 2 * FEW), (2 * FEW, 2 * FEW)])
def test_many_are_rounded_up_and_spread_all_the_same(num_asked: int, size: int) -> None:
    random = np.random.default_rng(num_asked)
    asked = np.zeros(3 * FEW, bool)
    asked[random.permutation(3 * FEW)[:num_asked]] = True
    asked = asked.reshape(FEW, 3)
    values = random.normal(size=(FEW, 3, 2))
    queries = queries_where(ops.convert_to_tensor(asked))
    packed = ops.convert_to_numpy(queries.pack(ops.convert_to_tensor(values)))
    assert len(packed) == size
    np.testing.assert_array_equal(packed[:num_asked], values[asked])
    if num_asked:
        np.testing.assert_array_equal(ops.convert_to_numpy(queries.spread(packed))[asked], values[asked])
