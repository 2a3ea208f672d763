"""`nmt ensemble`: the folder, what opens it, and what refuses to be combined."""

import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from nmt.cli.main import app
from nmt.data.tokenizer import train_tokenizer
from nmt.errors import FormatError, UserError
from nmt.model_folder import (
    ModelFolder,
    find_model_folder,
    get_fingerprints,
    load_members,
    save_confidence,
    save_ensemble,
)
from nmt.training.run_folder import RunFolder
from nmt.translators.confidence import Confidence
from nmt.translators.describe import describe
from nmt.translators.model import ModelTranslator
from nmt.translators.opening import find_folder, find_kind, open_translator

MODEL = Path(__file__).parent / "format_1" / "model"


@pytest.fixture(scope="module")
def folder() -> ModelFolder:
    return ModelFolder.load(MODEL)


@pytest.fixture
def ensemble(tmp_path) -> Path:
    save_ensemble(tmp_path / "both", [MODEL, MODEL])
    return tmp_path / "both"


def list_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def save_changed(folder: ModelFolder, path: Path, side: str) -> Path:
    """Saves the model with another tokenizer on one side."""
    other = train_tokenizer(["one two three", "four five six"], kind="bpe", vocabulary_size=280)
    changed = replace(folder, **{f"{side}_tokenizer": other})
    facts = get_fingerprints(changed.source_tokenizer, changed.target_tokenizer)
    replace(changed, facts=facts).save(path)
    return path


def test_members_are_copied_whole(ensemble, tmp_path):
    assert list_files(ensemble) == [
        *(f"{n}/{name}" for n in (1, 2) for name in ("config.yaml", "source.model", "target.model", "weights.h5")),
        "ensemble.json",
    ]
    ensemble.rename(tmp_path / "moved")
    found, expected = load_members(tmp_path / "moved"), ModelFolder.load(MODEL)
    assert [member.facts for member in found] == [expected.facts] * 2
    assert [member.config for member in found] == [expected.config] * 2


def test_everything_opens_it_like_a_model(ensemble):
    """A model twice translates as the model alone, which has learned to reverse numbers."""
    alone, twice = open_translator(MODEL), open_translator(ensemble)
    assert isinstance(twice, ModelTranslator)
    assert (twice.settings, twice.max_tokens) == (alone.settings, alone.max_tokens)
    assert (twice.source_language, twice.target_language) == ("en", "de")
    assert twice.translate(["one two", "seven", "nine eight one"]) == ["two one", "seven", "one eight nine"]
    assert find_kind(ensemble).name == "ensemble"
    assert find_folder(ensemble) == ensemble


def test_it_is_described_with_its_members(ensemble):
    text = describe(ensemble)
    assert re.search(r"^kind +ensemble of 2 models$", text, re.MULTILINE)
    assert re.search(r"^member 2 +encoder .*; weights 9,144;", text, re.MULTILINE)
    assert re.search(r"^weights +18,288$", text, re.MULTILINE)
    assert "beam_size=" in text
    assert max(map(len, text.splitlines())) <= 120


def test_its_confidence_is_not_that_of_a_member(folder, tmp_path):
    of_member = Confidence(0.0, [1.0, -1.0], [-1.0], [0.5], 100)
    of_ensemble = replace(of_member, sentences=200)
    replace(folder, confidence=asdict(of_member)).save(tmp_path / "fitted")
    save_ensemble(tmp_path / "both", [tmp_path / "fitted", MODEL])
    assert open_translator(tmp_path / "both").fitted_confidence is None
    assert re.search(r"^confidence +not fitted$", describe(tmp_path / "both"), re.MULTILINE)
    save_confidence(tmp_path / "both", asdict(of_ensemble))
    assert open_translator(tmp_path / "both").fitted_confidence == of_ensemble
    assert re.search(r"^confidence +fitted on 200 sentences$", describe(tmp_path / "both"), re.MULTILINE)


def test_it_does_not_stand_for_a_single_model(ensemble):
    words = rf"both is an ensemble\. Expected a single model, such as its member .*{re.escape('both/1')}\."
    with pytest.raises(UserError, match=words):
        find_model_folder(ensemble)
    with pytest.raises(UserError, match=words):
        save_ensemble(ensemble.with_name("nested"), [MODEL, ensemble])


def test_a_run_does_not_write_into_it(ensemble):
    with pytest.raises(UserError, match="both is an ensemble, not the folder of a run: choose another run_dir"):
        RunFolder(ensemble).check_no_other_model()


@pytest.mark.parametrize("side", ["source", "target"])
def test_other_tokenizers_are_refused_and_nothing_is_written(folder, tmp_path, side):
    other = save_changed(folder, tmp_path / "other", side)
    words = rf"must have the same {side} tokenizer, but that of .*other differs from that of .*format_1.model"
    with pytest.raises(UserError, match=words):
        save_ensemble(tmp_path / "both", [MODEL, other])
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_other_languages_are_refused(folder, tmp_path):
    data = folder.config.data.model_copy(update={"target_language": "fr"})
    replace(folder, config=folder.config.model_copy(update={"data": data})).save(tmp_path / "other")
    with pytest.raises(UserError, match=r"same languages: .* translates en to de, and .*other en to fr"):
        save_ensemble(tmp_path / "both", [MODEL, tmp_path / "other"])


def test_other_tags_are_refused(folder, tmp_path):
    """One member would read the tag of another as a symbol that it was never trained on."""
    files = folder.config.data.train[0].model_copy(update={"tag": "<bt>"})
    data = folder.config.data.model_copy(update={"train": [files]})
    replace(folder, config=folder.config.model_copy(update={"data": data})).save(tmp_path / "other")
    with pytest.raises(UserError, match=r"same tags .*: .*model was trained with none, and .*other with <bt>\."):
        save_ensemble(tmp_path / "both", [MODEL, tmp_path / "other"])


def test_other_directions_are_refused(folder, tmp_path):
    model = folder.config.model.model_copy(update={"right_to_left": True})
    replace(folder, config=folder.config.model_copy(update={"model": model})).save(tmp_path / "other")
    with pytest.raises(
        UserError, match=r"same direction: model.right_to_left of .*other is true, and of .*model false"
    ):
        save_ensemble(tmp_path / "both", [MODEL, tmp_path / "other"])


def test_mistakes_are_named_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="at least 2 models, found 1"):
        save_ensemble(tmp_path / "both", [MODEL])
    with pytest.raises(UserError, match=r"There is no folder .*nowhere"):
        save_ensemble(tmp_path / "both", [MODEL, tmp_path / "nowhere"])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match=r"exists already\. Expected the name of a new folder for the ensemble"):
        save_ensemble(tmp_path, [MODEL, MODEL])


def test_a_member_that_was_replaced_or_lost_is_named(ensemble, folder):
    replace(folder, weights={name: 2 * array for name, array in folder.weights.items()}).save(ensemble / "2")
    with pytest.raises(UserError, match=r"2/weights.h5 is damaged, or was replaced: its checksum"):
        load_members(ensemble)
    shutil.rmtree(ensemble / "1")
    with pytest.raises(UserError, match=r"Cannot read .*1/weights.h5: No such file"):
        load_members(ensemble)


@pytest.mark.parametrize(
    "record", ["", "[]", '{"format": 1}', '{"format": 1, "members": [3]}', '{"format": 1, "members": []}']
)
def test_a_damaged_record_is_named(ensemble, record):
    (ensemble / "ensemble.json").write_text(record)
    with pytest.raises(UserError, match=r"ensemble.json is damaged: "):
        load_members(ensemble)


def test_a_record_of_another_version_is_named(ensemble):
    record = json.loads((ensemble / "ensemble.json").read_text())
    (ensemble / "ensemble.json").write_text(json.dumps({**record, "format": 9}))
    with pytest.raises(FormatError, match="has format 9, but this version of nmt reads format 1"):
        load_members(ensemble)


def test_the_command_reports_what_it_wrote(tmp_path, capsys):
    app(["ensemble", str(tmp_path / "both"), str(MODEL), str(MODEL)], standalone_mode=False)
    assert capsys.readouterr().out == f"Wrote an ensemble of 2 models to {tmp_path / 'both'}.\n"
    assert len(load_members(tmp_path / "both")) == 2
