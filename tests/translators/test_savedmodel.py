"""An export behind the translator's own calls."""

import io
import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from nmt.errors import UserError
from nmt.translators.confidence import Confidence
from nmt.translators.hypothesis import IN_PARTS, Translation
from nmt.translators.lines import translate_lines
from nmt.translators.savedmodel import SavedModelTranslator, find_version, list_versions
from tests.exported_model import NBEST, PARAGRAPH, SENTENCES
from tests.server.test_serving_documentation import program

LINES = [SENTENCES[0], "", *SENTENCES[40:60], "   ", "x"]


@pytest.fixture(scope="module")
def translator(exported) -> SavedModelTranslator:
    return SavedModelTranslator.load(exported.version.parent)


def texts(translations: list[Translation]) -> list[list[str]]:
    return [[hypothesis.text for hypothesis in one.hypotheses] for one in translations]


@pytest.fixture
def copy(exported, tmp_path) -> Path:
    return Path(shutil.copytree(exported.version, tmp_path / "1"))


def test_translates_as_the_model_does(exported, translator):
    assert translator.translate(iter(LINES)) == exported.translator.translate(LINES)
    assert translator.translate([]) == []


def test_streams_hypotheses_as_the_model_does(exported, translator):
    for n_best in (1, NBEST):
        found = list(translator.stream(LINES, n_best=n_best))
        expected = list(exported.translator.stream(LINES, n_best=n_best))
        assert texts(found) == texts(expected)
        for ours, theirs in zip(found, expected, strict=True):
            scores = [h.score for h in theirs.hypotheses]
            assert [h.score for h in ours.hypotheses] == pytest.approx(scores, abs=1e-4)
            assert [h.is_finished for h in ours.hypotheses] == [h.is_finished for h in theirs.hypotheses]
            assert ours.warnings == theirs.warnings
            if n_best > 1:
                log_probs = [h.log_prob for h in theirs.hypotheses]
                assert [h.log_prob for h in ours.hypotheses] == pytest.approx(log_probs, abs=1e-3)


def test_an_export_has_the_confidence_that_was_fitted_for_the_model(translator):
    stored = {"length_ratio": 0.0, "weights": [1.0, -0.5], "sums": [-2.0, 0.0], "values": [0.1, 0.9], "sentences": 100}
    record = {**translator.record, "confidence": stored}
    export = SavedModelTranslator(translator._model, record, source_tokenizer=translator._source_tokenizer)
    for n_best in (1, 2):
        [found] = export.translate_batch(SENTENCES[:1], n_best=n_best)
        estimates = [Confidence(**stored).estimate(found.source, one) for one in found.hypotheses]
        assert [one.confidence for one in found.hypotheses] == estimates
        assert found.confidence is not None


def test_an_old_export_does_not_tell_whether_the_length_limit_cut_a_translation_off(translator, monkeypatch):
    run = translator.run_signature
    monkeypatch.setattr(
        translator, "run_signature", lambda *given: {k: x for k, x in run(*given).items() if k != "finished"}
    )
    assert [one.best.is_finished for one in translator.stream(SENTENCES[:2])] == [None, None]


def test_a_window_is_answered_before_the_next_is_read(translator):
    def lines():
        yield from SENTENCES[:2]
        raise AssertionError("read too far")

    stream = translator.stream(lines(), window=2)
    assert next(stream).text and next(stream).text


def test_says_how_it_was_made(exported, translator):
    assert translator.settings == exported.translator.settings
    assert translator.target_language == "de"


def test_is_quiet(copy, capfd):
    SavedModelTranslator.load(copy).translate(LINES)
    assert capfd.readouterr() == ("", "")


def test_settings_that_are_its_own_may_be_named(translator):
    assert translator.with_settings(beam_size=5, length_penalty=None) is translator


def test_other_settings_are_refused(translator):
    with pytest.raises(
        UserError, match=r"made with decoding\.beam_size 5 and cannot translate with 2: export the model again"
    ):
        translator.with_settings(beam_size=2)
    with pytest.raises(UserError, match=r"no decoding setting 'beam_sise'\. Did you mean 'beam_size'"):
        translator.with_settings(beam_sise=2)


def test_more_hypotheses_than_it_gives_are_refused(translator):
    with pytest.raises(UserError, match=rf"at most {NBEST} translations per line, and {NBEST + 1} were requested"):
        next(translator.stream(LINES, n_best=NBEST + 1))


def test_every_sentence_of_a_paragraph_is_translated(exported, translator):
    for one in (translator, exported.translator):
        first, second, third, last = one.translate([SENTENCES[n] for n in (0, 9, 3, 5)])
        [found] = one.translate([PARAGRAPH])
        assert found.startswith(f"  {first} {second}\t{third}\n\n") and found.endswith(f"{last} …\r\n")
        assert one.with_settings(split_sentences="never").translate([PARAGRAPH]) != [found]
    assert translator.translate([PARAGRAPH]) == exported.translator.translate([PARAGRAPH])


def test_the_attention_of_a_paragraph_lies_within_its_sentences(exported, translator):
    start = PARAGRAPH.index(SENTENCES[9])
    for one in (translator, exported.translator):
        [found] = one.stream([PARAGRAPH], attention=True)
        part = found.best.attention[1]
        assert part.source_span == (start, start + len(SENTENCES[9]))
        [alone] = one.stream([SENTENCES[9]], attention=True)
        assert found.text[slice(*part.target_span)] == alone.text
        np.testing.assert_allclose(part.weights, alone.best.attention[0].weights, atol=1e-4)


def test_its_words_are_linked_as_those_of_the_model(exported, translator, tmp_path):
    (tmp_path / "lines").write_text("\n".join(LINES))
    for name, one in (("export", translator), ("model", exported.translator)):
        translate_lines(one, tmp_path / "lines", tmp_path / name, n_best=1, as_json=False, alignments="pharaoh")
    assert (tmp_path / "export").read_text() == (tmp_path / "model").read_text()
    assert "0-" in (tmp_path / "model").read_text()


def test_a_line_that_it_would_cut_is_translated_in_parts(exported, translator):
    lines = ["x", "a man " * 100, "y"]
    assert [one.is_truncated for one in translator.translate_batch(lines)] == [False, True, False]
    for split in (True, False):
        found = list(translator.stream(lines, split=split))
        assert not any(one.is_truncated for one in found)
        assert found[1].warnings[0] == IN_PARTS
        limits = {"max_characters": 300, "max_tokens": 60}
        assert {name: getattr(translator, name) for name in limits} == limits
    assert found[0].text == exported.translator.translate(["x"])[0]


def test_only_the_splitting_of_an_export_can_be_changed(translator):
    other = translator.with_settings(split_sentences="never", beam_size=None)
    assert other.settings.split_sentences == "never"
    assert translator.settings.split_sentences == "auto"
    assert other.with_settings() is other


def test_the_newest_version_is_opened(copy):
    for name in ("10", "9", "11", "x12"):
        (copy.parent / name).mkdir()
    shutil.copy(copy / "saved_model.pb", copy.parent / "10")
    assert [folder.name for folder in list_versions(copy.parent)] == ["1", "9", "10", "11"]
    assert find_version(copy.parent) == copy.parent / "10"  # 9 and 11 hold nothing
    assert find_version(copy) == copy


def test_a_folder_without_an_export_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"is not an export: expected saved_model\.pb in it"):
        SavedModelTranslator.load(tmp_path)


def test_a_saved_model_of_others_is_refused(copy):
    shutil.rmtree(copy / "assets.extra")
    with pytest.raises(UserError, match=r"not an export of this toolkit: it has no .*export\.json"):
        SavedModelTranslator.load(copy)


def test_a_record_of_another_format_is_refused(copy):
    record = copy / "assets.extra" / "export.json"
    for number, advice in ((1, "Export the model again"), (3, "Update the toolkit")):
        record.write_text(json.dumps({**json.loads(record.read_text()), "format": number}))
        with pytest.raises(UserError, match=rf"has format {number}; this version reads format 2\. {advice}\."):
            SavedModelTranslator.load(copy)
    record.write_text("{")
    with pytest.raises(UserError, match=r"export\.json is damaged"):
        SavedModelTranslator.load(copy)


def test_tensorflow_text_is_asked_for(exported, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "tensorflow_text" else object())
    with pytest.raises(UserError, match=r"needs the package tensorflow-text.*pip install tensorflow-text"):
        SavedModelTranslator.load(exported.version)


@pytest.fixture
def prediction_service(exported):
    """The address of a gRPC server with the export as its model `demo`."""
    from tests.exporting.prediction_service import serving

    with serving(exported.signatures, "demo") as address:
        yield address


def test_the_grpc_client_of_the_documentation_translates(exported, prediction_service, tmp_path, monkeypatch, capsys):
    client = program("translate_grpc.py", tmp_path)

    def run(*arguments, lines):
        monkeypatch.setattr(sys, "argv", [str(client), *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        runpy.run_path(str(client), run_name="__main__")
        return capsys.readouterr().out.split("\n")

    lines = [*SENTENCES[::7], "", "Ein Bär – ganz allein."]
    assert len(lines) > 32  # more than one request
    assert run(prediction_service, "demo", lines=lines) == [*exported.translator.translate(lines), ""]
    with pytest.raises(SystemExit, match="NOT_FOUND: Servable not found for request: other"):
        run(prediction_service, "other", lines=["a"])
