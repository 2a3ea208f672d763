from types import SimpleNamespace

import numpy as np
import pytest

from nmt.config.schema import TrainingConfig
from nmt.training import stopping
from nmt.training.checkpoint import Progress
from nmt.training.stopping import Stop, Stopping
from nmt.training.workers import Workers

BATCHES = 7


def make_stopping(*, workers=None, model=None, started=0.0, **settings):
    config = TrainingConfig(**{"max_updates": 1000, **settings})
    workers = workers or Workers()
    return Stopping(config, workers, model or SimpleNamespace(), batches_per_epoch=BATCHES, started=started)


@pytest.mark.parametrize(
    ("settings", "progress", "reason"),
    [
        ({"max_updates": 1500}, Progress(update=1499), None),
        ({"max_updates": 1500}, Progress(update=1500), "max_updates 1,500 reached"),
        ({"max_epochs": 2}, Progress(epoch=1, batch=BATCHES - 1), None),
        ({"max_epochs": 2}, Progress(epoch=1, batch=BATCHES), "max_epochs 2 reached"),
        ({"patience": 3}, Progress(validations_since_best=2), None),
        ({"patience": 3}, Progress(validations_since_best=3), "no improvement in 3 validations"),
        ({"patience": 1}, Progress(validations_since_best=1), "no improvement in 1 validation"),
    ],
)
def test_a_limit_ends_the_training_once_it_is_reached(settings, progress, reason):
    assert make_stopping(**settings).check_limits(progress) == reason


@pytest.mark.parametrize(("seconds", "reason"), [(89, None), (90, "max_minutes 1.5 reached")])
def test_minutes_count_from_the_start_of_the_process(monkeypatch, seconds, reason):
    monkeypatch.setattr(stopping, "time", SimpleNamespace(monotonic=lambda: 1000.0 + seconds))
    assert make_stopping(max_minutes=1.5, started=1000.0).check_limits(Progress()) == reason


def test_a_callback_may_end_it():
    model = SimpleNamespace(stop_training=False)
    decision = make_stopping(model=model)
    assert decision.check_limits(Progress()) is None
    model.stop_training = True
    assert decision.check_limits(Progress()) == "a callback requested it"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"max_updates": 10, "max_epochs": 2}, 10),
        ({"max_updates": 20, "max_epochs": 2}, 2 * BATCHES),
        ({"max_updates": None, "max_epochs": 3}, 3 * BATCHES),
        ({"max_updates": None, "max_minutes": 3.0}, None),
    ],
)
def test_the_last_update_is_known_unless_only_the_clock_ends_it(settings, expected):
    assert make_stopping(**settings).max_updates == expected


def test_a_single_worker_decides_for_itself():
    decision = make_stopping(max_updates=5)
    assert decision.agree_on_stop(Progress(update=4), 0) == Stop(0, None)
    assert decision.agree_on_stop(Progress(update=5), 15) == Stop(15, "max_updates 5 reached")


class Second(Workers):
    """Worker 1 of 2. The other contributes a signal number and whether it reached a limit."""

    number, count = 1, 2

    def __init__(self, signal_number, is_limited):
        self.other = np.array([[signal_number, 0], [is_limited, 0]], float)

    def all_reduce_sum(self, values):
        return values + self.other


@pytest.mark.parametrize(
    ("other", "own", "expected"),
    [
        ((0, False), (0, 4), Stop(0, None)),
        ((2, False), (0, 4), Stop(2, None)),
        ((0, False), (15, 4), Stop(15, None)),
        ((0, True), (0, 4), Stop(0, "another worker reached its limit")),
        ((0, True), (0, 5), Stop(0, "max_updates 5 reached")),
    ],
)
def test_workers_stop_together(other, own, expected):
    signal_number, update = own
    decision = make_stopping(workers=Second(*other), max_updates=5)
    assert decision.agree_on_stop(Progress(update=update), signal_number) == expected
