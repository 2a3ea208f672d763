import gc
import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from sacrebleu.metrics import CHRF
from tensorflow.python.framework.ops import gradient_registry

from nmt.config.schema import DecodingConfig, ModelConfig, SearchSettings
from nmt.data.batching import pad
from nmt.data.tokenizer import BOS_ID, EOS_ID, Tokenizer, train_tokenizer
from nmt.decoding import grouping
from nmt.decoding.alignment import TokenAttention
from nmt.decoding.beam_search import Hypotheses
from nmt.decoding.inference import search
from nmt.decoding.word_links import align_words
from nmt.errors import UserError
from nmt.models.seq2seq import make_seq2seq
from nmt.translators import searches
from nmt.translators.checks import CUT_OFF
from nmt.translators.hypothesis import IN_PARTS, Hypothesis, Translation
from nmt.translators.model import ModelTranslator

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]
MAX_SOURCE = 23

Answer = tuple[Sequence[int], float, bool]
"""Tokens without EOS, log-probability, finished."""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    lines = [" ".join(WORDS[start:] + WORDS[:start]) + "." for start in range(len(WORDS))]
    return train_tokenizer(lines, kind="bpe", vocabulary_size=61, character_coverage=1.0, byte_fallback=False)


class FakeSearch:
    """Takes the place of the model and its search, and remembers what it was asked.

    The best hypothesis of a source is the source itself, unless `answers` says otherwise; its log-probability is -1 a
    token, EOS counted.
    """

    def __init__(self) -> None:
        self.sources: list[np.ndarray] = []
        self.settings: list[SearchSettings] = []
        self.n_best: list[int] = []
        self.banned_ids: list[Sequence[int]] = []
        self.answers: Callable[[list[int]], list[Answer]] = lambda ids: [(ids, -1.0 - len(ids), True)]

    def __call__(
        self,
        _: Any,
        source: np.ndarray,
        *,
        settings: SearchSettings,
        n_best: int,
        banned_ids: Sequence[int],
        refill: bool,
        length_bound: int | None,
        top_k_bound: int | None,
    ) -> Hypotheses:
        self.sources.append(source)
        self.settings.append(settings)
        self.n_best.append(n_best)
        self.banned_ids.append(banned_ids)
        rows = [self.answers([int(token) for token in row if token not in (0, EOS_ID)]) for row in source]
        size = (len(rows), max(settings.beam_size, n_best))
        ids = np.zeros((*size, 1 + max(len(one[0]) for row in rows for one in row)), "int32")
        lengths, finished = np.zeros(size, "int32"), np.zeros(size, "bool")
        log_probs = np.full(size, -1e9, "float32")
        for (b, row), k in itertools.product(enumerate(rows), range(size[1])):
            if k < len(row):
                tokens, log_probs[b, k], finished[b, k] = row[k]
                lengths[b, k] = len(tokens) + finished[b, k]
                ids[b, k, : lengths[b, k]] = [*tokens, EOS_ID][: lengths[b, k]]
        scores = log_probs / ((5 + lengths) / 6) ** settings.length_penalty
        return Hypotheses(ids, lengths, log_probs, scores, finished)


class NoModel:
    variables = ()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeSearch:
    fake = FakeSearch()
    monkeypatch.setattr(searches, "search", fake)
    monkeypatch.setattr(searches, "compile_function", lambda function, *_, **__: function)
    return fake


def faked(tokenizer: Tokenizer, **decoding: Any) -> ModelTranslator:
    model: Any = NoModel()
    return ModelTranslator(model, tokenizer, tokenizer, DecodingConfig(**decoding), max_tokens=MAX_SOURCE)


def texts(count: int, seed: int = 1) -> list[str]:
    """Lines of one to five words, some of them blank."""
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, size)) for size in random.integers(0, 6, count)]


def rows_of(source: np.ndarray) -> list[list[int]]:
    return [[int(token) for token in row if token] for row in source]


@pytest.mark.parametrize("count", [0, 1, 2, 97])
def test_any_number_of_lines_comes_back_in_order(fake: FakeSearch, tokenizer: Tokenizer, count: int) -> None:
    lines = texts(count)
    assert faked(tokenizer, batch_tokens=53).translate(lines) == lines


def test_rows_that_fill_a_shape_up_are_left_out(
    fake: FakeSearch, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouping, "has_static_shapes", lambda: True)
    lines = texts(97)
    assert faked(tokenizer, batch_tokens=531).translate(lines) == lines
    assert sum(map(len, fake.sources)) > sum(map(bool, lines))


def test_one_text_is_no_list_of_lines(fake: FakeSearch, tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="Expected a list of lines to translate, found one text"):
        faked(tokenizer).translate("one two")


@pytest.mark.parametrize("window", [1, 3, 100])
def test_windows_change_nothing_but_what_is_read_ahead(fake: FakeSearch, tokenizer: Tokenizer, window: int) -> None:
    lines, read = texts(13), []

    def reading() -> Iterator[str]:
        for line in lines:
            read.append(line)
            yield line

    answers = faked(tokenizer).stream(reading(), window=window)
    assert next(answers).text == lines[0]
    assert len(read) == min(window, len(lines))
    assert [found.text for found in answers] == lines[1:]


@pytest.mark.parametrize("blank", ["", " ", "\t \u3000"])
def test_blank_lines_come_back_blank_without_a_search(fake: FakeSearch, tokenizer: Tokenizer, blank: str) -> None:
    assert faked(tokenizer).translate([blank, blank]) == [blank, blank]
    assert fake.sources == []
    assert faked(tokenizer).translate([blank, "one two", blank, "three"]) == [blank, "one two", blank, "three"]
    assert sum(map(len, fake.sources)) == 2


def test_a_blank_line_has_one_hypothesis_of_certainty(fake: FakeSearch, tokenizer: Tokenizer) -> None:
    assert list(faked(tokenizer).stream([""], n_best=3)) == [Translation("", [Hypothesis("", 0.0, 0.0)])]


@pytest.mark.parametrize("batch_tokens", [31, 53, 1009])
def test_batches_are_of_like_length_and_bounded(fake: FakeSearch, tokenizer: Tokenizer, batch_tokens: int) -> None:
    lines = texts(97)
    faked(tokenizer, batch_tokens=batch_tokens).translate(lines)
    assert max(source.size for source in fake.sources) <= batch_tokens
    rows = [row for source in fake.sources for row in rows_of(source)]
    assert rows == sorted(rows, key=len)
    expected = [[*ids, EOS_ID] for ids in tokenizer.encode(lines) if ids]
    assert sorted(rows) == sorted(expected)


def test_a_line_larger_than_a_batch_is_translated_alone(fake: FakeSearch, tokenizer: Tokenizer) -> None:
    lines = ["eleven ten nine", "one"]
    assert faked(tokenizer, batch_tokens=3).translate(lines) == lines
    assert [len(source) for source in fake.sources] == [1, 1]


def test_a_long_line_is_translated_in_parts_and_nothing_is_lost(fake: FakeSearch, tokenizer: Tokenizer) -> None:
    long = " ".join(WORDS * 5)
    translator = faked(tokenizer, length_penalty=0.0)
    found = list(translator.stream(["one", long, "two"]))
    assert [translation.text for translation in found] == ["one", long, "two"]
    parts = [row for source in fake.sources for row in rows_of(source)]
    assert len(parts) > 4
    assert max(map(len, parts)) <= MAX_SOURCE + 1
    long_parts = [len(row) for row in parts if row[:-1] not in tokenizer.encode(["one", "two"])]
    assert found[1].log_prob == -sum(long_parts)
    assert found[1].score == pytest.approx(-np.mean(long_parts))


def test_the_parts_of_a_long_line_join_best_with_best(fake: FakeSearch, tokenizer: Tokenizer) -> None:
    one, two = tokenizer.encode(["one", "two"])
    fake.answers = lambda ids: [(one, -1.0, True), (two, -2.0, True)]
    translator = faked(tokenizer, length_penalty=0.0, pruning_threshold=0.0)
    found = next(translator.stream([" ".join(WORDS * 5)], n_best=2))
    num_parts = sum(map(len, fake.sources))
    assert found.hypotheses == [
        Hypothesis(" ".join([word] * num_parts), score, score * num_parts, tuple(tokenizer.tokenize(word) * num_parts))
        for word, score in (("one", -1.0), ("two", -2.0))
    ]
    assert num_parts > 1
    assert found.warnings[0] == IN_PARTS


def spellings(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The word "one" in its usual tokens, and letter by letter."""
    ids = {tokenizer.get_token(n): n for n in range(tokenizer.vocabulary_size)}
    usual, letters = tokenizer.encode(["one"])[0], [ids["▁"], ids["o"], ids["n"], ids["e"]]
    assert usual != letters
    assert tokenizer.decode([usual, letters]) == ["one", "one"]
    return usual, letters


def test_never_two_hypotheses_of_the_same_text(fake: FakeSearch, tokenizer: Tokenizer) -> None:
    usual, letters = spellings(tokenizer)
    two, three = tokenizer.encode(["two", "three"])
    fake.answers = lambda _: [(usual, -1.0, True), (two, -3.0, True), (letters, -9.0, True), (three, -99.0, True)]
    found = next(faked(tokenizer, beam_size=4).stream(["six"], n_best=3))
    assert [(one.text, one.log_prob) for one in found.hypotheses] == [("one", -1.0), ("two", -3.0), ("three", -99.0)]


def test_an_open_slot_never_takes_the_place_of_a_duplicate(fake: FakeSearch, tokenizer: Tokenizer) -> None:
    """Told that two results are wanted, a search stops after two, though both are the same text."""
    usual, letters = spellings(tokenizer)
    whole, half = tokenizer.encode(["eleven", "el"])

    def answers(_: list[int]) -> list[Answer]:
        stopped = fake.n_best[-1] < 3
        return [(usual, -1.0, True), (letters, -2.0, True), (half, -2.5, False) if stopped else (whole, -3.0, True)]

    fake.answers = answers
    found = next(faked(tokenizer, beam_size=3).stream(["six"], n_best=2))
    assert "el" not in [one.text for one in found.hypotheses]


def test_what_the_limit_cut_off_is_still_a_translation(fake: FakeSearch, tokenizer: Tokenizer) -> None:
    fake.answers = lambda ids: [(ids, -1.0, False)]
    [found] = faked(tokenizer).stream(["one two"])
    assert (found.text, found.best.is_finished) == ("one two", False)
    assert found.best.tokens == tokenizer.tokenize("one two")
    assert found.warnings == (CUT_OFF,)


def test_mbr_takes_the_candidate_that_is_nearest_to_the_others(fake: FakeSearch, tokenizer: Tokenizer) -> None:
    spelled = ["ten", "one two three", "one two", "one two four"]
    log_probs = [-1.0, -1.1, -1.2, -1.3]
    ids = tokenizer.encode(spelled)
    fake.answers = lambda _: list(zip(ids, log_probs, [True] * 4, strict=True))
    translator = faked(tokenizer, mbr="chrf", mbr_candidates=4, beam_size=1)
    [found] = translator.stream(["six"], n_best=2)
    weights = np.exp(log_probs) / np.exp(log_probs).sum()
    scores = [[CHRF().sentence_score(one, [other]).score for other in spelled] for one in spelled]
    expected = sorted(zip(np.dot(scores, weights), spelled, log_probs, strict=True), reverse=True)[:2]
    assert [(one.text, one.log_prob) for one in found.hypotheses] == [
        (text, pytest.approx(log_prob)) for _, text, log_prob in expected
    ]
    assert [one.score for one in found.hypotheses] == pytest.approx([score for score, *_ in expected])
    assert found.text != "ten" and fake.n_best == [4]
    with pytest.raises(UserError, match=r"decoding.mbr_candidates: 5 translations per line were requested"):
        translator.translate_batch(["six"], n_best=5)


def test_what_has_a_warning_is_searched_for_once_more(fake: FakeSearch, tokenizer: Tokenizer) -> None:
    loop = tokenizer.encode(["two two two two"])[0]

    def answers(ids: list[int]) -> list[Answer]:
        is_loop = tokenizer.decode([ids]) == ["six"] and not fake.settings[-1].no_repeat_ngram
        return [(loop if is_loop else ids, -1.0, True)]

    fake.answers = answers
    lines = ["one", "six", "two two two two", "ten"]
    assert faked(tokenizer).translate(lines) == ["one", "two two two two", "two two two two", "ten"]
    fake.sources.clear()
    assert faked(tokenizer, on_warning="retry").translate(lines) == lines
    assert rows_of(fake.sources[-1]) == [[*tokenizer.encode(["six"])[0], EOS_ID]]
    assert (fake.settings[-1].beam_size, fake.settings[-1].no_repeat_ngram) == (10, 4)
    # What is no better is not taken.
    fake.answers = lambda _: [(loop, -1.0 - fake.settings[-1].beam_size, True)]
    [found] = faked(tokenizer, on_warning="retry").stream(["six"])
    assert (found.log_prob, [one.kind for one in found.warnings]) == (-6.0, ["repetition"])


def test_slots_without_a_hypothesis_are_left_out(fake: FakeSearch, tokenizer: Tokenizer) -> None:
    found = next(faked(tokenizer, beam_size=3).stream(["six"], n_best=3))
    assert [one.text for one in found.hypotheses] == ["six"]


@pytest.mark.parametrize(("beam_size", "n_best", "expected"), [(1, 1, [1]), (5, 2, [5]), (2, 7, [1, 7])])
def test_many_results_fill_every_slot_of_the_beam(
    fake: FakeSearch, tokenizer: Tokenizer, beam_size: int, n_best: int, expected: list[int]
) -> None:
    wanted = {"beam_size": beam_size, "length_penalty": 0.5, "min_length": 3, "max_length": 17}
    next(faked(tokenizer, **wanted).stream(["one"], n_best=n_best))
    assert [{name: getattr(given, name) for name in wanted} for given in fake.settings] == [wanted] * len(fake.n_best)
    assert fake.n_best == expected


def test_the_first_of_several_translations_is_that_of_a_search_for_one(fake: FakeSearch, tokenizer: Tokenizer) -> None:
    """A search for several does not prune, and has found a better one here."""
    one, two, three = tokenizer.encode(["one", "two", "three"])
    several: list[Answer] = [(one, -1.0, True), (two, -2.0, True), (three, -3.0, True)]
    fake.answers = lambda _: several if fake.n_best[-1] > 1 else several[1:]
    for settings, n_best, expected in [
        ({}, 1, ["two"]),
        ({}, 2, ["two", "three"]),
        ({"pruning_threshold": 0.0}, 2, ["one", "two"]),
        ({"coverage_penalty": 0.1}, 2, ["one", "two"]),
        ({"pruning_threshold": 0.0, "beam_size": 1}, 3, ["two", "three"]),
    ]:
        [found] = faked(tokenizer, **settings).stream(["six"], n_best=n_best)
        assert [hypothesis.text for hypothesis in found.hypotheses] == expected


def test_what_a_decoder_must_never_emit_is_banned(fake: FakeSearch, tokenizer: Tokenizer) -> None:
    faked(tokenizer).translate(["one"])
    assert fake.banned_ids == [tokenizer.banned_ids]


def test_other_settings_leave_the_first_translator_alone(fake: FakeSearch, tokenizer: Tokenizer) -> None:
    first = faked(tokenizer, beam_size=5, length_penalty=0.5)
    second = first.with_settings(beam_size=1, length_penalty=None)
    assert (second.settings.beam_size, second.settings.length_penalty) == (1, 0.5)
    assert first.settings.beam_size == 5
    assert second.model is first.model
    assert second.max_tokens == MAX_SOURCE


@pytest.fixture(scope="module")
def real(tokenizer: Tokenizer) -> ModelTranslator:
    """An untrained model with large weights, so that it says something different of each line."""
    config = ModelConfig(embedding_units=11, encoder_units=10, decoder_units=14, attention_heads=2)
    size = tokenizer.vocabulary_size
    model = make_seq2seq(config, source_vocabulary_size=size, target_vocabulary_size=size)
    random = np.random.default_rng(3)
    for weight in model.trainable_variables:
        weight.assign(random.normal(scale=0.7, size=weight.shape))
    decoding = DecodingConfig(beam_size=3, max_length=11, batch_tokens=61)
    return ModelTranslator(model, tokenizer, tokenizer, decoding, max_tokens=MAX_SOURCE)


def test_numbers_of_a_search_need_no_new_graph_and_graphs_are_freed(
    real: ModelTranslator, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced: list[weakref.ref] = []

    def trace(*args: Any, **kwargs: Any) -> Hypotheses:
        traced.append(weakref.ref(tf.compat.v1.get_default_graph()))
        return search(*args, **kwargs)

    monkeypatch.setattr(searches, "search", trace)
    tokenizer, lines = real.source_tokenizer, texts(7, seed=3)
    source = pad(tokenizer.encode([line for line in lines if line]), 0)
    translator = ModelTranslator(real.model, tokenizer, tokenizer, real.settings, max_tokens=MAX_SOURCE)
    gradients = len(gradient_registry.list())
    answers = set()
    for changes in [
        {},
        {"length_penalty": 0.0},
        {"length_penalty": 4.5, "pruning_threshold": 0.0},
        {"pruning_threshold": 0.3},
        {"min_length": 5},
        {"min_length": 2, "max_length": 4},
    ]:
        changed = translator.with_settings(**changes)
        found = [translation for translation in changed.stream(lines, split=False) if translation.source]
        # The same search with constants, operation by operation.
        expected = search(real.model, source, settings=changed.settings, banned_ids=tokenizer.banned_ids)
        np.testing.assert_allclose([one.score for one in found], expected.scores[:, 0], rtol=1e-5)
        for one, ids, length in zip(found, expected.ids[:, 0], expected.lengths[:, 0], strict=True):
            assert one.text == tokenizer.decode([[n for n in np.asarray(ids)[:length] if n != EOS_ID]])[0]
        answers.add(tuple(one.text for one in found))
    assert len(answers) > 4
    # None of these has a part in the search.
    assert translator.with_settings(batch_tokens=1000, split_sentences="never").translate(["one"])
    assert len(traced) == 1
    assert len(gradient_registry.list()) == gradients
    del translator, changed
    gc.collect()
    assert traced[0]() is None


def test_a_loaded_model_keeps_its_precision(fake: FakeSearch, tokenizer: Tokenizer) -> None:
    translator = faked(tokenizer, precision="float32")
    assert translator.with_settings(precision="float32", beam_size=None).settings == translator.settings
    with pytest.raises(UserError, match="loaded in float32; to compute in bfloat16, load it again"):
        translator.with_settings(precision="bfloat16")


def test_a_model_translates_a_line_as_it_does_alone(real: ModelTranslator) -> None:
    lines = texts(11)
    together = real.translate(lines)
    assert len(set(together)) > 3
    assert together == [real.translate([line])[0] for line in lines]


def test_a_second_search_does_not_depend_on_returned_attention(real: ModelTranslator) -> None:
    translator = real.with_settings(on_warning="retry")
    lines = texts(60, seed=4)
    found = list(translator.stream(lines, attention=True))
    assert any(one.kind == "uncovered" for translation in found for one in translation.warnings)
    assert [one.text for one in found] == translator.translate(lines) != real.translate(lines)


def test_the_best_of_a_model_fall_in_score_and_differ(real: ModelTranslator) -> None:
    for translation in real.stream(texts(5, seed=2), n_best=3):
        hypotheses = translation.hypotheses
        assert len({one.text for one in hypotheses}) == len(hypotheses) <= 3
        assert all(one.log_prob <= 0 for one in hypotheses)
        assert not any("\n" in one.text for one in hypotheses)


def test_attention_is_that_of_the_tokens_that_were_found(real: ModelTranslator) -> None:
    """A line in parts, one alone and a blank one: rows of weights for the tokens of each text."""
    lines = ["one two", " ".join(WORDS * 5), "", "three"]
    plain = list(real.stream(lines, n_best=3))
    found = list(real.stream(lines, n_best=3, attention=True))
    assert [replace(t, hypotheses=[replace(h, attention=()) for h in t.hypotheses]) for t in found] == plain
    assert found[2].best.attention == ()
    assert len(found[1].best.attention) > 1
    tokenizer = real.source_tokenizer
    for line, translation in zip(lines, found, strict=True):
        for hypothesis in translation.hypotheses:
            parts = hypothesis.attention
            assert [token for part in parts for token in part.target] == list(hypothesis.tokens)
            assert [token for part in parts for token in part.source] == tokenizer.tokenize(line)
            assert " ".join("".join(part.target).replace("▁", " ").strip() for part in parts) == hypothesis.text
            for part in parts:
                assert part.weights.shape == (len(part.target), len(part.source) + 1)
                np.testing.assert_allclose(part.weights.sum(axis=1), 1, atol=1e-5)


def test_attention_is_the_same_whatever_is_read_beside_it(
    real: ModelTranslator, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = texts(23, seed=5)
    together = [one.best.attention for one in real.stream(lines, attention=True)]
    monkeypatch.setattr("nmt.decoding.forced.MAX_WEIGHTS", 60)
    for line, expected in zip(lines, together, strict=True):
        alone = next(real.stream([line], attention=True)).best
        assert len(alone.attention) == len(expected)
        for ours, theirs in zip(alone.attention, expected, strict=True):
            np.testing.assert_allclose(ours.weights, theirs.weights, atol=1e-5)
    for translation, expected in zip(real.stream(lines, attention=True), together, strict=True):
        for ours, theirs in zip(translation.best.attention, expected, strict=True):
            np.testing.assert_allclose(ours.weights, theirs.weights, atol=1e-5)


def test_a_given_translation_is_scored_as_the_decoder_steps_through_it(real: ModelTranslator) -> None:
    pairs = [("one two three", "three two"), ("six", "six seven one nine"), ("four", "")]
    for (source, target), scored in zip(pairs, real.score(pairs), strict=True):
        tokens = real.target_tokenizer.tokenize(target)
        assert (scored.source, scored.text, list(scored.tokens)) == (source, target, [*tokens, "</s>"])
        start = real.model.start(pad(real.source_tokenizer.encode([source])))
        state, before, expected = start.state, BOS_ID, []
        for token in [*real.target_tokenizer.encode([target])[0], EOS_ID]:
            logits, state, _ = real.model.step(np.array([[before]], "int32"), state, start.memory)
            found = np.asarray(logits, "float64").ravel()
            expected.append(found[token] - np.log(np.exp(found).sum()))
            before = token
        np.testing.assert_allclose(scored.token_log_probs, expected, atol=1e-4)
        assert scored.log_prob == pytest.approx(sum(expected), abs=1e-3)


def test_scores_are_the_same_whatever_is_read_beside_them(
    real: ModelTranslator, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [*zip(texts(15, seed=8), texts(15, seed=9), strict=True), ("one two", ""), ("", "one two")]
    together = list(real.score(pairs))
    assert list(together[-2].tokens) == ["</s>"]
    monkeypatch.setattr("nmt.decoding.forced.MAX_LOGITS", 1)
    for pair, expected in zip(pairs, together, strict=True):
        [alone] = real.score([pair])
        assert (alone.source, alone.text) == pair
        np.testing.assert_allclose(alone.token_log_probs, expected.token_log_probs, atol=1e-5)


def test_the_words_of_a_given_translation_are_aligned_as_the_decoder_steps_through_it(real: ModelTranslator) -> None:
    pairs = [("one two three.", "three two"), ("six", ""), ("", "one"), ("four five", "six seven one nine")]
    for (source, target), found in zip(pairs, real.align(pairs), strict=True):
        assert (found.source, found.target) == (source.split(), target.split())
        if not source or not target:
            assert found.links == []
            continue
        start = real.model.start(pad(real.source_tokenizer.encode([source])))
        state, before, rows = start.state, BOS_ID, []
        for token in real.target_tokenizer.encode([target])[0]:
            _, state, weights = real.model.step(np.array([[before]], "int32"), state, start.memory)
            rows.append(np.asarray(weights).ravel())
            before = token
        sources, targets = real.source_tokenizer.tokenize(source), real.target_tokenizer.tokenize(target)
        expected = align_words(source, target, [TokenAttention(sources, targets, rows)])
        np.testing.assert_allclose(found.weights, expected.weights, atol=1e-3)
