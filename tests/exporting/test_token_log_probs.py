"""The signature that scores given translations."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from nmt.config.schema import ExportConfig
from nmt.data.tokenizer import BOS_ID, EOS_ID
from nmt.exporting.batches import Tokens
from nmt.exporting.graph import PortableTranslator
from nmt.exporting.parity import compute_log_prob
from tests.exported_model import MAX_CHARACTERS, MAX_TOKENS, NBEST, SENTENCES

SOURCES = [SENTENCES[0], "x", SENTENCES[40], "walks " * 12, SENTENCES[77], "der Mann", "€ 𝄞 日本", *SENTENCES[5:12]]
TARGETS = [SENTENCES[3], SENTENCES[60], "x", "ein Hund", "walks " * 5, "", "das 𝄞 Haus", *SENTENCES[20:27]]


def ask(exported, sources: list, targets: list) -> dict[str, np.ndarray]:
    found = exported.signatures["token_log_probs"](
        source=tf.constant(sources, tf.string), target=tf.constant(targets, tf.string)
    )
    return {name: value.numpy() for name, value in found.items()}


@pytest.fixture(scope="module")
def answer(exported) -> dict[str, np.ndarray]:
    return ask(exported, SOURCES, TARGETS)


def test_signature_has_the_names_and_types_that_clients_rely_on(exported):
    signature = exported.signatures["token_log_probs"]
    assert signature.structured_input_signature[1] == {
        name: tf.TensorSpec([None], tf.string, name=name) for name in ("source", "target")
    }
    assert {name: (x.dtype.name, x.shape.as_list()) for name, x in signature.structured_outputs.items()} == {
        "target_tokens": ("string", [None, None]),
        "token_log_probs": ("float32", [None, None]),
        "log_prob": ("float32", [None]),
        "num_tokens": ("int32", [None]),
        "truncated": ("bool", [None]),
    }


def test_each_token_and_eos_has_the_keras_models_log_probability(exported, answer):
    tokenizer, model = exported.translator.target_tokenizer, exported.translator.model
    for n, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        ids = [*tokenizer.encode([target])[0], EOS_ID]
        read = np.array([[*tokenizer.encode([source])[0], EOS_ID]], "int32")
        decoded = model(read, np.array([[BOS_ID, *ids[:-1]]], "int32"))
        logits = ops.convert_to_numpy(model.projection(decoded.states))[0].astype("float64")
        expected = logits[np.arange(len(ids)), ids] - np.log(np.exp(logits).sum(axis=-1))
        assert answer["num_tokens"][n] == len(ids)
        assert [token.decode() for token in answer["target_tokens"][n]] == [
            *(tokenizer.get_token(one) for one in ids),
            *[""] * (answer["target_tokens"].shape[1] - len(ids)),
        ]
        np.testing.assert_allclose(answer["token_log_probs"][n, : len(ids)], expected, atol=1e-3)
        assert not answer["token_log_probs"][n, len(ids) :].any()
        assert answer["log_prob"][n] == pytest.approx(expected.sum(), abs=1e-2)
        assert answer["log_prob"][n] == pytest.approx(compute_log_prob(exported.translator, source, ids), abs=1e-2)


def test_what_nbest_found_gets_its_log_probability_back(exported):
    """Given its tokens, because a random model segments its texts differently from SentencePiece."""
    sources, tokenizer = SENTENCES[::31], exported.translator.target_tokenizer
    ids_of = {tokenizer.get_token(one): one for one in range(tokenizer.vocabulary_size)}
    found = exported.call("nbest", sources)
    portable = PortableTranslator(exported.translator, ExportConfig(nbest=NBEST))
    for rank in range(NBEST):
        ids = np.vectorize(lambda token: ids_of[token.decode()] if token else 0)(found["target_tokens"][:, rank])
        target = Tokens(tf.constant(ids, tf.int32), tf.constant((ids != 0).sum(axis=1), tf.int32), None)
        log_probs = portable._score_tokens(portable._read_source(tf.constant(sources)), target)
        np.testing.assert_allclose(log_probs.numpy().sum(axis=1), found["log_probs"][:, rank], atol=1e-3)


def test_a_batch_equals_its_rows(exported, answer):
    for n, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        alone = ask(exported, [source], [target])
        size = answer["num_tokens"][n]
        assert alone["num_tokens"].tolist() == [size] and alone["token_log_probs"].shape == (1, size)
        np.testing.assert_allclose(alone["token_log_probs"][0], answer["token_log_probs"][n, :size], atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*softmax over axis -1")  # there is one source token to attend to
def test_a_blank_text_is_its_eos(exported):
    answer = ask(exported, ["", "a man", " \n"], ["", " ", "x"])
    assert answer["num_tokens"].tolist() == [1, 1, len(exported.translator.target_tokenizer.encode(["x"])[0]) + 1]
    assert (answer["log_prob"] < 0).all()
    assert answer["log_prob"][0] == pytest.approx(compute_log_prob(exported.translator, "", [EOS_ID]), abs=1e-3)


def test_either_text_may_be_too_long(exported):
    answer = ask(exported, ["x" * (MAX_CHARACTERS + 1), "x", "x"], ["x", "ü" * MAX_TOKENS, "x"])
    assert answer["truncated"].tolist() == [True, True, False]
    assert answer["num_tokens"][1] == exported.translator.settings.max_length
    assert np.isfinite(answer["token_log_probs"]).all()


def test_sources_and_targets_that_differ_in_number_are_refused(exported):
    for sources, targets in ((SOURCES[:2], TARGETS[:1]), (SOURCES[:1], TARGETS[:2])):
        with pytest.raises(tf.errors.InvalidArgumentError, match="source and target differ in number"):
            ask(exported, sources, targets)


def test_no_pair_gives_no_answer(exported):
    assert {name: x.shape for name, x in ask(exported, [], []).items()} == {
        "target_tokens": (0, 0),
        "token_log_probs": (0, 0),
        "log_prob": (0,),
        "num_tokens": (0,),
        "truncated": (0,),
    }
