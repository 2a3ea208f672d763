"""A model and an export behind a server: the same answers, and what an export cannot do."""

import asyncio
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from nmt.cli.main import app
from nmt.errors import UserError
from nmt.server.app import make_server
from nmt.server.engine import Answer, ExportEngine, ModelEngine, Options, open_engine
from nmt.server.limits import Limits
from nmt.translators.savedmodel import SavedModelTranslator
from tests.exported_model import MAX_CHARACTERS, NBEST, SENTENCES
from tests.server.server_fakes import FakeTranslator, ask, client_of, refusal

TEXTS = [SENTENCES[0], "", SENTENCES[40]]


@pytest.fixture(scope="module")
def export(exported) -> ExportEngine:
    return open_engine(exported.version)


@pytest.fixture(scope="module")
def server(export):
    server = make_server(export, "served", Limits())
    yield server
    server.batcher.close(5)


def texts(answers: list[Answer]) -> list[list[str]]:
    return [[candidate.text for candidate in answer.candidates] for answer in answers]


@pytest.mark.parametrize("n_best", [1, NBEST])
def test_an_export_answers_as_its_model_does(exported, export, n_best):
    model = ModelEngine(exported.translator)
    options = Options(n_best=n_best)
    found, expected = export.answer(TEXTS, options), model.answer(TEXTS, options)
    assert texts(found) == texts(expected)
    for ours, theirs in zip(found, expected, strict=True):
        scores = [candidate.score for candidate in theirs.candidates]
        assert [candidate.score for candidate in ours.candidates] == pytest.approx(scores, abs=1e-4)


@pytest.mark.parametrize("n_best", [1, NBEST])
def test_an_export_tells_attention_as_its_model_does(exported, export, n_best):
    """The same pieces and weights, for more texts than are asked about at a time; the length limit cuts some off."""
    asked = [*TEXTS, *SENTENCES[50:58], "reads " * 8]
    options = Options(n_best=n_best, attention=True)
    found = export.answer(asked, options)
    expected = ModelEngine(exported.translator).answer(asked, options)
    assert texts(found) == texts(expected)
    for ours, theirs in zip(found, expected, strict=True):
        for one, other in zip(ours.candidates, theirs.candidates, strict=True):
            assert len(one.attended) == len(other.attended)
            for here, there in zip(one.attended, other.attended, strict=True):
                assert (here.source, here.target) == (there.source, there.target)
                np.testing.assert_allclose(here.weights[: len(here.target)], there.weights, atol=1e-4)
    assert [len(answer.candidates[0].attended) for answer in found][:3] == [1, 0, 1]


def test_alignments_cover_a_long_text_whatever_answers(exported, export, server):
    """Divided at lines, at sentences and, where it is too long for an export, in split_in_half."""
    text = f"{' '.join(SENTENCES[:12])}\n\n{SENTENCES[20]}"
    model = make_server(ModelEngine(exported.translator), "served", Limits())
    for one in (server, model):
        answer = ask(one, "POST", "/translate", json={"text": text, "alignments": True})
        [translation] = answer.json()["translations"]
        alignment = translation["alignment"]
        shown = "".join(text[word["start"] : word["end"]] for word in alignment["source"])
        assert shown == "".join(text.split())
        # This model's translations are bytes at random, not all of which are letters.
        places = [place for word in alignment["target"] for place in (word["start"], word["end"])]
        assert places == sorted(places) and places[-1] <= len(translation["text"])
        assert [sum(word["weights"]) for word in alignment["target"]] == pytest.approx(
            [1] * len(alignment["target"]), abs=2e-3
        )
        last = alignment["target"][-1]
        assert alignment["source"][last["first"]]["start"] == text.index("\n\n") + 2
        assert last["first"] + len(last["weights"]) == len(alignment["source"])
    model.batcher.close(5)


def test_options_that_are_the_models_own_meet():
    engine = ModelEngine(FakeTranslator())
    assert engine.settle(Options(beam_size=5, length_penalty=1, log_probs=True)) == Options()
    assert engine.settle(Options(3, 4, 1.0)) == Options(3, 4)


def test_what_was_fixed_at_export_is_refused(server):
    for body, words in (
        ({"beam_size": 2}, "made with decoding.beam_size 5 and cannot translate with 2"),
        ({"n_best": NBEST + 1}, f"at most {NBEST} translations a line, and {NBEST + 1} were asked for"),
    ):
        status, message = refusal(ask(server, "POST", "/translate", json={"text": "a", **body}))
        assert status == 400
        assert words in message
    assert ask(server, "POST", "/translate", json={"text": "a", "beam_size": 5, "n_best": 2}).status_code == 200


def test_predicting_answers_what_the_signatures_say(exported, server):
    for signature in ("serving_default", "nbest"):
        expected = exported.call(signature, TEXTS)
        answer = ask(server, "POST", "/v1/models/served:predict", json={"signature_name": signature, "inputs": TEXTS})
        for name, column in answer.json()["outputs"].items():
            if expected[name].dtype == object:
                assert column == np.vectorize(bytes.decode, otypes=[object])(expected[name]).tolist()
            else:
                np.testing.assert_allclose(column, expected[name], atol=1e-4)


def test_a_long_text_is_cut_by_the_contract_and_translated_whole_for_people(export, server):
    long = " ".join(SENTENCES[:20])
    assert len(long) > MAX_CHARACTERS
    answer = ask(server, "POST", "/v1/models/served:predict", json={"inputs": [long]})
    assert answer.json()["outputs"]["truncated"] == [True]
    answer = ask(server, "POST", "/translate", json={"text": f"{long}\n{SENTENCES[1]}"})
    first, last = answer.json()["translations"][0]["text"].split("\n")
    assert last == texts(export.answer([SENTENCES[1]], Options()))[0][0]
    assert len(first) > len(last)


def test_users_of_one_batch_get_their_own_answers(exported, server):
    async def crowd():
        async with client_of(server) as client:
            return await asyncio.gather(*(client.post("/translate", json={"text": text}) for text in SENTENCES[:64]))

    found = [answer.json()["translations"][0]["text"] for answer in asyncio.run(crowd())]
    assert found == exported.translator.translate(SENTENCES[:64])
    assert len(set(found)) > 60


@pytest.mark.parametrize(
    ("option", "own"), [("--beam-size", "5"), ("--length-penalty", r"1\.0"), ("--pruning", r"3\.0")]
)
def test_a_search_that_an_export_was_not_made_for_is_refused_before_it_serves(exported, option, own):
    """By the command line, which must hand on what it is told."""
    done = CliRunner().invoke(app, ["serve", str(exported.version), "--port", "0", option, "2"])
    setting = option.removeprefix("--").replace("-", "_")
    assert isinstance(done.exception, UserError)
    assert re.search(rf"made with decoding\.{setting} {own} and cannot translate with 2", str(done.exception))


def test_the_version_is_the_folders(exported, export):
    assert (export.version, export.nbest) == (1, NBEST)
    assert isinstance(export._translator, SavedModelTranslator)
    with pytest.raises(UserError, match="There is no folder"):
        open_engine(exported.version / "nowhere")
