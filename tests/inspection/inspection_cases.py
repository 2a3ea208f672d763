"""What a trace must agree with, on either backend: `python inspection_cases.py` with KERAS_BACKEND=jax."""

import functools

import numpy as np

from nmt.backend import keras, ops
from nmt.config.schema import ModelConfig
from nmt.inspection.neighbours import read_states
from nmt.inspection.trace import trace
from nmt.models.recurrent import LSTMState
from nmt.models.seq2seq import make_seq2seq

SMALL = {"embedding_units": 6, "encoder_layers": 2, "encoder_units": 10, "decoder_units": 14, "attention_heads": 2}
MODELS = {
    "default": {},
    "norm": {"layer_norm": True, "start_state": "both_ends", "decoder_layers": 1},
    "bridge": {"source_bridge": True, "decoder_layers": 3, "attention_hops": 2, "encoder_layers": 1},
    "feeding": {
        "decoder_layers": 2,
        "input_feeding": True,
        "attention": "additive",
        "attention_heads": 8,
        "lexical_model": True,
    },
}
V = 25
SOURCE, TARGET = [4, 9, 12, 5, 3], [7, 6, 16, 3]
TOLERANCE = 2e-6  # of float32: the layers add the same numbers in another order


def make_model(precision="float32", seed=1, **settings):
    config = ModelConfig(**SMALL | settings)
    model = make_seq2seq(
        config, source_vocabulary_size=V, target_vocabulary_size=V, precision=precision, trainable=False
    )
    random = np.random.default_rng(seed)
    for weight in model.trainable_variables:
        weight.assign(random.normal(0, 0.5, weight.shape))
    return model


def to_numpy(x):
    return np.asarray(ops.convert_to_numpy(x))


def compiled(function):
    """JAX compiles every single operation otherwise, which takes much longer."""
    if keras.backend.backend() == "tensorflow":
        return function
    import jax

    return jax.jit(function)


def find_layer(model, name):
    part, layer = name.split(".")
    if part == "decoder":
        return model.decoder.layers[int(layer.removeprefix("layer_"))]
    return {one.name: one for one in (model.encoder.forward, model.encoder.backward, *model.encoder.upper)}[layer]


def check_layers(model, found):
    """The gates give the output that the layer itself computes from the same inputs."""
    for name, one in found.layers.items():
        order = slice(None, None, -1 if name == "encoder.backward" else 1)
        initial = LSTMState(one.initial_output[None], one.initial_cell[None])
        outputs = to_numpy(compiled(find_layer(model, name))(one.inputs[order][None], initial))[0][order]
        np.testing.assert_allclose(one.output, outputs, atol=TOLERANCE, err_msg=name)
        before = np.concatenate([one.initial_cell[None], one.cell[order][:-1]])[order]
        cells = one.forget_gate * before + one.input_gate * one.candidate
        np.testing.assert_allclose(one.cell, cells, atol=TOLERANCE, err_msg=name)
        np.testing.assert_allclose(one.output, one.output_gate * np.tanh(one.cell), atol=TOLERANCE, err_msg=name)


def check_reading(model, found):
    """Inputs, attention and log-probabilities are those of the model that translates."""
    source, target = np.array([SOURCE]), np.array([TARGET])
    logits, attention = (to_numpy(x)[0] for x in compiled(model.read)(source, target))
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found.log_probs, log_probs[np.arange(len(TARGET)), TARGET], atol=1e-4)
    np.testing.assert_array_equal(found.alternative_ids, np.argsort(-log_probs, axis=1)[:, :5])
    np.testing.assert_allclose(found.alternative_log_probs, -np.sort(-log_probs, axis=1)[:, :5], atol=1e-4)
    np.testing.assert_allclose(found.mean_attention, attention, atol=TOLERANCE)
    np.testing.assert_allclose(found.attention.sum(axis=-1), 1, atol=TOLERANCE)
    states = compiled(functools.partial(read_states, model))(source, target)
    np.testing.assert_allclose(found.states, to_numpy(states)[0], atol=1e-4)


def main():
    model = make_model(**MODELS["norm"])
    found = trace(model, SOURCE, TARGET)
    check_layers(model, found)
    check_reading(model, found)
    print(keras.backend.backend(), *found.saliency.ravel())


if __name__ == "__main__":
    main()
