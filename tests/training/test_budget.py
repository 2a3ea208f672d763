"""A run with a budget of time, by a clock that stands still unless an update or a validation moves it."""

import json
from types import SimpleNamespace
from unittest.mock import Mock

import keras
import numpy as np
import pytest

from nmt.config.schema import TrainingConfig
from nmt.errors import InterruptionError
from nmt.training import trainer
from nmt.training.budget import Budget, compute_share
from nmt.training.checkpoint import CheckpointFolder, Progress
from nmt.training.workers import Workers

UPDATE, VALIDATION, START_UP = 9, 30, 54  # seconds
BUDGET = {"max_updates": None, "budget_minutes": 10, "learning_rate": 1.0, "schedule": "linear"}


class Clock(keras.callbacks.Callback):
    """Moves on with every update."""

    def __init__(self, now):
        super().__init__()
        self.now = now

    def on_train_batch_begin(self, batch, logs=None):
        self.now += UPDATE


class Interrupt(keras.callbacks.Callback):
    def __init__(self, after):
        super().__init__()
        self.after = after

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.after:
            import signal

            signal.raise_signal(signal.SIGTERM)


@pytest.fixture
def train(rehearsal, monkeypatch):
    """Trains by a clock that begins somewhere, and returns it. Preparing the data takes a minute."""
    clocks = []

    def look():
        return clocks[-1].now

    for module in ("train", "stopping", "budget"):
        monkeypatch.setattr(f"nmt.training.{module}.time", SimpleNamespace(monotonic=look))
    validate, prepare = rehearsal.make_validator, rehearsal.make_update

    def make_validator(*args):
        made = validate(*args)
        scripted = made.validate

        def validate_slowly(weights):
            clocks[-1].now += VALIDATION
            return scripted(weights)

        def compile_slowly():
            clocks[-1].now += clocks[-1].compilation

        made.validate, made.compile = validate_slowly, compile_slowly
        return made

    def make_update(*args):
        clocks[-1].now += clocks[-1].start_up
        return prepare(*args)

    monkeypatch.setattr("nmt.training.trainer.Validator", make_validator)
    monkeypatch.setattr("nmt.training.trainer.make_update", make_update)

    def run(config, *, begin=0, start_up=START_UP, compilation=0, interrupted=None, num_validations=9):
        clocks.append(Clock(begin))
        clocks[-1].start_up, clocks[-1].compilation = start_up, compilation
        callbacks = [clocks[-1], *([Interrupt(interrupted)] if interrupted else [])]
        rehearsal.train(config, bleu=list(range(1, 1 + num_validations)), callbacks=callbacks)
        return clocks[-1]

    return run


def rates_by_hand(updates, validated):
    """The rates of the updates: what is left of the budget before each of them, the end apart."""
    rates, used, end = [], 0, 0
    for number in range(1, updates + 1):
        rates.append(1 - used / (600 - end))
        used = (used or START_UP) + UPDATE
        if number in validated:
            used, end = used + VALIDATION, 1.25 * VALIDATION
    return rates


def read_validated(run_dir):
    records = [json.loads(line) for line in (run_dir / "history.jsonl").read_text().splitlines()]
    return [record["update"] for record in records if record["kind"] == "validation"]


def test_the_schedule_and_the_run_end_within_the_budget(train, rehearsal, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "MIN_SENTENCES", 7)
    monkeypatch.setattr(trainer, "calibrate", Mock(side_effect=AssertionError("beyond the budget")))
    clock = train(recipe(tmp_path, validate_every=14, **BUDGET))
    # Start-up, 47 updates and three validations are 567 s, the first time beyond the 562.5 that the end leaves.
    assert clock.now == 567 + VALIDATION <= 600
    assert read_validated(tmp_path) == [14, 28, 42, 47]
    assert rehearsal.update.rates == pytest.approx(rates_by_hand(47, {14, 28, 42}), abs=1e-12)
    assert 0 < rehearsal.update.rates[-1] < 0.01
    assert any(line.startswith("Finished: budget_minutes 10 used, except for the end") for line in rehearsal.said)
    [line] = [line for line in rehearsal.said if "confidence" in line]
    assert line.endswith(f"not part of training.budget_minutes. Fit it with: nmt calibrate {tmp_path}")
    before = (tmp_path / "history.jsonl").read_text()
    train(recipe(tmp_path, validate_every=14, **BUDGET), num_validations=0)
    assert (tmp_path / "history.jsonl").read_text() == before


def test_a_resumed_run_goes_on_by_the_time_that_is_left(train, rehearsal, recipe, tmp_path):
    config = recipe(tmp_path, validate_every=14, **BUDGET)
    with pytest.raises(InterruptionError):
        train(config, interrupted=20)
    rates = rehearsal.update.rates
    progress = CheckpointFolder(tmp_path / "checkpoints", keep=9).load_latest().progress
    assert (progress.seconds, progress.end_seconds) == (54 + 20 * 9 + 30, 37.5)
    clock = train(config, begin=5000, start_up=0)
    assert clock.now == 5000 + 27 * 9 + 3 * 30
    # Also before the new process has measured a validation.
    assert [*rates, *rehearsal.update.rates] == pytest.approx(rates_by_hand(47, {14, 28, 42}), abs=1e-12)


def test_a_run_without_validations_has_one_to_know_what_its_end_takes(train, recipe, tmp_path):
    clock = train(recipe(tmp_path, validate_every=1000, average_last=2, checkpoint_every=10, **BUDGET))
    # Half of the time is used after 28 updates. The end then has 75 s, since the average is validated as well.
    assert read_validated(tmp_path) == [29, 49]
    assert clock.now == 54 + 49 * 9 + 3 * 30 <= 600


def test_the_end_sets_no_time_aside_for_what_is_compiled_once(train, recipe, tmp_path):
    clock = train(recipe(tmp_path, validate_every=14, **BUDGET), compilation=60)
    assert read_validated(tmp_path) == [14, 28, 42]
    assert clock.now == START_UP + 42 * UPDATE + 60 + 3 * VALIDATION <= 600
    progress = CheckpointFolder(tmp_path / "checkpoints", keep=9).load_latest().progress
    assert progress.end_seconds == 1.25 * VALIDATION


class Second(Workers):
    """Worker 1 of 2. The chief has used 120 s, and sets 10 s aside."""

    number, count = 1, 2

    def all_reduce_sum(self, values):
        return values + np.array([[120, 0], [10, 0]])


def test_the_time_of_the_chief_counts():
    budget = Budget(TrainingConfig(budget_minutes=5, schedule="cosine"), Second(), started=0.0)
    assert budget.count_time(Progress(update=3)) == Progress(update=3, seconds=120, end_seconds=10)


@pytest.mark.parametrize(
    ("seconds", "end", "share"), [(0, 0, 0), (90, 60, 0.75), (90, 120, 1), (500, 0, 1), (0, 180, 1)]
)
def test_the_share_is_of_what_the_end_leaves(seconds, end, share):
    assert compute_share(Progress(seconds=seconds, end_seconds=end), 3) == share
