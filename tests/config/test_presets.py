from pathlib import Path

import pytest
from pydantic import ValidationError

from nmt.config.file import config_from_text, dump_config, load_config, replace_values
from nmt.config.presets import PRESETS
from nmt.config.reference import explain
from nmt.config.schema import ModelConfig
from nmt.errors import UserError

CONFIG = """\
data:
  source_language: en
  target_language: de
  train: [{source: train.en, target: train.de}]
  dev: {source: dev.en, target: dev.de}
training: {max_updates: 9}
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("x.yaml")
    path.write_text(CONFIG + "model:\n  preset: base\n  decoder_layers: 4\n")
    return path


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_sets_the_same_keys_to_valid_values(name):
    model = ModelConfig(preset=name).model_dump()
    assert {key: model[key] for key in PRESETS["small"]} == PRESETS[name]
    assert {key: value for key, value in model.items() if key not in PRESETS[name]} == {
        key: value for key, value in ModelConfig().model_dump().items() if key not in PRESETS[name]
    }


def test_small_is_the_model_of_the_multi30k_recipe():
    assert load_config("multi30k-en-de").model == ModelConfig(preset="small")


def test_keys_in_the_file_and_on_the_command_line_win(file):
    model = load_config(file, ["model.preset=large", "model.encoder_units=256", "model.layer_dropout=0"]).model
    assert (model.decoder_layers, model.encoder_units, model.layer_dropout) == (4, 256, 0)
    assert (model.decoder_units, model.output_dropout) == (1024, 0.2)
    assert load_config(file, ["model.preset=null"]).model == ModelConfig(decoder_layers=4)


def test_a_stored_configuration_has_the_values_and_no_preset(file):
    config = load_config(file)
    stored = dump_config(config)
    assert "  preset: null\n" in stored and "  encoder_layers: 2\n" in stored and "  decoder_layers: 4\n" in stored
    assert config_from_text(stored, "config.yaml") == config


def test_mistakes_name_the_presets_or_the_key(file):
    with pytest.raises(
        UserError, match=r"^x.yaml:8: model.preset: expected null or one of small, base, large, found 'bas'$"
    ):
        file.write_text(file.read_text().replace("base", "bas"))
        load_config(file)
    with pytest.raises(
        UserError, match=r"^command line: model.preset=\[base\]: expected null or one of small, base, la"
    ):
        load_config(file, ["model.preset=[base]"])
    with pytest.raises(
        UserError, match=r"^command line: model.decoder_units=4: model.decoder_units|attention_heads must"
    ):
        load_config(file, ["model.preset=small", "model.decoder_units=4"])


def test_a_preset_that_can_set_nothing_is_refused(file):
    with pytest.raises(
        UserError, match=r"^trial 3: preset small has no effect, since all of its keys are given: embed"
    ):
        replace_values(load_config(file), {"model.preset": "small"}, "trial 3")
    with pytest.raises(ValidationError, match="has no effect"):
        ModelConfig(preset="small", **PRESETS["large"])


def test_the_reference_says_which_presets_were_never_trained():
    text = " ".join(explain("model.preset").split())
    assert "base for up to a million (trained on Tatoeba), large for more (not trained yet)" in text
