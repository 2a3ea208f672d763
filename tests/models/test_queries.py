"""Active queries of a search, packed and in rows."""

import numpy as np
import pytest
from keras import ops

from nmt.models.queries import SIZE_MULTIPLE, round_up, select_active, select_all

B, Q, H, D = 2, 3, 5, 7  # sentences, queries per sentence, heads, units per head
IS_ACTIVE = np.array([[True, False, True], [False, True, False]])
N = 3
VALUES = np.random.default_rng(1).normal(size=(B, Q, D))


def to_tensor(x):
    return ops.convert_to_tensor(x)


def test_gather_packs_active_queries_row_by_row() -> None:
    active = select_active(to_tensor(IS_ACTIVE))
    np.testing.assert_array_equal(active.indices, [0, 2, 4])
    packed = active.gather(to_tensor(VALUES))
    assert packed.shape == (N, D)
    np.testing.assert_array_equal(packed, VALUES[IS_ACTIVE])


def test_scatter_puts_each_query_back_where_it_was() -> None:
    active = select_active(to_tensor(IS_ACTIVE))
    assert active.slots.shape == (B, Q)
    rows = ops.convert_to_numpy(active.scatter(active.gather(to_tensor(VALUES))))
    assert rows.shape == (B, Q, D)
    np.testing.assert_array_equal(rows[IS_ACTIVE], VALUES[IS_ACTIVE])


def test_heads_move_as_if_they_were_transposed() -> None:
    active = select_active(to_tensor(IS_ACTIVE))
    packed = np.random.default_rng(1).normal(size=(N, H, D))
    by_query = ops.convert_to_numpy(active.scatter(to_tensor(packed)))
    by_head = ops.convert_to_numpy(active.scatter_heads(to_tensor(packed)))
    assert by_head.shape == (B, H, Q, D)
    np.testing.assert_array_equal(by_head, by_query.transpose(0, 2, 1, 3))
    np.testing.assert_array_equal(active.gather_heads(to_tensor(by_head)), packed)


@pytest.mark.parametrize("values", [VALUES, VALUES[:, :, 0]], ids=["vectors", "numbers"])
def test_if_all_queries_are_active_none_moves(values: np.ndarray) -> None:
    active = select_all(B, Q)
    packed = active.gather(to_tensor(values))
    np.testing.assert_array_equal(packed, values.reshape(B * Q, *values.shape[2:]))
    np.testing.assert_array_equal(active.scatter(packed), values)


MANY = SIZE_MULTIPLE


@pytest.mark.parametrize(("num_active", "size"), [(0, 0), (MANY, MANY), (MANY + 1, 2 * MANY), (2 * MANY, 2 * MANY)])
def test_large_numbers_are_rounded_up_and_scatter_the_same(num_active: int, size: int) -> None:
    assert int(round_up(to_tensor(num_active))) == size
    random = np.random.default_rng(num_active)
    is_active = np.zeros(3 * MANY, bool)
    is_active[random.permutation(3 * MANY)[:num_active]] = True
    is_active = is_active.reshape(MANY, 3)
    values = random.normal(size=(MANY, 3, 2))
    active = select_active(to_tensor(is_active))
    packed = ops.convert_to_numpy(active.gather(to_tensor(values)))
    assert packed.shape == (size, 2)
    np.testing.assert_array_equal(packed[:num_active], values[is_active])
    if num_active:
        np.testing.assert_array_equal(ops.convert_to_numpy(active.scatter(packed))[is_active], values[is_active])
