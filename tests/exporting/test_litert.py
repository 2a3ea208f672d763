"""An export for LiteRT: ids in, ids out, without TensorFlow."""

import json
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import ops

from nmt.data.tokenizer import EOS_ID
from nmt.decoding.inference import search
from nmt.errors import UserError
from nmt.exporting.litert import export_litert
from nmt.exporting.litert_graph import convert
from nmt.exporting.quantization import Quantization
from nmt.translators.opening import open_translator
from tests.exported_model import MAX_TOKENS, SENTENCES


@pytest.fixture(scope="module")
def folder(exported_litert) -> Path:
    return exported_litert[0]


def test_ids_and_scores_are_the_keras_models(exported, folder):
    translator = exported.translator
    found_by = Interpreter(model_path=str(folder / "model.tflite")).get_signature_runner()
    banned = translator.target_tokenizer.banned_ids
    for text in ("x", SENTENCES[5], "walks " * 12, SENTENCES[77], "€ 𝄞 日本", SENTENCES[140]):
        ids = np.array([[*translator.source_tokenizer.encode([text])[0], EOS_ID]], "int32")
        found = found_by(ids=ids)
        expected = search(translator.model, ids, settings=translator.settings, banned_ids=banned)
        size = int(expected.lengths[0, 0])
        assert found["ids"].dtype == np.int32 and found["ids"].shape[0] == 1
        assert found["ids"][0, :size].tolist() == ops.convert_to_numpy(expected.ids)[0, 0, :size].tolist()
        assert not found["ids"][0, size:].any()
        np.testing.assert_allclose(found["score"], expected.scores[:, 0], atol=1e-4)
        np.testing.assert_allclose(found["log_prob"], expected.log_probs[:, 0], atol=1e-3)


def test_a_folder_has_what_a_program_without_us_needs(exported, folder, model_folder):
    assert {file.name for file in folder.iterdir()} == {"model.tflite", "source.model", "target.model", "export.json"}
    assert (folder / "source.model").read_bytes() == model_folder.source_tokenizer.model
    record = json.loads((folder / "export.json").read_text())
    assert (record["format"], record["kind"]) == (2, "litert")
    assert record["limits"] == {"max_tokens": MAX_TOKENS, "eos_id": EOS_ID}
    assert record["decoding"]["beam_size"] == exported.translator.settings.beam_size


def test_a_process_without_tensorflow_was_compared_with_the_model(exported_litert):
    folder, said = exported_litert
    record = json.loads((folder / "export.json").read_text())["parity"]
    assert (record["compared"], record["truncated"]) == (25, 1) and record["differing"] == []
    assert record["bleu_model"] == record["bleu_artefact"]
    assert record["costs"]["bytes_artefact"]["model.tflite"] == (folder / "model.tflite").stat().st_size
    assert record["costs"]["sentences_per_second_artefact"] > 0
    assert "0 differ" in said[-1]


def test_the_code_in_the_docs_translates(exported, folder, capsys):
    page = Path(__file__).parents[2].joinpath("docs", "how-to", "litert.md").read_text(encoding="utf-8")
    code = page.split("    from ai_edge_litert")[1].split("\n\nA call")[0]
    code = f"import numpy\nfrom ai_edge_litert{code}".replace("\n    ", "\n").replace("exports/demo-phone", str(folder))
    exec(code, {})
    expected = exported.translator.translate(["My brother reads the old book today."])
    assert capsys.readouterr().out == f"{expected[0]}\n"


def test_int8_stores_large_matrices_in_a_quarter(exported, folder):
    """Large are those of 1,024 numbers or more; in this tiny model, only the embedding."""
    small = convert(exported.translator, quantize="int8")
    embedding = exported.translator.model.source_embedding.matrix.numpy()
    assert (folder / "model.tflite").stat().st_size - len(small) >= 0.75 * embedding.nbytes
    runner = Interpreter(model_content=small).get_signature_runner()
    ids = np.array([[*exported.translator.source_tokenizer.encode([SENTENCES[5]])[0], EOS_ID]], "int32")
    assert np.isfinite(runner(ids=ids)["score"]).all()


def test_impossible_options_are_refused_before_anything_is_written(exported, folder, monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"phone exists already\. Expected the name of a new folder"):
        export_litert(exported.model, folder)
    with pytest.raises(UserError, match=r"^LiteRT computes .* not bfloat16\. Expected --quantize int8"):
        export_litert(exported.model, tmp_path / "phone", quantize=Quantization("bfloat16"))
    with pytest.raises(UserError, match=r"export\.nbest has no effect on an export for LiteRT"):
        export_litert(exported.model, tmp_path / "phone", export={"nbest": 1})
    with pytest.raises(UserError, match=r"decoding\.batch_tokens has no effect on an export for LiteRT"):
        export_litert(exported.model, tmp_path / "phone", decoding={"batch_tokens": 100})
    with pytest.raises(UserError, match=r"decoding\.temperature: an export for LiteRT cannot sample\. Set it to 0"):
        export_litert(exported.model, tmp_path / "phone", decoding={"temperature": 1.0, "beam_size": 1})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "ai_edge_litert" else object())
    with pytest.raises(UserError, match=r'needs ai_edge_litert\. Install with: pip install "nmt\[litert\]"'):
        export_litert(exported.model, tmp_path / "phone")
    assert not (tmp_path / "phone").exists()


def test_it_can_search_differently_from_its_model(exported, tmp_path):
    """A beam of 2 is allowed although the model has export.nbest 3, which is a setting of SavedModels."""
    changes = {"beam_size": 2, "coverage_penalty": 0.3, "no_repeat_ngram": 2, "repetition_penalty": 1.3}
    narrow = open_translator(export_litert(exported.model, tmp_path / "narrow", decoding=changes, export={"sample": 5}))
    assert (narrow.settings.beam_size, narrow.record["parity"]["compared"]) == (2, 5)
    assert narrow.translate(SENTENCES) == exported.translator.with_settings(**changes).translate(SENTENCES)
