"""The comparison of an artefact with its model, with translations made up from the model's own."""

import math
from dataclasses import replace

import pytest

from nmt.data.tokenizer import EOS_ID
from nmt.errors import ParityError, UserError
from nmt.exporting import fresh_process
from nmt.exporting.parity import (
    Costs,
    check_difference,
    check_parity,
    compare,
    compare_outputs,
    compute_log_prob,
    run_python,
)
from nmt.exporting.quantization import Quantization
from nmt.translators.hypothesis import Hypothesis
from tests.exported_model import SENTENCES

SOURCES = SENTENCES[:3]
COSTS = Costs(100.0, 50.0, 4_000_000, {"fingerprint.pb": 78, "saved_model.pb": 600_000, "variables": 1_000_000})


@pytest.fixture(scope="module")
def expected(exported) -> list[Hypothesis]:
    return [translation.best for translation in exported.translator.stream(SOURCES)]


@pytest.fixture
def answers(exported, expected) -> dict:
    found = exported.call("nbest", SOURCES)
    texts = [hypothesis.text for hypothesis in expected]
    return {
        "translations": list(texts),
        "nbest_translations": list(texts),
        "truncated": [False, False, False],
        "target_tokens": [[token.decode() for token in row[0] if token] for row in found["target_tokens"]],
        "sentences_per_second": 50.0,
    }


def compared(exported, expected, answers, references=None):
    return compare(exported.translator, SOURCES, expected, answers, references, COSTS)


def test_equal_texts_do_not_differ(exported, expected, answers):
    parity = compared(exported, expected, answers)
    assert (parity.compared, parity.ties, parity.differing, parity.truncated) == (3, 0, [], 0)
    assert (parity.bleu_model, parity.costs) == (None, COSTS)


def test_forced_decoding_returns_the_log_probability_of_the_search(exported, expected, answers):
    tokenizer = exported.translator.target_tokenizer
    ids = {tokenizer.get_token(one): one for one in range(tokenizer.vocabulary_size)}
    for source, hypothesis, tokens in zip(SOURCES, expected, answers["target_tokens"], strict=True):
        forced = compute_log_prob(exported.translator, source, [ids[token] for token in tokens])
        assert forced == pytest.approx(hypothesis.log_prob, abs=1e-3)


def test_forced_decoding_penalizes_repetition_as_the_search_does(exported):
    tokenizer = exported.translator.target_tokenizer
    ids = {tokenizer.get_token(one): one for one in range(tokenizer.vocabulary_size)}
    translator = exported.translator.with_settings(repetition_penalty=1.5)
    found = [translation.best for translation in translator.stream(SENTENCES[:8])]
    assert any(len(set(one.tokens)) < len(one.tokens) for one in found)
    for source, one in zip(SENTENCES, found, strict=False):
        tokens = [ids[token] for token in one.tokens] + [EOS_ID] * bool(one.is_finished)
        assert compute_log_prob(translator, source, tokens) == pytest.approx(one.log_prob, abs=1e-3)


@pytest.mark.parametrize(("apart", "ties"), [(0.0, 1), (0.01, 0), (-0.01, 0)])
def test_another_text_as_probable_is_a_tie(exported, expected, answers, apart, ties):
    """Gives the model's own tokens to another text, so that its log-probability is known."""
    answers["translations"][1] = answers["nbest_translations"][1] = "something else"
    expected = [expected[0], Hypothesis("a text", 0.0, expected[1].log_prob + apart), expected[2]]
    parity = compared(exported, expected, answers)
    assert parity.ties == ties
    other = {"source": SOURCES[1], "model": "a text", "artefact": "something else"}
    assert parity.differing == ([] if ties else [other])


def test_disagreeing_signatures_are_not_a_tie(exported, expected, answers):
    answers["translations"][1] = "something else"
    assert len(compared(exported, expected, answers).differing) == 1


def test_other_outputs_are_the_models_and_a_change_of_any_is_found(exported, answers):
    answers["outputs"] = fresh_process._list_outputs(exported.signatures, SOURCES)
    found = compare_outputs(exported.translator, SOURCES, answers)
    assert found.keys() == {"nbest", "attention", "token_log_probs"} and max(found.values()) < 1e-3
    nbest, scored = (answers["outputs"][1][name] for name in ("nbest", "token_log_probs"))
    nbest["log_probs"][1] -= 0.5
    nbest["attention"][2][0][0] += 0.25
    scored["token_log_probs"][0] += 0.75
    found = compare_outputs(exported.translator, SOURCES, answers)
    assert found == pytest.approx({"nbest": 0.5, "attention": 0.25, "token_log_probs": 0.75}, abs=1e-2)
    nbest["translations"][2] = "something else"
    assert compare_outputs(exported.translator, SOURCES, answers)["nbest"] == math.inf
    parity = replace(
        compared(exported, list(exported.translator.stream(SOURCES)), answers), differing=[], outputs=found
    )
    with pytest.raises(ParityError, match=r"nbest of the export differs from the model's by 0\.5, so nothing"):
        check_difference(parity)


def test_truncated_sentences_are_counted_and_left_out(exported, expected, answers):
    answers["truncated"][0] = True
    answers["translations"][0] = "half of it"
    parity = compared(exported, expected, answers)
    assert (parity.compared, parity.truncated, parity.differing) == (2, 1, [])


def test_a_sample_of_truncated_sentences_only_is_an_error(exported, expected, answers):
    answers["truncated"] = [True, True, True]
    with pytest.raises(UserError, match="The export truncates every sentence of the sample"):
        compared(exported, expected, answers)


def test_both_are_scored_against_the_references(exported, answers):
    references = [f"a text of some words, number {n}" for n in range(3)]
    expected = [Hypothesis(text, -1.0, -1.0) for text in references]
    answers["translations"], answers["nbest_translations"] = list(references), list(references)
    parity = compared(exported, expected, answers, references)
    assert parity.bleu_model == parity.bleu_artefact == pytest.approx(100)
    answers["translations"][2] = "nothing of the kind"
    parity = compared(exported, expected, answers, references)
    assert parity.bleu_artefact < parity.bleu_model
    assert str(parity).startswith("Compared 3 sentences in a fresh process: 1 differ, 0 ties, 0 left out as too long.")
    assert "BLEU 100.00 (model)" in str(parity)
    assert str(parity).endswith(
        "100.0 sentences/s (model), 50.0 (artefact). Weights 4.0 MB (model); saved_model.pb 0.6 MB, variables 1.0 MB."
    )


def test_a_difference_is_an_error_that_shows_it(exported, answers, monkeypatch):
    answers["translations"][2] = "nothing of the kind"
    monkeypatch.setattr("nmt.exporting.parity.run_artefact", lambda folder, sources: answers)
    with pytest.raises(
        ParityError, match=r"translates 1 of 3 sentences differently .* the export returns 'nothing of the kind'"
    ):
        check_parity(exported.version, exported.translator, SOURCES, None)


def test_quantized_weights_may_lose_as_much_bleu_as_is_allowed(exported, answers):
    references = [f"a text of some words, number {n}" for n in range(3)]
    expected = [Hypothesis(text, -1.0, -1.0) for text in references]
    answers["translations"] = [*references[:2], "a text of some words, number 4"]
    parity = compared(exported, expected, answers, references)
    loss = parity.bleu_model - parity.bleu_artefact
    check_difference(replace(parity, quantized=Quantization("int8", loss + 0.01, 0.0)))
    with pytest.raises(
        ParityError, match=rf"Quantization costs {loss:.2f} BLEU .* from 100\.00, but .*--max-bleu-loss"
    ):
        check_difference(replace(parity, quantized=Quantization("int8", loss - 0.01, 1.0)))
    with pytest.raises(ParityError, match="translates 1 of 3 sentences differently from the model"):
        check_difference(parity)


def test_without_references_as_many_sentences_may_differ_as_are_allowed(exported, expected, answers):
    answers["translations"][2] = "nothing of the kind"
    parity = compared(exported, expected, answers)
    check_difference(replace(parity, quantized=Quantization("int8", 0.0, 0.34)))
    with pytest.raises(ParityError, match=r"1 of 3 translations differ .* at most 33% may.*--max-differing"):
        check_difference(replace(parity, quantized=Quantization("int8", 100.0, 0.33)))


def test_the_error_of_a_failed_process_contains_its_last_output():
    with pytest.raises(ParityError, match="exited with code 3:\nout\nerr"):
        run_python(
            ["-c", "import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit(3)"], ParityError
        )


def test_a_full_disk_in_the_fresh_process_is_one_message():
    code = "import os; raise OSError(28, os.strerror(28))"
    words = r"^A process of the export could not write a file, so nothing was written: No space left on device\.$"
    with pytest.raises(UserError, match=words):
        run_python(["-c", code], ParityError)
