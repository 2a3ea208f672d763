"""Prefixes and phrases in POST /translate, and POST /complete, with a fake translator."""

from typing import Any

import pytest

from nmt.errors import UserError
from nmt.translators.hypothesis import Hypothesis, Translation
from nmt.translators.protocol import Translator
from nmt.translators.settings import change_settings
from tests.server.server_fakes import FakeTranslator, ask, make_fake, read_error


class Demanding(FakeTranslator):
    """Writes what is demanded before the text in capitals."""

    def with_settings(self, **changes: Any) -> "Demanding":
        return Demanding(change_settings(self.settings, changes), self)

    def translate_batch(self, texts, *, n_best=1, attention=False, prefixes=None, required=None):
        if prefixes is None:
            return super().translate_batch(texts, n_best=n_best, attention=attention)
        found = [
            " ".join([prefix, *phrases, text.upper()])
            for text, prefix, phrases in zip(texts, prefixes, required, strict=True)
        ]
        return [Translation(text, [Hypothesis(one, -1.0, -1.0)]) for text, one in zip(texts, found, strict=True)]


class Free(FakeTranslator):
    check_demands, list_alternatives = Translator.check_demands, Translator.list_alternatives

    def with_settings(self, **changes: Any) -> "Free":
        return self


@pytest.fixture(scope="module")
def server():
    server = make_fake(Demanding(), max_texts=3, max_characters=30)
    yield server
    server.batcher.close(5)


def translate(server, **body):
    answer = ask(server, "POST", "/translate", json=body)
    assert answer.status_code == 200, answer.text
    return [one["text"] for one in answer.json()["translations"]]


def test_translations_begin_with_a_prefix_and_contain_phrases(server):
    assert translate(server, text="a b", prefix="p") == ["p A B"]
    assert translate(server, text=["a", "b"], prefix=["p", ""], required=[["x", "y z"], []]) == ["p x y z A", " B"]
    assert translate(server, text=" one line\nanother one", prefix="p", required=["x"]) == [
        "p ONE LINE\n x ANOTHER ONE"
    ]
    assert translate(server, text="a", prefix="", required=[]) == ["A"]


def test_what_a_text_without_letters_lacks_is_reported(server):
    answer = ask(server, "POST", "/translate", json={"text": ["…", "a"], "required": [["x"], []]})
    assert [[one["kind"] for one in each["warnings"]] for each in answer.json()["translations"]] == [["unmet"], []]


def test_alternatives_have_probabilities_and_translations(server):
    answer = ask(server, "POST", "/complete", json={"text": ["a", "b"], "prefix": ["p", ""], "n": 2})
    assert answer.status_code == 200, answer.text
    assert answer.json()["alternatives"] == [
        [
            {"text": "p1", "probability": 0.5, "translation": "p1 a"},
            {"text": "p2", "probability": 0.25, "translation": "p2 a"},
        ],
        [
            {"text": "1", "probability": 0.5, "translation": "1 b"},
            {"text": "2", "probability": 0.25, "translation": "2 b"},
        ],
    ]
    [alone] = ask(server, "POST", "/complete", json={"text": "a"}).json()["alternatives"]
    assert [one["text"] for one in alone] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        (
            "translate",
            {"text": ["a", "b"], "prefix": "p"},
            "prefixes: expected an entry for each of the 2 texts, found 1.",
        ),
        ("translate", {"text": "a", "prefix": "p\nq"}, "prefixes: expected text without line breaks, found 'p\\nq'."),
        ("translate", {"text": "a", "prefix": "p\n"}, "prefixes: expected text without line breaks, found 'p\\n'."),
        (
            "translate",
            {"text": "a", "prefix": "p", "format": "html"},
            "format: html cannot be combined with prefix and",
        ),
        (
            "translate",
            {"text": "a", "required": ["x"], "beam_size": 1},
            "required: greedy search would put the phrases",
        ),
        (
            "complete",
            {"text": ["a", "b"], "prefix": []},
            "prefixes: expected an entry for each of the 2 texts, found 0.",
        ),
        ("complete", {"text": "a", "n": 33}, "n: input should be less than or equal to 32; found 33."),
        ("complete", {"text": "a", "prefix": "p" * 31}, "A text can have at most 30 characters, found 31 in prefix 0"),
        ("translate", {"text": "a", "prefix": "p" * 31}, "A text can have at most 30 characters, found 31 in prefix 0"),
        (
            "translate",
            {"text": "a", "required": ["x" * 16, "y" * 16]},
            "A text can have at most 30 characters, found 32 in list of required phrases 0",
        ),
        ("complete", {"texts": "a"}, "texts: unknown key. Did you mean 'text'?"),
        ("complete", {}, "text: missing; expected a text or a list of texts."),
        ("complete", {"text": "a", "prefx": "p"}, "prefx: unknown key. Did you mean 'prefix'?"),
    ],
)
def test_demands_that_cannot_be_met_are_refused_by_name(server, path, body, words):
    status, message = read_error(ask(server, "POST", f"/{path}", json=body))
    assert status == 400 and message.startswith(words)


def test_what_is_demanded_counts_as_work():
    server = make_fake(Demanding(), max_work=300)
    for path, body in (
        ("translate", {"text": "a", "prefix": "p" * 20}),
        ("translate", {"text": "a", "required": ["x" * 20]}),
        ("translate", {"text": "a b c", "mbr": "chrf", "mbr_candidates": 30}),
        ("translate", {"text": "a b c d e f g", "on_warning": "retry"}),
        ("complete", {"text": "a", "prefix": "p" * 20, "n": 1}),
    ):
        status, message = read_error(ask(server, "POST", f"/{path}", json=body))
        assert status == 400 and "is too much work" in message, body
    server.batcher.close(5)


def test_only_texts_with_demands_are_not_split_into_sentences():
    server = make_fake(Demanding())
    assert translate(server, text=["One. Two.", "One. Two."], prefix=["p", ""]) == ["p ONE. TWO.", " ONE.  TWO."]
    server.batcher.close(5)


def test_what_only_the_translator_refuses_is_no_failure(caplog):
    class Fixed(Demanding):
        def list_alternatives(self, texts, prefixes, *, n=5):
            raise UserError("n: expected 1 to 3")

    server = make_fake(Fixed())
    answer = ask(server, "POST", "/complete", json={"text": "a"})
    assert read_error(answer) == (400, "n: expected 1 to 3") and not caplog.records
    server.batcher.close(5)


def test_an_export_for_litert_refuses_them():
    server = make_fake(Free())
    for path in ("translate", "complete"):
        status, message = read_error(ask(server, "POST", f"/{path}", json={"text": "a", "prefix": "p"}))
        assert status == 400 and message.startswith("prefixes: an export for LiteRT takes no prefixes or phrases.")
    server.batcher.close(5)
