import importlib
from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf

from nmt.config.schema import ModelConfig
from nmt.models import recurrent
from nmt.models.seq2seq import Seq2Seq
from nmt.training.objective import cross_entropy

B, S, T, E, V, OTHER_V = 3, 7, 5, 11, 17, 19  # sentences, source and target positions, embedding units, vocabularies
SMALL = {
    "embedding_units": E,
    "encoder_layers": 2,
    "encoder_units": 26,
    "decoder_units": 46,
    "attention_heads": 2,
}
SOURCE = np.array([[4, 5, 6, 7, 8, 9, 3], [10, 11, 3, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0, 0]])
TARGET = np.array([[2, 4, 5, 6, 7], [2, 8, 9, 3, 0], [2, 10, 3, 0, 0]])
PREDICTED = np.array([[4, 5, 6, 7, 3], [8, 9, 3, 0, 0], [10, 3, 0, 0, 0]])
EVERY_MODEL = {
    "default": {},
    "bilinear": {"attention": "bilinear", "attention_heads": 8},
    "additive": {"attention": "additive", "attention_heads": 8},
    "hops": {"decoder_layers": 3, "attention_hops": 2, "lexical_model": True},
    "bridge": {"source_bridge": True, "attention_hops": 2, "start_state": "both_ends"},
    "feeding": {"decoder_layers": 1, "input_feeding": True},
    "norm": {"layer_norm": True},
    "unscaled": {"embedding_scale": 1.0},
    "apart": {"tied_embeddings": "none"},
}

every_model = pytest.mark.parametrize("settings", EVERY_MODEL.values(), ids=EVERY_MODEL)


def make_model(target_vocabulary_size=V, **settings):
    keras.utils.set_random_seed(1)
    return Seq2Seq(
        ModelConfig(**SMALL | settings), source_vocabulary_size=V, target_vocabulary_size=target_vocabulary_size
    )


def to_numpy(x):
    return keras.ops.convert_to_numpy(keras.ops.cast(x, "float64"))


def compute_logits(model, source=SOURCE, target=TARGET, **kwargs):
    return to_numpy(model.projection(model(source, target, **kwargs).states))


def compute_gradients(model):
    """Returns dense gradients of the training loss by path of the weight."""
    weights = {weight.path: weight.value for weight in model.trainable_weights}

    # Not as a graph, since tracing each model takes longer. The tests of the update have graphs.
    with tf.GradientTape() as tape:
        states = model(SOURCE, TARGET).states
        real = tf.cast(PREDICTED != 0, "float32")
        loss, *_ = cross_entropy(model.projection, states, PREDICTED, real, label_smoothing=0.1)
    gradients = tape.gradient(loss, list(weights.values()))
    return {path: tf.convert_to_tensor(gradient) for path, gradient in zip(weights, gradients, strict=True)}


@pytest.mark.parametrize(
    ("tied", "target_vocabulary_size", "matrices"),
    [("all", V, [V]), ("target", OTHER_V, [V, OTHER_V]), ("none", OTHER_V, [V, OTHER_V, OTHER_V])],
)
def test_tying_shares_matrices(tied, target_vocabulary_size, matrices):
    model = make_model(target_vocabulary_size, tied_embeddings=tied)
    shapes = [tuple(weight.shape) for weight in model.trainable_weights]
    assert sorted(shape for shape in shapes if shape in [(V, E), (OTHER_V, E)]) == [(size, E) for size in matrices]
    assert (model.source_embedding.matrix is model.target_embedding.matrix) == (tied == "all")
    assert (model.projection.matrix is model.target_embedding.matrix) == (tied != "none")
    decoded = model(SOURCE, TARGET)
    assert decoded.states.shape == (B, T, E)
    assert decoded.attention_weights.shape == (B, T, S)
    assert model.projection(decoded.states).shape == (B, T, target_vocabulary_size)


@every_model
def test_every_weight_gets_a_gradient(settings):
    model = make_model(**settings)
    assert len(model.trainable_weights) == len(model.weights)
    assert [path for path, gradient in compute_gradients(model).items() if not np.any(gradient)] == []


@every_model
def test_padding_changes_nothing(settings):
    model = make_model(**settings)
    padded = compute_logits(model, np.pad(SOURCE, ((0, 0), (0, 13))), np.pad(TARGET, ((0, 0), (0, 2))))
    np.testing.assert_allclose(padded[:, :T], compute_logits(model), atol=1e-5)


@every_model
def test_neighbours_change_nothing(settings):
    model = make_model(**settings)
    logits = compute_logits(model)
    np.testing.assert_allclose(compute_logits(model, SOURCE[::-1], TARGET[::-1])[::-1], logits, atol=1e-5)
    np.testing.assert_allclose(compute_logits(model, SOURCE[1:], TARGET[1:]), logits[1:], atol=1e-5)


@pytest.mark.parametrize("input_feeding", [False, True], ids=["plain", "feeding"])
def test_dropout_is_a_function_of_its_seed_states(input_feeding):
    model = make_model(input_feeding=input_feeding, recurrent_dropout=0.2, attention_dropout=0.2)
    seed_states = [variable for variable in model.variables if "seed_generator" in variable.path]

    def trained_from(seed):
        for n, state in enumerate(seed_states):
            state.assign([seed, n])
        return compute_logits(model, training=True)

    first = trained_from(1)
    np.testing.assert_array_equal(trained_from(1), first)
    assert (np.abs(trained_from(2) - first).max(axis=-1) > 1e-4).all()


def test_dropout_acts_in_training_alone():
    none = {"embedding_dropout": 0.0, "layer_dropout": 0.0, "output_dropout": 0.0}
    plain, dropping = make_model(**none), make_model(word_dropout=0.3)
    dropping.set_weights(plain.get_weights())
    np.testing.assert_array_equal(compute_logits(dropping), compute_logits(plain))
    np.testing.assert_array_equal(compute_logits(plain, training=True), compute_logits(plain))
    assert np.any(compute_logits(dropping, training=True) != compute_logits(plain))


RATES = dict.fromkeys(("embedding_dropout", "layer_dropout", "output_dropout", "word_dropout"), 0.0)


@pytest.mark.parametrize("name", [*RATES, "recurrent_dropout", "attention_dropout"])
def test_each_dropout_acts(name):
    model = make_model(**RATES | {name: 0.5})
    assert np.any(compute_logits(model, training=True) != compute_logits(model))


def test_locked_dropout_drops_the_same_values_of_all_vectors_of_a_sentence():
    rates = dict.fromkeys(("embedding_dropout", "layer_dropout", "output_dropout"), 0.5)
    model = make_model(**rates, locked_dropout=True)
    for vectors in (
        model.source_embedding(SOURCE, training=True),
        model.target_embedding(TARGET, training=True),
        model.encoder(SOURCE, training=True).memory,
        model(SOURCE, TARGET, training=True).states,
    ):
        is_dropped = to_numpy(vectors) == 0
        assert 0.2 < is_dropped.mean() < 0.8
        np.testing.assert_array_equal(is_dropped, is_dropped[:, :1] | np.zeros_like(is_dropped))
        assert not (is_dropped[0] == is_dropped[1]).all()


@pytest.mark.parametrize(
    "settings", [{}, {"input_feeding": True}, {"layer_norm": True}], ids=["default", "feeding", "norm"]
)
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_trains_float32_weights(set_precision, precision, settings):
    set_precision(precision)
    for path, gradient in compute_gradients(make_model(**settings)).items():
        assert gradient.dtype == "float32", path
        assert np.isfinite(gradient).all(), path
        assert np.any(gradient), path


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_ends_in_float32_logits(set_precision, precision):
    exact = compute_logits(make_model())
    set_precision(precision)
    model = make_model()
    logits = model.projection(model(SOURCE, TARGET).states)
    assert logits.dtype == "float32"
    np.testing.assert_allclose(logits, exact, atol=3e-2)


@pytest.fixture
def pretended_gpu(monkeypatch):
    """Makes Keras and nmt trace as if there were a GPU."""
    # A function of the same name hides the module from plain imports.
    keras_rnn = importlib.import_module("keras.src.backend.tensorflow.rnn")
    monkeypatch.setattr(keras_rnn, "_is_gpu_available", lambda: True)
    monkeypatch.setattr(recurrent, "is_cudnn_fastest", lambda: True)


def count_operations(model, training=False):
    ids = tf.TensorSpec([None, None], "int32")
    run = tf.function(lambda source, target: model(source, target, training=training).states)
    graph = run.get_concrete_function(ids, ids).graph
    functions = graph.as_graph_def().library.function
    nodes = [*graph.as_graph_def().node, *(node for function in functions for node in function.node_def)]
    return Counter(node.op for node in nodes)


@pytest.mark.usefixtures("pretended_gpu")
@pytest.mark.parametrize("recurrent_dropout", [0.0, 0.2])
def test_on_a_gpu_cudnn_runs_every_lstm_without_assertions(recurrent_dropout):
    model = make_model(encoder_layers=2, decoder_layers=3, recurrent_dropout=recurrent_dropout)
    operations = count_operations(model, training=recurrent_dropout > 0)
    assert operations["CudnnRNNV3"] == (2 + 1) + 3
    assert operations["Assert"] == 0
    assert operations["While"] + operations["StatelessWhile"] == 0


@pytest.mark.usefixtures("pretended_gpu")
def test_on_a_gpu_cudnn_runs_only_the_encoder_with_input_feeding():
    assert count_operations(make_model(input_feeding=True))["CudnnRNNV3"] == 2 + 1


def test_without_a_gpu_cudnn_runs_nothing():
    operations = count_operations(make_model())
    assert [name for name in operations if "Cudnn" in name] == []
    assert operations["While"] + operations["StatelessWhile"] > 0
