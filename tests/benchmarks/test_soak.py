"""The soak of `nmt serve`, without a server."""

import numpy as np
import pytest

import benchmarks.__main__ as command_line
from benchmarks.soak import _compute_growth, choose_interval


@pytest.mark.parametrize("minutes", [0.1, 0.5, 1, 5, 10])
def test_growth_is_measured_in_short_and_long_soaks(minutes):
    interval = choose_interval(minutes)
    times = np.arange(0, 60 * minutes + 1, 1.1 * interval)  # a sample takes time, and Locust starts and stops
    window = min(60, times[-1] / 10)
    # Of memory that grows by 1 MB per second, the last window has as much more as it is later than the second one.
    growth = _compute_growth([(at, at) for at in times.tolist()])
    assert growth == pytest.approx(times[-1] - 2 * window, abs=1.1 * interval)
    assert choose_interval(10) == 5


def test_all_parts_soak_for_seconds_in_a_quick_test(monkeypatch):
    soaked = []

    def record(part, settings, text, measure, systems=()):
        if part == "soak":
            measure()

    monkeypatch.setattr(command_line, "_record", record)
    monkeypatch.setattr(command_line, "make_text", lambda folder: None)
    monkeypatch.setattr(command_line.soak, "measure", lambda settings, text, model, minutes: soaked.append(minutes))
    command_line.measure_all(quick=True)
    command_line.measure_all()
    assert soaked == [0.1, 10]
