import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from nmt.models.attention import AdditiveAttention, BilinearAttention, MultiHeadAttention, make_attention
from nmt.models.queries import select_active

B, Q, S, M, HEADS, D = 2, 3, 5, 7, 13, 11  # sentences, queries, source tokens, memory units, heads, units per head
U = HEADS * D
LENGTHS = [S, 3]
KINDS = {"multi_head": MultiHeadAttention, "bilinear": BilinearAttention, "additive": AdditiveAttention}

every_kind = pytest.mark.parametrize("kind", KINDS)


def random(*shape, seed=1):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def make_layer(kind, dropout=0.0):
    layer = make_attention(kind, U, M, num_heads=HEADS, name="attention", dropout=dropout)
    layer.set_weights([random(*weight.shape, seed=n) / 3 for n, weight in enumerate(layer.weights)])
    return layer


def make_inputs(layer, seed=1):
    """Returns queries and memory in the layer's type, and the mask."""
    query, memory = random(B, Q, U, seed=seed), random(B, S, M, seed=seed)
    return *(keras.ops.cast(x, layer.compute_dtype) for x in (query, memory)), np.arange(S) < np.array(LENGTHS)[:, None]


def attend(layer, query, memory, mask):
    return layer(query, layer.project_memory(memory, mask))


def to_numpy(x):
    return keras.ops.convert_to_numpy(keras.ops.cast(x, "float64"))


def softmax(energies):
    exponentials = np.exp(energies)
    return exponentials / exponentials.sum()


def numpy_attention(kind, layer, queries, memory, mask):
    """Computes context and weights of one query from the real tokens alone."""
    weights = {"/".join(weight.path.split("/")[-2:]): to_numpy(weight) for weight in layer.weights}
    tokens = range(np.count_nonzero(mask))
    result = np.zeros(mask.shape)
    if kind == "multi_head":
        heads = [slice(h * D, (h + 1) * D) for h in range(HEADS)]
        q, k, v = (x @ weights[f"{n}/kernel"] for x, n in ((queries, "query"), (memory, "key"), (memory, "value")))
        by_head = [softmax(np.array([q[h] @ k[s][h] for s in tokens]) / math.sqrt(D)) for h in heads]
        result[tokens] = np.mean(by_head, axis=0)
        context = [sum(p[s] * v[s][h] for s in tokens) for p, h in zip(by_head, heads, strict=True)]
        return np.concatenate(context), result
    if kind == "bilinear":
        energies = [queries @ (memory[s] @ weights["key/kernel"]) for s in tokens]
    else:
        asked = queries @ weights["query/kernel"]
        keys = memory @ weights["key/kernel"] + weights["key/bias"]
        energies = [np.tanh(asked + keys[s]) @ weights["energy/kernel"][:, 0] for s in tokens]
    result[tokens] = softmax(np.array(energies))
    return sum(result[s] * memory[s] for s in tokens), result


# For each kind: units, memory units, one head; weights, a query and two memory vectors whose energies are 0 and ln 3.
BY_HAND = {
    # The dot product of four ones with four halves of ln 3 is 2 ln 3, and the root of four halves it.
    "multi_head": (4, 4, [np.eye(4)] * 3, np.ones(4), [np.zeros(4), np.full(4, math.log(3) / 2)]),
    "bilinear": (1, 1, [[[2.0]]], np.ones(1), [np.zeros(1), np.full(1, math.log(3) / 2)]),
    "additive": (
        1,
        1,
        [[[1.0]], [[2.0]], [-1.0], [[math.log(3) / math.tanh(1)]]],
        np.ones(1),
        [np.zeros(1), np.full(1, 1 / 2)],
    ),
}


@every_kind
def test_energies_0_and_ln_3_give_a_quarter_and_three_quarters(kind):
    units, memory_units, weights, query, memory = BY_HAND[kind]
    layer = make_attention(kind, units, memory_units, num_heads=1, name="attention")
    layer.set_weights([np.array(weight) for weight in weights])
    query, memory = (np.array(x, "float32") for x in ([[query]], [memory]))
    context, attention_weights = attend(layer, query, memory, np.array([[True, True]]))
    np.testing.assert_allclose(attention_weights, [[[1 / 4, 3 / 4]]], rtol=1e-6)
    np.testing.assert_allclose(context, [[3 / 4 * memory[0, 1]]], rtol=1e-6)


@every_kind
def test_attention_follows_the_equations(float64, kind):
    layer = make_layer(kind)
    query, memory, mask = make_inputs(layer)
    context, weights = attend(layer, query, memory, mask)
    assert context.shape == (B, Q, layer.context_units)
    assert weights.shape == (B, Q, S)
    for b in range(B):
        for q in range(Q):
            expected = numpy_attention(kind, layer, to_numpy(query)[b, q], to_numpy(memory)[b], mask[b])
            np.testing.assert_allclose(context[b, q], expected[0], atol=1e-10)
            np.testing.assert_allclose(weights[b, q], expected[1], atol=1e-10)


@every_kind
@pytest.mark.parametrize("precision", ["float64", "float32", "mixed_bfloat16", "mixed_float16"])
def test_weights_are_a_distribution_over_real_tokens(set_precision, precision, kind):
    set_precision(precision)
    layer = make_layer(kind)
    query, memory, mask = make_inputs(layer)
    context, weights = attend(layer, query, memory, mask)
    assert context.dtype == layer.compute_dtype
    assert weights.dtype == ("float64" if precision == "float64" else "float32")
    assert np.isfinite(to_numpy(context)).all()
    np.testing.assert_allclose(to_numpy(weights).sum(-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(to_numpy(weights)[~np.broadcast_to(mask[:, None], weights.shape)], 0)
    assert (to_numpy(weights)[np.broadcast_to(mask[:, None], weights.shape)] > 0).all()


@every_kind
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_weights_over_padding_alone_are_uniform(set_precision, precision, kind):
    set_precision(precision)
    layer = make_layer(kind)
    query, memory, _ = make_inputs(layer)
    context, weights = attend(layer, query, memory, np.zeros((B, S), bool))
    np.testing.assert_allclose(weights, np.full((B, Q, S), 1 / S), rtol=1e-6)
    assert np.isfinite(to_numpy(context)).all()


@every_kind
def test_padding_changes_nothing(float64, kind):
    layer = make_layer(kind)
    query, memory, mask = make_inputs(layer)
    context, weights = attend(layer, query, memory, mask)
    longer = np.concatenate([memory, 100 * random(B, 17, M, seed=2)], axis=1)
    longer_mask = np.concatenate([mask, np.zeros((B, 17), bool)], axis=1)
    padded_context, padded_weights = attend(layer, query, longer, longer_mask)
    np.testing.assert_allclose(padded_context, context, atol=1e-12)
    np.testing.assert_allclose(padded_weights[:, :, :S], weights, atol=1e-12)
    assert not np.any(padded_weights[:, :, S:])


@every_kind
def test_neighbours_change_nothing(float64, kind):
    layer = make_layer(kind)
    query, memory, mask = make_inputs(layer)
    context, _ = attend(layer, query, memory, mask)
    for b in range(B):
        np.testing.assert_allclose(
            attend(layer, query[b : b + 1], memory[b : b + 1], mask[b : b + 1])[0][0], context[b], atol=1e-12
        )
    turned = attend(layer, query[::-1], memory[::-1], mask[::-1])[0]
    np.testing.assert_allclose(turned[::-1], context, atol=1e-12)


@every_kind
def test_queries_do_not_depend_on_each_other(float64, kind):
    layer = make_layer(kind)
    query, memory, mask = make_inputs(layer)
    together = attend(layer, query, memory, mask)
    for q in range(Q):
        apart = attend(layer, query[:, q : q + 1], memory, mask)
        for one, other in zip(together, apart, strict=True):
            np.testing.assert_allclose(one[:, q : q + 1], other, atol=1e-12)


@every_kind
def test_active_queries_get_the_same_contexts(float64, kind):
    layer = make_layer(kind)
    query, memory, mask = make_inputs(layer)
    is_active = np.array([[True, False, True], [False, True, False]])
    active = select_active(keras.ops.convert_to_tensor(is_active))
    context, weights = attend(layer, query, memory, mask)
    projected = layer.project_memory(memory, mask)
    found, found_weights = layer.attend_active(active.gather(query), projected, active, needs_weights=True)
    assert found.shape == (is_active.sum(), layer.context_units)
    np.testing.assert_allclose(found, to_numpy(context)[is_active], atol=1e-12)
    np.testing.assert_allclose(to_numpy(found_weights)[is_active], to_numpy(weights)[is_active], atol=1e-12)


@every_kind
def test_the_memory_is_projected_to_keys_and_values(kind):
    layer = make_layer(kind)
    _, memory, mask = make_inputs(layer)
    projected = layer.project_memory(memory, mask)
    expected = ((B, HEADS, D, S), (B, HEADS, S, D)) if kind == "multi_head" else ((B, S, U), (B, S, M))
    assert (projected.keys.shape, projected.values.shape) == expected
    assert layer.context_units == (U if kind == "multi_head" else M)
    np.testing.assert_array_equal(projected.mask, mask)


@every_kind
def test_every_weight_gets_a_gradient(float64, kind):
    layer = make_layer(kind)
    with tf.GradientTape() as tape:
        context, _ = attend(layer, *make_inputs(layer))
        mixture = tf.reduce_sum(context * random(*context.shape, seed=3))
    for gradient in tape.gradient(mixture, [weight.value for weight in layer.trainable_weights]):
        assert np.abs(gradient).max() > 0


@every_kind
def test_the_configuration_names_the_kind(kind):
    layer = make_attention(kind, U, M, num_heads=HEADS, name="attention")
    assert type(layer) is KINDS[kind]


@every_kind
def test_dropped_weights_leave_their_values_out_of_the_context(float64, kind):
    layer = make_layer(kind, dropout=0.5)
    query, memory, mask = make_inputs(layer)
    projected = layer.project_memory(memory, mask)
    drop_mask = layer.draw_mask(projected, Q, training=True)
    assert drop_mask.shape == ((B, HEADS, Q, S) if kind == "multi_head" else (B, Q, S))
    np.testing.assert_array_equal(np.unique(drop_mask), [0, 2])
    context, weights = layer(query, projected, drop_mask)
    whole_context, whole_weights = layer(query, projected)
    np.testing.assert_array_equal(weights, whole_weights)
    # The context of all tokens is that of the kept ones and that of the dropped ones.
    rest, _ = layer(query, projected, 2 - drop_mask)
    assert np.abs(context - rest).max() > 1e-2
    np.testing.assert_allclose((context + rest) / 2, whole_context, atol=1e-12)
    for token in range(S):  # alone, a token contributes its own value
        alone, _ = layer(query, projected, np.zeros(drop_mask.shape) + (np.arange(S) == token))
        share = to_numpy(weights)[:, :, token, None]
        if kind != "multi_head":
            np.testing.assert_allclose(alone, share * to_numpy(memory)[:, None, token], atol=1e-12)


@every_kind
def test_attention_drops_in_training_alone(kind):
    assert make_layer(kind, dropout=0.5).draw_mask(project(kind), Q) is None
    assert make_layer(kind).draw_mask(project(kind), Q, training=True) is None


def project(kind):
    layer = make_layer(kind)
    return layer.project_memory(*make_inputs(layer)[1:])
