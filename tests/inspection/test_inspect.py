import copy
import dataclasses

import numpy as np
import pytest

import nmt
from nmt.errors import UserError
from nmt.inspection.inspect import list_alternatives, write_text
from nmt.models.ensemble import Ensemble
from nmt.translators.model import ModelTranslator

TEXT = "the dog sees a red bike."


@pytest.fixture(scope="module")
def translator(model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspected")
    model_folder.save(folder / "model")
    return ModelTranslator.load(folder / "model", precision="float32").with_settings(max_length=8)


@pytest.fixture(scope="module")
def found(translator):
    return nmt.inspect(translator, TEXT)


def test_it_shows_the_translation_of_the_model(translator, found):
    [expected] = translator.translate_texts([TEXT])
    assert found.source == TEXT
    assert found.translation == found.target == expected.text
    assert found.log_prob == pytest.approx(expected.log_prob, abs=1e-4)
    assert found.beam.nodes[found.beam.best].score == pytest.approx(expected.score, abs=1e-4)
    end = ["</s>"] if expected.best.is_finished else []
    assert found.target_tokens == [*expected.best.tokens, *end]
    assert found.source_tokens[-1] == "</s>"
    assert len(found.beam_tokens) == len(found.beam.nodes)


def test_probabilities_are_those_of_nmt_score(translator):
    reference = "ein Hund sieht Bücher über Schnee."
    found = nmt.inspect(translator, TEXT, reference)
    [expected] = translator.score([(TEXT, reference)])
    assert found.is_reference
    assert found.target == reference
    assert found.target_tokens == expected.tokens
    np.testing.assert_allclose(found.trace.log_probs, expected.token_log_probs, atol=1e-4)


def test_the_token_that_stands_there_is_no_alternative(found):
    for t, token in enumerate(found.target_tokens):
        others = list_alternatives(found, t)
        assert token not in dict(others)
        assert [share for _, share in others] == sorted((share for _, share in others), reverse=True)


def test_the_text_has_a_line_per_token(found):
    lines = write_text(found).splitlines()
    assert lines[0] == f"Source       {TEXT}"
    assert lines[1] == f"Translation  {found.translation}".rstrip()
    last = lines[-len(found.target_tokens) :]
    for line, token, log_prob in zip(last, found.target_tokens, found.trace.log_probs, strict=True):
        assert line.split()[:2] == [token, f"{np.exp(log_prob):.3f}"]


def test_the_text_is_printed_as_it_is(found):
    odd = "at :100: or\u2028later"
    assert write_text(dataclasses.replace(found, source=odd)).split("\n")[0] == f"Source       {odd}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("  ", "Expected a sentence to inspect, found an empty text."),
        ("reads " * 200, r"at most 60 tokens, .* found \d+ tokens, read in \d+ parts"),
    ],
)
def test_text_that_is_not_one_source_is_refused(translator, text, message):
    with pytest.raises(UserError, match=message):
        nmt.inspect(translator, text)
    with pytest.raises(UserError, match=r"^reference: expected a translation to read, found an empty text\.$"):
        nmt.inspect(translator, TEXT, reference=" ")


def test_an_open_ensemble_is_refused_by_name(translator):
    ensemble = copy.copy(translator)
    ensemble.model = Ensemble([translator.model])
    with pytest.raises(UserError, match=r"of one model, but this is an ensemble\. Expected .* such as ENSEMBLE/1"):
        nmt.inspect(ensemble, TEXT)


def test_folders_of_exports_are_refused_by_name(tmp_path):
    (tmp_path / "tflite").mkdir()
    (tmp_path / "tflite" / "model.tflite").touch()
    (tmp_path / "saved" / "1").mkdir(parents=True)
    (tmp_path / "saved" / "1" / "saved_model.pb").touch()
    for name in ("tflite", "saved"):
        with pytest.raises(UserError, match=rf"{name} is an export\. Expected the run folder or model folder"):
            nmt.inspect(tmp_path / name, TEXT)


def test_the_folder_of_an_ensemble_is_refused_and_a_member_named(tmp_path):
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "ensemble.json").touch()
    with pytest.raises(UserError, match=r"both is an ensemble\. Expected a single model, such as its member .*both/1"):
        nmt.inspect(tmp_path / "both", TEXT)
