import pytest

from benchmarks.ratios import Spread, compute_ratio, compute_speed, pick_evenly


def test_the_first_update_of_the_window_only_starts_the_clock():
    updates = [(5.0, 1_000_000), (10.0, 1_000_000), (11.0, 300), (12.0, 500), (99.0, 1_000_000)]
    assert compute_speed(updates, (2, 4)) == 400


@pytest.mark.parametrize("window", [(0, 2), (2, 2), (1, 4)])
def test_a_window_outside_the_run_is_refused(window):
    with pytest.raises(ValueError, match="within 1 to 3 updates, found"):
        compute_speed([(1.0, 1), (2.0, 1), (3.0, 1)], window)


def test_ratios_are_taken_run_by_run():
    # A machine twice as slow in the second round changes no ratio, though the medians' ratio would not be 4 either.
    assert compute_ratio([400, 200, 440], [100, 50, 110]) == Spread(4, 4, 4)


def test_runs_without_partners_are_refused():
    with pytest.raises(ValueError, match="found 2 and 1"):
        compute_ratio([1, 2], [1])


def test_few_samples_are_all_taken_and_many_evenly():
    assert pick_evenly([1, 2], 3) == [1, 2]
    assert pick_evenly(list(range(101)), 11) == list(range(0, 101, 10))
