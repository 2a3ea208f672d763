import math
import re

import keras
import numpy as np
import pytest

from nmt.compilation import compile_function
from nmt.config.schema import ModelConfig, TrainingConfig
from nmt.data.batching import Batch, pad
from nmt.errors import UserError
from nmt.models.seq2seq import make_seq2seq
from nmt.training import objective
from nmt.training.backends import make_strategy
from nmt.training.objective import Objective
from nmt.training.schedules import make_optimizer
from nmt.training.update import PART_PATTERNS, derive_dropout_seeds
from nmt.weights import get_arrays

# test_update_jax.py runs this file on JAX, where Keras has no float64.
ON_JAX = keras.backend.backend() == "jax"
if ON_JAX:
    from nmt.training.update_jax import JaxUpdate as BackendUpdate
else:
    from nmt.training.update_tensorflow import TensorFlowUpdate as BackendUpdate

EXACT, RELATIVE, ABSOLUTE = ("float32", 1e-5, 1e-6) if ON_JAX else ("float64", 1e-12, 1e-13)
needs_float64 = pytest.mark.skipif(ON_JAX, reason="Keras has no float64 on JAX")
V, BOS = 11, 2
SMOOTHING = 0.1
RATE = 2**-7  # exact in float32, which is what Keras keeps learning rates in
NO_DROPOUT = {"embedding_dropout": 0.0, "layer_dropout": 0.0, "output_dropout": 0.0}
SMALL = {"embedding_units": 16, "encoder_units": 16, "decoder_units": 16, "decoder_layers": 1, "attention_heads": 2}


def batch_of(sources, targets, weights=None):
    filled = [1.0] * len(sources) if weights is None else weights
    return Batch(0, 0, pad(sources), pad(targets), np.array(filled, dtype="float32"))


# Piece 5 is read and written over and over: its row of the one, tied matrix gets many gradients.
BATCH = batch_of(
    [[5, 5, 5, 6], [5, 7], [8, 9, 10, 5, 5], [4], [10, 10], [5]],
    [[5, 5, 6, 5], [7, 5, 5, 5, 5, 8], [9], [4, 5], [6, 7, 8], [10, 5]],
)
# One and the same piece to write, so that the gradients of all rows agree and add up.
STEEP_BATCH = batch_of([[4, 6], [5], [7, 7], [9], [5, 6], [8, 8, 8]], [[9, 9, 9]] * 6)


def made_update(*, optimizer="sgd", precision=EXACT, dropout=None, seed=1, **settings):
    keras.utils.set_random_seed(1)
    config = ModelConfig(**SMALL, **(dropout or NO_DROPOUT))
    model = make_seq2seq(config, source_vocabulary_size=V, target_vocabulary_size=V, precision=precision)
    adam = {} if optimizer == "sgd" else {"beta_1": 0.75, "beta_2": 0.9, "epsilon": 1e-6}
    decay = {"weight_decay": 0.5} if optimizer == "adamw" else {}
    optimizer = make_optimizer(TrainingConfig(optimizer=optimizer, max_updates=1, **decay, **adam))
    strategy = make_strategy("single")
    return BackendUpdate(
        model, optimizer, strategy, seed=seed, **{"objective": Objective(label_smoothing=SMOOTHING), **settings}
    )


def weights_of(update):
    return get_arrays(update.model.trainable_variables)


def set_weights(update, arrays):
    for variable in update.model.trainable_variables:
        variable.assign(arrays[variable.path])


def gradients_at(update, weights, batch=BATCH):
    """What plain gradient descent of rate 1 took away from the weights, by path; and what the update said."""
    set_weights(update, weights)
    outcome = update(batch, update=1, learning_rate=1.0)
    after = weights_of(update)
    return {path: weights[path] - after[path] for path in weights}, outcome


def norm_of(gradients):
    return math.sqrt(sum((gradient.astype("float64") ** 2).sum() for gradient in gradients.values()))


def assert_same(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for path in expected:
        np.testing.assert_allclose(found[path], expected[path], err_msg=path, **tolerance)


@pytest.fixture(scope="module")
def descent():
    """Plain gradient descent in float64: the update of which the others are variations."""
    return made_update()


@pytest.fixture(scope="module")
def start(descent):
    """Weights to start from: all of them random, biases too."""
    random = np.random.default_rng(1)
    return {path: (a + random.normal(size=a.shape) / 4).astype(EXACT) for path, a in weights_of(descent).items()}


@pytest.fixture(scope="module")
def dense(descent, start):
    """The gradient at the start, and the outcome."""
    return gradients_at(descent, start)


@pytest.fixture(scope="module")
def defined_loss(descent):
    """The loss a piece as it is defined, by NumPy from the logits: (smoothed, plain) at given weights."""
    model = descent.model
    logits_of = compile_function(lambda *ids: model.projection(model(*ids).states), model.variables, num_inputs=2)

    def loss(weights, batch=BATCH):
        set_weights(descent, weights)
        logits = np.asarray(logits_of(batch.source, np.insert(batch.target[:, :-1], 0, BOS, axis=1)))
        log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        counted = (batch.target != 0) * batch.weights[:, None]
        nll = -np.take_along_axis(log_probs, batch.target[:, :, None], axis=2)[:, :, 0]
        smoothed = (1 - SMOOTHING) * nll - SMOOTHING * log_probs.mean(axis=-1)
        return (smoothed * counted).sum() / counted.sum(), (nll * counted).sum() / counted.sum()

    return loss


def slope(loss, weights, path, direction, step=1e-5):
    """By central differences of two steps, whose error falls with the fourth power of the step."""

    def difference(step):
        above, below = (loss({**weights, path: weights[path] + sign * step * direction})[0] for sign in (1, -1))
        return (above - below) / (2 * step)

    return (4 * difference(step) - difference(2 * step)) / 3


@pytest.fixture
def untraced(monkeypatch):
    """Saves the seconds in which TensorFlow traces updates that will not run."""
    monkeypatch.setattr(BackendUpdate, "_prepare", lambda update: None, raising=False)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_nothing_is_learned_before_the_first_batch(optimizer):
    update = made_update(optimizer=optimizer, precision="float32", ema_decay=0.9)
    keras.utils.set_random_seed(1)
    fresh = make_seq2seq(ModelConfig(**SMALL, **NO_DROPOUT), source_vocabulary_size=V, target_vocabulary_size=V)
    expected = get_arrays(fresh.trainable_variables)
    assert_same(weights_of(update), expected)
    assert_same(update.get_averages(), expected)
    state = get_arrays(v for v in update.state_variables if "learning_rate" not in v.path)
    assert not any(array.any() for path, array in state.items() if "loss_scale" not in path)


def test_the_loss_is_the_mean_over_all_pieces(dense, start, defined_loss):
    _, outcome = dense
    smoothed, plain = defined_loss(start)
    assert outcome.loss == pytest.approx(smoothed, rel=RELATIVE)
    assert outcome.metrics["nll"] == pytest.approx(plain, rel=RELATIVE)
    # 18 tokens and the EOS of each of 6 rows, counted by hand.
    assert outcome.num_tokens == BATCH.num_target_tokens == 18 + 6
    assert outcome.is_applied


@needs_float64
def test_every_weight_moves_down_the_slope(dense, start, defined_loss):
    gradients, _ = dense
    random = np.random.default_rng(2)
    for path, gradient in gradients.items():
        direction = random.normal(size=gradient.shape)
        expected = slope(defined_loss, start, path, direction)
        assert (gradient * direction).sum() == pytest.approx(expected, abs=1e-8), path
        assert gradient.any(), path


@needs_float64
def test_a_piece_that_is_repeated_gets_the_sum_of_its_gradients(dense, start, defined_loss):
    gradients, _ = dense
    [path] = [path for path, gradient in gradients.items() if gradient.shape[0] == V and gradient.ndim == 2]
    expected = []
    for unit in range(SMALL["embedding_units"]):
        direction = np.zeros_like(start[path])
        direction[5, unit] = 1
        expected.append(slope(defined_loss, start, path, direction))
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(gradients[path][5], expected, atol=1e-8)


def test_the_norm_is_of_the_dense_gradient(dense):
    gradients, outcome = dense
    assert outcome.metrics["gradient_norm"] == pytest.approx(norm_of(gradients), rel=100 * RELATIVE)


def test_rows_of_weight_zero_change_nothing(descent, start, dense):
    rows = [row[row != 0][:-1] for row in BATCH.source], [row[row != 0][:-1] for row in BATCH.target]
    filled = batch_of([*rows[0], [], [9, 9]], [*rows[1], [], [6, 5, 4]], weights=[1.0] * 6 + [0.0] * 2)
    gradients, outcome = gradients_at(descent, start, filled)
    assert outcome.metrics == pytest.approx(dense[1].metrics, rel=RELATIVE)
    assert outcome.num_tokens == dense[1].num_tokens
    assert_same(gradients, dense[0], atol=ABSOLUTE)


class WithIds(Objective):
    """Adds to the loss, and reports under a name of its own, the sum of the target ids that count."""

    def __call__(self, model, examples, *, training=False):
        sums = super().__call__(model, examples, training=training)
        ids = keras.ops.cast(examples.target, "float32") * examples.weights[:, None]
        total = keras.ops.cast(keras.ops.sum(ids), sums.loss.dtype)
        return sums._replace(loss=sums.loss + total, metrics={**sums.metrics, "ids": total})


def test_micro_batches_change_nothing_and_a_loss_term_is_reported_by_name(start, dense):
    """The term does not depend on the weights, so its gradient is zero."""
    update = made_update(objective=WithIds(label_smoothing=SMOOTHING), accumulation_steps=2)
    gradients, outcome = gradients_at(update, start)
    mean_id = BATCH.target.sum() / (18 + 6)
    loss = dense[1].loss + mean_id
    assert outcome.metrics == pytest.approx({**dense[1].metrics, "loss": loss, "ids": mean_id}, rel=RELATIVE)
    assert outcome.num_tokens == dense[1].num_tokens
    assert_same(gradients, dense[0], atol=ABSOLUTE)


def test_only_gradients_longer_than_the_limit_are_clipped(descent, start, dense):
    smaller, larger = sorted([dense, gradients_at(descent, start, STEEP_BATCH)], key=lambda pair: norm_of(pair[0]))
    norms = [norm_of(gradients) for gradients, _ in (smaller, larger)]
    limit = sum(norms) / 2
    assert norms[0] < 0.99 * limit
    clipping = made_update(clip_norm=limit)
    for batch in (BATCH, STEEP_BATCH):
        expected, before = gradients_at(descent, start, batch)
        found, outcome = gradients_at(clipping, start, batch)
        assert outcome.metrics["gradient_norm"] == pytest.approx(before.metrics["gradient_norm"], rel=RELATIVE)
        factor = min(1.0, limit / norm_of(expected))
        assert_same(found, {path: factor * g for path, g in expected.items()}, atol=ABSOLUTE)


def adam_by_numpy(weights, gradients_of, *, decay, num_updates):
    """Kingma and Ba 2015, in the order of computation that ends section 2; decay as in Loshchilov and Hutter 2019."""
    mean = dict.fromkeys(weights, 0.0)
    square = dict.fromkeys(weights, 0.0)
    course = []
    for t in range(1, num_updates + 1):
        gradients = gradients_of(weights)
        rate = RATE * math.sqrt(1 - 0.9**t) / (1 - 0.75**t)
        mean = {path: 0.75 * mean[path] + 0.25 * g for path, g in gradients.items()}
        square = {path: 0.9 * square[path] + 0.1 * g**2 for path, g in gradients.items()}
        weights = {
            path: w * (1 - RATE * (0.0 if path.endswith("bias") else decay))
            - rate * mean[path] / (np.sqrt(square[path]) + 1e-6)
            for path, w in weights.items()
        }
        course.append(weights)
    return course


@needs_float64
@pytest.mark.parametrize(("optimizer", "decay"), [("adam", 0.0), ("adamw", 0.5)])
def test_adam_and_the_moving_average_are_those_of_the_papers(descent, start, optimizer, decay):
    update = made_update(optimizer=optimizer, ema_decay=0.3)
    set_weights(update, start)
    update.restart_averages()
    for number in range(1, 6):
        update(BATCH, update=number, learning_rate=RATE)
    course = adam_by_numpy(start, lambda w: gradients_at(descent, w)[0], decay=decay, num_updates=5)
    # The optimizer keeps its rates in float32, and small gradients magnify what that loses.
    assert_same(weights_of(update), course[-1], atol=1e-6)
    assert norm_of({path: course[-1][path] - start[path] for path in start}) > 0.1
    averages = start
    for n, weights in enumerate(course, 1):
        kept = min(0.3, (1 + n) / (10 + n))  # a young average forgets faster
        averages = {path: kept * averages[path] + (1 - kept) * w for path, w in weights.items()}
    assert_same(update.get_averages(), averages, atol=1e-6)


def test_biases_and_normalisation_do_not_decay():
    model = make_seq2seq(ModelConfig(**SMALL, layer_norm=True), source_vocabulary_size=V, target_vocabulary_size=V)
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    optimizer = make_optimizer(TrainingConfig(optimizer="adamw", learning_rate=0.5, weight_decay=0.25, max_updates=1))
    nothing = [np.zeros(variable.shape, "float32") for variable in model.trainable_variables]
    optimizer.apply(nothing, model.trainable_variables)
    for variable in model.trainable_variables:
        matrix = len(variable.shape) == 2
        np.testing.assert_allclose(np.asarray(variable.value), 1 - 0.5 * 0.25 if matrix else 1.0, err_msg=variable.path)


@pytest.fixture(scope="module")
def dropping():
    """An update with dropout, whose rate of 0 leaves the weights as they are."""
    update = made_update(precision="float32", dropout={"word_dropout": 0.2})
    return lambda number, seed=1, batch=BATCH: _loss_without_learning(update, number, seed, batch)


def _loss_without_learning(update, number, seed, batch):
    update.seed = seed
    return update(batch, update=number, learning_rate=0.0).loss


def test_dropout_is_a_function_of_seed_and_update(dropping):
    first = dropping(1)
    others = [dropping(2), dropping(1, seed=2), dropping(2, seed=2)]
    assert dropping(1) == first
    assert len({first, *others}) == 4


def test_micro_batches_drop_different_values(dropping):
    # As many rows, and as long, as in `BATCH`, for whose shape the update is compiled.
    once, twice = (batch_of([[5, 6] * 2 + [5]] * n, [[6, 5, 7] * 2] * n) for n in (6, 12))
    halves = made_update(precision="float32", dropout={"word_dropout": 0.2}, accumulation_steps=2)
    # Equal rows: if their masks were equal too, so would be the means over one micro-batch and over both.
    assert abs(_loss_without_learning(halves, 1, 1, twice) - dropping(1, batch=once)) > 1e-4
    seeds = np.concatenate([derive_dropout_seeds(1, number, (2, 3, 4)).reshape(-1, 2) for number in range(1, 101)])
    assert len(np.unique(seeds, axis=0)) == len(seeds) == 100 * 2 * 3 * 4


FACTOR, UNDER_ROOT = 0, 1


@pytest.fixture
def breakable(monkeypatch):
    """An update of AdamW with a moving average, whose loss or gradient breaks at values of two of its weights.

    They are the biases of pieces that are never written, whose part in the loss is negligible.
    """

    sound = objective.cross_entropy

    def loss(projection, *args, **kwargs):
        loss, *others = sound(projection, *args, **kwargs)
        bias = keras.ops.copy(projection.bias)
        root = keras.ops.sqrt(0 * loss + bias[UNDER_ROOT])  # at 0 the root is finite and its slope is not
        return loss * bias[FACTOR] + root, *others

    monkeypatch.setattr(objective, "cross_entropy", loss)
    update = made_update(optimizer="adamw", ema_decay=0.5, clip_norm=1.0)
    bias = update.model.projection.bias

    def set_bias(place, value):
        changed = np.asarray(bias.value).copy()
        changed[place] = value
        bias.assign(changed)

    set_bias([FACTOR, UNDER_ROOT], 1.0)
    return update, set_bias


def state_of(update):
    averages = {f"average of {path}": array for path, array in update.get_averages().items()}
    return {**weights_of(update), **get_arrays(update.state_variables), **averages}


def test_what_is_not_finite_is_not_applied(breakable):
    update, set_bias = breakable
    assert update(BATCH, update=1, learning_rate=RATE).is_applied
    for place, value in ((FACTOR, math.nan), (FACTOR, math.inf), (UNDER_ROOT, 0.0)):
        set_bias(place, value)
        before = state_of(update)
        outcome = update(BATCH, update=2, learning_rate=RATE)
        assert not outcome.is_applied
        assert not math.isfinite(outcome.metrics["gradient_norm"])
        assert math.isfinite(outcome.loss) == (place == UNDER_ROOT)
        after = state_of(update)
        assert after.keys() == before.keys()
        for name, array in before.items():
            np.testing.assert_array_equal(after[name], array, err_msg=name)
        set_bias(place, 1.0)
    assert update(BATCH, update=3, learning_rate=RATE).is_applied
    after = state_of(update)
    assert [name for name, array in before.items() if np.array_equal(after[name], array)] == ["adamw/learning_rate"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_other_precisions_are_near(start, dense, precision):
    update = made_update(precision=precision)
    expected, exact = dense
    single = {path: array.astype("float32") for path, array in start.items()}
    for _ in range(10):
        found, outcome = gradients_at(update, single)
        if outcome.is_applied:  # float16 may first have to lower its loss scale
            break
    tolerance = 1e-5 if precision == "float32" else 5e-2
    assert outcome.loss == pytest.approx(exact.loss, rel=tolerance)
    assert outcome.metrics["gradient_norm"] == pytest.approx(exact.metrics["gradient_norm"], rel=tolerance)
    assert norm_of({path: found[path] - expected[path] for path in found}) < tolerance * exact.metrics["gradient_norm"]
    assert {array.dtype.name for array in found.values()} == {"float32"}
    if precision == "float16":
        check_loss_scale(update)


def check_loss_scale(update):
    before = weights_of(update)
    update.loss_scale.assign(2.0**126)
    outcome = update(BATCH, update=2, learning_rate=1.0)
    assert (outcome.is_applied, float(update.loss_scale.value)) == (False, 2.0**125)
    assert math.isfinite(outcome.loss)
    assert_same(weights_of(update), before, rtol=0)
    update.loss_scale.assign(2.0**6)
    update.good_updates.assign(1998)
    for good, scale in ((1999, 2.0**6), (0, 2.0**7)):
        assert update(BATCH, update=3, learning_rate=0.0).is_applied
        assert (int(update.good_updates.value), float(update.loss_scale.value)) == (good, scale)


def test_all_that_the_next_update_depends_on_has_a_name_of_its_own(untraced):
    for precision in ("float32", "float16"):
        update = made_update(optimizer="adamw", precision=precision)
        paths = [variable.path for variable in update.state_variables]
        assert len(set(paths)) == len(paths) > 2 * len(update.model.trainable_variables)
        assert ("loss_scale" in paths) == ("good_updates" in paths) == (precision == "float16")
        model_paths = [variable.path for variable in update.model.variables]
        assert len(set(model_paths)) == len(model_paths)


FROZEN = ["encoder", "attention", "output"]


@pytest.fixture(scope="module")
def freezing():
    return made_update(optimizer="adamw", ema_decay=0.5, freeze=FROZEN)


def test_frozen_parts_stay_as_they_are(freezing, start, dense):
    update = freezing
    set_weights(update, start)
    update.restart_averages()
    first, second = (update(BATCH, update=number, learning_rate=RATE) for number in (1, 2))
    frozen = {path for path in start if re.match("encoder/|decoder/attention_0/|projection/", path)}
    trained = start.keys() - frozen
    after = weights_of(update)
    assert {path for path in start if (after[path] == start[path]).all()} == frozen
    norm = norm_of({path: dense[0][path] for path in trained})
    assert first.metrics["gradient_norm"] == pytest.approx(norm, rel=100 * RELATIVE)
    assert second.loss < first.loss
    # Two moments for each weight that is trained, the number of updates and the learning rate.
    assert len(update.optimizer.variables) == 2 * len(trained) + 2
    state = update.get_state()
    assert (state["weights"].keys(), state["averages"].keys()) == (start.keys(), trained)
    evaluated = update.get_evaluated_weights()
    assert_same({path: evaluated[path] for path in frozen}, {path: start[path] for path in frozen}, rtol=0)
    assert_same({path: evaluated[path] for path in trained}, update.get_averages(), rtol=0)
    set_weights(update, start)
    update.assign_state(state, "The test")
    assert_same(weights_of(update), after, rtol=0)


def test_a_restart_leaves_nothing_of_the_training_before(freezing, start):
    outcomes = []
    for _ in range(2):
        freezing.restart(start)
        assert_same(weights_of(freezing), start, rtol=0)
        outcomes.append([freezing(BATCH, update=number, learning_rate=RATE) for number in (1, 2)])
        outcomes[-1].append(state_of(freezing))
    assert outcomes[0][:2] == outcomes[1][:2]
    assert_same(outcomes[0][2], outcomes[1][2], rtol=0)


@pytest.mark.parametrize("tied", ["all", "target", "none"])
def test_every_weight_belongs_to_one_part(tied):
    more = {"decoder_layers": 2, "encoder_layers": 2, "attention_hops": 2, "layer_norm": True, "lexical_model": True}
    more["tied_embeddings"] = tied
    model = make_seq2seq(ModelConfig(**{**SMALL, **more}), source_vocabulary_size=V, target_vocabulary_size=V)
    parts = {
        v.path: [part for part, pattern in PART_PATTERNS.items() if re.match(pattern, v.path)]
        for v in model.trainable_variables
    }
    assert all(len(found) == 1 for found in parts.values()), parts
    named = {part for [part] in parts.values()}
    assert PART_PATTERNS.keys() - named == ({"target_embedding"} if tied == "all" else set())


def test_averages_go_with_the_setting(untraced):
    update = made_update(ema_decay=0.5)
    doubled = {path: 2 * array for path, array in weights_of(update).items()}
    update.assign_averages(doubled, "The checkpoint")
    assert_same(update.get_averages(), doubled, rtol=0)
    update.restart_averages()
    assert_same(update.get_averages(), weights_of(update), rtol=0)
    words = "The checkpoint does not have the moving averages that training.ema_decay requires"
    with pytest.raises(UserError, match=words):
        update.assign_averages({}, "The checkpoint")
    assert made_update().get_averages() == {}


def test_the_rows_of_a_batch_are_shared_evenly(untraced):
    assert [made_update(accumulation_steps=n).rows_multiple for n in (1, 3)] == [1, 3]
