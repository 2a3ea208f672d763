"""Confidence in the graph of an export is that of the translator."""

import numpy as np
import pytest
import tensorflow as tf

from nmt.exporting.confidence import estimate_confidence
from nmt.translators.confidence import Confidence
from nmt.translators.hypothesis import Hypothesis
from nmt.translators.protocol import split_tag

FITTED = Confidence(0.1, [0.9, -0.4], [-2.0, -0.5, -0.3, 0.0], [0.2, 0.3, 0.7, 0.9], 200)
SOURCES = ["a man", "<en> ein  Mann", "日本語", "", "<e <en> x"]
TEXTS = ["ein Mann", "a man 𝄞", "", "é", "x" * 50]


@pytest.mark.parametrize("fitted", [FITTED, Confidence(0.1, [0.9, -0.4], [-1.0], [0.6], 200)], ids=["curve", "point"])
def test_the_graph_estimates_what_python_does(fitted):
    # From below the curve to above it, and at one of its points.
    log_probs = np.array([[-0.1, -3.0], [-9.0, -40.0], [-0.5, 0.0], [3.0, -1e9], [-2.0, -25.0]], "float32")
    finished = np.array([[True, True], [True, False], [True, True], [True, False], [True, True]])
    texts = [[text, text.upper()] for text in TEXTS]
    found = estimate_confidence(
        fitted, tf.constant(SOURCES), tf.constant(texts), tf.constant(log_probs), tf.constant(finished), tags=["<en>"]
    )
    expected = [
        [
            fitted.estimate(
                split_tag(source, ["<en>"])[1], Hypothesis(text, 0.0, float(log_prob), is_finished=bool(end))
            )
            for text, log_prob, end in zip(*row, strict=True)
        ]
        for source, *row in zip(SOURCES, texts, log_probs, finished, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    if fitted is FITTED:
        assert {0.2, 0.9} <= set(np.round(np.ravel(expected), 6)) and len(np.unique(expected)) > 4
