"""POST /score, with a fake translator."""

import asyncio

import pytest

from nmt.server.fair_queue import Options, ScoringOptions
from nmt.translators.protocol import Translator
from nmt.translators.settings import change_settings
from tests.server.server_fakes import FakeTranslator, ask, client_of, make_fake, read_error


class Tagged(FakeTranslator):
    tags = ("<a>", "<b>")

    def with_settings(self, **changes):
        other = Tagged(change_settings(self.settings, changes), self)
        return other._with(other.settings)


class Export(FakeTranslator):
    score, count_target_tokens = Translator.score, Translator.count_target_tokens


@pytest.fixture(scope="module")
def server():
    server = make_fake(Tagged(), max_texts=3, max_characters=1000)
    yield server
    server.batcher.close(5)


def score(server, *pairs, **fields):
    pairs = [{"source": source, "target": target} for source, target in pairs]
    return ask(server, "POST", "/score", json={"pairs": pairs, **fields})


def test_each_pair_has_its_log_probability_and_that_of_each_token(server):
    answer = score(server, ("a b", "x y"), ("", ""))
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "scores": [
            {"log_prob": -12, "mean_log_prob": -4, "tokens": ["x", "y", "</s>"], "token_log_probs": [-3, -4, -5]},
            {"log_prob": -1, "mean_log_prob": -1, "tokens": ["</s>"], "token_log_probs": [-1]},
        ]
    }
    assert score(server).json() == {"scores": []}


def test_a_tag_reaches_the_translator_and_an_unknown_one_is_refused():
    translator = Tagged()
    server = make_fake(translator)
    for tag in (None, "<b>"):
        assert score(server, ("a", "b"), tag=tag).status_code == 200
        assert translator.used[-1].tag == tag
    status, message = read_error(score(server, ("a", "b"), tag="<c>"))
    assert (status, message) == (400, "decoding.tag: the model does not know <c>; expected one of its tags, <a>, <b>.")
    server.batcher.close(5)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "pairs: missing; expected a list of objects with source and target."),
        ({"text": "a"}, "text: unknown key."),
        ({"pairs": "a"}, 'pairs: input should be a valid list; found "a".'),
        ({"pairs": [{"source": "a"}]}, "pairs.0.target: missing."),
        ({"pairs": [{"source": "a", "target": 1}]}, "pairs.0.target: input should be a valid string; found 1."),
        ({"pairs": [{"source": "a", "target": "b", "c": 1}]}, "pairs.0.c: extra inputs are not permitted"),
        ({"pairs": [{"source": "a", "target": "b"}] * 4}, "at most 3 texts, found 4"),
        ({"pairs": [{"source": "a", "target": "b" * 1001}]}, "at most 1,000 characters, found 1,001 in text 0"),
        (
            {"pairs": [{"source": "a", "target": "b"}, {"source": "a", "target": "b " * 101}]},
            "pairs.1.target: found 101 tokens, but at most 100 can be scored at once. Score it in parts.",
        ),
    ],
)
def test_a_bad_request_gets_400_and_what_was_expected(server, body, words):
    status, message = read_error(ask(server, "POST", "/score", json=body))
    assert status == 400
    assert words in message


def test_an_export_refuses_and_names_what_to_do():
    server = make_fake(Export())
    status, message = read_error(score(server, ("a", "b")))
    assert (status, message[:66]) == (400, "An export translates, but does not score given translations: open ")
    server.batcher.close(5)


def test_scores_and_translations_share_the_queue_but_no_batch():
    """Pairs of two requests are scored together; a text to translate in between has a batch of its own."""
    translator = FakeTranslator()
    server = make_fake(translator, max_wait=0.2)

    async def send():
        async with client_of(server) as client:
            requests = [
                client.post("/score", json={"pairs": [{"source": "a", "target": "b"}]}),
                client.post("/translate", json={"text": "c"}),
                client.post("/score", json={"pairs": [{"source": "d", "target": "e f"}]}),
            ]
            return await asyncio.gather(*requests)

    first, translated, second = asyncio.run(send())
    assert [one.json()["scores"][0]["log_prob"] for one in (first, second)] == [-2 - 3, -2 - 3 - 4]
    assert translated.json()["translations"][0]["text"] == "C"
    assert sorted(map(sorted, translator.batches)) == [["a = b", "d = e f"], ["c"]]
    server.batcher.close(5)


def test_a_pair_that_fails_does_not_fail_the_others():
    server = make_fake(FakeTranslator(), max_wait=0.1)

    async def send():
        async with client_of(server) as client:
            pairs = [[{"source": "a", "target": target}] for target in ("b", "bomb")]
            return await asyncio.gather(*(client.post("/score", json={"pairs": pair}) for pair in pairs))

    assert [answer.status_code for answer in asyncio.run(send())] == [200, 500]
    server.batcher.close(5)


def test_a_request_with_too_much_work_is_refused():
    """Work is the tokens of the longer side with EOS, whatever the beam size, because nothing is searched."""
    server = make_fake(FakeTranslator().with_settings(beam_size=9), max_work=5)
    assert score(server, ("a", "b c d e")).status_code == 200
    assert (
        "is too much work: at most 5 tokens of texts and translations"
        in read_error(score(server, ("a b c d e", "")))[1]
    )
    options = Options(FakeTranslator().settings)
    assert ScoringOptions(options.settings) != options
    assert ScoringOptions(options.settings).estimate_work(4) == 5
    server.batcher.close(5)
