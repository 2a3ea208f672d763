"""The graph of an ensemble, traced in this process, translates as the folder does. Its members are right-to-left."""

import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import tensorflow as tf

from nmt.data.tokenizer import EOS_ID
from nmt.exporting.graph import PortableTranslator
from nmt.exporting.job import ExportJob
from nmt.exporting.parity import compute_log_prob
from nmt.model_folder import save_confidence, save_ensemble
from nmt.translators.confidence import Confidence
from nmt.translators.model import ModelTranslator
from tests.exported_model import SENTENCES

SOURCES = [SENTENCES[0], SENTENCES[40]]
TARGETS = [SENTENCES[3], "ein Hund"]
OF_MEMBER = Confidence(0.1, [0.9, -0.4], [-1.0], [0.6], 200)


@pytest.fixture(scope="module")
def ensemble(model_folder, tmp_path_factory):
    home = tmp_path_factory.mktemp("ensemble")
    config = model_folder.config
    config = config.model_copy(update={"model": config.model.model_copy(update={"right_to_left": True})})
    first = replace(model_folder, config=config, confidence=asdict(OF_MEMBER))
    first.save(home / "first")
    other = {name: array[..., ::-1] * 0.8 for name, array in first.weights.items()}
    replace(first, weights=other).save(home / "second")
    save_ensemble(home / "both", [home / "first", home / "second"])
    return home / "both"


def test_the_graph_translates_and_scores_as_the_ensemble_does(ensemble, model_folder):
    translator = ModelTranslator.load(ensemble, precision="float32").with_settings(beam_size=2, pruning_threshold=0.0)
    portable = PortableTranslator(translator, model_folder.config.export)
    found = portable.translate(tf.constant(SOURCES))
    expected = translator.translate_texts(SOURCES, split=False)
    assert [text.decode() for text in found["translation"].numpy()] == [one.text for one in expected]
    np.testing.assert_allclose(found["score"], [one.score for one in expected], atol=1e-4)
    scored = portable.score_translations(tf.constant(SOURCES), tf.constant(TARGETS))["log_prob"].numpy()
    for n, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        ids = [*translator.target_tokenizer.encode([target])[0], EOS_ID]
        assert scored[n] == pytest.approx(compute_log_prob(translator, source, ids), abs=1e-2)


def test_the_record_names_the_members(ensemble, model_folder):
    job = ExportJob.load(ensemble, sample=None, quantize=None, decoding={"beam_size": 3}, export={"nbest": 1})
    record = job.make_record([])
    assert record["model"]["path"] == str(ensemble.resolve())
    assert record["model"]["members"] == [dict(model_folder.facts)] * 2
    assert record["decoding"]["beam_size"] == 3
    assert "confidence" not in record


def test_the_record_has_the_confidence_of_the_ensemble(ensemble, tmp_path):
    fitted = replace(OF_MEMBER, sentences=300)
    shutil.copytree(ensemble, tmp_path / "both")
    save_confidence(tmp_path / "both", asdict(fitted))
    job = ExportJob.load(tmp_path / "both", sample=None, quantize=None, decoding=None, export=None)
    assert job.make_record([])["confidence"] == asdict(fitted)
