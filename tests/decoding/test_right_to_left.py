"""A right-to-left model does with reversed targets what the same weights do with targets as they are."""

from typing import Any

import numpy as np
import pytest
from keras import ops

from nmt.config.schema import ModelConfig, SearchSettings
from nmt.data.tokenizer import BOS_ID, PAD_ID, UNK_ID
from nmt.decoding.inference import read_attention, search
from nmt.models.direction import reverse_targets
from nmt.models.ensemble import Ensemble
from nmt.models.seq2seq import Seq2Seq, make_seq2seq
from nmt.training.objective import Examples, Objective

V = 13
SOURCE = np.array([[4, 5, 6, 7, 3], [8, 9, 3, 0, 0]], "int32")
# Finished, padded, of EOS alone, and cut off by the length limit.
TARGET = np.array([[4, 5, 6, 3, 0], [7, 8, 3, 0, 0], [3, 0, 0, 0, 0], [4, 5, 6, 7, 8]], "int32")
REVERSED = np.array([[6, 5, 4, 3, 0], [8, 7, 3, 0, 0], [3, 0, 0, 0, 0], [8, 7, 6, 5, 4]], "int32")
WIDE = SearchSettings(beam_size=2, max_length=6)


def make_pair(seed: int = 1) -> tuple[Seq2Seq, Seq2Seq]:
    """Returns two models with the same weights; the second one is right-to-left."""
    models = []
    for right_to_left in (False, True):
        config = ModelConfig(
            embedding_units=7, encoder_units=10, decoder_units=6, attention_heads=2, right_to_left=right_to_left
        )
        model = make_seq2seq(config, source_vocabulary_size=V, target_vocabulary_size=V)
        random = np.random.default_rng(seed)
        for weight in model.trainable_variables:
            weight.assign(random.normal(scale=0.7, size=weight.shape))
        models.append(model)
    return models[0], models[1]


@pytest.fixture(scope="module")
def pair() -> tuple[Seq2Seq, Seq2Seq]:
    return make_pair()


def test_tokens_are_reversed_before_eos() -> None:
    np.testing.assert_array_equal(reverse_targets(TARGET), REVERSED)
    np.testing.assert_array_equal(reverse_targets(REVERSED.reshape(2, 2, 5)), TARGET.reshape(2, 2, 5))


def test_values_move_with_their_tokens() -> None:
    values = np.arange(4 * 5 * 2).reshape(4, 5, 2)
    found = ops.convert_to_numpy(reverse_targets(TARGET, values))
    for row, places in enumerate([[2, 1, 0, 3, 4], [1, 0, 2, 3, 4], [0, 1, 2, 3, 4], [4, 3, 2, 1, 0]]):
        np.testing.assert_array_equal(found[row], values[row, places])


def test_search_turns_its_hypotheses_back(pair: tuple[Seq2Seq, Seq2Seq]) -> None:
    forward, backward = (
        search(
            model,
            ops.convert_to_tensor(SOURCE),
            settings=WIDE.model_copy(update={"coverage_penalty": 0.3}),
            n_best=2,
            banned_ids=[PAD_ID, UNK_ID, BOS_ID],
        )
        for model in (pair[0], Ensemble([pair[1]]))
    )
    np.testing.assert_array_equal(backward.ids, reverse_targets(forward.ids))
    assert not np.array_equal(backward.ids, forward.ids)
    np.testing.assert_allclose(backward.scores, forward.scores, rtol=1e-6)


def test_forced_reading_takes_and_returns_reading_order(pair: tuple[Seq2Seq, Seq2Seq]) -> None:
    forward, backward = pair
    source, target, reversed_target = np.repeat(SOURCE, 2, axis=0), TARGET, REVERSED
    expected: tuple[Any, ...] = tuple(reverse_targets(target, part) for part in forward.read(source, reversed_target))
    for found, part in zip(backward.read(source, target), expected, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(found), ops.convert_to_numpy(part), atol=1e-6)
    attention = read_attention(backward, source, target)
    np.testing.assert_allclose(ops.convert_to_numpy(attention), ops.convert_to_numpy(expected[1]), atol=1e-6)


def test_the_attention_is_guided_in_the_order_in_which_tokens_are_predicted(pair: tuple[Seq2Seq, Seq2Seq]) -> None:
    forward, backward = pair
    source, objective = np.repeat(SOURCE, 2, axis=0), Objective(guided_alignment=0.5)
    alignment = np.random.default_rng(1).random((*TARGET.shape, SOURCE.shape[1])).astype("float32")
    found = objective(backward, Examples(source, TARGET, None, alignment))
    reversed_alignment = ops.convert_to_numpy(reverse_targets(TARGET, alignment))
    expected = objective(forward, Examples(source, REVERSED, None, reversed_alignment))
    assert float(found.loss) == pytest.approx(float(expected.loss), rel=1e-6)
    assert float(found.metrics["alignment"]) == pytest.approx(float(expected.metrics["alignment"]), rel=1e-6)
    assert not np.array_equal(reversed_alignment, alignment)


@pytest.mark.parametrize("consistency", [0.0, 2.0])
def test_the_loss_is_that_of_reversed_targets(pair: tuple[Seq2Seq, Seq2Seq], consistency: float) -> None:
    forward, backward = pair
    source, objective = np.repeat(SOURCE, 2, axis=0), Objective(label_smoothing=0.1, consistency=consistency)
    found = objective(backward, Examples(source, TARGET))
    expected = objective(forward, Examples(source, REVERSED))
    assert float(found.loss) == pytest.approx(float(expected.loss), rel=1e-6)
    assert float(found.num_tokens) == 13
    assert float(found.loss) != pytest.approx(float(objective(forward, Examples(source, TARGET)).loss), rel=1e-3)
