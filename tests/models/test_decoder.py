import keras
import numpy as np
import pytest
import tensorflow as tf

from nmt.models.decoder import Decoder, DecoderState, shift_right
from nmt.models.embedding import Embedding, OutputProjection
from nmt.models.encoder import EncoderOutput
from nmt.models.queries import select_active
from nmt.models.recurrent import LSTMState

# Sentences, target positions, source tokens, beam, embedding and memory units, vocabulary; heads, units per head.
B, T, S, K, E, M, V, HEADS, D = 2, 5, 7, 3, 11, 13, 17, 2, 19
U = HEADS * D
IDS = np.array([[2, 4, 5, 6, 7], [2, 8, 9, 3, 0]])
STACKS = [(1, 1, False), (1, 1, True), (2, 1, False), (2, 1, True), (3, 2, False), (3, 3, False)]

every_kind = pytest.mark.parametrize("kind", ["multi_head", "bilinear", "additive"])
every_stack = pytest.mark.parametrize(
    ("num_layers", "num_hops", "input_feeding"),
    STACKS,
    ids=[f"{layers}-layers-{hops}-hops" + "-feeding" * feeding for layers, hops, feeding in STACKS],
)
feeding_or_not = pytest.mark.parametrize("input_feeding", [False, True], ids=["plain", "feeding"])


def make_decoder(
    kind="multi_head",
    num_layers=2,
    num_hops=1,
    input_feeding=False,
    layer_norm=False,
    dropout=0.0,
    lexical=False,
    **settings,
):
    words = Embedding(V, E, scale=1.0, dropout=0.0, word_dropout=0.0)
    decoder = Decoder(
        words,
        OutputProjection(V, E, tied=words, lexical_units=E * lexical),
        num_layers=num_layers,
        units=U,
        memory_units=M,
        final_units=M,
        attention=kind,
        num_heads=HEADS,
        num_hops=num_hops,
        input_feeding=input_feeding,
        dropout=dropout,
        output_dropout=0.0,
        layer_norm=layer_norm,
        **settings,
    )
    generator = np.random.default_rng(1)
    for weight in decoder.trainable_weights:
        weight.assign(generator.normal(size=weight.shape) / 4)
    return decoder


def random(*shape, seed=1):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def make_source(decoder):
    shapes = (B, S, M), (B, M), (B, S, E)
    memory, final, vectors = (keras.ops.cast(random(*shape), decoder.compute_dtype) for shape in shapes)
    return EncoderOutput(memory, np.arange(S) < np.array([[S], [3]]), final, vectors)


def to_numpy(x):
    return keras.ops.convert_to_numpy(keras.ops.cast(x, "float64"))


def run_steps(decoder, ids, source):
    """Returns logits [B, T, V] and attention weights [B, T, S] of target ids [B, T], computed token by token."""
    state, memory = decoder.get_initial_state(source), decoder.project_memory(source)
    trace = []
    for t in range(ids.shape[1]):
        logits, state, weights = decoder.step(ids[:, t : t + 1], state, memory)
        trace.append((to_numpy(logits), to_numpy(weights)))
    return tuple(np.concatenate(part, axis=1) for part in zip(*trace, strict=True))


@every_kind
@every_stack
@pytest.mark.parametrize("layer_norm", [False, True], ids=["", "norm"])
def test_steps_compute_what_a_sequence_computes(float64, kind, num_layers, num_hops, input_feeding, layer_norm):
    decoder = make_decoder(kind, num_layers, num_hops, input_feeding, layer_norm)
    source = make_source(decoder)
    decoded = decoder(IDS, source)
    assert decoded.states.shape == (B, T, E)
    assert decoded.attention_weights.shape == (B, T, S)
    logits, weights = run_steps(decoder, IDS, source)
    assert logits.shape == (B, T, V)
    np.testing.assert_allclose(logits, decoder.projection(decoded.states), atol=1e-10)
    np.testing.assert_allclose(weights, decoded.attention_weights, atol=1e-10)


def make_beam_states(decoder, source):
    """Returns the state of K hypotheses after one token each, [B, K, ...], and that of each alone, K x [B, 1, ...]."""
    memory, start = decoder.project_memory(source), decoder.get_initial_state(source)
    tokens = np.array([[4, 5, 6], [7, 8, 9]])
    alone = [decoder.step(tokens[:, k : k + 1], start, memory)[1] for k in range(K)]
    return keras.tree.map_structure(lambda *parts: np.concatenate(parts, axis=1), *alone), alone


@every_kind
@every_stack
def test_hypotheses_do_not_depend_on_each_other(float64, kind, num_layers, num_hops, input_feeding):
    decoder = make_decoder(kind, num_layers, num_hops, input_feeding)
    source = make_source(decoder)
    memory = decoder.project_memory(source)
    state, alone = make_beam_states(decoder, source)
    tokens = np.array([[10, 11, 12], [13, 14, 15]])
    together = decoder.step(tokens, state, memory)
    assert together[0].shape == (B, K, V)
    assert together[2].shape == (B, K, S)
    for k in range(K):
        apart = decoder.step(tokens[:, k : k + 1], alone[k], memory)
        for one, other in zip(keras.tree.flatten(together), keras.tree.flatten(apart), strict=True):
            np.testing.assert_allclose(one[:, k : k + 1], other, atol=1e-12)


@every_kind
@every_stack
def test_active_hypotheses_get_the_same_states(float64, kind, num_layers, num_hops, input_feeding):
    decoder = make_decoder(kind, num_layers, num_hops, input_feeding)
    source = make_source(decoder)
    memory = decoder.project_memory(source)
    assert len(memory.hops) == num_hops
    state, _ = make_beam_states(decoder, source)
    tokens = np.array([[10, 11, 12], [13, 14, 15]])
    is_active = np.array([[True, False, True], [False, True, False]])
    active = select_active(keras.ops.convert_to_tensor(is_active))
    packed = keras.tree.map_structure(lambda part: active.gather(keras.ops.convert_to_tensor(part)), state)
    found = decoder.step_active(tokens[is_active], packed, memory, active)
    assert found.attentional.shape == (is_active.sum(), E)
    assert {part.shape for layer in found.layers for part in layer} == {(is_active.sum(), U)}
    _, expected, _ = decoder.step(tokens, state, memory)
    for one, other in zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True):
        np.testing.assert_allclose(one, to_numpy(other)[is_active], atol=1e-12)


@pytest.mark.parametrize(("kind", "input_feeding"), [("multi_head", False), ("multi_head", True), ("additive", False)])
def test_a_lexical_model_appends_what_attention_selects_of_the_source_embeddings(float64, kind, input_feeding):
    """Nguyen and Chiang 2018, equations 5 and 6, by whole targets, by steps and by the steps of a search."""
    decoder = make_decoder(kind, input_feeding=input_feeding, lexical=True)
    source = make_source(decoder)
    decoded = decoder(IDS, source)
    average = np.tanh(to_numpy(decoded.attention_weights) @ to_numpy(source.vectors))
    expected = np.tanh(average @ to_numpy(decoder.lexical.kernel)) + average
    assert decoded.states.shape == (B, T, 2 * E)
    np.testing.assert_allclose(decoded.states[:, :, E:], expected, atol=1e-12)
    matrix = np.concatenate([to_numpy(part) for part in decoder.projection.matrices], axis=1)
    logits = to_numpy(decoded.states) @ matrix.T + to_numpy(decoder.projection.bias)
    np.testing.assert_allclose(decoder.projection(decoded.states), logits, atol=1e-12)
    np.testing.assert_allclose(run_steps(decoder, IDS, source)[0], logits, atol=1e-12)

    memory, start = decoder.project_memory(source), decoder.get_initial_state(source)
    active = select_active(keras.ops.convert_to_tensor(np.array([[True], [True]])))
    packed = keras.tree.map_structure(lambda part: active.gather(keras.ops.convert_to_tensor(part)), start)
    found = decoder.step_active(IDS[:, 0], packed, memory, active).attentional
    np.testing.assert_allclose(found, to_numpy(decoded.states)[:, 0], atol=1e-12)


@pytest.mark.parametrize("shape", [(B, T), (B, K, T)])
def test_targets_are_shifted_right_behind_bos(shape):
    targets = np.arange(np.prod(shape)).reshape(shape)
    shifted = shift_right(keras.ops.convert_to_tensor(targets), 99)
    assert shifted.shape == shape
    np.testing.assert_array_equal(shifted[..., 0], np.full(shape[:-1], 99))
    np.testing.assert_array_equal(shifted[..., 1:], targets[..., :-1])


def test_the_initial_state_is_a_projection_of_the_final_state(float64):
    decoder = make_decoder(num_layers=3)
    source = make_source(decoder)
    kernel, bias = (to_numpy(weight) for weight in decoder.start_state.weights)
    expected = np.split(np.tanh(to_numpy(source.final_state) @ kernel + bias), 6, axis=-1)
    state = decoder.get_initial_state(source)
    parts = [part for layer in state.layers for part in layer]
    for part, one in zip(parts, expected, strict=True):
        assert part.shape == (B, 1, U)
        np.testing.assert_allclose(part[:, 0], one, atol=1e-12)
    np.testing.assert_array_equal(state.attentional, np.zeros((B, 1, E)))


def test_two_layers_are_wired_as_described(float64):
    """The bottom layer reads tokens; the upper one reads its output and the context, and adds to it."""
    decoder = make_decoder()
    source = make_source(decoder)
    bottom_start, upper_start = (
        LSTMState(*(part[:, 0] for part in layer)) for layer in decoder.get_initial_state(source).layers
    )
    bottom, upper = decoder.layers
    query = bottom(to_numpy(decoder.embedding.matrix)[IDS], bottom_start)
    context, weights = decoder.attentions[0](query, decoder.project_memory(source).hops[0])
    top = to_numpy(query) + to_numpy(upper(np.concatenate([query, context], axis=-1), upper_start))
    kernel, bias = (to_numpy(weight) for weight in decoder.attentional.weights)
    decoded = decoder(IDS, source)
    np.testing.assert_allclose(
        decoded.states, np.tanh(np.concatenate([top, context], axis=-1) @ kernel + bias), atol=1e-12
    )
    np.testing.assert_allclose(decoded.attention_weights, weights, atol=1e-12)


def test_attention_weights_are_the_mean_of_the_hops(float64):
    decoder = make_decoder(num_layers=3, num_hops=2)
    seen = []
    for attention in decoder.attentions:
        attention.call = record_weights(attention.call, seen)
    shown = decoder(IDS, make_source(decoder)).attention_weights
    np.testing.assert_allclose(shown, (seen[0] + seen[1]) / 2, atol=1e-12)
    assert np.abs(seen[0] - seen[1]).max() > 1e-3


def record_weights(attend, seen):
    def call(query, memory, drop_mask=None):
        context, weights = attend(query, memory, drop_mask)
        seen.append(to_numpy(weights))
        return context, weights

    return call


@feeding_or_not
def test_only_input_feeding_reads_the_attentional_state(input_feeding):
    decoder = make_decoder(input_feeding=input_feeding)
    source = make_source(decoder)
    memory, start = decoder.project_memory(source), decoder.get_initial_state(source)
    fed = DecoderState(start.layers, keras.ops.ones_like(start.attentional))
    logits = [to_numpy(decoder.step(IDS[:, :1], state, memory)[0]) for state in (start, fed)]
    assert np.any(logits[0] != logits[1]) == input_feeding


@feeding_or_not
def test_later_tokens_change_nothing(input_feeding):
    decoder = make_decoder(input_feeding=input_feeding)
    source = make_source(decoder)
    changed = IDS.copy()
    changed[:, 3] = 16
    before, after = (to_numpy(decoder(ids, source).states) for ids in (IDS, changed))
    np.testing.assert_allclose(after[:, :3], before[:, :3], atol=1e-6)
    assert (np.abs(after[:, 3:] - before[:, 3:]).max(axis=-1) > 1e-3).all()


@every_stack
def test_padding_and_neighbours_change_nothing(num_layers, num_hops, input_feeding):
    decoder = make_decoder("additive", num_layers, num_hops, input_feeding)
    source = make_source(decoder)
    states = to_numpy(decoder(IDS, source).states)
    short = EncoderOutput(source.memory[1:, :3], source.memory_mask[1:, :3], source.final_state[1:])
    np.testing.assert_allclose(decoder(IDS[1:, :3], short).states, states[1:, :3], atol=1e-5)
    turned = decoder(IDS[::-1], EncoderOutput(*(part[::-1] for part in source))).states
    np.testing.assert_allclose(turned[::-1], states, atol=1e-5)


@feeding_or_not
def test_dropout_acts_in_training_alone(input_feeding):
    decoder = make_decoder(input_feeding=input_feeding, dropout=0.5)
    source = make_source(decoder)
    plain = make_decoder(input_feeding=input_feeding)
    np.testing.assert_allclose(decoder(IDS, source).states, plain(IDS, source).states, atol=1e-6)
    np.testing.assert_allclose(run_steps(decoder, IDS, source)[0], run_steps(plain, IDS, source)[0], atol=1e-6)
    first, second = (to_numpy(decoder(IDS, source, training=True).states) for _ in range(2))
    assert (np.abs(first - second).max(axis=-1) > 1e-3).all()


@every_kind
@every_stack
def test_every_weight_gets_a_gradient(kind, num_layers, num_hops, input_feeding):
    decoder = make_decoder(kind, num_layers, num_hops, input_feeding)
    weights = [weight.value for weight in decoder.trainable_weights]
    with tf.GradientTape() as tape:
        logits = decoder.projection(decoder(IDS, make_source(decoder)).states)
        mixture = tf.reduce_sum(logits * random(*logits.shape, seed=2))
    for gradient in tape.gradient(mixture, weights):
        assert np.abs(tf.convert_to_tensor(gradient)).max() > 0


@every_kind
@feeding_or_not
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_is_near_float32(set_precision, precision, kind, input_feeding):
    exact = make_decoder(kind, input_feeding=input_feeding)
    expected = exact(IDS, make_source(exact))
    set_precision(precision)
    decoder = make_decoder(kind, input_feeding=input_feeding)
    source = make_source(decoder)
    decoded = decoder(IDS, source)
    assert decoded.states.dtype == precision.removeprefix("mixed_")
    assert decoded.attention_weights.dtype == "float32"
    assert {layer.cell.dtype.name for layer in decoder.get_initial_state(source).layers} == {"float32"}
    np.testing.assert_allclose(to_numpy(decoded.states), to_numpy(expected.states), atol=0.1)


@feeding_or_not
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_steps_run_in_half_precision(set_precision, precision, input_feeding):
    set_precision(precision)
    decoder = make_decoder(input_feeding=input_feeding)
    source = make_source(decoder)
    start = decoder.get_initial_state(source)
    logits, state, weights = decoder.step(IDS[:, :1], start, decoder.project_memory(source))
    assert logits.dtype == weights.dtype == "float32"
    assert np.isfinite(logits).all()
    assert [part.dtype for part in keras.tree.flatten(state)] == [part.dtype for part in keras.tree.flatten(start)]


@pytest.mark.parametrize("kind", ["multi_head", "additive"])
def test_input_feeding_drops_the_same_as_without(float64, kind):
    """A decoder whose bottom layer ignores what is fed back computes position by position what another does at once."""
    rates = {"dropout": 0.3, "locked_dropout": True, "recurrent_dropout": 0.3, "attention_dropout": 0.3}
    plain, feeding = (make_decoder(kind, 3, input_feeding=feeding, **rates) for feeding in (False, True))
    for weight, other in zip(plain.trainable_weights, feeding.trainable_weights, strict=True):
        rows = other.shape[0] - weight.shape[0]
        other.assign(np.pad(to_numpy(weight), [(0, rows)] + [(0, 0)] * (len(weight.shape) - 1)))
    found = []
    for decoder in (plain, feeding):
        for n, state in enumerate(v for v in decoder.variables if "seed_generator" in v.path):
            state.assign([1, n])
        found.append(to_numpy(decoder(IDS, make_source(decoder), training=True).states))
    np.testing.assert_allclose(found[1], found[0], atol=1e-12)
    assert np.abs(found[0] - to_numpy(plain(IDS, make_source(plain)).states)).max() > 1e-2
