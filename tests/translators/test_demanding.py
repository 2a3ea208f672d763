"""Translations that begin with a prefix, contain phrases, or go on in several ways."""

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text
from keras import ops

from nmt.config.schema import DecodingConfig, ExportConfig, ModelConfig
from nmt.data.tokenizer import EOS_ID, Tokenizer, train_tokenizer
from nmt.decoding.beam_search import Hypotheses
from nmt.decoding.prefix import Prefixes
from nmt.decoding.spelling import Prefix, Spellings, read_prefix
from nmt.errors import UserError
from nmt.exporting.demands import SplitPrefixes, encode_phrases, rank_alternatives
from nmt.exporting.graph import PortableTranslator
from nmt.exporting.stock_server import check_operations
from nmt.models.seq2seq import make_seq2seq
from nmt.translators.candidates import read_row
from nmt.translators.confidence import Confidence
from nmt.translators.demands import Demand, encode_phrase, read_demand, report_unmet, split_demand, start_with_prefix
from nmt.translators.hypothesis import Hypothesis, PartConfidence, Translation
from nmt.translators.model import ModelTranslator
from nmt.translators.savedmodel import SavedModelTranslator
from nmt.translators.sentences import SplitText
from nmt.translators.untrusted import OPERATIONS

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eleven", "東京", "タワー"]
TEXTS = ["one two", "three", "seven six five", "eleven"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    lines = [" ".join(WORDS[start:] + WORDS[:start]) + "." for start in range(len(WORDS))]
    return train_tokenizer(lines, kind="bpe", vocabulary_size=330, character_coverage=1.0)


def make_translator(tokenizer: Tokenizer, right_to_left: bool = False, **decoding: Any) -> ModelTranslator:
    """A random model. Compiling its searches takes most of the time, so tests use as few kinds of them as possible."""
    config = ModelConfig(
        embedding_units=8,
        encoder_layers=1,
        encoder_units=8,
        decoder_layers=1,
        decoder_units=8,
        right_to_left=right_to_left,
    )
    size = tokenizer.vocabulary_size
    model = make_seq2seq(config, source_vocabulary_size=size, target_vocabulary_size=size, trainable=False)
    random = np.random.default_rng(5)
    for weight in model.trainable_variables:
        weight.assign(random.normal(scale=0.5, size=weight.shape))
    settings = DecodingConfig(**{"max_length": 8, "beam_size": 3, **decoding})
    return ModelTranslator(model, tokenizer, tokenizer, settings, max_tokens=12)


@pytest.fixture(scope="module")
def translator(tokenizer: Tokenizer) -> ModelTranslator:
    return make_translator(tokenizer)


PREFIXES = ["one", "one t", "six  ", "three four", "ﬁve", "Ωmega 東", "東京タ", "東"]


@pytest.mark.parametrize("text", PREFIXES)
def test_a_prefix_is_divided_so_that_every_way_to_spell_it_begins_with_it(tokenizer: Tokenizer, text: str) -> None:
    spellings = Spellings(tokenizer.token_bytes)
    prefix = read_prefix(text, tokenizer, spellings)
    rest = [one for one, token in enumerate(spellings.tokens) if token.startswith(prefix.ending)]
    assert rest or text == "東京タ"
    for token in rest[:40]:
        [decoded] = tokenizer.decode([[*prefix.ids, token]])
        assert decoded.startswith(prefix.decoded)
        assert prefix.join(decoded) == text + decoded[len(prefix.decoded) :]


def test_translations_begin_with_their_prefix_in_any_batch(translator: ModelTranslator) -> None:
    texts = [TEXTS[n % len(TEXTS)] for n in range(len(PREFIXES))]
    together = list(translator.stream(texts, prefixes=PREFIXES))
    for text, prefix, one in zip(texts, PREFIXES, together, strict=True):
        assert one.text.startswith(prefix)
        assert translator.translate_batch([text], prefixes=[prefix])[0].text == one.text


def test_a_prefix_leaves_the_translation_its_own_length(translator: ModelTranslator) -> None:
    prefix = " ".join(WORDS[:7])  # far more tokens than max_length
    [found] = translator.translate_batch(["one two"], prefixes=[prefix])
    assert found.text.startswith(prefix) and len(found.text) > len(prefix)


def test_translations_contain_their_phrases(translator: ModelTranslator) -> None:
    required = [["three"], ["six", "one two"], ["two"], ["東京"]]  # the model ends none of them before the limit
    found = list(translator.stream(TEXTS, required=required))
    for text, phrases, one in zip(TEXTS, required, found, strict=True):
        assert all(phrase in one.text for phrase in phrases)
        assert not [warning for warning in one.warnings if warning.kind == "unmet"]
        assert translator.translate_batch([text], required=[phrases])[0].text == one.text  # whatever its neighbours


def test_what_is_lacking_is_reported() -> None:
    found = report_unmet(Translation("", [Hypothesis("ﬁve  six", 0.0, 0.0)]), Demand("", ("six", "five six", "one")))
    [warning] = found.warnings
    assert (warning.kind, str(warning)) == ("unmet", "The translation lacks what it must contain: one.")


def test_alternatives_have_the_probabilities_of_the_decoder(translator: ModelTranslator) -> None:
    tokenizer, model = translator.target_tokenizer, translator.model
    for text, prefix in (("one two", "three "), ("six", "")):
        [found] = translator.list_alternatives([text], [prefix], n=3)
        divided = read_prefix(prefix, tokenizer, Spellings(tokenizer.token_bytes))
        source = np.array([[*tokenizer.encode([text])[0], EOS_ID]], "int32")
        logits, _ = model.read(source, np.array([[*divided.ids, EOS_ID]], "int32"))
        probabilities = ops.convert_to_numpy(ops.softmax(logits, axis=-1))[0, len(divided.ids)]
        assert [one.probability for one in found] == sorted((one.probability for one in found), reverse=True)
        assert len({one.text for one in found}) == len(found) <= 3 and len(found) > 1
        for one in found:
            assert one.text.startswith(prefix) and one.translation.startswith(one.text)
            ways = [
                probabilities[token]
                for token, spelling in enumerate(tokenizer.token_bytes)
                if spelling.startswith(divided.ending)
                and spelling
                and divided.join(tokenizer.decode([[*divided.ids, token]])[0]) == one.text
            ]
            # Of the tokens that spell the same text, all count that the beam has kept.
            assert max(ways) - 1e-6 <= one.probability <= sum(ways) + 1e-6


def test_a_text_in_several_lines_begins_with_the_prefix(translator: ModelTranslator) -> None:
    [found] = translator.stream(["  one two\nthree four five"], prefixes=["six"], required=[["seven"]])
    assert found.text.startswith("six") and "seven" in found.text.split("\n")[1]
    assert translator.translate(["", "…"], prefixes=["six", "one"]) == ["six", "one"]


def test_what_a_text_without_letters_lacks_is_reported(translator: ModelTranslator) -> None:
    [found] = translator.stream(["…"], required=[["six"]])
    assert (found.text, [one.kind for one in found.warnings]) == ("…", ["unmet"])


def test_a_prefix_that_the_search_cannot_go_on_after_is_cut_off(tokenizer: Tokenizer) -> None:
    impossible = (np.zeros(4, "int32"), 2, -1e9, -1e9, False, False)
    [found] = read_row(tokenizer, 3, False, Prefix("one one"), [impossible])
    assert (found.text, found.log_prob, found.ids.size, found.is_finished) == ("one one", -1e9, 0, False)


def test_a_translation_loses_nothing_to_its_prefix() -> None:
    def start(text: SplitText, translation: str) -> Translation:
        parts = (PartConfidence(3, 5, 0.5), PartConfidence(6, 8, 0.5))
        whole = Translation(text.text, [Hypothesis(translation, 0.0, 0.0, part_confidences=parts)])
        return start_with_prefix(whole, text, Demand("pq"))

    moved = start(SplitText(["ab", "cd"], [" - ", " ", ""]), " - pq cd")
    assert moved.text == "pq cd" and [one.start for one in moved.best.part_confidences] == [0, 3]
    assert moved.warnings == ()
    # Marked text may take the place of the prefix.
    [warning] = start(SplitText(["ab"], ["", ""]), "xy zz").warnings
    assert (warning.kind, start(SplitText(["ab"], ["", ""]), "xy zz").text) == ("unmet", "xy zz")


def test_only_texts_with_demands_are_not_split_into_sentences(translator: ModelTranslator) -> None:
    texts, demands = ["One two. Three.", "One two. Three."], [Demand("six"), Demand()]
    assert [len(one.parts) for one in translator.split_texts(texts, demands)] == [1, 2]


def test_a_phrase_that_has_no_tokens_is_not_searched_for() -> None:
    tokenizer = train_tokenizer(["one two three"], kind="bpe", vocabulary_size=20, byte_fallback=False)
    demand = Demand("", ("one", "Ω"))
    read = read_demand(demand, tokenizer, Spellings(tokenizer.token_bytes), right_to_left=False)
    assert read.phrases == (tokenizer.encode(["one"])[0],)
    graph_tokenizer = tensorflow_text.SentencepieceTokenizer(model=tokenizer.model)
    in_graph = encode_phrases(tf.constant(["one\tΩ"]), graph_tokenizer, tokenizer).numpy()
    assert in_graph[0][in_graph[0] != 0].tolist() == tokenizer.encode(["one"])[0]


def test_the_phrases_are_those_of_the_longest_part() -> None:
    demand = Demand("a", ("b",))
    assert split_demand(demand, ["short", "the longest", "long"]) == [Demand("a"), Demand("", ("b",)), Demand()]
    assert split_demand(demand, ["one"]) == [demand] and split_demand(demand, []) == []


def test_a_phrase_without_spaces_before_words_does_not_begin_with_one(tokenizer: Tokenizer) -> None:
    assert tokenizer.get_token(tokenizer.encode(["ワ"])[0][0]) == "▁"
    assert tokenizer.decode([[*tokenizer.encode(["one"])[0], *encode_phrase("ワ", tokenizer)]]) == ["oneワ"]
    assert tokenizer.decode([[*tokenizer.encode(["one"])[0], *encode_phrase("two", tokenizer)]]) == ["one two"]


@pytest.mark.parametrize(
    ("settings", "demands", "words"),
    [
        ({"right_to_left": True}, {"prefixes": ["one"]}, "this model writes from right to left"),
        ({"beam_size": 1}, {"required": [["one"]]}, "required: greedy search .* set decoding.beam_size to 2 or more"),
        ({"beam_size": 1, "temperature": 1.0}, {"required": [["one"]]}, "set decoding.temperature to 0"),
        ({"mbr": "chrf"}, {"prefixes": ["one"]}, "decoding.mbr chrf ranks translations by their likeness"),
        ({}, {"prefixes": "one"}, "prefixes: expected a list with an entry per text, found one text"),
        ({}, {"required": ["one"]}, "required: expected a list with an entry per text, found one text"),
        ({}, {"prefixes": ["a", "b"]}, "prefixes: expected an entry for each of the 1 texts, found 2"),
        ({}, {"prefixes": ["a\nb"]}, r"prefixes: expected text without line breaks, found 'a\\nb'"),
        ({}, {"prefixes": ["a\n"]}, r"prefixes: expected text without line breaks, found 'a\\n'"),
        ({}, {"required": [["x" * 40]]}, "required: expected phrases of at most 16 tokens, found 41 in"),
        ({}, {"required": [[str(n) for n in range(17)]]}, "required: expected at most 16 phrases per text, found 17"),
    ],
)
def test_demands_that_cannot_be_met_are_refused_by_name(
    tokenizer: Tokenizer, settings: dict[str, Any], demands: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        make_translator(tokenizer, **settings).translate_batch(["one"], **demands)


def test_a_model_that_writes_from_right_to_left_lists_no_alternatives(tokenizer: Tokenizer) -> None:
    translator = make_translator(tokenizer, right_to_left=True)
    with pytest.raises(UserError, match="this model writes from right to left"):
        translator.list_alternatives(["one", "two"], ["", ""])
    translator.check_demands([Demand("", ("one",)), Demand()])


def test_the_graph_of_an_export_translates_the_same(translator: ModelTranslator) -> None:
    translator = copy.copy(translator)
    translator.fitted_confidence = Confidence(0.1, [0.9, -0.4], [-3.0, 0.0], [0.25, 1.0], 200)
    portable = PortableTranslator(translator, ExportConfig(nbest=3, interactive=True, max_batch=4))
    texts, count = [*(TEXTS * 3)[: len(PREFIXES)], *TEXTS, " "], len(PREFIXES)
    prefixes = [*PREFIXES, *[""] * len(TEXTS), "one "]
    required: list[list[str]] = [[]] * count + [["three"], ["six", "one two"], ["two"], ["ワ"], []]
    complete = portable.translate_demanding.get_concrete_function()
    assert {*check_operations(complete.graph.as_graph_def())} <= OPERATIONS
    found = complete(
        text=tf.constant(texts), prefix=tf.constant(prefixes), required=tf.constant(list(map("\t".join, required)))
    )
    expected = translator.translate_batch(texts, prefixes=prefixes, required=required)
    assert [one.decode() for one in found["translation"].numpy()] == [one.text for one in expected]
    np.testing.assert_allclose(found["score"], [one.score for one in expected], atol=1e-3)
    assert found["finished"].numpy().tolist() == [one.best.is_finished for one in expected]
    confidences = [one.best.confidence for one in expected[:-1]]  # a blank text has none
    np.testing.assert_allclose(found["confidence"][:-1], confidences, atol=1e-4)


def test_alternatives_of_the_same_text_count_together_in_an_export() -> None:
    texts = tf.constant(["Pa", "Pb", "Pa", "P\ufffd"])  # the last one is a part of a character
    found = Hypotheses(
        ids=tf.constant([[[4, 5, 3], [4, 6, 3], [7, 3, 0], [4, 9, 3]]]),
        lengths=tf.constant([[3, 3, 2, 3]]),
        log_probs=tf.math.log([[0.2, 0.4, 0.3, 0.05]]),
        scores=tf.zeros((1, 4)),
        finished=tf.ones((1, 4), bool),
    )
    prefixes = SplitPrefixes(tf.constant(["p"]), Prefixes(tf.constant([[0]]), tf.constant([[112]])), tf.constant(["P"]))
    ranked = rank_alternatives(found, prefixes, lambda rows: texts, 3)
    assert [one.decode() for one in ranked.texts.numpy()[0]] == ["pa", "pb", ""]
    np.testing.assert_allclose(ranked.probabilities, [[0.5, 0.4, 0]], rtol=1e-6)
    assert ranked.ids.numpy()[0, :2].tolist() == [[4, 5, 0], [4, 6, 0]]
    assert ranked.exists.numpy().tolist() == [[True, True, False]] and ranked.is_open.numpy().all()


def make_export(tokenizer: Tokenizer, signatures: dict[str, Any]) -> SavedModelTranslator:
    limits = {"nbest": 3, "max_tokens": 50, "max_characters": 1000, "max_batch": 1}
    record = {"target_language": "de", "limits": limits, "decoding": DecodingConfig().model_dump()}
    return SavedModelTranslator(SimpleNamespace(signatures=signatures), record, source_tokenizer=tokenizer)


def test_an_export_answers_demands_by_its_signatures(tokenizer: Tokenizer) -> None:
    def complete(**inputs: Any) -> dict[str, Any]:
        texts = tf.strings.join([inputs.get(name, "") for name in ("prefix", "required", "text")], " ")
        zeros = tf.zeros(len(texts))
        found = {"translation": texts, "score": zeros, "log_prob": zeros}
        return found | {"truncated": zeros > 0, "finished": zeros == 0}

    def alternatives(text: Any, prefix: Any) -> dict[str, Any]:
        texts = tf.stack([prefix + "1", prefix + "2", prefix], axis=1)
        probabilities = tf.constant([[0.5, 0.25, 0.0]])
        return {
            "alternatives": texts,
            "probabilities": probabilities,
            "translations": texts + " " + text,
            "num_alternatives": tf.constant([2]),
        }

    export = make_export(
        tokenizer, {"complete": complete, "serving_default": complete, "alternatives": alternatives, "nbest": None}
    )
    found = export.translate_batch(["a", "b"], prefixes=["p", ""], required=[["x", "y z"], []])
    assert [one.text for one in found] == ["p x\ty z a", "  b"]
    rows = export.list_alternatives(["a", "b"], ["p", ""], n=2)
    assert [[(one.text, one.probability, one.translation) for one in row] for row in rows] == [
        [("p1", 0.5, "p1 a"), ("p2", 0.25, "p2 a")],
        [("1", 0.5, "1 b"), ("2", 0.25, "2 b")],
    ]
    with pytest.raises(UserError, match="An export returns one translation with a prefix or required phrases"):
        export.translate_batch(["a"], prefixes=["p"], n_best=2)
    with pytest.raises(UserError, match="n: expected 1 to 3 alternatives per text, found 4"):
        export.list_alternatives(["a"], ["p"], n=4)
    # The signatures read the beginning of a longer prefix.
    for ask in (
        lambda: export.translate_batch(["a"], prefixes=["p" * 1001]),
        lambda: export.list_alternatives(["a"], ["p" * 1001], n=1),
    ):
        with pytest.raises(UserError, match=r"prefixes: expected at most 1,000 characters .* found 1,001"):
            ask()


def test_an_export_without_these_signatures_refuses_demands_by_name(tokenizer: Tokenizer) -> None:
    export = make_export(tokenizer, {})
    for ask in (
        lambda: export.translate(["x"], prefixes=["y"]),
        lambda: export.translate(["x"], required=[["y"]]),
        lambda: export.list_alternatives(["x"], ["y"]),
    ):
        with pytest.raises(UserError, match=r"no signature \w+: export the model again with export.interactive=true"):
            ask()
