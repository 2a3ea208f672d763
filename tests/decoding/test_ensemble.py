"""An ensemble decodes with the mean of its members' probabilities, which NumPy computes here from each member alone."""

import itertools
from typing import Any

import numpy as np
import pytest
from keras import ops

from nmt.config.schema import ModelConfig, SearchSettings
from nmt.data.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from nmt.decoding.inference import read_attention, search
from nmt.models.ensemble import DecodingModel, Ensemble, average_logits
from nmt.models.seq2seq import Seq2Seq, make_seq2seq

V = 6
BANNED = [PAD_ID, UNK_ID, BOS_ID]
TOKENS = (4, 5)
MAX_LENGTH = 3
# Every sequence of two tokens that ends within three steps, and those that the limit cuts off.
SEQUENCES = [
    *((*tokens, EOS_ID) for size in range(MAX_LENGTH) for tokens in itertools.product(TOKENS, repeat=size)),
    *itertools.product(TOKENS, repeat=MAX_LENGTH),
]
SOURCE = np.array([[4, 5, 5, 3], [5, 3, 0, 0]], "int32")
WIDE = SearchSettings(beam_size=len(SEQUENCES), max_length=MAX_LENGTH, length_penalty=0.7)


def made(seed: int, **settings: Any) -> Seq2Seq:
    config = ModelConfig(embedding_units=7, encoder_units=10, decoder_units=6, attention_heads=2, **settings)
    model = make_seq2seq(config, source_vocabulary_size=V, target_vocabulary_size=V)
    random = np.random.default_rng(seed)
    for weight in model.trainable_variables:
        weight.assign(random.normal(scale=0.9, size=weight.shape))
    return model


@pytest.fixture(scope="module")
def members() -> list[Seq2Seq]:
    """Three architectures."""
    return [made(1), made(2, decoder_layers=1, input_feeding=True), made(3, attention_hops=2, encoder_layers=1)]


def searched(model: DecodingModel, **changes: Any) -> dict[str, np.ndarray]:
    settings = WIDE.model_copy(update=changes)
    found = search(model, ops.convert_to_tensor(SOURCE), settings=settings, n_best=len(SEQUENCES), banned_ids=BANNED)
    return {name: ops.convert_to_numpy(part) for name, part in found._asdict().items()}


def read_alone(member: Seq2Seq, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns one member's probabilities [N, T, V] and attention [N, T, S] at the positions of all N sequences."""
    source = np.repeat(SOURCE[row : row + 1, : np.count_nonzero(SOURCE[row])], len(SEQUENCES), axis=0)
    before = np.array([[BOS_ID, *sequence, 0, 0][:MAX_LENGTH] for sequence in SEQUENCES], "int32")
    output = member(source, before)
    logits = ops.convert_to_numpy(member.projection(output.states)).astype("float64")
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    attention = ops.convert_to_numpy(output.attention_weights)
    return exponentials / exponentials.sum(axis=-1, keepdims=True), attention


def test_a_full_beam_finds_every_sequence_with_its_log_probability(members: list[Seq2Seq]) -> None:
    found = searched(Ensemble(members))
    for row in range(len(SOURCE)):
        by_sequence = {
            tuple(ids[:length]): log_prob
            for ids, length, log_prob in zip(
                *(found[name][row] for name in ("ids", "lengths", "log_probs")), strict=True
            )
        }
        assert by_sequence.keys() == set(SEQUENCES)
        mean = np.mean([read_alone(member, row)[0] for member in members], axis=0)
        expected = {
            sequence: np.log(mean[n, np.arange(len(sequence)), sequence]).sum() for n, sequence in enumerate(SEQUENCES)
        }
        for sequence, log_prob in by_sequence.items():
            assert log_prob == pytest.approx(expected[sequence], abs=1e-4)
        finished = [sequence for sequence in SEQUENCES if sequence[-1] == EOS_ID]
        best = max(finished, key=lambda one: expected[one] / ((5 + len(one)) / 6) ** 0.7)
        assert tuple(found["ids"][row, 0][: found["lengths"][row, 0]]) == best


def test_the_mean_is_not_that_of_the_logarithms(members: list[Seq2Seq]) -> None:
    log_probs = [np.log([[0.5, 0.5]]), np.log([[0.9, 0.1]])]
    np.testing.assert_allclose(average_logits([ops.convert_to_tensor(one) for one in log_probs]), np.log([[0.7, 0.3]]))


def test_tokens_that_no_member_expects_keep_finite_logarithms() -> None:
    logits = np.array([[0.0, -300.0, -320.0]], "float32")
    found = ops.convert_to_numpy(average_logits([ops.convert_to_tensor(logits), ops.convert_to_tensor(logits + 50)]))
    np.testing.assert_allclose(found, logits, atol=1e-4)


def test_a_model_twice_is_that_model(members: list[Seq2Seq]) -> None:
    for changes in ({}, {"coverage_penalty": 0.4}):
        alone, twice = (searched(model, beam_size=3, **changes) for model in (members[0], Ensemble([members[0]] * 2)))
        np.testing.assert_array_equal(twice["ids"], alone["ids"])
        for name in ("scores", "log_probs"):
            np.testing.assert_allclose(twice[name], alone[name], rtol=1e-5)


def test_attention_is_the_mean_of_the_members(members: list[Seq2Seq]) -> None:
    number = SEQUENCES.index((4, 5, EOS_ID))
    target = np.array([SEQUENCES[number]] * len(SOURCE), "int32")
    ensemble = Ensemble(members)
    found = read_attention(ensemble, ops.convert_to_tensor(SOURCE), ops.convert_to_tensor(target))
    for row in range(len(SOURCE)):
        expected = np.mean([read_alone(member, row)[1][number] for member in members], axis=0)
        np.testing.assert_allclose(ops.convert_to_numpy(found)[row, :, : expected.shape[1]], expected, atol=1e-5)


def test_steps_agree_with_reading_whole_targets(members: list[Seq2Seq]) -> None:
    ensemble = Ensemble(members)
    before, target = np.array([[BOS_ID, 4, 5], [BOS_ID, 5, 5]], "int32"), np.array([[4, 5, 3], [5, 5, 3]], "int32")
    logits, weights = (ops.convert_to_numpy(part) for part in ensemble.read(SOURCE, target))
    start = ensemble.start(SOURCE)
    state = start.state
    for position in range(before.shape[1]):
        step_logits, state, step_weights = ensemble.step(before[:, position, None], state, start.memory)
        np.testing.assert_allclose(ops.convert_to_numpy(step_logits)[:, 0], logits[:, position], atol=1e-5)
        np.testing.assert_allclose(ops.convert_to_numpy(step_weights)[:, 0], weights[:, position], atol=1e-5)
