import math
import re

import pytest

from nmt.config.schema import TrainingConfig
from nmt.training.checkpoint import Progress
from nmt.training.schedules import compute_learning_rate, find_idle_updates, make_schedule

HALF = math.sqrt(0.5)
KINDS = ("constant", "linear", "cosine", "inverse_sqrt", "plateau")


def settings(**values):
    return TrainingConfig(**{"max_updates": 9, "schedule": "linear", "schedule_updates": 8, **values})


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_updates_at_a_rate_of_0_cause_a_warning(kind):
    words = r"^the learning rate is 0 after update 8 \(.*\), but training lasts until update 9\. Set .*_updates=9, or"
    assert re.match(words, find_idle_updates(settings(schedule=kind), 9))


@pytest.mark.parametrize(
    ("values", "max_updates"),
    [({}, 8), ({}, None), ({"final_rate": 0.1}, 9), ({"schedule": "constant", "schedule_updates": None}, 9)],
)
def test_a_schedule_that_ends_with_the_run_causes_no_warning(values, max_updates):
    assert find_idle_updates(settings(**values), max_updates) is None


def course(num_updates, **kwargs):
    return [compute_learning_rate(update, **{"peak": 1.0, **kwargs}) for update in range(1, num_updates + 1)]


def test_constant_step_by_step():
    assert course(6, kind="constant", warmup=4) == [0.25, 0.5, 0.75, 1, 1, 1]
    assert course(3, kind="constant") == [1, 1, 1]


def test_linear_step_by_step():
    assert course(8, kind="linear", warmup=2, length=6) == pytest.approx([0.5, 1, 0.8, 0.6, 0.4, 0.2, 0, 0])
    assert course(6, kind="linear", length=3, final=0.2) == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.2, 0.2])


def test_cosine_step_by_step():
    falling = [(1 + HALF) / 2, 1 / 2, (1 - HALF) / 2, 0, 0]
    assert course(6, kind="cosine", warmup=1, length=4) == pytest.approx([1, *falling])
    # With final 0.4, what falls is the other 0.6.
    assert course(5, kind="cosine", length=3, final=0.4) == pytest.approx([0.4 + 0.6 * x for x in falling])


def test_inverse_square_root_step_by_step():
    expected = [1 / 4, 2 / 4, 3 / 4, 1, math.sqrt(4 / 5), math.sqrt(4 / 6)]
    assert course(6, kind="inverse_sqrt", warmup=4) == pytest.approx(expected)
    # Four times as many updates, half the rate.
    assert [compute_learning_rate(n, peak=1, kind="inverse_sqrt", warmup=4) for n in (16, 64)] == [1 / 2, 1 / 4]


@pytest.mark.parametrize("kind", KINDS)
def test_the_peak_scales_all_of_it(kind):
    low, high = (course(9, kind=kind, warmup=3, length=7, final=0.1, peak=peak) for peak in (1.0, 0.25))
    assert [rate / 4 for rate in low] == pytest.approx(high)


@pytest.mark.parametrize("kind", KINDS)
def test_the_peak_is_reached_at_the_end_of_the_warm_up_and_never_passed(kind):
    rates = course(12, kind=kind, warmup=5, length=10)
    assert rates[4] == max(rates) == 1


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_a_falling_schedule_needs_its_length(kind):
    with pytest.raises(ValueError, match=f"A {kind} schedule requires a length"):
        compute_learning_rate(1, peak=1, kind=kind)


@pytest.mark.parametrize(("kind", "falling"), [("linear", 0.75), ("cosine", (1 + HALF) / 2)])
def test_a_budget_replaces_the_number_of_updates(kind, falling):
    """A quarter of the 120 s that the end leaves is used, and two of four updates of warm-up are done."""
    values = {
        "schedule_updates": None,
        "max_updates": None,
        "budget_minutes": 3,
        "warmup_updates": 4,
        "final_rate": 0.5,
    }
    schedule = make_schedule(settings(schedule=kind, learning_rate=1.0, **values))
    assert schedule(Progress(update=9, seconds=30, end_seconds=60)) == pytest.approx(0.5 + 0.5 * falling)
    assert schedule(Progress(update=1, seconds=30, end_seconds=60)) == pytest.approx((0.5 + 0.5 * falling) / 2)
    assert schedule(Progress(update=99, seconds=130, end_seconds=60)) == pytest.approx(0.5)


def test_rollbacks_and_plateaus_lower_the_rate():
    schedule = make_schedule(
        settings(schedule="plateau", schedule_updates=None, learning_rate=1.0, plateau_factor=0.75)
    )
    assert schedule(Progress(update=9, rollbacks=2, decays=2)) == 0.75**2 / 4
