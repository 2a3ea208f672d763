from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from nmt.compilation import compile_function
from nmt.config.schema import ModelConfig, SearchSettings
from nmt.data.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from nmt.decoding import inference
from nmt.decoding.beam_search import Hypotheses
from nmt.decoding.inference import read_attention, search
from nmt.models.seq2seq import Seq2Seq, make_seq2seq

V = 19
BANNED = [PAD_ID, UNK_ID, BOS_ID]
SOURCE = np.array([[4, 5, 6, 7, 3], [8, 9, 3, 0, 0], [3, 0, 0, 0, 0]], "int32")
NUM_TOKENS = np.array([5, 3, 1])  # EOS counted
MAX_LENGTH = 13
WIDE = SearchSettings(beam_size=3, max_length=MAX_LENGTH)


def made(**settings: Any) -> Seq2Seq:
    """A model with large random weights, so that probabilities are far apart."""
    config = ModelConfig(embedding_units=11, encoder_units=10, decoder_units=14, attention_heads=2, **settings)
    model = make_seq2seq(config, source_vocabulary_size=V, target_vocabulary_size=V)
    random = np.random.default_rng(7)
    for weight in model.trainable_variables:
        weight.assign(random.normal(scale=0.7, size=weight.shape))
    return model


@pytest.fixture(
    scope="module",
    params=[{}, {"input_feeding": True, "decoder_layers": 1, "lexical_model": True}],
    ids=["default", "feeding"],
)
def model(request: pytest.FixtureRequest) -> Seq2Seq:
    return made(**request.param)


@pytest.fixture
def plain() -> Seq2Seq:
    return made()


def searched(
    model: Seq2Seq, source: np.ndarray = SOURCE, settings: SearchSettings = WIDE, n_best: int = 3
) -> Hypotheses:
    found = search(model, ops.convert_to_tensor(source), settings=settings, n_best=n_best, banned_ids=BANNED)
    return Hypotheses(*(ops.convert_to_numpy(x) for x in found))


def raise_logit(model: Seq2Seq, token: int | list[int], by: float) -> None:
    model.projection.bias.assign_add(by * np.isin(np.arange(V), token).astype("float32"))


def test_the_shapes_are_what_they_promise(model: Seq2Seq) -> None:
    found = searched(model)
    assert found.ids.shape == (3, 3, MAX_LENGTH)
    assert all(part.shape == (3, 3) for part in found[1:])


def test_forced_decoding_gives_back_the_log_probabilities(model: Seq2Seq) -> None:
    """The decoder as it is in training, over whole targets, agrees with the search word by word."""
    found = searched(model)
    for k in range(WIDE.beam_size):
        ids = found.ids[:, k]
        target = np.concatenate([np.full((3, 1), BOS_ID), ids[:, :-1]], axis=1)
        log_probs = ops.log_softmax(model.projection(model(SOURCE, target).states))
        chosen = np.take_along_axis(ops.convert_to_numpy(log_probs), ids[:, :, None], axis=2)[:, :, 0]
        real = np.arange(MAX_LENGTH) < found.lengths[:, k, None]
        np.testing.assert_allclose((chosen * real).sum(axis=1), found.log_probs[:, k], rtol=1e-4, atol=1e-4)


def test_a_row_depends_neither_on_its_neighbours_nor_on_padding(model: Seq2Seq) -> None:
    together = searched(model)
    assert together.ids[:, 0].any(axis=1).all()
    for row, num_tokens in enumerate(NUM_TOKENS):
        # Two at least: Keras warns of a softmax over one.
        alone = searched(model, SOURCE[row : row + 1, : max(num_tokens, 2)])
        steps = alone.ids.shape[2]
        np.testing.assert_array_equal(together.ids[row, :, :steps], alone.ids[0])
        np.testing.assert_array_equal(together.lengths[row], alone.lengths[0])
        np.testing.assert_allclose(together.log_probs[row], alone.log_probs[0], atol=1e-4)
    padded = searched(model, np.pad(SOURCE[::-1], ((0, 0), (0, 7))))
    np.testing.assert_array_equal(padded.ids[::-1], together.ids)


@pytest.mark.parametrize(
    ("settings", "limits"),
    [
        ({"max_length": 29}, [20, 16, 12]),
        ({"max_length": 17}, [17, 16, 12]),
        ({"max_length": 29, "max_length_ratio": 0.9}, [14, 12, 10]),
    ],
)
def test_each_row_has_a_limit_of_its_own(plain: Seq2Seq, settings: dict[str, Any], limits: list[int]) -> None:
    """The ratio times its tokens, EOS counted, and ten; the maximum where that is less."""
    raise_logit(plain, EOS_ID, -1000)
    found = searched(plain, settings=SearchSettings(beam_size=1, **settings), n_best=1)
    assert found.lengths[:, 0].tolist() == limits
    assert not found.finished.any()
    assert [np.count_nonzero(row) for row in found.ids[:, 0]] == limits


def test_memory_is_bounded_by_the_width_of_the_source_even_if_lengths_are_tensors(plain: Seq2Seq) -> None:
    assert SearchSettings(max_length_ratio=inference.MAX_LENGTH_RATIO)
    with pytest.raises(ValueError, match="max_length_ratio"):
        SearchSettings(max_length_ratio=inference.MAX_LENGTH_RATIO + 1)
    numbers = {"max_length": np.int32(4096), "max_length_ratio": np.float32(0.5)}
    settings = SearchSettings(beam_size=1).model_copy(update=numbers)
    source = ops.convert_to_tensor(np.array([[4, EOS_ID]], "int32"))
    found = search(plain, source, settings=settings, banned_ids=BANNED, length_bound=4096)
    assert found.ids.shape == (1, 1, 100 * 2 + 10)


def test_banned_ids_never_appear(plain: Seq2Seq) -> None:
    raise_logit(plain, BANNED, 9.0)
    found = searched(plain)
    tokens = [ids[:length] for ids, length in zip(found.ids.reshape(9, -1), found.lengths.ravel(), strict=True)]
    assert not np.isin(np.concatenate(tokens), BANNED).any()


def test_dropout_stays_out_of_search(plain: Seq2Seq) -> None:
    dropping = made(embedding_dropout=0.9, layer_dropout=0.9, output_dropout=0.9, word_dropout=0.9)
    np.testing.assert_array_equal(searched(dropping).log_probs, searched(plain).log_probs)


@pytest.mark.parametrize("max_active", [None, 2, 7])
def test_compiled_search_equals_eager_search_and_sees_new_weights(
    plain: Seq2Seq, monkeypatch: pytest.MonkeyPatch, max_active: int | None
) -> None:
    monkeypatch.setattr(inference, "choose_max_active", lambda _: max_active)

    def run(source: Any) -> Any:
        refill = max_active is not None
        return search(plain, source, settings=WIDE, n_best=3, banned_ids=BANNED, refill=refill)

    fast = compile_function(run, plain.variables, num_inputs=1)
    for source in (SOURCE, SOURCE[1:, :3]):
        found = fast(ops.convert_to_tensor(source))
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(found.ids), searched(plain, source).ids)
    raise_logit(plain, EOS_ID, 1000)
    assert (keras.ops.convert_to_numpy(fast(ops.convert_to_tensor(SOURCE)).lengths)[:, 0] == 1).all()


def test_forced_decoding_tells_what_each_token_attended_to(model: Seq2Seq) -> None:
    """As the search sees it: a decoder's step at a time, each row by itself."""
    target = np.array([[9, 10, 3, 0], [11, 3, 0, 0], [12, 13, 14, 3]], "int32")
    found = ops.convert_to_numpy(read_attention(model, ops.convert_to_tensor(SOURCE), ops.convert_to_tensor(target)))
    assert found.shape == (3, 4, 5)
    for row, num_tokens in enumerate(NUM_TOKENS):
        encoded = model.encoder(SOURCE[row : row + 1, : max(num_tokens, 2)])
        state, memory = model.decoder.get_initial_state(encoded), model.decoder.project_memory(encoded)
        for position, before in enumerate([BOS_ID, *target[row, :-1]]):
            _, state, weights = model.decoder.step(np.array([[before]], "int32"), state, memory)
            alone = ops.convert_to_numpy(weights)[0, 0, :num_tokens]
            np.testing.assert_allclose(found[row, position, :num_tokens], alone, atol=1e-5)
        assert (found[row, :, num_tokens:] == 0).all()
    np.testing.assert_allclose(found.sum(axis=2), 1, atol=1e-5)
