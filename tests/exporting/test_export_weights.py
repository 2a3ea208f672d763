"""Quantized weights of an export, and what the graph computes with them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from nmt.config.schema import ExportConfig
from nmt.exporting.graph import PortableTranslator
from nmt.exporting.weights import StoredWeights, quantize_matrix
from nmt.translators.model import ModelTranslator
from tests.exported_model import SENTENCES, round_weights


def test_the_graph_computes_with_the_rounded_weights(exported):
    """Those of int8 are in test_savedmodel_export.py."""
    original = exported.translator
    rounding = ModelTranslator.load(exported.model, precision="float32")
    round_weights(rounding.model, "bfloat16")
    portable = PortableTranslator(original, ExportConfig(nbest=3), "bfloat16")
    found = portable.translate(tf.constant(SENTENCES[::7]))
    expected = [translation.best for translation in rounding.stream(SENTENCES[::7], split=False)]
    assert [text.decode() for text in found["translation"].numpy()] == [h.text for h in expected]
    np.testing.assert_allclose(found["score"], [h.score for h in expected], atol=1e-4)
    whole = [translation.score for translation in original.stream(SENTENCES[::7], split=False)]
    assert not np.allclose(found["score"], whole, atol=1e-4)  # else the test proves nothing


def test_int8_is_off_by_half_a_step_at_most_in_each_line():
    matrix = np.random.default_rng(3).normal(0, [[0.1], [1], [10], [0], [1000]], (5, 7)).astype("float32")
    values, scale = quantize_matrix(matrix, axis=1)
    assert values.dtype == np.int8 and scale.shape == (5, 1)
    assert (np.abs(values).max(axis=1) == [127, 127, 127, 0, 127]).all()
    assert (np.abs(values * scale - matrix) <= scale / 2 * 1.0001).all()
    by_column, _ = quantize_matrix(matrix.T.copy(), axis=0)
    assert (by_column == values.T).all()


@pytest.mark.parametrize(("kind", "part"), [(None, 1.0), ("bfloat16", 0.5), ("int8", 0.25)])
def test_quantization_shrinks_matrices_and_keeps_vectors(exported, kind, part):
    variables = exported.translator.model.trainable_variables
    stored = StoredWeights(variables, kind).variables
    size = sum(variable.numpy().nbytes for variable in stored)
    matrices = sum(variable.value.numpy().nbytes for variable in variables if len(variable.shape) > 1)
    vectors = sum(variable.value.numpy().nbytes for variable in variables if len(variable.shape) == 1)
    scales = sum(variable.numpy().nbytes for variable in stored if kind == "int8" and 1 in variable.shape)
    assert size == matrices * part + vectors + scales


def test_bfloat16_weights_are_not_converted(exported):
    variables = ModelTranslator.load(exported.model, precision="bfloat16").model.trainable_variables
    stored = StoredWeights(variables, None)

    @tf.function(autograph=False)
    def sums():
        with stored.use():
            return [tf.reduce_sum(variable.value) for variable in variables]

    graph = sums.get_concrete_function().graph
    assert {tensor.dtype for tensor in graph.outputs} == {tf.bfloat16}
    assert not [operation.name for operation in graph.get_operations() if operation.type == "Cast"]


def test_the_model_is_unchanged_afterwards(exported):
    variable = exported.translator.model.trainable_variables[0]
    before = variable.numpy()
    with StoredWeights([variable], "int8").use():
        assert not np.array_equal(keras.ops.convert_to_tensor(variable).numpy(), before)
    assert np.array_equal(variable.numpy(), before)
