import bz2
import errno
import importlib
import json
import math
import re
import shutil
import signal
import sys
from types import SimpleNamespace
from unittest.mock import Mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from nmt import weights
from nmt.cluster.trials import read_validations
from nmt.config.schema import DevFiles, TrainingFiles
from nmt.data.batching import NUM_BUCKETS
from nmt.errors import DivergenceError, InterruptionError, UnsavedError, UserError, WorkerLostError
from nmt.model_folder import ModelFolder, save_confidence
from nmt.report.records import read_run
from nmt.training import trainer
from nmt.training.checkpoint import CheckpointFolder
from nmt.training.stopping import Stop
from nmt.training.train import train
from nmt.training.update_tensorflow import TensorFlowUpdate
from nmt.training.workers import Workers

BATCHES = 7  # of an epoch: 100 pairs in batches of 16
UNTOLD = "no outcome was told"


def history(run_dir):
    return [json.loads(line) for line in (run_dir / "history.jsonl").read_text().splitlines()]


def scores_of(run_dir):
    return [(record["update"], record["kind"], record["bleu"]) for record in history(run_dir) if "bleu" in record]


def updates_of(run_dir, kind="training"):
    return [record["update"] for record in history(run_dir) if record["kind"] == kind]


def checkpoints(run_dir):
    return CheckpointFolder(run_dir / "checkpoints", keep=9)


def test_a_training_that_learns(recipe, tmp_path):
    """The loop with nothing stood in for: the loss falls, and the best model translates."""
    config = recipe(tmp_path, max_updates=60, learning_rate=2**-5, validate_every=30)
    best = train(config, log=lambda _: None)
    losses = [record["loss"] for record in history(tmp_path) if record["kind"] == "training"]
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])
    first, last = (record for record in history(tmp_path) if record["kind"] == "validation")
    assert last["loss"] < first["loss"]
    assert last["perplexity"] == pytest.approx(math.exp(last["loss"]))
    assert best == tmp_path / "best"
    facts = ModelFolder.load(tmp_path).facts
    assert facts["versions"]["keras"] == keras.__version__
    assert facts["dev_loss"] in (first["loss"], last["loss"])
    assert facts["multi_sentence_share"] == 0


def test_word_alignments_reach_every_update(rehearsal, recipe, tmp_path):
    config = recipe(tmp_path, max_updates=2, validate_every=2)
    links = tmp_path / "links"
    links.write_text("0-0\n" * 100)
    train = [config.data.train[0].model_copy(update={"alignments": links})]
    data = config.data.model_copy(update={"train": train})
    training = config.training.model_copy(update={"guided_alignment": 0.5})
    rehearsal.train(config.model_copy(update={"data": data, "training": training}), bleu=[1.0])
    assert [batch.alignment.sum() > 0 for batch in rehearsal.update.batches] == [True, True]


def test_it_ends_after_max_updates(rehearsal, recipe, tmp_path):
    rehearsal.train(recipe(tmp_path, max_updates=9), bleu=[1])
    assert updates_of(tmp_path) == list(range(1, 10))
    assert re.fullmatch(r"Finished: max_updates 9 reached, after \d\.\d minutes\.", rehearsal.said[-2])


def test_it_ends_after_max_epochs(rehearsal, recipe, tmp_path):
    rehearsal.train(recipe(tmp_path, max_updates=None, max_epochs=2), bleu=[1])
    assert updates_of(tmp_path) == list(range(1, 2 * BATCHES + 1))
    assert any(line.startswith("Finished: max_epochs 2 reached") for line in rehearsal.said)


def test_it_ends_after_max_minutes(rehearsal, recipe, tmp_path, monkeypatch):
    clock = iter(range(0, 100_000, 15))  # a quarter of a minute passes between any two looks
    for module in ("nmt.training.train", "nmt.training.stopping"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=lambda: next(clock)))
    rehearsal.train(recipe(tmp_path, max_updates=None, max_minutes=2), bleu=[1])
    # Looked at when it starts, before the first update and after each one; 2 minutes are 8 quarters.
    assert updates_of(tmp_path) == list(range(1, 8))
    assert any(line.startswith("Finished: max_minutes 2 reached") for line in rehearsal.said)


def test_the_schedule_counts_updates(rehearsal, recipe, tmp_path):
    config = recipe(tmp_path, max_updates=5, schedule="linear", warmup_updates=2, schedule_updates=4, learning_rate=1.0)
    rehearsal.train(config, bleu=[1])
    rates = [0.5, 1, pytest.approx(2 / 3), pytest.approx(1 / 3), 0]
    assert rehearsal.update.rates == rates
    assert [record["learning_rate"] for record in history(tmp_path)[:5]] == rates
    assert (
        "Warning: the learning rate is 0 after update 4 (training.schedule_updates), but training lasts until update "
        "5. Set training.schedule_updates=5, or training.final_rate above 0."
    ) in rehearsal.said


def test_a_rate_of_0_in_a_run_without_a_last_update_is_warned_about_once(rehearsal, recipe, tmp_path):
    config = recipe(tmp_path, max_updates=None, max_minutes=1e3, schedule="linear", schedule_updates=3)
    rehearsal.train(config, bleu=[1], callbacks=[Recorder(stop_after=6)])
    assert rehearsal.update.rates[2:] == [pytest.approx(2**-9), 0, 0, 0]
    assert [line for line in rehearsal.said if line.startswith("Warning")] == [
        "Warning: the learning rate is 0 from update 4 on (training.schedule_updates is 3), so that nothing is learned "
        "any more. End the run with training.max_updates=3; a longer one needs a longer schedule or "
        "training.final_rate above 0."
    ]


def test_a_limit_that_another_worker_has_reached_at_the_start_ends_it(rehearsal, recipe, tmp_path, monkeypatch):
    stop = Stop(reason="another worker reached its limit")
    monkeypatch.setattr(trainer.Stopping, "agree_on_stop", lambda *_: stop)
    rehearsal.train(recipe(tmp_path), bleu=[1])
    assert updates_of(tmp_path) == []


def test_patience_ends_it(rehearsal, recipe, tmp_path):
    config = recipe(tmp_path, max_updates=100, validate_every=3, patience=2)
    rehearsal.train(config, bleu=[1, 3, 2, 4, 4, 3.5])
    # 4 is the best; the same again is not better.
    assert updates_of(tmp_path, "validation") == [3, 6, 9, 12, 15, 18]
    assert any(line.startswith("Finished: no improvement in 2 validations") for line in rehearsal.said)


def test_patience_waits_while_bleu_is_equal_and_the_loss_falls(rehearsal, recipe, tmp_path):
    config = recipe(tmp_path, max_updates=100, validate_every=1, patience=2)
    best = rehearsal.train(config, bleu=[0, 0, 0, 0, 0, 0], loss=[9, 8, 7, 6, 7, 6])
    assert updates_of(tmp_path, "validation") == [1, 2, 3, 4, 5, 6]
    assert ModelFolder.load(best).facts["update"] == 4
    [warning] = [line for line in rehearsal.said if line.startswith("Warning: BLEU")]
    assert warning == (
        "Warning: BLEU was 0 in 3 validations in a row. Either the model has not learned enough yet (its perplexity is "
        f"2.0 and should fall), or target_language does not fit the text ('en' makes sacreBLEU split "
        f"{config.data.dev.target} by the tokenizer 13a), or the lines of {config.data.dev.target} do not translate "
        f"those of {config.data.dev.source}."
    )


@pytest.mark.parametrize(("best_by", "update"), [("bleu", 4), ("loss", 2)])
def test_the_best_weights_are_kept(rehearsal, recipe, tmp_path, best_by, update):
    config = recipe(tmp_path, max_updates=6, validate_every=2, best_by=best_by)
    best = rehearsal.train(config, bleu=[5, 7, 6], loss=[1.5, 2.0, 1.75])
    model = ModelFolder.load(best)
    assert model.facts["update"] == update
    assert (model.facts["dev_bleu"], model.facts["dev_loss"]) == {4: (7, 2.0), 2: (5, 1.5)}[update]
    # Each update adds 1 to every weight.
    assert all((array == update).all() for array in model.weights.values())


def test_the_end_is_validated_unless_it_just_was(rehearsal, recipe, tmp_path):
    rehearsal.train(recipe(tmp_path / "a", max_updates=5, validate_every=2), bleu=[1, 2, 3])
    assert updates_of(tmp_path / "a", "validation") == [2, 4, 5]
    rehearsal.train(recipe(tmp_path / "b", max_updates=4, validate_every=2), bleu=[1, 2])
    assert updates_of(tmp_path / "b", "validation") == [2, 4]


@pytest.mark.parametrize(("validate_every", "average_last"), [(2, 1), (3, 1), (2, 2)])
def test_a_finished_run_started_again_does_nothing(rehearsal, recipe, tmp_path, validate_every, average_last):
    config = recipe(
        tmp_path, max_updates=4, validate_every=validate_every, checkpoint_every=2, average_last=average_last
    )
    rehearsal.train(config, bleu=[1, 2, 3][: 1 + average_last])
    before = history(tmp_path)
    rehearsal.train(config, bleu=[])
    assert history(tmp_path) == before


def test_the_end_fits_the_confidence_of_the_best_model_once(rehearsal, recipe, tmp_path, monkeypatch):
    fitted = []
    monkeypatch.setattr(trainer, "MIN_SENTENCES", 7)

    def calibrate(model, *text):
        fitted.append((model, *text))
        save_confidence(model, {"a": 1})
        return SimpleNamespace(sentences=7)

    monkeypatch.setattr(trainer, "calibrate", calibrate)
    best = rehearsal.train(recipe(tmp_path, max_updates=2, validate_every=2), bleu=[1])
    [(model, sources, references)] = fitted
    assert "Fitted the confidence in translations on 7 dev sentences." in rehearsal.said
    assert model == best and [one.split()[::-1] for one in sources] == [one.split() for one in references]
    rehearsal.train(recipe(tmp_path, max_updates=2, validate_every=2), bleu=[])
    assert len(fitted) == 1
    rehearsal.train(recipe(tmp_path, max_updates=4, validate_every=2), bleu=[2])  # a better model has none yet
    assert len(fitted) == 2


def test_a_confidence_that_cannot_be_fitted_does_not_fail_a_complete_run(rehearsal, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "MIN_SENTENCES", 7)
    monkeypatch.setattr(trainer, "calibrate", Mock(side_effect=UserError("Cannot write it: No space left on device.")))
    rehearsal.train(recipe(tmp_path, max_updates=1, on_full_disk="stop"), bleu=[1])
    assert rehearsal.said[-1] == (
        f"The confidence in translations could not be fitted. Fit it later with: nmt calibrate {tmp_path}. Cannot "
        "write it: No space left on device."
    )


def test_a_removed_best_model_is_written_again(rehearsal, recipe, tmp_path):
    config = recipe(tmp_path, max_updates=4)
    best = rehearsal.train(config, bleu=[2])
    shutil.rmtree(best)
    assert rehearsal.train(config, bleu=[1]) == best
    assert ModelFolder.load(best).facts["dev_bleu"] == 1


def test_the_average_of_the_last_checkpoints_is_their_mean(rehearsal, recipe, tmp_path):
    config = recipe(tmp_path, max_updates=8, checkpoint_every=2, average_last=3)
    rehearsal.train(config, bleu=[5, 6])
    # Checkpoints of updates 4, 6 and 8, whose weights are 4, 6 and 8.
    assert all((array == 6).all() for array in rehearsal.validator.asked[-1].values())
    model = ModelFolder.load(tmp_path)
    assert all((array == 6).all() for array in model.weights.values())
    assert model.facts["dev_bleu"] == 6
    assert (
        "Average of the last 3 checkpoints: BLEU 6.00 · perplexity 2.00. It is the best model now: the average has "
        "bleu 6.000, the best model had 5.000."
    ) in rehearsal.said
    scores = {"loss": 1.0, "perplexity": 2.0, "bleu": 6}
    assert history(tmp_path)[-1] == {"update": 8, "kind": "average", **scores, "is_best": True, "num_checkpoints": 3}
    # A longer run must be better than the average.
    rehearsal.train(recipe(tmp_path, max_updates=9, checkpoint_every=2, average_last=3), bleu=[5.5, 5.7])
    assert ModelFolder.load(tmp_path).facts["dev_bleu"] == 6


def test_an_average_that_is_no_better_is_not_taken(rehearsal, recipe, tmp_path):
    settings = {"max_updates": 8, "checkpoint_every": 2, "average_last": 3, "best_by": "loss"}
    rehearsal.train(recipe(tmp_path, **settings), bleu=[5, 7], loss=[1.0, 1.0])
    assert all((array == 8).all() for array in ModelFolder.load(tmp_path).weights.values())
    assert (
        "Average of the last 3 checkpoints: BLEU 7.00 · perplexity 2.00. The best model is kept: the average has loss "
        "1.000, the best model had 1.000."
    ) in rehearsal.said
    assert history(tmp_path)[-1]["is_best"] is False


def test_all_workers_learn_that_one_has_no_promises(rehearsal, recipe, tmp_path, monkeypatch):
    config = recipe(tmp_path / "run")
    config = config.model_copy(update={"data": config.data.model_copy(update={"promises": tmp_path / "none.yaml"})})
    gathered = []
    gather = Workers.all_gather
    monkeypatch.setattr(Workers, "all_gather", lambda self, *values: gathered.append(values) or gather(self, *values))
    with pytest.raises(UserError, match=r"none\.yaml"):
        rehearsal.train(config, bleu=[])
    assert gathered[-1] == (True,)


def test_the_start_model_is_not_averaged(rehearsal, recipe, tmp_path):
    rehearsal.train(recipe(tmp_path / "start", max_updates=7), bleu=[1])
    settings = {"max_updates": 2, "checkpoint_every": 1, "average_last": 3, "start_from": tmp_path / "start"}
    rehearsal.train(recipe(tmp_path / "new", **settings), bleu=[1, 2])
    # Updates 1 and 2 have the weights 8 and 9, and update 0 has those of the start model, 7.
    assert all((array == 8.5).all() for array in rehearsal.validator.asked[-1].values())


def test_a_single_checkpoint_is_not_averaged(rehearsal, recipe, tmp_path):
    rehearsal.train(recipe(tmp_path, max_updates=2, average_last=3), bleu=[5])
    assert any(line.startswith("There is only one checkpoint, so there is nothing to") for line in rehearsal.said)


class Damage(keras.callbacks.Callback):
    """Damages a file when an update begins."""

    def __init__(self, path, update):
        super().__init__()
        self.path, self.update = path, update

    def on_train_batch_begin(self, batch, logs=None):
        if batch == self.update:
            self.path.write_bytes(self.path.read_bytes()[:-1])


def test_a_run_ends_without_its_average_if_an_older_checkpoint_is_damaged(rehearsal, recipe, tmp_path):
    config = recipe(tmp_path, max_updates=8, checkpoint_every=2, average_last=3)
    damaged = tmp_path / "checkpoints" / "update-000000006.h5"
    assert rehearsal.train(config, bleu=[5], callbacks=[Damage(damaged, 8)]) == tmp_path / "best"
    [line] = [line for line in rehearsal.said if line.startswith("The last checkpoints are not averaged")]
    assert f"{damaged} is damaged" in line
    damaged.unlink()
    rehearsal.train(config, bleu=[6])
    assert "average" in [record["kind"] for record in history(tmp_path)]


class Recorder(keras.callbacks.Callback):
    """Writes down what it is told, and asks for the end after an update."""

    def __init__(self, stop_after=None):
        super().__init__()
        self.told, self.stop_after = [], stop_after

    def on_train_begin(self, logs=None):
        self.told.append("train begin")

    def on_epoch_begin(self, epoch, logs=None):
        self.told.append(("begin", epoch))

    def on_train_batch_end(self, batch, logs=None):
        self.told.append((batch, logs["loss"]))
        if batch == self.stop_after:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        self.told.append(("epoch", epoch, logs))

    def on_train_end(self, logs=None):
        self.told.append("train end")


def test_callbacks_are_told_what_happens(rehearsal, recipe, tmp_path):
    recorder = Recorder()
    rehearsal.train(recipe(tmp_path, max_updates=8, validate_every=6), bleu=[1, 2], callbacks=[recorder])
    batches = [(n, 1 / n) for n in range(1, 9)]
    logs = {"loss": 1 / 7, "nll": 1 / 7, "gradient_norm": 2.0, "val_loss": 1.0, "val_bleu": 1}
    first = [("begin", 0), *batches[:7], ("epoch", 0, logs)]
    assert recorder.told == ["train begin", *first, ("begin", 1), batches[7], "train end"]
    assert recorder.model is rehearsal.update.model
    assert isinstance(recorder.model.optimizer, keras.optimizers.Optimizer)


def test_an_update_begins_before_the_one_before_it_is_asked_about(rehearsal, recipe, tmp_path):
    rehearsal.train(recipe(tmp_path, max_updates=5, checkpoint_every=3), bleu=[1])
    begun, asked = (lambda n: ("started", n)), (lambda n: ("awaited", n))
    up_to_the_checkpoint = [begun(1), begun(2), asked(1), begun(3), asked(2), asked(3)]
    [(foreseen, num_shapes), *course, closed] = rehearsal.update.course
    assert course == [*up_to_the_checkpoint, begun(4), begun(5), asked(4), asked(5)]
    assert (foreseen, closed) == ("precompiled", ("closed", 0))
    assert 1 <= num_shapes <= NUM_BUCKETS


def test_an_update_that_is_done_when_it_returns_is_asked_about_at_once(rehearsal, recipe, tmp_path, monkeypatch):
    # Several modules are called conftest, so that the class has no name to import it by.
    monkeypatch.setattr(sys.modules[type(rehearsal).__module__].CountingUpdate, "runs_ahead", False)
    rehearsal.train(recipe(tmp_path, max_updates=3), bleu=[1])
    course = rehearsal.update.course[1:-1]
    assert course == [(what, n) for n in (1, 2, 3) for what in ("started", "awaited")]


def test_an_update_after_one_that_is_not_finite_waits(rehearsal, recipe, tmp_path):
    rehearsal.unapplied = range(2, 4)
    rehearsal.train(recipe(tmp_path, max_updates=6), bleu=[1])
    begun = [n for what, n in rehearsal.update.course if what == "started"]
    places = {event: place for place, event in enumerate(rehearsal.update.course)}
    waited = [n for n in begun[1:] if places["awaited", n - 1] < places["started", n]]
    # That 2 was skipped is known once 3 has begun.
    assert waited == [4, 5]


class Signal(keras.callbacks.Callback):
    """Sends this process a signal after an update."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.after:
            signal.raise_signal(signal.SIGTERM)


def test_callbacks_are_told_of_the_end_of_an_interrupted_training(rehearsal, recipe, tmp_path):
    recorder = Recorder()
    with pytest.raises(InterruptionError, match=r"after update 3; saved in .*\. The same command resumes it\."):
        rehearsal.train(recipe(tmp_path), bleu=[], callbacks=[Signal(after=3), recorder])
    assert recorder.told[-1] == "train end"


def test_a_callback_may_end_it(rehearsal, recipe, tmp_path):
    rehearsal.train(recipe(tmp_path, max_updates=100), bleu=[1], callbacks=[Recorder(stop_after=4)])
    assert updates_of(tmp_path) == [1, 2, 3, 4]
    assert any(line.startswith("Finished: a callback requested it") for line in rehearsal.said)
    assert checkpoints(tmp_path).load_latest().progress.update == 4


def test_keras_early_stopping_and_csv_logger_work(rehearsal, recipe, tmp_path):
    callbacks = [
        keras.callbacks.EarlyStopping("val_bleu", mode="max", patience=1),
        keras.callbacks.CSVLogger(str(tmp_path / "log.csv")),
    ]
    config = recipe(tmp_path / "run", max_updates=100, validate_every=BATCHES)
    rehearsal.train(config, bleu=[2, 3, 2.5, 9], callbacks=callbacks)
    assert updates_of(tmp_path / "run")[-1] == 3 * BATCHES
    header, *rows = [line.split(",") for line in (tmp_path / "log.csv").read_text().splitlines()]
    assert [float(row[header.index("val_bleu")]) for row in rows] == [2, 3, 2.5]


def test_thirty_updates_that_are_not_finite_end_the_training(rehearsal, recipe, tmp_path):
    rehearsal.unapplied = range(1, 31)
    words = r"not finite in 30 updates in a row, up to update 30\. Lower .*\. There is no checkpoint yet\.$"
    with pytest.raises(DivergenceError, match=words):
        rehearsal.train(recipe(tmp_path, max_updates=100, checkpoint_every=10), bleu=[])
    assert "update 1: the gradient is not finite; the update was skipped." in rehearsal.said
    # There was nothing good to keep.
    assert checkpoints(tmp_path).list_files() == []


def test_thirty_not_in_a_row_do_not_end_it(rehearsal, recipe, tmp_path):
    rehearsal.unapplied = range(2, 31)  # 29 of them
    rehearsal.train(recipe(tmp_path, max_updates=40), bleu=[1])
    assert updates_of(tmp_path)[-1] == 40
    assert [line for line in rehearsal.said if "not finite" in line] == [
        "update 2: the gradient is not finite; the update was skipped."
    ]
    rehearsal.unapplied = range(2, 32)
    with pytest.raises(DivergenceError, match=r"30 updates in a row, up to update 31\."):
        rehearsal.train(recipe(tmp_path / "another", max_updates=40), bleu=[])


RATE = 2**-7  # of the recipe


def test_a_lower_rate_is_tried_from_the_last_checkpoint_on(rehearsal, recipe, tmp_path):
    rehearsal.unapplied, rehearsal.tolerated_rate = range(8, 100), RATE / 4
    rehearsal.train(recipe(tmp_path, max_updates=12, checkpoint_every=5, max_skipped=3), bleu=[1])
    # Updates 1 to 10, of which the last three fail; 6 to 10 at half the rate; 6 to 12 at a quarter.
    assert rehearsal.update.rates == [RATE] * 10 + [RATE / 2] * 5 + [RATE / 4] * 7
    back = "The gradient was not finite in 3 updates in a row, up to update 10. Rolling back to update 5 with"
    assert f"{back} 0.5 times the learning rate (rollback 1 of at most 3)." in rehearsal.said
    assert f"{back} 0.25 times the learning rate (rollback 2 of at most 3)." in rehearsal.said
    assert updates_of(tmp_path) == list(range(1, 13))
    assert all((array == 12).all() for array in ModelFolder.load(tmp_path).weights.values())
    # The lower rate is part of the run.
    rehearsal.train(recipe(tmp_path, max_updates=14, checkpoint_every=5, max_skipped=3), bleu=[2])
    assert rehearsal.update.rates == [RATE / 4] * 2


def test_a_rollback_keeps_the_best_model_of_the_updates_that_it_undoes(rehearsal, recipe, tmp_path):
    rehearsal.unapplied, rehearsal.tolerated_rate = range(8, 100), RATE / 2
    config = recipe(tmp_path, max_updates=12, checkpoint_every=3, validate_every=7, max_skipped=3)
    # Validated at 7, after the checkpoint of 6; undone at 10; validated again at 7 with half the rate, and at the end.
    rehearsal.train(config, bleu=[9, 5, 6])
    assert ModelFolder.load(tmp_path).facts["dev_bleu"] == 9
    assert scores_of(tmp_path) == [(7, "undone", 9), (7, "validation", 5), (12, "validation", 6)]
    run = read_run(tmp_path)
    assert (run.best, run.best_translations) == ({"update": 7, "bleu": 9, "loss": 1.0}, {})
    assert max(one.bleu for one in read_validations(tmp_path / "history.jsonl")) == 9


def test_a_run_that_no_rate_helps_ends(rehearsal, recipe, tmp_path):
    rehearsal.unapplied = range(8, 100)
    config = recipe(tmp_path, max_updates=12, checkpoint_every=5, max_skipped=3, max_rollbacks=2)
    words = "3 updates in a row, up to update 10, although the learning rate was halved 2 times. Lower"
    with pytest.raises(DivergenceError, match=re.escape(words)):
        rehearsal.train(config, bleu=[])
    progress = checkpoints(tmp_path).load_latest().progress
    assert (progress.update, progress.rollbacks) == (5, 2)
    # Killed, it goes on at the rate that it had come to.
    rehearsal.tolerated_rate = RATE
    rehearsal.train(config, bleu=[1])
    assert rehearsal.update.rates == [RATE / 4] * 7


def test_a_loss_that_stays_high_is_rolled_back_too(rehearsal, recipe, tmp_path):
    rehearsal.high, rehearsal.tolerated_rate = range(43, 200), RATE / 2
    rehearsal.train(recipe(tmp_path, max_updates=80, checkpoint_every=10, log_every=40), bleu=[1])
    # Updates 43 to 72 fail, during which no checkpoint is made.
    assert rehearsal.update.rates == [RATE] * 72 + [RATE / 2] * 40
    [back] = [line for line in rehearsal.said if "Rolling back" in line]
    assert back.startswith("The loss, 0.1") and " at its lowest, was above 1.1" in back
    assert " in 30 updates in a row, up to update 72." in back
    assert "Rolling back to update 40 with 0.5 times the learning rate (rollback 1 of at most 3)." in back


def test_no_checkpoint_is_made_of_a_run_that_does_not_learn(rehearsal, recipe, tmp_path):
    rehearsal.unapplied = range(4, 8)
    rehearsal.train(recipe(tmp_path, max_updates=9, checkpoint_every=2), bleu=[1])
    assert [path.name for path in checkpoints(tmp_path).list_files()] == [f"update-{n:09}.h5" for n in (2, 8, 9)]


@pytest.mark.parametrize(("checkpoint_every", "resuming"), [(5, "resumes it after update 5."), (9, "starts it again.")])
def test_an_interruption_while_updates_fail_saves_no_checkpoint(
    rehearsal, recipe, tmp_path, checkpoint_every, resuming
):
    rehearsal.unapplied = range(7, 10)
    words = "Interrupted after update 8; no checkpoint was saved, because updates were failing. The same command "
    with pytest.raises(InterruptionError, match=f"^{re.escape(words + resuming)}$"):
        rehearsal.train(recipe(tmp_path, checkpoint_every=checkpoint_every), bleu=[], callbacks=[Signal(after=8)])
    updates = [5] if checkpoint_every == 5 else []
    assert [path.name for path in checkpoints(tmp_path).list_files()] == [f"update-{n:09}.h5" for n in updates]


def test_a_run_that_ends_while_updates_fail_is_resumed_before_them_and_keeps_its_best_model(
    rehearsal, recipe, tmp_path
):
    rehearsal.unapplied = range(9, 11)
    settings = {"checkpoint_every": 3, "validate_every": 4, "average_last": 2}
    rehearsal.train(recipe(tmp_path, max_updates=10, **settings), bleu=[1, 2, 4, 3])  # at 4, 8 and 10, and the average
    words = "Updates were failing at the end, so that no checkpoint was saved. The same command"
    assert f"{words} resumes the run after update 6." in rehearsal.said
    assert [path.name for path in checkpoints(tmp_path).list_files()] == [f"update-{n:09}.h5" for n in (3, 6)]
    assert updates_of(tmp_path) == list(range(1, 7))
    assert scores_of(tmp_path) == [(4, "validation", 1), (10, "undone", 4), (6, "average", 3)]
    rehearsal.unapplied = range(0)
    rehearsal.train(recipe(tmp_path, max_updates=12, **settings), bleu=[2, 3, 3.5])  # at 8 and 12, and the average
    assert updates_of(tmp_path) == list(range(1, 13))
    assert (10, "undone", 4) in scores_of(tmp_path)
    facts = ModelFolder.load(tmp_path).facts
    assert (facts["update"], facts["dev_bleu"]) == (10, 4)


def test_a_run_that_ends_while_updates_fail_before_its_first_checkpoint_has_none(rehearsal, recipe, tmp_path):
    rehearsal.unapplied = range(2, 5)
    rehearsal.train(recipe(tmp_path, max_updates=4), bleu=[1])
    assert any(line.endswith("The same command starts the run again.") for line in rehearsal.said)
    assert checkpoints(tmp_path).list_files() == []
    rehearsal.unapplied = range(0)
    rehearsal.train(recipe(tmp_path, max_updates=4), bleu=[2])
    assert ModelFolder.load(tmp_path).facts["dev_bleu"] == 2


def test_a_pair_too_large_for_the_memory_is_told(recipe, tmp_path, monkeypatch):
    exhausted = Mock(side_effect=tf.errors.ResourceExhaustedError(None, None, "OOM when allocating"))
    monkeypatch.setattr(TensorFlowUpdate, "_make_compute", lambda update: exhausted)
    with pytest.raises(UserError, match=r"^update 1: not enough memory, even for one sentence pair at a time"):
        train(recipe(tmp_path / "run", tensorboard=True), log=lambda _: None)
    assert not (tmp_path / "run").exists()  # nothing was trained yet


@pytest.fixture
def full_disk(monkeypatch):
    """Makes every file of arrays fail when it is half written."""

    def checksum(array):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights, "_checksum", checksum)


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_does_not_end_a_training_but_leaves_an_error(rehearsal, recipe, tmp_path):
    words = (
        f"^Training has ended, but the best model could not be written to {tmp_path}. .* The same command resumes the"
    )
    with pytest.raises(UnsavedError, match=words):
        rehearsal.train(recipe(tmp_path, max_updates=5, checkpoint_every=2), bleu=[1])
    told = [line for line in rehearsal.said if "could not be written; training continues without it. " in line]
    assert all("No space left on device" in line for line in told)
    assert [line.split(" could")[0] for line in told] == [
        "update 2: the checkpoint",
        "update 4: the checkpoint",
        "update 5: the best model",
        "update 5: the checkpoint",
    ]
    assert updates_of(tmp_path) == [1, 2, 3, 4, 5]
    assert not [path for path in tmp_path.rglob("*") if ".part" in path.name]


@pytest.fixture
def disk(monkeypatch):
    """Returns a list of patterns. The disk is full for weights whose path matches one of them."""
    full: list[str] = []
    save = weights.save_arrays

    def save_unless_full(path, *args):
        if any(path.match(pattern) for pattern in full):
            raise OSError(errno.ENOSPC, "No space left on device")
        save(path, *args)

    for module in ("model_folder", "training.checkpoint"):
        monkeypatch.setattr(f"nmt.{module}.save_arrays", save_unless_full)
    return full


class Free(keras.callbacks.Callback):
    """Makes room on the disk after an update."""

    def __init__(self, disk, after):
        super().__init__()
        self.disk, self.after = disk, after

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.after:
            self.disk.clear()


@pytest.mark.parametrize(("freed", "bleu", "update"), [(3, [5, 3, 4], 2), (5, [5, 3, 4], 2), (3, [5, 6, 4], 4)])
def test_a_best_model_that_could_not_be_written_is_written_later(
    rehearsal, recipe, tmp_path, disk, freed, bleu, update
):
    disk.append("weights.h5")
    best = rehearsal.train(
        recipe(tmp_path, max_updates=6, validate_every=2), bleu=bleu, callbacks=[Free(disk, after=freed)]
    )
    model = ModelFolder.load(best)
    assert (model.facts["update"], model.facts["dev_bleu"]) == (update, max(bleu))
    assert all((array == update).all() for array in model.weights.values())
    assert checkpoints(tmp_path).load_latest().progress.best_score == max(bleu)


def test_an_unwritten_best_model_is_an_error_at_the_end_and_the_same_command_writes_it(
    rehearsal, recipe, tmp_path, disk
):
    config = recipe(tmp_path, max_updates=4, validate_every=2, checkpoint_every=2)
    disk.append("weights.h5")
    with pytest.raises(UnsavedError, match="the best model could not be written"):
        rehearsal.train(config, bleu=[3, 5])
    assert updates_of(tmp_path, "validation") == [2, 4]
    disk.clear()
    best = rehearsal.train(config, bleu=[5])
    assert ModelFolder.load(best).facts["dev_bleu"] == 5
    assert updates_of(tmp_path, "validation") == [2, 4]
    rehearsal.train(config, bleu=[])


def test_an_unwritten_last_checkpoint_is_an_error_at_the_end(rehearsal, recipe, tmp_path, disk):
    disk.append("update-*.h5")
    with pytest.raises(UnsavedError, match="the last checkpoint could not be written"):
        rehearsal.train(recipe(tmp_path, max_updates=2), bleu=[3])
    assert ModelFolder.load(tmp_path).facts["dev_bleu"] == 3


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_ends_a_training_if_asked_for(rehearsal, recipe, tmp_path):
    words = (
        r"^update 2: the checkpoint could not be written, and training.on_full_disk is stop\. .*No space left on device"
    )
    with pytest.raises(UserError, match=words):
        rehearsal.train(recipe(tmp_path, max_updates=5, checkpoint_every=2, on_full_disk="stop"), bleu=[])
    assert updates_of(tmp_path) == [1, 2]


@pytest.mark.usefixtures("full_disk")
def test_what_could_not_be_saved_is_said_at_an_interruption(rehearsal, recipe, tmp_path):
    words = "Interrupted after update 3; it could not be saved, but earlier checkpoints are intact."
    with pytest.raises(InterruptionError, match=re.escape(words)):
        rehearsal.train(recipe(tmp_path), bleu=[], callbacks=[Signal(after=3)])


def test_a_run_may_be_moved(rehearsal, recipe, tmp_path):
    rehearsal.train(recipe(tmp_path / "here", max_updates=4), bleu=[1])
    (tmp_path / "here").rename(tmp_path / "there")
    rehearsal.train(recipe(tmp_path / "there", max_updates=6), bleu=[2])
    assert f"Resuming the run in {tmp_path / 'there'} after update 4." in rehearsal.said
    assert updates_of(tmp_path / "there") == [1, 2, 3, 4, 5, 6]


def test_it_goes_on_from_the_last_checkpoint_and_says_so(rehearsal, recipe, tmp_path):
    rehearsal.train(recipe(tmp_path, max_updates=9), bleu=[1])
    # Limits, intervals, patience and logging may differ.
    rehearsal.train(recipe(tmp_path, max_updates=12, validate_every=4, checkpoint_every=5, patience=7), bleu=[2])
    assert f"Resuming the run in {tmp_path} after update 9." in rehearsal.said
    assert updates_of(tmp_path) == list(range(1, 13))
    assert updates_of(tmp_path, "validation") == [9, 12]
    assert all((array == 12).all() for array in rehearsal.validator.asked[-1].values())
    assert rehearsal.update.state_variables[0].numpy() == 12


def test_updates_after_the_last_checkpoint_are_forgotten(rehearsal, recipe, tmp_path):
    config = recipe(tmp_path, max_updates=12, validate_every=4, checkpoint_every=5)
    with pytest.raises(RuntimeError, match=UNTOLD):  # at the third validation
        rehearsal.train(config, bleu=[1, 2])
    assert updates_of(tmp_path) == list(range(1, 13))
    rehearsal.train(config, bleu=[3, 4])
    assert f"Resuming the run in {tmp_path} after update 10." in rehearsal.said
    assert updates_of(tmp_path) == list(range(1, 13))
    assert updates_of(tmp_path, "validation") == [4, 8, 12]


def test_a_run_without_checkpoint_starts_over(rehearsal, recipe, tmp_path):
    config = recipe(tmp_path, max_updates=4, validate_every=2)
    with pytest.raises(RuntimeError, match=UNTOLD):
        rehearsal.train(config, bleu=[])
    rehearsal.train(config, bleu=[3, 4])
    assert updates_of(tmp_path) == [1, 2, 3, 4]


def test_patience_is_remembered(rehearsal, recipe, tmp_path):
    rehearsal.train(recipe(tmp_path, max_updates=6, validate_every=3, patience=2), bleu=[5, 4])
    rehearsal.train(recipe(tmp_path, max_updates=60, validate_every=3, patience=2), bleu=[4.5])
    assert updates_of(tmp_path, "validation") == [3, 6, 9]
    assert ModelFolder.load(tmp_path).facts["update"] == 3


def test_another_configuration_is_refused(rehearsal, recipe, tmp_path):
    rehearsal.train(recipe(tmp_path, max_updates=2), bleu=[1])
    with pytest.raises(
        UserError, match=r"(?s)another configuration:\n  training.batch_size: 16 became 8\n.*start_from"
    ):
        rehearsal.train(recipe(tmp_path, max_updates=2, batch_size=8), bleu=[])


def test_another_text_is_refused_before_the_terminal_or_tensorboard_is_touched(
    rehearsal, recipe, tmp_path, digits, monkeypatch
):
    copy = TrainingFiles(source=tmp_path / "train.en", target=tmp_path / "train.rev")
    for old, new in ((digits.train[0].source, copy.source), (digits.train[0].target, copy.target)):
        new.write_text(old.read_text())
    data = {"data": digits.model_copy(update={"train": [copy]})}
    rehearsal.train(recipe(tmp_path / "run", max_updates=2).model_copy(update=data), bleu=[1])
    copy.source.write_text(copy.source.read_text().replace("one", "two"))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("nmt.training.run_log._Bar", lambda *_: pytest.fail("there is a progress bar"))
    with pytest.raises(UserError, match=r"The training text is not the one that the run in .*run was started with"):
        rehearsal.train(recipe(tmp_path / "run", max_updates=2, tensorboard=True).model_copy(update=data), bleu=[])
    assert not (tmp_path / "run" / "tensorboard").exists()


@pytest.mark.parametrize(
    ("target", "vocabulary_size", "max_length", "words"),
    [
        (b"one\n" * 99, 28, 9, "must have the same number of lines"),
        (b"one\n" * 99 + b"\xff\n", 28, 9, "Expected UTF-8 text"),
        (bz2.compress(b"one\n" * 100)[:-4], 28, 9, "damaged or cut short"),
        (b"\n" * 100, 28, 9, "one side or both are blank"),
        (b"one\n" * 100, 9999, 9, "expected at most"),
        (b"one\n" * 100, 28, 1, "Cleaning left no sentence pair"),
    ],
    ids=["lines", "encoding", "compression", "blank", "vocabulary", "cleaning"],
)
def test_a_training_whose_text_is_refused_leaves_no_folder(
    rehearsal, recipe, digits, tmp_path, target, vocabulary_size, max_length, words
):
    second = digits.train[0].model_copy(update={"target": tmp_path / "target"})
    second.target.write_bytes(target)
    config = recipe(tmp_path / "new" / "run", tokenizer={"vocabulary_size": vocabulary_size})
    data = digits.model_copy(update={"train": [digits.train[0], second], "max_length": max_length})
    config = config.model_copy(update={"data": data})
    with pytest.raises(UserError, match=words):
        rehearsal.train(config, bleu=[])
    assert not (tmp_path / "new").exists()


def test_on_another_dev_text_the_best_model_is_scored_again(rehearsal, recipe, tmp_path, digits, monkeypatch):
    compared = []
    monkeypatch.setattr(Workers, "check_equal", lambda self, name, fingerprint: compared.append((name, fingerprint)))
    copy = DevFiles(source=digits.dev.source, target=tmp_path / "dev.rev")
    copy.target.write_text(digits.dev.target.read_text())
    data = {"data": digits.model_copy(update={"dev": copy})}
    settings = {"max_updates": 4, "validate_every": 2}
    rehearsal.train(recipe(tmp_path / "run", **settings).model_copy(update=data), bleu=[1, 9])
    copy.target.write_text(copy.target.read_text().replace("one", "two"))
    rehearsal.train(recipe(tmp_path / "run", **{**settings, "max_updates": 6}).model_copy(update=data), bleu=[5, 6])
    assert all((array == 4).all() for array in rehearsal.validator.asked[0].values())
    assert (
        "Warning: the dev text has changed since update 4. On the new text, the best model has bleu 5.000 instead of "
        "9.000. Scores that were recorded before are those on the old text."
    ) in rehearsal.said
    assert ModelFolder.load(tmp_path / "run").facts["update"] == 6
    # The new text is that of the run from now on.
    rehearsal.train(recipe(tmp_path / "run", **{**settings, "max_updates": 6}).model_copy(update=data), bleu=[])
    texts = [fingerprint for name, fingerprint in compared if name == "dev text"]
    assert texts[0] != texts[1] == texts[2]


def test_training_into_a_folder_with_a_model_but_no_run_is_refused(rehearsal, recipe, tmp_path):
    rehearsal.train(recipe(tmp_path / "run", max_updates=2, checkpoint_every=1), bleu=[1])
    shutil.copytree(tmp_path / "run" / "best", tmp_path / "copy" / "best")
    shutil.copytree(tmp_path / "run", tmp_path / "lost", ignore=shutil.ignore_patterns("checkpoints"))
    before = sorted(tmp_path.rglob("*"))
    for name, words in (
        ("copy", f"run_dir: {tmp_path / 'copy'} has the model {tmp_path / 'copy' / 'best'}, but no run with checkpoi"),
        ("lost", f"run_dir: {tmp_path / 'lost'} has the model {tmp_path / 'lost' / 'best'}, but no run with checkpoi"),
        ("run/best", f"run_dir: {tmp_path / 'run' / 'best'} is a model folder, not the folder of a run"),
    ):
        with pytest.raises(
            UserError, match=f"^{re.escape(words)}.*: choose another run_dir. With training.start_from="
        ):
            rehearsal.train(recipe(tmp_path / name, max_updates=2), bleu=[])
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_again(rehearsal, recipe, tmp_path):
    config = recipe(tmp_path, max_updates=4, validate_every=2)
    with pytest.raises(RuntimeError, match=UNTOLD):
        rehearsal.train(config, bleu=[5])
    rehearsal.train(config, bleu=[3, 4])
    assert ModelFolder.load(tmp_path).facts["dev_bleu"] == 4


def test_a_best_model_moved_aside_by_a_killed_process_is_put_back(rehearsal, recipe, tmp_path):
    best = rehearsal.train(recipe(tmp_path, max_updates=2), bleu=[5])
    best.rename(tmp_path / ".best.old")
    assert ModelFolder.load(tmp_path).facts["dev_bleu"] == 5
    assert rehearsal.train(recipe(tmp_path, max_updates=2), bleu=[]) == best
    assert ModelFolder.load(best).facts["dev_bleu"] == 5


def test_after_a_lost_worker_the_message_tells_how_to_resume(rehearsal, recipe, tmp_path, monkeypatch):
    rehearsal.train(recipe(tmp_path, max_updates=2), bleu=[5])
    monkeypatch.setattr(type(rehearsal.update), "start", Mock(side_effect=WorkerLostError("Worker 1 is gone.")))
    with pytest.raises(WorkerLostError, match=r"Worker 1 is gone\. The same command resumes the run\."):
        rehearsal.train(recipe(tmp_path, max_updates=4), bleu=[])


def test_a_run_needs_a_folder(recipe):
    with pytest.raises(UserError, match="run_dir: expected the folder of the run, found nothing"):
        train(recipe(None))


def with_target_language(config, language):
    return config.model_copy(update={"data": config.data.model_copy(update={"target_language": language})})


def test_mecab_is_asked_for_before_any_work(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.import_module("sacrebleu.tokenizers.tokenizer_ja_mecab"), "MeCab", None)
    with pytest.raises(UserError, match=r"BLEU in 'jpn' needs the tokenizer MeCab.*sacrebleu\[ja\]"):
        train(with_target_language(recipe(tmp_path / "run"), "jpn"))
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_language_is_warned_about_once(rehearsal, recipe, tmp_path):
    config = with_target_language(recipe(tmp_path / "run", max_updates=1), "chinese")
    rehearsal.train(config, bleu=[1.0])
    warnings = [line for line in rehearsal.said if line.startswith("Warning")]
    assert len(warnings) == 1 and "The target language 'chinese' is not a language code" in warnings[0]


RATES = [2**-7] * 6 + [2**-8] * 6 + [2**-9] * 2
PLATEAU = {"max_updates": 14, "validate_every": 2, "schedule": "plateau", "plateau_patience": 2, "checkpoint_every": 5}
SCORES = [5, 4, 4, 6, 5, 5, 5]  # no improvement at 4 and 6, and at 10 and 12


def test_a_plateau_lowers_the_rate(rehearsal, recipe, tmp_path):
    rehearsal.train(recipe(tmp_path, **PLATEAU), bleu=SCORES)
    assert rehearsal.update.rates == RATES
    words = "update 6: no improvement in 2 validations. The learning rate is 0.00391 from now on."
    assert words in rehearsal.said
    assert all((array == 14).all() for array in rehearsal.validator.asked[-1].values())
    assert [path.name for path in checkpoints(tmp_path).list_files()] == [f"update-{n:09}.h5" for n in (5, 10, 14)]


def test_an_annealing_restart_goes_back_to_the_best_model(rehearsal, recipe, tmp_path):
    config = recipe(tmp_path, plateau_restart=True, keep_checkpoints=20, **PLATEAU)
    rehearsal.train(config, bleu=SCORES)
    assert rehearsal.update.rates == RATES
    # Back to 2 after update 6, so 4 after update 8, which is the best; back to 4 after update 12.
    asked = [{int(array.flat[0]) for array in weights.values()} for weights in rehearsal.validator.asked]
    assert asked == [{n} for n in (2, 4, 6, 4, 6, 8, 6)]
    assert rehearsal.update.state_variables[0].numpy() == 2  # zero at the restart
    words = (
        "update 6: no improvement in 2 validations. The learning rate is 0.00391 from now on, and training continues"
    )
    assert rehearsal.said.count(f"{words} from the best model.") == 1
    names = [path.name for path in checkpoints(tmp_path).list_files()]
    assert names == [f"update-{n:09}.h5" for n in (2, 4, 5, 6, 8, 10, 12, 14)]


@pytest.mark.parametrize("told", [3, 5, 6])
def test_a_plateau_is_remembered(rehearsal, recipe, tmp_path, told):
    """Killed in the validation after so many; those since the last checkpoint are repeated."""
    config = recipe(tmp_path, plateau_restart=True, **PLATEAU)
    with pytest.raises(RuntimeError, match=UNTOLD):
        rehearsal.train(config, bleu=SCORES[:told])
    rehearsal.train(config, bleu=SCORES[told:])
    assert rehearsal.update.rates == RATES[2 * told :]
    assert {int(array.flat[0]) for array in rehearsal.validator.asked[-1].values()} == {6}
    assert ModelFolder.load(tmp_path).facts["update"] == 8
