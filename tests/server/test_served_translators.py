"""A model and an export behind a server: the same translations, and the limits of an export."""

import asyncio
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from nmt.cli.main import app
from nmt.config.schema import SearchSettings
from nmt.errors import UserError
from nmt.server.app import make_server
from nmt.server.limits import Limits
from nmt.server.run import open_model
from nmt.translators.hypothesis import Translation
from nmt.translators.savedmodel import SavedModelTranslator
from nmt.translators.settings import CHANGEABLE
from tests.exported_model import MAX_CHARACTERS, NBEST, PARAGRAPH, SENTENCES
from tests.server.server_fakes import ask, client_of, read_error

TEXTS = [SENTENCES[0], "", SENTENCES[40]]


@pytest.fixture(scope="module")
def export(exported) -> SavedModelTranslator:
    return open_model(exported.version, {})


@pytest.fixture(scope="module")
def server(export):
    server = make_server(export, "served", Limits())
    yield server
    server.batcher.close(5)


@pytest.fixture(scope="module")
def model_server(exported):
    server = make_server(exported.translator, "served", Limits())
    yield server
    server.batcher.close(5)


def texts(translations: list[Translation]) -> list[list[str]]:
    return [[hypothesis.text for hypothesis in translation.hypotheses] for translation in translations]


@pytest.mark.parametrize("n_best", [1, NBEST])
def test_an_export_translates_as_its_model_does(exported, export, n_best):
    found, expected = (one.translate_batch(TEXTS, n_best=n_best) for one in (export, exported.translator))
    assert texts(found) == texts(expected)
    for ours, theirs in zip(found, expected, strict=True):
        scores = [hypothesis.score for hypothesis in theirs.hypotheses]
        assert [hypothesis.score for hypothesis in ours.hypotheses] == pytest.approx(scores, abs=1e-4)


@pytest.mark.parametrize("n_best", [1, NBEST])
def test_an_export_returns_attention_as_its_model_does(exported, export, n_best):
    """The same tokens and weights, for more texts than one call takes; the length limit cuts some off."""
    asked = [*TEXTS, *SENTENCES[50:58], "reads " * 8]
    found, expected = (
        one.translate_batch(asked, n_best=n_best, attention=True) for one in (export, exported.translator)
    )
    assert texts(found) == texts(expected)
    for ours, theirs in zip(found, expected, strict=True):
        for one, other in zip(ours.hypotheses, theirs.hypotheses, strict=True):
            assert len(one.attention) == len(other.attention)
            for here, there in zip(one.attention, other.attention, strict=True):
                assert (here.source, here.target) == (there.source, there.target)
                np.testing.assert_allclose(here.weights[: len(here.target)], there.weights, atol=1e-4)
    assert [len(translation.best.attention) for translation in found][:3] == [1, 0, 1]


def test_alignments_cover_a_long_text_with_either_translator(server, model_server):
    """Split at lines, at sentence ends and, where an export truncates it, in half."""
    text = f"{' '.join(SENTENCES[:12])}\n\n{SENTENCES[20]}"
    for one in (server, model_server):
        answer = ask(one, "POST", "/translate", json={"text": text, "alignments": True})
        [translation] = answer.json()["translations"]
        alignment = translation["alignment"]
        shown = "".join(text[word["start"] : word["end"]] for word in alignment["source"])
        assert shown == "".join(text.split())
        # Translations of the random model contain byte tokens, not all of which form letters.
        places = [place for word in alignment["target"] for place in (word["start"], word["end"])]
        assert places == sorted(places) and places[-1] <= len(translation["text"])
        assert [sum(word["weights"]) for word in alignment["target"]] == pytest.approx(
            [1] * len(alignment["target"]), abs=2e-3
        )
        last = alignment["target"][-1]
        assert alignment["source"][last["first"]]["start"] == text.index("\n\n") + 2
        assert last["first"] + len(last["weights"]) == len(alignment["source"])


# Values for each setting of the search that differ from the model's own. A new setting needs some here.
SAMPLING = {"beam_size": 1, "temperature": 0.7, "top_k": 5, "top_p": 0.9, "seed": 5}
CHOICES = {"mbr": "chrf", "mbr_candidates": 4}
LIMITS = {"max_length_ratio": 0.3, "no_repeat_ngram": 2, "repetition_penalty": 1.5}
OTHER_VALUES = {
    **{name: {name: value} for name, value in (("beam_size", 2), ("length_penalty", 0.5), ("coverage_penalty", 0.2))},
    **{name: {name: value} for name, value in (("pruning_threshold", 0.0), ("min_length", 2), ("max_length", 20))},
    **dict.fromkeys(LIMITS, LIMITS),
    **dict.fromkeys(CHOICES, CHOICES),
    "on_warning": {"on_warning": "retry"},
    **{name: SAMPLING for name in SAMPLING if name != "beam_size"},
}


# A tag needs a model that was trained with it.
@pytest.mark.parametrize("name", [name for name in SearchSettings.model_fields if name not in (CHANGEABLE, "tag")])
def test_every_setting_reaches_a_model_and_an_export_refuses_other_values_than_its_own(
    exported, server, model_server, name
):
    lines = SENTENCES[:3]
    body = {"text": lines, **OTHER_VALUES[name]}
    answer = ask(model_server, "POST", "/translate", json=body)
    expected = exported.translator.with_settings(**OTHER_VALUES[name]).translate(lines)
    assert [one["text"] for one in answer.json()["translations"]] == expected
    status, message = read_error(ask(server, "POST", "/translate", json=body))
    assert status == 400
    first = next(iter(OTHER_VALUES[name]))
    assert re.match(rf"This export was made with decoding\.{first} \S+ and cannot translate with ", message)
    own = getattr(exported.translator.settings, name)
    assert ask(server, "POST", "/translate", json={"text": lines, name: own}).status_code == 200


def test_an_export_refuses_more_hypotheses_than_it_returns(server):
    status, message = read_error(ask(server, "POST", "/translate", json={"text": "a", "n_best": NBEST + 1}))
    assert status == 400
    assert f"at most {NBEST} translations per line, and {NBEST + 1} were requested" in message
    answer = ask(server, "POST", "/translate", json={"text": "a", "n_best": NBEST})
    assert len(answer.json()["translations"][0]["alternatives"]) == NBEST - 1
    document = ask(server, "GET", "/openapi.json").json()
    schema = document["paths"]["/translate"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema["properties"]["n_best"]["maximum"] == NBEST


def test_predict_returns_what_the_signatures_return(exported, server):
    for signature in ("serving_default", "nbest"):
        expected = exported.call(signature, TEXTS)
        answer = ask(server, "POST", "/v1/models/served:predict", json={"signature_name": signature, "inputs": TEXTS})
        for name, column in answer.json()["outputs"].items():
            if expected[name].dtype == object:
                assert column == np.vectorize(bytes.decode, otypes=[object])(expected[name]).tolist()
            else:
                np.testing.assert_allclose(column, expected[name], atol=1e-4)


def test_a_long_text_is_truncated_by_predict_and_translated_whole_by_translate(export, server):
    long = " ".join(SENTENCES[:20])
    assert len(long) > MAX_CHARACTERS
    answer = ask(server, "POST", "/v1/models/served:predict", json={"inputs": [long]})
    assert answer.json()["outputs"]["truncated"] == [True]
    answer = ask(server, "POST", "/translate", json={"text": f"{long}\n{SENTENCES[1]}"})
    first, last = answer.json()["translations"][0]["text"].split("\n")
    assert last == export.translate([SENTENCES[1]])[0]
    assert first == " ".join(export.translate(SENTENCES[:20]))


def test_predict_cuts_long_texts_for_a_model_before_they_wait(exported, model_server, monkeypatch):
    """The model reads them in parts, and so would a batch: many parts at once."""
    long = " ".join(SENTENCES[:60])
    assert exported.translator.count_tokens([long])[0] > exported.translator.max_tokens
    asked = []
    monkeypatch.setattr(model_server.batcher, "submit", record_texts(model_server.batcher.submit, asked))
    answer = ask(model_server, "POST", "/v1/models/served:predict", json={"inputs": ["a", long]})
    [_, expected] = exported.translator.translate_batch(["a", long])
    assert answer.json()["outputs"]["translation"][1] == expected.text
    assert answer.json()["outputs"]["log_prob"][1] == pytest.approx(expected.log_prob, rel=1e-4)
    assert len(asked) > 2
    assert max(exported.translator.count_tokens(asked)) <= exported.translator.max_tokens


def record_texts(submit, asked):
    def record(texts, *rest, **options):
        asked.extend(texts)
        return submit(texts, *rest, **options)

    return record


def test_nbest_of_a_model_has_the_columns_of_its_export(server, model_server):
    body = {"signature_name": "nbest", "inputs": [SENTENCES[0]]}
    answers = [ask(one, "POST", "/v1/models/served:predict", json=body).json() for one in (server, model_server)]
    for answer in answers:
        assert [len(answer["outputs"][name][0]) for name in ("translations", "scores", "log_probs")] == [NBEST] * 3


def test_translate_splits_as_python_does(export, server):
    for mode in ("auto", "always", "never"):
        answer = ask(server, "POST", "/translate", json={"text": [PARAGRAPH, "…"], "split_sentences": mode})
        found = [one["text"] for one in answer.json()["translations"]]
        assert found == export.with_settings(split_sentences=mode).translate([PARAGRAPH, "…"])


def test_requests_of_one_batch_get_their_own_translations(exported, server):
    async def crowd():
        async with client_of(server) as client:
            return await asyncio.gather(*(client.post("/translate", json={"text": text}) for text in SENTENCES[:64]))

    found = [answer.json()["translations"][0]["text"] for answer in asyncio.run(crowd())]
    assert found == exported.translator.translate(SENTENCES[:64])
    assert len(set(found)) > 60


@pytest.mark.parametrize(
    ("option", "own"), [("--beam-size", "5"), ("--length-penalty", r"1\.0"), ("--pruning-threshold", r"3\.0")]
)
def test_settings_other_than_an_exports_own_are_refused_before_it_is_served(exported, option, own):
    """Through the command line, which must pass its options on."""
    done = CliRunner().invoke(app, ["serve", str(exported.version), "--port", "0", option, "2"])
    setting = option.removeprefix("--").replace("-", "_")
    assert done.exit_code == 2
    assert re.search(rf"made with decoding\.{setting} {own} and cannot translate with 2", done.output)


def test_the_version_is_the_folders(exported, export):
    assert (export.version, export.max_n_best) == (1, NBEST)
    assert isinstance(export, SavedModelTranslator)
    with pytest.raises(UserError, match="There is no folder"):
        open_model(exported.version / "nowhere", {})
