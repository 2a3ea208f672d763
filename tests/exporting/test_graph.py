"""The graph of an export, called as a server calls it."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text
from keras import ops
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from nmt.data.tokenizer import BOS_ID, EOS_ID, LINE_BREAKERS
from nmt.decoding.beam_search import Hypotheses
from nmt.exporting.batches import count_next_batch
from nmt.exporting.hypotheses import NBest, drop_duplicates, measure_coverage, put_first
from tests.exported_model import MAX_BATCH, MAX_CHARACTERS, MAX_TOKENS, NBEST, SENTENCES

TEXTS = [
    "a man sees a red bike.",
    "",
    "x",
    "der Mann liest Bücher über Schnee.",
    "   ",
    "\u3000\x1c\u0085",
    "  two   children ride.  ",
    "€ 𝄞 日本 \ufeffab",
    "no\0thing",
    "walks " * 12,
    *SENTENCES[:11],
]


def test_signatures_have_the_names_and_types_that_clients_rely_on(exported):
    best, nbest = (exported.signatures[name] for name in ("serving_default", "nbest"))
    for signature in (best, nbest):
        assert signature.structured_input_signature[1] == {"text": tf.TensorSpec([None], tf.string, name="text")}
    assert {name: (x.dtype.name, x.shape.as_list()) for name, x in best.structured_outputs.items()} == {
        "translation": ("string", [None]),
        "score": ("float32", [None]),
        "log_prob": ("float32", [None]),
        "truncated": ("bool", [None]),
        "finished": ("bool", [None]),
    }
    assert {name: (x.dtype.name, x.shape.as_list()) for name, x in nbest.structured_outputs.items()} == {
        "translations": ("string", [None, NBEST]),
        "scores": ("float32", [None, NBEST]),
        "log_probs": ("float32", [None, NBEST]),
        "num_hypotheses": ("int32", [None]),
        "source_tokens": ("string", [None, None]),
        "target_tokens": ("string", [None, NBEST, None]),
        "attention": ("float32", [None, NBEST, None, None]),
        "coverage": ("float32", [None, NBEST]),
        "truncated": ("bool", [None]),
        "finished": ("bool", [None, NBEST]),
    }


def test_no_operation_needs_a_gpu_a_compiler_or_python(exported):
    saved = SavedModel.FromString((exported.version / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    used = {node.op for node in nodes}
    assert {"SentencepieceOp", "SentencepieceTokenizeOp", "While", "MatMul"} <= used
    assert not [op for op in used if op.startswith(("Cudnn", "Xla")) or "PyFunc" in op]
    assert not [function for function in graph.library.function if function.attr["_XlaMustCompile"].b]
    assert not [node.name for node in nodes if "GPU" in node.device]


@pytest.mark.parametrize("size", [1, 2, MAX_BATCH, len(TEXTS)])
def test_texts_and_scores_are_the_models_whatever_the_batch(exported, size):
    expected = [translation.best for translation in exported.translator.stream(TEXTS, split=False)]
    answers = [exported.call("serving_default", TEXTS[n : n + size]) for n in range(0, len(TEXTS), size)]
    texts = [text.decode() for answer in answers for text in answer["translation"]]
    assert texts == [hypothesis.text for hypothesis in expected]
    scores = np.concatenate([answer["score"] for answer in answers])
    np.testing.assert_allclose(scores, [hypothesis.score for hypothesis in expected], atol=1e-4)
    log_probs = np.concatenate([answer["log_prob"] for answer in answers])
    np.testing.assert_allclose(log_probs, [hypothesis.log_prob for hypothesis in expected], atol=1e-3)
    assert not any(np.concatenate([answer["truncated"] for answer in answers]))
    finished = np.concatenate([answer["finished"] for answer in answers]).tolist()
    assert finished == [hypothesis.is_finished for hypothesis in expected] and len({*finished}) == 2
    assert len(set(texts)) > len(TEXTS) / 2  # else the model ignores its input, and the test proves nothing


def test_order_of_the_batch_changes_nothing(exported):
    forth, back = (exported.call("nbest", texts) for texts in (TEXTS, TEXTS[::-1]))
    assert (forth["translations"] == back["translations"][::-1]).all()
    np.testing.assert_allclose(forth["attention"], back["attention"][::-1], atol=1e-5)


def test_no_text_gives_no_translation(exported):
    assert {name: x.shape for name, x in exported.call("serving_default", []).items()} == {
        "translation": (0,),
        "score": (0,),
        "log_prob": (0,),
        "truncated": (0,),
        "finished": (0,),
    }
    nbest = exported.call("nbest", [])
    assert nbest["translations"].shape == (0, NBEST) and nbest["attention"].shape == (0, NBEST, 0, 0)


def test_blank_text_is_translated_by_the_empty_text_with_score_0(exported):
    blank = ["", " ", "\t\n", "\u3000\x1c\u0085"]
    best, nbest = (exported.call(name, blank) for name in ("serving_default", "nbest"))
    assert best["translation"].tolist() == [b""] * 4 and best["score"].tolist() == [0.0] * 4
    assert best["finished"].all() and not best["truncated"].any()
    assert nbest["finished"].tolist() == [[True, *[False] * (NBEST - 1)]] * 4
    assert nbest["num_hypotheses"].tolist() == [1] * 4
    assert nbest["log_probs"].tolist() == [[0.0, *[np.float32(-1e9)] * (NBEST - 1)]] * 4
    assert nbest["target_tokens"].size == 0


def test_a_text_of_10000_characters_is_cut_and_marked_and_leaves_its_neighbours_alone(exported):
    long = ("der Mann sieht das große Haus! " * 400)[:10_000]
    tokenizer = exported.translator.source_tokenizer
    kept = tokenizer.encode([long[:MAX_CHARACTERS]])[0][:MAX_TOKENS]
    beginning = tokenizer.decode([kept])[0]
    assert tokenizer.encode([beginning])[0] == kept and len(kept) == MAX_TOKENS
    answer = exported.call("serving_default", [SENTENCES[0], long, SENTENCES[1]])
    assert answer["truncated"].tolist() == [False, True, False]
    expected = exported.translator.translate([SENTENCES[0], beginning, SENTENCES[1]], split=False)
    assert [text.decode() for text in answer["translation"]] == expected


def test_a_text_is_never_cut_inside_a_character(exported):
    # "▁", and three bytes per character; the limit falls behind the second one of the twentieth.
    text = "€" * 30
    assert MAX_TOKENS % 3 == 0
    answer = exported.call("nbest", [text, text[:19], text[:20]])
    kept = [[token.decode() for token in row if token] for row in answer["source_tokens"]]
    assert kept[0] == kept[1] == kept[2] == [*exported.translator.source_tokenizer.tokenize(text[:19]), "</s>"]
    assert answer["truncated"].tolist() == [True, False, True]
    assert len(set(answer["translations"][:, 0])) == 1


def test_nbest_begins_with_the_translation_of_serving_default(exported):
    best, nbest = (exported.call(name, SENTENCES[::8]) for name in ("serving_default", "nbest"))
    assert best["translation"].tolist() == nbest["translations"][:, 0].tolist()
    np.testing.assert_allclose(best["score"], nbest["scores"][:, 0], atol=1e-4)


def test_coverage_is_the_share_of_source_tokens_that_received_attention():
    source = tf.constant([[4, 5, EOS_ID, 0], [EOS_ID, 0, 0, 0]])
    target = tf.constant([[[6, 7, EOS_ID], [6, EOS_ID, 0]]] * 2)
    # The second source token receives 0.09 from the first hypothesis, besides what its EOS gives.
    attention = np.zeros((2, 2, 3, 4), "float32")
    attention[0, 0] = [[0.95, 0.05, 0, 0], [0.0, 0.04, 0.96, 0], [0, 1, 0, 0]]
    attention[0, 1] = [[0.5, 0.5, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(measure_coverage(attention, source, target), [[0.5, 1], [1, 1]])


def test_a_best_hypothesis_is_put_first_without_better_ones_and_its_own_copy():
    def made(texts, scores):
        texts, scores = np.array(texts), np.array(scores, "float32")
        ids = np.arange(1, scores.size + 1, dtype="int32").reshape(*scores.shape, 1)
        return NBest(*map(tf.constant, (texts, scores, 3 * scores, (texts != "").sum(1, dtype="int32"), ids)))

    best = made([["b"], ["a"]], [[-2], [-1]])
    others = made([["a", "b", "c", "d"], ["a", "", "", ""]], [[-1, -2, -3, -4], [-1, -1e9, -1e9, -1e9]])
    found = put_first(best, others, 3)
    assert found.texts.numpy().tolist() == [[b"b", b"c", b"d"], [b"a", b"", b""]]
    np.testing.assert_array_equal(found.scores, [[-2, -3, -4], [-1, -1e9, -1e9]])
    assert found.counts.numpy().tolist() == [3, 1]
    assert found.ids.numpy()[:, :, 0].tolist() == [[1, 3, 4], [2, 0, 0]]


def test_no_gradient_is_stored(exported):
    """TensorFlow would register it, and keep its graph, whenever the export is opened."""
    saved = SavedModel.FromString((exported.version / "saved_model.pb").read_bytes())
    functions = saved.meta_graphs[0].graph_def.library
    assert not functions.registered_gradients
    assert not [
        node.name for function in functions.function for node in function.node_def if "_gradient_op_type" in node.attr
    ]


def test_characters_are_limited_where_tokens_are_few(exported):
    words = ["x" + " " * (MAX_CHARACTERS - 2) + rest for rest in ("y", "yz")]
    answer = exported.call("serving_default", [*words, " " * MAX_CHARACTERS + "y", "ü" * MAX_CHARACTERS])
    # The last text has few characters, but each of them needs several tokens.
    assert answer["truncated"].tolist() == [False, True, True, True]
    assert answer["translation"][1].decode() == exported.translator.translate(["x y"], split=False)[0]
    assert (answer["translation"][2], answer["score"][2]) == (b"", 0.0)


def test_bytes_that_are_no_utf_8_are_read_as_replacement_characters(exported):
    broken = [b"a man\xff sees", b"\xc3", b"\xed\xa0\x80 x", b"\xf0\x9f\x98 dog"]
    answer = exported.call("serving_default", broken)
    expected = exported.translator.translate([text.decode("utf-8", "replace") for text in broken], split=False)
    assert [text.decode() for text in answer["translation"]] == expected


def test_every_answer_is_one_line_of_utf_8(exported):
    texts = exported.call("nbest", TEXTS)["translations"].ravel()
    assert not [text for text in texts if set(text.decode()) & set(LINE_BREAKERS)]


def test_nbest_is_the_models(exported):
    answer = exported.call("nbest", TEXTS)
    for n, translation in enumerate(exported.translator.stream(TEXTS, n_best=NBEST, split=False)):
        expected = translation.hypotheses
        count = answer["num_hypotheses"][n]
        assert [text.decode() for text in answer["translations"][n, :count]] == [h.text for h in expected]
        np.testing.assert_allclose(answer["scores"][n, :count], [h.score for h in expected], atol=1e-4)
        np.testing.assert_allclose(answer["log_probs"][n, :count], [h.log_prob for h in expected], atol=1e-3)


def test_tokens_spell_source_and_translations(exported):
    answer = exported.call("nbest", TEXTS)
    tokenizer = exported.translator.target_tokenizer
    ids = {tokenizer.get_token(one): one for one in range(tokenizer.vocabulary_size)}
    for n, text in enumerate(TEXTS):
        source = [token.decode() for token in answer["source_tokens"][n] if token]
        read = [*tokenizer.encode([text])[0], EOS_ID] if text.strip() else []
        assert source == [tokenizer.get_token(one) for one in read]
        for tokens, translation in zip(answer["target_tokens"][n], answer["translations"][n], strict=True):
            target = [ids[token.decode()] for token in tokens if token]
            assert tokenizer.decode([target]) == [translation.decode()]


def test_attention_is_that_of_teacher_forcing(exported):
    answer = exported.call("nbest", TEXTS)
    tokenizer, model = exported.translator.target_tokenizer, exported.translator.model
    ids = {tokenizer.get_token(one): one for one in range(tokenizer.vocabulary_size)}
    for n in (0, 3, 9):
        source = np.array([[*tokenizer.encode([TEXTS[n]])[0], EOS_ID]], "int32")
        for rank in range(answer["num_hypotheses"][n]):
            target = [ids[token.decode()] for token in answer["target_tokens"][n, rank] if token]
            decoded = model(source, np.array([[BOS_ID, *target[:-1]]], "int32"))
            expected = ops.convert_to_numpy(decoded.attention_weights)[0]
            found = answer["attention"][n, rank]
            np.testing.assert_allclose(found[: len(target), : source.shape[1]], expected, atol=1e-5)
            assert not found[len(target) :].any() and not found[:, source.shape[1] :].any()


def test_attention_of_a_target_token_sums_to_1_and_of_padding_to_0(exported):
    answer = exported.call("nbest", TEXTS)
    np.testing.assert_allclose(answer["attention"].sum(-1), answer["target_tokens"] != b"", atol=1e-5)


def test_hypotheses_that_spell_the_same_text_count_once(exported):
    tokenizer = exported.translator.target_tokenizer
    ids = {tokenizer.get_token(one): one for one in range(tokenizer.vocabulary_size)}
    word = next(token for token in ids if len(token) == 3 and all(character in ids for character in token))
    one, two, other = (
        [ids[word], EOS_ID, 0, 0],
        [*(ids[character] for character in word), EOS_ID],
        [ids["."], EOS_ID, 0, 0],
    )
    text = tokenizer.decode([one])[0].encode()
    assert tokenizer.decode([two])[0].encode() == text
    found = Hypotheses(
        ids=tf.constant([[one, two, other, other]]),
        lengths=tf.constant([[2, 4, 2, 2]]),
        log_probs=tf.constant([[-1.0, -2.0, -3.0, -1e9]]),
        scores=tf.constant([[-0.5, -1.0, -1.5, -1e9]]),
        finished=tf.constant([[True] * 4]),
    )
    detokenize = tensorflow_text.SentencepieceTokenizer(model=tokenizer.model).detokenize
    best = drop_duplicates(found, detokenize, 3)
    assert best.texts.numpy().tolist() == [[text, b".", b""]]
    assert best.log_probs.numpy().tolist() == [[-1.0, -3.0, np.float32(-1e9)]]
    assert best.scores.numpy().tolist() == [[-0.5, -1.5, np.float32(-1e9)]]
    assert best.counts.numpy().tolist() == [2]
    assert best.ids.numpy().tolist() == [[one, other, [0] * 4]]
    assert drop_duplicates(found, detokenize, 1).texts.numpy().tolist() == [[text]]


@pytest.mark.parametrize(
    ("lengths", "size"),
    [
        ([7], 1),
        ([2, 5, 31, 32, 33], 4),  # all short texts together
        ([20, 40, 41], 2),  # others up to twice the shortest
        ([40, 41, 80, 81], 3),
        ([3] * 20, 10),  # the maximum number of texts
        ([30] * 9, 8),  # the maximum number of tokens
        ([250, 251], 1),  # one text alone may exceed it
        ([10, 251], 1),  # the long text comes in a later batch
    ],
)
def test_texts_of_like_length_are_translated_together(lengths, size):
    assert count_next_batch(tf.constant(lengths), max_batch=10, batch_tokens=240).numpy() == size
