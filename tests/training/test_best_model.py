import errno

import numpy as np
import pytest

from nmt import weights
from nmt.data.preparation import prepare_training_data
from nmt.model_folder import ModelFolder
from nmt.training.best_model import BestModel, get_versions
from nmt.training.checkpoint import Checkpoint, CheckpointFolder, Progress
from nmt.training.run_folder import Writer
from nmt.training.validation import Validation

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
    def made(*validations, writes=True, **settings):
        writer = Writer("continue", said.append) if writes else None
        config = recipe(tmp_path, **settings)
        return BestModel(config, data, ScriptedValidator(*validations), tmp_path / "best", writer)

    return made


BETTER_BLEU, BETTER_LOSS = Validation(2.0, 7.4, 30.0), Validation(1.5, 4.5, 20.0)


@pytest.mark.parametrize(
    ("best_by", "best_score", "validation", "score", "is_best"),
    [
        ("bleu", None, BETTER_LOSS, 20.0, True),
        ("bleu", 20.0, BETTER_BLEU, 30.0, True),
        ("bleu", 20.0, BETTER_LOSS, 20.0, False),
        ("loss", -2.0, BETTER_LOSS, -1.5, True),
        ("loss", -1.5, BETTER_BLEU, -2.0, False),
    ],
)
def test_only_a_higher_score_is_better(make_best, best_by, best_score, validation, score, is_best):
    best = make_best(validation, best_by=best_by)
    assert best.score(WEIGHTS, Progress(best_score=best_score)) == (validation, score, is_best)
    assert best.validator.asked == [WEIGHTS]


def test_the_model_is_stored_with_its_scores_and_versions(make_best, data):
    best = make_best()
    best.save(WEIGHTS, BETTER_BLEU, Progress(update=7))
    model = ModelFolder.load(best.path)
    np.testing.assert_array_equal(model.weights["bias"], WEIGHTS["bias"])
    assert {name: model.facts[name] for name in ("update", "dev_bleu", "dev_loss", "seed", "versions")} == {
        "update": 7,
        "dev_bleu": 30.0,
        "dev_loss": 2.0,
        "seed": 1,
        "versions": get_versions(),
    }
    assert model.source_tokenizer.fingerprint == data.source_tokenizer.fingerprint


def test_workers_other_than_the_chief_do_not_write(make_best):
    best = make_best(writes=False)
    best.save(WEIGHTS, BETTER_BLEU, Progress(update=7))
    assert not best.path.exists()


def test_a_full_disk_is_a_warning_and_leaves_the_older_model(make_best, monkeypatch, said):
    def fill_disk(array):
        raise OSError(errno.ENOSPC, "No space left on device")

    best = make_best()
    best.save(WEIGHTS, BETTER_LOSS, Progress(update=7))
    monkeypatch.setattr(weights, "_checksum", fill_disk)
    best.save(WEIGHTS, BETTER_BLEU, Progress(update=1400))
    monkeypatch.undo()
    [line] = said
    assert line.startswith("update 1,400: the best model could not be written; training continues without it. ")
    assert ModelFolder.load(best.path).facts["update"] == 7


@pytest.mark.parametrize(("best_score", "is_kept"), [(29.0, True), (30.0, False)])
def test_the_average_of_checkpoints_is_kept_if_it_is_the_best(make_best, tmp_path, said, best_score, is_kept):
    folder = CheckpointFolder(tmp_path / "checkpoints", keep=3)
    for update in (4, 8):
        arrays = {"weights": {"bias": np.full(2, update, "float32")}, "averages": {}, "optimizer": {}}
        folder.save(Checkpoint(Progress(update), arrays, {}))
    best = make_best(BETTER_BLEU)
    best.try_average(folder.list_files(), Progress(update=8, best_score=best_score), said.append)
    [scored] = best.validator.asked
    np.testing.assert_array_equal(scored["bias"], [6, 6])
    assert said == ["Average of the last 2 checkpoints: BLEU 30.00."]
    assert best.path.exists() == is_kept
