"""Responses and errors of nmt's own paths, with a fake translator."""

import asyncio
import gzip
import json
import random
import re
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import httpx
import pytest
from pydantic import Field

from nmt.config.schema import SearchSettings
from nmt.errors import UserError
from nmt.server import middleware, translate_routes
from nmt.server.middleware import read_key
from nmt.translators.checks import CUT_OFF
from nmt.translators.settings import change_settings
from tests.server.server_fakes import FakeTranslator, ask, client_of, make_fake, read_error


@pytest.fixture(scope="module")
def server():
    server = make_fake(max_body=3000, max_texts=3, max_characters=1000)
    yield server
    server.batcher.close(5)


def translations(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [translation["text"] for translation in answer.json()["translations"]]


def test_a_text_or_several_are_translated(server):
    answer = ask(server, "POST", "/translate", json={"text": "a b"})
    best = {"text": "A B", "score": pytest.approx(-0.1), "finished": True, "alternatives": [], "warnings": []}
    assert answer.json() == {"translations": [best]}
    assert translations(ask(server, "POST", "/translate", json={"text": ["a", "b", "a"]})) == ["A", "B", "A"]
    assert translations(ask(server, "POST", "/translate", json={"text": []})) == []


def test_no_header_is_needed(server):
    assert translations(ask(server, "POST", "/translate", content='{"text": "ä"}'.encode())) == ["Ä"]


def test_line_breaks_are_kept_and_blank_text_is_blank(server):
    text = "\na\r\n\r\n  \nb. c?\rd\n"
    assert translations(ask(server, "POST", "/translate", json={"text": [text, "", " "]})) == [
        "\nA\r\n\r\n  \nB. C?\rD\n",
        "",
        " ",
    ]


def test_confidence_is_returned_if_there_is_one(server):
    [found] = ask(server, "POST", "/translate", json={"text": "doubt"}).json()["translations"]
    assert found["confidence"] == 0.25 and "part_confidences" not in found
    [found] = ask(server, "POST", "/translate", json={"text": "doubt\nb\ndoubts", "n_best": 2}).json()["translations"]
    spans = [{"start": 0, "end": 5, "confidence": 0.25}, {"start": 8, "end": 14, "confidence": 0.25}]
    assert (found["confidence"], found["part_confidences"]) == (0.25, spans)
    assert found["alternatives"][0]["confidence"] == 0.25


def test_a_translation_that_was_cut_off_is_marked(server):
    [found] = ask(server, "POST", "/translate", json={"text": "a b\nendless"}).json()["translations"]
    assert (found["finished"], found["warnings"]) == (False, [asdict(CUT_OFF)])
    answer = ask(server, "POST", "/v1/models/demo:predict", json={"instances": ["endless", "a"]})
    assert [one["finished"] for one in answer.json()["predictions"]] == [False, True]


def test_alternatives_are_given_best_first(server):
    answer = ask(server, "POST", "/translate", json={"text": "a\nb", "n_best": 3})
    [best] = answer.json()["translations"]
    assert [best["text"], *(other["text"] for other in best["alternatives"])] == ["A\nB", "A2\nB2", "A3\nB3"]
    assert best["score"] > best["alternatives"][0]["score"] > best["alternatives"][1]["score"]


def test_each_word_has_its_attention(server):
    """Positions are those of the whole text, although it is translated in parts."""
    text = "ab c\r\n\n d e."
    answer = ask(server, "POST", "/translate", json={"text": [text, " "], "n_best": 2, "alignments": True})
    whole, blank = answer.json()["translations"]
    assert blank["alignment"] == {"source": [], "target": []}
    assert len(whole["alternatives"]) == 1
    for translation in (whole, *whole["alternatives"]):
        alignment = translation["alignment"]
        assert [text[word["start"] : word["end"]] for word in alignment["source"]] == ["ab", "c", "d", "e."]
        shown = [translation["text"][word["start"] : word["end"]] for word in alignment["target"]]
        assert shown == translation["text"].split()
        weights = [(word["first"], word["weights"]) for word in alignment["target"]]
        assert weights == [(0, [0.75, 0.25]), (0, [0, 1]), (2, [0.75, 0.25]), (2, [0, 1])]


def test_tags_of_html_come_back_around_the_same_words(server):
    def send(text, **fields):
        return ask(server, "POST", "/translate", json={"text": text, "format": "html", **fields})

    text = '<p title="<">ab <b>c &amp;lt;</b><br>\n<i>d</i> e</p>'
    expected = '<p title="<">AB <b>C &amp;LT;</b><br>\n<i>D</i> E</p>'
    assert translations(send([text, "", "<br>"])) == [expected, "", "<br>"]
    [best] = send("a <b>b</b>", n_best=2).json()["translations"]
    assert [best["text"], best["alternatives"][0]["text"]] == ["A <b>B</b>", "A <b>B2</b>"]
    # Limits are those of the text without its tags.
    assert translations(send(f"<p class='{'x' * 1500}'>a</p>")) == [f"<p class='{'x' * 1500}'>A</p>"]
    assert "at most 1,000 characters, found 1,001 in text 0" in read_error(send(f"<b>{'a' * 1001}</b>"))[1]


def test_settings_reach_the_translator():
    translator = FakeTranslator()
    server = make_fake(translator)
    for settings in (
        {},
        {"beam_size": 2},
        {"beam_size": 2, "length_penalty": 1},
        {"length_penalty": 0.5, "pruning_threshold": None},
        {"beam_size": 2.0, "min_length": 3},
    ):
        assert translations(ask(server, "POST", "/translate", json={"text": "a", **settings})) == ["A"]
        given = {name: value for name, value in settings.items() if value is not None}
        assert translator.used[-1] == SearchSettings(**given)
    server.batcher.close(5)


def test_a_new_setting_reaches_the_translator_without_server_code(monkeypatch):
    class NewSettings(SearchSettings):
        made_up: Annotated[int, Field(ge=2, le=9)] = 4
        """Something that nobody has thought of yet."""

    monkeypatch.setattr(translate_routes, "TranslateRequest", translate_routes.make_request_model(NewSettings))
    translator = FakeTranslator(NewSettings())
    server = make_fake(translator)
    schema = ask(server, "GET", "/openapi.json").json()["paths"]["/translate"]["post"]["requestBody"]
    found = schema["content"]["application/json"]["schema"]["properties"]["made_up"]
    assert found["description"] == "Something that nobody has thought of yet."
    assert {"type": "integer", "minimum": 2, "maximum": 9} in found["anyOf"]
    assert translations(ask(server, "POST", "/translate", json={"text": "a", "made_up": 7.0})) == ["A"]
    assert translator.used[-1] == NewSettings(made_up=7)
    status, message = read_error(ask(server, "POST", "/translate", json={"text": "a", "made_up": 10}))
    assert (status, message) == (400, "made_up: input should be less than or equal to 9; found 10.")
    server.batcher.close(5)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"text", "JSON Parse error: Invalid value"),
        (b'"text"', 'JSON Value: "text" Is not object'),
        (b'{"text": "\xff"}', "JSON Parse error: Invalid encoding in string. at offset: 10"),
        (b'{"text": "\\ud800"}', "The surrogate pair in string is invalid"),
        (b'{"\\uDFFF": "a"}', "The surrogate pair in string is invalid"),
        (b'{"text": "a", "n_best": {"a": ["\\udead"]}}', "The surrogate pair in string is invalid"),
        (b"[" * 2900, "JSON Parse error"),
        (b"{}", "text: missing; expected a text or a list of texts"),
        (b'{"txt": "a"}', "txt: unknown key. Did you mean 'text'?"),
        (b'{"text": 3}', "text: expected a text or a list of texts"),
        (b'{"text": ["a", null]}', "text: expected a text or a list of texts"),
        (b'{"text": "a", "n_best": 0}', "n_best: input should be greater than or equal to 1; found 0"),
        (b'{"text": "a", "n_best": "3"}', 'n_best: input should be a valid integer; found "3".'),
        (b'{"text": "a", "beam_size": 65}', "beam_size: input should be less than or equal to 64; found 65"),
        (b'{"text": "a", "max_length": 2147483648}', "max_length: input should be less than 2147483648; found"),
        (b'{"text": "a", "length_penalty": NaN}', "length_penalty: input should be a finite number"),
        (b'{"text": "a", "n_best": 65}', "n_best: expected 1 to 64"),
        (b'{"text": "a", "min_length": 9, "max_length": 9}', "min_length must be below max_length; found 9 and 9"),
        (b'{"text": "a", "beam": 2}', "beam: unknown key. Did you mean 'beam_size'?"),
        (b'{"text": "a", "batch_tokens": 2}', "batch_tokens: unknown key."),
        (b'{"text": "a", "format": "xml"}', "format: input should be 'text' or 'html'; found \"xml\"."),
        (b'{"text": "a", "format": "html", "alignments": true}', "alignments: cannot be combined with format: html"),
        (b'{"text": "' + b"<b>" * 501 + b"a" + b"</b>" * 101 + b'", "format": "html"}', "nested at most 99 deep"),
        (b'{"text": ["a", "b", "c", "d"]}', "at most 3 texts, found 4. Send several requests"),
        (
            json.dumps({"text": ["a", "b" * 1001]}).encode(),
            "at most 1,000 characters, found 1,001 in text 1 (counted from 0). Split it.",
        ),
        (
            json.dumps({"text": "\ufdfa" * 100}).encode(),
            "at most 1,000 characters, found 100 that the model reads as 1,800 in text 0",
        ),
    ],
)
def test_a_bad_request_gets_400_and_what_was_expected(server, body, words):
    status, message = read_error(ask(server, "POST", "/translate", content=body))
    assert status == 400
    assert words in message


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/page/", 404, "Not Found: GET /page/"),
        ("GET", "/docs", 404, "Not Found: GET /docs"),
        ("GET", "/translate", 405, "Method Not Allowed: GET /translate"),
    ],
)
def test_unknown_paths_get_errors_of_the_same_form(server, method, path, status, words):
    assert read_error(ask(server, method, path)) == (status, words)


def test_a_large_body_is_refused_with_and_without_a_content_length(server):
    async def pieces():
        for _ in range(4):
            yield b" " * 1000

    for content, headers in ((b" " * 3001, {}), (b" " * 3001, {"Expect": "100-continue"}), (pieces(), {})):
        answer = ask(server, "POST", "/translate", content=content, headers=headers)
        assert read_error(answer) == (413, "A request can have at most 3,000 bytes. Send several requests.")
        assert answer.headers["connection"] == "close"


def test_a_body_that_is_too_large_is_refused_before_it_has_arrived(monkeypatch):
    """A body that is longer than the server discards is refused at once, a shorter one after a little patience."""
    monkeypatch.setattr(middleware, "DISCARD_PATIENCE", 0.02)
    server = make_fake(max_body=3000)

    async def begin():
        yield b"{"
        await asyncio.sleep(5)

    for declared in ("4000", "9" * 20):
        answer = ask(server, "POST", "/translate", content=begin(), headers={"Content-Length": declared})
        assert read_error(answer)[0] == 413, declared
    server.batcher.close(5)


def test_gzip_bodies_are_read_within_the_same_limit(server):
    def send(body, encoding="gzip"):
        return ask(server, "POST", "/translate", content=body, headers={"Content-Encoding": encoding})

    body = gzip.compress(b'{"text": "a"}')
    assert translations(send(body)) == translations(send(body, "X-GZIP")) == ["A"]
    assert translations(send(b'{"text": "a"}', "identity")) == ["A"]
    assert read_error(send(gzip.compress(b" " * 3001)))[0] == 413
    status, message = read_error(send(b'{"text": "a"}'))
    assert (status, message[:62]) == (400, "The request body is not gzip, as its Content-Encoding says: Er")
    for wrong in (body[:-3], body + body, body + b"x"):
        assert read_error(send(wrong)) == (400, "The request body is not one complete gzip member.")
    answer = send(b"", "br")
    assert read_error(answer) == (415, "Content-Encoding: expected gzip or none, found 'br'.")
    assert answer.headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize("path", ["/", "/about", "/health", "/metrics", "/openapi.json", "/v1/models/demo"])
def test_head_is_answered_as_get_without_a_body(server, path):
    head, get = (ask(server, method, path) for method in ("HEAD", "GET"))
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    if path != "/metrics":
        assert head.headers["content-length"] == str(len(get.content))


def test_head_is_refused_where_get_is(server):
    assert ask(server, "HEAD", "/translate").status_code == 405
    assert ask(server, "HEAD", "/nowhere").status_code == 404


def test_a_byte_order_mark_is_skipped(server):
    for path, body in (("/translate", {"text": "a"}), ("/v1/models/demo:predict", {"inputs": ["a"]})):
        assert ask(server, "POST", path, content=b"\xef\xbb\xbf" + json.dumps(body).encode()).status_code == 200


def test_all_bodies_together_have_a_limit_but_small_ones_have_room():
    server = make_fake(max_bodies=250_000)
    arrived = asyncio.Event()

    async def begin():
        yield b" " * 200_000
        arrived.set()
        await asyncio.sleep(5)

    async def crowd():
        async with client_of(server) as client:
            slow = asyncio.create_task(client.post("/translate", content=begin()))
            await arrived.wait()
            large = await client.post("/translate", content=b" " * 200_000)
            small = await client.post("/translate", json={"text": "a" * 50_000, "beam_size": 1})
            slow.cancel()
            await asyncio.wait((slow,))
            return large, small, await client.post("/translate", content=b" " * 200_000)

    large, small, later = asyncio.run(crowd())
    assert read_error(large)[0] == 503 and "no memory for this request" in read_error(large)[1]
    assert large.headers["retry-after"] == "1"
    assert read_error(small)[0] == 400  # it was read
    assert read_error(later) == (400, "JSON Parse error: The document is empty")
    server.batcher.close(5)


def test_a_request_of_too_much_work_is_refused_before_it_is_queued():
    translator = FakeTranslator()
    server = make_fake(translator, max_work=500)
    for path, body, status in (
        ("/translate", {"text": "a b c d", "beam_size": 20}, 200),
        ("/translate", {"text": "a b c d", "beam_size": 21}, 400),
        ("/translate", {"text": "a b c d", "n_best": 21}, 400),
        ("/translate", {"text": ["a b c d"] * 5}, 400),
        ("/translate", {"text": "a", "max_length_ratio": 100}, 400),
        ("/v1/models/demo:predict", {"inputs": ["a b c d"] * 4}, 200),
        ("/v1/models/demo:predict", {"inputs": ["a b c d"] * 5}, 400),
    ):
        answer = ask(server, "POST", path, json=body)
        assert answer.status_code == status, body
        if status == 400:
            assert "is too much work: at most 500 tokens of texts and translations" in read_error(answer)[1]
    assert len(translator.batches) == 2
    server.batcher.close(5)


def test_a_request_cannot_ask_for_longer_translations_than_the_server_has():
    """A search cannot be interrupted: one of some thousand steps would keep all clients waiting."""
    server = make_fake(FakeTranslator().with_settings(max_length=300))
    assert translations(ask(server, "POST", "/translate", json={"text": "a", "max_length": 300})) == ["A"]
    assert read_error(ask(server, "POST", "/translate", json={"text": "a", "max_length": 100_000})) == (
        400,
        "max_length: expected at most 300, the server's own limit (decoding.max_length), found 100,000.",
    )
    schema = ask(server, "GET", "/openapi.json").json()["paths"]["/translate"]["post"]["requestBody"]["content"]
    [number, _] = schema["application/json"]["schema"]["properties"]["max_length"]["anyOf"]
    assert number == {"type": "integer", "minimum": 1, "maximum": 300}
    server.batcher.close(5)


def test_long_requests_of_one_client_are_cut_one_after_the_other_and_others_are_answered():
    """Cutting needs a thread. One client must not take them all, nor must it cut for a request that timed out."""
    go, cut = threading.Event(), []

    class SlowToSplit(FakeTranslator):
        def split_texts(self, texts, demands=None):
            if len(texts[0]) > 300:
                cut.append(len(texts))
                assert go.wait(10)
            return super().split_texts(texts, demands)

    server = make_fake(SlowToSplit(), timeout=0.3, max_characters=10_000)

    async def crowd():
        async with client_of(server) as client:
            long = [client.post("/translate", json={"text": ["a " * 4000] * 3}) for _ in range(40)]
            tasks = list(map(asyncio.create_task, long))
            await asyncio.sleep(0.05)
            short = await client.post("/translate", json={"text": "a"})
            answers = await asyncio.gather(*tasks)
            go.set()
            return short, answers

    short, answers = asyncio.run(crowd())
    assert translations(short) == ["A"]
    assert {read_error(answer)[0] for answer in answers} == {504}
    assert cut == [1]  # the first text of the first request
    server.batcher.close(5)


def test_probes_have_room_when_all_connections_are_busy():
    translator = FakeTranslator()
    translator.may_go.clear()
    server = make_fake(translator, max_connections=4)

    async def crowd():
        async with client_of(server) as client:
            tasks = [asyncio.create_task(client.post("/translate", json={"text": "a"})) for _ in range(3)]
            await asyncio.sleep(0.05)
            refused, probe = await client.post("/translate", json={"text": "a"}), await client.get("/health")
            translator.may_go.set()
            return refused, probe, await asyncio.gather(*tasks)

    refused, probe, answers = asyncio.run(crowd())
    assert read_error(refused) == (503, "The server is busy with 3 requests. Try again later.")
    assert refused.headers["retry-after"] == "1"
    assert [answer.status_code for answer in (probe, *answers)] == [200] * 4
    server.batcher.close(5)


def test_a_body_that_does_not_arrive_times_out():
    server = make_fake(timeout=0.05)

    async def slow():
        yield b"{"
        await asyncio.sleep(5)

    answer = ask(server, "POST", "/translate", content=slow())
    assert read_error(answer) == (408, "The request body did not arrive within 0.05 s.")
    server.batcher.close(5)


def test_a_full_queue_says_when_to_retry():
    translator = FakeTranslator()
    server = make_fake(translator, max_queue=2, max_batch=1)
    translator.may_go.clear()

    async def crowd():
        async with client_of(server) as client:
            tasks = []
            for _ in range(3):  # one is being translated, two wait
                tasks.append(asyncio.create_task(client.post("/translate", json={"text": "a"})))
                await asyncio.sleep(0.03)
            refused = await client.post("/translate", json={"text": "a"})
            translator.may_go.set()
            return refused, await asyncio.gather(*tasks)

    refused, answers = asyncio.run(crowd())
    status, message = read_error(refused)
    assert (status, message) == (
        429,
        "The queue has no room for this request: 2 of 2 places are taken. Try again later.",
    )
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert [translations(answer) for answer in answers] == [["A"]] * 3
    server.batcher.close(5)


def test_a_request_that_times_out_is_removed_from_the_queue():
    translator = FakeTranslator()
    server = make_fake(translator, timeout=0.05, max_batch=1)
    translator.may_go.clear()

    async def wait():
        async with client_of(server) as client:
            return await asyncio.gather(*(client.post("/translate", json={"text": text}) for text in "ab"))

    for answer in asyncio.run(wait()):
        assert read_error(answer) == (
            504,
            "The translation took longer than 0.05 s. Send less text, or try again later.",
        )
    translator.may_go.set()
    server.batcher.close(5)
    assert translator.batches == [["a"]]  # b was removed from the queue


def test_a_failure_gets_500_and_does_not_affect_other_requests(caplog):
    translator = FakeTranslator()
    server = make_fake(translator, max_wait=0.05)

    async def three():
        async with client_of(server) as client:
            return await asyncio.gather(*(client.post("/translate", json={"text": t}) for t in ("a", "bomb", "b")))

    first, bad, last = asyncio.run(three())
    assert translations(first) == ["A"] and translations(last) == ["B"]
    assert read_error(bad) == (500, "Internal error. See the log of the server.")
    assert ["a", "bomb", "b"] in translator.batches  # at first they were one batch
    assert "a defect of the model" in caplog.text
    server.batcher.close(5)


def test_no_translation_goes_to_another_request():
    """Sends 400 requests of one or several texts with markers, and with three kinds of options."""
    server = make_fake(max_batch=16, max_queue=5000)
    numbers = random.Random(1)

    async def one(client, number):
        texts = [f"m{number}x{n}" for n in range(numbers.randint(1, 3))]
        await asyncio.sleep(numbers.random() * 0.2)
        beam = numbers.choice([None, 2, 3])
        if number % 2:
            answer = await client.post("/translate", json={"text": texts, "beam_size": beam})
            found = translations(answer)
        else:
            answer = await client.post("/v1/models/demo:predict", json={"instances": texts})
            found = [row["translation"] for row in answer.json()["predictions"]]
        assert found == [text.upper() for text in texts]
        return len(texts)

    async def crowd():
        async with client_of(server) as client:
            return sum(await asyncio.gather(*(one(client, number) for number in range(400))))

    num_texts = asyncio.run(crowd())
    page = ask(server, "GET", "/metrics").text
    assert f"nmt_batch_texts_sum {num_texts}.0" in page
    num_batches = float(re.search(r"nmt_batch_texts_count (\S+)", page)[1])
    assert num_batches < num_texts / 2  # else there were no batches, and the test proves nothing
    server.batcher.close(5)


def test_the_commands_in_the_documentation_work(server):
    pages = (Path(__file__).parents[2] / "docs").rglob("*.md")
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    commands = re.findall(r"curl -s localhost:8501(\S+)(?: -d '([^']*)')?$", text, re.MULTILINE)
    assert len(commands) > 10
    for path, body in commands:
        if "token_log_probs" in body:  # which only TensorFlow Serving has
            continue
        answer = ask(server, "POST" if body else "GET", path, content=body or None)
        assert answer.status_code == 200, f"{path} {body}: {answer.text}"


def test_probes_and_metrics(server):
    assert ask(server, "GET", "/health").json() == {"status": "ok"}
    assert ask(server, "GET", "/ready").json() == {"status": "ready"}
    ask(server, "POST", "/translate", json={"text": "secretive"})
    ask(server, "GET", "/nowhere/secretive")
    answer = ask(server, "GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert re.search(r'nmt_requests_total\{path="/translate",status="200"\} \d', answer.text)
    assert 'nmt_requests_total{path="other",status="404"}' in answer.text
    assert "nmt_texts_waiting 0.0" in answer.text
    assert "secretive" not in answer.text


def test_the_openapi_document_lists_every_path_and_no_other_host(server):
    page = ask(server, "GET", "/openapi.json")
    assert set(page.json()["paths"]) == {
        "/about",
        "/translate",
        "/score",
        "/complete",
        "/health",
        "/ready",
        "/metrics",
        "/v1/models/{model}",
        "/v1/models/{model}/metadata",
        "/v1/models/{model}:predict",
        "/v1/models/{model}/versions/{version}",
        "/v1/models/{model}/versions/{version}/metadata",
        "/v1/models/{model}/versions/{version}:predict",
    }
    assert "http" not in page.text.replace("HTTPValidationError", "")


def test_a_stopping_server_refuses_new_requests():
    server = make_fake()
    server.middleware.is_draining = True
    for method, path in (("POST", "/translate"), ("GET", "/ready")):
        assert read_error(ask(server, method, path, json={"text": "a"})) == (503, "The server is stopping.")
    assert ask(server, "GET", "/health").status_code == 200
    server.batcher.close(5)
    server.middleware.is_draining = False
    assert read_error(ask(server, "POST", "/translate", json={"text": "a"})) == (503, "The server is stopping.")


def test_a_key_is_required(caplog):
    server = make_fake(key="s3cret")
    for headers in (
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "s3cret"},
        {"Authorization": "Bearer s3cret2"},
        {"X-API-Key": "s3cre"},
    ):
        answer = ask(server, "POST", "/translate", json={"text": "a"}, headers=headers)
        assert read_error(answer)[0] == 401
        assert "Send the header 'Authorization: Bearer KEY'" in read_error(answer)[1]
        assert answer.headers["www-authenticate"] == "Bearer"
    for headers in ({"Authorization": "bearer s3cret"}, {"X-API-Key": "s3cret"}):
        assert translations(ask(server, "POST", "/translate", json={"text": "a"}, headers=headers)) == ["A"]
    assert ask(server, "GET", "/metrics").status_code == ask(server, "GET", "/openapi.json").status_code == 401
    assert ask(server, "GET", "/health").status_code == ask(server, "GET", "/ready").status_code == 200
    assert "s3cret" not in caplog.text
    server.batcher.close(5)


def test_the_page_needs_no_key():
    server = make_fake(key="s3cret")
    assert ask(server, "GET", "/").status_code == ask(server, "GET", "/page/page.js").status_code == 200
    assert ask(server, "GET", "/about").status_code == 401
    server.batcher.close(5)


def test_a_key_comes_from_a_file_or_a_variable(tmp_path):
    file = tmp_path / "key"
    file.write_text("from-file\n")
    assert read_key({}, None) is None
    assert read_key({"NMT_API_KEY": "from-variable"}, None) == "from-variable"
    assert read_key({"NMT_API_KEY": "from-variable"}, file) == "from-file"
    with pytest.raises(UserError, match=r"--api-key-file .*nowhere cannot be read: No such file or directory\."):
        read_key({}, tmp_path / "nowhere")
    for key in ("", " ", "two words", "schlüssel"):
        with pytest.raises(UserError, match=r"NMT_API_KEY: expected a key of printable ASCII .* without spaces"):
            read_key({"NMT_API_KEY": key}, None)


def test_a_key_file_with_several_lines_or_readable_by_others_is_named(tmp_path):
    file = tmp_path / "key"
    file.write_text("one\ntwo\n")
    with pytest.raises(UserError, match=r"--api-key-file .*key: expected one line with a key, found 2 lines\."):
        read_key({}, file)
    file.write_text("one\n")
    logged = []
    for mode, warned in ((0o644, True), (0o640, True), (0o600, False), (0o400, False)):
        file.chmod(mode)
        assert read_key({}, file, logged.append) == "one"
        assert bool(logged) == warned
        if warned:
            assert logged.pop() == (
                f"Other users of this machine can read the key: {file} has mode {mode:04o}. Run: chmod 600 {file}"
            )


def test_a_server_without_its_thread_is_unhealthy():
    server = make_fake()
    server.batcher.close(5)
    assert read_error(ask(server, "GET", "/health")) == (500, "The translating thread has ended.")


@pytest.mark.parametrize("path", ["/translate", "/v1/models/demo:predict"])
def test_the_deepest_lists_that_can_be_read_are_refused(server, path):
    """Reading them almost exhausts the stack; an error message must not need more of it."""
    for depth in range(880, 1000):
        nested = "[" * depth + "]" * depth
        for document in (f'{{"text": "a", "n_best": {nested}}}', f'{{"instances": {nested}}}'):
            assert read_error(ask(server, "POST", path, content=document))[0] == 400, depth


def test_a_request_may_choose_a_tag_and_alignments_are_places_in_its_text():
    class Tagged(FakeTranslator):
        tags = ("<2x>", "<2y>")

        def with_settings(self, **changes):
            return self._with(change_settings(self.settings, changes))

    translator = Tagged()
    server = make_fake(translator)
    body = {"text": ["One. Two.", "<2y> One."], "tag": "<2x>", "alignments": True, "split_sentences": "always"}
    answer = ask(server, "POST", "/translate", json=body)
    assert translator.batches == [["<2x> One.", "<2x> Two.", "<2y> One."]]
    spans = [
        [(word["start"], word["end"]) for word in one["alignment"]["source"]] for one in answer.json()["translations"]
    ]
    assert [[text[start:end] for start, end in row] for text, row in zip(body["text"], spans, strict=True)] == [
        ["One.", "Two."],
        ["One."],
    ]
    html = {"text": "<2y> One<br>Two", "format": "html"}
    ask(server, "POST", "/translate", json=html)
    assert translator.batches[1] == ["<2y> One", "<2y> Two"]
    status, message = read_error(ask(server, "POST", "/translate", json={"text": "One.", "tag": "<2z>"}))
    assert (status, message) == (
        400,
        "decoding.tag: the model does not know <2z>; expected one of its tags, <2x>, <2y>.",
    )
    server.batcher.close(5)
