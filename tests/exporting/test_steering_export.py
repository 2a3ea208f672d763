"""Sampling and limits on repetition in the graph of an export. Tracing is most of the time of an export."""

import tensorflow as tf

from nmt.config.schema import ExportConfig
from nmt.exporting.graph import PortableTranslator
from nmt.exporting.stock_server import check_operations
from nmt.translators.untrusted import OPERATIONS
from tests.exported_model import NBEST, SENTENCES

STEERING = {
    "beam_size": 1,
    "temperature": 0.8,
    "top_k": 20,
    "top_p": 0.95,
    "seed": 3,
    "no_repeat_ngram": 2,
    "repetition_penalty": 1.2,
    "max_length_ratio": 0.9,
}


def test_the_graph_draws_the_samples_of_the_model_in_any_batch(exported):
    texts = [*SENTENCES[::40], "", SENTENCES[5]]
    translator = exported.translator.with_settings(**STEERING)
    portable = PortableTranslator(translator, ExportConfig(nbest=NBEST, max_batch=3))
    # The signatures without their attention.
    graph = tf.function(
        lambda text: portable._search(portable._read_source(text), n_best=NBEST),
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    ).get_concrete_function()
    assert {*check_operations(graph.graph.as_graph_def())} <= OPERATIONS | {"Placeholder"}
    found = graph(tf.constant(texts))
    expected = [translator.translate_batch([text], n_best=NBEST)[0] for text in texts]
    samples = [[one.decode() for one in row] for row in found.texts.numpy()]
    assert samples == [
        [one.text for one in each.hypotheses] + [""] * (NBEST - len(each.hypotheses)) for each in expected
    ]
    assert len({text for row in samples[:-2] for text in row}) > NBEST
    assert found.counts.numpy().tolist() == [1 if not text else NBEST for text in texts]
