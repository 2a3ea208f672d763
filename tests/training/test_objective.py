import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from nmt.config.schema import ModelConfig, TrainingConfig
from nmt.models.decoder import shift_right
from nmt.models.embedding import Embedding, OutputProjection
from nmt.models.seq2seq import make_seq2seq
from nmt.training.objective import (
    Examples,
    Objective,
    _softmax_nll,
    compare_attention,
    compute_consistency,
    cross_entropy,
)

B, T, E, V = 2, 3, 5, 7  # sentences, positions, units of a state, pieces
TARGETS = np.array([[4, 6, 3], [4, 3, 0]])
WEIGHTS = (TARGETS != 0).astype("float32")

smoothings = pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.7])


def random(*shape, seed=1):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def projection():
    layer = OutputProjection(V, E, tied=None)
    layer.set_weights([random(*weight.shape) for weight in layer.weights])
    return layer


def array(x):
    return keras.ops.convert_to_numpy(keras.ops.cast(x, "float64"))


@tf.function
def losses(layer, states, targets, weights, label_smoothing):
    weights = tf.cast(weights, layer.variable_dtype)
    return cross_entropy(layer, states, targets, weights, label_smoothing=label_smoothing)[:2]


def make_consistent_losses(kind):
    @tf.function
    def consistent_losses(layer, states, targets, weights, label_smoothing):
        """The loss with three times the divergence, the loss, and the divergence."""
        weights = tf.cast(weights, layer.variable_dtype)
        settings = {"label_smoothing": label_smoothing, "kind": kind}
        loss, _, divergence, _ = compute_consistency(layer, states, targets, weights, **settings)
        return loss + 3 * divergence, loss, divergence

    return consistent_losses


def numpy_losses(layer, states, targets, weights, label_smoothing):
    """Cross-entropy against the smoothed distribution, a piece at a time; and the plain one."""
    matrix, bias = (array(weight) for weight in layer.weights)
    smoothed = plain = 0.0
    for b, t in np.ndindex(*targets.shape):
        logits = matrix @ states[b, t] + bias
        log_probs = logits - math.log(np.exp(logits).sum())
        wanted = np.full(V, label_smoothing / V)
        wanted[targets[b, t]] += 1 - label_smoothing
        smoothed -= weights[b, t] * (wanted @ log_probs)
        plain -= weights[b, t] * log_probs[targets[b, t]]
    return smoothed, plain


def numpy_divergence(layer, states, weights, kind="r_drop"):
    """The divergence of rows b and b + B, a token at a time.

    That of R-Drop is the mean of both directions (Liang et al. 2021), that of SimCut is from the first rows alone (Gao
    et al. 2022).
    """
    matrix, bias = (array(weight) for weight in layer.weights)
    total = 0.0
    for b, t in np.ndindex(B, T):
        p, q = (np.exp(x) / np.exp(x).sum() for x in (matrix @ states[copy, t] + bias for copy in (b, b + B)))
        there, back = p @ np.log(p / q), q @ np.log(q / p)
        total += weights[b, t] * (there if kind == "simcut" else (there + back) / 2)
    return total


def gradients(layer, states, targets, weights, label_smoothing, losses=losses):
    """Returns the gradients of the first loss with respect to states, matrix and bias."""
    states = tf.constant(states)
    variables = [weight.value for weight in layer.weights]
    with tf.GradientTape() as tape:
        tape.watch(states)
        loss = losses(layer, states, targets, weights, label_smoothing)[0]
    return [array(gradient) for gradient in tape.gradient(loss, [states, *variables])]


def assert_equal_to_differences(computed, loss_of, arguments):
    """Compares gradients with central differences of a loss of the arguments."""
    for n, gradient in enumerate(computed):
        numerical = np.zeros_like(arguments[n])
        for place in np.ndindex(*numerical.shape):
            above, below = ([argument.copy() for argument in arguments] for _ in range(2))
            above[n][place] += 1e-5
            below[n][place] -= 1e-5
            numerical[place] = (loss_of(above) - loss_of(below)) / 2e-5
        assert np.abs(numerical).max() > 1e-2
        np.testing.assert_allclose(gradient, numerical, atol=1e-8)


def test_two_pieces_of_equal_score_cost_ln_2_each():
    layer = OutputProjection(2, E, tied=None)
    layer.set_weights([np.zeros((2, E)), np.zeros(2)])
    found = losses(layer, np.ones((B, T, E), "float32"), np.ones((B, T), int), np.ones((B, T), "float32"), 0.1)
    assert [float(loss) for loss in found] == pytest.approx([B * T * math.log(2)] * 2)


@smoothings
@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
def test_equals_the_definition(set_precision, precision, tolerance, label_smoothing):
    set_precision(precision)
    layer, states = projection(), random(B, T, E)
    found = losses(layer, tf.cast(states, precision), TARGETS, WEIGHTS, label_smoothing)
    assert {loss.dtype.name for loss in found} == {precision}
    expected = numpy_losses(layer, states, TARGETS, WEIGHTS, label_smoothing)
    np.testing.assert_allclose(found, expected, rtol=tolerance)


def test_runs_eagerly_too():
    layer, states = projection(), random(B, T, E).astype("float32")
    found = cross_entropy(layer, states, TARGETS, WEIGHTS, label_smoothing=0.1)[:2]
    np.testing.assert_allclose(found, numpy_losses(layer, states, TARGETS, WEIGHTS, 0.1), rtol=1e-5)


@smoothings
def test_gradient_equals_numerical_differences(float64, label_smoothing):
    layer = projection()
    arguments = [random(B, T, E), *map(array, layer.weights)]

    def loss_of(changed):
        layer.set_weights(changed[1:])
        return numpy_losses(layer, changed[0], TARGETS, WEIGHTS, label_smoothing)[0]

    computed = gradients(layer, arguments[0], TARGETS, WEIGHTS, label_smoothing)
    assert_equal_to_differences(computed, loss_of, arguments)


@pytest.mark.parametrize("kind", ["r_drop", "simcut"])
def test_the_divergence_and_its_gradient_follow_the_definition(float64, kind):
    layer, consistent_losses = projection(), make_consistent_losses(kind)
    targets, weights = np.tile(TARGETS, (2, 1)), np.concatenate([WEIGHTS, WEIGHTS * (kind == "r_drop")])
    arguments = [random(2 * B, T, E), *map(array, layer.weights)]
    _, loss, divergence = consistent_losses(layer, arguments[0], targets, weights, 0.1)
    assert float(loss) == pytest.approx(numpy_losses(layer, arguments[0], targets, weights, 0.1)[0])
    assert float(divergence) == pytest.approx(numpy_divergence(layer, arguments[0], weights, kind))

    def loss_of(changed):
        layer.set_weights(changed[1:])
        smoothed, _ = numpy_losses(layer, changed[0], targets, weights, 0.1)
        return smoothed + 3 * numpy_divergence(layer, changed[0], weights, kind)

    computed = gradients(layer, arguments[0], targets, weights, 0.1, losses=consistent_losses)
    assert_equal_to_differences(computed, loss_of, arguments)


def test_each_piece_has_its_own_share_of_the_gradient(float64):
    """Against plain differentiation of TensorFlow's cross-entropy, with weights that are neither 0 nor 1."""
    rows, matrix, bias, upstream = (tf.constant(random(*shape)) for shape in ((11, E), (V, E), (V,), (11,)))
    targets = tf.constant(np.arange(11) % V)
    found = []
    for nll in (
        lambda *x: _softmax_nll(*x, targets),
        lambda x, w, b: tf.nn.sparse_softmax_cross_entropy_with_logits(targets, x @ tf.transpose(w) + b),
    ):
        with tf.GradientTape() as tape:
            tape.watch([rows, matrix, bias])
            values = nll(rows, matrix, bias)
        found.append([values, *tape.gradient(values, [rows, matrix, bias], output_gradients=upstream)])
    for ours, plain in zip(*found, strict=True):
        np.testing.assert_allclose(ours, plain, atol=1e-12)


@smoothings
def test_pieces_of_weight_zero_change_nothing(float64, label_smoothing):
    layer, states = projection(), random(B, T, E)
    padding = ((0, 1), (0, 11))
    padded = (
        np.concatenate([np.pad(states, (*padding, (0, 0)))[:, :T], 9 * random(B + 1, 11, E)], axis=1),
        np.pad(TARGETS, padding, constant_values=5),
        np.pad(WEIGHTS, padding),
        label_smoothing,
    )
    given = (states, TARGETS, WEIGHTS, label_smoothing)
    np.testing.assert_allclose(losses(layer, *padded), losses(layer, *given), rtol=1e-12)
    states_gradient, *expected = gradients(layer, *given)
    padded_states_gradient, *found = gradients(layer, *padded)
    np.testing.assert_allclose(padded_states_gradient[:B, :T], states_gradient, atol=1e-12)
    assert not padded_states_gradient[B:].any()
    assert not padded_states_gradient[:, T:].any()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_bfloat16_is_near_float32(set_precision, smoothing):
    states = random(B, T, E)
    exact = projection()
    expected = numpy_losses(exact, states, TARGETS, WEIGHTS, smoothing)
    expected_gradients = gradients(exact, states.astype("float32"), TARGETS, WEIGHTS, smoothing)
    set_precision("mixed_bfloat16")
    layer, half = projection(), tf.cast(states, "bfloat16")
    found = losses(layer, half, TARGETS, WEIGHTS, smoothing)
    assert {loss.dtype.name for loss in found} == {"float32"}
    np.testing.assert_allclose(found, expected, rtol=3e-2)
    for one, other in zip(gradients(layer, half, TARGETS, WEIGHTS, smoothing), expected_gradients, strict=True):
        assert np.linalg.norm(one - other) < 5e-2 * np.linalg.norm(other)


def test_hopeless_targets_stay_finite():
    layer = projection()
    layer.bias.assign([0, 0, 0, 0, -1000, 0, 0])
    states = random(B, T, E).astype("float32")
    assert np.isfinite(losses(layer, states, TARGETS, WEIGHTS, 0.1)).all()
    found = gradients(layer, states, TARGETS, WEIGHTS, 0.0)
    assert all(np.isfinite(gradient).all() for gradient in found)
    # Each of the two sentences wants piece 4 first, and all of the probability is elsewhere.
    assert found[2][4] == pytest.approx(-2)


@pytest.mark.parametrize("gap", [20, 90, 1000])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("mixed_float16", 1e-3), ("float64", 1e-12)])
def test_the_loss_of_an_unlikely_target_never_saturates(set_precision, precision, tolerance, gap):
    """The probability of a token 104 nats behind is 0 in float32, and in float16 that of one 18 nats behind."""
    set_precision(precision)
    layer = OutputProjection(V, E, tied=None)
    layer.set_weights([np.zeros((V, E)), np.array([0.0, 0, 0, 0, -gap, 0, -2])])
    _, plain = losses(layer, tf.zeros((B, T, E), layer.compute_dtype), TARGETS, WEIGHTS, 0.1)
    # The targets are 4, 6, EOS, 4 and EOS, each over the sum of e ** logit.
    assert float(plain) == pytest.approx(2 * gap + 2 + 5 * math.log(5 + math.exp(-2) + math.exp(-gap)), rel=tolerance)


class RandomModel:
    """Stands in for a model: attentional states that depend on nothing; keeps what it was given to read."""

    right_to_left = False

    def __init__(self, word_dropout=0.0):
        self.projection = projection()
        rates = {"dropout": 0.0, "word_dropout": word_dropout}
        self.source_embedding, self.target_embedding = (Embedding(V, E, scale=1.0, **rates) for _ in range(2))

    def __call__(self, source, target, training=False, word_masks=(None, None)):
        self.read = source, target, training
        self.word_masks = word_masks
        return SimpleNamespace(states=tf.constant(random(*target.shape, E), "float32"))


def test_the_objective_is_the_smoothed_loss_of_the_rows_that_count():
    model, row_weights = RandomModel(), np.array([2.5, 0], "float32")
    source = np.array([[5, 3], [6, 3]])
    sums = Objective(label_smoothing=0.1)(model, Examples(source, TARGETS, row_weights), training=True)
    smoothed, plain = numpy_losses(model.projection, random(B, T, E), TARGETS, WEIGHTS * row_weights[:, None], 0.1)
    assert float(sums.loss) == pytest.approx(smoothed, rel=1e-5)
    assert float(sums.metrics["nll"]) == pytest.approx(plain, rel=1e-5)
    assert sums.num_tokens == 2.5 * 3  # 4, 6 and EOS
    read_source, read_target, training = model.read
    np.testing.assert_array_equal(read_source, source)
    np.testing.assert_array_equal(read_target, shift_right(TARGETS, 2))
    assert training


def test_a_mapped_array_keeps_its_place_behind_one_that_is_missing():
    mapped = Examples("source", "target", None, "alignment").map(str.upper)
    assert mapped == Examples("SOURCE", "TARGET", None, "ALIGNMENT")


def test_smoothing_over_producible_tokens_gives_no_mass_to_the_others():
    settings = TrainingConfig(max_updates=1, label_smoothing=0.1, label_smoothing_over="producible")
    model = RandomModel()
    sums = Objective.from_config(settings, banned_ids=[0, 1])(model, Examples(TARGETS, TARGETS))
    matrix, bias = (array(weight) for weight in model.projection.weights)
    log_probs = np.log(softmax(random(B, T, E) @ matrix.T + bias))
    wanted = np.array([0, 0, *[0.1 / (V - 2)] * (V - 2)]) + 0.9 * np.eye(V)[TARGETS]
    assert float(sums.loss) == pytest.approx(-np.sum(WEIGHTS[:, :, None] * wanted * log_probs), rel=1e-5)
    assert Objective.from_config(TrainingConfig(max_updates=1), banned_ids=[0, 1]).banned_ids == ()


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


def test_with_its_defaults_the_objective_is_the_negative_log_likelihood_without_dropout():
    model = RandomModel()
    sums = Objective()(model, Examples(TARGETS, TARGETS))
    _, plain = numpy_losses(model.projection, random(B, T, E), TARGETS, WEIGHTS, 0.0)
    assert float(sums.loss) == float(sums.metrics["nll"]) == pytest.approx(plain, rel=1e-5)
    assert sums.num_tokens == 5
    assert model.read[2] is False


@pytest.mark.parametrize(("settings", "num_readings"), [({}, 1), ({"consistency": 3.0}, 2)])
def test_the_losses_of_pairs_are_without_smoothing_and_means_of_both_readings(settings, num_readings):
    model, row_weights = RandomModel(), np.array([0.5, 1], "float32")
    objective = Objective(label_smoothing=0.1, pair_losses=True, **settings)
    sums = objective(model, Examples(TARGETS, TARGETS, row_weights), training=True)
    states = random(num_readings * B, T, E).reshape(num_readings, B, T, E)
    expected = [
        np.mean([numpy_losses(model.projection, one[[b]], TARGETS[[b]], WEIGHTS[[b]], 0)[1] for one in states])
        for b in range(B)
    ]
    np.testing.assert_allclose(sums.pair_losses, expected * row_weights, rtol=1e-5)
    assert Objective(label_smoothing=0.1)(model, Examples(TARGETS, TARGETS)).pair_losses == ()


def test_consistency_is_half_the_loss_of_r_drop_over_tokens_that_count_once():
    """Liang et al. 2021, equation 4: the losses of both readings and alpha times the mean of both divergences."""
    model, row_weights = RandomModel(), np.array([1, 0], "float32")
    source = np.array([[5, 3], [6, 3]])
    objective = Objective(label_smoothing=0.1, consistency=5.0)
    sums = objective(model, Examples(source, TARGETS, row_weights), training=True)
    targets, weights = np.tile(TARGETS, (2, 1)), np.tile(WEIGHTS * row_weights[:, None], (2, 1))
    states = random(2 * B, T, E)
    smoothed, plain = numpy_losses(model.projection, states, targets, weights, 0.1)
    divergence = numpy_divergence(model.projection, states, weights)
    assert float(sums.loss) == pytest.approx((smoothed + 5 * divergence) / 2, rel=1e-5)
    assert float(sums.metrics["nll"]) == pytest.approx(plain / 2, rel=1e-5)
    assert float(sums.metrics["divergence"]) == pytest.approx(divergence, rel=1e-5)
    assert sums.num_tokens == 3  # 4, 6 and EOS
    np.testing.assert_array_equal(model.read[0], np.tile(source, (2, 1)))


def test_simcut_is_the_loss_of_the_first_reading_and_the_divergence_of_the_second():
    """Gao et al. 2022, equation 6: nothing is halved, and tokens count once."""
    model, row_weights = RandomModel(word_dropout=0.5), np.array([1, 0], "float32")
    objective = Objective(label_smoothing=0.1, consistency=3.0, consistency_kind="simcut")
    sums = objective(model, Examples(np.array([[5, 3], [6, 3]]), TARGETS, row_weights), training=True)
    states, weights = random(2 * B, T, E), WEIGHTS * row_weights[:, None]
    smoothed, plain = numpy_losses(model.projection, states, TARGETS, weights, 0.1)
    divergence = numpy_divergence(model.projection, states, weights, "simcut")
    assert float(sums.loss) == pytest.approx(smoothed + 3 * divergence, rel=1e-5)
    assert float(sums.metrics["nll"]) == pytest.approx(plain, rel=1e-5)
    assert float(sums.metrics["divergence"]) == pytest.approx(divergence, rel=1e-5)
    assert sums.num_tokens == 3  # 4, 6 and EOS


def test_simcut_cuts_tokens_of_the_second_reading_but_neither_eos_of_the_source_nor_bos():
    model, rows = RandomModel(word_dropout=0.5), 100
    source, target = np.tile([[5, 6, 7, 8, 3]], (rows, 1)), np.tile([[4, 5, 6, 3]], (rows, 1))
    objective = Objective(consistency=3.0, consistency_kind="simcut")
    objective(model, Examples(source, target), training=True)
    for mask, always in zip(model.word_masks, (-1, 0), strict=True):
        mask = array(mask)[:, :, 0]
        assert (mask[:rows] == 1).all()
        second = mask[rows:]
        assert (second[:, always] == 1).all()
        others = np.delete(second, always, axis=1)
        np.testing.assert_array_equal(np.unique(others), [0, 1])  # not scaled
        assert others.mean() == pytest.approx(0.5, abs=0.15)
    objective(model, Examples(source, target))
    assert model.word_masks == (None, None)


@pytest.fixture
def attentive(float64):
    """A small model with two hops and heads, in float64, and examples with alignments: of EOS and padding none."""
    sizes = {"embedding_units": 4, "encoder_units": 4, "decoder_units": 4, "attention_heads": 2, "attention_hops": 2}
    none = {"embedding_dropout": 0.0, "layer_dropout": 0.0, "output_dropout": 0.0}
    config = ModelConfig(**sizes, **none)
    model = make_seq2seq(config, source_vocabulary_size=V, target_vocabulary_size=V, precision="float64")
    for number, variable in enumerate(model.trainable_variables):
        variable.assign(random(*variable.shape, seed=number))
    alignment = np.zeros((B, T, 4))
    alignment[0, 0, 1] = 1
    alignment[0, 1, :2] = 0.5
    alignment[1, 0, 2] = 1
    source = np.array([[5, 4, 6, 3], [6, 4, 3, 0]])
    return model, Examples(source, TARGETS, np.array([1, 2.5]), alignment)


def test_guided_alignment_adds_the_cross_entropy_of_the_attention(attentive):
    """Chen et al. 2016: a target token without links adds nothing, and pairs count by their weights."""
    model, examples = attentive
    attention = array(model(examples.source, shift_right(TARGETS, 2)).attention_weights)
    expected = 0.0
    for b, t, s in np.argwhere(examples.alignment):
        expected -= examples.weights[b] * examples.alignment[b, t, s] * math.log(attention[b, t, s])
    without = Objective(label_smoothing=0.1)(model, examples)
    sums = Objective(label_smoothing=0.1, guided_alignment=0.7)(model, examples)
    assert float(sums.metrics["alignment"]) == pytest.approx(expected)
    assert float(sums.loss) == pytest.approx(float(without.loss) + 0.7 * expected)
    assert without.metrics.keys() == {"nll"} and float(sums.num_tokens) == float(without.num_tokens)


@pytest.mark.parametrize("kind", ["r_drop", "simcut"])
def test_two_equal_readings_are_guided_as_one(attentive, kind):
    model, examples = attentive
    once = Objective(guided_alignment=0.7)(model, examples)
    twice = Objective(guided_alignment=0.7, consistency=2.0, consistency_kind=kind)(model, examples)
    assert float(twice.loss) == pytest.approx(float(once.loss))
    assert float(twice.metrics["alignment"]) == pytest.approx(float(once.metrics["alignment"]))


def test_the_gradient_of_guided_alignment_equals_numerical_differences(attentive):
    """Along one random direction of all weights together."""
    model, examples = attentive
    variables = [variable.value for variable in model.trainable_variables]
    before = [variable.numpy() for variable in variables]
    direction = [random(*variable.shape, seed=100 + number) for number, variable in enumerate(variables)]

    def compute(step=0.0):
        for variable, start, change in zip(variables, before, direction, strict=True):
            variable.assign(start + step * change)
        return Objective(guided_alignment=0.7)(model, examples).metrics["alignment"]

    with tf.GradientTape() as tape:
        loss = compute()
    gradients = tape.gradient(loss, variables, unconnected_gradients="zero")
    slope = sum(np.sum(array(gradient) * change) for gradient, change in zip(gradients, direction, strict=True))
    numerical = float(compute(1e-6) - compute(-1e-6)) / 2e-6
    assert abs(numerical) > 0.1
    assert slope == pytest.approx(numerical, rel=1e-6)


def test_attention_that_vanished_gives_a_finite_loss_and_gradient():
    weights = tf.Variable([[[0.0, 1.0]]])
    with tf.GradientTape() as tape:
        loss = compare_attention(weights, np.array([[[1.0, 0.0]]]), np.ones((1, 1)))
    assert float(loss) == pytest.approx(-math.log(1e-9), rel=1e-5)
    assert np.isfinite(tape.gradient(loss, weights).numpy()).all()


def test_the_decoder_reads_bos_and_all_but_the_last():
    np.testing.assert_array_equal(shift_right(TARGETS, 2), [[2, 4, 6], [2, 4, 3]])
