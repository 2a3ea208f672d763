import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.decoding.grouping import MAX_ROWS, REPAID_AFTER, WIDTHS, Grouping

LENGTHS = st.lists(st.integers(1, 300), max_size=400)


@settings(deadline=None)
@given(lengths=LENGTHS, batch_tokens=st.integers(1, 5000), xla=st.booleans())
def test_every_sentence_stands_in_one_group_that_is_not_too_large(lengths, batch_tokens, xla):
    groups = list(Grouping(batch_tokens, xla=xla).groups(lengths))
    assert sorted(n for group in groups for n in group.members) == list(range(len(lengths)))
    for group in groups:
        longest = max(lengths[n] for n in group.members)
        assert len(group.members) <= MAX_ROWS
        assert len(group.members) == 1 or len(group.members) * longest <= batch_tokens


def test_neighbours_in_a_group_are_of_like_length():
    lengths = [7, 90, 8, 91, 7, 92]
    groups = [sorted(lengths[n] for n in group.members) for group in Grouping(300, xla=False).groups(lengths)]
    assert groups == [[7, 7, 8], [90, 91, 92]]


def test_xla_waits_until_a_shape_has_enough_sentences():
    grouping = Grouping(1600, xla=True)
    few = [10] * (REPAID_AFTER // 2)
    assert all(group.shape is None for group in grouping.groups(few))
    shapes = [group.shape for group in grouping.groups(few)]
    assert (MAX_ROWS, 12) in shapes
    assert shapes[-1] is None  # what fills no batch


def test_xla_is_not_used_where_it_is_not_to_be_had():
    assert all(group.shape is None for group in Grouping(1600, xla=False).groups([10] * 5000))


@pytest.mark.parametrize("length", [int(WIDTHS[-1]) + 1, 999])
def test_what_is_longer_than_all_widths_is_left_to_the_plain_graph(length):
    assert all(group.shape is None for group in Grouping(10**6, xla=True).groups([length] * 2 * REPAID_AFTER))


def test_a_shape_compiled_by_xla_holds_its_sentences():
    lengths = [1 + n % 130 for n in range(40_000)]
    shaped = [group for group in Grouping(8192, xla=True).groups(lengths) if group.shape]
    assert len({group.shape for group in shaped}) == len(WIDTHS)
    for group in shaped:
        rows, width = group.shape
        assert len(group.members) == rows
        assert max(lengths[n] for n in group.members) <= width
