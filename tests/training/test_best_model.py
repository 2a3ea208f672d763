import errno
import math

import numpy as np
import pytest

from nmt import weights as arrays
from nmt.data.preparation import prepare_training_data
from nmt.data.tokenizer import Tokenizer
from nmt.training.best_model import BestModel, Scored, get_versions
from nmt.training.checkpoint import Progress
from nmt.training.run_folder import Writer
from nmt.training.validation import Validation
from nmt.training.workers import Workers

WEIGHTS = {"bias": np.array([1.0, 2.0], "float32")}


class ScriptedValidator:
    """Returns the validations it is given, and keeps the weights it is asked to score."""

    def __init__(self, *validations):
        self.validations, self.asked = list(validations), []

    def validate(self, weights):
        self.asked.append(weights)
        return self.validations.pop(0)


@pytest.fixture(scope="module")
def data(recipe, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run")
    return prepare_training_data(recipe(run_dir), run_dir, lambda _: None)


@pytest.fixture
def said():
    return []


@pytest.fixture
def make_best(recipe, data, tmp_path, said):
    def made(*validations, workers=None, **settings):
        config = recipe(tmp_path, **settings)
        writer = Writer("continue", said.append)
        return BestModel(config, data, ScriptedValidator(*validations), tmp_path / "best", workers or Workers(), writer)

    return made


BETTER_BLEU, BETTER_LOSS = Validation(2.0, 7.4, 30.0), Validation(1.5, 4.5, 20.0)


DIVERGED = Validation(float("nan"), float("inf"), 0.0)


@pytest.mark.parametrize(
    ("best_by", "best", "validation", "score", "is_best"),
    [
        ("bleu", (None, None), BETTER_LOSS, 20.0, True),
        ("bleu", (20.0, 1.0), BETTER_BLEU, 30.0, True),
        ("bleu", (30.0, 2.0), BETTER_LOSS, 20.0, False),
        ("loss", (-2.0, 2.0), BETTER_LOSS, -1.5, True),
        ("loss", (-1.5, 1.5), BETTER_BLEU, -2.0, False),
        # Equal scores are ranked by the loss.
        ("bleu", (20.0, 1.6), BETTER_LOSS, 20.0, True),
        ("bleu", (20.0, 1.5), BETTER_LOSS, 20.0, False),
        # A run that an older version began has not stored the loss of its best model.
        ("bleu", (20.0, None), BETTER_LOSS, 20.0, False),
        ("chrf", (40.0, 9.0), Validation(9.0, 8103.1, 0.0, 40.5), 40.5, True),
        ("chrf", (41.0, 9.0), Validation(1.0, 2.7, 99.0, 40.5), 40.5, False),
        # A loss that is not a number is worse than any other, even as the first.
        ("loss", (None, None), DIVERGED, -math.inf, True),
        ("loss", (-math.inf, math.nan), BETTER_LOSS, -1.5, True),
    ],
)
def test_the_best_has_the_highest_score_and_then_the_lowest_loss(make_best, best_by, best, validation, score, is_best):
    made = make_best(validation, best_by=best_by)
    best_score, best_loss = best
    progress = Progress(best_score=best_score, best_loss=best_loss)
    assert made.score(WEIGHTS, progress) == (validation, score, is_best)
    assert made.validator.asked == [WEIGHTS]


@pytest.mark.parametrize(
    ("best_by", "progress", "scores"),
    [
        ("bleu", Progress(), {}),
        ("bleu", Progress(best_score=20.0, best_loss=1.5), {"bleu": 20.0, "loss": 1.5}),
        ("loss", Progress(best_score=-1.5, best_loss=1.5), {"loss": 1.5}),
        ("chrf", Progress(best_score=40.0), {"chrf": 40.0}),
    ],
)
def test_the_best_is_described_as_in_its_record(make_best, best_by, progress, scores):
    assert make_best(best_by=best_by).describe(progress) == scores


def test_the_model_is_stored_with_its_scores_and_versions(make_best, data):
    best = make_best()
    progress = best.save(WEIGHTS, Scored(BETTER_BLEU, 30.0, True), Progress(update=7))
    assert progress == Progress(update=7, best_score=30.0, best_loss=2.0)
    weights, facts = arrays.load_arrays(best.path / "weights.h5")
    np.testing.assert_array_equal(weights["bias"], WEIGHTS["bias"])
    assert {name: facts[name] for name in ("update", "dev_bleu", "dev_loss", "seed", "versions")} == {
        "update": 7,
        "dev_bleu": 30.0,
        "dev_loss": 2.0,
        "seed": 1,
        "versions": get_versions(),
    }
    assert Tokenizer.load(best.path / "source.model").fingerprint == data.source_tokenizer.fingerprint


class Second(Workers):
    """Worker 1 of 2, whose chief wrote a file or could not."""

    number, count = 1, 2

    def __init__(self, is_written):
        self.is_written = is_written

    def all_reduce_sum(self, values):
        return values + np.array([[self.is_written, 0]], float)


@pytest.mark.parametrize(("is_written", "best_score"), [(True, 30.0), (False, None)])
def test_other_workers_do_not_write_and_learn_whether_the_chief_could(make_best, is_written, best_score):
    best = make_best(workers=Second(is_written))
    assert best.save(WEIGHTS, Scored(BETTER_BLEU, 30.0, True), Progress(update=7)).best_score == best_score
    assert not best.path.exists()


def test_a_model_that_could_not_be_written_is_written_later(make_best, monkeypatch, said):
    def fill_disk(array):
        raise OSError(errno.ENOSPC, "No space left on device")

    weights = {"bias": WEIGHTS["bias"].copy()}
    best = make_best(BETTER_LOSS)
    progress = best.save(weights, Scored(BETTER_LOSS, 20.0, True), Progress(update=7))
    monkeypatch.setattr(arrays, "_checksum", fill_disk)
    assert best.save(weights, Scored(BETTER_BLEU, 30.0, True), progress) == progress
    monkeypatch.undo()
    assert [line.partition(". ")[0] for line in said] == [
        "update 7: the best model could not be written; training continues without it"
    ]
    assert arrays.load_arrays(best.path / "weights.h5")[1]["dev_bleu"] == 20.0
    weights["bias"][:] = 9  # by further training
    # Weights that are worse than the unwritten ones are not the best, although they equal the written ones.
    assert not best.score(weights, progress).is_best
    assert best.describe(progress) == {"bleu": 30.0, "loss": 2.0}
    assert best.save_unwritten(progress) == progress, "the same update: the disk cannot have changed"
    later = Progress(update=9, best_score=20.0, best_loss=1.5)
    assert best.save_unwritten(later) == Progress(update=9, best_score=30.0, best_loss=2.0)
    written, facts = arrays.load_arrays(best.path / "weights.h5")
    assert (facts["update"], facts["dev_bleu"], best.unwritten) == (7, 30.0, None)
    np.testing.assert_array_equal(written["bias"], WEIGHTS["bias"])
