"""Warm-up requests, parsed with the message classes of TensorFlow Serving."""

import pytest
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from nmt.data.corpus import read_lines
from nmt.exporting.warmup import MAX_TEXTS, make_prediction_log, make_warmup_requests

MOST_RECORDS = 1000  # kMaxNumRecords in tensorflow_serving/servables/tensorflow/saved_model_warmup_util.h


@pytest.fixture(scope="module")
def logs(exported) -> list[PredictionLog]:
    file = exported.version / "assets.extra" / "tf_serving_warmup_requests"
    return [PredictionLog.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(file))]


def texts_of(log: PredictionLog) -> list[str]:
    return [text.decode() for text in tf.make_ndarray(log.predict_log.request.inputs["text"])]


def test_every_request_is_answered_by_the_signature_that_it_names(exported, logs):
    assert 0 < len(logs) <= MOST_RECORDS
    for log in logs:
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        assert request.model_spec.name == "served"
        answer = exported.call(request.model_spec.signature_name, texts_of(log))
        assert {len(column) for column in answer.values()} == {len(texts_of(log))}
    assert {log.predict_log.request.model_spec.signature_name for log in logs} == {"serving_default", "nbest"}


def test_they_have_the_lengths_of_the_dev_text(logs, model_folder):
    sentences = [text for text in read_lines(model_folder.config.data.dev.source) if text]
    lengths = sorted(len(text) for text in set(sentences))
    asked = [texts_of(log) for log in logs if log.predict_log.request.model_spec.signature_name == "nbest"]
    assert {text for texts in asked for text in texts} <= set(sentences)
    alone = [len(texts[0]) for texts in asked if len(texts) == 1]
    assert alone == [lengths[0], lengths[round((len(lengths) - 1) / 2)], lengths[-1]]
    together = [text for texts in asked if len(texts) > 1 for text in texts]
    assert 1 < len(together) <= MAX_TEXTS
    assert (len(together[0]), len(together[-1])) == (lengths[0], lengths[-1])


def test_nothing_is_unknown_to_the_real_messages():
    """The real classes write the same bytes again, so no field was lost or misnumbered."""
    texts = ["ü" * 200, "", "a\0b"]
    written = make_prediction_log("demo", "nbest", {"text": texts})
    log = PredictionLog.FromString(written)
    assert log.SerializeToString(deterministic=True) == written
    assert texts_of(log) == texts
    request = log.predict_log.request
    assert (request.model_spec.name, request.model_spec.signature_name) == ("demo", "nbest")
    assert request.inputs["text"].dtype == tf.string and request.inputs["text"].tensor_shape.dim[0].size == 3


@pytest.mark.parametrize(
    ("sentences", "expected"),
    [
        (["", " "], [[""], [""]]),
        (["b", "b", "", "a"], [["a"], ["b"], ["a", "b"]]),
        (["ccc", "a", "bb"], [["a"], ["bb"], ["ccc"], ["a", "bb", "ccc"]]),
    ],
)
def test_few_sentences_do(sentences, expected):
    assert make_warmup_requests(sentences) == expected
