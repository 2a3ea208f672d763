"""`nmt average`: the mean of checkpoints or models, and what refuses to be averaged."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nmt.config.file import dump_config
from nmt.data.tokenizer import train_tokenizer
from nmt.errors import UserError
from nmt.model_folder import ModelFolder, get_fingerprints
from nmt.training.averaging import average_models
from nmt.training.checkpoint import Checkpoint, CheckpointFolder, Progress
from nmt.translators.describe import describe

MODEL = Path(__file__).parents[1] / "format_1" / "model"


@pytest.fixture(scope="module")
def folder() -> ModelFolder:
    return ModelFolder.load(MODEL)


def draw(folder: ModelFolder, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.normal(size=array.shape).astype(array.dtype) for name, array in folder.weights.items()}


@pytest.fixture
def run(folder, tmp_path) -> Path:
    """A run with two checkpoints, of which the second has moving averages."""
    path = tmp_path / "run"
    checkpoints = CheckpointFolder(path / "checkpoints", keep=5)
    facts = {f"{side} tokenizer": getattr(folder, f"{side}_tokenizer").fingerprint for side in ("source", "target")}
    for update, averages in ((1, {}), (2, draw(folder, 20))):
        arrays = {"weights": draw(folder, update), "averages": averages, "optimizer": {}}
        checkpoints.save(Checkpoint(Progress(update), arrays, facts))
    (path / "config.yaml").write_text(dump_config(folder.config))
    folder.source_tokenizer.save(path / "source.model")
    folder.target_tokenizer.save(path / "target.model")
    return path


def save_with(folder: ModelFolder, path: Path, **model: object) -> Path:
    """Saves the model with another architecture in its configuration."""
    config = folder.config.model_copy(update={"model": folder.config.model.model_copy(update=model)})
    replace(folder, config=config).save(path)
    return path


def test_the_weights_are_the_mean_of_checkpoints(folder, run, tmp_path):
    average_models(tmp_path / "mean", sorted((run / "checkpoints").glob("*.h5")))
    found = ModelFolder.load(tmp_path / "mean")
    first, second = draw(folder, 1), draw(folder, 20)
    assert found.weights.keys() == folder.weights.keys()
    for name, array in found.weights.items():
        assert array.dtype == folder.weights[name].dtype
        np.testing.assert_allclose(array, (first[name] + second[name]) / 2, atol=1e-6)
    assert found.config == folder.config
    assert [Path(one).name for one in found.facts["averaged"]] == ["update-000000001.h5", "update-000000002.h5"]
    assert "mean of 2 checkpoints or models" in describe(tmp_path / "mean")


def test_the_average_of_checkpoints_knows_the_training_text_as_the_best_model_does(folder, run, tmp_path):
    replace(folder, facts={**folder.facts, "multi_sentence_share": 0.25}).save(run / "best")
    average_models(tmp_path / "mean", sorted((run / "checkpoints").glob("*.h5")))
    facts = ModelFolder.load(tmp_path / "mean").facts
    assert facts["multi_sentence_share"] == 0.25 and "update" not in facts and "dev_bleu" not in facts


def test_models_are_averaged_whatever_their_dropout(folder, tmp_path):
    other = save_with(folder, tmp_path / "other", layer_dropout=0.75)
    average_models(tmp_path / "mean", [MODEL, other, MODEL])
    for name, array in ModelFolder.load(tmp_path / "mean").weights.items():
        np.testing.assert_allclose(array, folder.weights[name], rtol=1e-6)


def test_other_architectures_and_shapes_are_refused_by_name(folder, tmp_path):
    other = save_with(folder, tmp_path / "other", attention_heads=1)
    with pytest.raises(UserError, match=r"other has model.attention_heads 1, but .*model has \d"):
        average_models(tmp_path / "mean", [MODEL, other])
    name, array = min(folder.weights.items())
    replace(folder, weights={**folder.weights, name: np.pad(array, [(0, 1)] * array.ndim)}).save(tmp_path / "other")
    with pytest.raises(UserError, match=rf"other: weight {name} has shape .*, but in .*model it has"):
        average_models(tmp_path / "mean", [MODEL, tmp_path / "other"])
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.parametrize("side", ["source", "target"])
def test_other_tokenizers_are_refused_by_name(folder, run, tmp_path, side):
    tokenizer = train_tokenizer(["one two three", "four five six"], kind="bpe", vocabulary_size=280)
    changed = replace(folder, **{f"{side}_tokenizer": tokenizer})
    replace(changed, facts=get_fingerprints(changed.source_tokenizer, changed.target_tokenizer)).save(
        tmp_path / "other"
    )
    with pytest.raises(UserError, match=rf"other has another {side} tokenizer than .*model"):
        average_models(tmp_path / "mean", [MODEL, tmp_path / "other"])
    tokenizer.save(run / f"{side}.model")
    with pytest.raises(UserError, match=rf"h5 was trained with another {side} tokenizer than the one in .*run"):
        average_models(tmp_path / "mean", [run / "checkpoints" / "update-000000001.h5", MODEL])


def test_mistakes_are_named_before_anything_is_written(run, tmp_path):
    checkpoint = run / "checkpoints" / "update-000000001.h5"
    with pytest.raises(
        UserError, match=r"checkpoints is a folder of checkpoints\. Give its files: .*checkpoints/\*\.h5$"
    ):
        average_models(tmp_path / "mean", [run / "checkpoints"])
    with pytest.raises(UserError, match="at least 2 checkpoints or models, found 1"):
        average_models(tmp_path / "mean", [checkpoint])
    with pytest.raises(UserError, match=r"There is no file .*update-3\.h5"):
        average_models(tmp_path / "mean", [checkpoint, run / "checkpoints" / "update-3.h5"])
    with pytest.raises(UserError, match=r"weights\.h5 is not a checkpoint of a run"):
        average_models(tmp_path / "mean", [checkpoint, MODEL / "weights.h5"])
    (run / "config.yaml").unlink()
    with pytest.raises(
        UserError, match=r"expected a checkpoint in the folder of its run, but .*run has no config.yaml"
    ):
        average_models(tmp_path / "mean", [checkpoint, checkpoint])
    with pytest.raises(UserError, match=r"exists already\. Expected the name of a new folder for the averaged model"):
        average_models(run, [checkpoint, checkpoint])
    assert not (tmp_path / "mean").exists()
