import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.config.schema import DecodingConfig
from nmt.data.tokenizer import EOS_ID
from nmt.decoding.grouping import (
    MAX_QUERIES,
    REFILLS,
    SIZE_MULTIPLE,
    Group,
    Grouping,
    ShapedGrouping,
    choose_max_active,
    make_search_grouping,
)

LENGTHS = st.lists(st.integers(1, 300), max_size=400)


@settings(deadline=None)
@given(lengths=LENGTHS, batch_tokens=st.integers(1, 5000), max_rows=st.integers(1, 50))
def test_every_sentence_stands_in_one_group_that_is_not_too_large(lengths, batch_tokens, max_rows):
    groups = list(Grouping(batch_tokens, max_rows).split(lengths))
    assert sorted(n for group in groups for n in group.members) == list(range(len(lengths)))
    for group in groups:
        longest = max(lengths[n] for n in group.members)
        assert len(group.members) <= max_rows
        assert len(group.members) == 1 or len(group.members) * longest <= batch_tokens


@settings(deadline=None)
@given(lengths=LENGTHS, batch_tokens=st.integers(1, 5000))
def test_sizes_of_large_groups_are_round_but_for_the_last(lengths, batch_tokens):
    *sizes, _ = [len(group.members) for group in Grouping(batch_tokens, 50).split(lengths)] or [0]
    assert all(size < SIZE_MULTIPLE or size % SIZE_MULTIPLE == 0 for size in sizes)


def test_neighbours_in_a_group_are_of_like_length():
    lengths = [7, 90, 8, 91, 7, 92]
    groups = [sorted(lengths[n] for n in group.members) for group in Grouping(300, 128).split(lengths)]
    assert groups == [[7, 7, 8], [90, 91, 92]]


@pytest.mark.parametrize(("beam_size", "rows"), [(1, MAX_QUERIES), (5, MAX_QUERIES // 5), (64, MAX_QUERIES // 64)])
def test_wider_beams_have_fewer_rows(beam_size, rows):
    settings = DecodingConfig(beam_size=beam_size, batch_tokens=10**9)
    groups = list(make_search_grouping(settings).split([10] * 9000))
    assert choose_max_active(beam_size) == rows
    assert max(len(group.members) for group in groups) == REFILLS * rows


@pytest.mark.parametrize(("changes", "n_best"), [({"mbr": "chrf", "mbr_candidates": 32}, 1), ({}, 32)])
def test_more_candidates_have_fewer_rows_with_static_shapes(changes, n_best, monkeypatch):
    monkeypatch.setattr("nmt.decoding.grouping.has_static_shapes", lambda: True)
    settings = DecodingConfig(beam_size=5, batch_tokens=10**9, **changes)
    [first, *_] = make_search_grouping(settings, n_best).split([10] * 100)
    assert len(first.members) == MAX_QUERIES // 32


@settings(deadline=None)
@given(lengths=LENGTHS, batch_tokens=st.integers(1, 5000))
def test_shaped_groups_hold_every_sentence_once(lengths, batch_tokens):
    groups = list(ShapedGrouping(batch_tokens, 128).split(lengths))
    assert sorted(n for group in groups for n in group.members) == list(range(len(lengths)))
    for group in groups:
        rows, width = group.shape
        assert len(group.members) <= rows <= 128
        assert max(lengths[n] for n in group.members) <= width
        assert rows == 1 or rows * width <= batch_tokens


def test_shapes_are_few_however_many_lengths_there_are():
    grouping, random = ShapedGrouping(8192, 128), np.random.default_rng(1)
    shapes = {
        group.shape
        for num_lines in range(1, 400)
        for group in grouping.split(list(random.integers(1, 251, size=num_lines)))
    }
    # Widths of 16, 32, 64, 128 and 256, each with one row, a few or as many as memory allows.
    assert shapes <= {(rows, width) for width in (16, 32, 64, 128, 256) for rows in (1, 16, min(128, 8192 // width))}


def test_what_fills_no_group_moves_on_to_the_next_width():
    groups = list(ShapedGrouping(64, 128).split([10, 10, 30, 10, 30, 10, 10]))
    assert [(len(group.members), group.shape) for group in groups] == [(4, (4, 16)), (2, (2, 32)), (1, (1, 32))]


def test_rows_that_only_fill_up_hold_nothing():
    ids = [[7], [5, 6], [8, 9]]
    padded = Group([2, 0], (4, 5)).pad(ids)
    assert padded.tolist() == [[8, 9, EOS_ID, 0, 0], [7, EOS_ID, 0, 0, 0], *[[EOS_ID, 0, 0, 0, 0]] * 2]
    assert Group([2, 0], None).pad(ids).tolist() == [[8, 9, EOS_ID], [7, EOS_ID, 0]]
